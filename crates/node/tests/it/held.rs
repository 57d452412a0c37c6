//! A removal that is refused says all that is in the way, and what takes it out of it.

use std::{io::Write as _, path::Path};

use cairn_node::{BundleOrder, Failure, Silent};
use cairn_types::{ErrorKind, HostDir, ImageName, IngestRef, Labels, LeaseId, SnapshotKey};

use crate::common::*;

const WEB: &str = "docker.io/shop/web:1";

fn web() -> ImageName {
    ImageName::parse(WEB).expect("name")
}

/// A bundle of it as the store knows one.
fn bundle(store: &Store, dir: &Path) -> HostDir {
    let order = BundleOrder {
        ns: store.ns.clone(),
        image: web(),
        dir: host_dir(dir),
        platform: None,
    };
    store.node.bundle_begin(&order, &Silent).expect("begin");
    let completed = store.node.bundle_complete(&order.dir, false);
    completed.expect("complete");
    order.dir
}

/// The lower layer's snapshot and the upper's.
fn layers(store: &Store) -> [SnapshotKey; 2] {
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    let (mut below, mut above): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|one| one.parent.is_none());
    [below.remove(0).key, above.remove(0).key]
}

#[track_caller]
fn refused(failure: &Failure, reason: &str) {
    assert_eq!(failure.kind, ErrorKind::FailedPrecondition, "{failure}");
    assert_eq!(failure.reason, reason);
}

#[test]
fn who_keeps_a_snapshot_is_told_with_what_frees_it() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let [base, top] = layers(&store);
    let ns = &store.ns;
    let first = bundle(&store, &store.dir.path().join("it's"));
    let quoted = format!("'{}'", first.as_str().replace('\'', r"'\''"));
    let lease = LeaseId::parse("build").expect("lease");
    let made = store
        .node
        .lease_create(ns, Some(lease.clone()), Labels::new());
    made.expect("lease");
    let held = ("snapshots/overlayfs", top.as_str());
    let holds = store.node.lease_resource(ns, &lease, held, true);
    holds.expect("hold");

    let removed = store.node.remove_snapshot(ns, &base, false);
    let failure = removed.expect_err("stood on");
    refused(&failure, "1 snapshot stands on it");
    assert_eq!(
        failure.causes,
        [
            format!("child {top}"),
            format!("kept by bundle {quoted}"),
            format!("kept by image {WEB}"),
            "kept by lease build".to_owned(),
        ]
    );
    let recursive = format!("cairn snapshots rm --recursive {base}");
    assert_eq!(
        failure.next,
        [format!("cairn bundle rm {quoted}"), recursive.clone()]
    );

    // Bundles are in the way of that, and of the image: each is told.
    let removed = store.node.remove_snapshot(ns, &base, true);
    let failure = removed.expect_err("in use");
    refused(&failure, &format!("bundle {quoted} stands on it"));
    assert_eq!(failure.next, [format!("cairn bundle rm {quoted}")]);
    let second = bundle(&store, &store.dir.path().join("other"));
    let both = [
        format!("bundle {quoted}"),
        format!("bundle {}", second.as_str()),
    ];
    let remove_both = format!("cairn bundle rm {quoted} {}", second.as_str());
    let removed = store.node.remove_snapshot(ns, &base, true);
    let failure = removed.expect_err("in use");
    refused(&failure, "2 bundles stand on it");
    assert_eq!(
        (&failure.causes[..], &failure.next),
        (&both[..], &vec![remove_both.clone()])
    );
    let failure = store
        .node
        .remove_image(ns, &web(), false)
        .expect_err("in use");
    refused(&failure, "2 bundles were made from it");
    assert_eq!(failure.causes, both);
    let force = format!("cairn images rm --force {WEB}");
    assert_eq!(failure.next, [remove_both, force]);

    for dir in [first, second] {
        store.node.bundle_withdraw(&dir).expect("withdraw");
        store.node.bundle_drop(&dir).expect("drop");
    }
    let removed = store.node.remove_snapshot(ns, &base, true);
    assert_eq!(removed.expect("remove"), [top, base]);
}

#[test]
fn a_namespace_that_stays_keeps_its_uploads() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let reference = IngestRef::parse("broken-off").expect("reference");
    let content = store.node.content();
    let upload = content.writer(&store.ns, &reference, None, 0);
    let mut upload = upload.expect("writer");
    upload.write_all(b"some bytes").expect("write");
    drop(upload);
    let failure = store
        .node
        .namespace_delete(&store.ns)
        .expect_err("not empty");
    refused(&failure, "it holds 1 image, 4 blobs, 2 snapshots");
    let status = content.status(&store.ns, &reference).expect("still there");
    assert_eq!(status.offset, 10);

    store
        .node
        .remove_image(&store.ns, &web(), false)
        .expect("remove");
    store.node.gc(false).expect("collect");
    store.node.namespace_delete(&store.ns).expect("empty");
    content
        .status(&store.ns, &reference)
        .expect_err("it went with it");
    assert_eq!(files_below(&store.node.root().join("content/ingest")), 0);
}
