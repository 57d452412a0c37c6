//! Names that come twice, lead elsewhere or are none: one fixture for each.
//!
//! | row of the tar table | tests |
//! |---|---|
//! | duplicate entries, dir after its children, file then dir same path | `p22_the_last_entry_of_a_name_wins`, `directories_after_their_children` |
//! | hard link before/after target, self link, link to dir | `p12_hard_links`, `p13_hard_links_that_cannot_be` |
//! | symlink loops | `links_among_the_parents`, `p08_links_in_a_circle` |
//! | `..`, absolute, empty name, `.`, `./` | `p02_dots_and_slashes`, `p01_paths_with_parents`, `p08_p20_empty_names`, `p06_the_root_is_a_directory` |
//! | names of 255 bytes, paths > 4096 | `p19_long_names_and_deep_paths`, `p19_names_over_the_limits` |
//!
//! Every row of attempts to get out is in `crates/layer/tests/paths.rs`.

use cairn_integration::{
    fixture::{Case, Peer},
    raw::{Header, Tar},
};

/// > Layer Changesets … MUST NOT include duplicate entries for file paths
///
/// but they do, and then
///
/// > removing the file path … recreating the file path, based on the contents and attributes of the
/// > changeset entry (image-spec `layer.md`)
///
/// is what all tar programs do.
#[test]
fn p22_the_last_entry_of_a_name_wins() {
    let tar = Tar::new()
        .file("file", b"1")
        .file("file", b"2")
        .file("to-dir", b"1")
        .dir("to-dir")
        .file("to-dir/inside", b"2")
        .dir("to-file")
        .file("to-file", b"2")
        .link(b'2', "link", "file")
        .file("link", b"not through the link")
        .file("to-link", b"1")
        .link(b'2', "to-link", "file")
        .dir("merged")
        .file("merged/kept", b"1")
        .head(Header::ustar(b'5', b"merged", 0).mode(0o700))
        .finish();
    Case::new(tar)
        .unpacks(&[
            "file file 0644 = 2",
            "file link 0644 = not through the link",
            "dir merged 0700",
            "file merged/kept 0644 = 1",
            "dir to-dir 0755",
            "file to-dir/inside 0644 = 2",
            "file to-file 0644 = 2",
            "link to-link 0777 -> file",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// A directory with children, replaced by a file in the same layer.
#[test]
fn p22_a_full_directory_is_replaced() {
    let tar = Tar::new()
        .dir("dir")
        .file("dir/inside", b"1")
        .file("dir", b"2")
        .finish();
    Case::new(tar)
        .unpacks(&["file dir 0644 = 2"])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// The directory's own entry comes last: its mode and time are what it says.
#[test]
fn directories_after_their_children() {
    let tar = Tar::new()
        .file("a/b/file", b"1")
        .head(
            Header::ustar(b'5', b"a/b/", 0)
                .mode(0o2700)
                .put(136, b"00000000007\0"),
        )
        .head(Header::ustar(b'5', b"a/", 0).mode(0o711))
        .finish();
    Case::new(tar)
        .unpacks(&[
            "dir a 0711",
            "dir a/b 2700 @7.000000000",
            "file a/b/file 0644 = 1",
        ])
        // It puts back the time of a directory that it has just written into, but not of the one in
        // which it had to make that directory.
        .umoci(Peer::Differs(&["+ dir . 0755 @now"]))
        .containerd(Peer::Same);
}

#[test]
fn p12_hard_links() {
    let tar = Tar::new()
        .dir("dir")
        .file("dir/target", b"1")
        .link(b'1', "hard", "dir/target")
        .link(b'1', "absolute", "/dir/target")
        .link(b'1', "dotted", "./dir/target")
        .link(b'2', "soft", "dir/target")
        .link(b'1', "to-the-link", "soft")
        .link(b'2', "way", "dir")
        .link(b'1', "through", "way/target")
        .finish();
    Case::new(tar)
        .unpacks(&[
            "file absolute 0644 = 1",
            "dir dir 0755",
            "file dir/target 0644 = 1 same as absolute",
            "file dotted 0644 = 1 same as absolute",
            "file hard 0644 = 1 same as absolute",
            "link soft 0777 -> dir/target",
            "file through 0644 = 1 same as absolute",
            "link to-the-link 0777 -> dir/target same as soft",
            "link way 0777 -> dir",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// A target that is replaced later keeps its old content under the other name.
#[test]
fn hard_links_to_what_is_replaced() {
    let tar = Tar::new()
        .file("target", b"old")
        .link(b'1', "hard", "target")
        .file("target", b"new")
        .finish();
    Case::new(tar)
        .unpacks(&["file hard 0644 = old", "file target 0644 = new"])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// The target is a file archived before (POSIX `pax`, type 1).
///
/// > Hardlinks are possible with all file types except `directories`. (image-spec `layer.md`)
#[test]
fn p13_hard_links_that_cannot_be() {
    let tar = Tar::new();
    let at = tar.offset();
    let later = tar.clone().link(b'1', "hard", "later").file("later", b"1");
    Case::new(later.finish())
        .refused("hard", at, "the layer has no such file before this entry")
        .umoci(Peer::Fails("no such file"))
        .containerd(Peer::Fails("no such file"));

    let itself = tar.file("file", b"1");
    let at = itself.offset();
    let itself = itself.link(b'1', "file", "./file").finish();
    Case::new(itself)
        .refused("file", at, "the target is the entry itself")
        .umoci(Peer::Fails("no such file"))
        .containerd(Peer::Fails("no such file"));

    let dir = Tar::new().dir("dir");
    let at = dir.offset();
    let dir = dir.link(b'1', "hard", "dir").finish();
    Case::new(dir)
        .refused("hard", at, "the target is a directory")
        .umoci(Peer::Fails("operation not permitted"))
        .containerd(Peer::Fails("operation not permitted"));
}

/// > Extracting a layer with hardlink references to files outside of the layer may fail. (image-spec
/// > `layer.md`, "Hardlinks")
///
/// Overlay has no link across layers; containerd fails, and umoci, which has one directory for all
/// layers, does not.
#[test]
fn p13_hard_links_into_another_layer() {
    let below = Tar::new().file("below", b"1").finish();
    let above = Tar::new();
    let at = above.offset();
    let above = above.link(b'1', "hard", "below").finish();
    use cairn_integration::image::Packing::Plain;
    Case::stack(&[(below, Plain), (above, Plain)])
        .refused("hard", at, "the layer has no such file before this entry")
        .umoci(Peer::Tree(&[
            "file below 0644 = 1",
            "file hard 0644 = 1 same as below",
        ]))
        .containerd(Peer::Fails("no such file"));
}

#[test]
fn links_among_the_parents() {
    let tar = Tar::new()
        .dir("real")
        .link(b'2', "relative", "real")
        .link(b'2', "absolute", "/real")
        .link(b'2', "up", "../../../real")
        .file("relative/one", b"1")
        .file("absolute/two", b"2")
        .file("up/three", b"3")
        .finish();
    Case::new(tar)
        .unpacks(&[
            "link absolute 0777 -> /real",
            "dir real 0755",
            "file real/one 0644 = 1",
            "file real/three 0644 = 3",
            "file real/two 0644 = 2",
            "link relative 0777 -> real",
            "link up 0777 -> ../../../real",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

#[test]
fn p08_links_in_a_circle() {
    let tar = Tar::new().link(b'2', "a", "b").link(b'2', "b", "a");
    Case::new(tar.clone().finish())
        .unpacks(&["link a 0777 -> b", "link b 0777 -> a"])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
    let at = tar.offset();
    Case::new(tar.file("a/file", b"1").finish())
        .refused("a/file", at, "too many or too long symbolic links")
        .umoci(Peer::Fails("too many levels of symbolic links"))
        .containerd(Peer::Fails("too many links"));
}

#[test]
fn p02_dots_and_slashes() {
    let tar = Tar::empty()
        .dir(".")
        .dir("./")
        .dir("/")
        .dir("./dir/")
        .file("./dir//one", b"1")
        .file("/dir/two", b"2")
        .file("dir/./three", b"3")
        .file("...", b"4")
        .file("dir/..x", b"5")
        .finish();
    Case::new(tar)
        .unpacks(&[
            "file ... 0644 = 4",
            "dir dir 0755",
            "file dir/..x 0644 = 5",
            "file dir/one 0644 = 1",
            "file dir/three 0644 = 3",
            "file dir/two 0644 = 2",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// Peers clean such a path, so that it stays inside but means something else than it says.
#[test]
fn p01_paths_with_parents() {
    for path in ["../up", "dir/../../up", "dir/..", "/../up"] {
        let tar = Tar::new().dir("dir");
        let at = tar.offset();
        let tar = tar.file(path, b"1").finish();
        Case::new(tar).refused(path, at, "the path has a '..' component");
    }
    let tar = Tar::new().file("../up", b"1").finish();
    let clamped = &["file up 0644 = 1"];
    let at = Tar::new().offset();
    Case::new(tar)
        .refused("../up", at, "the path has a '..' component")
        .umoci(Peer::Tree(clamped))
        .containerd(Peer::Tree(clamped));
}

#[test]
fn p08_p20_empty_names() {
    let tar = Tar::new();
    let at = tar.offset();
    let nameless = tar.clone().file("", b"1").finish();
    Case::new(nameless)
        .fails(&[&format!("at byte {at}"), "its path is empty"])
        .umoci(Peer::Fails("refusing to change type of root directory"))
        .containerd(Peer::Tree(&[]));
    let targetless = tar.link(b'2', "soft", "").finish();
    Case::new(targetless)
        .refused("soft", at, "a symbolic link needs a target")
        .umoci(Peer::Fails("no such file"))
        .containerd(Peer::Fails("no such file"));
}

#[test]
fn p06_the_root_is_a_directory() {
    for name in [".", "/"] {
        let tar = Tar::empty();
        let linked = tar.link(b'2', name, "/etc").finish();
        Case::new(linked).refused(name, 0, "the root of a layer must be a directory");
    }
}

#[test]
fn p19_long_names_and_deep_paths() {
    let name = "n".repeat(255);
    let deep = vec!["d"; 1500].join("/");
    let tar = Tar::new()
        .pax(&[("path", name.as_bytes())])
        .file("x", b"1")
        .pax(&[("path", deep.as_bytes())])
        .dir("x")
        .finish();
    let case = Case::new(tar);
    let root = case.mount();
    assert!(root.join(&name).is_file());
    assert!(root.join(&deep).is_dir());
}

#[test]
fn p19_names_over_the_limits() {
    let component = "n".repeat(256);
    let path = vec!["p".repeat(200); 21].join("/");
    for (path, reason) in [
        (
            &component,
            "bytes of a path's component above the limit of 255",
        ),
        (&path, "bytes of its path above the limit of 4095"),
    ] {
        let tar = Tar::new();
        let at = tar.offset();
        let pax = tar
            .clone()
            .pax(&[("path", path.as_bytes())])
            .file("x", b"1");
        let long = tar.long(b'L', path.as_bytes()).file("x", b"1");
        for tar in [pax, long] {
            Case::new(tar.finish())
                .fails(&[&format!("at byte {at}"), reason])
                .umoci(Peer::Fails("file name too long"))
                .containerd(Peer::Fails("file name too long"));
        }
    }
}
