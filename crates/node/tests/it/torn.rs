//! Layers that a power cut tore, under what somebody wrote on top of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn_meta::{View, schema};
use cairn_node::Severity;
use cairn_types::{Classified, Digest, ErrorKind, ImageName, Labels, SnapshotKey};

use crate::{
    common::*,
    fsck::{blob_file, check, parts},
    share::stack,
};

/// An image, and something written on top of it before anybody synced anything.
fn written_on(store: &Store, layout: &Layout) -> Vec<SnapshotKey> {
    store.import(layout.path()).expect("import");
    let keys = stack(&two_layers());
    let mounts = store
        .node
        .snapshots()
        .prepare(&store.ns, &work(), Some(&keys[1]), root())
        .expect("prepare");
    fs::write(upper(&mounts).join("mine"), "kept").expect("write");
    keys
}

/// No collection takes it.
fn root() -> Labels {
    Labels::from([("containerd.io/gc.root".to_owned(), "now".to_owned())])
}

fn work() -> SnapshotKey {
    SnapshotKey::parse("work").expect("key")
}

fn upper(mounts: &[cairn_types::Mount]) -> PathBuf {
    let mut options = mounts[0].options.iter();
    let upper = options.find_map(|option| option.strip_prefix("upperdir="));
    PathBuf::from(upper.expect("an overlay"))
}

fn durable(store: &Store, key: &SnapshotKey) -> bool {
    let stat = store.node.snapshots().stat(&store.ns, key);
    stat.expect("stat").durable
}

/// A power cut, after which a file of the image is empty and another one is not there.
fn torn(store: Store, keys: &[SnapshotKey]) -> Store {
    for (key, file) in keys.iter().zip(["bin/hello", "etc/motd"]) {
        let file = tree(&store, key).join(file);
        fs::write(&file, "").expect("empty");
    }
    fs::remove_file(tree(&store, &keys[0]).join("bin/hello")).expect("gone");
    let change = store.node.meta().write(|tx| {
        for (key, mut record) in tx.scan(&schema::SNAPSHOTS, &())? {
            record.boot_id = "another".to_owned();
            tx.put(&schema::SNAPSHOTS, &key, &record)?;
        }
        Ok::<_, cairn_meta::Error>(())
    });
    change.expect("another boot");
    let Store { dir, node, ns } = store;
    drop(node);
    let node = open_again(&dir.path().join("root"));
    Store { dir, node, ns }
}

fn tree(store: &Store, key: &SnapshotKey) -> PathBuf {
    let id = store
        .node
        .snapshots()
        .stat(&store.ns, key)
        .expect("stat")
        .id;
    store.node.root().join(format!("snapshots/{id}/fs"))
}

/// All of the image and what was written are there.
#[track_caller]
fn assert_whole(store: &Store, keys: &[SnapshotKey]) {
    let text = |path: &Path| fs::read_to_string(path).expect("read");
    assert_eq!(text(&tree(store, &keys[0]).join("bin/hello")), "hello\n");
    assert_eq!(text(&tree(store, &keys[1]).join("etc/motd")), "welcome\n");
    let mounts = store.node.snapshots().mounts(&store.ns, &work());
    assert_eq!(text(&upper(&mounts.expect("mounts")).join("mine")), "kept");
    assert!(keys.iter().all(|key| durable(store, key)));
    let (findings, _) = check(store, true, false);
    assert_eq!(findings, []);
}

#[test]
fn torn_layers_under_changes_are_unpacked_again() {
    let (store, layout) = (Store::new(), simple());
    let keys = written_on(&store, &layout);
    assert!(!keys.iter().any(|key| durable(&store, key)), "nobody waits");
    let store = torn(store, &keys);
    assert_whole(&store, &keys);
    // And on the disk by now.
    let Store { dir, node, ns } = store;
    drop(node);
    let node = open_again(&dir.path().join("root"));
    assert_whole(&Store { dir, node, ns }, &keys);
}

#[test]
fn nothing_is_mounted_over_torn_layers_until_they_can_be_unpacked() {
    let (store, layout) = (Store::new(), simple());
    let keys = written_on(&store, &layout);
    // A small one would be written again from its record.
    store.node.content().flush().expect("flush");
    let lowest = &parts(&layout)[2];
    fs::remove_file(blob_file(&store, lowest)).expect("remove");
    let store = torn(store, &keys);
    let refused = store.node.snapshots().mounts(&store.ns, &work());
    assert_eq!(refused.expect_err("torn").kind(), ErrorKind::DataLoss);
    let torn_ones = |repair| {
        let (findings, _) = check(&store, false, repair);
        let torn = findings
            .into_iter()
            .filter(|one| one.kind == "snapshot-torn");
        torn.collect::<Vec<_>>()
    };
    let told = torn_ones(false);
    assert_eq!(told[0].name, keys[0].to_string());
    assert_eq!(told[0].severity, Severity::Damage);
    assert!(told[0].next.contains(&"cairn fsck --repair".to_owned()));
    let told = torn_ones(true);
    assert!(
        !told[0].repaired && told[0].action.contains("cannot be unpacked"),
        "{told:?}"
    );
    // As its findings say.
    store.import(layout.path()).expect("import again");
    assert!(torn_ones(true).iter().all(|one| one.repaired));
    assert_whole(&store, &keys);
}

/// From then on nothing could unpack them again.
#[test]
fn layers_are_on_the_disk_before_their_blobs_go() {
    let layout = simple();
    let store = Store::new();
    let keys = written_on(&store, &layout);
    let name = ImageName::parse("docker.io/shop/web:1").expect("name");
    store
        .node
        .remove_image(&store.ns, &name, false)
        .expect("remove");
    assert!(!durable(&store, &keys[0]));
    store.node.gc(false).expect("collect");
    assert!(keys.iter().all(|key| durable(&store, key)));
    // And so with one that somebody removes by hand.
    let store = Store::new();
    let keys = written_on(&store, &layout);
    let lowest = Digest::parse(&parts(&layout)[2]).expect("digest");
    store.node.remove_blob(&store.ns, &lowest).expect("remove");
    assert!(keys.iter().all(|key| durable(&store, key)));
}

/// Until they are unpacked again from them.
#[test]
fn blobs_stay_that_torn_layers_need() {
    let (store, layout) = (Store::new(), simple());
    let keys = written_on(&store, &layout);
    store.node.content().flush().expect("flush");
    let (lowest, upper) = (&parts(&layout)[2], &parts(&layout)[3]);
    let place = blob_file(&store, lowest);
    let bytes = fs::read(&place).expect("read");
    // Without the lowest none above it can be unpacked.
    fs::remove_file(&place).expect("remove");
    let store = torn(store, &keys);
    let upper = Digest::parse(upper).expect("digest");
    let here = || store.node.content().exists(&store.ns, &upper);
    let name = ImageName::parse("docker.io/shop/web:1").expect("name");
    let removed = store.node.remove_image(&store.ns, &name, false);
    removed.expect("remove");
    let counted = store.node.gc(true).expect("count");
    let collected = store.node.gc(false).expect("collect");
    assert_eq!(counted.content.removed, collected.content.removed);
    assert!(here().expect("look"), "a snapshot needs it");
    let kept = store.node.why(&store.ns, &upper.to_string()).expect("why");
    assert_eq!(kept[0].holders[0].name, "work");
    // Nor does it go by hand.
    let refused = store.node.remove_blob(&store.ns, &upper);
    let refused = refused.expect_err("needed");
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
    assert!(refused.reason.contains(keys[1].as_str()), "{refused}");
    // With the other one back it is not needed any more, once it has served.
    fs::write(&place, bytes).expect("write");
    store.node.remove_blob(&store.ns, &upper).expect("remove");
    assert!(!here().expect("look"));
    assert!(keys.iter().all(|key| durable(&store, key)));
    let hello = fs::read_to_string(tree(&store, &keys[0]).join("bin/hello"));
    assert_eq!(hello.expect("read"), "hello\n");
}

/// The last namespace that has a blob need not be the one of which a layer needs it.
#[test]
fn blobs_stay_that_torn_layers_of_others_need() {
    let (store, layout) = (Store::new(), simple());
    let keys = written_on(&store, &layout);
    store.node.content().flush().expect("flush");
    let (lowest, upper) = (&parts(&layout)[2], &parts(&layout)[3]);
    let upper = Digest::parse(upper).expect("digest");
    let other = cairn_types::Namespace::parse("other").expect("namespace");
    let linked = store.node.content().link(&other, &upper, Labels::new());
    linked.expect("link");
    // Without a sync of the layers before.
    let deleted = store.node.content().delete(&store.ns, &upper);
    deleted.expect("delete");
    fs::remove_file(blob_file(&store, lowest)).expect("remove");
    let store = torn(store, &keys);
    store.node.gc(false).expect("collect");
    let here = store.node.content().exists(&other, &upper);
    assert!(here.expect("look"), "a snapshot needs it");
    // Where nobody has it nothing is refused for its sake.
    let deleted = store.node.content().delete(&other, &upper);
    deleted.expect("delete");
    let absent = store.node.remove_blob(&store.ns, &upper);
    assert_eq!(absent.expect_err("absent").kind, ErrorKind::NotFound);
}

/// What may not be whole is nobody else's, or the next flush would say that it is.
#[test]
fn torn_layers_are_not_shared() {
    let (store, layout) = (Store::new(), simple());
    let keys = written_on(&store, &layout);
    store.node.content().flush().expect("flush");
    fs::remove_file(blob_file(&store, &parts(&layout)[2])).expect("remove");
    let store = torn(store, &keys);
    let other = cairn_types::Namespace::parse("other").expect("namespace");
    let shared = store.node.snapshots().share(&other, &keys);
    assert_eq!(shared.expect("share").here, 0);
}
