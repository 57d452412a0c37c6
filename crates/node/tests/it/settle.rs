//! Layers become durable behind an import, and those that were not in time come back by themselves.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use cairn_meta::{SnapshotRecord, Timestamp, View, schema};
use cairn_node::{Event, ImportRequest, Node, Progress, Source};
use cairn_types::{ImageName, Namespace};

use crate::common::*;

const MINUTE: Duration = Duration::from_secs(60);

/// What unpacked snapshots' records are to say.
fn rewrite(store: &Store, change: impl Fn(&mut SnapshotRecord) + Send + 'static) {
    let ns = store.ns.clone();
    let written = store.node.meta().write(move |tx| {
        for (key, mut record) in tx.scan(&schema::SNAPSHOTS, &ns)? {
            change(&mut record);
            tx.put(&schema::SNAPSHOTS, &key, &record)?;
        }
        Ok::<_, cairn_meta::Error>(())
    });
    written.expect("rewrite records");
}

/// As when the layers had been unpacked so long ago.
fn aged(store: Store, by: Duration) -> Store {
    let by = i64::try_from(by.as_nanos()).expect("short");
    rewrite(&store, move |record| {
        record.created_at = Timestamp(record.created_at.0 - by);
    });
    reopened(store)
}

/// As after a power cut: whatever is there was unpacked under another boot.
fn rebooted(store: Store) -> Store {
    rewrite(&store, |record| record.boot_id = "another".to_owned());
    reopened(store)
}

fn reopened(store: Store) -> Store {
    let Store { dir, node, ns } = store;
    drop(node);
    let node = open_again(&dir.path().join("root"));
    Store { dir, node, ns }
}

fn durable(store: &Store) -> Vec<bool> {
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    all.into_iter().map(|info| info.durable).collect()
}

/// The image's one file, looked at through a mount.
fn assert_mounts(store: &Store) {
    let target = mounted(store);
    store.unmount(&target);
}

fn mounted(store: &Store) -> PathBuf {
    let target = store.mount(&ImageName::parse("docker.io/shop/web:1").expect("name"));
    let motd = fs::read_to_string(target.join("etc/motd"));
    let hidden = Path::new(&target).join("bin/hello").exists();
    assert_eq!((motd.expect("motd").as_str(), hidden), ("welcome\n", false));
    target
}

#[test]
fn settled_layers_survive_another_boot() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    // Nobody waits for what the kernel has not written by itself.
    assert!(!store.node.settle(MINUTE).expect("settle"));
    assert_eq!(durable(&store), [false, false]);
    let store = aged(store, MINUTE * 11);
    assert!(store.node.settle(MINUTE).expect("settle"));
    assert_eq!(durable(&store), [true, true]);
    assert!(!store.node.settle(Duration::ZERO).expect("nothing is left"));
    let store = rebooted(store);
    assert_eq!(durable(&store), [true, true]);
    assert_mounts(&store);
}

#[test]
fn whoever_waits_has_layers_that_survive_another_boot() {
    let store = Store::new();
    let layout = simple();
    let source = || Source::Path(layout.path().to_owned());
    let waited = store.import_with(source(), |request| request.sync = true);
    waited.expect("import");
    assert_eq!(durable(&store), [true, true]);
    let store = rebooted(store);
    assert_eq!(durable(&store), [true, true]);
    // So does who only finds them here.
    let store = Store::new();
    store.import(layout.path()).expect("import");
    assert_eq!(durable(&store), [false, false]);
    let waited = store.import_with(source(), |request| request.sync = true);
    waited.expect("import again");
    assert_eq!(durable(&store), [true, true]);
}

#[test]
fn young_layers_are_unpacked_again_after_another_boot() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let store = rebooted(store);
    assert_eq!(durable(&store), [false; 0]);
    let trees = fs::read_dir(store.node.root().join("snapshots")).expect("snapshots");
    assert_eq!(trees.count(), 1, "only the trash is left");
    let images = store.node.images(&store.ns).expect("images");
    assert!(images[0].complete);
    assert_eq!(images[0].unpacked_size, None);
    assert_mounts(&store);
    assert_eq!(durable(&store), [false, false]);
    // What was mounted when the power went stands on them still.
    cairn_sys::mount::unmount_own(&mounted(&store)).expect("unmount");
    let store = rebooted(store);
    assert_eq!(durable(&store)[..2], [true, true]);
    assert_mounts(&store);
    // Importing again does it as well.
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let store = rebooted(store);
    store.import(simple().path()).expect("import again");
    assert_eq!(durable(&store), [false, false]);
    assert!(store.node.settle(Duration::ZERO).expect("settle"));
    let store = rebooted(store);
    assert_mounts(&store);
}

/// Looks at layers as soon as anybody can: whether they are known to be on the disk.
struct Looks {
    node: Node,
    ns: Namespace,
    seen: Mutex<Vec<bool>>,
}

impl Progress for Looks {
    fn event(&self, event: Event) {
        if let Event::Timed { key, .. } = event {
            let info = self.node.snapshots().stat(&self.ns, &key);
            let mut seen = self.seen.lock().expect("lock");
            seen.push(info.expect("it is told of when it is there").durable);
        }
    }
}

/// Whoever put something on top of one before would lose it by a power cut: no blob is left from which the layer
/// could be unpacked again.
#[test]
fn layers_whose_blobs_are_not_kept_are_on_the_disk_before_they_are_seen() {
    let layout = simple();
    for discard in [false, true] {
        let store = Store::new();
        let looks = Looks {
            node: store.node.clone(),
            ns: store.ns.clone(),
            seen: Mutex::default(),
        };
        let source = Source::Path(layout.path().to_owned());
        let mut request = ImportRequest::new(store.ns.clone(), source);
        request.discard = discard;
        store.node.import(request, &looks).expect("import");
        assert_eq!(looks.seen.into_inner().expect("lock"), [discard; 2]);
    }
}
