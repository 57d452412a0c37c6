//! The difference of snapshots as a stored layer: which bytes, under which labels, held by whom.

use std::{fs, io::Write, path::PathBuf};

use cairn_node::{Caller, DiffOptions};
use cairn_types::{
    Compression, Descriptor, Digest, ErrorKind, IngestRef, Labels, LeaseId, Mount, SnapshotKey,
    media,
};

use crate::common::{Store, run, text};

/// A store with the snapshot `base` and, on it, the mounts of an active and of a read-only one.
fn changed() -> (Store, Vec<Mount>, Vec<Mount>) {
    let store = Store::new();
    let (snapshots, ns) = (store.node.snapshots(), &store.ns);
    let mounts = snapshots.prepare(ns, &key("k"), None, Labels::new());
    let root = upper(&mounts.expect("prepare"));
    fs::write(root.join("kept"), "kept").expect("write");
    fs::write(root.join("gone"), "gone").expect("write");
    snapshots
        .commit(ns, &key("base"), &key("k"), Labels::new())
        .expect("commit");
    let active = snapshots.prepare(ns, &key("a"), Some(&key("base")), Labels::new());
    let active = active.expect("prepare");
    let view = snapshots.view(ns, &key("v"), Some(&key("base")), Labels::new());
    fs::write(upper(&active).join("new"), "new").expect("write");
    run(
        "mknod",
        &[text(&upper(&active).join("gone")), "c", "0", "0"],
    );
    (store, view.expect("view"), active)
}

fn key(text: &str) -> SnapshotKey {
    SnapshotKey::parse(text).expect("key")
}

/// Where a snapshot's own files are.
fn upper(mounts: &[Mount]) -> PathBuf {
    let [mount] = mounts else {
        panic!("{mounts:?}");
    };
    let option = |option: &String| option.strip_prefix("upperdir=").map(PathBuf::from);
    mount
        .options
        .iter()
        .find_map(option)
        .unwrap_or_else(|| PathBuf::from(&mount.source))
}

fn diff(
    store: &Store,
    left: &[Mount],
    right: &[Mount],
    options: DiffOptions,
) -> Result<Descriptor, ErrorKind> {
    let caller = Caller::of(store.ns.clone());
    let made = store.node.diff(&caller, left, right, options);
    made.map_err(|err| err.kind)
}

fn plain() -> DiffOptions {
    DiffOptions {
        media_type: media::OCI_LAYER.to_owned(),
        ..DiffOptions::default()
    }
}

#[test]
fn a_layer_of_any_packing_is_stored_with_its_labels() {
    let (store, left, right) = changed();
    let bytes = |descriptor: &Descriptor| {
        let content = store.node.content();
        let bytes = content.read_all(&store.ns, &descriptor.digest, 1 << 20);
        bytes.expect("blob")
    };
    let tar = diff(&store, &left, &right, plain()).expect("diff");
    assert_eq!(tar.media_type, media::OCI_LAYER);
    let layer = bytes(&tar);
    assert_eq!(tar.size, layer.len() as u64);
    let names: Vec<&[u8]> = [0, 512].map(|at| &layer[at..at + 8]).into();
    assert_eq!(names, [&b".wh.gone"[..], b"new\0\0\0\0\0"]);
    for (asked, got, compression) in [
        ("", media::OCI_LAYER_GZIP, Compression::Gzip),
        (
            media::OCI_LAYER_ZSTD,
            media::OCI_LAYER_ZSTD,
            Compression::Zstd,
        ),
    ] {
        let options = DiffOptions {
            media_type: asked.to_owned(),
            labels: Labels::from([("k".to_owned(), "v".to_owned())]),
            ..DiffOptions::default()
        };
        let made = diff(&store, &left, &right, options.clone()).expect("diff");
        assert_eq!(made.media_type, got);
        assert_eq!(Compression::sniff(&bytes(&made)), compression);
        let labels = || {
            let info = store.node.content().info(&store.ns, &made.digest);
            info.expect("info").labels
        };
        let uncompressed = (
            "containerd.io/uncompressed".to_owned(),
            tar.digest.to_string(),
        );
        let expected = Labels::from([("k".to_owned(), "v".to_owned()), uncompressed.clone()]);
        assert_eq!(labels(), expected);
        // Somebody else's blob of these bytes gets the one label that says something of them.
        let other = Labels::from([("other".to_owned(), "1".to_owned())]);
        let set = store
            .node
            .content()
            .set_labels(&store.ns, &made.digest, other.clone());
        set.expect("labels");
        assert_eq!(diff(&store, &left, &right, options).expect("again"), made);
        let mut expected = other;
        expected.extend([uncompressed]);
        assert_eq!(labels(), expected);
    }
    assert_eq!(
        store.node.content().ingests(&store.ns).expect("ingests"),
        []
    );
}

#[test]
fn what_it_wrote_gives_the_same_tree() {
    let (store, left, right) = changed();
    let layer = diff(&store, &left, &right, DiffOptions::default()).expect("diff");
    let again =
        store
            .node
            .snapshots()
            .prepare(&store.ns, &key("again"), Some(&key("base")), Labels::new());
    let again = again.expect("prepare");
    let applied = store.node.apply(&store.ns, &layer, &again, false);
    let tar = diff(&store, &left, &right, plain()).expect("diff");
    assert_eq!(applied.expect("apply").digest, tar.digest);
    assert_eq!(
        diff(&store, &left, &again, plain()),
        Ok(tar),
        "no other changes"
    );
}

#[test]
fn nothing_and_what_is_not_ours() {
    let (store, left, right) = changed();
    let empty = diff(&store, &[], &[], plain()).expect("diff");
    assert_eq!(empty.digest, Digest::sha256(&[0; 1024]));
    assert_eq!(diff(&store, &right, &right, plain()), Ok(empty));
    let foreign = [Mount {
        kind: "bind".to_owned(),
        source: "/etc".to_owned(),
        target: String::new(),
        options: vec!["ro".to_owned(), "rbind".to_owned()],
    }];
    for (left, right) in [(&foreign[..], &right[..]), (&left, &foreign)] {
        let refused = diff(&store, left, right, plain());
        assert_eq!(refused, Err(ErrorKind::InvalidArgument));
    }
    let elsewhere = Caller::of(cairn_types::Namespace::parse("other").expect("name"));
    let refused = store.node.diff(&elsewhere, &left, &right, plain());
    let refused = refused.expect_err("snapshots of another namespace");
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
    let xz = DiffOptions {
        media_type: format!("{}+xz", media::OCI_LAYER),
        ..DiffOptions::default()
    };
    assert_eq!(
        diff(&store, &left, &right, xz),
        Err(ErrorKind::Unimplemented)
    );
    let long = DiffOptions {
        labels: Labels::from([("k".to_owned(), "v".repeat(4096))]),
        ..DiffOptions::default()
    };
    assert_eq!(
        diff(&store, &left, &right, long),
        Err(ErrorKind::InvalidArgument)
    );
}

#[test]
fn uploads_end_with_it() {
    let (store, left, right) = changed();
    let (content, ns) = (store.node.content(), &store.ns);
    let reference = IngestRef::parse("mine").expect("reference");
    let mut before = content.writer(ns, &reference, None, 9).expect("writer");
    before.write_all(b"left over").expect("write");
    let options = DiffOptions {
        reference: Some(reference.clone()),
        ..plain()
    };
    let busy = diff(&store, &left, &right, options.clone());
    assert_eq!(busy, Err(ErrorKind::Unavailable), "somebody is writing");
    drop(before);
    let made = diff(&store, &left, &right, options).expect("diff");
    assert_eq!(Ok(made), diff(&store, &left, &right, plain()));
    assert_eq!(content.ingests(ns).expect("ingests"), [], "none is left");

    // One that fails leaves nothing of its own, and a given upload to whoever gave it.
    fs::write(upper(&right).join(".wh.x"), "").expect("write");
    let failed = diff(&store, &left, &right, plain());
    assert_eq!(failed, Err(ErrorKind::FailedPrecondition));
    assert_eq!(content.ingests(ns).expect("ingests"), []);
    let options = DiffOptions {
        reference: Some(reference.clone()),
        ..plain()
    };
    let failed = diff(&store, &left, &right, options);
    assert_eq!(failed, Err(ErrorKind::FailedPrecondition));
    content.status(ns, &reference).expect("it is there");
}

#[test]
fn the_callers_lease_holds_the_layer_alone() {
    let (store, left, right) = changed();
    let lease = LeaseId::parse("l").expect("lease");
    let made = store
        .node
        .lease_create(&store.ns, Some(lease.clone()), Labels::new());
    made.expect("lease");
    let mut caller = Caller {
        ns: store.ns.clone(),
        lease: Some("l".to_owned()),
    };
    // Also of a layer that is there.
    for _ in 0..2 {
        let layer = store
            .node
            .diff(&caller, &left, &right, plain())
            .expect("diff");
        let held = store
            .node
            .lease_resources(&store.ns, &lease)
            .expect("lease");
        assert_eq!(held, [("content".to_owned(), layer.digest.to_string())]);
    }
    caller.lease = Some("missing".to_owned());
    let refused = store.node.diff(&caller, &left, &right, plain());
    assert_eq!(refused.expect_err("no lease").kind, ErrorKind::NotFound);
}
