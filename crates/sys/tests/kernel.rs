//! The crate on the real kernel, as root.

#![allow(missing_docs)]

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use cairn_sys::{Dir, OFlags, durable, lock, mount};
use rustix::io::Errno;

fn dir() -> (tempfile::TempDir, Dir) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = Dir::open(temp.path()).expect("open");
    (temp, dir)
}

fn name(text: &str) -> &OsStr {
    OsStr::new(text)
}

#[test]
fn image_paths_end_at_the_root() {
    let (temp, _) = dir();
    fs::create_dir_all(temp.path().join("root/etc")).expect("root");
    fs::create_dir(temp.path().join("outside")).expect("outside");
    symlink("../outside", temp.path().join("root/up")).expect("link");
    symlink("/etc", temp.path().join("root/abs")).expect("link");
    let root = Dir::open(&temp.path().join("root")).expect("open");
    let same = |path: &[u8], expected: &str| {
        let got = root
            .resolve_dir(path)
            .map(|d| d.self_stat().expect("stat").st_ino);
        let want = fs::metadata(temp.path().join("root").join(expected))
            .expect("there")
            .ino();
        assert_eq!(got.ok(), Some(want), "{}", path.escape_ascii());
    };
    same(b"", "");
    same(b".", "");
    same(b"../../..", "");
    same(b"abs", "etc");
    same(b"../etc", "etc");
    assert!(
        root.resolve_dir(b"up")
            .expect_err("no outside here")
            .is(Errno::NOENT)
    );
    assert!(
        root.open_dir(name("abs")).is_err(),
        "a link is not followed by name"
    );
}

#[test]
fn a_tree_of_any_depth_is_removed() {
    let (temp, root) = dir();
    root.create_dir(name("deep"), 0o755).expect("mkdir");
    let mut here = root.open_dir(name("deep")).expect("open");
    for _ in 0..3000 {
        here.create_dir(name("d"), 0o755).expect("mkdir");
        here.open_file(name("f"), OFlags::CREATE | OFlags::WRONLY, 0o600)
            .expect("file");
        here = here.open_dir(name("d")).expect("open");
    }
    symlink("/", temp.path().join("deep/link")).expect("link");
    root.remove_tree(name("deep")).expect("remove");
    assert!(root.entries().expect("entries").is_empty());
    root.remove_tree(name("deep"))
        .expect("what is gone stays gone");
}

#[test]
fn a_tree_with_a_mount_in_it_is_not_deleted_through() {
    let (temp, root) = dir();
    for path in ["precious", "tree/inner/mnt"] {
        fs::create_dir_all(temp.path().join(path)).expect("mkdir");
    }
    fs::write(temp.path().join("precious/file"), "kept").expect("write");
    let target = temp.path().join("tree/inner/mnt");
    // A bind of the same file system has the same device number; a tmpfs has not.
    mount::bind(Path::new("/dev/shm"), &target, false).expect("bind");
    let err = root.remove_tree(name("tree")).expect_err("busy");
    assert!(err.is(Errno::BUSY), "{err}");
    assert!(mount::is_mount_point(&target).expect("mountinfo"));
    mount::unmount(&target).expect("unmount");
    root.remove_tree(name("tree")).expect("remove");
}

#[test]
fn usage_counts_each_inode_once() {
    let (temp, root) = dir();
    fs::create_dir(temp.path().join("d")).expect("mkdir");
    fs::write(temp.path().join("d/f"), vec![1; 10_000]).expect("write");
    fs::hard_link(temp.path().join("d/f"), temp.path().join("g")).expect("link");
    let du = std::process::Command::new("du")
        .args(["-s", "-B512"])
        .arg(temp.path())
        .output();
    let du = String::from_utf8(du.expect("du").stdout).expect("text");
    let blocks: u64 = du
        .split_whitespace()
        .next()
        .expect("number")
        .parse()
        .expect("number");
    let usage = root.usage().expect("usage");
    assert_eq!((usage.bytes, usage.inodes), (blocks * 512, 3));
}

#[test]
fn publish_refuses_to_replace() {
    let (temp, root) = dir();
    let file = root
        .open_file(name("a"), OFlags::CREATE | OFlags::RDWR, 0o600)
        .expect("file");
    durable::publish(&file, (&root, name("a")), (&root, name("b"))).expect("publish");
    let file = root
        .open_file(name("c"), OFlags::CREATE | OFlags::RDWR, 0o600)
        .expect("file");
    let err = durable::publish(&file, (&root, name("c")), (&root, name("b"))).expect_err("there");
    assert!(err.is(Errno::EXIST));
    durable::write_file(&root, name("b"), b"new", 0o640).expect("write");
    let meta = fs::metadata(temp.path().join("b")).expect("there");
    assert_eq!((meta.len(), meta.permissions().mode() & 0o7777), (3, 0o640));
    assert!(
        root.read_file(name("b"), 2)
            .expect_err("too long")
            .is(Errno::FBIG)
    );
    assert_eq!(root.read_file(name("b"), 3).expect("read"), b"new");
}

#[test]
fn the_second_locker_learns_who_is_first() {
    let (_temp, root) = dir();
    let held = lock::RootLock::acquire(&root, name("lock")).expect("first");
    let own = i32::try_from(std::process::id()).expect("pid");
    match lock::RootLock::acquire(&root, name("lock")) {
        Err(lock::LockError::Held { pid, .. }) => assert_eq!(pid, Some(own)),
        other => panic!("expected Held, got {other:?}"),
    }
    drop(held);
    lock::RootLock::acquire(&root, name("lock")).expect("free again");
}

#[test]
fn chmod_does_not_follow() {
    let (temp, root) = dir();
    fs::write(temp.path().join("f"), "").expect("write");
    symlink("f", temp.path().join("l")).expect("link");
    assert!(
        root.chmod(name("l"), 0o777)
            .expect_err("link")
            .is(Errno::LOOP)
    );
    root.chmod(name("f"), 0o4711).expect("chmod");
    assert_eq!(
        fs::metadata(temp.path().join("f")).expect("f").mode() & 0o7777,
        0o4711
    );
    root.set_xattr(name("f"), name("user.a"), b"1")
        .expect("set");
    assert_eq!(
        root.get_xattr(name("f"), name("user.a"))
            .expect("get")
            .as_deref(),
        Some(&b"1"[..])
    );
    assert_eq!(
        root.get_xattr(name("f"), name("user.b")).expect("get"),
        None
    );
    assert_eq!(
        root.list_xattr(name("f")).expect("list"),
        [OsString::from("user.a")]
    );
}

fn lowers(root: &Path, count: usize) -> Vec<PathBuf> {
    (0..count)
        .map(|i| {
            let lower = root.join(format!("a, b:c\\{i}"));
            fs::create_dir(&lower).expect("lower");
            fs::write(lower.join(format!("f{i}")), "").expect("file");
            lower
        })
        .collect()
}

/// 500 is `OVL_MAX_STACK` (fs/overlayfs/params.h).
#[test]
fn five_hundred_lowers_are_all_there_and_more_are_refused() {
    let (temp, _) = dir();
    let target = temp.path().join("t");
    fs::create_dir(&target).expect("target");
    let all = lowers(temp.path(), 501);
    mount::overlay(&target, &all[..500], None, true, &[]).expect("500");
    assert_eq!(fs::read_dir(&target).expect("list").count(), 500);
    let err = fs::write(target.join("x"), "").expect_err("read-only");
    assert_eq!(err.raw_os_error(), Some(30));
    mount::unmount(&target).expect("unmount");
    mount::overlay(&target, &all, None, true, &[]).expect_err("501");
    assert!(!mount::is_mount_point(&target).expect("mountinfo"));
}

#[test]
fn a_mount_list_is_performed_with_quoted_names() {
    let (temp, _) = dir();
    for path in ["t", "up,per:", "work\\"] {
        fs::create_dir(temp.path().join(path)).expect("mkdir");
    }
    let target = temp.path().join("t");
    let lowers = lowers(temp.path(), 3);
    let joined: Vec<String> = lowers.iter().map(|l| mount::escape(l)).collect();
    let overlay = cairn_types::Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: vec![
            format!("workdir={}", mount::escape(&temp.path().join("work\\"))),
            format!("upperdir={}", mount::escape(&temp.path().join("up,per:"))),
            format!("lowerdir={}", joined.join(":")),
            "index=off".into(),
        ],
    };
    mount::perform(&[overlay], &target).expect("mount");
    fs::write(target.join("new"), "x").expect("write");
    assert_eq!(fs::read_dir(&target).expect("list").count(), 4);
    assert!(temp.path().join("up,per:/new").exists());
    let info = mount::mounts_below(temp.path()).expect("mountinfo");
    assert_eq!((info.len(), info[0].fs_type.as_str()), (1, "overlay"));
    mount::unmount(&target).expect("unmount");
}
