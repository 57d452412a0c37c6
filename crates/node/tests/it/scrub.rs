//! The store read again in the background: everything, once, in as many goes as it takes; and what it
//! finds is told, kept and healed.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use cairn_node::{Found, ImportRequest, Node, ScrubStatus, Silent, Source};
use cairn_types::Digest;

use crate::{
    common::*,
    fsck::{blob_file, check, flip, parts, settled},
    fsck_trees::{rich, trees},
};

const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// To its end.
#[track_caller]
fn scrub(node: &Node) -> ScrubStatus {
    assert!(node.scrub(0, &|| true).expect("scrubbed"));
    let status = node.scrub_status();
    assert!(!status.is_running && status.under_way.is_none());
    status
}

fn kinds(findings: &[Found]) -> Vec<(&str, &str)> {
    let mut all: Vec<_> = findings
        .iter()
        .map(|one| (one.kind.as_str(), one.name.as_str()))
        .collect();
    all.sort_unstable();
    all
}

/// The key of the snapshot of the upper or the lower layer.
fn key(store: &Store, is_upper: bool) -> String {
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    let one = all.iter().find(|one| one.parent.is_some() == is_upper);
    one.expect("there").key.to_string()
}

#[test]
fn a_whole_store_is_read_once() {
    let layout = rich();
    let store = Store::new();
    assert_eq!(store.node.scrub_due(MONTH), Duration::ZERO);
    store.import(layout.path()).expect("import");
    let bytes = |digest: &String| fs::metadata(layout.blob_path(digest)).expect("blob").len();
    let all: u64 = parts(&layout).iter().map(bytes).sum();
    let status = scrub(&store.node);
    let last = status.last.expect("a pass");
    assert_eq!((last.blobs, last.bytes), (4, all));
    assert_eq!((last.trees, last.unproven), (2, 0));
    assert!(last.began_at > 0 && last.ended_at >= last.began_at);
    assert_eq!(status.findings, []);
    // Of blobs and trees.
    assert!(status.read_bytes > all);
    // The next one has time.
    let due = store.node.scrub_due(MONTH);
    assert!(due > MONTH / 2 && due <= MONTH, "{due:?}");
    assert_eq!(store.node.scrub_due(Duration::ZERO), Duration::ZERO);
    store.node.snapshots().wait_removed();
    assert_eq!(check(&store, true, true).0, [], "and it leaves nothing");
}

#[test]
fn what_is_damaged_is_told_and_healed_by_whoever_brings_it() {
    let layout = rich();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    settled(&store);
    let [_, _, lower, upper] = &parts(&layout)[..] else {
        panic!("two layers")
    };
    flip(&blob_file(&store, upper));
    fs::remove_file(blob_file(&store, lower)).expect("remove");
    let status = scrub(&store.node);
    let expected = [
        ("blob-bytes", upper.as_str()),
        ("blob-missing", lower.as_str()),
    ];
    assert_eq!(kinds(&status.findings), expected);
    for found in &status.findings {
        assert_eq!(found.meaning, "needed by docker.io/shop/rich:1");
        assert!(!found.next.is_empty());
        assert_eq!(found.is_loss, found.kind == "blob-missing");
    }
    // Their trees cannot be proven.
    assert_eq!(status.last.expect("a pass").unproven, 2);
    let digest = Digest::parse(upper).expect("digest");
    assert!(store.node.content().is_doubted(&digest));
    // So a check that reads nothing else names both.
    let mut told: Vec<_> = check(&store, false, false)
        .0
        .into_iter()
        .map(|one| (one.kind, one.name))
        .collect();
    told.sort_unstable();
    let told: Vec<_> = told.iter().map(|(kind, name)| (*kind, &**name)).collect();
    assert_eq!(told, expected);
    store.import(layout.path()).expect("import");
    assert_eq!(store.node.scrub_status().findings, []);
    assert_eq!(check(&store, true, false).0, []);
    assert_eq!(scrub(&store.node).findings, []);
}

#[test]
fn a_damaged_tree_is_told_where_it_is() {
    let layout = rich();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let [lower, upper] = trees(&store);
    // The upper layer has its directory from there, and is not what is damaged.
    let mode = |path: &str, mode| {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(lower.join(path), mode).expect("mode");
    };
    mode("etc", 0o755);
    let status = scrub(&store.node);
    let name = key(&store, false);
    assert_eq!(kinds(&status.findings), [("tree-mode", name.as_str())]);
    let [found] = status.findings.as_slice() else {
        panic!("{:?}", status.findings)
    };
    assert_eq!(found.path.as_deref(), Some("/etc"));
    assert_eq!(found.meaning, "needed by docker.io/shop/rich:1");
    assert_eq!(found.next, ["cairn fsck --deep --repair"]);
    // Who looks at it again sees that it is as it was.
    mode("etc", 0o700);
    assert_eq!(check(&store, false, false).0, []);
    assert_eq!(store.node.scrub_status().findings, []);
    // A check that reads nothing else names it, and mends it.
    let motd = upper.join("etc/motd");
    let at = fs::metadata(&motd).and_then(|meta| meta.modified());
    fs::write(&motd, "WELCOME\n").expect("write");
    let file = fs::File::options().write(true).open(&motd).expect("open");
    file.set_modified(at.expect("time")).expect("time");
    let name = key(&store, true);
    let expected = [("tree-content", name.as_str())];
    assert_eq!(kinds(&scrub(&store.node).findings), expected);
    let (findings, report) = check(&store, false, false);
    assert_eq!((findings.len(), report.trees), (1, 2));
    assert_eq!(findings[0].kind, "tree-content");
    let (findings, _) = check(&store, false, true);
    assert!(findings.iter().all(|one| one.repaired), "{findings:?}");
    assert_eq!(store.node.scrub_status().findings, []);
    let (findings, report) = check(&store, false, false);
    assert_eq!((findings, report.trees), (vec![], 0));
    assert_eq!(check(&store, true, false).0, []);
}

/// Stopped at each place at which it asks whether it is wanted, and gone on with by another process.
#[test]
fn it_goes_on_where_it_was_stopped() {
    let layout = rich();
    let Store { dir, mut node, ns } = Store::new();
    let root = dir.path().join("root");
    let import = |node: &Node| {
        let path = layout.path().to_owned();
        let request = ImportRequest::new(ns.clone(), Source::Path(path));
        node.import(request, &Silent).expect("import");
    };
    import(&node);
    let (mut goes, mut before) = (0, 0);
    // Each go is a little longer, since it takes some time to come to where the last one was.
    loop {
        goes += 1;
        let asked = AtomicU64::new(0);
        let wanted = || asked.fetch_add(1, Ordering::Relaxed) < 12 * goes;
        if node.scrub(0, &wanted).expect("scrubbed") {
            break;
        }
        let status = node.scrub_status();
        let under_way = status.under_way.expect("a pass");
        assert!(under_way.began_at > 0 && under_way.done <= under_way.total);
        assert!(under_way.done >= before, "it does nothing twice");
        assert!(goes < 100, "and comes to an end: {under_way:?}");
        before = under_way.done;
        assert_eq!(node.scrub_due(MONTH), Duration::ZERO);
        drop(node);
        node = open_again(&root);
        assert_eq!(node.scrub_status().under_way, Some(under_way));
    }
    assert!(goes > 2, "{goes}");
    let last = node.scrub_status().last.expect("a pass");
    assert_eq!((last.blobs, last.trees, last.unproven), (4, 2, 0));
    drop(node);
    let node = open_again(&root);
    assert_eq!(node.scrub_status().last, Some(last));
    assert!(node.scrub_due(MONTH) > MONTH / 2);
}

#[test]
fn what_was_found_outlives_the_process() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    settled(&store);
    let layers = parts(&layout).split_off(2);
    for layer in &layers {
        flip(&blob_file(&store, layer));
    }
    let digests: Vec<Digest> = layers
        .iter()
        .map(|layer| Digest::parse(layer).expect("digest"))
        .collect();
    let [first, second] = digests.as_slice() else {
        panic!("two layers")
    };
    let findings = scrub(&store.node).findings;
    assert_eq!(findings.len(), 2);
    // One comes anew meanwhile, from somebody who does not know of this.
    let file = blob_file(&store, &second.to_string());
    let whole = fs::read(layout.blob_path(&second.to_string())).expect("layer");
    let Store { dir, node, .. } = store;
    drop(node);
    fs::remove_file(&file).expect("remove");
    fs::write(&file, whole).expect("write");
    let node = open_again(&dir.path().join("root"));
    assert!(node.content().is_doubted(first));
    assert!(!node.content().is_doubted(second));
    let still = node.scrub_status().findings;
    assert_eq!(kinds(&still), [("blob-bytes", &*first.to_string())]);
    assert!(findings.contains(&still[0]));
    drop(node);
    // What cannot be read costs no opening.
    fs::write(dir.path().join("root/scrub"), "{").expect("damage");
    let node = open_again(&dir.path().join("root"));
    assert_eq!(node.scrub_status(), ScrubStatus::default());
    assert_eq!(scrub(&node).findings.len(), 1);
}

#[test]
fn one_is_enough() {
    let layout = simple();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let asked = AtomicU64::new(0);
    let wanted = || {
        // While this one is asked it is at work.
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            assert!(store.node.scrub_status().is_running);
            assert!(!store.node.scrub(0, &|| true).expect("left to the other"));
        }
        true
    };
    assert!(store.node.scrub(0, &wanted).expect("scrubbed"));
    assert!(!store.node.scrub_status().is_running);
}
