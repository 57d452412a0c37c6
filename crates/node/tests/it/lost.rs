//! Records destroyed by hand: the store opens, whatever is left, and removes nothing for want of them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use cairn_meta::EngineKind;
use cairn_node::Severity;
use cairn_sys::Dir;
use cairn_types::{ImageName, Namespace};

use crate::{common::*, fsck::check};

fn web() -> ImageName {
    ImageName::parse("docker.io/shop/web:1").expect("name")
}

fn recovered() -> Namespace {
    Namespace::parse("recovered").expect("namespace")
}

/// As after the process has ended, something was done to its files, and it has begun again.
fn reopened(store: Store, change: impl FnOnce(&Path)) -> Store {
    let Store { dir, node, ns } = store;
    let root = node.root().to_owned();
    drop(node);
    change(&root);
    let node = open_again(&root);
    Store { dir, node, ns }
}

fn engine(root: &Path) -> PathBuf {
    root.join("meta/redb/records.redb")
}

/// Leaves nothing of any file of the records.
fn destroy(root: &Path) {
    for entry in fs::read_dir(root.join("meta/redb")).expect("list") {
        fs::write(entry.expect("entry").path(), "destroyed").expect("write");
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).expect("list");
    let names = entries.map(|entry| entry.expect("entry").file_name());
    names
        .map(|name| name.into_string().expect("UTF-8"))
        .filter(|name| name != "trash")
        .collect()
}

/// The only directory below `lost`.
fn lost(store: &Store) -> PathBuf {
    let lost = store.node.root().join("lost");
    let names = names(&lost);
    assert_eq!(names.len(), 1, "{names:?}");
    lost.join(names.first().expect("one"))
}

#[test]
fn a_damaged_database_costs_no_image() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let before = store.node.images(&store.ns).expect("images");
    let files = names(&store.node.root().join("content/blobs/sha256"));
    let trees = names(&store.node.root().join("snapshots"));
    let store = reopened(store, |root| {
        fs::write(engine(root), "nothing of the kind").expect("write");
    });
    assert_eq!(store.node.images(&store.ns).expect("images"), before);
    let root = store.node.root();
    assert_eq!(names(&root.join("content/blobs/sha256")), files);
    assert_eq!(names(&root.join("snapshots")), trees);
    assert!(!root.join("lost").exists());
    let told = store.node.state().expect("state").rebuilt.expect("told");
    assert!(told.contains("nothing is lost"), "{told}");
    let (findings, _) = check(&store, true, false);
    let kinds: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, one.kind))
        .collect();
    assert_eq!(kinds, [(Severity::Note, "records-rebuilt")], "{findings:?}");
    // Once nobody wants it any more it is told of no longer.
    let aside = store.node.rebuilt().expect("told").aside;
    fs::remove_dir_all(root.join("meta").join(&aside[0])).expect("remove");
    assert_eq!(store.node.state().expect("state").rebuilt, None);
    assert_eq!(check(&store, false, false).0, []);
}

/// Nothing is known any more: what is on the disk stays there, and is found.
#[test]
fn without_any_record_nothing_is_removed() {
    let gone: [fn(&Path); 3] = [
        destroy,
        |root| fs::remove_dir_all(root.join("meta")).expect("remove"),
        |root| {
            destroy(root);
            // The process ends when the records are made anew and before anybody has looked for more.
            let dir = Dir::open(&root.join("meta")).expect("open");
            drop(cairn_meta::Store::open(&dir, EngineKind::Redb).expect("records"));
        },
    ];
    for gone in gone {
        let store = Store::new();
        store.import(simple().path()).expect("import");
        let root = store.node.root().to_owned();
        let (blobs, snapshots) = (root.join("content/blobs/sha256"), root.join("snapshots"));
        let (files, trees) = (names(&blobs), names(&snapshots));
        assert!(!files.is_empty() && !trees.is_empty());
        fs::write(root.join("content/ingest/77"), "half").expect("upload");

        let store = reopened(store, gone);
        assert_eq!(store.node.images(&store.ns).expect("images"), []);
        assert_eq!(names(&blobs), files);
        assert_eq!(names(&lost(&store).join("snapshots")), trees);
        let upload = lost(&store).join("ingest/77");
        assert_eq!(fs::read(upload).expect("kept"), b"half");
        let content = store.node.content();
        let seen = content.list(&recovered()).expect("list");
        assert_eq!(seen.len(), files.len());
        for blob in &seen {
            let bytes = content.read_all(&recovered(), &blob.digest, 1 << 20);
            assert_eq!(bytes.expect("proven").len() as u64, blob.size);
            // Nobody has vouched for it yet.
            assert!(!content.is_sound(&blob.digest).expect("look"));
        }
        let told = store.node.state().expect("state").rebuilt.expect("told");
        let found = format!("{} blobs of ", files.len());
        assert!(told.contains("lost: ") && told.contains(&found), "{told}");

        // Neither the next opening nor a collection takes them.
        let store = reopened(store, |_| ());
        store.node.gc(false).expect("collect");
        assert_eq!(names(&blobs), files);
        let content = store.node.content();
        assert!(!content.is_sound(&seen[0].digest).expect("look"));

        // A check reads them all, and from then on they are as good as any.
        let (findings, _) = check(&store, true, false);
        let kinds: Vec<_> = findings
            .iter()
            .map(|one| (one.severity, one.kind))
            .collect();
        assert_eq!(kinds, [(Severity::Loss, "records-rebuilt")], "{findings:?}");
        assert!(content.unread(&recovered()).expect("list").is_empty());
        let store = reopened(store, |_| ());
        let content = store.node.content();
        for blob in &seen {
            assert!(content.is_sound(&blob.digest).expect("look"));
        }

        store.import(simple().path()).expect("import again");
        assert!(store.node.image(&store.ns, &web()).expect("image").complete);
        assert!(names(&snapshots).is_disjoint(&trees), "a number comes back");
        assert_eq!(names(&blobs), files);
    }
}

/// A file that is not what its name says is recorded like the others, and found by whoever reads it.
#[test]
fn a_blob_without_record_is_not_believed() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let file = store.node.root().join("content/blobs/sha256");
    let wrong = file.join(names(&file).first().expect("a blob"));
    let store = reopened(store, |root| {
        crate::fsck::flip(&wrong);
        fs::write(file.join("no digest"), "x").expect("write");
        destroy(root);
    });
    assert_eq!(names(&lost(&store).join("blobs")).len(), 1);
    let told = store.node.state().expect("state").rebuilt.expect("told");
    let found = "1 file that is no blob is in lost/";
    assert!(told.contains(found), "{told}");
    let kinds = |findings: &[cairn_node::Finding]| -> Vec<&str> {
        findings.iter().map(|one| one.kind).collect()
    };
    let (findings, _) = check(&store, true, false);
    assert_eq!(kinds(&findings), ["records-rebuilt", "blob-bytes"]);
    assert_eq!(
        store
            .node
            .content()
            .unread(&recovered())
            .expect("list")
            .len(),
        1
    );
    // Whoever brings it is let.
    store.import(simple().path()).expect("import again");
    let image = store.node.image(&store.ns, &web()).expect("image");
    assert!(image.complete);
    let (findings, _) = check(&store, true, false);
    assert_eq!(kinds(&findings), ["records-rebuilt"]);
}
