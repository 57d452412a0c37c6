//! What crashes and power cuts leave of snapshots, and what is made of it.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use cairn_meta::{Timestamp, View, schema};
use cairn_snapshot::Recovered;
use cairn_sys::mount;
use cairn_types::{ErrorKind, Labels, Mount, Namespace, SnapshotKey, SnapshotKind};

use crate::common::{Fixture, Mounted, key, ns, read, refused};

#[test]
fn what_a_crash_leaves_is_swept() {
    let store = Fixture::new();
    store.layer("kept", None, |root| {
        fs::write(root.join("f"), "1").expect("write")
    });
    store.prepare("active", Some("kept"));
    let dir = store.root.path().join("snapshots");
    for left in [
        "4711/fs/deep/tree",
        "4712/work/work",
        "trash/4713/fs",
        "garbage",
    ] {
        fs::create_dir_all(dir.join(left)).expect("mkdir");
    }
    fs::write(dir.join("file"), "").expect("write");
    // Killed while it was unpacked: nothing is dropped.
    let staged = store.snapshots.stage().expect("stage");
    std::mem::forget(staged);
    let root = store.root.path().to_owned();
    let Fixture {
        root: temp,
        meta,
        snapshots,
    } = store;
    drop(snapshots);
    drop(meta);
    // The forgotten layer holds the records' file; a copy of the tree stands in for a new process.
    let copy = tempfile::tempdir().expect("tempdir");
    let copied = std::process::Command::new("cp")
        .args(["-a", "--"])
        .arg(root.join("."))
        .arg(copy.path())
        .status();
    assert!(copied.expect("cp").success());
    drop(temp);
    let (store, recovered) = Fixture::at(copy, "boot-1");
    assert_eq!(recovered.swept, 6);
    assert!(recovered.dropped.is_empty() && recovered.missing.is_empty());
    assert_eq!(store.directories(), 2);
    let mounted = Mounted::new(
        &store
            .snapshots
            .mounts(&ns(), &key("active"))
            .expect("mounts"),
    );
    assert_eq!(read(mounted.path().join("f")), "1");
    drop(mounted);
    let (_, again) = store.reopen("boot-1");
    assert_eq!(again, Recovered::default());
}

/// Who has mounted what no record speaks of has his files for as long as he has it.
#[test]
fn what_is_mounted_is_not_swept() {
    let store = Fixture::new();
    store.layer("base", None, |_| {});
    let mut kept = Vec::new();
    for (name, parent) in [("bound", None), ("over", Some("base"))] {
        let mounts = store.prepare(name, parent);
        let mounted = Mounted::new(&mounts);
        fs::write(mounted.path().join("file"), name).expect("write");
        kept.push((directory(&mounts), mounted, name));
    }
    // As when older records were imported.
    let lost = store.meta.write(|tx| {
        tx.delete(&schema::SNAPSHOTS, &(ns(), key("bound")))?;
        tx.delete(&schema::CHILDREN, &(ns(), key("base"), key("over")))?;
        tx.delete(&schema::SNAPSHOTS, &(ns(), key("over")))
    });
    lost.expect("their records are gone");
    let (store, recovered) = store.reopen("boot-1");
    assert_eq!(recovered.swept, 0);
    for (dir, mounted, name) in &kept {
        assert_eq!(read(mounted.path().join("file")), *name);
        assert_eq!(read(dir.join("fs/file")), *name);
        let number = dir.file_name().and_then(|name| name.to_str());
        let removed = store.snapshots.remove_stray(number.expect("number"));
        refused(removed, ErrorKind::FailedPrecondition);
    }
    let dirs: Vec<PathBuf> = kept.into_iter().map(|(dir, ..)| dir).collect();
    let (_, recovered) = store.reopen("boot-1");
    assert_eq!(recovered.swept, 2);
    assert!(dirs.iter().all(|dir| !dir.exists()));
}

/// Undoes a mount even when its test fails.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = mount::unmount(&self.0);
    }
}

/// What is mounted in a directory that goes belongs to somebody else.
#[test]
fn nothing_is_swept_through_a_mount() {
    let precious = tempfile::tempdir().expect("tempdir");
    fs::write(precious.path().join("file"), "kept").expect("write");
    let store = Fixture::new();
    let place = store.root.path().join("snapshots");
    for (dir, inside) in [("4711", "fs/etc/mnt"), ("trash/4712", "fs/mnt")] {
        let target = place.join(dir).join(inside);
        fs::create_dir_all(&target).expect("mkdir");
        mount::bind(precious.path(), &target, false).expect("bind");
    }
    let bound = ["4711/fs/etc/mnt", "trash/4712/fs/mnt"].map(|path| Bound(place.join(path)));
    let (store, recovered) = store.reopen("boot-1");
    assert_eq!(recovered.swept, 0);
    assert_eq!(read(precious.path().join("file")), "kept");
    for Bound(target) in &bound {
        assert!(mount::is_mount_point(target).expect("statx"));
    }
    drop(bound);
    let (_, recovered) = store.reopen("boot-1");
    assert_eq!(recovered.swept, 2);
    assert_eq!(read(precious.path().join("file")), "kept");
}

#[test]
fn a_power_cut_drops_what_had_not_reached_the_disk_and_all_above_it() {
    let store = Fixture::new();
    store.layer("durable", None, |_| {});
    let stack = vec![
        store.staged("one", Some("durable")),
        store.staged("two", Some("one")),
    ];
    store.snapshots.commit_stack(&ns(), stack).expect("commit");
    assert!(store.durable("durable") && !store.durable("one"));
    // A killed process loses nothing: the kernel still has it.
    let (store, recovered) = store.reopen("boot-1");
    assert_eq!(recovered, Recovered::default());
    let (store, recovered) = store.reopen("boot-2");
    let dropped: Vec<&str> = recovered.dropped.iter().map(|(_, k)| k.as_str()).collect();
    assert_eq!(dropped, ["one", "two"]);
    assert_eq!(recovered.swept, 2);
    assert_eq!(store.kind("durable"), Some(SnapshotKind::Committed));
    assert_eq!(store.kind("one"), None);
    store
        .remove("durable")
        .expect("nothing stands on it any more");
    assert_eq!(store.directories(), 0);
}

#[test]
fn what_was_flushed_or_committed_synced_survives_a_power_cut() {
    let store = Fixture::new();
    let flushed = vec![store.staged("flushed", None)];
    store
        .snapshots
        .commit_stack(&ns(), flushed)
        .expect("commit");
    let committed_at = store.snapshots.pending_since();
    assert!(committed_at.is_some());
    // Known again after a restart, so that it can still be flushed.
    let (store, _) = store.reopen("boot-1");
    assert_eq!(store.snapshots.pending_since(), committed_at);
    store.snapshots.flush().expect("flush");
    assert!(store.durable("flushed"));
    assert_eq!(store.snapshots.pending_since(), None);
    let gone = vec![store.staged("gone", None)];
    store.snapshots.commit_stack(&ns(), gone).expect("commit");
    assert!(store.snapshots.pending_since().is_some());
    store.remove("gone").expect("remove");
    assert_eq!(store.snapshots.pending_since(), None);
    let lower = vec![store.staged("lower", None)];
    store.snapshots.commit_stack(&ns(), lower).expect("commit");
    let synced = vec![store.staged("synced", Some("lower"))];
    let committed = store.snapshots.commit_stack_synced(&ns(), synced);
    committed.expect("commit");
    assert!(store.durable("lower") && store.durable("synced"));
    let (store, recovered) = store.reopen("boot-2");
    assert_eq!(recovered, Recovered::default());
    assert_eq!(store.kind("synced"), Some(SnapshotKind::Committed));
}

/// What a container writes cannot be unpacked again, so it must not be dropped with its image. Nobody waited
/// for the disk when it was made; what it stands on has to be put in its place first.
#[test]
fn what_cannot_be_made_again_keeps_what_it_stands_on() {
    let store = Fixture::new();
    let stack = vec![
        store.staged("one", None),
        store.staged("two", Some("one")),
        store.staged("other", Some("one")),
    ];
    store.snapshots.commit_stack(&ns(), stack).expect("commit");
    store.prepare("container", Some("one"));
    store.view("look", Some("two"));
    assert!(!store.durable("one") && !store.durable("two"));
    let names = |ids: &[(Namespace, SnapshotKey)]| -> Vec<String> {
        ids.iter().map(|(_, key)| key.to_string()).collect()
    };
    let (store, recovered) = store.reopen("boot-2");
    assert_eq!(names(&recovered.unproven), ["one", "two"]);
    assert_eq!(names(&recovered.dropped), ["other"]);
    assert_eq!(store.kind("container"), Some(SnapshotKind::Active));
    // A flush knows nothing of what was written before.
    store.snapshots.flush().expect("flush");
    assert!(!store.durable("one") && !store.durable("two"));
    let torn = |name: &str| {
        refused(
            store.snapshots.mounts(&ns(), &key(name)),
            ErrorKind::DataLoss,
        )
    };
    for name in ["container", "look"] {
        torn(name);
    }
    let made = store
        .snapshots
        .prepare(&ns(), &key("more"), Some(&key("two")), Labels::new());
    refused(made, ErrorKind::DataLoss);
    for name in ["one", "two"] {
        torn("look");
        let id = store.snapshots.stat(&ns(), &key(name)).expect("stat").id;
        let staged = store.snapshots.stage().expect("stage");
        fs::write(staged.dir().path().join(name), "again").expect("write");
        let renewed = store.snapshots.renew(&ns(), &key(name), id, staged);
        renewed.expect("renewed");
        assert!(store.durable(name));
    }
    for name in ["container", "look"] {
        store.snapshots.mounts(&ns(), &key(name)).expect("mounts");
    }
    let (store, recovered) = store.reopen("boot-3");
    assert!(recovered.unproven.is_empty() && recovered.dropped.is_empty());
    assert_eq!(recovered.swept, 0, "nothing of the old ones is left");
    assert_eq!(store.kind("look"), Some(SnapshotKind::View));
}

/// As a container does.
#[test]
fn what_a_client_committed_keeps_what_it_stands_on() {
    let store = Fixture::new();
    let stack = vec![store.staged("one", None)];
    store.snapshots.commit_stack(&ns(), stack).expect("commit");
    store.layer("built", Some("one"), |_| {});
    let (store, recovered) = store.reopen("boot-2");
    assert_eq!(recovered.unproven, [(ns(), key("one"))]);
    assert_eq!(recovered.dropped, []);
    assert_eq!(store.kind("built"), Some(SnapshotKind::Committed));
    // Until it is put in its place, each opening finds it.
    let (_, recovered) = store.reopen("boot-2");
    assert_eq!(recovered.unproven, [(ns(), key("one"))]);
}

/// The directory that holds a snapshot's tree.
fn directory(mounts: &[Mount]) -> PathBuf {
    let upper = mounts[0]
        .options
        .iter()
        .find_map(|option| option.strip_prefix("upperdir="));
    let fs = Path::new(upper.unwrap_or(&mounts[0].source));
    fs.parent().expect("a parent").to_owned()
}

/// What is to be mounted is recorded before its directories are on the disk.
#[test]
fn what_was_to_be_mounted_is_made_again_after_a_power_cut() {
    let store = Fixture::new();
    store.layer("base", None, |root| {
        chown(root, Some(7), Some(8)).expect("chown");
    });
    let all = directory(&store.prepare("all", Some("base")));
    let alone = directory(&store.prepare("alone", None));
    let half = directory(&store.prepare("half", Some("base")));
    let used = directory(&store.prepare("used", Some("base")));
    let look = directory(&store.view("look", None));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    for gone in [&all, &alone, &look] {
        fs::remove_dir_all(gone).expect("remove");
    }
    fs::remove_dir(half.join("work")).expect("remove");
    mode(&half.join("fs"), 0o700).expect("chmod");
    // As if that had been before, while it was made.
    let change = store.meta.write(|tx| {
        let place = (ns(), key("half"));
        let mut record = tx.get(&schema::SNAPSHOTS, &place)?.expect("a record");
        record.created_at = Timestamp(record.created_at.0 + 3_600_000_000_000);
        tx.put(&schema::SNAPSHOTS, &place, &record)
    });
    change.expect("a younger record");
    // Its user chose this mode, later than a tick of the clock that files have their times from.
    std::thread::sleep(std::time::Duration::from_millis(50));
    mode(&used.join("fs"), 0o710).expect("chmod");

    let (store, recovered) = store.reopen("boot-2");
    let made: Vec<&str> = recovered
        .made_again
        .iter()
        .map(|(_, k)| k.as_str())
        .collect();
    assert_eq!(made, ["all", "alone", "half", "look"]);
    assert!(recovered.missing.is_empty() && recovered.swept == 0);
    let shown = |path: PathBuf| {
        let stat = fs::metadata(path).expect("stat");
        (stat.permissions().mode() & 0o7777, stat.uid(), stat.gid())
    };
    for dir in [&all, &half] {
        assert_eq!(shown(dir.clone()).0, 0o700);
        assert_eq!(shown(dir.join("fs")), (0o755, 7, 8));
        assert_eq!(shown(dir.join("work")), (0o711, 0, 0));
    }
    assert_eq!(shown(alone.join("fs")), (0o755, 0, 0));
    assert_eq!(shown(used.join("fs")), (0o710, 7, 8));
    assert!(look.join("fs").is_dir() && !look.join("work").exists());
    let mounts = store.snapshots.mounts(&ns(), &key("all")).expect("mounts");
    let mounted = Mounted::new(&mounts);
    fs::write(mounted.path().join("written"), "").expect("write");
    drop(mounted);
    // Those that were made again are of this boot now, the others have outlived one.
    let (store, again) = store.reopen("boot-2");
    assert_eq!(again, Recovered::default());
    fs::remove_dir_all(&used).expect("remove");
    fs::remove_dir_all(&alone).expect("remove");
    let (_, again) = store.reopen("boot-3");
    assert_eq!(
        again.missing,
        [(ns(), key("used"))],
        "it had been on the disk"
    );
    assert_eq!(again.made_again, [(ns(), key("alone"))]);
}

/// Nobody took it but somebody: the kernel had it.
#[test]
fn what_is_missing_without_a_power_cut_is_damage() {
    let store = Fixture::new();
    let gone = directory(&store.prepare("gone", None));
    fs::remove_dir_all(&gone).expect("remove");
    let (_, recovered) = store.reopen("boot-1");
    assert_eq!(recovered.missing, [(ns(), key("gone"))]);
    assert!(recovered.made_again.is_empty() && !gone.exists());
}

#[test]
fn a_lost_directory_is_damage_and_no_panic() {
    let store = Fixture::new();
    store.layer("base", None, |_| {});
    let lowers = store.snapshots.lowers(&ns(), &key("base")).expect("lowers");
    fs::remove_dir_all(lowers[0].path()).expect("remove");
    fs::remove_dir_all(lowers[0].path().parent().expect("id dir")).expect("remove");
    let (store, recovered) = store.reopen("boot-1");
    assert_eq!(recovered.missing, [(ns(), key("base"))]);
    refused(
        store.snapshots.lowers(&ns(), &key("base")).map(drop),
        ErrorKind::DataLoss,
    );
    let prepared = store
        .snapshots
        .prepare(&ns(), &key("a"), Some(&key("base")), Labels::new());
    refused(prepared, ErrorKind::DataLoss);
    store
        .remove("base")
        .expect("what is damaged can be removed");
}
