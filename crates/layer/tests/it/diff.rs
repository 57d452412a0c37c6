//! Changes made through a real overlay mount, written as a layer, and unpacked again: the same tree.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    ffi::{OsStr, OsString},
    fs,
    io::Read,
    os::unix::{
        ffi::OsStringExt,
        fs::{FileExt, symlink},
    },
};

use cairn_layer::{
    diff::{self, Error, Packed, diff, pack},
    tar::{self, Limits},
};
use cairn_sys::Dir;
use cairn_types::{Compression, Digest};
use rustix::fs::{FileType, Mode};

use crate::stack::{OLD, Stack, age, chmod, dir, file, listing, set_xattr, some, written};

#[test]
fn whatever_happens_in_a_container_comes_back() {
    let longest = "l".repeat(255);
    let stack = Stack::new(|bottom, nearer| {
        some(bottom, nearer);
        file(bottom, &longest, "");
    });
    stack.change(|root| {
        fs::remove_file(root.join(&longest)).unwrap();
        // Content, mode, owner, time.
        fs::write(root.join("d/one"), "changed").unwrap();
        chmod(&root.join("d/two"), 0o4711);
        std::os::unix::fs::chown(root.join("f"), Some(1000), Some(1001)).unwrap();
        age(&root.join("g"), OLD + 7);
        // Deleting, moving, and back.
        fs::remove_dir_all(root.join("d/sub/deep")).unwrap();
        fs::rename(root.join("h"), root.join("d/moved")).unwrap();
        fs::remove_file(root.join("d/three")).unwrap();
        file(root, "d/three", "again");
        // New things of every kind.
        dir(root, "new/empty");
        file(root, "new/zero", "");
        symlink("/../x", root.join("new/link")).unwrap();
        for (kind, name) in [
            (FileType::CharacterDevice, "new/char"),
            (FileType::BlockDevice, "new/block"),
            (FileType::Fifo, "new/fifo"),
        ] {
            let device = match kind {
                FileType::Fifo => 0,
                _ => rustix::fs::makedev(259, 70_000),
            };
            let mode = Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, mode, device).unwrap();
        }
        let sparse = fs::File::create(root.join("new/sparse")).unwrap();
        sparse.write_all_at(b"far", 3 << 20).unwrap();
        sparse.set_len(5 << 20).unwrap();
        fs::write(root.join("new/odd"), vec![b'o'; 300_001]).unwrap();
        // Names.
        file(root, &"n".repeat(250), "long");
        let deep = format!("{0}/{0}/{0}", "p".repeat(90));
        dir(root, &deep);
        file(root, &format!("{deep}/f"), "deep");
        let odd = OsString::from_vec(b"\xff\n\xc3\xa9 ".to_vec());
        fs::write(root.join(odd), "odd").unwrap();
        symlink("t".repeat(1000), root.join("far")).unwrap();
        // Links.
        file(root, "new/a", "linked");
        fs::hard_link(root.join("new/a"), root.join("new/empty/b")).unwrap();
        fs::hard_link(root.join("new/a"), root.join("c")).unwrap();
        // Attributes, on files and directories; a capability.
        set_xattr(&root.join("new/a"), "user.note", b"a\0b\n");
        set_xattr(&root.join("new"), "user.dir", b"");
        set_xattr(&root.join("d/sub"), "user.lower", b"x");
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        set_xattr(&root.join("new/odd"), "security.capability", &capability);
        chmod(&root.join("new"), 0o2770);
        chmod(&root.join("new/empty"), 0o1777);
    });
    stack.check_round_trip();
}

#[test]
fn kinds_change_places() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::remove_file(root.join("f")).unwrap();
        dir(root, "f");
        file(root, "f/x", "x");
        fs::remove_dir_all(root.join("d/sub")).unwrap();
        file(root, "d/sub", "now a file");
        fs::remove_file(root.join("link")).unwrap();
        dir(root, "link/empty");
        fs::remove_file(root.join("g")).unwrap();
        symlink("h", root.join("g")).unwrap();
    });
    assert_eq!(
        listing(&stack.diff()),
        ["d/", "d/sub", "f/", "f/x", "g -> h", "link/", "link/empty/"],
        "none of them needs a whiteout"
    );
    stack.check_round_trip();
}

#[test]
fn a_directory_made_anew_lists_what_is_gone() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        dir(root, "d/sub");
        chmod(&root.join("d"), 0o750);
        file(root, "d/new", "n");
        file(root, "d/two", "d/two");
        file(root, "d/sub/z", "other");
    });
    assert_eq!(
        listing(&stack.diff()),
        [
            "d/",
            "d/.wh.linked",
            "d/new",
            "d/.wh.one",
            "d/sub/",
            "d/sub/.wh.deep",
            "d/sub/.wh.x",
            "d/sub/z",
            "d/.wh.three",
        ],
        "one that is the same again is none of them"
    );
    stack.check_round_trip();
}

#[test]
fn what_was_only_touched_is_not_there() {
    let stack = Stack::new(some);
    stack.change(|root| {
        // Copied up, and the same as before.
        let opened = fs::OpenOptions::new().append(true).open(root.join("d/one"));
        drop(opened.unwrap());
        file(root, "f", "f");
        chmod(&root.join("d/sub"), 0o711);
        chmod(&root.join("d/sub"), 0o755);
        // Come and gone.
        file(root, "d/gone", "");
        fs::remove_file(root.join("d/gone")).unwrap();
    });
    assert!(stack.at("upper").join("d/one").exists(), "it was copied up");
    assert_eq!(listing(&stack.diff()), [""; 0]);
    assert_eq!(stack.diff(), [0; 1024]);
}

#[test]
fn from_nothing_and_to_nothing() {
    let stack = Stack::new(some);
    assert_eq!(written(&[], &[]), [0; 1024], "nothing and nothing");
    let all = written(&[], &stack.lowers());
    let gone = written(&stack.lowers(), &[]);
    assert_eq!(
        listing(&gone),
        [".wh.d", ".wh.f", ".wh.g", ".wh.h", ".wh.link", ".wh.linked"]
    );
    assert!(listing(&all).contains(&"d/sub/z".to_owned()));
}

#[test]
fn same_size_and_time_but_other_content() {
    let stack = Stack::new(some);
    stack.change(|root| file(root, "d/one", "D/ONE"));
    assert_eq!(listing(&stack.diff()), ["d/", "d/one"]);
    stack.check_round_trip();
}

#[test]
fn a_new_name_for_an_unchanged_file() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::hard_link(root.join("d/one"), root.join("second")).unwrap();
        fs::hard_link(root.join("f"), root.join("a")).unwrap();
    });
    assert_eq!(
        listing(&stack.diff()),
        ["a", "f = a", "second", "d/", "d/one = second"],
        "the new name has the data, the old one follows with its parents"
    );
    stack.check_round_trip();
}

#[test]
fn the_root_itself() {
    let stack = Stack::new(|bottom, nearer| {
        some(bottom, nearer);
        std::os::unix::fs::chown(nearer, Some(5), Some(6)).unwrap();
        chmod(nearer, 0o700);
    });
    // As the snapshotter makes it.
    std::os::unix::fs::chown(stack.at("upper"), Some(5), Some(6)).unwrap();
    assert_eq!(listing(&stack.diff()), [""; 0], "as it was made");
    stack.change(|root| chmod(root, 0o1777));
    assert_eq!(listing(&stack.diff()), ["./"]);
    stack.check_round_trip();
}

#[test]
fn sockets_are_left_out_and_hide_what_was_there() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::remove_file(root.join("f")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(root.join("f")).unwrap());
        drop(std::os::unix::net::UnixListener::bind(root.join("new")).unwrap());
    });
    assert_eq!(listing(&stack.diff()), [".wh.f"]);
}

#[test]
fn times_are_capped_and_whole() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::write(root.join("now"), "").unwrap();
        file(root, "old", "");
        fs::remove_file(root.join("f")).unwrap();
    });
    let options = diff::Options {
        latest: Some(OLD + 10),
        ..Default::default()
    };
    let mut out = Vec::new();
    diff(&stack.lowers(), &stack.with("upper"), &options, &mut out).unwrap();
    let mut reader = tar::Reader::new(&out[..], Limits::default());
    let mut times = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        times.push((entry.mtime.secs, entry.mtime.nanos));
    }
    assert_eq!(times, [(0, 0), (OLD + 10, 0), (OLD, 0)]);
}

#[test]
fn between_any_two_stacks() {
    let stack = Stack::new(some);
    stack.change(|root| {
        file(root, "second", "2");
        fs::remove_file(root.join("f")).unwrap();
        fs::remove_dir_all(root.join("d/sub")).unwrap();
        fs::remove_file(root.join("linked")).unwrap();
    });
    let (lowers, upper) = (stack.lowers(), stack.with("upper"));
    assert_eq!(
        listing(&written(&lowers, &upper)),
        ["d/", "d/.wh.sub", ".wh.f", ".wh.linked", "second"]
    );
    assert_eq!(
        listing(&written(&upper, &lowers)),
        [
            "d/",
            "d/sub/",
            "d/sub/deep/",
            "d/sub/deep/y",
            "d/sub/x",
            "d/sub/z",
            "f",
            "linked",
            "d/linked = linked",
            ".wh.second",
        ],
        "backwards; a name that is back is again that of its file"
    );
    assert_eq!(listing(&written(&upper, &upper)), [""; 0]);
    assert_eq!(
        listing(&written(&lowers[1..], &upper)),
        [
            "d/",
            "d/.wh.sub",
            "d/three",
            ".wh.f",
            ".wh.linked",
            "second"
        ],
        "two layers at once"
    );
}

#[test]
fn every_packing_holds_the_same_layer() {
    let stack = Stack::new(some);
    stack.change(|root| file(root, "new", &"text ".repeat(100_000)));
    let layer = stack.diff();
    let packed = |compression| -> (Packed, Vec<u8>) {
        let mut out = Vec::new();
        let options = diff::Options::default();
        let (left, right) = (stack.lowers(), stack.with("upper"));
        let packed = pack(&left, &right, &options, compression, &mut out).unwrap();
        (packed, out)
    };
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (said, bytes) = packed(compression);
        assert_eq!(bytes, packed(compression).1, "{compression:?} again");
        assert_eq!(Compression::sniff(&bytes), compression);
        let mut inside = Vec::new();
        match compression {
            Compression::None => inside = bytes,
            Compression::Gzip => {
                let mut reader = flate2::read::GzDecoder::new(&bytes[..]);
                reader.read_to_end(&mut inside).unwrap();
            }
            Compression::Zstd => inside = zstd::decode_all(&bytes[..]).unwrap(),
        }
        assert_eq!(inside, layer);
        assert_eq!(said.diff_id.digest(), &Digest::sha256(&layer));
        assert_eq!((said.size, said.entries), (layer.len() as u64, 1));
    }
}

#[test]
fn what_a_layer_cannot_say_is_refused() {
    let stack = Stack::new(some);
    let refused = |right: &[Dir]| {
        let options = diff::Options::default();
        diff(&stack.lowers(), right, &options, std::io::sink()).unwrap_err()
    };
    file(&stack.at("upper"), ".wh.f", "");
    let err = refused(&stack.with("upper"));
    assert!(
        matches!(&err, Error::Marker { path } if path == ".wh.f"),
        "{err}"
    );
    fs::remove_file(stack.at("upper").join(".wh.f")).unwrap();

    dir(&stack.at("upper"), "moved");
    set_xattr(
        &stack.at("upper").join("moved"),
        "trusted.overlay.redirect",
        b"d",
    );
    let err = refused(&stack.with("upper"));
    assert!(matches!(&err, Error::Feature { .. }), "{err}");
    fs::remove_dir(stack.at("upper").join("moved")).unwrap();

    file(&stack.at("upper"), "f", "");
    set_xattr(
        &stack.at("upper").join("f"),
        "trusted.overlay.metacopy",
        b"",
    );
    let err = refused(&stack.with("upper"));
    assert!(matches!(&err, Error::Feature { .. }), "{err}");
}

#[test]
fn deep_and_wide_trees() {
    let stack = Stack::new(|bottom, _| {
        let mut at = Dir::open(bottom).unwrap();
        for _ in 0..1900 {
            at.create_dir(OsStr::new("d"), 0o755).unwrap();
            at = at.open_dir(OsStr::new("d")).unwrap();
        }
    });
    let mut at = stack.dir("upper");
    for _ in 0..1900 {
        at.create_dir(OsStr::new("d"), 0o755).unwrap();
        at = at.open_dir(OsStr::new("d")).unwrap();
        // Compared after the way back.
        let made = at.open_file(
            OsStr::new("z"),
            cairn_sys::OFlags::CREATE | cairn_sys::OFlags::WRONLY,
            0o644,
        );
        drop(made.unwrap());
    }
    let layer = written(&stack.lowers(), &stack.with("upper"));
    assert_eq!(listing(&layer).len(), 2 * 1900);
}
