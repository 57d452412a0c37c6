//! Manifests and descriptors of odd kinds: what is taken and what is refused.
//!
//! | row of the image table | tests |
//! |---|---|
//! | schema1 signed / unsigned | `m01_schema_1_is_refused_with_a_reason` |
//! | docker v2s2 image, manifest list | `docker_manifests` (lists: `platforms.rs`) |
//! | `data` in a descriptor | `data_in_the_descriptor` |
//! | negative/huge size, missing mediaType, both layers+manifests | `m05_descriptors_that_lie`, `media_types_may_be_missing`, `m01_documents_with_two_meanings` |
//! | duplicate layers, zero layers | `the_same_layer_twice`, `no_layers_at_all` |
//!
//! What is only kept is in `kept.rs`.

use std::fs;

use cairn_integration::{
    cairn::Cairn,
    fixture::{Case, Peer, nothing_is_left, text},
    image::{Layout, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Packing, Stored, digest},
    peers,
    raw::Tar,
};
use serde_json::{Value, json};

use crate::common::{config, tar};

/// The manifest of a good image, for changes.
fn manifest(layout: &Layout) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.json(OCI_CONFIG, &config(&[digest(&tar())])),
        "layers": [layout.blob("application/vnd.oci.image.layer.v1.tar", &tar())],
    })
}

/// An image of a manifest that `change` has made odd.
fn changed(change: impl FnOnce(&Layout, &mut Value)) -> Case {
    Case::layout(|layout| {
        let mut document = manifest(layout);
        change(layout, &mut document);
        let media_type = match document["mediaType"].as_str() {
            Some(media_type) => media_type.to_owned(),
            None => OCI_MANIFEST.to_owned(),
        };
        let descriptor = layout.json(&media_type, &document);
        layout.list(descriptor, "one");
    })
}

const TREE: &[&str] = &["file who 0644 = me"];

#[test]
fn m01_schema_1_is_refused_with_a_reason() {
    let unsigned = json!({
        "schemaVersion": 1,
        "name": "library/old",
        "tag": "1",
        "architecture": "amd64",
        "fsLayers": [{ "blobSum": digest(&tar()) }],
        "history": [{ "v1Compatibility": "{\"id\":\"0\"}" }],
    });
    let mut signed = unsigned.clone();
    signed["signatures"] = json!([{ "header": {}, "signature": "x", "protected": "y" }]);
    for (document, media_type) in [
        (
            &unsigned,
            "application/vnd.docker.distribution.manifest.v1+json",
        ),
        (
            &signed,
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
        ),
        (&signed, OCI_MANIFEST),
    ] {
        Case::layout(|layout| {
            let descriptor = layout.json(media_type, document);
            layout.list(descriptor, "one");
        })
        .fails(&["docker schema 1 manifest, which carries no verifiable layers"]);
    }
}

#[test]
fn docker_manifests() {
    changed(|layout, manifest| {
        let docker = "application/vnd.docker.distribution.manifest.v2+json";
        manifest["mediaType"] = json!(docker);
        manifest["config"]["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
        manifest["layers"][0] =
            layout.blob("application/vnd.docker.image.rootfs.diff.tar.gzip", &tar());
    })
    .unpacks(TREE)
    .containerd(Peer::Same);
}

fn base64(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), bytes).expect("write");
    peers::run("base64", &["-w0", text(file.path())])
}

/// The blob itself, in base 64, within what refers to it (image-spec `descriptor.md`): proven like any
/// other, then used.
#[test]
fn data_in_the_descriptor() {
    for algorithm in ["sha256", "sha512"] {
        let document = config(&[digest(&tar())]).to_string().into_bytes();
        // Right, with the blob and without it.
        for keep in [true, false] {
            changed(|layout, manifest| {
                manifest["config"] = layout.blob_by(algorithm, OCI_CONFIG, &document);
                manifest["config"]["data"] = json!(base64(&document));
                if !keep {
                    let digest = manifest["config"]["digest"].as_str().expect("digest");
                    fs::remove_file(layout.blob_path(digest)).expect("remove");
                }
            })
            .unpacks(TREE);
        }
        for wrong in [&b"{}"[..], b"", &[b' '; 100_000]] {
            changed(|layout, manifest| {
                manifest["config"] = layout.blob_by(algorithm, OCI_CONFIG, &document);
                manifest["config"]["data"] = json!(base64(wrong));
            })
            .fails(&["the data embedded in the descriptor"]);
        }
    }
    changed(|_, manifest| manifest["config"]["data"] = json!("*no base64*"))
        .fails(&["the data embedded in the descriptor"]);
}

#[test]
fn m05_descriptors_that_lie() {
    for size in [
        json!(-1),
        json!(1.5),
        json!("9"),
        json!(18_446_744_073_709_551_615_u64),
        Value::Null,
    ] {
        for place in ["config", "layers"] {
            let case = changed(|_, manifest| match place {
                "config" => manifest["config"]["size"] = size.clone(),
                _ => manifest["layers"][0]["size"] = size.clone(),
            });
            case.fails(&["error: cannot import"]);
        }
    }
    let length = tar().len();
    for (size, words) in [
        (0, "it has more than 0 bytes".to_owned()),
        (length - 1, format!("it has more than {} bytes", length - 1)),
        (
            length + 1,
            format!("it has {length} bytes instead of {}", length + 1),
        ),
        (1 << 20, format!("it has {length} bytes instead of 1048576")),
    ] {
        changed(|_, manifest| manifest["layers"][0]["size"] = json!(size))
            .fails(&["is damaged", &words]);
    }
    // What no disk has room for is not even begun.
    changed(|_, manifest| manifest["layers"][0]["size"] = json!(1_u64 << 60))
        .fails(&["no space left", "more needed"]);
}

/// > This property SHOULD be used (image-spec `manifest.md`, of a manifest's own `mediaType`)
///
/// and was reserved in 1.0, so that many manifests lack it.
#[test]
fn media_types_may_be_missing() {
    changed(|_, manifest| {
        manifest
            .as_object_mut()
            .expect("object")
            .remove("mediaType");
    })
    .unpacks(TREE)
    .umoci(Peer::Same)
    .containerd(Peer::Same);
    // Of the entry in the index: the document tells.
    Case::layout(|layout| {
        let mut descriptor = layout.json(OCI_MANIFEST, &manifest(layout));
        descriptor
            .as_object_mut()
            .expect("object")
            .remove("mediaType");
        layout.list(descriptor, "one");
    })
    .unpacks(TREE);
    // Of a layer: nobody knows what it is.
    changed(|_, manifest| {
        manifest["layers"][0]
            .as_object_mut()
            .expect("object")
            .remove("mediaType");
    })
    .fails(&["unknown type"]);
}

/// CVE-2021-41190: one document that is an index to one reader and a manifest to another.
#[test]
fn m01_documents_with_two_meanings() {
    changed(|_, manifest| manifest["manifests"] = json!([]))
        .fails(&["an index and a manifest at once"]);
    changed(|_, manifest| manifest["mediaType"] = json!(OCI_INDEX)).fails(&["refused"]);
}

#[test]
fn the_same_layer_twice() {
    let first = Tar::new().file("one", b"1").file("gone", b"1").finish();
    let second = Tar::new().file(".wh.gone", b"").finish();
    let layers = [&first, &second, &first].map(|tar| (tar.clone(), Packing::Gzip));
    Case::stack(&layers)
        .unpacks(&["file gone 0644 = 1", "file one 0644 = 1"])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
    let twice = [&first, &first].map(|tar| Stored::plain(tar.clone()));
    Case::layout(|layout| {
        layout.image_of("one", &twice);
    })
    .unpacks(&["file gone 0644 = 1", "file one 0644 = 1"]);
}

#[test]
fn no_layers_at_all() {
    let cairn = Cairn::new();
    let mut layout = Layout::create(&cairn.path("layout"));
    layout.image_of("one", &[]);
    cairn.ok(&[
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(layout.path()),
    ]);
    let target = cairn.path("mnt");
    fs::create_dir(&target).expect("target");
    cairn.ok(&["images", "mount", "localhost/t:one", text(&target)]);
    assert_eq!(fs::read_dir(&target).expect("list").count(), 0);
}

/// A manifest that is no JSON, and one with a byte order mark.
#[test]
fn documents_that_do_not_parse() {
    for bytes in [&b"not JSON"[..], b"\xef\xbb\xbf{}", b"{}", b"[]", b""] {
        let cairn = Cairn::new();
        let mut layout = Layout::create(&cairn.path("layout"));
        let descriptor = layout.blob(OCI_MANIFEST, bytes);
        layout.list(descriptor, "one");
        cairn.fails(&["images", "import", text(layout.path())]);
        nothing_is_left(&cairn);
    }
}
