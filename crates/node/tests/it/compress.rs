//! Layers that come plain are stored packed when that is asked for.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn_node::{Failure, ImportRequest, Imported, Source};
use cairn_types::{Compression, Digest, ErrorKind, ImageName};
use serde_json::{Value, json};

use crate::common::*;

const DOCKER: &str = "application/vnd.docker.image.rootfs.diff.tar";
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
const WEB: &str = "docker.io/shop/web:1";

fn digest(text: &Value) -> Digest {
    Digest::parse(text.as_str().expect("digest")).expect("digest")
}

fn bytes(store: &Store, digest: &Digest) -> Vec<u8> {
    let read = store.node.content().read_all(&store.ns, digest, 1 << 20);
    read.expect("blob")
}

fn document(store: &Store, digest: &Digest) -> Value {
    serde_json::from_slice(&bytes(store, digest)).expect("JSON")
}

fn compressed(store: &Store, source: Source) -> Result<Vec<Imported>, Failure> {
    store.import_with(source, |r: &mut ImportRequest| r.compress = true)
}

/// What `docker save` makes of [`two_layers`], in a directory.
fn saved() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let plain = two_layers().into_iter().map(|(_, _, plain)| plain);
    let (mut ids, mut paths) = (Vec::new(), Vec::new());
    for (name, plain) in ["x", "y"].iter().zip(plain) {
        fs::create_dir(dir.path().join(name)).expect("directory");
        fs::write(dir.path().join(name).join("layer.tar"), &plain).expect("write");
        ids.push(Digest::sha256(&plain).to_string());
        paths.push(format!("{name}/layer.tar"));
    }
    let config = json!({
        "architecture": cairn_types::Platform::host().architecture, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    fs::write(dir.path().join("config.json"), config.to_string()).expect("write");
    let manifest = json!([{"Config": "config.json", "RepoTags": ["shop/web:1"], "Layers": paths}]);
    fs::write(dir.path().join("manifest.json"), manifest.to_string()).expect("write");
    dir
}

/// Every file of an image, with what is in it.
fn files(store: &Store) -> Vec<(PathBuf, Vec<u8>)> {
    fn below(dir: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
        for entry in fs::read_dir(dir).expect("list") {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => below(&path, files),
                false => files.push((path.clone(), fs::read(&path).expect("read"))),
            }
        }
    }
    let target = store.mount(&ImageName::parse(WEB).expect("name"));
    let mut files = Vec::new();
    below(&target, &mut files);
    store.unmount(&target);
    let relative = |(path, bytes): (PathBuf, Vec<u8>)| {
        let path = path.strip_prefix(&target).expect("below the mount");
        (path.to_owned(), bytes)
    };
    let mut files: Vec<_> = files.into_iter().map(relative).collect();
    files.sort();
    files
}

#[test]
fn layers_of_docker_archives_are_packed() {
    let (dir, plain) = (saved(), Store::new());
    let known = plain.import(dir.path()).expect("plain").remove(0);
    let archive = archive_of(dir.path());
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), &archive).expect("write");
    let sources = [
        Source::Path(dir.path().to_owned()),
        Source::Path(file.path().to_owned()),
        stream(archive),
    ];
    let mut manifests = Vec::new();
    for source in sources {
        let store = Store::new();
        let image = compressed(&store, source).expect("import").remove(0);
        let (was, is) = (
            document(&plain, &known.target.digest),
            document(&store, &image.target.digest),
        );
        assert_eq!(is["config"], was["config"]);
        let config = document(&store, &digest(&is["config"]["digest"]));
        let layers = is["layers"].as_array().expect("layers");
        assert_eq!(layers.len(), 2);
        for (layer, diff_id) in layers
            .iter()
            .zip(config["rootfs"]["diff_ids"].as_array().expect("ids"))
        {
            assert_eq!(layer["mediaType"], format!("{DOCKER}.gzip"));
            let info = store
                .node
                .content()
                .info(&store.ns, &digest(&layer["digest"]));
            let info = info.expect("layer");
            assert_eq!(layer["size"], info.size);
            assert_eq!(info.labels[UNCOMPRESSED], diff_id.as_str().expect("text"));
            let packed = bytes(&store, &info.digest);
            assert_eq!(Compression::sniff(&packed), Compression::Gzip);
        }
        // Nothing plain stays, and nothing that is named goes.
        store.node.gc(false).expect("collection");
        assert_eq!(store.node.content().list(&store.ns).expect("list").len(), 4);
        assert_eq!(files(&store), files(&plain));
        manifests.push(image.target);
    }
    assert_ne!(manifests[0].digest, known.target.digest);
    assert_eq!(manifests[0], manifests[1]);
    assert_eq!(manifests[0], manifests[2]);
}

/// An index with a plain and a packed layer in a manifest that says more than is read here, and what is
/// said about it.
fn index() -> (Layout, Value) {
    let mut layout = Layout::new();
    let [low, top] = &two_layers()[..] else {
        panic!("two layers")
    };
    let here = layout.manifest(
        &host(),
        &[low.clone(), (OCI_LAYER, top.2.clone(), top.2.clone())],
    );
    let bytes = fs::read(layout.blob_path(here["digest"].as_str().expect("digest")));
    let mut manifest: Value = serde_json::from_slice(&bytes.expect("manifest")).expect("JSON");
    manifest["annotations"] = json!({"org.example": "kept"});
    manifest["x-example"] = json!({"b": [1, null], "a": 0.5});
    manifest["layers"][1]["annotations"] = json!({"which": "top"});
    let mut here = layout.json(OCI_MANIFEST, &manifest);
    let (os, architecture) = host()
        .split_once('/')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("platform");
    here["platform"] = json!({"os": os, "architecture": architecture});
    let proof = layout.blob("application/vnd.in-toto+json", b"{}");
    let config = json!({
        "architecture": "unknown", "os": "unknown", "rootfs": {"type": "layers", "diff_ids": []},
    });
    let config = layout.json(OCI_CONFIG, &config);
    let about = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [proof],
    });
    let mut about = layout.json(OCI_MANIFEST, &about);
    about["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    about["annotations"] = json!({"vnd.docker.reference.digest": here["digest"]});
    let index = json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [here, about],
    });
    let index = layout.json(OCI_INDEX, &index);
    layout.name(index, "shop/web:1");
    layout.finish();
    (layout, manifest)
}

#[test]
fn only_what_is_plain_becomes_another() {
    let (layout, manifest) = index();
    for source in [
        Source::Path(layout.path().to_owned()),
        stream(layout.archive()),
    ] {
        let store = Store::new();
        let change = |r: &mut ImportRequest| {
            (r.compress, r.digests, r.base_name) = (true, true, Some("docker.io/shop".to_owned()))
        };
        let images = store.import_with(source, change).expect("import");
        let target = &images[0].target;
        let names: Vec<String> = images.iter().map(|i| i.name.to_string()).collect();
        assert_eq!(
            names,
            [WEB.to_owned(), format!("docker.io/shop@{}", target.digest)]
        );
        let index = document(&store, &target.digest);
        let (here, about) = (&index["manifests"][0], &index["manifests"][1]);
        assert_eq!(
            about["annotations"]["vnd.docker.reference.digest"],
            here["digest"]
        );
        assert_eq!(here["platform"]["os"], "linux");
        let mut is = document(&store, &digest(&here["digest"]));
        assert_eq!(is["layers"][0], manifest["layers"][0]);
        let top = is["layers"][1].take();
        let mut was = manifest.clone();
        was["layers"][1].take();
        assert_eq!(is, was);
        assert_eq!(top["mediaType"], format!("{OCI_LAYER}+gzip"));
        assert_eq!(top["annotations"]["which"], "top");
        let packed = bytes(&store, &digest(&top["digest"]));
        assert_eq!(
            (Compression::sniff(&packed), top["size"].as_u64()),
            (Compression::Gzip, Some(packed.len() as u64))
        );
        let name = ImageName::parse(WEB).expect("name");
        let image = store.node.image(&store.ns, &name).expect("image");
        assert!(image.complete, "{:?}", image.missing);
        // Index, two manifests, two configurations, three layers.
        store.node.gc(false).expect("collection");
        assert_eq!(store.node.content().list(&store.ns).expect("list").len(), 8);
        assert!(
            files(&store)
                .iter()
                .any(|(path, _)| path.ends_with("etc/motd"))
        );
    }
}

#[test]
fn what_comes_packed_is_left_alone() {
    let (layout, store, other) = (simple(), Store::new(), Store::new());
    let source = || Source::Path(layout.path().to_owned());
    let same = compressed(&store, source()).expect("import");
    assert_eq!(same, other.import(layout.path()).expect("import"));
}

#[test]
fn a_second_time_finds_the_first() {
    let (dir, store) = (saved(), Store::new());
    let source = || Source::Path(dir.path().to_owned());
    store
        .import_with(source(), |r| r.unpack = false)
        .expect("plain");
    let first = compressed(&store, source()).expect("import");
    let count = || store.node.content().list(&store.ns).expect("list").len();
    let blobs = count();
    assert_eq!(compressed(&store, source()).expect("again"), first);
    assert_eq!(count(), blobs);
}

#[test]
fn a_damaged_plain_layer_leaves_nothing() {
    let (dir, store) = (saved(), Store::new());
    let path = dir.path().join("y/layer.tar");
    let mut tar = fs::read(&path).expect("read");
    tar[600] ^= 1;
    fs::write(&path, tar).expect("write");
    let failure = compressed(&store, Source::Path(dir.path().to_owned())).expect_err("damaged");
    assert_eq!(failure.kind, ErrorKind::DataLoss, "{failure}");
    assert!(failure.reason.contains("is damaged"), "{failure}");
    assert_eq!(failure.next, ["fetch the archive again"]);
    store.assert_empty();
}
