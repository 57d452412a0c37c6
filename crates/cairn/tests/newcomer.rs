//! Somebody who knows docker and has never seen Cairn: from the wrong command, by the first `next:` of
//! every answer and nothing else, to the end of a task.
//!
//! The words of manuals (`DIR`) are filled in; the rest is run as it is printed. When what was
//! printed has been done and the task is not yet, the first command is tried again. What takes a
//! service is in `integration/tests/newcomer.rs`.

mod support;

use std::{fs, process::Command};

use support::*;

/// A newcomer gives up after so many commands.
const COMMANDS_MAX: usize = 8;

/// Walks until `done`, and says what was typed.
#[track_caller]
fn walk(
    scene: &Scene,
    first: &str,
    fill: &[(&str, &str)],
    done: impl Fn(&Scene, &Seen) -> bool,
) -> Vec<String> {
    let mut typed: Vec<String> = Vec::new();
    let mut line = first.to_owned();
    while typed.len() < COMMANDS_MAX {
        let seen = scene.run(&line);
        typed.push(line.clone());
        if done(scene, &seen) {
            return typed;
        }
        line = match next(&seen.stderr) {
            Some(next) => filled(&next, fill),
            None if seen.code == 0 && line != first => first.to_owned(),
            None => panic!("no way on after {typed:#?}: {seen:#?}"),
        };
    }
    panic!("too long a way: {typed:#?}");
}

/// The first `next:` line. Words behind the last command ("then try again") are advice on the first
/// one.
fn next(stderr: &str) -> Option<String> {
    let mut lines = stderr.lines();
    let next = lines.find_map(|line| line.strip_prefix("  next:      "))?;
    Some(next.split("; then ").next().unwrap_or(next).to_owned())
}

fn filled(line: &str, fill: &[(&str, &str)]) -> String {
    let word = |word: &str| {
        let known = fill.iter().find(|(blank, _)| *blank == word);
        known.map_or_else(|| word.to_owned(), |(_, text)| (*text).to_owned())
    };
    let words: Vec<String> = line.split(' ').map(word).collect();
    words.join(" ")
}

/// A store whose `busybox:1.36` has a program that runs.
fn with_busybox() -> Scene {
    let scene = Scene::with_archives();
    let dir = scene.path("tree");
    for name in ["bin", "etc", "proc", "sys", "dev"] {
        fs::create_dir_all(dir.join(name)).expect("directory");
    }
    fs::copy("/bin/busybox", dir.join("bin/busybox")).expect("Debian's busybox-static");
    for applet in ["sh", "echo", "cat"] {
        std::os::unix::fs::symlink("busybox", dir.join("bin").join(applet)).expect("link");
    }
    fs::write(dir.join("etc/motto"), "one stone on another\n").expect("write");
    let tar = Command::new("tar")
        .arg("-C")
        .arg(&dir)
        .args(["-c", "."])
        .output();
    let layer = tar.expect("tar").stdout;
    let image = Image::new(vec![(OCI_LAYER, layer.clone())], &[layer]);
    scene.put("real.tar", &image.oci("docker.io/library/busybox:1.36"));
    scene.ok("cairn load -q -i real.tar");
    scene
}

/// Task 2.
#[test]
fn which_images_are_here_and_how_big_are_they() {
    let scene = Scene::with_archives();
    scene.ok("cairn load -q -i busybox.tar && cairn load -q -i web.tar");
    let typed = walk(&scene, "cairn images", &[], |_, seen| {
        // At a terminal the middle of a name may be left out.
        let columns = |name: &str| {
            let line = seen.stdout.lines().find(|line| line.contains(name));
            line.is_some_and(|line| line.contains(" KiB "))
        };
        columns("busybox:1.36") && columns("web:2.1")
    });
    assert_eq!(typed.len(), 1);
}

/// Task 3.
#[test]
fn a_docker_archive_is_loaded() {
    let scene = Scene::with_archives();
    let typed = walk(&scene, "cairn load web.tar", &[], |scene, seen| {
        let named = seen.stdout.contains("registry.example.com/shop/web:2.1");
        named && scene.ok("cairn images check -q").contains("shop/web:2.1")
    });
    assert_eq!(typed.len(), 1);
}

/// Task 4.
#[test]
fn echo_hi_in_busybox() {
    let scene = with_busybox();
    let id = format!("newcomer-{}", std::process::id());
    let fill = [("DIR", "demo"), ("ID", &*id)];
    let typed = walk(
        &scene,
        "cairn run --rm busybox:1.36 echo hi",
        &fill,
        |_, seen| seen.stdout.lines().last() == Some("hi"),
    );
    assert_eq!(typed.len(), 2, "{typed:#?}");
    scene.ok("cairn bundle rm demo");
}

/// Task 7.
#[test]
fn an_image_that_a_bundle_uses_is_deleted() {
    let scene = Scene::with_archives();
    scene.ok("cairn load -q -i busybox.tar");
    scene.ok("cairn bundle create busybox:1.36 demo --progress none");
    let typed = walk(&scene, "cairn rmi busybox:1.36", &[], |scene, _| {
        scene.ok("cairn images ls -q").is_empty()
    });
    assert_eq!(typed.len(), 3, "{typed:#?}");
}

/// Task 8, without a registry: a small disk, full of what nobody needs any more.
#[test]
fn a_full_disk_is_freed_without_losing_an_image() {
    let scene = Scene::with_archives();
    let file = fs::File::create(scene.path("disk.img")).expect("file");
    file.set_len(24 << 20).expect("length");
    fs::create_dir(scene.root()).expect("directory");
    scene.ok("mkfs.ext4 -q -m 0 ../disk.img && mount -o loop ../disk.img ../root");
    let archive = |name: &str, byte: u8| {
        let layer = tar(&[("big", &vec![byte; 4 << 20])]);
        let image = Image::new(vec![(OCI_LAYER, layer.clone())], &[layer]);
        scene.put(
            &format!("{name}.tar"),
            &image.oci(&format!("docker.io/library/{name}:1")),
        );
    };
    archive("old", 1);
    archive("new", 2);
    scene.ok("cairn load -q -i web.tar && cairn load -q -i old.tar && cairn rmi -q old:1");
    scene.ok("fallocate -l $(($(stat -f -c '%a*%S' ../root) - 2000000)) ../root/fill");
    let typed = walk(
        &scene,
        "cairn load -i new.tar --progress none",
        &[],
        |scene, _| {
            let complete = scene.run("cairn images check -q").stdout;
            complete.contains("shop/web:2.1") && complete.contains("new:1")
        },
    );
    assert_eq!(
        typed[1..],
        [
            "cairn df; cairn gc",
            "cairn load -i new.tar --progress none"
        ]
    );
    scene.ok("umount ../root");
}

/// Task 9.
#[test]
fn a_colleague_sees_an_image_that_you_do_not() {
    let scene = Scene::with_archives();
    scene.ok("cairn -n k8s.io load -q -i busybox.tar");
    let typed = walk(
        &scene,
        "cairn images inspect busybox:1.36",
        &[],
        |_, seen| {
            seen.stdout
                .starts_with("docker.io/library/busybox:1.36   (namespace k8s.io")
        },
    );
    assert_eq!(typed.len(), 2, "{typed:#?}");
}

/// Task 12. What reads docker's archives reads this one.
#[test]
fn an_image_for_a_machine_without_network() {
    let scene = Scene::with_archives();
    scene.ok("cairn load -q -i web.tar");
    let fill = [("FILE", "out.tar")];
    let typed = walk(
        &scene,
        "cairn save registry.example.com/shop/web:2.1",
        &fill,
        |scene, _| {
            let inspect = "skopeo inspect --format '{{.Digest}}' docker-archive:out.tar";
            scene.run(inspect).stdout.starts_with("sha256:")
        },
    );
    assert!(typed.len() <= 3, "{typed:#?}");
}

/// Tasks 14 and 15.
#[test]
fn a_file_inside_an_image_is_read_and_nothing_is_left() {
    let scene = with_busybox();
    let fill = [("DIR", "demo"), ("ID", "x")];
    let typed = walk(
        &scene,
        "cairn run busybox:1.36 cat /etc/motto",
        &fill,
        |_, seen| seen.stdout.contains("one stone on another"),
    );
    assert_eq!(typed.len(), 2, "{typed:#?}");
    let before = scene.ok("cairn snapshots ls -q kind==committed");
    let gone = |scene: &Scene, _: &Seen| {
        scene.ok("cairn snapshots ls -q") == before && !scene.path("work/demo").exists()
    };
    walk(&scene, "cairn snapshots rm bundle:$PWD/demo", &[], gone);
}

/// Task 18, without a registry: what the answer would pull comes from an archive.
#[test]
fn a_flipped_bit_and_a_lost_file_are_mended() {
    let scene = Scene::new();
    scene.put("large.tar", &large().oci("docker.io/library/large:1"));
    scene.ok("cairn load -q -i large.tar");
    scene.ok("rm ../root/snapshots/*/fs/etc/more");
    scene.ok(
        "cd ../root/content/blobs/sha256; layer=$(ls -S | head -1); chmod u+w $layer; \
         printf x | dd of=$layer bs=1 seek=20 conv=notrunc status=none",
    );
    let fill = [
        ("--deep", "--deep --progress none"),
        ("pull", "import"),
        ("docker.io/library/large:1", "large.tar"),
    ];
    let typed = walk(&scene, "cairn fsck", &fill, |scene, _| {
        scene.run("cairn fsck --deep -q").code == 0
    });
    assert_eq!(
        typed,
        [
            "cairn fsck",
            "cairn fsck --deep --progress none",
            "cairn fsck --deep --progress none --repair",
            "cairn images import large.tar",
        ]
    );
}

/// Row 26 of the errors.
#[test]
fn a_namespace_is_emptied_and_removed() {
    let scene = Scene::with_archives();
    scene.ok("cairn -n dev load -q -i busybox.tar && cairn -n dev load -q -i web.tar");
    let typed = walk(&scene, "cairn namespaces rm dev", &[], |scene, _| {
        scene.ok("cairn namespaces ls -q").is_empty()
    });
    assert_eq!(typed.len(), 3, "{typed:#?}");
}
