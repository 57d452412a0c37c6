//! Uploads that share the blocks of their source, on file systems that can and on one that cannot.
#![allow(missing_docs)]

mod common;
#[path = "common/disk.rs"]
mod disk;

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use cairn_content::{Error, Ingest};
use cairn_types::{Digest, Labels};
use common::{Fixture, ns, reference};
use disk::{Disk, run};

const ABLE: [&str; 2] = ["xfs", "btrfs"];
const SIZE: usize = 5 << 20;

/// A fresh file system in memory, with a store on it.
struct Scene {
    // Closed before its disk is unmounted.
    store: Fixture,
    disk: Disk,
}

impl Scene {
    fn new(kind: &str) -> Scene {
        let disk = Disk::new(kind);
        let root = tempfile::tempdir_in(disk.path()).expect("root");
        let store = Fixture::at(root);
        Scene { store, disk }
    }

    /// A file beside the store.
    fn source(&self, bytes: &[u8]) -> (PathBuf, File) {
        let path = self.disk.path().join("source");
        fs::write(&path, bytes).expect("source");
        let file = File::open(&path).expect("open");
        (path, file)
    }

    fn reopen(self) -> Scene {
        let Scene { store, disk } = self;
        let store = store.reopen();
        Scene { store, disk }
    }
}

/// Bytes that no file system packs or shares by itself.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        state = state.wrapping_add(1_442_695_040_888_963_407);
        (state >> 32).to_be_bytes()
    });
    let mut bytes: Vec<u8> = words
        .flat_map(|word| word[4..].to_vec())
        .take(length)
        .collect();
    bytes.truncate(length);
    bytes
}

/// Reads up to `limit` bytes that came without a copy.
fn read(ingest: &mut Ingest, limit: usize) -> Vec<u8> {
    let mut bytes = vec![0; limit];
    let mut filled = 0;
    while filled < limit {
        match ingest.read_shared(&mut bytes[filled..]).expect("read") {
            0 => break,
            got => filled += got,
        }
    }
    bytes.truncate(filled);
    bytes
}

/// Whether all of a file's blocks are another's as well, as the kernel tells it (FIEMAP).
fn is_shared(path: &Path) -> bool {
    let told = run(Command::new("filefrag").arg("-v").arg(path));
    let extents = || {
        told.lines()
            .filter(|line| line.trim_start().starts_with(|c: char| c.is_ascii_digit()))
    };
    assert!(extents().count() > 0, "{told}");
    extents().all(|line| line.contains("shared"))
}

#[test]
fn a_source_that_is_written_to_changes_no_upload() {
    for kind in ABLE {
        let scene = Scene::new(kind);
        let bytes = noise(SIZE + 1);
        let (path, source) = scene.source(&bytes);
        let before = fs::metadata(&path).expect("source");
        let mut ingest = scene.store.writer("r", bytes.len() as u64);
        assert!(
            ingest.share(&source, bytes.len() as u64).expect("share"),
            "{kind}"
        );
        // Nothing has come yet, since nothing of it is proven.
        assert!(ingest.is_shared());
        assert_eq!(
            (ingest.offset(), ingest.digest_so_far()),
            (0, Digest::sha256(b""))
        );
        let mut got = read(&mut ingest, SIZE / 2);
        assert_eq!(ingest.digest_so_far(), Digest::sha256(&bytes[..SIZE / 2]));
        // In place, by its owner, with half of it read.
        let writer = File::options().write(true).open(&path).expect("open");
        writer.write_all_at(&vec![b'x'; SIZE], 0).expect("write");
        writer.set_len(17).expect("cut");
        got.append(&mut read(&mut ingest, SIZE));
        assert!(got == bytes, "{kind}: other bytes");
        let digest = Digest::sha256(&bytes);
        let committed = ingest.commit(Some(bytes.len() as u64), Some(&digest), Labels::new());
        assert_eq!(committed.expect("commit"), digest);
        assert!(scene.store.read(&digest) == bytes, "{kind}: other bytes");
        // Each has a mode and an owner of its own.
        let blob = fs::metadata(scene.store.file(&digest)).expect("blob");
        assert_eq!(blob.permissions().mode() & 0o7777, 0o444);
        let after = fs::metadata(&path).expect("source");
        assert_eq!(after.permissions(), before.permissions());
        assert_eq!(fs::read(&path).expect("source"), [b'x'; 17]);
    }
}

#[test]
fn nothing_is_copied() {
    for kind in ABLE {
        let scene = Scene::new(kind);
        // Not the end of a block, so that its last one is shared, too.
        let size = SIZE + 1;
        let bytes = noise(size);
        let (path, source) = scene.source(&bytes);
        let mut ingest = scene.store.writer("r", 0);
        assert!(ingest.share(&source, size as u64).expect("share"), "{kind}");
        read(&mut ingest, size);
        let digest = ingest.commit(None, None, Labels::new()).expect("commit");
        let file = scene.store.file(&digest);
        assert!(is_shared(&file), "{kind}");
        // So the question can be answered with no.
        let copy = scene.disk.path().join("copy");
        run(Command::new("cp")
            .arg("--reflink=never")
            .args([&path, &copy]));
        File::open(&copy).expect("open").sync_all().expect("sync");
        assert!(!is_shared(&copy), "{kind}");
    }
}

#[test]
fn what_cannot_be_shared_is_to_be_written() {
    let ext4 = Scene::new("ext4");
    let xfs = Scene::new("xfs");
    let bytes = noise(SIZE);
    let size = SIZE as u64;
    let (_, beside) = ext4.source(&bytes);
    let (_, own) = xfs.source(&bytes);
    let small = xfs.disk.path().join("small");
    fs::write(&small, &bytes[..8 << 10]).expect("small");
    let small = File::open(&small).expect("open");
    let zero = File::open("/dev/zero").expect("open");
    let dir = File::open(xfs.disk.path()).expect("open");
    let cases = [
        ("a file system that cannot", &ext4, &beside, size),
        ("two file systems", &xfs, &beside, size),
        ("longer", &xfs, &own, size - 1),
        ("shorter", &xfs, &own, size + 1),
        ("stands in its record", &xfs, &small, 8 << 10),
        ("no file", &xfs, &zero, size),
        ("a directory", &xfs, &dir, size),
    ];
    for (case, scene, source, size) in cases {
        let mut ingest = scene.store.writer(case, 0);
        assert!(!ingest.share(source, size).expect(case), "{case}");
        assert!(!ingest.is_shared());
        assert_eq!(
            (ingest.offset(), read(&mut ingest, SIZE).len()),
            (0, 0),
            "{case}"
        );
        let text = format!("{case}, written");
        ingest.write_all(text.as_bytes()).expect("write");
        let digest = ingest.commit(None, None, Labels::new()).expect("commit");
        assert_eq!(scene.store.read(&digest), text.as_bytes());
    }
    // What has come already is gone on with, not thrown away.
    let mut ingest = xfs.store.writer("begun", 0);
    ingest.write_all(&bytes[..1]).expect("write");
    assert!(!ingest.share(&own, size).expect("share"));
    assert_eq!(ingest.offset(), 1);
}

#[test]
fn a_wrong_source_is_no_blob() {
    for kind in ABLE {
        let scene = Scene::new(kind);
        let mut bytes = noise(SIZE);
        let digest = Digest::sha256(&bytes);
        bytes[SIZE / 2] ^= 1;
        let (_, source) = scene.source(&bytes);
        let mut ingest = scene.store.writer("r", SIZE as u64);
        assert!(ingest.share(&source, SIZE as u64).expect("share"));
        read(&mut ingest, SIZE);
        match ingest.commit(Some(SIZE as u64), Some(&digest), Labels::new()) {
            Err(Error::Digest { actual, .. }) => assert_eq!(actual, Digest::sha256(&bytes)),
            other => panic!("{kind}: {other:?}"),
        }
        // Nor is what was not read to its end, although it is all there.
        let mut ingest = scene.store.writer("half", 0);
        assert!(ingest.share(&source, SIZE as u64).expect("share"));
        read(&mut ingest, SIZE / 2);
        let half = ingest.commit(None, None, Labels::new()).expect("commit");
        assert_eq!(half, Digest::sha256(&bytes[..SIZE / 2]));
        assert!(scene.store.read(&half) == bytes[..SIZE / 2]);
    }
}

/// The process ends when all bytes are there, and none or some of them have been hashed.
#[test]
fn an_upload_that_broke_off_is_hashed_from_its_beginning() {
    for hashed in [0, SIZE / 2] {
        let scene = Scene::new("xfs");
        let bytes = noise(SIZE);
        let (path, source) = scene.source(&bytes);
        let mut ingest = scene.store.writer("r", SIZE as u64);
        assert!(ingest.share(&source, SIZE as u64).expect("share"));
        read(&mut ingest, hashed);
        drop(ingest);
        fs::write(&path, b"another").expect("source");
        let scene = scene.reopen();
        scene.store.content.sweep().expect("sweep");
        let mut ingest = scene.store.writer("r", SIZE as u64);
        assert!(!ingest.is_shared());
        assert_eq!(ingest.offset(), SIZE as u64);
        assert_eq!(ingest.digest_so_far(), Digest::sha256(&bytes));
        // What a power cut has made of it.
        drop(ingest);
        let status = scene.store.content.status(&ns("default"), &reference("r"));
        assert_eq!(status.expect("status").offset, SIZE as u64);
        let dir = scene.store.root.path().join("content/ingest");
        let file = fs::read_dir(dir).expect("ingests").next().expect("one");
        let file = File::options()
            .write(true)
            .open(file.expect("entry").path());
        file.expect("open")
            .write_all_at(&[0; 4096], 0)
            .expect("write");
        ingest = scene.store.writer("r", SIZE as u64);
        let digest = Digest::sha256(&bytes);
        let refused = ingest.commit(None, Some(&digest), Labels::new());
        assert!(matches!(refused, Err(Error::Digest { .. })), "{refused:?}");
    }
}
