//! A disk that others fill: changes without room are refused as they come, and the records stay writable.
//!
//! Needs root, to mount a small file system.
#![allow(missing_docs)]

use std::{fs, path::Path, process::Command};

use cairn_meta::{EngineKind, Error, Store};
use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind};
use tempfile::TempDir;

/// A small file system, until the end of the test.
struct Disk(TempDir);

impl Disk {
    fn new(kind: EngineKind) -> Disk {
        // sled makes room for its segments at once.
        Disk::of(match kind {
            EngineKind::Redb => "size=24m",
            EngineKind::Sled => "size=48m",
        })
    }

    fn of(size: &str) -> Disk {
        let disk = Disk(tempfile::tempdir().expect("temporary directory"));
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", size, "small"]);
        let mounted = mount.arg(disk.path()).status().expect("start mount");
        assert!(mounted.success(), "mount");
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self, kind: EngineKind) -> Store {
        let dir = Dir::open(self.path()).expect("directory");
        Store::open(&dir, kind).expect("records")
    }

    /// Takes all room but `free` bytes.
    fn fill(&self, free: u64) {
        let file = self.path().join("others");
        let _ = fs::remove_file(&file);
        let dir = Dir::open(self.path()).expect("directory");
        // What the store keeps for itself it shall have given up.
        let _ = fs::remove_file(self.path().join("reserve"));
        let taken = dir.space().expect("space").free_bytes - free;
        let bytes = vec![1; usize::try_from(taken).expect("small")];
        fs::write(file, bytes).expect("fill");
    }

    fn make_room(&self) {
        fs::remove_file(self.path().join("others")).expect("remove");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// One transaction of so many kilobytes, under names that begin with `name`.
fn write(store: &Store, name: &str, kilobytes: usize) -> Result<(), Error> {
    let name = name.to_owned();
    store.write(move |tx| {
        for number in 0..kilobytes.div_ceil(4) {
            let key = format!("{name}-{number}-{}", "x".repeat(4000));
            tx.next_id(&key)?;
        }
        Ok(())
    })
}

/// Whether the first of them was written, once.
fn has(store: &Store, name: &str) -> bool {
    let key = format!("{name}-0-{}", "x".repeat(4000));
    let next: Result<u64, Error> = store.write(move |tx| tx.next_id(&key));
    next.expect("number") == 2
}

#[track_caller]
fn refused(result: Result<(), Error>) {
    match result {
        Err(Error::Full { free, needed }) => assert!(free < needed, "{free}, {needed}"),
        other => panic!("{other:?}"),
    }
}

/// A transaction that is longer than a segment of the journal makes that grow, also when it is empty.
#[test]
fn what_is_longer_than_the_journal_is_refused_beforehand() {
    for kind in EngineKind::ALL {
        let disk = Disk::new(kind);
        let store = disk.open(kind);
        disk.fill(1 << 20);
        refused(write(&store, "long", 3000));
        assert_eq!(store.read_only(), None, "{kind:?}");
        write(&store, "short", 8).expect("there is room for it");
        refused(write(&store, "long", 3000));
        disk.make_room();
        write(&store, "long", 3000).expect("room");
        write(&store, "last", 8).expect("room");
        drop(store);
        let store = disk.open(kind);
        for name in ["short", "long", "last"] {
            assert!(has(&store, name), "{kind:?}: {name}");
        }
    }
}

/// One that a segment has no more room for makes the engine take over what that holds, which nobody looked
/// at while it was not half full.
#[test]
fn what_makes_the_engine_write_is_refused_beforehand() {
    for kind in EngineKind::ALL {
        let disk = Disk::new(kind);
        let store = disk.open(kind);
        write(&store, "first", 400).expect("room");
        disk.fill(0);
        refused(write(&store, "second", 700));
        assert_eq!(store.read_only(), None, "{kind:?}");
        write(&store, "short", 8).expect("there is room for it");
        disk.make_room();
        write(&store, "second", 700).expect("room");
        write(&store, "third", 900).expect("room");
        drop(store);
        let store = disk.open(kind);
        for name in ["first", "short", "second", "third"] {
            assert!(has(&store, name), "{kind:?}: {name}");
        }
    }
}

/// Names of copies and logs.
fn copies(disk: &Disk, kind: EngineKind) -> Vec<String> {
    let entries = fs::read_dir(disk.path().join(kind.name())).expect("list");
    let names = entries.map(|entry| entry.expect("entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names
        .filter(|name| name.starts_with("copy.") || name.starts_with("log."))
        .collect()
}

/// A first copy has no one before it by which it could be known how large it will be.
#[test]
fn a_copy_is_not_begun_that_has_no_room() {
    for kind in EngineKind::ALL {
        let disk = Disk::of("size=160m");
        let store = disk.open(kind);
        write(&store, "first", 6000).expect("room");
        drop(store);
        for name in copies(&disk, kind) {
            fs::remove_file(disk.path().join(kind.name()).join(name)).expect("remove");
        }
        // What is to be left beside a copy, with the reserve, and less than this one takes.
        disk.fill((64 + 4 + 2) << 20);
        drop(disk.open(kind));
        assert_eq!(copies(&disk, kind), Vec::<String>::new(), "{kind:?}");
        disk.make_room();
        drop(disk.open(kind));
        assert_eq!(copies(&disk, kind).len(), 2, "{kind:?}");
    }
}

/// A segment that is gone is made anew, and one that was begun and found no room is no damage.
#[test]
fn a_segment_that_has_no_room_is_made_later() {
    for kind in EngineKind::ALL {
        let disk = Disk::new(kind);
        let store = disk.open(kind);
        write(&store, "first", 8).expect("room");
        drop(store);
        fs::remove_file(disk.path().join(kind.name()).join("journal.b")).expect("remove");
        disk.fill(512 << 10);
        let dir = Dir::open(disk.path()).expect("directory");
        let err = Store::open(&dir, kind).err().expect("no room");
        assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
        disk.make_room();
        let store = disk.open(kind);
        assert_eq!(store.rebuilt(), None, "{kind:?}");
        assert!(has(&store, "first"), "{kind:?}");
    }
}
