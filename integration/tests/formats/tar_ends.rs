//! How archives end, well and badly: one fixture for each.
//!
//! | row of the tar table | tests |
//! |---|---|
//! | missing end blocks, one end block | `ends_that_are_short` |
//! | data after end, concatenated tars | `what_follows_the_end_counts_for_the_diff_id` |
//! | a second tar after one zero block | `a_single_zero_block_between_entries` |
//! | truncated last entry | `truncated_archives` |
//! | empty layer tar | `layers_of_nothing` |

use std::process::Command;

use cairn_integration::{
    fixture::{Case, Peer},
    image::{Packing, Stored},
    raw::{Header, Tar},
};

fn one() -> Tar {
    Tar::new().file("one", b"1")
}

/// > At the end of the archive file there shall be two 512-byte blocks filled with binary zeros,
/// > interpreted as an end-of-archive indicator. (POSIX `pax`, "ustar Interchange Format")
///
/// Writers forget them, and every reader lets them.
#[test]
fn ends_that_are_short() {
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
fn what_follows_the_end_counts_for_the_diff_id() {
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
fn truncated_archives() {
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
    // Data fills whole blocks (POSIX `pax`). Go's reader takes the last one without its padding; an
    // archive that ends there was cut.
    let tree = format!(
        "file last 0644 = 1000 bytes {}",
        cairn_integration::image::digest(&[7; 1000])
    );
    let tree = [tree.as_str(), "file one 0644 = 1"];
    Case::new(bytes[..start + 1515].to_vec())
        .fails(&[
            &format!("at byte {start}"),
            "the stream ends inside its padding",
        ])
        .umoci(Peer::Tree(&tree))
        .containerd(Peer::Tree(&tree));
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
}
