//! The mounted tree of an image beside what `umoci unpack` and containerd's `ctr images mount` give
//! for the same image: content, type, mode, owner, time, xattrs, links, devices.

#![allow(missing_docs)]

use std::path::{Path, PathBuf};

use cairn_integration::{
    cairn::Cairn,
    image::{Layer, Layout, MTIME, Packing},
    peers,
    tree::Tree,
};
use serde_json::json;
use tar::EntryType;

type Layers = [(Vec<u8>, Packing)];

/// Imports a layout and mounts its image; returns the mount point.
fn mounted(cairn: &Cairn, layout: &Path) -> PathBuf {
    let target = cairn.path("mnt");
    std::fs::create_dir_all(&target).expect("target");
    cairn.ok(&[
        "images",
        "import",
        "--base-name",
        "localhost/t",
        &layout.display().to_string(),
    ]);
    cairn.ok(&[
        "images",
        "mount",
        "localhost/t:one",
        &target.display().to_string(),
    ]);
    target
}

fn layout(cairn: &Cairn, layers: &Layers) -> PathBuf {
    let path = cairn.path("layout");
    Layout::create(&path).image("one", layers, &json!({}));
    path
}

/// Both trees for one image.
fn beside_umoci(layers: &Layers) -> (Tree, Tree) {
    let cairn = Cairn::new();
    let layout = layout(&cairn, layers);
    let ours = Tree::read(&mounted(&cairn, &layout));
    let theirs = Tree::read(&peers::umoci_unpack(&layout, "one", &cairn.path("umoci")));
    (ours, theirs)
}

/// Every kind of entry, in one layer that lists all its directories.
fn kinds() -> Vec<u8> {
    let header = |kind, mode, uid, gid| Layer::header(kind, mode, uid, gid, MTIME + 7);
    let device = |kind, major, minor| {
        let mut device = header(kind, 0o666, 0, 0);
        device.set_device_major(major).expect("major");
        device.set_device_minor(minor).expect("minor");
        device
    };
    let mut layer = Layer::new()
        .dir("./", 0o755)
        .dir("d/", 0o2750)
        .dir("sticky/", 0o1777)
        .file("d/f", b"content")
        .entry("d/setuid", header(EntryType::Regular, 0o4755, 0, 0), b"#!")
        .entry(
            "d/owned",
            header(EntryType::Regular, 0o640, 1000, 70_000),
            b"",
        )
        .link(EntryType::Link, "d/hard", "d/f")
        .link(EntryType::Symlink, "d/soft", "../d/f")
        .link(EntryType::Symlink, "dangling", "/no/such/thing")
        .entry("fifo", header(EntryType::Fifo, 0o600, 5, 6), b"")
        .entry("null", device(EntryType::Char, 1, 3), b"")
        .entry("loop", device(EntryType::Block, 7, 0), b"");
    let xattr = [("SCHILY.xattr.user.note", &b"a=b"[..])];
    layer.builder().append_pax_extensions(xattr).expect("pax");
    layer.file("with-xattr", b"x").finish()
}

#[test]
fn every_kind_of_entry_is_as_umoci_unpacks_it() {
    for packing in [Packing::Plain, Packing::Gzip] {
        let (ours, theirs) = beside_umoci(&[(kinds(), packing)]);
        ours.assert_equals(&theirs, "cairn's and umoci's trees");
        assert_eq!(
            ours.get("with-xattr").expect("there").xattrs["user.note"],
            b"a=b"
        );
        assert_eq!(ours.len(), 13);
    }
}

/// Debian's umoci has no zstd, so the packed layer is held against the plain one.
#[test]
fn zstd_gives_the_tree_that_plain_gives() {
    let tree = |packing| {
        let cairn = Cairn::new();
        let layout = layout(&cairn, &[(kinds(), packing)]);
        Tree::read(&mounted(&cairn, &layout))
    };
    tree(Packing::Zstd).assert_equals(&tree(Packing::Plain), "the trees of zstd and plain layers");
}

fn whiteout(layer: Layer, path: &str) -> Layer {
    layer.entry(path, Layer::header(EntryType::Regular, 0, 0, 0, 0), b"")
}

#[test]
fn upper_layers_hide_and_replace() {
    let lower = Layer::new()
        .dir("./", 0o755)
        .dir("gone/", 0o755)
        .file("gone/f", b"1")
        .dir("opaque/", 0o700)
        .file("opaque/old", b"1")
        .dir("merge/", 0o711)
        .file("merge/old", b"1")
        .file("file-to-dir", b"1")
        .dir("dir-to-file/", 0o755)
        .file("dir-to-file/f", b"1")
        .link(EntryType::Symlink, "link-to-file", "merge/old")
        .file("hard-a", b"1")
        .link(EntryType::Link, "hard-b", "hard-a")
        .finish();
    let upper = Layer::new().dir("opaque/", 0o711).file("opaque/new", b"2");
    let upper = whiteout(whiteout(upper, ".wh.gone"), "opaque/.wh..wh..opq")
        .file("merge/new", b"2")
        .dir("file-to-dir/", 0o755)
        .file("file-to-dir/f", b"2")
        .file("dir-to-file", b"2")
        .file("link-to-file", b"2")
        .file("hard-a", b"2")
        .finish();
    let (ours, theirs) = beside_umoci(&[(lower, Packing::Gzip), (upper, Packing::Gzip)]);
    ours.assert_equals(&theirs, "cairn's and umoci's trees");
    assert!(ours.get("gone").is_none() && ours.get("opaque/old").is_none());
    assert!(ours.get("merge/old").is_some() && ours.get("merge/new").is_some());
}

/// containerd is the better reference where umoci falls short; both are run on the same image.
#[test]
fn a_stack_is_as_containerd_mounts_it() {
    let lower = Layer::new()
        .dir("d/", 0o750)
        .file("d/f", b"1")
        .file("d/g", b"1")
        .finish();
    let upper = whiteout(Layer::new().file("d/h", b"2"), "d/.wh.g").finish();
    let cairn = Cairn::new();
    let layout = layout(&cairn, &[(lower, Packing::Gzip), (upper, Packing::Gzip)]);
    let mut ours = Tree::read(&mounted(&cairn, &layout));
    let archive = cairn.path("archive.tar").display().to_string();
    peers::run(
        "tar",
        &["-C", &layout.display().to_string(), "-cf", &archive, "."],
    );
    let containerd = peers::Containerd::start();
    let target = cairn.path("ctr").display().to_string();
    std::fs::create_dir(&target).expect("target");
    containerd.ok(&["images", "import", "--base-name", "localhost/t", &archive]);
    containerd.ok(&["images", "mount", "localhost/t:one", &target]);
    let mut theirs = Tree::read(Path::new(&target));
    containerd.ok(&["images", "unmount", &target]);
    for tree in [&mut ours, &mut theirs] {
        tree.retain(|path, node| {
            // containerd leaves the time of its own writing on directories that a layer implies,
            // and on the root, whose entry it skips.
            if path == Path::new("") || path == Path::new("d") {
                node.mtime = (0, 0);
            }
            true
        });
    }
    ours.assert_equals(&theirs, "cairn's and containerd's trees");
}
