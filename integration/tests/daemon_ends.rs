//! How `cairnd` ends: asked to, and killed in the middle of what a client does.

#![allow(missing_docs)]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::Stdio,
};

use cairn_integration::{
    daemon::Daemon,
    image::{Layer, Layout, Packing},
    peers,
};
use serde_json::json;

/// Long enough for a daemon to be killed while it is being written.
const LAYER_BYTES: usize = 96 << 20;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// An image of two layers that cannot be compressed.
fn large_archive(work: &Daemon) -> PathBuf {
    let mut random = vec![0; LAYER_BYTES];
    let mut source = fs::File::open("/dev/urandom").expect("random");
    source.read_exact(&mut random).expect("random");
    let layer = |name: &str| Layer::new().file(name, &random).finish();
    let layout = work.path("layout");
    let layers = [(layer("a"), Packing::Plain), (layer("b"), Packing::Plain)];
    Layout::create(&layout).image("one", &layers, &json!({}));
    let out = work.path("archive.tar");
    let arguments = ["-C", text(&layout), "-cf", text(&out)];
    let parts = ["blobs", "index.json", "oci-layout"];
    peers::run("tar", &[&arguments[..], &parts].concat());
    fs::remove_dir_all(layout).expect("remove");
    out
}

fn bytes_below(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn asked_to_stop_it_leaves_neither_socket_nor_mount() {
    let mut daemon = Daemon::start();
    daemon.ok(&["snapshots", "prepare", "k"]);
    assert!(daemon.path("sock").exists());
    assert!(daemon.stop().success());
    assert!(!daemon.path("sock").exists());
    assert_eq!(daemon.mounts(), Vec::<String>::new());
    // The store is free for the next, which finds what was there.
    daemon.restart();
    daemon.ok(&["snapshots", "info", "k"]);
    assert!(daemon.stop().success());
}

#[test]
fn killed_in_an_import_it_can_import_again() {
    let mut daemon = Daemon::start();
    let archive = large_archive(&daemon);
    let import = [
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(&archive),
    ];
    let whole = 2 * LAYER_BYTES as u64;
    // In the first blob, in the second, and while the layers are unpacked.
    for at in [whole / 8, whole * 5 / 8, whole + whole / 4] {
        let mut command = daemon.command(&import);
        let mut ctr = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("ctr");
        let root = daemon.path("root");
        daemon.until("a part of the import", || {
            let ended = ctr.try_wait().expect("wait").is_some();
            assert!(!ended, "the import was over before {at} bytes");
            bytes_below(&root) > at
        });
        daemon.kill();
        assert!(!ctr.wait().expect("wait").success(), "killed at {at}");
        assert!(daemon.path("sock").exists(), "nobody took it away");
        daemon.restart();
        // `ctr` names an image when its blobs are there, and then has it unpacked.
        let listed = daemon.ok(&["images", "ls", "-q"]);
        assert_eq!(listed.is_empty(), at < whole, "killed at {at}");
    }
    daemon.ok(&import);
    let checked = daemon.ok(&["images", "check"]);
    assert!(checked.contains("complete (3/3)"), "{checked}");
    assert!(checked.trim_end().ends_with("true"), "unpacked: {checked}");
    daemon.ok(&["images", "rm", "--sync", "localhost/t:one"]);
    // The leases of clients that lost their daemon hold what they had for a day.
    for lease in daemon.ok(&["leases", "ls", "-q"]).lines() {
        daemon.ok(&["leases", "rm", "--sync", lease]);
    }
    assert_eq!(daemon.ok(&["content", "ls", "-q"]), "");
    assert_eq!(daemon.ok(&["snapshots", "ls"]).lines().count(), 1);
    let left = bytes_below(&daemon.path("root"));
    assert!(left < 16 << 20, "{left} bytes are left");
}

/// Whatever is left of the records it starts, and says what became of them.
#[test]
fn destroyed_records_do_not_keep_it_from_starting() {
    let mut daemon = Daemon::start();
    let told = |daemon: &Daemon| {
        let output = daemon.cairn(&["info"]).output().expect("start cairn");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    daemon.ok(&["snapshots", "prepare", "k"]);
    assert!(!told(&daemon).contains("made anew"));
    assert!(daemon.stop().success());
    let inside = daemon.path("root/meta/redb");
    fs::write(inside.join("records.redb"), "nothing of the kind").expect("write");
    daemon.restart();
    daemon.ok(&["snapshots", "info", "k"]);
    assert!(
        told(&daemon).contains("nothing is lost"),
        "{}",
        told(&daemon)
    );
    assert!(daemon.stop().success());

    for entry in fs::read_dir(&inside).expect("list") {
        fs::write(entry.expect("entry").path(), "destroyed").expect("write");
    }
    daemon.restart();
    let answer = daemon.attempt(&["snapshots", "info", "k"]);
    answer.expect_err("nobody knows of it any more");
    let told = told(&daemon);
    assert!(
        told.contains("lost: ") && told.contains("found: "),
        "{told}"
    );
    let lost = fs::read_dir(daemon.path("root/lost")).expect("put by");
    let lost = lost.map(|entry| entry.expect("entry").path().join("snapshots"));
    let kept = lost.map(|dir| fs::read_dir(dir).expect("directories").count());
    assert_eq!(kept.sum::<usize>(), 1);
    daemon.ok(&["snapshots", "prepare", "k"]);
    assert!(daemon.stop().success());
}
