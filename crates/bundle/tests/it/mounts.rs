//! Images' files at a directory.

use std::{fs, path::Path};

use cairn_bundle::MountRequest;
use cairn_types::{ErrorKind, Failure, ImageName};

use crate::common::{Direct, Store, host_dir, mount, run, simple, text, unmount};

fn request(store: &Store, target: &Path, rw: bool) -> MountRequest {
    MountRequest {
        ns: store.ns.clone(),
        name: ImageName::parse("docker.io/shop/web:1").expect("name"),
        target: target.to_owned(),
        rw,
        platform: None,
        life: None,
    }
}

fn imported() -> Store {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    store
}

fn keys(store: &Store) -> Vec<String> {
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    let keys = all.into_iter().map(|info| info.key.to_string());
    keys.filter(|key| key.starts_with("mount:")).collect()
}

#[track_caller]
fn refused(failure: Failure, reason: &str) {
    assert_eq!(failure.kind, ErrorKind::FailedPrecondition, "{failure}");
    assert!(failure.to_string().contains(reason), "{failure}");
}

#[test]
fn a_mount_is_undone_whole() {
    let store = imported();
    let target = store.dir.path().join("deep/er");
    let mounted = mount(&store, &request(&store, &target, false)).expect("mount");
    assert_eq!(mounted, target);
    let motd = fs::read_to_string(target.join("etc/motd")).expect("motd");
    assert_eq!(motd, "welcome\n");
    fs::write(target.join("new"), "x").expect_err("read-only");
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let line = table.lines().find(|line| line.contains(text(&target)));
    assert!(line.expect("mounted").contains("nosuid,nodev"), "{line:?}");
    let failure = mount(&store, &request(&store, &target, false)).expect_err("twice");
    assert_eq!(failure.kind, ErrorKind::AlreadyExists, "{failure}");
    unmount(&store, &target, false).expect("unmount");
    assert_eq!(keys(&store), [""; 0]);
    let failure = unmount(&store, &target, false).expect_err("nothing there");
    assert_eq!(failure.kind, ErrorKind::NotFound, "{failure}");
}

/// Nothing is taken from who has a file open: neither the mount nor what it shows.
#[test]
fn what_is_open_is_neither_unmounted_nor_removed() {
    let store = imported();
    let target = store.dir.path().join("mnt");
    for rw in [false, true] {
        mount(&store, &request(&store, &target, rw)).expect("mount");
        let held = fs::File::open(target.join("etc/motd")).expect("open");
        let known = keys(&store);
        let failure = unmount(&store, &target, true).expect_err("busy");
        assert!(failure.to_string().contains("busy"), "{failure}");
        assert_eq!((keys(&store), known.len()), (known, 1));
        let motd = fs::read_to_string(target.join("etc/motd")).expect("motd");
        assert_eq!(motd, "welcome\n");
        drop(held);
        unmount(&store, &target, true).expect("unmount");
        assert_eq!(keys(&store), [""; 0]);
        assert_eq!(fs::read_dir(&target).expect("directory").count(), 0);
    }
}

#[test]
fn what_cannot_be_mounted_leaves_nothing() {
    let store = imported();
    let target = store.dir.path().join("mnt");
    let mut wrong = request(&store, &target, false);
    wrong.name = ImageName::parse("docker.io/shop/none:1").expect("name");
    let failure = mount(&store, &wrong).expect_err("no image");
    assert_eq!(failure.kind, ErrorKind::NotFound, "{failure}");
    let mut wrong = request(&store, &target, true);
    wrong.platform = Some("linux/s390x".parse().expect("platform"));
    let failure = mount(&store, &wrong).expect_err("no variant");
    assert!(failure.to_string().contains("linux/s390x"), "{failure}");
    assert!(!target.exists());
    fs::write(&target, "").expect("file");
    for asked in [&target, &target.join("below")] {
        let failure = mount(&store, &request(&store, asked, false)).expect_err("a file");
        assert!(
            failure.to_string().contains("is not a directory"),
            "{failure}"
        );
    }
    assert_eq!(keys(&store), [""; 0]);
}

/// A client that was killed between the two halves.
#[test]
fn one_that_was_prepared_and_not_mounted_is_taken_up() {
    let store = imported();
    let target = store.dir.path().join("mnt");
    let dir = host_dir(&target);
    let direct = Direct(&store.node);
    let prepare = |rw| {
        cairn_bundle::Mounts::prepare(&direct, &request(&store, &target, rw), &dir)
            .expect("prepare")
    };
    prepare(false);
    // What is only looked at can become what is written to, since nothing is lost.
    mount(&store, &request(&store, &target, true)).expect("mount");
    fs::write(target.join("new"), "x").expect("writable");
    unmount(&store, &target, true).expect("unmount");
    prepare(true);
    unmount(&store, &target, true).expect("let go");
    assert_eq!(keys(&store), [""; 0]);
}

#[test]
fn k04_what_was_changed_is_kept_and_never_mounted_twice() {
    let store = imported();
    let target = store.dir.path().join("mnt");
    let request = request(&store, &target, true);
    mount(&store, &request).expect("mount");
    fs::write(target.join("new"), "kept").expect("write");
    unmount(&store, &target, false).expect("unmount");
    // It is there at the next mount, and gone when it is dropped.
    store.node.gc(false).expect("collect");
    mount(&store, &request).expect("mount again");
    // Nothing happens to it while it is mounted elsewhere, too, or to what is not it.
    let (away, other) = (
        store.dir.path().join("away"),
        store.dir.path().join("other"),
    );
    for path in [&away, &other] {
        fs::create_dir(path).expect("directory");
    }
    run("mount", &["--bind", text(&target), text(&away)]);
    let drop_it = || unmount(&store, &target, true);
    refused(drop_it().expect_err("bound"), "its files are mounted at");
    run("umount", &[text(&target)]);
    refused(drop_it().expect_err("bound"), "its files are mounted at");
    let failure = mount(&store, &request).expect_err("twice");
    refused(failure, "its files are mounted at");
    run("umount", &[text(&away)]);
    run("mount", &["--bind", text(&other), text(&target)]);
    refused(
        drop_it().expect_err("not ours"),
        "something else is mounted",
    );
    run("umount", &[text(&target)]);
    let mut only_to_look = request.clone();
    only_to_look.rw = false;
    let failure = mount(&store, &only_to_look).expect_err("changes");
    refused(failure, "changes of an earlier mount");
    mount(&store, &request).expect("mount again");
    assert_eq!(
        fs::read_to_string(target.join("new")).expect("kept"),
        "kept"
    );
    drop_it().expect("drop");
    mount(&store, &request).expect("mount afresh");
    assert!(!target.join("new").exists());
    drop_it().expect("drop");
}
