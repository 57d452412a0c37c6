//! Paths and links that try to get out, and names that are used twice.

use crate::common::{check, layer, place, refused, show};

#[test]
fn p01_parents_are_refused() {
    refused(layer().file("../../canary/file", "x"), "'..'");
    refused(layer().file("a/../../canary/file", "x"), "'..'");
    refused(layer().dir(".."), "'..'");
    refused(layer().symlink("a/..", "x"), "'..'");
}

#[test]
fn p02_absolute_means_the_layers_root() {
    check(
        layer().file("/etc/canary", "1"),
        &["etc/", "etc/canary = 1"],
    );
    check(
        layer().file("//etc/x", "1").file("./././etc/y", "2"),
        &["etc/", "etc/x = 1", "etc/y = 2"],
    );
}

#[test]
fn p03_p04_links_among_the_parents_stay_inside() {
    check(
        layer().symlink("s", "..").file("s/x/y/z", "1"),
        &["s -> ..", "x/", "x/y/", "x/y/z = 1"],
    );
    let hops = layer()
        .symlink("inner/up", "..")
        .symlink("inner/up/escape", "../../canary")
        .file("inner/up/escape/new", "1");
    check(
        hops,
        &[
            "canary/",
            "canary/new = 1",
            "escape -> ../../canary",
            "inner/",
            "inner/up -> ..",
        ],
    );
    let place = place();
    let canary = place.canary();
    let absolute = layer()
        .symlink("a", &canary)
        .file("a/dir/victim", "x")
        .dir("a/new");
    place.apply("fs", &absolute).expect("applies inside");
    let tree = show(&place.path("fs"));
    assert!(
        tree.contains(&format!("{}/dir/victim = x", &canary[1..])),
        "{tree:#?}"
    );
}

#[test]
fn p06_the_root_is_a_directory() {
    for name in [".", "/", "/.", "./"] {
        refused(layer().symlink(name, "/"), "must be a directory");
        refused(layer().file(name, "x"), "must be a directory");
    }
}

#[test]
fn p07_p09_p10_a_last_link_is_replaced_never_followed() {
    for name in ["l/", "l//", "l/."] {
        check(
            layer().symlink("l", "/").mode(0o700).dir(name),
            &["l/ opaque 0700"],
        );
        check(
            layer()
                .symlink("l", "/")
                .file(name.trim_end_matches("//"), "1"),
            &["l = 1"],
        );
    }
    let place = place();
    let canary = place.canary();
    let hostile = layer()
        .symlink("f", &format!("{canary}/file"))
        .file("f", "mine")
        .symlink("d", &format!("{canary}/dir"))
        .mode(0o777)
        .dir("d")
        .file("d/new", "1");
    place.apply("fs", &hostile).expect("applies inside");
    assert_eq!(
        show(&place.path("fs")),
        ["d/ opaque 0777", "d/new = 1", "f = mine"]
    );
}

#[test]
fn p08_endless_links_are_refused() {
    refused(
        layer().symlink("a", "b").symlink("b", "a").file("a/f", "x"),
        "symbolic links",
    );
    refused(
        layer().symlink("a", "a/a/a").file("a/f", "x"),
        "symbolic links",
    );
    refused(layer().symlink("a", ""), "needs a target");
    // Each link doubles the way; forty of them would outgrow any path.
    let mut chain = layer().dir("l0");
    for i in 1..30 {
        let twice = format!("{0}/../l{1}/../l{1}", ".", i - 1);
        chain = chain.symlink(&format!("l{i}"), &twice);
    }
    refused(chain.file("l29/f", "x"), "symbolic links");
}

#[test]
fn p11_a_hard_link_to_a_link_is_that_link() {
    let place = place();
    let canary = place.canary();
    let hostile = layer()
        .symlink("s", &format!("{canary}/file"))
        .mode(0o4777)
        .hard_link("h", "s");
    place.apply("fs", &hostile).expect("applies inside");
    let line = |name| format!("{name} -> {canary}/file x2");
    assert_eq!(show(&place.path("fs")), [line("h"), line("s")]);
}

#[test]
fn p12_hard_links_find_their_target_inside_or_not_at_all() {
    check(
        layer()
            .file("etc/shadow", "1")
            .hard_link("h", "/etc/shadow"),
        &["etc/", "etc/shadow = 1 x2", "h = 1 x2"],
    );
    refused(
        layer().hard_link("h", "/etc/shadow"),
        "\"/etc/shadow\": the layer has no such file",
    );
    refused(layer().hard_link("h", "../../canary/file"), "'..'");
    // A file of that name is in the working directory of this test.
    assert!(std::path::Path::new("Cargo.toml").exists());
    refused(layer().hard_link("h", "Cargo.toml"), "no such file");
    let place = place();
    let through = layer()
        .symlink("s", &place.canary())
        .hard_link("h", "s/file");
    place
        .apply("fs", &through)
        .expect_err("the canary is not in the layer");
}

#[test]
fn p13_hard_links_to_what_cannot_be_linked() {
    refused(
        layer().dir("d").hard_link("h", "d"),
        "entry \"h\" at byte 512: hard link to \"d\": the target is a d",
    );
    refused(layer().hard_link("h", "/"), "is a directory");
    refused(
        layer().file("f", "1").hard_link("f", "./f"),
        "is the entry itself",
    );
    refused(
        layer().hard_link("h", "later").file("later", "1"),
        "no such file",
    );
    refused(layer().whiteout("w").hard_link("h", "w"), "no such file");
    refused(layer().file("f", "1").hard_link("h", "f/x"), "no such file");
}

#[test]
fn p19_long_names_and_deep_trees() {
    let long = "n".repeat(255);
    check(layer().file(&long, "1"), &[&format!("{long} = 1")]);
    let place = place();
    place
        .apply("long", &layer().file(&"n".repeat(256), "1"))
        .expect_err("256 bytes");
    let deep = vec!["d"; 1000].join("/");
    let applied = place
        .apply("fs", &layer().file(&deep, "1").dir("x"))
        .expect("a deep tree");
    assert_eq!(applied.usage.inodes, 1002);
    place
        .apply("fs", &layer().file("d", "1"))
        .expect("and it can be replaced");
    assert_eq!(show(&place.path("fs")), ["d = 1", "x/"]);
}

#[test]
fn p20_odd_names_are_names() {
    check(
        layer().file("a\nb\x1b[m", "1").file("ä", "2"),
        &["a\nb\x1b[m = 1", "ä = 2"],
    );
}

#[test]
fn p22_the_last_entry_of_a_name_wins() {
    check(layer().file("x", "1").file("x", "2"), &["x = 2"]);
    check(
        layer().dir("x").file("x/a/b", "1").file("x", "2"),
        &["x = 2"],
    );
    check(
        layer().file("x", "1").symlink("x", "y").fifo("x"),
        &["x fifo"],
    );
    check(
        layer()
            .dir("x")
            .file("x/f", "1")
            .symlink("x", "y")
            .file("x/g", "2"),
        &["x -> y", "y/", "y/g = 2"],
    );
    check(
        layer().dir("x").file("x/f", "1").mode(0o700).dir("x"),
        &["x/ 0700", "x/f = 1"],
    );
    check(
        layer().file("x", "1").hard_link("y", "x").file("y", "2"),
        &["x = 1", "y = 2"],
    );
    check(
        layer()
            .file("x", "1")
            .hard_link("y", "x")
            .hard_link("y", "x"),
        &["x = 1 x2", "y = 1 x2"],
    );
    // The open directories are forgotten when what they went through is replaced.
    let swapped = layer()
        .dir("a")
        .symlink("l", "a")
        .file("l/f", "1")
        .dir("b")
        .symlink("l", "b")
        .file("l/g", "2");
    check(swapped, &["a/", "a/f = 1", "b/", "b/g = 2", "l -> b"]);
    refused(
        layer().file("x", "1").file("x/f", "2"),
        "\"x\" is not a directory",
    );
}

#[test]
fn h15_forged_marks_and_devices_are_refused() {
    refused(layer().char_device("x", 0, 0), "forge a whiteout");
    refused(layer().char_device("x", 4096, 0), "out of range");
    check(layer().char_device("null", 1, 3), &["null char 1:3"]);
}

/// CVE-2025-47290: a parent is swapped for a link to the outside again and again while its layer is
/// written. What becomes of the layer is the swapper's loss; the outside stays as it was.
#[test]
fn p15_a_parent_swapped_for_a_link_leads_nowhere() {
    use std::{
        fs,
        sync::atomic::{AtomicBool, Ordering},
    };
    let place = place();
    let canary = place.canary();
    let upper = place.path("fs");
    place.upper("fs");
    let done = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let (real, aside, link) = (upper.join("d"), upper.join("aside"), upper.join("link"));
            let mut swaps = 0u32;
            while !done.load(Ordering::Relaxed) {
                if let Err(err) = fs::rename(&real, &aside) {
                    // What is left aside from the last swap would stop all later ones.
                    if err.kind() == std::io::ErrorKind::DirectoryNotEmpty {
                        let _ = fs::remove_dir_all(&aside);
                    }
                    continue;
                }
                if std::os::unix::fs::symlink(format!("{canary}/dir"), &link).is_ok() {
                    let _ = fs::rename(&link, &real);
                    let _ = fs::remove_file(&real);
                }
                let _ = fs::rename(&aside, &real);
                swaps += 1;
            }
            swaps
        });
        for _ in 0..60 {
            let mut hostile = layer()
                .dir("d")
                .file("d/victim", "changed")
                .mode(0o777)
                .dir("d/new");
            for i in 0..20 {
                let other = format!("o{i}");
                hostile = hostile
                    .dir(&other)
                    .symlink(&other, "d")
                    .whiteout("d/victim");
                hostile = hostile
                    .file(&format!("{other}/victim"), "changed")
                    .opaque("d");
                hostile = hostile
                    .file("d", "no directory")
                    .dir("d")
                    .file("d/x/y", "1");
            }
            // It may well fail on what it finds half swapped.
            let _ = place.apply("fs", &hostile);
        }
        done.store(true, Ordering::Relaxed);
        swapper.join().expect("the swapper")
    });
    assert!(swaps > 1000, "too few swaps to mean anything: {swaps}");
    place.check_outside();
}

/// 1 MiB of tar, and some kilobytes of a compressed layer, would be 400,000 directories.
#[test]
fn a_few_entries_do_not_become_millions_of_directories() {
    let mut hostile = layer();
    for number in 0..200 {
        hostile = hostile.file(&format!("{number}/{}f", "a/".repeat(1900)), "");
    }
    refused(hostile, "directories take more than");
}
