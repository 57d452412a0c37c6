//! The images that pulls are tested with, by the clients of others.
#![allow(missing_docs)]

use std::process::Command;

use cairn_integration::{
    image::{
        DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Packing, architecture, digest_by,
    },
    peers::{self, Containerd},
    registry::Registry,
    registry_images::{
        EMPTY, Repository, Shelf, TREE, another_architecture, foreign_maker, layers,
    },
    tree::Tree,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAME: &str = "shop/web";

/// A registry with a repository, and containerd to pull from it.
struct Scene {
    registry: Registry,
    containerd: Containerd,
    work: TempDir,
}

impl Scene {
    fn new() -> Scene {
        Scene {
            registry: Registry::start(),
            containerd: Containerd::start(),
            work: TempDir::new().expect("temporary directory"),
        }
    }

    fn repository(&self) -> Repository<'_> {
        Repository::new(&self.registry, NAME)
    }

    /// What skopeo says that a tag means, byte by byte.
    fn raw(&self, tag: &str) -> Vec<u8> {
        let name = format!("docker://{}", self.repository().reference(tag));
        let mut command = Command::new("skopeo");
        let ran = command
            .args(["inspect", "--raw", "--tls-verify=false", &name])
            .output();
        let ran = ran.expect("start skopeo");
        assert!(
            ran.status.success(),
            "{tag}: {}",
            String::from_utf8_lossy(&ran.stderr)
        );
        ran.stdout
    }

    /// A tag means this, by what others compute of it.
    fn means(&self, tag: &str, described: &Value, media_type: &str) {
        let file = self.work.path().join(tag);
        std::fs::write(&file, self.raw(tag)).expect("manifest");
        let file = file.display().to_string();
        let theirs = peers::run("skopeo", &["manifest-digest", &file]);
        assert_eq!(json!(theirs.trim()), described["digest"], "{tag}");
        let stored = self.registry.manifest(NAME, tag).expect("there");
        assert_eq!(
            (stored.media_type.as_str(), json!(stored.digest)),
            (media_type, described["digest"].clone())
        );
    }

    /// containerd pulls it and unpacks it to this tree.
    fn unpacks(&self, tag: &str, tree: &[&str]) {
        let name = self.repository().reference(tag);
        let target = self.work.path().join(format!("mnt-{tag}"));
        std::fs::create_dir(&target).expect("target");
        let target = target.display().to_string();
        self.containerd
            .ok(&["images", "pull", "--plain-http", &name]);
        self.containerd.ok(&["images", "mount", &name, &target]);
        let lines = Tree::read(target.as_ref()).lines();
        self.containerd.ok(&["images", "unmount", &target]);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        // containerd leaves the root as it made it.
        let lines: Vec<&str> = lines
            .into_iter()
            .filter(|line| !line.starts_with("dir . "))
            .collect();
        assert_eq!(lines, tree, "{tag}");
    }
}

#[test]
fn manifests_and_lists_of_every_kind() {
    let scene = Scene::new();
    let repository = scene.repository();
    for (tag, described, media_type) in [
        ("docker", repository.docker(), DOCKER_MANIFEST),
        ("docker-list", repository.docker_list(), DOCKER_LIST),
        ("index", repository.index(), OCI_INDEX),
        ("nested", repository.nested(), OCI_INDEX),
        ("bare-index", repository.bare_index(), OCI_INDEX),
        (
            "zstd",
            repository.packed("zstd", Packing::Zstd),
            OCI_MANIFEST,
        ),
        ("estargz", repository.estargz(), OCI_MANIFEST),
        ("zstd-chunked", repository.zstd_chunked(), OCI_MANIFEST),
        ("data", repository.data(), OCI_MANIFEST),
    ] {
        scene.means(tag, &described, media_type);
    }
    for tag in [
        "docker",
        "docker-list",
        "index",
        "nested",
        "bare-index",
        "zstd",
        "data",
    ] {
        scene.unpacks(tag, &TREE);
    }
    let chunked = [
        "dir etc 0755",
        "file etc/name 0644 = chunked\\n",
        "file etc/other 0644 = ",
    ];
    scene.unpacks("zstd-chunked", &chunked);
    // Whoever does not know what it is sees its table, too.
    let name = scene.repository().reference("estargz");
    scene
        .containerd
        .ok(&["images", "pull", "--plain-http", &name]);
    let other = repository.read("index");
    assert_eq!(
        other["manifests"][0]["platform"]["architecture"],
        another_architecture()
    );
}

#[test]
fn what_is_no_image() {
    let scene = Scene::new();
    let repository = scene.repository();
    let index = repository.index();
    let subject = repository.read("index")["manifests"][1].clone();
    scene.means("artifact", &repository.artifact(&subject), OCI_MANIFEST);
    scene.means("artifact-empty", &repository.artifact_empty(), OCI_MANIFEST);
    let marked = repository.read("artifact-empty");
    assert_eq!(
        (&marked["config"]["digest"], &marked["layers"][0]["digest"]),
        (&json!(EMPTY), &json!(EMPTY))
    );
    scene.means("index", &index, OCI_INDEX);
}

#[test]
fn layers_that_lie_elsewhere() {
    let scene = Scene::new();
    let repository = scene.repository();
    let elsewhere = foreign_maker();
    for (tag, described) in repository.foreign(&elsewhere) {
        let kind = match tag {
            "foreign-docker" => DOCKER_MANIFEST,
            _ => OCI_MANIFEST,
        };
        scene.means(tag, &described, kind);
        let before = elsewhere.asked().len();
        scene.unpacks(tag, &[TREE[0], TREE[1], &format!("file far 0644 = {tag}")]);
        assert_eq!(elsewhere.asked().len(), before + 1, "{tag}");
    }
}

#[test]
fn what_only_tools_make() {
    let scene = Scene::new();
    let repository = scene.repository();
    repository.docker();
    repository.packed("gzip", Packing::Gzip);
    repository.encrypted("gzip");
    let encrypted = repository.read("encrypted");
    let kind = &encrypted["layers"][0]["mediaType"];
    assert_eq!(
        kind,
        "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"
    );
    repository.schema1("docker");
    let old: Value = serde_json::from_slice(&scene.raw("schema1")).expect("JSON");
    assert_eq!(old["schemaVersion"], 1);
    assert!(old["signatures"].is_array());
}

#[test]
fn digests_by_sha512() {
    let scene = Scene::new();
    let described = scene.repository().sha512();
    scene.means("sha512", &described, OCI_MANIFEST);
    let manifest = scene.repository().read("sha512");
    let layer = manifest["layers"][0]["digest"].as_str().expect("digest");
    assert!(layer.starts_with("sha512:"), "{layer}");
    assert!(scene.registry.has_blob(NAME, layer));
}

/// Debian's registry takes no manifest by SHA-512, nor one of the first schema that nobody signed; from a
/// shelf, others get them as they are.
#[test]
fn what_only_a_shelf_has() {
    let scene = Scene::new();
    let image = scene.repository().image(architecture(), &layers());
    let bytes = image.to_string().into_bytes();
    let digest = digest_by("sha512", &bytes);
    let refused = |reference: &str, media_type: &str, bytes: &[u8]| {
        let registry = &scene.registry;
        let answer = registry.try_put_manifest(NAME, reference, media_type, bytes);
        assert_eq!(answer.head.status(), 400, "{}", answer.text());
    };
    refused(&digest, OCI_MANIFEST, &bytes);
    let old = json!({
        "schemaVersion": 1, "name": NAME, "tag": "old", "architecture": architecture(),
        "fsLayers": [], "history": [],
    });
    let old_type = "application/vnd.docker.distribution.manifest.v1+json";
    refused("old", old_type, old.to_string().as_bytes());

    let shelf = Shelf::new();
    let image = shelf.manifest("sha512", OCI_MANIFEST, &image);
    shelf.tag("image", &image);
    shelf.tag("old", &shelf.manifest("sha256", old_type, &old));
    let server = shelf.serve();
    let raw = |reference: &str| {
        let name = format!("docker://{}/{NAME}{reference}", server.address());
        peers::run("skopeo", &["inspect", "--raw", "--tls-verify=false", &name])
    };
    for reference in [format!("@{digest}"), ":image".to_owned()] {
        let sum = peers::filter("sha512sum", &[], raw(&reference).as_bytes());
        let sum = String::from_utf8_lossy(&sum[..128]).into_owned();
        assert_eq!(image["digest"], format!("sha512:{sum}"), "{reference}");
    }
    assert_eq!(raw(":old"), old.to_string());
}

#[test]
fn one_layer_twice_and_none() {
    let scene = Scene::new();
    let [twice, none] = scene.repository().odd_counts();
    scene.means("twice", &twice, OCI_MANIFEST);
    scene.means("none", &none, OCI_MANIFEST);
    scene.means("data-wrong", &scene.repository().data_wrong(), OCI_MANIFEST);
}
