//! Whiteouts and opaque marks: every row in both orders where order must not matter.

use crate::common::{check, layer, place, refused, show};

#[test]
fn a_whiteout_becomes_overlays_own() {
    check(layer().whiteout("x"), &["x deleted"]);
    check(layer().dir("a").whiteout("a/x"), &["a/", "a/x deleted"]);
    // W08: nobody needs to have the name.
    check(layer().whiteout("a/b/x"), &["a/", "a/b/", "a/b/x deleted"]);
    check(layer().whiteout("x").whiteout("x"), &["x deleted"]);
    // AUFS wrote its marks as hard links to one empty file.
    check(layer().hard_link(".wh.x", ".wh..wh.aufs"), &["x deleted"]);
}

#[test]
fn w01_w02_names_that_hide_nothing_are_refused() {
    for name in [".wh.", "a/.wh.", ".wh..", ".wh...", "a/.wh..", "a/.wh..."] {
        refused(layer().file(name, ""), "hides no name");
    }
    refused(layer().file(".wh..wh.x", ""), "unknown kind of whiteout");
    refused(layer().file(".wh.a/b", ""), "used as a directory");
}

#[test]
fn w04_aufs_bookkeeping_is_ignored() {
    let aufs = layer()
        .file(".wh..wh.aufs", "")
        .dir(".wh..wh.plnk")
        .file(".wh..wh.plnk/1.2", "x")
        .dir(".wh..wh.orph/")
        .file("a", "1");
    check(aufs, &["a = 1"]);
}

#[test]
fn w05_a_whiteout_is_an_empty_file() {
    refused(layer().dir(".wh.x"), "empty regular file");
    refused(layer().symlink(".wh.x", "y"), "empty regular file");
    refused(layer().file(".wh.x", "data"), "empty regular file");
    refused(layer().dir(".wh..wh..opq"), "empty regular file");
}

/// > Whiteout files MUST only apply to resources in lower/parent layers. (image-spec, layer.md)
#[test]
fn w06_a_whiteout_never_hides_its_own_layer() {
    check(layer().whiteout("x").file("x", "new"), &["x = new"]);
    check(layer().file("x", "new").whiteout("x"), &["x = new"]);
    check(layer().whiteout("x").symlink("x", "y"), &["x -> y"]);
    check(layer().symlink("x", "y").whiteout("x"), &["x -> y"]);
    // A directory would show what a lower one of its name holds.
    check(
        layer().whiteout("x").dir("x").file("x/f", "1"),
        &["x/ opaque", "x/f = 1"],
    );
    check(
        layer().dir("x").whiteout("x").file("x/f", "1"),
        &["x/ opaque", "x/f = 1"],
    );
    check(
        layer().dir("x").file("x/f", "1").whiteout("x"),
        &["x/ opaque", "x/f = 1"],
    );
    check(
        layer().whiteout("x").file("x/f", "1"),
        &["x/ opaque", "x/f = 1"],
    );
    check(
        layer().file("x/f", "1").whiteout("x"),
        &["x/ opaque", "x/f = 1"],
    );
}

/// > `a/.wh..wh..opq` is applied first, before creating the new version of `a/b`, regardless of the
/// > ordering in which the whiteout file was encountered. (image-spec, layer.md)
#[test]
fn w03_opaque_marks_work_wherever_they_come() {
    let tree = ["a/ opaque", "a/b/", "a/b/f = 1"];
    check(
        layer().opaque("a").dir("a").dir("a/b").file("a/b/f", "1"),
        &tree,
    );
    check(
        layer().dir("a").opaque("a").dir("a/b").file("a/b/f", "1"),
        &tree,
    );
    check(
        layer().dir("a").dir("a/b").file("a/b/f", "1").opaque("a"),
        &tree,
    );
    check(layer().opaque("a").file("a/b/f", "1"), &tree);
    check(layer().file("a/b/f", "1").opaque("a"), &tree);
    check(layer().opaque("a/b"), &["a/", "a/b/ opaque"]);
}

/// W10: overlay lists a whiteout in an opaque directory as a name that cannot be opened.
#[test]
fn w10_nothing_is_whited_out_where_nothing_shows() {
    check(layer().opaque("a").whiteout("a/x"), &["a/ opaque"]);
    check(layer().whiteout("a/x").opaque("a"), &["a/ opaque"]);
    check(layer().opaque("a").whiteout("a/b/c/x"), &["a/ opaque"]);
    check(layer().whiteout("a/b/c/x").opaque("a"), &["a/ opaque"]);
    check(
        layer().dir("a/b").whiteout("a/b/x").opaque("a"),
        &["a/ opaque", "a/b/"],
    );
    check(layer().opaque("a").opaque("a/b"), &["a/ opaque"]);
    check(layer().opaque("a/b").opaque("a"), &["a/ opaque"]);
    check(layer().whiteout("x").whiteout("x/y"), &["x deleted"]);
    check(layer().whiteout("x/y").whiteout("x"), &["x deleted"]);
    check(
        layer().whiteout("x/y/z").opaque("x/y").whiteout("x"),
        &["x deleted"],
    );
    check(
        layer().whiteout("x").opaque("x/y").whiteout("x/y/z"),
        &["x deleted"],
    );
    check(layer().file("x", "1").whiteout("x/y"), &["x = 1"]);
    check(layer().whiteout("x/y").file("x", "1"), &["x = 1"]);
}

#[test]
fn repeated_marks_change_nothing() {
    check(
        layer()
            .file("x/f", "1")
            .whiteout("x")
            .whiteout("x")
            .opaque("x"),
        &["x/ opaque", "x/f = 1"],
    );
    check(
        layer().opaque("x").whiteout("x").whiteout("x"),
        &["x deleted"],
    );
}

#[test]
fn the_last_of_several_kinds_keeps_what_was_hidden_hidden() {
    check(layer().file("x", "1").dir("x"), &["x/ opaque"]);
    check(layer().dir("x").file("x", "1").dir("x"), &["x/ opaque"]);
    check(
        layer()
            .whiteout("x")
            .file("x", "1")
            .dir("x")
            .whiteout("x/y"),
        &["x/ opaque"],
    );
}

/// W03 and W07: a mark goes where the link leads inside the root, and no further.
#[test]
fn w07_marks_through_links_stay_inside() {
    let place = place();
    let canary = place.canary();
    let hostile = layer()
        .symlink("etc", &canary)
        .whiteout("etc/file")
        .symlink("up", "../../../../canary/dir")
        .opaque("up");
    place.apply("fs", &hostile).expect("applies inside");
    let inside = canary.trim_start_matches('/');
    let tree = show(&place.path("fs"));
    assert!(
        tree.contains(&format!("{inside}/file deleted")),
        "{tree:#?}"
    );
    assert!(tree.contains(&"canary/dir/ opaque".to_owned()), "{tree:#?}");
}

#[test]
fn w09_many_whiteouts_take_no_memory_worth_mention() {
    let mut many = layer().dir("a");
    for i in 0..20_000 {
        many = many.whiteout(&format!("a/{i}"));
    }
    check(many.clone().opaque("a"), &["a/ opaque"]);
    let place = place();
    let applied = place.apply("fs", &many).expect("applies");
    assert_eq!(applied.usage.inodes, 20_002);
}
