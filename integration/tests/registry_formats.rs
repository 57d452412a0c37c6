//! Pulls of images of every kind that a registry holds.
#![allow(missing_docs)]

use std::fs;

use cairn_integration::{
    cairn::Cairn,
    fixture::text,
    http,
    image::{Packing, digest},
    registry::Registry,
    registry_images::{Repository, TREE, foreign_maker},
    tree::Tree,
};
use serde_json::{Value, json};

const NAME: &str = "shop/web";

fn pull(cairn: &Cairn, name: &str, more: &[&str]) -> Value {
    let pull = ["images", "pull", "--json", "--plain-http"];
    serde_json::from_str(&cairn.ok(&[&pull, more, &[name]].concat())).expect("JSON")
}

/// It is pulled under its digest, and unpacks to this tree.
#[track_caller]
fn unpacks(repository: &Repository<'_>, tag: &str, described: &Value, tree: &[&str]) -> Cairn {
    let (cairn, name) = (Cairn::new(), repository.reference(tag));
    let pulled = pull(&cairn, &name, &[]);
    assert_eq!(
        pulled["image"]["target"]["digest"], described["digest"],
        "{tag}"
    );
    assert_eq!(
        pulled["image"]["target"]["media_type"], described["mediaType"],
        "{tag}"
    );
    let target = cairn.path("mnt");
    fs::create_dir(&target).expect("target");
    cairn.ok(&["images", "mount", &name, text(&target)]);
    assert_eq!(Tree::read(&target).lines(), tree, "{tag}");
    cairn.ok(&["images", "unmount", text(&target)]);
    cairn
}

#[track_caller]
fn fails(repository: &Repository<'_>, tag: &str, words: &[&str]) {
    let (cairn, name) = (Cairn::new(), repository.reference(tag));
    let said = cairn.fails(&["images", "pull", "--plain-http", &name]);
    for words in [&[name.as_str()], words].concat() {
        assert!(said.contains(words), "{tag}: no {words:?} in\n{said}");
    }
    assert_eq!(cairn.ok(&["-q", "images", "ls"]), "", "{tag}");
}

#[test]
fn manifests_lists_and_indexes() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    for (tag, described) in [
        ("docker", repository.docker()),
        ("docker-list", repository.docker_list()),
        ("index", repository.index()),
        ("nested", repository.nested()),
        ("bare-index", repository.bare_index()),
        ("gzip", repository.packed("gzip", Packing::Gzip)),
        ("plain", repository.packed("plain", Packing::Plain)),
        ("zstd", repository.packed("zstd", Packing::Zstd)),
        ("data", repository.data()),
        ("sha512", repository.sha512()),
    ] {
        unpacks(&repository, tag, &described, &TREE);
    }
}

/// Whoever does not look for the parts sees whole layers, and what says where the parts are.
#[test]
fn layers_that_come_in_parts() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    let files = |name: &str| {
        [
            "dir etc 0755".to_owned(),
            format!("file etc/name 0644 = {name}\\n"),
        ]
    };
    let [dir, name] = files("chunked");
    let tree = [&dir, &name, "file etc/other 0644 = "];
    unpacks(
        &repository,
        "zstd-chunked",
        &repository.zstd_chunked(),
        &tree,
    );
    let cairn = Cairn::new();
    let described = repository.estargz();
    let pulled = pull(&cairn, &repository.reference("estargz"), &[]);
    assert_eq!(pulled["image"]["target"]["digest"], described["digest"]);
}

#[test]
fn all_platforms_and_what_is_said_about_them() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    let described = repository.index();
    let index = repository.read("index");
    let cairn = Cairn::new();
    let name = repository.reference("index");
    let pulled = pull(&cairn, &name, &["--all-platforms", "--no-unpack"]);
    assert_eq!(pulled["image"]["target"]["digest"], described["digest"]);
    assert_eq!(pulled["image"]["missing"], json!([]));
    let stored = cairn.ok(&["-q", "content", "ls"]);
    for manifest in index["manifests"].as_array().expect("manifests") {
        let digest = manifest["digest"].as_str().expect("digest");
        assert!(stored.contains(digest), "{digest}");
    }
    // Of one platform, only that.
    let cairn = unpacks(&repository, "index", &described, &TREE);
    let stored = cairn.ok(&["-q", "content", "ls"]);
    let has = |number: usize| {
        let digest = index["manifests"][number]["digest"].as_str();
        stored.contains(digest.expect("digest"))
    };
    assert!(has(1) && !has(0), "{stored}");
    let said = Cairn::new().fails(&[
        "images",
        "pull",
        "--plain-http",
        "--platform",
        "linux/riscv64",
        &name,
    ]);
    assert!(said.contains("no manifest for linux/riscv64"), "{said}");
}

#[test]
fn artifacts_are_stored_and_not_unpacked() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    repository.index();
    let subject = repository.read("index")["manifests"][1].clone();
    for (tag, described) in [
        ("artifact", repository.artifact(&subject)),
        ("artifact-empty", repository.artifact_empty()),
    ] {
        let (cairn, name) = (Cairn::new(), repository.reference(tag));
        let pulled = pull(&cairn, &name, &[]);
        assert_eq!(
            pulled["image"]["target"]["digest"], described["digest"],
            "{tag}"
        );
        assert_eq!(cairn.ok(&["-q", "snapshots", "ls"]), "", "{tag}");
        let stored = cairn.ok(&["-q", "content", "ls"]);
        assert!(stored.contains(&digest(b"{}")), "{tag}: {stored}");
    }
}

#[test]
fn layers_that_lie_elsewhere() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    let elsewhere = foreign_maker();
    for (tag, described) in repository.foreign(&elsewhere) {
        let before = elsewhere.asked().len();
        let tree = [TREE[0], TREE[1], &format!("file far 0644 = {tag}")];
        unpacks(&repository, tag, &described, &tree);
        assert_eq!(elsewhere.asked().len(), before + 1, "{tag}");
    }
}

/// What is foreign and has no address, or one that nobody answers at, is called by its name.
#[test]
fn layers_that_lie_nowhere() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    let elsewhere = http::files(Vec::new());
    for (tag, _) in repository.foreign(&elsewhere) {
        let layer = repository.read(tag)["layers"][0]["digest"].clone();
        let layer = layer.as_str().expect("digest");
        let host = elsewhere.address().to_string();
        fails(&repository, tag, &["all 2 hosts failed", &host, layer]);
    }
}

#[test]
fn counts_that_are_odd() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    let [twice, none] = repository.odd_counts();
    let tree = [
        "dir etc 0755",
        "file etc/gone 0644 = ",
        "file etc/name 0644 = base\\n",
    ];
    unpacks(&repository, "twice", &twice, &tree);
    let (cairn, name) = (Cairn::new(), repository.reference("none"));
    let pulled = pull(&cairn, &name, &[]);
    assert_eq!(pulled["image"]["target"]["digest"], none["digest"]);
}

#[test]
fn what_is_refused_is_called_by_its_name() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    repository.docker();
    repository.packed("gzip", Packing::Gzip);
    repository.schema1("docker");
    fails(&repository, "schema1", &["cannot pull image", "schema"]);
    repository.encrypted("gzip");
    let kind = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    fails(
        &repository,
        "encrypted",
        &["cannot unpack image", kind, "--no-unpack"],
    );
    // Kept packed, it is whole.
    let (cairn, name) = (Cairn::new(), repository.reference("encrypted"));
    let pulled = pull(&cairn, &name, &["--no-unpack"]);
    let stored = registry.manifest(NAME, "encrypted").expect("there");
    assert_eq!(pulled["image"]["target"]["digest"], json!(stored.digest));
    repository.data_wrong();
    let layer = repository.read("data-wrong")["layers"][0]["digest"].clone();
    fails(
        &repository,
        "data-wrong",
        &["data", layer.as_str().expect("digest")],
    );
}
