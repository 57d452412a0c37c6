//! Blobs that are stored and exported as they came: artifacts, checkpoints, foreign layers, and
//! everything under other digests than sha256.
//!
//! | row of the image table | tests |
//! |---|---|
//! | artifacts: artifactType, subject, empty config, empty layers, tag-schema referrers; cosign `.sig` | `artifacts_are_kept_and_not_unpacked` |
//! | foreign / nondistributable | `foreign_layers` |
//! | sha512 (all or mixed); blake3 | `m04_other_digests`, `m03_m04_digests_of_unknown_kinds` |
//! | checkpoint images (criu) | `checkpoints_are_kept_untouched` |
//!
//! Encrypted layers are in `compress.rs`; fetching foreign layers by `urls` and referrers of a
//! registry need a registry.

use std::fs;

use cairn_integration::{
    cairn::Cairn,
    fixture::{Case, Peer, archive, text},
    image::{Layout, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Stored, architecture, digest},
    peers,
    raw::Tar,
};
use serde_json::{Value, json};

use crate::common::{config, tar};

/// An image of one layer.
fn with_layer(make: impl FnOnce(&Layout) -> Value) -> Case {
    Case::layout(|layout| {
        let blob = make(layout);
        let diff_id = blob["digest"].as_str().expect("digest").to_owned();
        let document = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": layout.json(OCI_CONFIG, &config(&[diff_id])),
            "layers": [blob],
        });
        let descriptor = layout.json(OCI_MANIFEST, &document);
        layout.list(descriptor, "one");
    })
}

/// Import, export, and the exported bytes of every blob.
#[track_caller]
fn kept(cairn: &Cairn, layout: &Layout, options: &[&str], blobs: &[&Value]) {
    let import = ["images", "import", "--base-name", "localhost/t"];
    cairn.ok(&[&import[..], options, &[text(layout.path())]].concat());
    cairn.ok(&["gc"]);
    let out = cairn.path("out.tar");
    cairn.ok(&["images", "export", text(&out), "localhost/t:one"]);
    for blob in blobs {
        let name = blob["digest"].as_str().expect("digest").replace(':', "/");
        let theirs = fs::read(layout.path().join("blobs").join(&name)).expect("blob");
        let ours = peers::run("tar", &["-xOf", text(&out), &format!("blobs/{name}")]);
        assert_eq!(ours.as_bytes(), theirs, "{name}");
    }
}

/// An artifact has a type of its own, and often an empty configuration (image-spec `manifest.md`,
/// "Guidelines for Artifact Usage"). It has no tree to unpack.
#[test]
fn artifacts_are_kept_and_not_unpacked() {
    let empty_type = "application/vnd.oci.empty.v1+json";
    for with in ["layers", "empty layer", "no layers", "cosign"] {
        let cairn = Cairn::new();
        let mut layout = Layout::create(&cairn.path("layout"));
        let empty = layout.blob(empty_type, b"{}");
        let data = layout.blob("application/vnd.acme.rocket.config", b"rocket");
        let subject =
            json!({ "mediaType": OCI_MANIFEST, "digest": digest(b"elsewhere"), "size": 9 });
        let mut document = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.acme.rocket",
            "config": empty,
            "layers": [data],
            "subject": subject,
        });
        match with {
            "empty layer" => document["layers"] = json!([empty]),
            "no layers" => document["layers"] = json!([]),
            "cosign" => {
                let signature = layout.blob(
                    "application/vnd.dev.cosign.simplesigning.v1+json",
                    b"{\"critical\":{}}",
                );
                document = json!({
                    "schemaVersion": 2,
                    "mediaType": OCI_MANIFEST,
                    "config": layout.json(OCI_CONFIG, &config(&[digest(b"{\"critical\":{}}")])),
                    "layers": [signature],
                });
            }
            _ => {}
        }
        let descriptor = layout.json(OCI_MANIFEST, &document);
        layout.list(descriptor.clone(), "one");
        let mut blobs = vec![&descriptor, &document["config"]];
        blobs.extend(document["layers"].as_array().expect("layers"));
        // cosign's signatures say that they are images, so only who keeps images packed takes them.
        let options: &[&str] = if with == "cosign" {
            &["--no-unpack"]
        } else {
            &[]
        };
        kept(&cairn, &layout, options, &blobs);
        if with != "cosign" {
            let target = cairn.path("mnt");
            fs::create_dir(&target).expect("target");
            cairn.fails(&["images", "mount", "localhost/t:one", text(&target)]);
        }
    }
}

/// > Implementations are expected to support preexisting images with non-distributable layers.
/// > (image-spec `layer.md`)
#[test]
fn foreign_layers() {
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    // Here, they are layers like others, unless the export shall not have them.
    let case = with_layer(|layout| {
        let mut blob = layout.blob(foreign, &tar());
        blob["urls"] = json!(["https://example.com/layer"]);
        blob
    })
    .unpacks(&["file who 0644 = me"])
    .containerd(Peer::Same);
    let out = case.cairn.path("out.tar");
    let blob = digest(&tar())[7..].to_owned();
    case.cairn
        .ok(&["images", "export", text(&out), "localhost/t:one"]);
    assert!(peers::run("tar", &["-tf", text(&out)]).contains(&blob));
    let export = [
        "images",
        "export",
        "--skip-non-distributable",
        text(&out),
        "localhost/t:one",
    ];
    case.cairn.ok(&export);
    assert!(!peers::run("tar", &["-tf", text(&out)]).contains(&blob));

    // Absent, the image can be kept and not unpacked.
    let absent = |layout: &Layout| {
        let bytes = Tar::new().file("absent", b"1").finish();
        let mut blob = layout.blob(foreign, &bytes);
        blob["urls"] = json!(["https://example.com/layer"]);
        fs::remove_file(layout.blob_path(&digest(&bytes))).expect("remove");
        blob
    };
    let case = with_layer(absent).fails(&[&digest(&Tar::new().file("absent", b"1").finish())]);
    let tar = case.archive();
    case.cairn
        .ok(&["images", "import", "--no-unpack", text(&tar)]);
}

/// > Implementations MAY implement SHA-512 digest verification for use in descriptors. (image-spec
/// > `descriptor.md`)
///
/// Every blob and every diff ID can have its own.
#[test]
fn m04_other_digests() {
    let layer = "application/vnd.oci.image.layer.v1.tar";
    for [for_layer, for_config, for_manifest, for_diff] in [
        ["sha512"; 4],
        ["sha384"; 4],
        ["sha512", "sha256", "sha256", "sha256"],
        ["sha256", "sha512", "sha256", "sha512"],
        ["sha384", "sha256", "sha512", "sha256"],
    ] {
        let cairn = Cairn::new();
        let mut layout = Layout::create(&cairn.path("layout"));
        let diff_id = cairn_integration::image::digest_by(for_diff, &tar());
        let document = config(&[diff_id]).to_string();
        let blob = layout.blob_by(for_layer, layer, &tar());
        let config = layout.blob_by(for_config, OCI_CONFIG, document.as_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [blob],
        });
        let manifest = layout.blob_by(for_manifest, OCI_MANIFEST, manifest.to_string().as_bytes());
        layout.list(manifest.clone(), "one");
        kept(&cairn, &layout, &[], &[&blob, &config, &manifest]);
        let target = cairn.path("mnt");
        fs::create_dir(&target).expect("target");
        cairn.ok(&["images", "mount", "localhost/t:one", text(&target)]);
        assert_eq!(fs::read_to_string(target.join("who")).expect("who"), "me");
        cairn.ok(&["images", "unmount", text(&target)]);

        let again = Cairn::new();
        again.ok(&["images", "import", text(&cairn.path("out.tar"))]);
        let listed = again.ok(&["images", "ls", "--json"]);
        assert!(
            listed.contains(manifest["digest"].as_str().expect("digest")),
            "{listed}"
        );
    }
}

/// > Implementations SHOULD allow digests that are unsupported to pass validation (image-spec
/// > `descriptor.md`)
///
/// but nothing here could prove such a blob, so the image is refused.
#[test]
fn m03_m04_digests_of_unknown_kinds() {
    for digest in [
        format!("blake3:{}", "0".repeat(64)),
        format!("md5:{}", "0".repeat(32)),
        format!("sha256:{}", "0".repeat(63)),
        format!("sha256:{}", "A".repeat(64)),
        "sha256:../../../../etc/passwd".to_owned(),
        String::new(),
    ] {
        with_layer(|layout| {
            let mut blob = layout.blob("application/vnd.oci.image.layer.v1.tar", &tar());
            blob["digest"] = json!(digest);
            blob
        })
        .fails(&["refused"]);
    }
}

/// containerd's checkpoints: an index whose entries are no manifests at all, but a CRIU image, a spec
/// and a diff of the root.
#[test]
fn checkpoints_are_kept_untouched() {
    let cairn = Cairn::new();
    let mut layout = Layout::create(&cairn.path("layout"));
    let base = layout.manifest(architecture(), &[Stored::plain(tar())], &json!({}));
    let parts = [
        layout.blob(
            "application/vnd.containerd.container.criu.checkpoint.criu.tar",
            b"criu",
        ),
        layout.blob(
            "application/vnd.containerd.container.checkpoint.config.v1+proto",
            b"spec",
        ),
        layout.blob("application/vnd.oci.image.layer.v1.tar+gzip", b"diff"),
    ];
    let mut entries = vec![base.clone()];
    entries.extend(parts.iter().cloned());
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let index = layout.json(OCI_INDEX, &index);
    layout.list(index.clone(), "one");
    let archived = archive(layout.path(), &cairn.path("in.tar"));
    let import = [
        "images",
        "import",
        "--base-name",
        "localhost/t",
        "--all-platforms",
    ];
    cairn.ok(&[&import[..], &[text(&archived)]].concat());
    cairn.ok(&["gc"]);
    let out = cairn.path("out.tar");
    cairn.ok(&[
        "images",
        "export",
        "--all-platforms",
        text(&out),
        "localhost/t:one",
    ]);
    let names = peers::run("tar", &["-tf", text(&out)]);
    for blob in parts.iter().chain([&base, &index]) {
        let digest = blob["digest"].as_str().expect("digest");
        assert!(names.contains(&digest[7..]), "{digest} is lost");
    }
}
