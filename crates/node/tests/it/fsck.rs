//! The store checked: what is damaged by hand is found and named, mended where it can be, and nothing
//! else is found.

use std::{
    fs,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

use cairn_meta::{Import, Origin, Tx, schema};
use cairn_node::{
    EngineKind, Finding, FsckReport, FsckRequest, FsckWatcher, ImportRequest, Severity, Silent,
    Source,
};
use cairn_sys::Dir;
use cairn_types::{Digest, ImageName, Labels, LeaseId, Namespace, SnapshotKey};
use serde_json::Value;

use crate::common::*;

/// Keeps what it hears.
#[derive(Default)]
pub(crate) struct Heard {
    pub(crate) findings: Mutex<Vec<Finding>>,
    told: Mutex<Vec<(&'static str, u64, u64)>>,
}

impl FsckWatcher for Heard {
    fn found(&self, finding: Finding) {
        self.findings.lock().expect("lock").push(finding);
    }

    fn progress(&self, part: &'static str, done: u64, total: u64) {
        self.told.lock().expect("lock").push((part, done, total));
    }
}

pub(crate) fn check(store: &Store, deep: bool, repair: bool) -> (Vec<Finding>, FsckReport) {
    let heard = Heard::default();
    let request = FsckRequest {
        deep,
        repair,
        namespace: None,
    };
    let report = store.node.fsck(request, &heard).expect("checked");
    for (part, done, total) in heard.told.into_inner().expect("lock") {
        assert!(done <= total, "{part}: {done} of {total}");
    }
    (heard.findings.into_inner().expect("lock"), report)
}

/// What is found but notes: of layers that are not here trees are unproven.
fn wrong(store: &Store, deep: bool, repair: bool) -> Vec<Finding> {
    let (mut findings, _) = check(store, deep, repair);
    findings.retain(|one| one.severity != Severity::Note);
    findings
}

/// Kinds and names of that.
fn found(store: &Store, deep: bool) -> Vec<(&'static str, String)> {
    let findings = wrong(store, deep, false);
    findings
        .into_iter()
        .map(|one| (one.kind, one.name))
        .collect()
}

#[track_caller]
fn assert_clean(store: &Store) {
    assert_eq!(wrong(store, true, false), []);
}

pub(crate) fn blob_file(store: &Store, digest: &str) -> PathBuf {
    let blobs = store.node.root().join("content/blobs");
    blobs.join(digest.replace(':', "/"))
}

pub(crate) fn flip(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("mode");
    let first = fs::read(path).expect("read")[0];
    let file = fs::OpenOptions::new().write(true).open(path).expect("open");
    file.write_all_at(&[first ^ 1], 0).expect("write");
}

/// The digests of manifest, configuration and layers.
pub(crate) fn parts(layout: &Layout) -> Vec<String> {
    let manifest = layout.entries[0]["digest"]
        .as_str()
        .expect("digest")
        .to_owned();
    let bytes = fs::read(layout.blob_path(&manifest)).expect("manifest");
    let document: Value = serde_json::from_slice(&bytes).expect("JSON");
    let digest = |part: &Value| part["digest"].as_str().expect("digest").to_owned();
    let mut parts = vec![manifest, digest(&document["config"])];
    parts.extend(
        document["layers"]
            .as_array()
            .expect("layers")
            .iter()
            .map(digest),
    );
    parts
}

fn web() -> ImageName {
    ImageName::parse("docker.io/shop/web:1").expect("name")
}

/// Makes files of small blobs count: their bytes are in the records no more.
pub(crate) fn settled(store: &Store) {
    store.node.content().flush().expect("flush");
}

#[test]
fn a_whole_store_is_clean() {
    let store = Store::new();
    let (findings, report) = check(&store, true, false);
    assert_eq!((findings, report.blobs, report.images), (vec![], 0, 0));
    let layout = simple();
    store.import(layout.path()).expect("import");
    let bytes = |digest: &String| fs::metadata(layout.blob_path(digest)).expect("blob").len();
    let all: u64 = parts(&layout).iter().map(bytes).sum();
    for repair in [false, true] {
        let (findings, report) = check(&store, true, repair);
        assert_eq!(findings, []);
        assert_eq!((report.blobs, report.snapshots, report.images), (4, 2, 1));
        assert_eq!(report.bytes, all);
        let (findings, report) = check(&store, false, repair);
        assert_eq!((findings, report.bytes), (vec![], 0));
    }
}

#[test]
fn flipped_bits_and_missing_files_are_named_and_mended_by_an_import() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    settled(&store);
    for (number, digest) in parts(&layout).into_iter().enumerate() {
        let file = blob_file(&store, &digest);
        flip(&file);
        // Documents are read in any case.
        let is_document = number < 2;
        assert_eq!(!found(&store, false).is_empty(), is_document);
        // As are those that somebody has come by.
        let blob = Digest::parse(&digest).expect("digest");
        let mut blob = store.node.content().open_any(&blob).expect("open");
        std::io::copy(&mut blob, &mut std::io::sink()).expect_err("damaged");
        assert_eq!(found(&store, false), [("blob-bytes", digest.clone())]);
        let findings = wrong(&store, true, false);
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert_eq!((finding.kind, &finding.name), ("blob-bytes", &digest));
        assert_eq!(finding.severity, Severity::Damage);
        assert!(finding.detail.starts_with("its bytes hash to sha256:"));
        // Whose layers they are a manifest that cannot be read does not say.
        assert_eq!(finding.meaning, "needed by docker.io/shop/web:1");
        assert!(!finding.repaired && finding.action.is_empty());

        // Its file goes, so that nobody is given it, and nothing else does.
        let findings = wrong(&store, true, true);
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert_eq!(
            (finding.kind, finding.severity),
            ("blob-bytes", Severity::Loss)
        );
        assert!(!finding.repaired);
        assert_eq!(finding.next[0], "cairn images pull docker.io/shop/web:1");
        assert!(!file.exists());
        assert_eq!(found(&store, true), [("blob-missing", digest.clone())]);
        store.node.gc(false).expect("gc");
        assert_eq!(found(&store, true), [("blob-missing", digest.clone())]);
        store.import(layout.path()).expect("import");
        settled(&store);
        assert_clean(&store);

        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("mode");
        fs::write(&file, b"cut").expect("write");
        assert_eq!(found(&store, false), [("blob-length", digest.clone())]);
        fs::remove_file(&file).expect("remove");
        assert_eq!(found(&store, false), [("blob-missing", digest.clone())]);
        store.import(layout.path()).expect("import");
        settled(&store);
        assert_clean(&store);
    }
}

#[test]
fn one_namespace_is_checked_alone() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let (own, other) = (
        numbered(1, "shop/own:1"),
        Namespace::parse("other").expect("name"),
    );
    let request = ImportRequest::new(other.clone(), Source::Path(own.path().to_owned()));
    store.node.import(request, &Silent).expect("import");
    settled(&store);
    let layers = parts(&own);
    let found_in = |ns: &Namespace| {
        let heard = Heard::default();
        let request = FsckRequest {
            deep: true,
            repair: false,
            namespace: Some(ns.clone()),
        };
        let report = store.node.fsck(request, &heard).expect("checked");
        let findings = heard.findings.into_inner().expect("lock").into_iter();
        let wrong = findings.filter(|one| one.severity != Severity::Note);
        let names: Vec<String> = wrong.map(|one| one.name).collect();
        (names, report.blobs, report.snapshots, report.images)
    };
    assert_eq!(found_in(&store.ns), (vec![], 4, 2, 1));
    assert_eq!(found_in(&other), (vec![], 5, 3, 1));
    // Of one that both have both hear, and of one's own nobody else.
    flip(&blob_file(&store, &layers[4]));
    assert_eq!(found_in(&store.ns), (vec![], 4, 2, 1));
    assert_eq!(found_in(&other).0, [layers[4].clone()]);
    flip(&blob_file(&store, &layers[2]));
    assert_eq!(found_in(&store.ns).0, [layers[2].clone()]);
    let mut both = [layers[2].clone(), layers[4].clone()];
    both.sort();
    assert_eq!(found_in(&other).0, both);
}

#[test]
fn a_small_blob_that_the_records_have_is_mended_from_there() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let manifest = &parts(&layout)[0];
    flip(&blob_file(&store, manifest));
    let (findings, _) = check(&store, true, true);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!((finding.kind, finding.repaired), ("blob-bytes", true));
    assert_clean(&store);
}

#[test]
fn lost_records_are_found_and_written_again() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let meta = store.node.meta();
    // A blob's.
    let digest = Digest::parse(&parts(&layout)[2]).expect("digest");
    let lost = digest.clone();
    let deleted = meta.write(move |tx: &mut Tx<'_>| tx.delete(&schema::BLOBS, &lost));
    deleted.expect("delete");
    let all = found(&store, true);
    assert_eq!(all, [("blob-unrecorded", digest.to_string())]);
    let (findings, _) = check(&store, true, true);
    assert!(findings.iter().all(|one| one.repaired), "{findings:?}");
    assert_clean(&store);
    // A child's name, and one too many.
    let snapshots = store.node.snapshots().list(&store.ns).expect("snapshots");
    let child = snapshots
        .iter()
        .find(|one| one.parent.is_some())
        .expect("a child");
    let parent = child.parent.clone().expect("a parent");
    let stranger = SnapshotKey::parse("stranger").expect("key");
    let right = (store.ns.clone(), parent.clone(), child.key.clone());
    let wrong = (store.ns.clone(), parent.clone(), stranger);
    let change = meta.write(move |tx: &mut Tx<'_>| {
        tx.delete(&schema::CHILDREN, &right)?;
        tx.put(&schema::CHILDREN, &wrong, &())
    });
    change.expect("change");
    let expected = [
        ("snapshot-child", child.key.to_string()),
        ("snapshot-child", parent.to_string()),
    ];
    assert_eq!(found(&store, false), expected);
    let (findings, _) = check(&store, false, true);
    assert!(findings.iter().all(|one| one.repaired), "{findings:?}");
    assert_clean(&store);
}

#[test]
fn what_is_missing_of_images_is_told_and_what_is_left_out_on_purpose_is_not() {
    let layout = simple();
    let store = Store::new();
    // Without the packed layers.
    let discarded = store.import_with(
        cairn_node::Source::Path(layout.path().to_owned()),
        |request| {
            request.discard = true;
        },
    );
    discarded.expect("import");
    assert_clean(&store);
    let store = Store::new();
    store.import(layout.path()).expect("import");
    // Unpacked it needs them no more, and packed it does.
    let layer = Digest::parse(&parts(&layout)[2]).expect("digest");
    store.node.remove_blob(&store.ns, &layer).expect("remove");
    assert_clean(&store);
    for info in store.node.snapshots().list(&store.ns).expect("snapshots") {
        let _ = store.node.remove_snapshot(&store.ns, &info.key, true);
    }
    let findings = wrong(&store, true, true);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(
        (finding.kind, &*finding.name),
        ("image-part", web().as_str())
    );
    assert_eq!(
        finding.detail,
        format!("a layer of it, {layer}, is missing")
    );
    store.import(layout.path()).expect("import");
    assert_clean(&store);
    let manifest = Digest::parse(&parts(&layout)[0]).expect("digest");
    store
        .node
        .remove_blob(&store.ns, &manifest)
        .expect("remove");
    assert_eq!(found(&store, false), [("image-part", web().to_string())]);
}

#[test]
fn what_no_record_speaks_of_is_litter() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let root = store.node.root().to_owned();
    let file = root.join("content/blobs/sha256").join("0".repeat(64));
    fs::write(&file, b"x").expect("write");
    let directory = root.join("snapshots/left");
    fs::create_dir_all(directory.join("fs/etc")).expect("directory");
    let (findings, _) = check(&store, false, false);
    let litter: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, one.kind))
        .collect();
    let expected = [
        (Severity::Litter, "file-unrecorded"),
        (Severity::Litter, "directory-unrecorded"),
    ];
    assert_eq!(litter, expected);
    let (findings, _) = check(&store, false, true);
    assert!(findings.len() == 2 && findings.iter().all(|one| one.repaired));
    assert!(!file.exists() && !directory.exists());
    assert_clean(&store);
}

#[test]
fn a_missing_directory_of_a_snapshot_is_named() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    let lost = &all[0];
    let directory = store.node.root().join(format!("snapshots/{}", lost.id));
    fs::remove_dir_all(directory.join("fs")).expect("remove");
    let (findings, _) = check(&store, false, false);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!(
        (finding.kind, &finding.name),
        ("snapshot-missing", &lost.key.to_string())
    );
    let place = format!("snapshots/{}/fs", lost.id);
    assert_eq!(finding.path.as_deref(), Some(&*place));
    assert_eq!(finding.meaning, "needed by docker.io/shop/web:1");
    store.import(layout.path()).expect("import");
    assert_clean(&store);
}

#[test]
fn leases_may_hold_what_is_not_here_and_not_be_gone_themselves() {
    let store = Store::new();
    let id = LeaseId::parse("build").expect("id");
    let hold = |ns: &Namespace, id: &LeaseId| {
        (
            ns.clone(),
            id.clone(),
            "content".to_owned(),
            Digest::sha256(b"x").to_string(),
        )
    };
    let record = cairn_meta::LeaseRecord {
        labels: Labels::new(),
        created_at: cairn_meta::Timestamp::now(),
    };
    let (key, resource) = ((store.ns.clone(), id.clone()), hold(&store.ns, &id));
    let gone = hold(&store.ns, &LeaseId::parse("gone").expect("id"));
    let written = store.node.meta().write(move |tx: &mut Tx<'_>| {
        tx.put(&schema::LEASES, &key, &record)?;
        tx.put(&schema::LEASE_RESOURCES, &gone, &())?;
        tx.put(&schema::LEASE_RESOURCES, &resource, &())
    });
    written.expect("write");
    let (findings, _) = check(&store, false, true);
    let mut seen: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, &*one.name, one.repaired))
        .collect();
    seen.sort();
    let expected = [
        (Severity::Litter, "gone", true),
        (Severity::Note, "build", false),
    ];
    assert_eq!(seen, expected);
    let (findings, _) = check(&store, false, false);
    assert_eq!(findings.len(), 1);
}

/// The store opened again with bytes that are no record in the place of the one whose line begins so.
pub(crate) fn damaged(store: Store, begin: &str) -> Store {
    let origin = Origin {
        layout: 1,
        written_by: "a test".to_owned(),
        engine: store.node.meta().engine().to_owned(),
        uuid: None,
    };
    let mut lines = Vec::new();
    store
        .node
        .meta()
        .export(&origin, &mut lines)
        .expect("export");
    let lines = String::from_utf8(lines).expect("text");
    let lines = lines
        .lines()
        .filter(|line| !line.starts_with("{\"records\""));
    let (mut out, mut count, mut hit) = (String::new(), 0, 0);
    for line in lines {
        let is_it = line.starts_with(begin);
        hit += usize::from(is_it);
        match is_it {
            true => out.push_str(&format!("{begin}\"bytes\":\"00\"}}\n")),
            false => out.push_str(&format!("{line}\n")),
        }
        count += 1;
    }
    assert_eq!(hit, 1, "{begin}");
    let (records, digest) = (count - 1, Digest::sha256(out.as_bytes()));
    out.push_str(&format!(
        "{{\"records\":{records},\"digest\":\"{digest}\"}}\n"
    ));
    let Store { dir, node, ns } = store;
    let root = node.root().to_owned();
    drop(node);
    // Whoever has it open still is gone soon.
    drop(open_again(&root));
    let records = Dir::open(&root.join("meta")).expect("records");
    let mut input = out.as_bytes();
    let import = Import::begin(&mut input).expect("begin");
    import
        .into_records(&records, EngineKind::Redb, true)
        .expect("import");
    let node = open_again(&root);
    Store { dir, node, ns }
}

/// It alone says what it stands on, and a container may have that mounted.
#[test]
fn the_record_of_a_layer_under_others_is_left() {
    let layout = simple();
    let mut store = Store::new();
    store.import(layout.path()).expect("import");
    settled(&store);
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    let top = all.iter().find(|one| one.parent.is_some()).expect("top");
    let bottom = top.parent.clone().expect("parent");
    let begin = format!("{{\"table\":\"snapshot\",\"key\":[\"default\",\"{bottom}\"],");
    store = damaged(store, &begin);
    let (findings, _) = check(&store, false, true);
    let left = findings
        .iter()
        .find(|one| one.kind == "record-damaged")
        .expect("found");
    assert!(!left.repaired, "{findings:?}");
    assert!(left.action.contains("others stand on it"), "{left:?}");
    // Nor is anything collected while it may be the one that holds it.
    let _ = store.node.gc(false);
    let trees = store.node.root().join("snapshots");
    for one in &all {
        assert!(trees.join(one.id.to_string()).exists(), "{}", one.key);
    }
}

#[test]
fn damaged_records_are_named_and_written_again_where_something_knows_them() {
    let layout = simple();
    let mut store = Store::new();
    store.import(layout.path()).expect("import");
    settled(&store);
    let layer = parts(&layout)[2].clone();
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    let top = all
        .iter()
        .find(|one| one.parent.is_some())
        .expect("top")
        .clone();
    let bottom = top.parent.clone().expect("parent");
    for (begin, name) in [
        (
            format!("{{\"table\":\"blob\",\"key\":[\"{layer}\"],"),
            format!("blob {layer}"),
        ),
        (
            format!(
                "{{\"table\":\"snapshot\",\"key\":[\"default\",\"{}\"],",
                top.key
            ),
            format!("snapshot default {}", top.key),
        ),
        (
            format!(
                "{{\"table\":\"child\",\"key\":[\"default\",\"{bottom}\",\"{}\"],",
                top.key
            ),
            format!("child default {bottom} {}", top.key),
        ),
    ] {
        store = damaged(store, &begin);
        // What it may have spoken of is no litter.
        assert_eq!(found(&store, false), [("record-damaged", name.clone())]);
        let (findings, _) = check(&store, false, true);
        assert!(findings.iter().all(|one| one.repaired), "{findings:?}");
        let (findings, _) = check(&store, true, true);
        let left = findings
            .iter()
            .filter(|one| one.kind != "directory-unrecorded");
        assert_eq!(left.count(), 0, "{name}: {findings:?}");
        assert_clean(&store);
        store.import(layout.path()).expect("import");
        assert_clean(&store);
    }
    // Of an image nothing but its name is left, and who brings it says what it is.
    let begin = format!("{{\"table\":\"image\",\"key\":[\"default\",\"{}\"],", web());
    store = damaged(store, &begin);
    let (findings, _) = check(&store, false, true);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert_eq!((finding.kind, finding.repaired), ("record-damaged", false));
    store.import(layout.path()).expect("import");
    assert_clean(&store);
}
