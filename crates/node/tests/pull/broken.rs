//! Pulls that broke off: what came of them is gone on with, or fetched again.

use std::{
    fs,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use cairn_node::{Event, Phase, Progress};
use cairn_types::ErrorKind;

use crate::{common::*, large, name, noise, pull, push, registry::Registry, request};

/// Stops a pull after so many bytes of its layers.
struct Impatient {
    limit: u64,
    done: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl Impatient {
    fn new(limit: u64) -> Impatient {
        Impatient {
            limit,
            done: AtomicU64::new(0),
            events: Mutex::default(),
        }
    }
}

impl Progress for Impatient {
    fn event(&self, event: Event) {
        if let Event::Layer { done, phase, .. } = &event
            && matches!(phase, Phase::Fetch | Phase::FetchUnpack)
        {
            self.done.store(*done, Ordering::Relaxed);
        }
        self.events.lock().expect("events").push(event);
    }

    fn given_up(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.limit
    }
}

/// Also by a process that began anew: what came before is in the store.
#[test]
fn a_pull_goes_on_where_it_was_stopped() {
    let registry = Registry::start();
    let layout = large(24);
    push(layout.path(), "large", &registry, "large:1");
    let mut store = Store::new();
    let name = name(&registry, "large:1");
    let mut slow = request(&store.ns, name.clone());
    slow.remote.limit_rate = 16 << 20;
    let impatient = Impatient::new(8 << 20);
    let failure = store.node.pull(slow, &impatient).expect_err("stopped");
    assert_eq!(failure.kind, ErrorKind::Canceled, "{failure:?}");
    assert_eq!(store.node.images(&store.ns).expect("images"), []);
    let ingests = store.node.content().ingests(&store.ns).expect("ingests");
    let [ingest] = &*ingests else {
        panic!("{ingests:?}");
    };
    let came = ingest.offset;
    assert!(came >= 8 << 20, "{came}");

    let root = store.node.root().to_owned();
    let other = open(&store.dir.path().join("other")).expect("another store");
    drop(std::mem::replace(&mut store.node, other));
    store.node = open_again(&root);
    let progress = Impatient::new(u64::MAX);
    let pulled = store.node.pull(request(&store.ns, name.clone()), &progress);
    let pulled = pulled.expect("pull");
    let all = pulled.images[0].content_size;
    assert!(
        pulled.fetched_bytes <= all - came,
        "{} of {all} after {came}",
        pulled.fetched_bytes
    );
    let events = progress.events.lock().expect("events");
    let resumed = events.iter().find_map(|event| match event {
        Event::Resumed { at, .. } => Some(*at),
        _ => None,
    });
    assert_eq!(resumed, Some(came));
    let target = store.mount(&name);
    assert_eq!(
        fs::read_to_string(target.join("file")).expect("file"),
        noise(24 << 20)
    );
    store.unmount(&target);
    assert_eq!(
        store
            .node
            .content()
            .ingests(&store.ns)
            .expect("ingests")
            .len(),
        0
    );
}

/// Also when garbage is collected in between, as it is when a daemon starts.
#[test]
fn what_came_of_a_pull_that_broke_off_is_kept() {
    let registry = Registry::start();
    let small = tar(&[("small", &noise(1 << 20))]);
    let big = tar(&[("noise", &noise(24 << 20))]);
    let mut layout = Layout::new();
    let layers = [
        (OCI_LAYER, small.clone(), small),
        (OCI_LAYER, big.clone(), big),
    ];
    let manifest = layout.manifest(&host(), &layers);
    layout.name(manifest, "two");
    layout.finish();
    push(layout.path(), "two", &registry, "two:1");
    let store = Store::new();
    let name = name(&registry, "two:1");
    let mut slow = request(&store.ns, name.clone());
    slow.remote.limit_rate = 16 << 20;
    let stopped = store.node.pull(slow, &Impatient::new(12 << 20));
    assert_eq!(stopped.expect_err("stopped").kind, ErrorKind::Canceled);
    store.node.gc(false).expect("collect");
    assert_eq!(
        store.node.content().list(&store.ns).expect("blobs").len(),
        1
    );
    assert_eq!(store.node.leases(&store.ns).expect("leases").len(), 1);
    let pulled = pull(&store, name).expect("pull");
    assert!(pulled.fetched_bytes < 13 << 20, "{pulled:?}");
    assert!(pulled.reused_bytes > 1 << 20, "{pulled:?}");
    assert_eq!(store.node.leases(&store.ns).expect("leases"), []);
    store.node.gc(false).expect("collect");
    let info = store.node.images(&store.ns).expect("images");
    assert!(info[0].complete && info[0].unpacked_size.is_some());
}

/// What was left of an upload may be anything after a power cut.
#[test]
fn a_damaged_rest_is_fetched_again() {
    let registry = Registry::start();
    let layout = large(4);
    push(layout.path(), "large", &registry, "large:1");
    let store = Store::new();
    let name = name(&registry, "large:1");
    let mut slow = request(&store.ns, name.clone());
    slow.remote.limit_rate = 8 << 20;
    let stopped = store.node.pull(slow, &Impatient::new(2 << 20));
    assert_eq!(stopped.expect_err("stopped").kind, ErrorKind::Canceled);
    let ingests = fs::read_dir(store.node.root().join("content/ingest")).expect("directory");
    for file in ingests {
        let path = file.expect("entry").path();
        let mut bytes = fs::read(&path).expect("upload");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).expect("damage");
    }
    pull(&store, name.clone()).expect("pull");
    let info = store.node.image(&store.ns, &name).expect("image");
    assert!(info.complete);
}

#[test]
fn a_stopped_pull_leaves_its_part_to_others() {
    let registry = Registry::start();
    let layout = large(8);
    push(layout.path(), "large", &registry, "large:1");
    let store = Store::new();
    let name = name(&registry, "large:1");
    thread::scope(|scope| {
        let first = scope.spawn(|| {
            let mut slow = request(&store.ns, name.clone());
            slow.remote.limit_rate = 8 << 20;
            store.node.pull(slow, &Impatient::new(4 << 20))
        });
        let second = scope.spawn(|| pull(&store, name.clone()));
        assert!(second.join().expect("second").is_ok());
        // Whichever came first.
        let first = first.join().expect("first");
        assert!(first.is_ok() || first.is_err_and(|err| err.kind == ErrorKind::Canceled));
    });
    assert!(store.node.image(&store.ns, &name).expect("image").complete);
}
