//! Damage to blobs that are recorded: found, and mended by whoever brings the bytes.
#![allow(missing_docs)]

mod common;

use std::{
    fs,
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use cairn_content::{Flaw, Mended};
use cairn_meta::{BlobRecord, Timestamp, Tx, View, schema};
use cairn_sys::raw::Caching;
use cairn_types::{Digest, Labels};

use common::{Fixture, ns, reference};

/// Flips the lowest bit of the first byte.
fn flip(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("mode");
    let first = fs::read(path).expect("read")[0];
    let file = fs::OpenOptions::new().write(true).open(path).expect("open");
    file.write_all_at(&[first ^ 1], 0).expect("write");
}

fn examine(fixture: &Fixture, digest: &Digest) -> Option<Flaw> {
    let mut read = 0;
    let flaw = fixture
        .content
        .examine(digest, Caching::Kept, &mut |bytes| {
            read += bytes;
            true
        });
    flaw.expect("examined")
}

fn large() -> Vec<u8> {
    (0..200_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn labels(value: &str) -> Labels {
    Labels::from([("team".to_owned(), value.to_owned())])
}

fn store(fixture: &Fixture, bytes: &[u8], value: &str) -> cairn_content::Result<Digest> {
    let digest = Digest::sha256(bytes);
    let name = reference("again");
    let total = bytes.len() as u64;
    let content = &fixture.content;
    let mut writer = content.writer(&ns("default"), &name, Some(&digest), total)?;
    writer.write_all(bytes).expect("write");
    writer.commit(None, Some(&digest), labels(value))
}

#[test]
fn each_flaw_is_named() {
    let fixture = Fixture::new();
    let small = fixture.put("default", b"small");
    let bytes = large();
    let large = store(&fixture, &bytes, "web").expect("store");
    for digest in [&small, &large] {
        assert_eq!(fixture.content.glance(digest).expect("look"), None);
        assert_eq!(examine(&fixture, digest), None);
    }
    let file = fixture.file(&large);
    flip(&file);
    assert_eq!(fixture.content.glance(&large).expect("look"), None);
    let mut other = bytes.clone();
    other[0] ^= 1;
    let flaw = examine(&fixture, &large);
    assert_eq!(flaw, Some(Flaw::Bytes(Digest::sha256(&other))));
    fs::write(&file, b"cut").expect("write");
    let length = Flaw::Length {
        actual: 3,
        recorded: bytes.len() as u64,
    };
    assert_eq!(examine(&fixture, &large), Some(length.clone()));
    assert_eq!(fixture.content.glance(&large).expect("look"), Some(length));
    fs::remove_file(&file).expect("remove");
    assert_eq!(examine(&fixture, &large), Some(Flaw::Missing));
    fs::create_dir(&file).expect("directory");
    assert_eq!(examine(&fixture, &large), Some(Flaw::NotAFile));
    // What no record speaks of has no flaw.
    assert_eq!(examine(&fixture, &Digest::sha256(b"nobody's")), None);
}

#[test]
fn whoever_brings_the_bytes_mends_the_blob() {
    let fixture = Fixture::new();
    let bytes = large();
    let digest = store(&fixture, &bytes, "web").expect("store");
    let file = fixture.file(&digest);
    let there = store(&fixture, &bytes, "new").expect_err("it is there");
    assert!(matches!(there, cairn_content::Error::Exists { .. }));
    type Damage = fn(&Path);
    let damages: [Damage; 3] = [
        |file| fs::remove_file(file).expect("remove"),
        |file| {
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("mode");
            fs::write(file, b"cut").expect("write");
        },
        flip,
    ];
    for damage in damages {
        damage(&file);
        // A flipped bit is known only when the bytes were read.
        assert!(examine(&fixture, &digest).is_some());
        assert!(
            !fixture
                .content
                .is_whole(&ns("default"), &digest)
                .expect("look")
        );
        store(&fixture, &bytes, "new").expect("bring again");
        assert_eq!(fixture.read(&digest), bytes);
        assert_eq!(examine(&fixture, &digest), None);
        let info = fixture.content.info(&ns("default"), &digest).expect("info");
        assert_eq!(info.labels, labels("new"));
        assert_eq!(fixture.ingest_entries(), 0);
    }
    // A reader finds it as well.
    flip(&file);
    let mut blob = fixture.content.open_any(&digest).expect("open");
    std::io::copy(&mut blob, &mut std::io::sink()).expect_err("damaged");
    store(&fixture, &bytes, "new").expect("bring again");
    assert_eq!(fixture.read(&digest), bytes);
}

#[test]
fn a_damaged_document_is_replaced_by_the_same_document() {
    let fixture = Fixture::new();
    let digest = fixture.put("default", b"{}");
    let put = || {
        let put = fixture
            .content
            .put(&ns("default"), b"{}", None, labels("new"));
        put.map_err(|err| err.to_string())
    };
    assert!(put().expect_err("it is there").contains("already exists"));
    // Nobody has seen this flaw yet.
    flip(&fixture.file(&digest));
    put().expect("replaced");
    assert_eq!(fixture.read(&digest), b"{}");
    let info = fixture.content.info(&ns("default"), &digest).expect("info");
    assert_eq!(info.labels, labels("new"));
}

#[test]
fn a_damaged_file_is_set_aside_and_its_records_stay() {
    let fixture = Fixture::new();
    let bytes = large();
    let digest = store(&fixture, &bytes, "web").expect("store");
    assert_eq!(
        fixture
            .content
            .give_up(&digest, &mut |_| true)
            .expect("whole"),
        Mended::Nothing
    );
    flip(&fixture.file(&digest));
    assert_eq!(
        fixture
            .content
            .give_up(&digest, &mut |_| true)
            .expect("aside"),
        Mended::Aside
    );
    assert_eq!(examine(&fixture, &digest), Some(Flaw::Missing));
    let info = fixture.content.info(&ns("default"), &digest).expect("info");
    assert_eq!(info.labels, labels("web"));
    // Of a small one the records have the bytes until they are synced.
    let small = fixture.put("default", b"{}");
    flip(&fixture.file(&small));
    assert_eq!(
        fixture
            .content
            .give_up(&small, &mut |_| true)
            .expect("mended"),
        Mended::Whole
    );
    assert_eq!(fixture.read(&small), b"{}");
    assert_eq!(examine(&fixture, &small), None);
}

#[test]
fn a_lost_record_is_written_again_from_a_file_that_is_whole() {
    let fixture = Fixture::new();
    let bytes = large();
    let digest = store(&fixture, &bytes, "web").expect("store");
    let lose = |digest: &Digest| {
        let digest = digest.clone();
        let lost = fixture
            .meta
            .write(move |tx: &mut Tx<'_>| tx.delete(&schema::BLOBS, &digest));
        lost.expect("delete");
    };
    lose(&digest);
    assert!(fixture.content.record_again(&digest).expect("recorded"));
    assert_eq!(fixture.read(&digest), bytes);
    lose(&digest);
    flip(&fixture.file(&digest));
    assert!(!fixture.content.record_again(&digest).expect("refused"));
    let known = fixture.meta.read(|view| view.get(&schema::BLOBS, &digest));
    assert_eq!(known.expect("look"), None);
    // And by who brings it.
    store(&fixture, &bytes, "new").expect("bring again");
    assert_eq!(fixture.read(&digest), bytes);
}

#[test]
fn files_without_record_are_strays_unless_somebody_is_at_them() {
    let fixture = Fixture::new();
    let kept = fixture.put("default", b"kept");
    assert_eq!(fixture.content.strays().expect("list"), [""; 0]);
    let other = Digest::sha256(b"other");
    for name in [other.hex(), "README"] {
        fs::write(fixture.file(&kept).with_file_name(name), b"x").expect("write");
    }
    let mut strays = fixture.content.strays().expect("list");
    strays.sort();
    let mut expected = [
        format!("sha256/{}", other.hex()),
        "sha256/README".to_owned(),
    ];
    expected.sort();
    assert_eq!(strays, expected);
    for stray in &strays {
        assert!(fixture.content.remove_stray(stray).expect("remove"));
        assert!(!fixture.content.is_stray(stray).expect("look"));
    }
    let recorded = format!("sha256/{}", kept.hex());
    assert!(!fixture.content.remove_stray(&recorded).expect("refused"));
    assert_eq!(fixture.read(&kept), b"kept");
}

/// Somebody can see it: its file is all there is to make it from again.
#[test]
fn the_file_of_a_blob_whose_record_is_lost_is_not_swept() {
    let fixture = Fixture::new();
    let bytes = large();
    let digest = store(&fixture, &bytes, "web").expect("store");
    let lost = digest.clone();
    let deleted = fixture
        .meta
        .write(move |tx: &mut Tx<'_>| tx.delete(&schema::BLOBS, &lost));
    deleted.expect("delete");
    let fixture = fixture.reopen();
    assert_eq!(fixture.content.sweep().expect("sweep"), Default::default());
    assert!(fixture.content.record_again(&digest).expect("recorded"));
    assert_eq!(fixture.read(&digest), bytes);
}

/// By what somebody has seen, and not by what nobody sees any more.
#[test]
fn a_blob_that_is_whole_again_is_doubted_no_longer() {
    let fixture = Fixture::new();
    let bytes = large();
    let digest = store(&fixture, &bytes, "web").expect("store");
    flip(&fixture.file(&digest));
    assert!(examine(&fixture, &digest).is_some());
    flip(&fixture.file(&digest));
    let is_sound = || fixture.content.is_sound(&digest).expect("look");
    assert!(!is_sound());
    // Who has not read all of it does not know.
    let part = fixture
        .content
        .examine(&digest, Caching::Kept, &mut |_| false);
    assert_eq!(part.expect("examined"), None);
    assert!(!is_sound());
    assert_eq!(examine(&fixture, &digest), None);
    assert!(is_sound());
}

#[test]
fn a_record_of_another_length_costs_no_file_whose_bytes_are_right() {
    let fixture = Fixture::new();
    let bytes = large();
    let digest = store(&fixture, &bytes, "web").expect("store");
    let key = digest.clone();
    let created_at = Timestamp(7);
    let wrong = fixture.meta.write(move |tx: &mut Tx<'_>| {
        let size = 3;
        tx.put(&schema::BLOBS, &key, &BlobRecord { size, created_at })
    });
    wrong.expect("damage");
    let flaw = examine(&fixture, &digest);
    assert!(matches!(flaw, Some(Flaw::Length { recorded: 3, .. })));
    let mended = fixture
        .content
        .give_up(&digest, &mut |_| true)
        .expect("mended");
    assert_eq!(mended, Mended::Measured);
    assert_eq!(fixture.read(&digest), bytes);
    assert_eq!(examine(&fixture, &digest), None);
    let known = fixture.meta.read(|view| view.get(&schema::BLOBS, &digest));
    let size = bytes.len() as u64;
    assert_eq!(known.expect("look"), Some(BlobRecord { size, created_at }));
    // Where both are wrong the bytes go, and the record stays.
    fs::set_permissions(fixture.file(&digest), fs::Permissions::from_mode(0o644)).expect("mode");
    fs::write(fixture.file(&digest), b"cut").expect("cut");
    let mended = fixture
        .content
        .give_up(&digest, &mut |_| true)
        .expect("aside");
    assert_eq!(mended, Mended::Aside);
}

/// Its bytes are nowhere but in the records.
#[test]
fn a_small_blob_without_file_keeps_its_bytes() {
    let fixture = Fixture::new();
    let digest = fixture.put("default", b"{}");
    let file = fixture.file(&digest);
    let kept = || {
        let kept = fixture
            .meta
            .read(|view| view.get(&schema::BLOB_BYTES, &digest));
        kept.expect("look")
    };
    fs::remove_file(&file).expect("remove");
    fixture.content.flush().expect("flush");
    assert_eq!(kept(), Some(b"{}".to_vec()));
    let damages: [fn(&Path); 3] = [
        |_| (),
        |file| fs::write(file, b"longer").expect("write"),
        |file| {
            fs::remove_file(file).expect("remove");
            fs::create_dir(file).expect("directory");
            fs::write(file.join("full"), b"x").expect("write");
        },
    ];
    for damage in damages {
        damage(&file);
        let mended = fixture
            .content
            .give_up(&digest, &mut |_| true)
            .expect("mended");
        assert_eq!(mended, Mended::Whole);
        assert_eq!(fixture.read(&digest), b"{}");
        let mode = fs::metadata(&file).expect("stat").permissions().mode();
        assert_eq!(mode & 0o7777, 0o444);
        assert_eq!(fixture.ingest_entries(), 0);
        assert_eq!(kept(), Some(b"{}".to_vec()));
    }
    fixture.content.flush().expect("flush");
    assert_eq!(kept(), None);
    assert_eq!(fixture.read(&digest), b"{}");
}

#[test]
fn a_blob_is_settled_when_file_and_record_are_whole() {
    let fixture = Fixture::new();
    let digest = fixture.put("default", b"{}");
    let settled = || fixture.content.settle(&digest).expect("look");
    assert!(settled());
    flip(&fixture.file(&digest));
    assert!(!settled());
    flip(&fixture.file(&digest));
    assert!(settled());
    let lost = digest.clone();
    let deleted = fixture
        .meta
        .write(move |tx: &mut Tx<'_>| tx.delete(&schema::BLOBS, &lost));
    deleted.expect("delete");
    assert!(!settled());
    assert!(fixture.content.record_again(&digest).expect("recorded"));
    assert!(settled());
    fs::remove_file(fixture.file(&digest)).expect("remove");
    assert!(!settled());
}

/// Whoever wants the blob meanwhile would wait for as long as it is read.
#[test]
fn nothing_is_locked_while_a_damaged_blob_is_read() {
    let fixture = Fixture::new();
    let bytes = large();
    let digest = store(&fixture, &bytes, "web").expect("store");
    flip(&fixture.file(&digest));
    let (mut read, mut others) = (0, 0);
    let flaw = fixture
        .content
        .examine(&digest, Caching::Aside, &mut |got| {
            read += got;
            // It takes the lock that whoever brings the blob takes.
            others += u64::from(fixture.content.open_any(&digest).is_ok());
            true
        });
    assert!(matches!(flaw.expect("examined"), Some(Flaw::Bytes(_))));
    assert_eq!(read, bytes.len() as u64);
    assert!(others > 1);
    // Who brings it while it is read has it read once more, as what it is then.
    let mut again = 0;
    let flaw = fixture.content.examine(&digest, Caching::Kept, &mut |got| {
        if again == 0 {
            store(&fixture, &bytes, "ops").expect("bring");
        }
        again += got;
        true
    });
    assert_eq!(flaw.expect("examined"), None);
    assert_eq!(again, 2 * bytes.len() as u64);
    assert!(fixture.content.is_sound(&digest).expect("look"));
}

#[test]
fn a_damaged_blob_stays_as_it_is_when_nobody_waits_for_it_to_be_mended() {
    let fixture = Fixture::new();
    let digest = store(&fixture, &large(), "web").expect("store");
    flip(&fixture.file(&digest));
    let mended = fixture.content.give_up(&digest, &mut |_| false);
    assert_eq!(mended.expect("stopped"), Mended::Stopped);
    assert!(fixture.file(&digest).exists());
    let mended = fixture.content.give_up(&digest, &mut |_| true);
    assert_eq!(mended.expect("aside"), Mended::Aside);
    assert!(!fixture.file(&digest).exists());
}

#[test]
fn a_file_has_another_mark_when_it_is_another() {
    let fixture = Fixture::new();
    let bytes = large();
    let digest = store(&fixture, &bytes, "web").expect("store");
    let mark = || fixture.content.file_mark(&digest).expect("look");
    let first = mark();
    assert!(first.is_some());
    assert_eq!(mark(), first);
    fixture.content.doubt(&digest);
    assert!(!fixture.content.is_sound(&digest).expect("look"));
    flip(&fixture.file(&digest));
    store(&fixture, &bytes, "web").expect("bring");
    assert!(mark().is_some() && mark() != first);
    assert!(fixture.content.is_sound(&digest).expect("look"));
    fs::remove_file(fixture.file(&digest)).expect("remove");
    assert_eq!(mark(), None);
}
