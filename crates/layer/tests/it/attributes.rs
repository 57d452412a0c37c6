//! Owner, mode, times, extended attributes, holes, and what is left out.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, os::unix::fs::MetadataExt};

use crate::common::{layer, place, show, xattr};

#[test]
fn set_user_id_and_capabilities_survive_their_order() {
    let place = place();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = layer()
        .owner(1000, 1001)
        .mode(0o4755)
        .file("su", "1")
        .xattr("security.capability", &capability)
        .file("ping", "2")
        .hard_link("ping2", "ping")
        .mode(0o2770)
        .dir("group")
        .file("group/f", "3")
        .mode(0o1777)
        .dir("tmp")
        .mode(0)
        .dir("shut")
        .mode(0)
        .file("shut/f", "4")
        .symlink("s", "nowhere")
        .mode(0o600)
        .char_device("null", 1, 3)
        .owner(0, 0)
        .file("group/sub/f", "5");
    place.apply("fs", &layer).unwrap();
    assert_eq!(
        show(&place.path("fs")),
        [
            "group/ 2770 1000:1001",
            "group/f = 3 1000:1001",
            "group/sub/",
            "group/sub/f = 5",
            "null char 1:3 0600 1000:1001",
            "ping = 2 1000:1001 x2",
            "ping2 = 2 1000:1001 x2",
            "s -> nowhere 1000:1001",
            "shut/ 0000 1000:1001",
            "shut/f = 4 0000 1000:1001",
            "su = 1 4755 1000:1001",
            "tmp/ 1777 1000:1001",
        ]
    );
    let kept = xattr(&place.path("fs/ping"), "security.capability");
    assert_eq!(kept.as_deref(), Some(&capability[..]));
}

#[test]
fn overlays_own_attributes_are_never_stored() {
    let place = place();
    let layer = layer()
        .xattr("trusted.overlay.redirect", b"/etc")
        .xattr("user.overlay.opaque", b"y")
        .xattr("security.selinux", b"label")
        .xattr("user.kept", b"a=b\0c")
        .dir("d")
        .xattr("trusted.overlay.metacopy", b"")
        .xattr("user.kept", b"1")
        .file("f", "1")
        .xattr("user.kept", b"1")
        .symlink("s", "f");
    let applied = place.apply("fs", &layer).unwrap();
    for name in [
        "trusted.overlay.redirect",
        "user.overlay.opaque",
        "security.selinux",
    ] {
        assert_eq!(xattr(&place.path("fs/d"), name), None, "{name}");
    }
    assert_eq!(
        xattr(&place.path("fs/d"), "user.kept").as_deref(),
        Some(&b"a=b\0c"[..])
    );
    assert_eq!(
        xattr(&place.path("fs/f"), "user.kept").as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(xattr(&place.path("fs/f"), "trusted.overlay.metacopy"), None);
    assert_eq!(applied.skipped.len(), 5, "{:#?}", applied.skipped);
}

#[test]
fn times_of_directories_outlive_what_is_put_in_them() {
    let place = place();
    let layer = layer()
        .mtime(10)
        .dir("./")
        .mtime(20)
        .dir("a")
        .mtime(30)
        .file("a/b/c/f", "1")
        .mtime(40)
        .symlink("a/s", "f")
        .file("x", "1")
        .mtime(50)
        .file("a/b/g", "2");
    let applied = place.apply("fs", &layer).unwrap();
    let mtime = |path: &str| {
        fs::symlink_metadata(place.path("fs").join(path))
            .unwrap()
            .mtime()
    };
    for (path, time) in [
        ("", 10),
        ("a", 20),
        ("a/b", 30),
        ("a/b/c", 30),
        ("a/b/c/f", 30),
        ("a/s", 40),
        ("a/b/g", 50),
    ] {
        assert_eq!(mtime(path), time, "{path}");
    }
    assert_eq!(applied.invented, [&b"a/b"[..], b"a/b/c"]);
}

#[test]
fn the_root_has_attributes_of_its_own() {
    let place = place();
    let layer = layer()
        .xattr("user.root", b"1")
        .owner(7, 8)
        .mode(0o1711)
        .dir("./")
        .file("f", "1");
    let applied = place.apply("fs", &layer).unwrap();
    let meta = fs::metadata(place.path("fs")).unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        (0o1711, 7, 8)
    );
    assert_eq!(
        xattr(&place.path("fs"), "user.root").as_deref(),
        Some(&b"1"[..])
    );
    assert!(applied.invented.is_empty());
}

#[test]
fn usage_counts_each_file_once() {
    let place = place();
    let data = "x".repeat(10_000);
    let layer = layer()
        .file("d/a", &data)
        .hard_link("d/b", "d/a")
        .symlink("s", "d");
    let usage = place.apply("fs", &layer).unwrap().usage;
    assert_eq!(usage.inodes, 4);
    let blocks: u64 = ["", "d", "d/a", "s"]
        .map(|p| {
            fs::symlink_metadata(place.path("fs").join(p))
                .unwrap()
                .blocks()
                * 512
        })
        .iter()
        .sum();
    assert_eq!(usage.bytes, blocks);
}
