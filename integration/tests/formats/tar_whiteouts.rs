//! Names with a meaning of their own: one fixture for each.
//!
//! | row of the tar table | tests |
//! |---|---|
//! | entries named `.wh.*` inside user data | `w05_names_that_look_like_whiteouts` |
//! | `.wh..wh.aufs`, `.wh..wh.orph`, `.wh..wh.plnk` | `w04_aufs_bookkeeping` |
//! | opaque + whiteout mixed | `w10_opaque_marks_and_whiteouts_together`, `w03_w06_order_does_not_matter` |
//! | (whiteouts without a name, E1) | `w01_w02_w08_whiteouts_of_nothing` |
//!
//! All orders and places are in `crates/layer/tests/whiteouts.rs` and, against a model, in
//! `stacks.rs`.

use cairn_integration::{
    fixture::{Case, Peer},
    image::Packing::Plain,
    raw::{Header, Tar},
};

fn below() -> Vec<u8> {
    Tar::new()
        .dir("dir")
        .file("dir/one", b"1")
        .file("dir/two", b"2")
        .dir("dir/sub")
        .file("dir/sub/three", b"3")
        .file("file", b"4")
        .finish()
}

fn over(tar: Tar) -> Case {
    Case::stack(&[(below(), Plain), (tar.finish(), Plain)])
}

/// > As files prefixed with `.wh.` are special whiteout markers, it is not possible to create a
/// > filesystem which has a file or directory with a name beginning with `.wh.`. (image-spec
/// > `layer.md`, "Whiteouts")
#[test]
fn w05_names_that_look_like_whiteouts() {
    let tar = Tar::new()
        .dir("dir")
        .file("dir/.wh.one", b"")
        .file("dir/.whx", b"a name")
        .file("dir/x.wh.one", b"another");
    over(tar)
        .unpacks(&[
            "dir dir 0755",
            "file dir/.whx 0644 = a name",
            "dir dir/sub 0755",
            "file dir/sub/three 0644 = 3",
            "file dir/two 0644 = 2",
            "file dir/x.wh.one 0644 = another",
            "file file 0644 = 4",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);

    // > A whiteout file is an empty file with a special filename (image-spec `layer.md`)
    //
    // One with data is user's data, which would be lost and take another file with it.
    let tar = Tar::new();
    let at = tar.offset();
    let reason = "a whiteout must be an empty regular file";
    let gone = &[
        "dir dir 0755",
        "dir dir/sub 0755",
        "file dir/sub/three 0644 = 3",
        "file dir/two 0644 = 2",
        "file file 0644 = 4",
    ];
    over(tar.file("dir/.wh.one", b"data"))
        .refused("dir/.wh.one", at, reason)
        .umoci(Peer::Tree(gone))
        // > Missing parents: mkdir 0755, then … times … copied (containerd `pkg/archive/tar.go`)
        //
        // and the mark, written after that, changes the time again.
        .containerd(Peer::Tree(&[
            "dir dir 0755 @now",
            gone[1],
            gone[2],
            gone[3],
            gone[4],
        ]));
    over(Tar::new().head(Header::ustar(b'5', b".wh.dir/", 0))).refused(".wh.dir/", at, reason);
    over(Tar::new().file(".wh.dir/inside", b"1")).refused(
        ".wh.dir/inside",
        at,
        "a whiteout is used as a directory",
    );
}

/// What AUFS kept in a branch for itself: containerd gives them no special treatment, and umoci
/// takes them for whiteouts of names that are not there.
#[test]
fn w04_aufs_bookkeeping() {
    let tar = Tar::new()
        .file(".wh..wh.aufs", b"")
        .dir(".wh..wh.orph")
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/17.5", b"1")
        .file("new", b"5");
    let tree = [
        "dir dir 0755",
        "file dir/one 0644 = 1",
        "dir dir/sub 0755",
        "file dir/sub/three 0644 = 3",
        "file dir/two 0644 = 2",
        "file file 0644 = 4",
        "file new 0644 = 5",
    ];
    over(tar)
        .unpacks(&tree)
        // `.wh..wh.plnk` hides `.wh.plnk`, and a file inside makes the directory again.
        .umoci(Peer::Differs(&[
            "+ dir . 0755 @now",
            "+ dir .wh..wh.plnk 0755 @now",
            "+ file .wh..wh.plnk/17.5 0644 = 1",
        ]))
        .containerd(Peer::Differs(&[
            "+ dir .wh..wh.plnk 0755 @now",
            "+ file .wh..wh.plnk/17.5 0644 = 1",
        ]));
    let tar = Tar::new();
    let at = tar.offset();
    over(tar.file(".wh..wh.other", b"")).refused(".wh..wh.other", at, "unknown kind of whiteout");
}

#[test]
fn w01_w02_w08_whiteouts_of_nothing() {
    for name in [".wh.", "dir/.wh.", ".wh..", "dir/.wh.."] {
        let tar = Tar::new();
        let at = tar.offset();
        over(tar.file(name, b"")).refused(name, at, "the whiteout hides no name");
    }
    // A name that is not there is hidden all the same.
    over(Tar::new().file(".wh.absent", b"").file(".wh.file", b""))
        .unpacks(&[
            "dir dir 0755",
            "file dir/one 0644 = 1",
            "dir dir/sub 0755",
            "file dir/sub/three 0644 = 3",
            "file dir/two 0644 = 2",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// > An opaque whiteout entry is a file with the name `.wh..wh..opq` indicating that all siblings are
/// > hidden in the lower layer. (image-spec `layer.md`, "Opaque Whiteout")
#[test]
fn w10_opaque_marks_and_whiteouts_together() {
    let tar = Tar::new()
        .dir("dir")
        .file("dir/.wh..wh..opq", b"")
        .file("dir/.wh.one", b"")
        .file("dir/new", b"5")
        .file(".wh.file", b"");
    over(tar)
        .unpacks(&["dir dir 0755", "file dir/new 0644 = 5"])
        .umoci(Peer::Same)
        // The kernel does not look for whiteouts in an opaque directory, so one in there is listed.
        .containerd(Peer::Differs(&["+ ghost dir/one"]));
}

/// > Whiteout files MUST only apply to resources in lower/parent layers. … regardless of the ordering
/// > in which the whiteout file was encountered. (image-spec `layer.md`, "Whiteouts")
#[test]
fn w03_w06_order_does_not_matter() {
    let before = Tar::new()
        .dir("dir")
        .file("dir/new", b"5")
        .file("dir/.wh..wh..opq", b"")
        .file("dir/.wh.new", b"");
    let after = Tar::new()
        .dir("dir")
        .file("dir/.wh.new", b"")
        .file("dir/.wh..wh..opq", b"")
        .file("dir/new", b"5");
    let tree = [
        "dir dir 0755",
        "file dir/new 0644 = 5",
        "file file 0644 = 4",
    ];
    over(after)
        .unpacks(&tree)
        .umoci(Peer::Same)
        .containerd(Peer::Same);
    over(before)
        .unpacks(&tree)
        .umoci(Peer::Same)
        // > mknod char 0:0 … failing if it already exists (containerd `pkg/archive/tar_opts_linux.go`)
        .containerd(Peer::Fails("failed to convert whiteout file"));
}
