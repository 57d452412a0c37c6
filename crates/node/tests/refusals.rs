//! What is refused: with the name of what is wrong, and nothing left behind.

mod common;

use std::fs;

use cairn_node::{Failure, Source};
use cairn_types::{Digest, ErrorKind};
use common::*;
use serde_json::json;

/// Imports as a directory, as a file and as a stream; all must fail and leave nothing.
#[track_caller]
fn refused(layout: &Layout) -> Failure {
    let archive = layout.archive();
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), &archive).expect("write");
    let mut failures = Vec::new();
    for source in [
        Source::Path(layout.path().to_owned()),
        Source::Path(file.path().to_owned()),
        stream(archive),
    ] {
        let store = Store::new();
        let failure = store
            .import_with(source, |_| ())
            .expect_err("must be refused");
        store.assert_empty();
        failures.push(failure);
    }
    failures.swap_remove(1)
}

#[test]
fn a_flipped_bit_in_a_layer_is_named() {
    let layout = simple();
    let layer = two_layers()[1].1.clone();
    let digest = Digest::sha256(&layer).to_string();
    let path = layout.blob_path(&digest);
    for (position, what) in [
        (layer.len() / 2, "middle"),
        (0, "magic"),
        (layer.len() - 1, "end"),
    ] {
        let mut damaged = layer.clone();
        damaged[position] ^= 1;
        fs::write(&path, &damaged).expect("write");
        let failure = refused(&layout);
        assert_eq!(failure.kind, ErrorKind::DataLoss, "{what}: {failure:?}");
        let reason = format!("layer {digest} is damaged");
        assert_eq!(failure.reason, reason, "{what}: {failure:?}");
        let actual = format!("its bytes hash to {}", Digest::sha256(&damaged));
        assert!(failure.causes.contains(&actual), "{what}: {failure:?}");
        let location = failure.location.as_deref().expect("location");
        assert!(location.contains(&digest[7..]), "{what}: {location}");
    }
}

#[test]
fn m05_wrong_sizes_are_refused() {
    // For the largest there may be no room, which is seen before the layer is read.
    let wrong: &[ErrorKind] = &[ErrorKind::DataLoss];
    let large = [ErrorKind::DataLoss, ErrorKind::ResourceExhausted];
    for (change, kinds) in [
        (-1_i64, wrong),
        (1, wrong),
        (1 << 20, wrong),
        (1 << 40, &large),
    ] {
        let mut layout = Layout::new();
        let plain = tar(&[("a", "a")]);
        let mut layer = layout.blob(OCI_LAYER, &plain);
        let size = layer["size"].as_i64().expect("size");
        layer["size"] = json!(size + change);
        let manifest = manifest_over(&layout, &[layer], &[Digest::sha256(&plain).to_string()]);
        layout.name(manifest, "a:1");
        let failure = refused(&layout);
        assert!(kinds.contains(&failure.kind), "{change}: {failure:?}");
    }
}

fn manifest_over(
    layout: &Layout,
    layers: &[serde_json::Value],
    diff_ids: &[String],
) -> serde_json::Value {
    let platform = cairn_types::Platform::host();
    let config = layout.json(
        OCI_CONFIG,
        &json!({
            "architecture": platform.architecture, "os": platform.os,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }),
    );
    layout.json(
        OCI_MANIFEST,
        &json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers,
        }),
    )
}

#[test]
fn diff_ids_must_be_those_of_the_layers() {
    let plain = tar(&[("a", "a")]);
    let wrong = Digest::sha256(b"something else").to_string();
    let right = Digest::sha256(&plain).to_string();
    for (diff_ids, word) in [
        (vec![wrong], "is not what the configuration says"),
        (vec![], "0 diff IDs"),
        (vec![right.clone(), right], "2 diff IDs"),
    ] {
        let mut layout = Layout::new();
        let layer = layout.blob(OCI_LAYER, &plain);
        let manifest = manifest_over(&layout, &[layer], &diff_ids);
        layout.name(manifest, "a:1");
        let failure = refused(&layout);
        assert!(failure.reason.contains(word), "{failure:?}");
    }
}

#[test]
fn a_cut_archive_is_refused() {
    let archive = simple().archive();
    let file = tempfile::NamedTempFile::new().expect("file");
    for length in [archive.len() / 2, 700, 5000] {
        let cut = &archive[..length];
        fs::write(file.path(), cut).expect("write");
        for source in [Source::Path(file.path().to_owned()), stream(cut.to_vec())] {
            let store = Store::new();
            let failure = store
                .import_with(source, |_| ())
                .expect_err("must be refused");
            store.assert_empty();
            let kinds = [
                ErrorKind::DataLoss,
                ErrorKind::NotFound,
                ErrorKind::InvalidArgument,
            ];
            assert!(kinds.contains(&failure.kind), "{length}: {failure:?}");
        }
        let packed = pack("gzip", &archive);
        let store = Store::new();
        let cut = packed[..packed.len() * 2 / 3].to_vec();
        let failure = store
            .import_with(stream(cut), |_| ())
            .expect_err("must be refused");
        store.assert_empty();
        assert_eq!(failure.kind, ErrorKind::DataLoss, "{failure:?}");
    }
}

#[test]
fn what_is_no_archive_is_said() {
    let file = tempfile::NamedTempFile::new().expect("file");
    for (bytes, cause) in [
        (
            "some notes\n".repeat(100).into_bytes(),
            "first bytes are text",
        ),
        (Vec::new(), "it is empty"),
        (b"PK\x03\x04 and so on".to_vec(), "zip"),
        (tar(&[("a", "a")]), "neither index.json"),
    ] {
        fs::write(file.path(), &bytes).expect("write");
        for source in [Source::Path(file.path().to_owned()), stream(bytes.clone())] {
            let store = Store::new();
            let failure = store
                .import_with(source, |_| ())
                .expect_err("must be refused");
            store.assert_empty();
            assert_eq!(failure.reason, "neither an OCI nor a docker archive");
            assert!(failure.causes[0].contains(cause), "{failure:?}");
            assert_eq!(failure.next, ["make one: docker save -o FILE IMAGE"]);
        }
    }
    let failure = Store::new()
        .import("/nowhere".as_ref())
        .expect_err("no file");
    assert_eq!(failure.to_string(), "cannot import /nowhere: no such file");
}

#[test]
fn a_missing_platform_lists_those_there_are() {
    let mut layout = Layout::new();
    let plain = tar(&[("a", "a")]);
    let mut entries = Vec::new();
    for arch in ["s390x", "riscv64"] {
        let layers = [(OCI_LAYER, plain.clone(), plain.clone())];
        let mut entry = layout.manifest(&format!("linux/{arch}"), &layers);
        entry["platform"] = json!({"os": "linux", "architecture": arch});
        entries.push(entry);
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries});
    let index = layout.json(OCI_INDEX, &index);
    layout.name(index, "shop/web:1");
    let failure = refused(&layout);
    assert_eq!(failure.kind, ErrorKind::NotFound);
    assert_eq!(
        failure.to_string(),
        format!(
            "cannot import image docker.io/shop/web:1: no manifest for {}",
            host()
        )
    );
    assert_eq!(failure.causes, ["it has linux/s390x, linux/riscv64"]);
}

#[test]
fn m01_documents_with_two_meanings_are_refused() {
    let plain = tar(&[("a", "a")]);
    let layout = Layout::new();
    let layer = layout.blob(OCI_LAYER, &plain);
    let good = manifest_over(&layout, &[layer], &[Digest::sha256(&plain).to_string()]);
    let bytes = fs::read(layout.blob_path(good["digest"].as_str().expect("digest")));
    let manifest: serde_json::Value =
        serde_json::from_slice(&bytes.expect("manifest")).expect("JSON");
    let with = |key: &str, value: serde_json::Value| {
        let mut changed = manifest.clone();
        changed[key] = value;
        changed
    };
    for (document, media_type) in [
        (with("manifests", json!([])), OCI_MANIFEST),
        (with("manifests", json!([])), OCI_INDEX),
        (with("mediaType", json!(OCI_INDEX)), OCI_MANIFEST),
        (with("fsLayers", json!([])), OCI_MANIFEST),
        (with("Layers", json!([])), OCI_MANIFEST),
        (with("schemaVersion", json!(1)), OCI_MANIFEST),
        (
            manifest.clone(),
            "application/vnd.docker.distribution.manifest.v1+json",
        ),
    ] {
        let mut layout = Layout::new();
        layout.blob(OCI_LAYER, &plain);
        let descriptor = layout.json(media_type, &document);
        layout.name(descriptor, "a:1");
        let failure = refused(&layout);
        assert_eq!(failure.kind, ErrorKind::InvalidArgument, "{failure:?}");
    }
}

/// A limit of ours is no full disk: the entry is named, and nothing is kept for another try.
#[test]
fn what_is_over_a_limit_is_named() {
    let name = "n".repeat(300);
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    let mut builder = tar::Builder::new(Vec::new());
    builder
        .append_data(&mut header, &name, &b""[..])
        .expect("entry");
    let plain = builder.into_inner().expect("tar");
    let mut layout = Layout::new();
    let layer = layout.blob(OCI_LAYER, &plain);
    let manifest = manifest_over(&layout, &[layer], &[Digest::sha256(&plain).to_string()]);
    layout.name(manifest, "a:1");
    let failure = refused(&layout);
    assert_eq!(failure.kind, ErrorKind::InvalidArgument, "{failure:?}");
    let causes = failure.causes.join("; ");
    assert!(
        causes.contains("nnn") && causes.contains("limit of 255"),
        "{causes}"
    );
}

#[test]
fn unknown_layer_types_can_only_be_kept_packed() {
    let mut layout = Layout::new();
    let plain = tar(&[("a", "a")]);
    let first = layout.blob(OCI_LAYER, &plain);
    let second = layout.blob("application/vnd.acme.layer.v9", b"whatever");
    let diff_ids = [Digest::sha256(&plain), Digest::sha256(b"x")].map(|d| d.to_string());
    let manifest = manifest_over(&layout, &[first, second], &diff_ids);
    layout.name(manifest, "a:1");
    let failure = refused(&layout);
    assert_eq!(
        failure.reason,
        "layer 2 of 2 has unknown type application/vnd.acme.layer.v9"
    );
    let store = Store::new();
    let source = Source::Path(layout.path().to_owned());
    store
        .import_with(source, |r| r.unpack = false)
        .expect("packed");
}

#[test]
fn blobs_that_are_missing_are_named() {
    let layout = simple();
    let digest = Digest::sha256(&two_layers()[0].1);
    fs::remove_file(layout.blob_path(&digest.to_string())).expect("remove");
    let failure = refused(&layout);
    assert_eq!(
        failure.reason,
        format!("blob {digest} is not in the archive")
    );
}

/// A packed archive passes as a stream. A few kilobytes of it can say that a name has gigabytes.
#[test]
fn h07_headers_of_a_stream_are_not_kept_whatever_their_length() {
    let size: u64 = 256 << 20;
    for kind in [b'L', b'K', b'x', b'g'] {
        let mut header = [0; 512];
        header[..1].copy_from_slice(b"x");
        header[100..108].copy_from_slice(b"0000644\0");
        header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
        header[156] = kind;
        let magic: &[u8; 8] = if kind.is_ascii_uppercase() {
            b"ustar  \0"
        } else {
            b"ustar\x0000"
        };
        header[257..265].copy_from_slice(magic);
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let dir = tempfile::tempdir().expect("temporary directory");
        let plain = dir.path().join("a.tar");
        let mut file = fs::File::create(&plain).expect("file");
        std::io::Write::write_all(&mut file, &header).expect("write");
        file.set_len(512 + size + 1024).expect("a hole");
        run("gzip", &["-1", text(&plain)]);
        let store = Store::new();
        let failure = store
            .import(&dir.path().join("a.tar.gz"))
            .expect_err("refused");
        // A reader may pass over what it does not know instead.
        let reasons = [
            "headers of an entry take more than",
            "neither an OCI nor",
            "damaged",
        ];
        let told = format!("{failure} {:?}", failure.causes);
        assert!(reasons.iter().any(|reason| told.contains(reason)), "{told}");
        assert!(
            peak_kib() < 200 << 10,
            "{}: {} KiB",
            char::from(kind),
            peak_kib()
        );
    }
}

/// The most memory that this process has had.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .expect("VmHWM");
    number.parse().expect("a number")
}
