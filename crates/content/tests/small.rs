//! Small blobs: in the records until their files are on the disk, and what a power cut takes of them.
#![allow(missing_docs)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, thread};

use cairn_meta::{View, schema};
use cairn_types::{Classified, Digest, ErrorKind};

use common::{Fixture, ns};

const SMALL_BYTES_MAX: usize = 8 << 10;

impl Fixture {
    /// As after a power cut that took what `cut` takes of the files.
    fn cut(self, cut: impl FnOnce(&Fixture)) -> Fixture {
        cut(&self);
        let again = self.reopen();
        again.content.sweep().expect("sweep");
        again
    }

    /// The blobs whose bytes stand in the records.
    fn kept(&self) -> Vec<Digest> {
        let all = self
            .meta
            .read(|view| view.scan(&schema::BLOB_BYTES, &()))
            .expect("read");
        all.into_iter().map(|(digest, _)| digest).collect()
    }
}

#[test]
fn bytes_stand_in_the_records_until_the_file_is_on_the_disk() {
    let store = Fixture::new();
    assert_eq!(store.content.pending_since(), None);
    let small = store.put("a", &[7; SMALL_BYTES_MAX]);
    let large = store.put("a", &[7; SMALL_BYTES_MAX + 1]);
    assert_eq!(store.kept(), std::slice::from_ref(&small));
    assert!(store.content.pending_since().is_some());
    store.content.flush().expect("flush");
    assert!(store.kept().is_empty());
    assert_eq!(store.content.pending_since(), None);
    assert_eq!(store.read(&small).len(), SMALL_BYTES_MAX);
    assert_eq!(store.read(&large).len(), SMALL_BYTES_MAX + 1);
    // Nothing is left to do.
    store.content.flush().expect("flush");
}

/// More than are synced one by one, so that the other way is gone as well.
#[test]
fn many_are_put_on_the_disk_at_once() {
    let store = Fixture::new();
    let all: Vec<Digest> = (0..200_u32)
        .map(|n| store.put("a", &n.to_le_bytes()))
        .collect();
    assert_eq!(store.kept().len(), all.len());
    store.content.flush().expect("flush");
    assert!(store.kept().is_empty());
    let store = store.cut(|_| {});
    for (n, digest) in (0..).zip(&all) {
        assert_eq!(store.read(digest), u32::to_le_bytes(n));
    }
}

#[test]
fn what_a_power_cut_takes_of_the_files_is_written_again() {
    let store = Fixture::new();
    let blobs: Vec<Digest> = ["gone", "empty", "short", "longer", "other", "whole"]
        .iter()
        .map(|text| store.put("a", text.as_bytes()))
        .collect();
    let shared = store.put("b", b"gone");
    assert_eq!(shared, blobs[0]);
    let store = store.cut(|store| {
        let files: Vec<PathBuf> = blobs.iter().map(|digest| store.file(digest)).collect();
        fs::remove_file(&files[0]).expect("remove");
        fs::write(&files[1], "").expect("truncate");
        fs::write(&files[2], "sh").expect("shorten");
        fs::write(&files[3], "longer than it was").expect("lengthen");
        fs::write(&files[4], "wrong").expect("damage");
    });
    for (digest, text) in blobs
        .iter()
        .zip(["gone", "empty", "short", "longer", "other", "whole"])
    {
        assert_eq!(store.read(digest), text.as_bytes());
        let mode = fs::metadata(store.file(digest)).expect("stat");
        assert_eq!(mode.permissions().mode() & 0o7777, 0o444, "{text}");
    }
    // Still not known to be on the disk, and then they are.
    assert_eq!(store.kept().len(), blobs.len());
    store.content.flush().expect("flush");
    assert!(store.kept().is_empty());
}

#[test]
fn what_is_deleted_does_not_come_back() {
    let store = Fixture::new();
    let digest = store.put("a", b"twice");
    store.put("b", b"twice");
    assert!(!store.content.delete(&ns("a"), &digest).expect("delete"));
    assert_eq!(store.kept(), std::slice::from_ref(&digest), "b has it");
    assert!(store.content.delete(&ns("b"), &digest).expect("delete"));
    assert!(store.kept().is_empty());
    store
        .content
        .flush()
        .expect("nothing is there to be synced");
    assert_eq!(store.content.pending_since(), None);
    let store = store.cut(|_| {});
    let opened = store.content.open_any(&digest).map(drop);
    let err = opened.expect_err("gone");
    assert_eq!(err.kind(), ErrorKind::DataLoss);
    assert!(!store.file(&digest).exists());
}

/// Bytes in a record that are not those of its blob are damage, and write over nothing.
#[test]
fn damaged_bytes_are_not_written() {
    let store = Fixture::new();
    let digest = store.put("a", b"right");
    let key = digest.clone();
    store
        .meta
        .write(move |tx| tx.put(&schema::BLOB_BYTES, &key, &b"wrong".to_vec()))
        .expect("damage");
    let store = store.cut(|_| {});
    assert_eq!(store.read(&digest), b"right");
}

/// An older version deletes a blob and knows nothing of its bytes.
#[test]
fn bytes_of_no_blob_are_forgotten() {
    let store = Fixture::new();
    let digest = store.put("a", b"left");
    let key = digest.clone();
    store
        .meta
        .write(move |tx| {
            tx.delete(&schema::BLOBS, &key)?;
            tx.delete(&schema::BLOB_LINKS, &(ns("a"), key))
        })
        .expect("delete");
    let store = store.cut(|_| {});
    assert!(store.kept().is_empty());
    assert!(!store.file(&digest).exists());
}

/// A sync says nothing of pages that were lost before the kernel forgot their file.
#[test]
fn what_was_written_wrongly_stays_in_the_records() {
    let store = Fixture::new();
    let digest = store.put("a", b"right");
    fs::write(store.file(&digest), "wrong").expect("damage");
    store.content.flush().expect("flush");
    assert_eq!(store.kept(), std::slice::from_ref(&digest));
    // The next one writes it again first.
    store.content.flush().expect("flush");
    assert_eq!(store.read(&digest), b"right");
    assert!(store.kept().is_empty());
}

/// Also among many, which are not looked at one by one.
#[test]
fn what_has_lost_its_file_stays_in_the_records() {
    for others in [0, 200_u32] {
        let store = Fixture::new();
        let digest = store.put("a", b"lost");
        for n in 0..others {
            store.put("a", &n.to_le_bytes());
        }
        fs::remove_file(store.file(&digest)).expect("remove");
        store.content.flush().expect("flush");
        assert_eq!(store.kept(), std::slice::from_ref(&digest));
        store.content.flush().expect("flush");
        assert!(store.kept().is_empty());
        assert_eq!(store.read(&digest), b"lost");
        assert_eq!(store.content.pending_since(), None);
    }
}

/// A blob that is deleted and published again while others are synced must not lose the bytes that its
/// new record has: its new file was not among those synced.
#[test]
fn a_flush_forgets_only_what_it_synced() {
    let store = Fixture::new();
    let mut won = 0;
    for _ in 0..200 {
        let digest = store.put("a", b"again and again");
        thread::scope(|scope| {
            scope.spawn(|| store.content.flush().expect("flush"));
            store.content.delete(&ns("a"), &digest).expect("delete");
            store.put("a", b"again and again");
        });
        // Now that nobody is at it, what waits for its sync has its bytes in the records.
        let pending = store.content.pending_since().is_some();
        assert_eq!(!store.kept().is_empty(), pending);
        won += u32::from(pending);
        store.content.delete(&ns("a"), &digest).expect("delete");
        store.content.flush().expect("flush");
    }
    assert!(won > 0, "no publication came after the others were synced");
}
