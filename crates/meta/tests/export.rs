//! Records out of a store and into another one: exactly, wholly, or not at all.

#![allow(missing_docs)]

mod common;

use std::{collections::BTreeMap, ffi::OsStr, fs, path::Path};

use cairn_meta::{
    BlobLink, BlobRecord, BundleRecord, ContainerRecord, EngineKind, Error, Exported, ImageRecord,
    Import, IngestRecord, NamespaceRecord, Origin, Replaced, SnapshotRecord, Store, Timestamp, Tx,
    schema,
};
use cairn_sys::Dir;
use cairn_types::{
    Classified, Descriptor, DiffId, Digest, ErrorKind, ImageName, IngestRef, LayerTiming, LeaseId,
    Namespace, SnapshotKey, SnapshotKind, Usage,
};
use common::{ENGINES, key, listed, ns, open, put, record};
use tempfile::TempDir;

fn origin() -> Origin {
    Origin {
        layout: 1,
        written_by: "a test".to_owned(),
        engine: "any".to_owned(),
        uuid: None,
    }
}

fn temp() -> TempDir {
    tempfile::tempdir().expect("temporary directory")
}

fn export(store: &Store) -> (Vec<u8>, Exported) {
    let mut lines = Vec::new();
    let exported = store.export(&origin(), &mut lines).expect("export");
    (lines, exported)
}

fn import(path: &Path, kind: EngineKind, replace: bool, lines: &[u8]) -> Result<Replaced, Error> {
    let dir = Dir::open(path).expect("open");
    let mut lines = lines;
    Import::begin(&mut lines)?.into_records(&dir, kind, replace)
}

/// The names in a directory, without the room that is kept.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("directory");
    let names = entries.map(|entry| entry.expect("entry").file_name());
    let mut names: Vec<String> = names
        .map(|name| name.into_string().expect("text"))
        .collect();
    names.retain(|name| name != "reserve");
    names.sort();
    names
}

/// What a name may be made of.
const ODD: &str = "\u{1}\"\\\u{7f}ä \u{2028}\n";

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        (String::new(), ODD.to_owned()),
        ("a\0b".to_owned(), "\0".to_owned()),
    ])
}

fn fill_objects(tx: &mut Tx<'_>) -> Result<(), Error> {
    let digest = Digest::sha256(b"x");
    let snapshot = SnapshotKey::parse("sha256:top").expect("key");
    let (created_at, updated_at) = (Timestamp(i64::MIN), Timestamp(i64::MAX));
    let labels = labels();
    tx.put(
        &schema::BLOBS,
        &digest,
        &BlobRecord {
            size: u64::MAX,
            created_at,
        },
    )?;
    let link = BlobLink {
        labels: labels.clone(),
        created_at,
        updated_at,
    };
    tx.put(&schema::BLOB_LINKS, &(ns("a"), digest.clone()), &link)?;
    let upload = IngestRecord {
        id: 7,
        expected: Some(digest.clone()),
        total: 9,
        started_at: created_at,
        updated_at,
        leased: true,
    };
    let reference = IngestRef::parse("ref").expect("reference");
    tx.put(&schema::INGESTS, &(ns("a"), reference), &upload)?;
    let committed = SnapshotRecord {
        id: 3,
        kind: SnapshotKind::Committed,
        parent: Some(SnapshotKey::parse("below").expect("key")),
        labels,
        created_at,
        updated_at,
        usage: Usage {
            bytes: 1,
            inodes: 2,
        },
        durable: true,
        boot_id: "boot".to_owned(),
        diff_id: Some(DiffId::new(digest.clone())),
        blob: Some(digest),
        timing: Some(LayerTiming::default()),
    };
    let place = (ns("a"), snapshot.clone());
    tx.put(&schema::SNAPSHOTS, &place, &committed)?;
    let child = (ns("a"), snapshot.clone(), snapshot);
    tx.put(&schema::CHILDREN, &child, &())?;
    tx.next_id("snapshots").map(drop)
}

fn fill_others(tx: &mut Tx<'_>) -> Result<(), Error> {
    let digest = Digest::sha256(b"x");
    let image = ImageName::parse("docker.io/library/a:1").expect("name");
    let labels = labels();
    let (created_at, updated_at) = (Timestamp(1), Timestamp(-1));
    let known = NamespaceRecord {
        labels: labels.clone(),
    };
    tx.put(&schema::NAMESPACES, &ns("a"), &known)?;
    let mut target = Descriptor::new("text/plain".to_owned(), digest.clone(), 5);
    target.annotations = labels.clone();
    let named = ImageRecord {
        target,
        labels: labels.clone(),
        created_at,
        updated_at,
    };
    tx.put(&schema::IMAGES, &(ns("a"), image.clone()), &named)?;
    tx.put(&schema::LEASES, &key(1), &record(-5))?;
    let lease = LeaseId::parse("l").expect("lease");
    let held = (ns("a"), lease, ODD.to_owned(), String::new());
    tx.put(&schema::LEASE_RESOURCES, &held, &())?;
    let bundle = BundleRecord {
        namespace: ns("a"),
        image,
        manifest: digest,
        snapshot: SnapshotKey::parse("k").expect("key"),
        platform: "linux/amd64".to_owned(),
        created_at,
        made: true,
        copied: true,
    };
    tx.put(&schema::BUNDLES, &format!("/run/{ODD}"), &bundle)?;
    let container = ContainerRecord {
        labels,
        snapshotter: "overlayfs".to_owned(),
        snapshot_key: ODD.to_owned(),
        image: String::new(),
        document: (0..=255).collect(),
        created_at,
        updated_at,
    };
    tx.put(&schema::CONTAINERS, &(ns("a"), ODD.to_owned()), &container)
}

/// One record of every table, and with what is hard to write as text.
fn fill(store: &Store) {
    let filled = store.write(|tx: &mut Tx<'_>| fill_objects(tx).and_then(|()| fill_others(tx)));
    filled.expect("write");
}

fn body(lines: &[u8]) -> Vec<&str> {
    let text = std::str::from_utf8(lines).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    lines[1..lines.len() - 1].to_vec()
}

#[test]
fn every_kind_of_record_goes_around_through_both_engines() {
    let here = temp();
    let store = open(here.path(), EngineKind::Redb);
    fill(&store);
    // More than are looked at, or written, at once.
    (0..3000_i64).for_each(|n| {
        let lease = LeaseId::parse(&format!("many-{n}")).expect("lease");
        let change = move |tx: &mut Tx<'_>| tx.put(&schema::LEASES, &(ns("b"), lease), &record(n));
        store.note::<_, Error, _>(change).expect("write");
    });
    let (first, exported) = export(&store);
    let damaged = Vec::new();
    assert_eq!(
        exported,
        Exported {
            records: 3012,
            damaged
        }
    );
    // All of them can be read by people.
    assert!(body(&first).iter().all(|line| line.contains("\"record\":")));
    let tables: std::collections::BTreeSet<&str> = body(&first)
        .iter()
        .map(|line| line.split('"').nth(3).expect("a table"))
        .collect();
    assert_eq!(tables.len(), 12, "{tables:?}");
    let mut lines = first.clone();
    for kind in [EngineKind::Sled, EngineKind::Redb] {
        let there = temp();
        let replaced = import(there.path(), kind, false, &lines).expect("import");
        assert_eq!((replaced.records, replaced.backup), (3012, None));
        assert_eq!(names(there.path()), [kind.name()]);
        let store = open(there.path(), kind);
        lines = export(&store).0;
        assert_eq!(lines, first, "{kind:?}");
        // And it is a store like any other.
        put(&store, 1, 7);
        drop(store);
        assert_eq!(listed(&open(there.path(), kind), &ns("ab"))[0].1, 7);
    }
}

#[test]
fn what_does_not_prove_itself_stays_as_it_is() {
    // As a file, since no store writes such things.
    let rows = concat!(
        r#"{"table":"lease","key":["a","l"],"bytes":"0102"}"#,
        "\n",
        r#"{"table":"unknown","key_bytes":"c8ff00fe","bytes":"00"}"#,
        "\n",
        r#"{"table":"child","key_bytes":"07ff","bytes":""}"#,
        "\n",
    );
    let head = "{\"format\":\"cairn-records\",\"version\":1,\"layout\":1,\"written_by\":\"a test\",\
                \"engine\":\"any\",\"uuid\":null}\n";
    let text = format!("{head}{rows}");
    let digest = Digest::sha256(text.as_bytes());
    let text = format!("{text}{{\"records\":3,\"digest\":\"{digest}\"}}\n");
    for kind in ENGINES {
        let there = temp();
        import(there.path(), kind, false, text.as_bytes()).expect("import");
        let (lines, exported) = export(&open(there.path(), kind));
        let mut expected: Vec<&str> = rows.lines().collect();
        // By their keys.
        expected.swap(0, 2);
        expected.swap(1, 2);
        assert_eq!(body(&lines), expected);
        assert_eq!(exported.damaged.len(), 3);
        assert!(exported.damaged[1].contains("lease a l"), "{exported:?}");
    }
}

/// A store with one record, and an export of others.
fn occupied(kind: EngineKind) -> (TempDir, Vec<u8>) {
    let (here, there) = (temp(), temp());
    let store = open(here.path(), kind);
    fill(&store);
    let (lines, _) = export(&store);
    put(&open(there.path(), kind), 4, 44);
    (there, lines)
}

#[test]
fn records_give_way_only_when_told_to() {
    for kind in ENGINES {
        let (there, lines) = occupied(kind);
        let err = import(there.path(), kind, false, &lines).expect_err("occupied");
        assert_eq!(err.kind(), ErrorKind::FailedPrecondition);
        assert_eq!(names(there.path()), [kind.name()]);
        assert_eq!(listed(&open(there.path(), kind), &ns("a"))[0].1, 44);
        for number in 1..3 {
            let replaced = import(there.path(), kind, true, &lines).expect("import");
            let backup = format!("backup-{number}.{}", kind.name());
            assert_eq!(replaced.backup, Some(backup));
        }
        assert_eq!(export(&open(there.path(), kind)).0, lines);
        // The backup is what was there, its journal included.
        let dir = Dir::open(there.path()).expect("open");
        let (name, backup) = (kind.name(), format!("backup-1.{}", kind.name()));
        dir.remove_tree(OsStr::new(name)).expect("remove");
        let renamed = dir.rename(OsStr::new(&backup), &dir, OsStr::new(name));
        renamed.expect("rename");
        assert_eq!(listed(&open(there.path(), kind), &ns("a"))[0].1, 44);
    }
}

/// An export is what damaged records are made anew from, so nobody has to be able to read them.
#[test]
fn damaged_records_give_way() {
    let (there, lines) = occupied(EngineKind::Redb);
    let damaged = there.path().join("redb/records.redb");
    fs::write(&damaged, "nothing of the kind").expect("write");
    let err = import(there.path(), EngineKind::Redb, false, &lines).expect_err("damaged");
    assert_eq!(err.kind(), ErrorKind::DataLoss, "{err}");
    import(there.path(), EngineKind::Redb, true, &lines).expect("import");
    assert_eq!(export(&open(there.path(), EngineKind::Redb)).0, lines);
    let kept = there.path().join("backup-1.redb/records.redb");
    assert_eq!(fs::read(kept).expect("read"), b"nothing of the kind");
}

#[test]
fn an_empty_store_needs_no_leave() {
    let (_, lines) = occupied(EngineKind::Redb);
    let there = temp();
    drop(open(there.path(), EngineKind::Redb));
    let replaced = import(there.path(), EngineKind::Sled, false, &lines).expect("import");
    assert_eq!(replaced.backup, None);
    assert_eq!(names(there.path()), ["sled"]);
}

/// However an export was cut or changed, and whatever was written of it already, nothing happens.
#[test]
fn a_cut_or_damaged_export_changes_nothing() {
    let (there, lines) = occupied(EngineKind::Redb);
    let refused = |lines: &[u8], reason: &str| {
        let err = import(there.path(), EngineKind::Redb, true, lines).expect_err(reason);
        assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{err}");
        assert!(err.to_string().contains(reason), "{err}");
        assert_eq!(names(there.path()), ["redb"]);
    };
    let text = String::from_utf8(lines.clone()).expect("text");
    let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
    refused(b"", "line 1: the export is cut off here");
    for pair in ends.windows(2) {
        refused(&lines[..pair[0]], "the export is cut off here");
        refused(&lines[..pair[1] - 1], "the export is cut off here");
    }
    let without = |nth: usize| [&lines[..ends[nth - 1]], &lines[ends[nth]..]].concat();
    refused(&without(3), "12 records were written, 11 are here");
    let twice = [
        &lines[..ends[3]],
        &lines[ends[2]..ends[3]],
        &lines[ends[4]..],
    ]
    .concat();
    refused(&twice, "the digest of the lines before is another one");
    let changed = text.replace("linux/amd64", "linux/arm64");
    refused(
        changed.as_bytes(),
        "the digest of the lines before is another one",
    );
    refused(
        &[&lines[..], b"\n"].concat(),
        "something follows on the last line",
    );
    let torn = text.replacen("{\"table\":\"image\"", "{\"table\":\"imago\"", 1);
    refused(torn.as_bytes(), "no table \"imago\" is known");
    let extra = text.replacen("\"record\":{", "\"record\":{\"no\":1,", 1);
    refused(extra.as_bytes(), "line 2: unknown field `no`");
    refused(b"{}\n", "line 1: this is no export of records");
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    refused(
        newer.as_bytes(),
        "version 2 of the format is not known, only 1 is",
    );
    assert_eq!(
        listed(&open(there.path(), EngineKind::Redb), &ns("a"))[0].1,
        44
    );
}

#[test]
fn what_an_engine_cannot_keep_is_refused() {
    let (here, there) = (temp(), temp());
    let store = open(here.path(), EngineKind::Redb);
    let large = ContainerRecord {
        document: vec![1; 40 << 10],
        ..ContainerRecord::default()
    };
    let place: (Namespace, String) = (ns("a"), "large".to_owned());
    let change = move |tx: &mut Tx<'_>| tx.put(&schema::CONTAINERS, &place, &large);
    store.write::<_, Error, _>(change).expect("write");
    let (lines, _) = export(&store);
    let err = import(there.path(), EngineKind::Sled, false, &lines).expect_err("too large");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted);
    assert!(err.to_string().contains("container a large"), "{err}");
    assert_eq!(names(there.path()), [""; 0]);
    import(there.path(), EngineKind::Redb, false, &lines).expect("import");
}

/// Every state between two system calls of an import, as a crash would leave it.
#[test]
fn a_crash_leaves_the_old_records_or_the_new() {
    for (from, to) in [
        (EngineKind::Redb, EngineKind::Redb),
        (EngineKind::Redb, EngineKind::Sled),
        (EngineKind::Sled, EngineKind::Redb),
    ] {
        let made = temp();
        let (_, lines) = occupied(from);
        import(made.path(), to, false, &lines).expect("import");
        let new = made.path().join(to.name());
        // Undecided: half of one, which is thrown away.
        let (there, _) = occupied(from);
        fs::create_dir(there.path().join("import.tmp")).expect("directory");
        fs::write(there.path().join("import.tmp/records.redb"), "half").expect("file");
        assert_eq!(listed(&open(there.path(), from), &ns("a"))[0].1, 44);
        assert_eq!(names(there.path()), [from.name()]);
        // Decided, with the old records in their place; and with the old ones put by.
        for put_by in [false, true] {
            let (there, _) = occupied(from);
            let at = |name: &str| there.path().join(name);
            copy(&new, &at(&format!("imported.{}", to.name())));
            let backup = format!("backup-1.{}", from.name());
            if put_by {
                fs::rename(at(from.name()), at(&backup)).expect("rename");
            }
            let kept = Store::kept(&Dir::open(there.path()).expect("open"));
            assert_eq!(kept.expect("look"), Some(to));
            assert_eq!(export(&open(there.path(), to)).0, lines);
            assert_eq!(names(there.path()), [&*backup, to.name()]);
            assert_eq!(export(&open(there.path(), to)).0, lines);
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .args([from, to])
        .status();
    assert!(status.expect("cp").success());
}
