//! Pulls of images of every kind that a registry holds.
#![allow(missing_docs)]

use std::fs;

use cairn_integration::{
    cairn::Cairn,
    fixture::{nothing_is_left, text},
    http,
    image::{OCI_INDEX, OCI_MANIFEST, Packing, architecture, digest},
    peers,
    registry::Registry,
    registry_images::{
        Repository, Shelf, TREE, another_architecture, foreign_maker, index, layers, on,
    },
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
    unpacks_by(&repository.reference(tag), described, tree)
}

#[track_caller]
fn unpacks_by(name: &str, described: &Value, tree: &[&str]) -> Cairn {
    let cairn = Cairn::new();
    let pulled = pull(&cairn, name, &[]);
    assert_eq!(
        pulled["image"]["target"]["digest"], described["digest"],
        "{name}"
    );
    assert_eq!(
        pulled["image"]["target"]["media_type"], described["mediaType"],
        "{name}"
    );
    let target = cairn.path("mnt");
    fs::create_dir(&target).expect("target");
    cairn.ok(&["images", "mount", name, text(&target)]);
    assert_eq!(Tree::read(&target).lines(), tree, "{name}");
    cairn.ok(&["images", "unmount", text(&target)]);
    cairn
}

#[track_caller]
fn fails(repository: &Repository<'_>, tag: &str, words: &[&str]) {
    fails_by(&repository.reference(tag), words);
}

#[track_caller]
fn fails_by(name: &str, words: &[&str]) {
    let cairn = Cairn::new();
    let said = cairn.fails(&["images", "pull", "--plain-http", name]);
    for words in [&[name], words].concat() {
        assert!(said.contains(words), "{name}: no {words:?} in\n{said}");
    }
    assert_eq!(cairn.ok(&["-q", "images", "ls"]), "", "{name}");
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

/// What `sha512sum` says of a blob of the store that is known by it.
#[track_caller]
fn proves_itself(cairn: &Cairn, digest: &str) {
    let bytes = cairn.output(&["content", "get", digest]).stdout;
    let said = peers::filter("sha512sum", &[], &bytes);
    let hex = digest.strip_prefix("sha512:").expect("by SHA-512");
    assert_eq!(&said[..128], hex.as_bytes());
}

/// > Implementations MAY implement SHA-512 digest verification for use in descriptors. (image-spec
/// > `descriptor.md`)
///
/// By their digest, by a tag whose digest the registry gives so, and as entries of an index that is known
/// by either.
#[test]
fn m04_manifests_by_sha512() {
    let shelf = Shelf::new();
    let image = shelf.image("sha512", architecture(), &layers());
    let other = shelf.image("sha512", another_architecture(), &layers());
    let index = index(
        OCI_INDEX,
        &[
            on(other.clone(), another_architecture()),
            on(image.clone(), architecture()),
        ],
    );
    let [short, long] = ["sha256", "sha512"].map(|by| shelf.manifest(by, OCI_INDEX, &index));
    shelf.tag("image", &image);
    shelf.tag("short", &short);
    shelf.tag("long", &long);
    let server = shelf.serve();
    let at = |reference: &str| format!("{}/{NAME}{reference}", server.address());
    let digest = |described: &Value| described["digest"].as_str().expect("digest").to_owned();
    for (reference, described) in [
        (format!("@{}", digest(&image)), &image),
        (format!(":image@{}", digest(&image)), &image),
        (":image".to_owned(), &image),
        (format!("@{}", digest(&long)), &long),
        (":long".to_owned(), &long),
        (format!("@{}", digest(&short)), &short),
        (":short".to_owned(), &short),
    ] {
        let cairn = unpacks_by(&at(&reference), described, &TREE);
        proves_itself(&cairn, &digest(&image));
        // What holds what is held by such digests as well.
        cairn.ok(&["gc"]);
        let stored = cairn.ok(&["-q", "content", "ls"]);
        assert!(stored.contains(&digest(described)), "{reference}: {stored}");
        assert!(stored.contains(&digest(&image)), "{reference}: {stored}");
        assert!(!stored.contains(&digest(&other)), "{reference}: {stored}");
    }
}

/// By either digest, also within an index.
#[test]
fn m04_m08_manifests_that_sha512_disproves() {
    let shelf = Shelf::new();
    let image = shelf.image("sha512", architecture(), &layers());
    let listed = index(OCI_INDEX, &[on(image.clone(), architecture())]);
    let listed = shelf.manifest("sha256", OCI_INDEX, &listed);
    shelf.tag("index", &listed);
    let digest = image["digest"].as_str().expect("digest");
    // As long as what should be there.
    let wrong = vec![b' '; usize::try_from(image["size"].as_u64().expect("size")).expect("small")];
    shelf.spoil(digest, &wrong);
    let said = peers::filter("sha512sum", &[], &wrong);
    let actual = format!("sha512:{}", String::from_utf8_lossy(&said[..128]));
    let server = shelf.serve();
    let words = format!("sent bytes of {actual}, not of {digest}");
    fails_by(&format!("{}/{NAME}@{digest}", server.address()), &[&words]);
    fails_by(&format!("{}/{NAME}:index", server.address()), &[&words]);
}

/// Signed ones come from Debian's registry, which takes no others; how they are refused is the same.
#[test]
fn the_first_schema_is_refused_whoever_signed_it() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, NAME);
    repository.docker();
    repository.schema1("docker");
    let refused = |name: &str| {
        let cairn = Cairn::new();
        let said = cairn.fails(&["images", "pull", "--plain-http", name]);
        let (host, _) = name.split_once('/').expect("host");
        assert_eq!(
            said,
            format!(
                "error: cannot pull image {name}: {host} has it as a Docker schema 1 image, a format \
                 that was given up in 2017\n  \
                 next:      have it built or pushed again by a newer tool\n"
            )
        );
        nothing_is_left(&cairn);
    };
    refused(&repository.reference("schema1"));

    let shelf = Shelf::new();
    let unsigned = json!({
        "schemaVersion": 1,
        "name": NAME,
        "tag": "old",
        "architecture": architecture(),
        "fsLayers": [{ "blobSum": digest(b"layer") }],
        "history": [{ "v1Compatibility": "{\"id\":\"0\"}" }],
    });
    // Some registries say what it is, some say that it is JSON, some say that it is something else.
    let types = [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
        "application/octet-stream",
        OCI_MANIFEST,
    ];
    let mut described = Value::Null;
    for (number, media_type) in types.iter().enumerate() {
        described = shelf.manifest("sha256", media_type, &unsigned);
        shelf.tag(&format!("old-{number}"), &described);
    }
    // In an index it says that it is an image.
    let listed = index(OCI_INDEX, &[on(described.clone(), architecture())]);
    let listed = shelf.manifest("sha256", OCI_INDEX, &listed);
    shelf.tag("index", &listed);
    let server = shelf.serve();
    let at = |reference: &str| format!("{}/{NAME}{reference}", server.address());
    for number in 0..types.len() {
        refused(&at(&format!(":old-{number}")));
    }
    refused(&at(&format!(
        "@{}",
        described["digest"].as_str().expect("digest")
    )));
    refused(&at(":index"));
}
