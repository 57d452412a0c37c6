//! Blobs and uploads over real records and a real file system: what is kept, what is refused, what a
//! crash leaves and who gets in whose way.
#![allow(missing_docs)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cairn_content::{Blob, Error};
use cairn_meta::{IngestRecord, Timestamp, View, schema};
use cairn_types::{Algorithm, Classified, Digest, ErrorKind, Labels};

use common::{Fixture, ns, reference};

/// How often two threads are to meet at the wrong moment, so that they do.
const ROUNDS: usize = 1000;

impl Fixture {
    fn upload(&self, name: &str, bytes: &[u8]) -> Digest {
        let mut ingest = self.writer(name, 0);
        ingest.write_all(bytes).expect("write");
        ingest.commit(None, None, Labels::new()).expect("commit")
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(own).collect()
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => panic!("expected {kind:?}"),
        Err(err) => {
            assert_eq!(err.kind(), kind, "{err}");
            err
        }
    }
}

fn read(mut blob: Blob) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    blob.read_to_end(&mut bytes).map(|_| bytes)
}

#[test]
fn an_upload_becomes_a_blob_that_survives_reopening() {
    let store = Fixture::new();
    let mut ingest = store.writer("layer-1", 6);
    ingest.write_all(b"foo").expect("write");
    assert_eq!(ingest.digest_so_far(), Digest::sha256(b"foo"));
    ingest.write_all(b"bar").expect("write");
    let digest = Digest::sha256(b"foobar");
    let committed = ingest.commit(Some(6), Some(&digest), labels(&[("a", "b")]));
    assert_eq!(committed.expect("commit"), digest);
    let store = store.reopen();
    assert_eq!(store.content.sweep().expect("sweep"), Default::default());
    let info = store.content.info(&ns("default"), &digest).expect("info");
    assert_eq!((info.size, info.labels), (6, labels(&[("a", "b")])));
    assert_eq!(info.created_at, info.updated_at);
    let blob = store.content.open_blob(&ns("default"), &digest);
    assert_eq!(read(blob.expect("open")).expect("read"), b"foobar");
    let mode = fs::metadata(store.file(&digest))
        .expect("file")
        .permissions();
    assert_eq!(mode.mode() & 0o7777, 0o444);
    assert_eq!(store.ingest_entries(), 0);
    assert!(
        store
            .content
            .ingests(&ns("default"))
            .expect("list")
            .is_empty()
    );
}

#[test]
fn a_blob_of_no_bytes_is_a_blob() {
    let store = Fixture::new();
    let digest = store.upload("empty", b"");
    let blob = store.content.open_blob(&ns("default"), &digest);
    assert_eq!(read(blob.expect("open")).expect("read"), b"");
}

#[test]
fn an_upload_is_resumed_where_it_stood() {
    let store = Fixture::new();
    let mut ingest = store.writer("r", 6);
    ingest.write_all(b"foo").expect("write");
    let written = ingest.updated_at();
    drop(ingest);
    let store = store.reopen();
    store.content.sweep().expect("sweep");
    let status = store.content.status(&ns("default"), &reference("r"));
    let status = status.expect("status");
    assert_eq!((status.offset, status.total), (3, 6));
    let mut ingest = store.writer("r", 6);
    assert_eq!(ingest.offset(), 3);
    assert_eq!(ingest.digest_so_far(), Digest::sha256(b"foo"));
    assert_eq!(ingest.updated_at(), written, "opening is no writing");
    ingest.write_all(b"bar").expect("write");
    let digest = ingest.commit(None, None, Labels::new()).expect("commit");
    assert_eq!(digest, Digest::sha256(b"foobar"));
}

#[test]
fn another_total_starts_over_and_so_does_truncating() {
    let store = Fixture::new();
    let mut ingest = store.writer("r", 6);
    ingest.write_all(b"foo").expect("write");
    drop(ingest);
    let mut ingest = store.writer("r", 2);
    assert_eq!(ingest.offset(), 0);
    ingest.write_all(b"wrong").expect("write");
    ingest.truncate().expect("truncate");
    ingest.write_all(b"ok").expect("write");
    let digest = ingest.commit(None, None, Labels::new()).expect("commit");
    assert_eq!(digest, Digest::sha256(b"ok"));
}

/// containerd's suite, CommitErrorState: after a refused commit the same ref goes on.
#[test]
fn a_wrong_size_or_digest_is_refused_and_the_bytes_stay() {
    let store = Fixture::new();
    let mut ingest = store.writer("r", 0);
    ingest.write_all(b"foobar").expect("write");
    let wrong = ingest.commit(Some(7), None, Labels::new());
    refused(wrong, ErrorKind::FailedPrecondition);
    let ingest = store.writer("r", 0);
    assert_eq!(ingest.offset(), 6);
    let wrong = ingest.commit(Some(6), Some(&Digest::sha256(b"other")), Labels::new());
    let err = refused(wrong, ErrorKind::FailedPrecondition).to_string();
    assert!(
        err.contains(&Digest::sha256(b"foobar").to_string()),
        "{err}"
    );
    let committed = store.writer("r", 0).commit(Some(6), None, Labels::new());
    assert_eq!(committed.expect("commit"), Digest::sha256(b"foobar"));
}

#[test]
fn a_wrong_announcement_at_opening_counts_as_well() {
    let store = Fixture::new();
    let expected = Digest::sha256(b"foobar");
    let open = |total| {
        store
            .content
            .writer(&ns("default"), &reference("r"), Some(&expected), total)
            .expect("writer")
    };
    let mut ingest = open(7);
    ingest.write_all(b"foobaz").expect("write");
    refused(
        ingest.commit(None, None, Labels::new()),
        ErrorKind::FailedPrecondition,
    );
    let mut ingest = open(6);
    ingest.write_all(b"foobaz").expect("write");
    refused(
        ingest.commit(None, None, Labels::new()),
        ErrorKind::FailedPrecondition,
    );
}

#[test]
fn other_algorithms_name_blobs_as_well() {
    let store = Fixture::new();
    for (number, algorithm) in Algorithm::ALL.into_iter().enumerate() {
        let digest = Digest::of(algorithm, b"foobar");
        let mut ingest = store.writer(&format!("r{number}"), 0);
        ingest.write_all(b"foobar").expect("write");
        // Known only now: what was hashed by another algorithm is hashed again.
        let committed = ingest.commit(None, Some(&digest), Labels::new());
        assert_eq!(committed.expect("commit"), digest);
        assert!(store.file(&digest).exists());
    }
}

#[test]
fn what_is_there_is_not_stored_twice() {
    let store = Fixture::new();
    let digest = store.upload("a", b"foobar");
    let again = store
        .content
        .writer(&ns("default"), &reference("b"), Some(&digest), 0);
    refused(again.map(drop), ErrorKind::AlreadyExists);
    let mut ingest = store.writer("b", 0);
    ingest.write_all(b"foobar").expect("write");
    refused(
        ingest.commit(None, None, Labels::new()),
        ErrorKind::AlreadyExists,
    );
    // The upload is gone and its ref free from the start.
    refused(
        store.content.status(&ns("default"), &reference("b")),
        ErrorKind::NotFound,
    );
    assert_eq!(store.writer("b", 0).offset(), 0);
    let put = store
        .content
        .put(&ns("default"), b"foobar", None, Labels::new());
    refused(put, ErrorKind::AlreadyExists);
}

#[test]
fn a_second_writer_of_a_ref_is_kept_out() {
    let store = Fixture::new();
    let first = store.writer("r", 0);
    let second = |space: &str| {
        store
            .content
            .writer(&ns(space), &reference("r"), None, 0)
            .map(drop)
    };
    refused(second("default"), ErrorKind::Unavailable);
    second("other").expect("namespaces are separate");
    drop(first);
    second("default").expect("free again");
}

#[test]
fn an_abort_needs_no_lock_and_leaves_nothing() {
    let store = Fixture::new();
    let mut ingest = store.writer("r", 0);
    ingest.write_all(b"foo").expect("write");
    let abort = || store.content.abort(&ns("default"), &reference("r"));
    abort().expect("abort");
    refused(abort(), ErrorKind::NotFound);
    assert_eq!(store.ingest_entries(), 0);
    // The stream that was writing finds nothing to commit, and nothing is there.
    refused(
        ingest.commit(None, None, Labels::new()),
        ErrorKind::Internal,
    );
    let digest = Digest::sha256(b"foo");
    assert!(
        !store
            .content
            .exists(&ns("default"), &digest)
            .expect("exists")
    );
    assert!(!store.file(&digest).exists());
}

#[test]
fn an_abort_while_an_upload_is_opened_leaves_nothing() {
    let fixture = Fixture::new();
    let (ns, reference) = (ns("a"), reference("r"));
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let aborting = scope.spawn(|| {
            let mut aborted = 0;
            while !over.load(Ordering::Relaxed) {
                aborted += u32::from(fixture.content.abort(&ns, &reference).is_ok());
            }
            aborted
        });
        for _ in 0..ROUNDS {
            drop(fixture.content.writer(&ns, &reference, None, 0));
        }
        over.store(true, Ordering::Relaxed);
        assert!(aborting.join().expect("abort") > 0);
    });
    let _ = fixture.content.abort(&ns, &reference);
    assert_eq!(fixture.ingest_entries(), 0);
}

#[test]
fn a_damaged_file_at_the_place_of_a_blob_is_replaced() {
    for damage in [&b"foobaz"[..], b"foo", b""] {
        let store = Fixture::new();
        let digest = Digest::sha256(b"foobar");
        fs::write(store.file(&digest), damage).expect("damage");
        assert_eq!(store.upload("r", b"foobar"), digest);
        let bytes = store.content.read_all(&ns("default"), &digest, 100);
        assert_eq!(bytes.expect("read"), b"foobar");
        // The same for documents, and for bytes that another namespace recorded long ago.
        fs::set_permissions(store.file(&digest), fs::Permissions::from_mode(0o644)).expect("chmod");
        fs::write(store.file(&digest), damage).expect("damage");
        let put = store
            .content
            .put(&ns("other"), b"foobar", Some(&digest), Labels::new());
        put.expect("put");
        let bytes = store.content.read_all(&ns("default"), &digest, 100);
        assert_eq!(bytes.expect("read"), b"foobar");
        assert_eq!(store.ingest_entries(), 0);
    }
}

#[test]
fn a_right_file_at_the_place_of_a_blob_is_taken() {
    let store = Fixture::new();
    let digest = Digest::sha256(b"foobar");
    fs::write(store.file(&digest), b"foobar").expect("leftover");
    assert_eq!(store.upload("r", b"foobar"), digest);
    assert_eq!(store.ingest_entries(), 0);
}

#[test]
fn damage_is_seen_when_a_blob_is_read() {
    let store = Fixture::new();
    let digest = store.upload("r", b"foobar");
    let open = || store.content.open_blob(&ns("default"), &digest);
    let write = |bytes: &[u8]| {
        fs::remove_file(store.file(&digest)).expect("remove");
        fs::write(store.file(&digest), bytes).expect("write");
    };
    write(b"foobaz");
    let mut blob = open().expect("the length is right");
    let mut bytes = [0; 4];
    blob.read_exact(&mut bytes).expect("not yet at the end");
    let err = blob.read(&mut bytes).expect_err("the last bytes");
    assert_eq!(err.kind(), std::io::ErrorKind::InvalidData);
    refused(
        store.content.read_all(&ns("default"), &digest, 100),
        ErrorKind::DataLoss,
    );
    write(b"foo");
    refused(open().map(drop), ErrorKind::DataLoss);
    fs::remove_file(store.file(&digest)).expect("remove");
    refused(open().map(drop), ErrorKind::DataLoss);
}

#[test]
fn a_long_document_is_not_read() {
    let store = Fixture::new();
    let digest = store.upload("r", b"foobar");
    let read = |limit| store.content.read_all(&ns("default"), &digest, limit);
    assert_eq!(read(6).expect("read"), b"foobar");
    refused(read(5), ErrorKind::ResourceExhausted);
}

#[test]
fn parts_are_read_at_their_offset() {
    let store = Fixture::new();
    let digest = store.upload("r", b"foobar");
    let blob = store
        .content
        .open_blob(&ns("default"), &digest)
        .expect("open");
    let mut bytes = [0; 10];
    assert_eq!(blob.read_at(&mut bytes, 4).expect("read"), 2);
    assert_eq!(&bytes[..2], b"ar");
    assert_eq!(blob.read_at(&mut bytes, 6).expect("read"), 0);
}

#[test]
fn namespaces_share_bytes_and_nothing_else() {
    let store = Fixture::new();
    let (a, b) = (ns("a"), ns("b"));
    let digest = store
        .content
        .put(&a, b"{}", None, labels(&[("x", "1")]))
        .expect("put");
    refused(store.content.info(&b, &digest), ErrorKind::NotFound);
    let unknown = Digest::sha256(b"unknown");
    refused(
        store.content.link(&b, &unknown, Labels::new()),
        ErrorKind::NotFound,
    );
    store
        .content
        .link(&b, &digest, Labels::new())
        .expect("link");
    refused(
        store.content.link(&b, &digest, Labels::new()),
        ErrorKind::AlreadyExists,
    );
    assert_eq!(store.content.list(&b).expect("list").len(), 1);
    assert!(
        store
            .content
            .info(&b, &digest)
            .expect("info")
            .labels
            .is_empty()
    );
    let names = store.content.namespaces().expect("namespaces");
    assert_eq!(names, [a.clone(), b.clone()]);
    // The bytes go with the last one.
    assert!(!store.content.delete(&a, &digest).expect("delete"));
    refused(store.content.delete(&a, &digest), ErrorKind::NotFound);
    assert!(store.file(&digest).exists());
    assert!(store.content.delete(&b, &digest).expect("delete"));
    assert!(!store.file(&digest).exists());
}

#[test]
fn labels_are_replaced_or_updated() {
    let store = Fixture::new();
    let digest = store.upload("r", b"foobar");
    let space = ns("default");
    let set = store
        .content
        .set_labels(&space, &digest, labels(&[("a", "1"), ("b", "2")]))
        .expect("set");
    assert_eq!(set.labels, labels(&[("a", "1"), ("b", "2")]));
    assert!(set.updated_at > set.created_at);
    let update = labels(&[("a", ""), ("c", "3")]);
    let updated = store.content.update_labels(&space, &digest, &update);
    let updated = updated.expect("update");
    assert_eq!(updated.labels, labels(&[("b", "2"), ("c", "3")]));
    assert_eq!(store.content.info(&space, &digest).expect("info"), updated);
    let long = labels(&[("k", &"v".repeat(4096))]);
    refused(
        store.content.update_labels(&space, &digest, &long),
        ErrorKind::InvalidArgument,
    );
    let unknown = Digest::sha256(b"unknown");
    refused(
        store.content.set_labels(&space, &unknown, Labels::new()),
        ErrorKind::NotFound,
    );
}

#[test]
fn what_a_crash_leaves_is_swept() {
    let store = Fixture::new();
    let kept = store.upload("kept", b"kept");
    let mut ingest = store.writer("going on", 0);
    ingest.write_all(b"foo").expect("write");
    drop(ingest);
    // Named and not recorded; garbage names; a directory and a document nobody recorded.
    let named = store.file(&Digest::sha256(b"named"));
    fs::write(&named, b"named").expect("write");
    fs::write(named.with_file_name("garbage"), b"").expect("write");
    let ingests = store.root.path().join("content/ingest");
    fs::create_dir(ingests.join("4711")).expect("mkdir");
    fs::write(ingests.join("4711/data"), b"x").expect("write");
    fs::write(ingests.join("put-3"), b"x").expect("write");
    // A record without its directory is an upload that has to begin again.
    let store = store.reopen();
    let old = Timestamp(Timestamp::now().0 - 25 * 3600 * 1_000_000_000);
    let record = move |id| IngestRecord {
        id,
        expected: None,
        total: 9,
        started_at: old,
        updated_at: if id == 5000 { old } else { Timestamp::now() },
        leased: false,
    };
    store
        .meta
        .write(move |tx| {
            tx.put(
                &schema::INGESTS,
                &(ns("default"), reference("given up")),
                &record(5000),
            )?;
            tx.put(
                &schema::INGESTS,
                &(ns("default"), reference("begun")),
                &record(5001),
            )?;
            Ok::<_, cairn_meta::Error>(())
        })
        .expect("records");
    let swept = store.content.sweep().expect("sweep");
    assert_eq!((swept.blobs, swept.ingests), (2, 2));
    assert_eq!(store.content.sweep().expect("again"), Default::default());
    assert!(store.content.exists(&ns("default"), &kept).expect("exists"));
    let left = store.content.ingests(&ns("default")).expect("ingests");
    let left: Vec<_> = left
        .iter()
        .map(|i| (i.reference.as_str(), i.offset))
        .collect();
    assert_eq!(left, [("begun", 0), ("going on", 3)]);
    assert_eq!(store.writer("begun", 9).offset(), 0);
}

/// The race that the lock on digests is for: a deletion's file goes after its record, and a commit
/// between the two would record a file that is about to go.
#[test]
fn a_blob_deleted_and_stored_at_the_same_time_is_there_or_not() {
    let store = Fixture::new();
    let digest = Digest::sha256(b"contended");
    let barrier = Arc::new(Barrier::new(4));
    let workers: Vec<_> = (0..4)
        .map(|number| {
            let (content, barrier) = (store.content.clone(), Arc::clone(&barrier));
            let digest = digest.clone();
            thread::spawn(move || {
                barrier.wait();
                for _ in 0..50 {
                    let done = if number % 2 == 0 {
                        content
                            .put(&ns("default"), b"contended", None, Labels::new())
                            .map(drop)
                    } else {
                        content.delete(&ns("default"), &digest).map(drop)
                    };
                    if let Err(err) = done {
                        let kind = err.kind();
                        let expected = [ErrorKind::AlreadyExists, ErrorKind::NotFound];
                        assert!(expected.contains(&kind), "{err:?}");
                    }
                    match content.read_all(&ns("default"), &digest, 100) {
                        Ok(bytes) => assert_eq!(bytes, b"contended"),
                        Err(err) => assert_eq!(err.kind(), ErrorKind::NotFound, "{err:?}"),
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().expect("worker");
    }
    let recorded = store
        .content
        .exists(&ns("default"), &digest)
        .expect("exists");
    assert_eq!(recorded, store.file(&digest).exists());
    let record = store
        .meta
        .read(|view| Ok::<_, cairn_meta::Error>(view.get(&schema::BLOBS, &digest)?.is_some()));
    assert_eq!(record.expect("read"), recorded);
}

#[test]
fn many_clients_store_side_by_side() {
    let store = Fixture::new();
    thread::scope(|scope| {
        for number in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..5 {
                    let bytes = format!("{number}.{round}");
                    store.upload(&bytes, bytes.as_bytes());
                }
            });
        }
    });
    let listed = store.content.list(&ns("default")).expect("list");
    assert_eq!(listed.len(), 80);
    assert!(
        listed
            .windows(2)
            .all(|pair| pair[0].digest < pair[1].digest)
    );
    assert_eq!(store.ingest_entries(), 0);
}
