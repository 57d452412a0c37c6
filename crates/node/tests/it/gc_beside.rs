//! Collections and calls pass one another: neither waits for the other to end, and nothing that is
//! held on the way is lost.

use std::{
    io,
    ops::Range,
    pin::Pin,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll},
    thread,
};

use cairn_node::{Caller, GcReport, GcStep, Resource, Source};
use cairn_types::{Descriptor, Digest, ImageName, Labels, LeaseId, SnapshotKey};
use tokio::io::{AsyncRead, ReadBuf};

use crate::common::*;

const REF: &str = "containerd.io/gc.ref.content";

/// Gives the first part, says so, and gives the rest when it is let go on.
struct Stalls {
    first: io::Cursor<Vec<u8>>,
    rest: io::Cursor<Vec<u8>>,
    stalled: Option<Sender<()>>,
    go_on: Receiver<()>,
}

impl AsyncRead for Stalls {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.first).poll_read(context, buffer);
        if buffer.filled().len() > before {
            return polled;
        }
        // An import has a thread of its own for its stream.
        if let Some(stalled) = self.stalled.take() {
            stalled.send(()).expect("the test waits");
            self.go_on.recv().expect("the test lets go");
        }
        Pin::new(&mut self.rest).poll_read(context, buffer)
    }
}

fn key(text: &str) -> SnapshotKey {
    SnapshotKey::parse(text).expect("key")
}

fn name(text: &str) -> ImageName {
    ImageName::parse(text).expect("name")
}

impl Store {
    fn blob(&self, text: &str, refs: &[&Digest]) -> Digest {
        let refs = refs.iter().enumerate();
        let labels: Labels = refs
            .map(|(n, digest)| (format!("{REF}.{n}"), digest.to_string()))
            .collect();
        let put = self
            .node
            .content()
            .put(&self.ns, text.as_bytes(), None, labels);
        put.expect("put")
    }

    fn has(&self, digest: &Digest) -> bool {
        self.node
            .content()
            .exists(&self.ns, digest)
            .expect("exists")
    }

    fn has_snapshot(&self, text: &str) -> bool {
        self.node.snapshots().stat(&self.ns, &key(text)).is_ok()
    }

    /// A committed snapshot.
    fn snapshot(&self, text: &str, parent: Option<&str>) {
        let (snapshots, parent) = (self.node.snapshots(), parent.map(key));
        let prepared = snapshots.prepare(&self.ns, &key("work"), parent.as_ref(), Labels::new());
        prepared.expect("prepare");
        let committed = snapshots.commit(&self.ns, &key(text), &key("work"), Labels::new());
        committed.expect("commit");
    }

    fn leased(&self, lease: &str) -> Caller {
        let id = LeaseId::parse(lease).expect("lease");
        let made = self.node.lease_create(&self.ns, Some(id), Labels::new());
        made.expect("lease");
        Caller {
            ns: self.ns.clone(),
            lease: Some(lease.to_owned()),
        }
    }
}

#[test]
fn a_collection_passes_by_an_import_that_stands_still() {
    let store = Store::new();
    let archive = simple().archive();
    // Of the five blobs in it several have come by then, and none is referred to.
    let (first, rest) = archive.split_at(archive.len() / 2);
    let (stalled, wait) = channel();
    let (let_go, go_on) = channel();
    let stalls = Stalls {
        first: io::Cursor::new(first.to_vec()),
        rest: io::Cursor::new(rest.to_vec()),
        stalled: Some(stalled),
        go_on,
    };
    thread::scope(|scope| {
        let import = scope.spawn(|| {
            let source = Source::Stream {
                name: "test stream".to_owned(),
                reader: Box::new(stalls),
            };
            store.import_with(source, |_| ())
        });
        wait.recv().expect("stalls");
        let came = store.node.content().list(&store.ns).expect("list");
        assert!(!came.is_empty(), "the test stalls it too early");
        let garbage = store.blob("nobody's", &[]);
        store.node.gc(false).expect("collect");
        assert!(!store.has(&garbage));
        assert!(came.iter().all(|blob| store.has(&blob.digest)));
        let_go.send(()).expect("the import waits");
        import.join().expect("no panic").expect("imported");
    });
    let image = store.node.image(&store.ns, &name("docker.io/shop/web:1"));
    let image = image.expect("image");
    assert!(image.complete && image.unpacked_size.is_some(), "{image:?}");
    store.node.gc(false).expect("collect");
    assert!(
        store
            .node
            .image(&store.ns, &image.name)
            .expect("image")
            .complete
    );
    let removed = store.node.remove_image(&store.ns, &image.name, false);
    removed.expect("remove");
    store.node.gc(false).expect("collect");
    store.assert_empty();
}

/// Where a collection stands still: everything is read; everything is marked; the first batch is gone.
const STEPS: Range<usize> = 0..3;

/// Has a collection stand still at a step, and lets it go on when `meanwhile` is done. Where it stood, what
/// came of the other, and what it removed.
fn beside<T>(store: &Store, step: usize, meanwhile: impl FnOnce() -> T) -> (GcStep, T, GcReport) {
    let (arrived, wait) = channel();
    let (let_go, go_on) = channel::<()>();
    thread::scope(move |scope| {
        let collection = scope.spawn(move || {
            let mut steps = 0;
            store.node.gc_showing(false, &mut |at| {
                if steps == step {
                    arrived.send(at).expect("the test waits");
                    go_on.recv().expect("the test lets go");
                }
                steps += 1;
            })
        });
        let at = wait.recv().expect("arrives");
        let given = meanwhile();
        let_go.send(()).expect("the collection waits");
        let report = collection.join().expect("no panic").expect("collected");
        (at, given, report)
    })
}

/// More of it than one batch.
fn garbage(store: &Store) -> Vec<Digest> {
    (0..200).map(|n| store.blob(&format!("{n}"), &[])).collect()
}

#[test]
fn garbage_is_held_beside_a_collection_that_stands_still() {
    for step in STEPS {
        let store = Store::new();
        let garbage = garbage(&store);
        let below = store.blob("below", &[]);
        let above = store.blob("above", &[&below]);
        let relied_on = store.blob("relied on", &[]);
        store.snapshot("one", None);
        store.snapshot("two", Some("one"));
        store.snapshot("nobody's", None);
        let (at, (held, found, pins), report) = beside(&store, step, || {
            let caller = store.leased("mine");
            let held = [
                Resource::Content(above.clone()),
                Resource::Snapshot(key("two")),
            ];
            let held = held.map(|resource| {
                let held = store.node.hold_if_there(&caller, &resource);
                held.expect("hold")
            });
            let pins = store.node.pins();
            pins.blob(&store.ns, &relied_on);
            let found = store.has(&relied_on);
            if held[1] {
                let prepared = store.node.snapshots().prepare(
                    &store.ns,
                    &key("mine"),
                    Some(&key("two")),
                    Labels::from([("containerd.io/gc.root".to_owned(), "1".to_owned())]),
                );
                prepared.expect("prepare");
            }
            (held, found, pins)
        });
        match at {
            GcStep::Read | GcStep::Marked(_) => assert_eq!((held, found), ([true, true], true)),
            // It goes by batches; what it came to is gone for everybody.
            GcStep::Left(_) => {}
        }
        let blobs = [&above, &below].map(|digest| store.has(digest));
        assert_eq!(blobs, [held[0]; 2], "{at:?}");
        let snapshots = ["one", "two", "mine"].map(|text| store.has_snapshot(text));
        assert_eq!(snapshots, [held[1]; 3], "{at:?}");
        assert_eq!(store.has(&relied_on), found, "{at:?}");
        drop(pins);
        assert!(!store.has_snapshot("nobody's"), "{at:?}");
        assert!(garbage.iter().all(|digest| !store.has(digest)));
        assert!(report.content.removed >= 200);
    }
}

#[test]
fn images_come_beside_a_collection_that_stands_still() {
    for step in STEPS {
        let store = Store::new();
        let garbage = garbage(&store);
        let named = store.blob("named", &[]);
        let (at, (there, imported), report) = beside(&store, step, || {
            let target = Descriptor::new("text/plain", named.clone(), 5);
            let anybody = Caller::of(store.ns.clone());
            let image = name("docker.io/library/x:1");
            let there = store.has(&named);
            let made = store
                .node
                .image_create(&anybody, &image, target, Labels::new(), None);
            made.expect("image");
            let other = name("docker.io/library/y:1");
            let tagged = store.node.tag(&store.ns, &image, &other, false);
            tagged.expect("tag");
            let deleted = store.node.image_delete(&anybody, &image, None);
            deleted.expect("delete");
            let imported = store.import(simple().path()).expect("import");
            store.blob("fresh", &[]);
            (there, imported)
        });
        match at {
            GcStep::Read | GcStep::Marked(_) => assert!(there, "{at:?}"),
            // As above.
            GcStep::Left(_) => {}
        }
        assert!(!there || store.has(&named), "{at:?}");
        assert!(garbage.iter().all(|digest| !store.has(digest)));
        assert!(report.content.removed >= 200);
        let info = store.node.image(&store.ns, &imported[0].name);
        assert!(info.expect("image").complete);
    }
}

#[test]
fn whoever_let_go_during_a_collection_waits_for_the_next() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let image = name("docker.io/shop/web:1");
    let collections = AtomicUsize::new(0);
    let (arrived, wait) = channel();
    let (let_go, go_on) = channel::<()>();
    thread::scope(|scope| {
        let (store, collections) = (&store, &collections);
        let first = scope.spawn(move || {
            store.node.gc_showing(false, &mut |at| {
                if let GcStep::Marked(_) = at {
                    arrived.send(()).expect("the test waits");
                    go_on.recv().expect("the test lets go");
                }
            })
        });
        wait.recv().expect("arrives");
        let removed = store.node.remove_image(&store.ns, &image, false);
        removed.expect("remove");
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(move || {
                    let report = store.node.gc_showing(false, &mut |at| {
                        if let GcStep::Marked(_) = at {
                            collections.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                    report.expect("collected");
                    // Whoever made it, it is done.
                    store.assert_empty();
                })
            })
            .collect();
        let_go.send(()).expect("the collection waits");
        let report = first.join().expect("no panic").expect("collected");
        assert_eq!(report.content.removed, 0, "it was marked as alive");
        for waiting in waiting {
            waiting.join().expect("no panic");
        }
    });
    assert!((1..=8).contains(&collections.load(Ordering::SeqCst)));
}

#[test]
fn what_a_call_relies_on_stays_with_all_that_it_leads_to() {
    let store = Store::new();
    let below = store.blob("below", &[]);
    let above = store.blob("above", &[&below]);
    store.snapshot("one", None);
    store.snapshot("two", Some("one"));
    let pins = store.node.pins();
    pins.blob(&store.ns, &above);
    pins.snapshot(&store.ns, &key("two"));
    store.node.gc(false).expect("collect");
    assert!(store.has(&above) && store.has(&below));
    assert!(store.has_snapshot("one") && store.has_snapshot("two"));
    // A removal that was asked for waits for the call, and then has its way.
    thread::scope(|scope| {
        let removal = scope.spawn(|| store.node.remove_snapshot(&store.ns, &key("one"), true));
        assert!(store.has_snapshot("one") && store.has_snapshot("two"));
        drop(pins);
        let removed = removal.join().expect("no panic").expect("removed");
        assert_eq!(removed, [key("two"), key("one")]);
    });
    store.node.gc(false).expect("collect");
    store.assert_empty();
}
