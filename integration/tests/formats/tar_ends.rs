//! How archives end, well and badly: one fixture for each.
//!
//! | row of the tar table | tests |
//! |---|---|
//! | missing end blocks, one end block | `h13_ends_that_are_short` |
//! | data after end, concatenated tars | `h13_what_follows_the_end_counts_for_the_diff_id` |
//! | a second tar after one zero block | `a_single_zero_block_between_entries` |
//! | truncated last entry | `h13_truncated_archives` |
//! | missing padding of the last entry | `padding_that_is_short`, `umoci_inserts_without_padding` |
//! | empty layer tar | `layers_of_nothing` |

use std::{fs, path::Path, process::Command};

use cairn_integration::{
    fixture::{Case, Peer, text},
    image::{Packing, Stored, digest},
    peers,
    raw::{Header, Tar},
};
use serde_json::{Value, json};

fn one() -> Tar {
    Tar::new().file("one", b"1")
}

/// > At the end of the archive file there shall be two 512-byte blocks filled with binary zeros,
/// > interpreted as an end-of-archive indicator. (POSIX `pax`, "ustar Interchange Format")
///
/// Writers forget them, and every reader lets them.
#[test]
fn h13_ends_that_are_short() {
    for end in [&[][..], &[0; 512], &[0; 1024], &[0; 10_240]] {
        let tar = one().raw(end).unfinished();
        Case::new(tar)
            .unpacks(&["file one 0644 = 1"])
            .umoci(Peer::Same)
            .containerd(Peer::Same);
    }
}

/// What comes after the end is not read as entries, yet it is part of the stream that the
/// configuration's diff ID names: an import that did not hash it would fail.
#[test]
fn h13_what_follows_the_end_counts_for_the_diff_id() {
    let second = Tar::new().file("two", b"2").finish();
    for after in [&second[..], b"garbage", &[0; 100_000], &[7; 3000]] {
        for packing in [Packing::Plain, Packing::Gzip] {
            let mut tar = one().finish();
            tar.extend_from_slice(after);
            Case::stack(&[(tar, packing)])
                .unpacks(&["file one 0644 = 1"])
                .umoci(Peer::Same)
                .containerd(Peer::Same);
        }
    }
    let mut layer = Stored::plain(one().finish());
    layer.bytes.extend_from_slice(&second);
    Case::layout(|layout| {
        layout.image_of("one", &[layer]);
    })
    .fails(&["is not what the configuration says"])
    .umoci(Peer::Fails("diffid mismatch"))
    .containerd(Peer::Fails("wrong diff id"));
}

/// GNU tar stops at the first zero block, Go refuses it, `tar -i` and libarchive read on.
#[test]
fn a_single_zero_block_between_entries() {
    let tar = one().raw(&[0; 512]);
    let at = tar.offset() - 512;
    let tar = tar.file("two", b"2").finish();
    Case::new(tar)
        .fails(&[
            &format!("at byte {at}"),
            "a single zero block and more after it",
        ])
        .umoci(Peer::Fails("invalid tar header"))
        .containerd(Peer::Fails("invalid tar header"));
}

/// Cut in the header, in the data, in the padding, and in an extension header.
#[test]
fn h13_truncated_archives() {
    let whole = one()
        .head(Header::ustar(b'0', b"last", 1000))
        .data(&[7; 1000]);
    let start = one().offset();
    let bytes = whole.unfinished();
    for (length, inside) in [
        (start + 100, "header"),
        (start + 512, "data"),
        (start + 900, "data"),
    ] {
        Case::new(bytes[..length].to_vec())
            .fails(&[
                &format!("at byte {start}"),
                &format!("the stream ends inside its {inside}"),
            ])
            .umoci(Peer::Fails("unexpected EOF"))
            .containerd(Peer::Fails("unexpected EOF"));
    }
    let extended = one().pax(&[("path", b"last")]).unfinished();
    Case::new(extended[..start + 516].to_vec()).fails(&[
        &format!("at byte {start}"),
        "the stream ends inside its extension header",
    ]);
    Case::new(extended).fails(&[
        &format!("at byte {start}"),
        "extension headers without an entry",
    ]);
}

/// Data fills whole blocks (POSIX `pax`). Where the last one is not filled Go's reader takes it, and so do
/// all who unpack images; the other tars fail, and see no other file.
#[test]
fn padding_that_is_short() {
    let whole = one().head(Header::ustar(b'0', b"last", 1000));
    let data = whole.offset() + 1000;
    let bytes = whole.data(&[7; 1000]).unfinished();
    let tree = format!("file last 0644 = 1000 bytes {}", digest(&[7; 1000]));
    let tree = [tree.as_str(), "file one 0644 = 1"];
    for length in [data, data + 1, data + 23] {
        for packing in [Packing::Plain, Packing::Gzip] {
            Case::stack(&[(bytes[..length].to_vec(), packing)])
                .unpacks(&tree)
                .umoci(Peer::Same)
                .containerd(Peer::Same);
        }
    }
}

/// As version 0.4.7 does it.
#[test]
fn umoci_inserts_without_padding() {
    let case = Case::layout(|layout| {
        let work = layout.path().parent().expect("directory");
        let file = work.join("file");
        fs::write(&file, [b'x'; 1000]).expect("file");
        let image = format!("{}:one", text(layout.path()));
        layout.image("one", &[(one().finish(), Packing::Gzip)], &json!({}));
        peers::run(
            "umoci",
            &["insert", "--image", &image, text(&file), "/in/it"],
        );
        let inserted = umoci_layer(layout.path());
        assert_eq!(inserted.len(), 512 + 1000, "nothing after the data");
    });
    let root = case.mount();
    assert_eq!(fs::read(root.join("in/it")).expect("file"), [b'x'; 1000]);
    assert_eq!(fs::read(root.join("one")).expect("file"), b"1");
}

/// The top layer of a layout's only image, unpacked.
fn umoci_layer(layout: &Path) -> Vec<u8> {
    let document = |path: &Path| -> Value {
        let bytes = fs::read(path).expect("document");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let blob = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().expect("digest");
        layout.join("blobs").join(digest.replace(':', "/"))
    };
    let index = document(&layout.join("index.json"));
    let manifest = document(&blob(&index["manifests"][0]));
    let layers = manifest["layers"].as_array().expect("layers");
    let packed = fs::read(blob(layers.last().expect("a layer"))).expect("layer");
    peers::filter("gzip", &["-dc"], &packed)
}

/// No byte at all, packed or not, and a tar that only ends.
#[test]
fn layers_of_nothing() {
    for packing in [Packing::Plain, Packing::Gzip] {
        for tar in [Vec::new(), Tar::empty().finish()] {
            let below = one().finish();
            Case::stack(&[(below, Packing::Plain), (tar, packing)])
                .unpacks(&["file one 0644 = 1"])
                .umoci(Peer::Same)
                .containerd(Peer::Same);
        }
    }
}

/// What GNU tar makes of the same bytes.
#[test]
fn gnu_tar_agrees_about_the_ends() {
    let list = |bytes: &[u8]| {
        let file = tempfile::NamedTempFile::new().expect("file");
        std::fs::write(file.path(), bytes).expect("write");
        let output = Command::new("tar").arg("-tf").arg(file.path()).output();
        let output = output.expect("start tar");
        let names = String::from_utf8(output.stdout).expect("UTF-8");
        (names, output.status.success())
    };
    let ok = ("./\none\n".to_owned(), true);
    for end in [&[][..], &[0; 512], &[0; 1024]] {
        assert_eq!(list(&one().raw(end).unfinished()), ok);
    }
    let second = Tar::new().file("two", b"2").finish();
    assert_eq!(list(&[one().finish(), second].concat()), ok);
    let cut = one()
        .head(Header::ustar(b'0', b"last", 1000))
        .raw(&[7; 300]);
    assert!(!list(&cut.unfinished()).1);
    let unpadded = one()
        .head(Header::ustar(b'0', b"last", 1000))
        .raw(&[7; 1000]);
    let (names, well) = list(&unpadded.unfinished());
    assert_eq!((names.as_str(), well), ("./\none\nlast\n", false));
}
