//! Removing and measuring trees that an image or a container left to make that hard.

#![allow(missing_docs)]

mod common;

use std::{cell::Cell, fs, os::unix::fs::symlink, path::Path};

use cairn_sys::{Dir, Meter, OFlags, mount};
use common::{dir, name};
use rustix::{
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Makes `depth` directories named `d` inside one another, with a file beside each.
fn chain(root: &Dir, top: &str, depth: usize) {
    root.create_dir(name(top), 0o755).expect("mkdir");
    let mut here = root.open_dir(name(top)).expect("open");
    for _ in 0..depth {
        here.create_dir(name("d"), 0o755).expect("mkdir");
        here.open_file(name("f"), OFlags::CREATE | OFlags::WRONLY, 0o600)
            .expect("file");
        here = here.open_dir(name("d")).expect("open");
    }
}

/// Undoes a mount even when the test fails: a temporary directory cannot be removed through one.
struct Mounted<'p>(&'p Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = mount::unmount(self.0);
    }
}

#[test]
fn a_tree_of_any_depth_is_measured_and_removed() {
    let (temp, root) = dir();
    chain(&root, "deep", 3000);
    symlink("/", temp.path().join("deep/link")).expect("link");
    let deep = root.open_dir(name("deep")).expect("open");
    assert_eq!(deep.usage().expect("usage").inodes, 1 + 3000 * 2 + 1);
    root.remove_tree(name("deep")).expect("remove");
    assert!(root.entries().expect("entries").is_empty());
    root.remove_tree(name("deep"))
        .expect("what is gone stays gone");
}

/// Deep chains with brothers at each level: coming back up, the walk goes on where it was.
#[test]
fn brothers_of_a_deep_chain_are_not_forgotten() {
    let (_temp, root) = dir();
    root.create_dir(name("top"), 0o755).expect("mkdir");
    let mut here = root.open_dir(name("top")).expect("open");
    for _ in 0..200 {
        for brother in ["a", "d", "z"] {
            here.create_dir(name(brother), 0o755).expect("mkdir");
        }
        here = here.open_dir(name("d")).expect("open");
    }
    let top = root.open_dir(name("top")).expect("open");
    assert_eq!(top.usage().expect("usage").inodes, 601);
    root.remove_tree(name("top")).expect("remove");
    assert!(root.try_stat(name("top")).expect("stat").is_none());
}

/// A bind of the same file system has the same device number, so that comparing those is no
/// protection: a bundle whose root is still mounted would be deleted through.
#[test]
fn a_bind_of_the_same_file_system_is_not_deleted_through() {
    let (temp, root) = dir();
    for path in ["precious/inner", "tree/inner/mnt"] {
        fs::create_dir_all(temp.path().join(path)).expect("mkdir");
    }
    fs::write(temp.path().join("precious/inner/file"), "kept").expect("write");
    let target = temp.path().join("tree/inner/mnt");
    mount::bind(&temp.path().join("precious"), &target, false).expect("bind");
    let mounted = Mounted(&target);
    let err = root.remove_tree(name("tree")).expect_err("busy");
    assert!(err.is(Errno::BUSY), "{err}");
    assert_eq!(
        fs::read(temp.path().join("precious/inner/file")).expect("kept"),
        b"kept"
    );
    // The mount point itself is refused as well, before anything in it is touched.
    let inner = Dir::open(&temp.path().join("tree/inner")).expect("open");
    let err = inner.remove_tree(name("mnt")).expect_err("busy");
    assert!(err.is(Errno::BUSY), "{err}");
    assert!(temp.path().join("precious/inner/file").exists());
    let tree = temp.path().join("tree");
    let usage = Dir::open(&tree).expect("open").usage().expect("usage");
    assert_eq!(
        usage.inodes, 2,
        "tree and inner; what is mounted is not its own"
    );
    drop(mounted);
    root.remove_tree(name("tree")).expect("remove");
}

#[test]
fn only_what_is_hollow_goes_without_a_listing() {
    let (temp, root) = dir();
    let hollow = |top: &str| root.remove_hollow(name(top), &["fs", "work"]);
    for path in ["both/fs", "both/work", "one/fs", "none", "more/other"] {
        fs::create_dir_all(temp.path().join(path)).expect("mkdir");
    }
    fs::create_dir_all(temp.path().join("full/fs/etc")).expect("mkdir");
    fs::create_dir_all(temp.path().join("used/work/work")).expect("mkdir");
    fs::create_dir(temp.path().join("file")).expect("mkdir");
    fs::write(temp.path().join("file/fs"), "kept").expect("write");
    for gone in ["both", "one", "none", "absent"] {
        assert!(hollow(gone).expect(gone), "{gone}");
        assert!(!temp.path().join(gone).exists(), "{gone}");
    }
    for kept in ["more/other", "full/fs/etc", "used/work/work"] {
        let top = kept.split('/').next().expect("top");
        assert!(!hollow(top).expect(top), "{kept}");
        assert!(temp.path().join(kept).exists(), "{kept}");
    }
    assert!(hollow("file").expect_err("a file").is(Errno::NOTDIR));
    assert_eq!(
        fs::read(temp.path().join("file/fs")).expect("kept"),
        b"kept"
    );
    // Nor is anything reached through a mount or a link.
    fs::create_dir_all(temp.path().join("precious/fs")).expect("mkdir");
    symlink("precious", temp.path().join("link")).expect("symlink");
    hollow("link").expect_err("a link");
    let target = temp.path().join("mnt");
    fs::create_dir(&target).expect("mkdir");
    mount::bind(&temp.path().join("precious"), &target, false).expect("bind");
    let mounted = Mounted(&target);
    assert!(hollow("mnt").expect_err("busy").is(Errno::BUSY));
    drop(mounted);
    assert!(temp.path().join("precious/fs").exists());
}

/// The names of a tree are an image's: none of them may mean something to the one that removes it.
#[test]
fn no_name_in_a_tree_is_special() {
    let (temp, root) = dir();
    for path in [
        ".lifted-1/full/of/names",
        ".lifted-2/full/of/names",
        "a/b/c/d",
        "...",
        "new\nline",
    ] {
        fs::create_dir_all(temp.path().join("tree").join(path)).expect("mkdir");
    }
    root.remove_tree(name("tree")).expect("remove");
    assert!(root.entries().expect("entries").is_empty());
}

#[test]
fn a_wide_tree_needs_few_descriptors() {
    let (temp, root) = dir();
    for i in 0..1500 {
        fs::create_dir_all(temp.path().join(format!("wide/{i}/x"))).expect("mkdir");
    }
    // The usual soft limit of a login, whatever this process was started with.
    let old = getrlimit(Resource::Nofile);
    let usual = Rlimit {
        current: Some(1024),
        maximum: old.maximum,
    };
    setrlimit(Resource::Nofile, usual).expect("setrlimit");
    let wide = root.open_dir(name("wide")).expect("open");
    let usage = wide.usage();
    let removed = root.remove_tree(name("wide"));
    setrlimit(Resource::Nofile, old).expect("setrlimit");
    assert_eq!(usage.expect("usage").inodes, 3001);
    removed.expect("remove");
}

#[test]
fn a_link_is_removed_and_not_what_it_leads_to() {
    let (temp, root) = dir();
    fs::create_dir(temp.path().join("kept")).expect("mkdir");
    fs::write(temp.path().join("kept/file"), "").expect("write");
    fs::create_dir(temp.path().join("tree")).expect("mkdir");
    symlink("../kept", temp.path().join("tree/link")).expect("link");
    symlink("kept", temp.path().join("link")).expect("link");
    root.remove_tree(name("tree")).expect("remove");
    root.remove_tree(name("link")).expect("remove");
    assert!(temp.path().join("kept/file").exists());
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
fn one_meter_counts_an_inode_once_wherever_its_names_are() {
    let (temp, root) = dir();
    for path in ["a", "b/deep", "other"] {
        fs::create_dir_all(temp.path().join(path)).expect("mkdir");
    }
    fs::write(temp.path().join("a/f"), vec![1; 10_000]).expect("write");
    fs::hard_link(temp.path().join("a/f"), temp.path().join("b/deep/g")).expect("link");
    fs::hard_link(temp.path().join("a/f"), temp.path().join("h")).expect("link");
    let target = temp.path().join("mnt");
    fs::create_dir(&target).expect("mkdir");
    mount::bind(Path::new("/dev/shm"), &target, false).expect("bind");
    let mounted = Mounted(&target);
    let mut meter = Meter::default();
    let (own, entries) = meter.entries(&root, &["other"]).expect("measure");
    drop(mounted);
    let inodes = |of: &str| {
        let found = entries.iter().find(|(name, _)| name == of);
        found.map(|(_, usage)| usage.inodes)
    };
    assert_eq!(
        (own.inodes, inodes("other"), inodes("mnt")),
        (1, None, None)
    );
    // By whichever name it was met first.
    let all: u64 = entries.iter().map(|(_, usage)| usage.inodes).sum();
    assert_eq!((all, inodes("b") >= Some(2)), (4, true));
    let bytes: u64 = entries.iter().map(|(_, usage)| usage.bytes).sum();
    assert!((10_000..30_000).contains(&bytes), "{bytes}");
    let none = meter.entry(&root, name("none")).expect("measure");
    assert_eq!(none, None);
    for (path, there) in [
        ("h", true),
        ("b/deep/g", true),
        ("b/none", false),
        ("none/f", false),
    ] {
        assert_eq!(root.has(Path::new(path)).expect(path), there, "{path}");
    }
}

/// A container that is at work moves directories while somebody measures: of those that are far above the walk
/// the way back is found again, or they are left.
#[test]
fn what_is_moved_on_the_way_fails_no_measurement() {
    const DEPTH: usize = 40;
    const FILES: usize = 1000;
    for above_too in [false, true] {
        let (temp, root) = dir();
        let place = |depth: usize| temp.path().join("tree").join("d/".repeat(depth));
        for depth in 0..DEPTH {
            fs::create_dir_all(place(depth).join("brother")).expect("mkdir");
        }
        fs::create_dir(place(DEPTH)).expect("mkdir");
        for file in 0..FILES {
            fs::write(place(DEPTH).join(file.to_string()), "").expect("write");
        }
        let all = 2 * DEPTH + 1 + FILES;
        // Asked at each name, and in whatever order there are fewer than so many above the lowest ones.
        let asked = Cell::new(0);
        let wanted = || {
            asked.set(asked.get() + 1);
            if asked.get() == FILES / 2 {
                fs::rename(place(5), temp.path().join("elsewhere")).expect("move");
                if above_too {
                    fs::rename(place(2), temp.path().join("tree/d/other")).expect("move");
                }
            }
            true
        };
        let mut meter = Meter::for_as_long(&wanted);
        let usage = meter.entry(&root, name("tree")).expect("measure");
        let counted = usize::try_from(usage.expect("there").inodes).expect("few");
        assert!(!temp.path().join("tree/d/d/d/d/d/d").exists(), "moved");
        match above_too {
            false => assert_eq!(counted, all),
            // But for the brothers of those that are not where they were.
            true => assert!((all - 3..=all).contains(&counted), "{counted} of {all}"),
        }
    }
}

#[test]
fn nobody_measures_what_nobody_waits_for() {
    let (temp, root) = dir();
    for file in 0..100 {
        fs::write(temp.path().join(file.to_string()), "").expect("write");
    }
    let asked = Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() < 10
    };
    let mut meter = Meter::for_as_long(&wanted);
    let err = meter.entries(&root, &[]).expect_err("stopped");
    assert!(err.is(Errno::CANCELED), "{err}");
    assert_eq!(asked.get(), 10);
}

#[test]
fn another_file_system_is_not_deleted_through() {
    let (temp, root) = dir();
    fs::create_dir_all(temp.path().join("tree/mnt")).expect("mkdir");
    let target = temp.path().join("tree/mnt");
    mount::bind(Path::new("/dev/shm"), &target, false).expect("bind");
    let mounted = Mounted(&target);
    let err = root.remove_tree(name("tree")).expect_err("busy");
    assert!(err.is(Errno::BUSY), "{err}");
    assert!(mount::is_mount_point(&target).expect("statx"));
    drop(mounted);
    root.remove_tree(name("tree")).expect("remove");
}

/// A sweep at start and a removal by a client may meet in one tree: both are content when it is gone.
#[test]
fn two_may_remove_the_same_tree() {
    let (temp, root) = dir();
    for round in 0..20 {
        for i in 0..200 {
            let path = temp.path().join(format!("tree/{}/{}", i % 7, i));
            fs::create_dir_all(&path).expect("mkdir");
            fs::write(path.join("f"), "").expect("write");
        }
        let results = std::thread::scope(|scope| {
            [0; 3]
                .map(|_| scope.spawn(|| root.remove_tree(name("tree"))))
                .map(|thread| thread.join().expect("thread"))
        });
        for result in results {
            assert!(result.is_ok(), "round {round}: {result:?}");
        }
        assert!(root.entries().expect("entries").is_empty());
    }
}
