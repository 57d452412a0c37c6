//! Mistakes, and what is said about them: the whole of standard error, and that nothing was changed.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::*;

const BUSYBOX: &str = "docker.io/library/busybox:1.36";
const WEB: &str = "registry.example.com/shop/web:2.1";

/// Whatever there is to see of a store.
fn state(scene: &Scene) -> String {
    let looks = [
        "cairn images ls -q --no-trunc",
        "cairn content ls -q",
        "cairn snapshots ls -q",
        "cairn df --json",
    ];
    looks.iter().map(|look| scene.ok(look)).collect()
}

/// The line fails as written, changes nothing, and a correct one works afterwards. Returns how it
/// failed otherwise.
#[track_caller]
fn refused(scene: &Scene, transcript: &str) -> String {
    let before = state(scene);
    let wrong = scene.differences(transcript);
    assert_eq!(state(scene), before, "{transcript} changed the store");
    for dir in ["content/ingest", "snapshots/trash"] {
        let left = walk(&scene.root().join(dir));
        assert_eq!(left, Vec::<PathBuf>::new(), "{transcript} left files");
    }
    assert_eq!(scene.ok("cairn load -q -i web.tar"), format!("{WEB}\n"));
    assert_eq!(state(scene), before, "importing again is no change");
    wrong
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("directory");
    let mut all: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

/// A store that has `web` and nothing else, with the archives of other mistakes beside it.
fn mistakes(scene: Scene) -> Scene {
    let image = Image::busybox();
    let whole = image.oci(BUSYBOX);
    let mut members = image.members(BUSYBOX);
    members[2].1[100] ^= 1;
    scene.put("damaged.tar", &pack(&members));
    scene.put("cut.tar", &whole[..6000]);
    scene.put("cut.tar.gz", &gzip(&whole[..6000]));
    members.remove(2);
    scene.put("lost.tar", &pack(&members));
    let wrong = Image::new(vec![(OCI_GZIP, gzip(&base_layer()))], &[top_layer()]);
    scene.put("diff.tar", &wrong.oci(BUSYBOX));
    let arm = Image::on("arm64", vec![(OCI_LAYER, base_layer())], &[base_layer()]);
    scene.put("arm.tar", &arm.oci(BUSYBOX));
    let odd = vec![
        (OCI_LAYER, base_layer()),
        ("application/vnd.acme.layer.v9", top_layer()),
    ];
    let odd = Image::new(odd, &[base_layer(), top_layer()]);
    scene.put("odd one.tar", &odd.oci("registry.example.com/shop/odd:1"));
    scene.put("notes.txt", b"just some words\n");
    scene.put("empty", b"");
    fs::create_dir(scene.path("work/dir")).expect("directory");
    scene.ok("cairn load -q -i web.tar");
    scene
}

/// Rows 5, 6, 19, 24, and what else can be wrong with an archive.
#[test]
fn archives() {
    for scene in [Scene::with_archives(), Scene::with_archives().served()] {
        refused_archives(&mistakes(scene));
    }
}

#[track_caller]
fn refused_archives(scene: &Scene) {
    let mut wrong = String::new();
    for part in include_str!("transcripts/archives.txt").split("\n$ ") {
        wrong.push_str(&refused(scene, part));
    }
    assert!(wrong.is_empty(), "seen instead:{wrong}");
    assert_eq!(
        scene.ok("cairn load -q -i busybox.tar"),
        format!("{BUSYBOX}\n")
    );
}

/// Rows 1, 2, 3, 7, 8, 18, 22, 23, 25, 27.
#[test]
fn names() {
    mistaken_names(&mistakes(Scene::with_archives()));
}

#[track_caller]
fn mistaken_names(scene: &Scene) {
    // Both manifests begin with the same seven digits.
    for (name, author) in AMBIGUOUS {
        let archive = format!("{name}.tar");
        scene.put(
            &archive,
            &Image::by(author).oci(&format!("docker.io/library/{name}:1")),
        );
    }
    scene.play(include_str!("transcripts/mistakes.txt"));
}

const AMBIGUOUS: [(&str, u32); 2] = [("one", 448), ("two", 17_877)];

/// Row 20, and other trees that are not ours to open.
#[test]
fn stores() {
    let scene = Scene::with_archives();
    scene.ok("cairn load -q -i web.tar");
    scene.play(include_str!("transcripts/stores.txt"));
    assert_eq!(scene.ok("cairn images ls -q"), format!("{WEB}\n"));
}

/// Row 17: the lock is a running process's.
#[test]
fn a_root_in_use() {
    let scene = Scene::with_archives();
    scene.ok("cairn load -q -i web.tar");
    let before = state(&scene);
    let program = Path::new(env!("CARGO_BIN_EXE_cairn"));
    let mut holder = scene
        .command(program)
        .args(["images", "import", "-v", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start");
    let mut lines = BufReader::new(holder.stderr.take().expect("piped"));
    let mut line = String::new();
    lines.read_line(&mut line).expect("line");
    assert!(line.starts_with("cairn: open store"), "{line}");
    // It has said that it opens the store, which takes a moment.
    let locked = (0..100)
        .map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(20));
            scene.run("cairn images rm web")
        })
        .find(|seen| seen.stderr.contains("locked by"))
        .expect("locked");
    let (root, pid) = (scene.root(), holder.id());
    let expected = format!(
        "error: cannot open {}: locked by cairn (pid {pid})\n  \
         next:      run the same command again when that has ended\n",
        root.display()
    );
    assert_eq!(locked.stderr, expected);
    assert_eq!(locked.code, 1);
    holder.kill().expect("kill");
    holder.wait().expect("wait");
    assert_eq!(state(&scene), before);
}

/// Row 16: a user who is not root reads and writes nothing.
#[test]
fn no_root_rights() {
    use std::os::unix::fs::PermissionsExt;
    let scene = Scene::with_archives();
    scene.ok("cairn load -q -i web.tar");
    let before = state(&scene);
    for dir in ["", "work"] {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scene.path(dir), open).expect("chmod");
    }
    let program = scene.path("work/cairn");
    copy_program(&program);
    for (words, again) in [
        (&["images", "ls"][..], "sudo cairn images ls"),
        (
            &["bundle", "create", BUSYBOX, "demo"],
            "sudo cairn bundle create docker.io/library/busybox:1.36 demo",
        ),
        (
            &["load", "-i", "busybox.tar"],
            "sudo cairn load -i busybox.tar",
        ),
    ] {
        let mut command: Command = scene.command(&program);
        let output = command
            .args(words)
            .uid(65534)
            .gid(65534)
            .output()
            .expect("run");
        let expected = format!(
            "error: cannot open {}: permission denied (you are nobody, and no daemon answers at \
             /run/cairn/cairn.sock)\n  next:      {again}\n",
            scene.root().display()
        );
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
        assert_eq!(output.status.code(), Some(1));
    }
    assert_eq!(state(&scene), before);
}

/// Row 15: a small file system of its own, filled to the last block.
#[test]
fn a_full_disk() {
    let scene = Scene::with_archives();
    let image = scene.path("disk.img");
    let root = scene.root();
    fs::create_dir(&root).expect("directory");
    let file = fs::File::create(&image).expect("file");
    file.set_len(24 << 20).expect("length");
    let shell = |line: &str| {
        let seen = scene.run(line);
        assert_eq!(seen.code, 0, "{line}: {}", seen.stderr);
    };
    shell("mkfs.ext4 -q -m 0 ../disk.img && mount -o loop ../disk.img ../root");
    scene.ok("cairn load -q -i web.tar");
    let big = Image::new(vec![(OCI_LAYER, big_layer())], &[big_layer()]);
    scene.put("big.tar", &big.oci("docker.io/library/big:1"));
    shell("fallocate -l $(($(stat -f -c '%a*%S' ../root) - 1000000)) ../root/fill");
    let before = state(&scene);
    let seen = scene.run("cairn images import big.tar --progress none");
    assert_eq!(seen.code, 1, "{seen:?}");
    let lines: Vec<&str> = seen.stderr.lines().collect();
    let place = root.display();
    let first = format!(
        "error: cannot import image docker.io/library/big:1: no space left on {place} \
         ([..] free, at least [..] MiB more needed)"
    );
    assert!(fits(&first, lines[0]), "{}", seen.stderr);
    // It is known before anything is written, so no write is the cause.
    assert_eq!(
        lines[1..],
        ["  next:      cairn df; cairn gc; then try again"],
        "{}",
        seen.stderr
    );
    what_is_kept(&scene);
    // What is verified may stay for the next try; nothing that uses it does.
    let after = state(&scene);
    let names = |state: &str| -> Vec<String> {
        let lines = state.lines().map(str::to_owned);
        lines.take_while(|line| !line.starts_with('[')).collect()
    };
    for kept in names(&before) {
        assert!(names(&after).contains(&kept), "{kept} is lost");
    }
    assert_eq!(scene.ok("cairn images ls -q"), format!("{WEB}\n"));
    // What `next:` says works without a free block, and leaves what was there before.
    scene.ok("cairn df && cairn gc");
    assert_eq!(state(&scene), before);
    shell("rm ../root/fill");
    scene.ok("cairn images import big.tar --progress none");
    scene.ok("cairn images check");
    shell("umount ../root");
}

/// Of an archive that passes by, the first blob has room.
fn what_is_kept(scene: &Scene) {
    scene.put(
        "pipe.tar",
        &tar(&[("a", &[1; 102_400]), ("b", &[2; 3 << 20])]),
    );
    let seen = scene.run("cairn images import --progress none - < pipe.tar");
    let lines: Vec<&str> = seen.stderr.lines().collect();
    let place = scene.root();
    let first = format!(
        "error: cannot import standard input: no space left on {} \
         ([..] free, at least [..] MiB more needed)",
        place.display()
    );
    assert!(fits(&first, lines[0]), "{}", seen.stderr);
    let last = [
        "  where:     standard input, entry b",
        "  next:      cairn df; cairn gc; then import again",
        "  next:      or make room otherwise: 100.0 KiB are kept for another try, until cairn gc",
    ];
    assert_eq!(lines[lines.len() - 3..], last, "{}", seen.stderr);
}

/// More than is left on the small disk.
fn big_layer() -> Vec<u8> {
    tar(&[("big", &vec![7; 3 << 20])])
}
