//! Many threads that hold, name, import and let go, over the same few things, with the collector at
//! work all the time. Each checks what it holds; in the end nobody holds anything, and nothing is left.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use cairn_node::{Caller, EngineKind, Node, NodeOptions, Resource};
use cairn_types::{
    Classified, Descriptor, Digest, ErrorKind, ImageName, Labels, LeaseId, SnapshotKey,
};

use crate::common::*;

const REF: &str = "containerd.io/gc.ref.content";
const WORKERS: usize = 8;
const ROUNDS: usize = 40;
/// Few, so that workers meet.
const POOL: usize = 6;
/// Snapshots of a stack that all share.
const STACK: usize = 4;

/// One worker; what it does depends on its number alone.
struct Worker<'a> {
    store: &'a Store,
    layouts: &'a [Layout],
    number: usize,
    dice: u64,
    round: usize,
    /// Things that were checked to be there.
    checked: &'a AtomicUsize,
}

impl Worker<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        usize::try_from(self.dice >> 33).expect("small") % sides
    }

    fn node(&self) -> &Node {
        &self.store.node
    }

    fn fresh(&self, what: &str) -> String {
        format!("{what}-{}-{}", self.number, self.round)
    }

    fn lease(&self) -> Caller {
        let id = LeaseId::parse(&self.fresh("lease")).expect("id");
        let made = self
            .node()
            .lease_create(&self.store.ns, Some(id.clone()), Labels::new());
        made.expect("lease");
        Caller {
            ns: self.store.ns.clone(),
            lease: Some(id.to_string()),
        }
    }

    fn end(&self, caller: &Caller) {
        let id = LeaseId::parse(caller.lease.as_deref().expect("leased")).expect("id");
        self.node()
            .lease_delete(&self.store.ns, &id)
            .expect("end of lease");
    }

    fn hold(&self, caller: &Caller, resource: Resource) {
        self.node().hold(caller, &resource).expect("hold");
    }

    #[track_caller]
    fn check_blob(&self, digest: &Digest, why: &str) {
        let read = self
            .node()
            .content()
            .read_all(&self.store.ns, digest, 1 << 20);
        if let Err(err) = read {
            panic!(
                "{}: {why}: {digest} is held and gone: {err}",
                self.fresh("worker")
            );
        }
        self.checked.fetch_add(1, Ordering::Relaxed);
    }

    #[track_caller]
    fn check_snapshot(&self, key: &SnapshotKey, why: &str) {
        let lowers = self.node().snapshots().lowers(&self.store.ns, key);
        if let Err(err) = lowers {
            panic!(
                "{}: {why}: {key} is held and gone: {err}",
                self.fresh("worker")
            );
        }
        self.checked.fetch_add(1, Ordering::Relaxed);
    }

    /// As a client uploads: told that it is there, or it is stored; in both cases it is held.
    fn upload(&self, caller: &Caller, text: &str, labels: Labels) -> Digest {
        let digest = Digest::sha256(text.as_bytes());
        let content = Resource::Content(digest.clone());
        let there = self.node().hold_if_there(caller, &content).expect("hold");
        if !there {
            self.hold(caller, content);
            let put = self
                .node()
                .content()
                .put(&self.store.ns, text.as_bytes(), None, labels);
            if let Err(err) = put {
                assert_eq!(err.kind(), ErrorKind::AlreadyExists, "{err}");
            }
        }
        self.check_blob(&digest, "uploaded");
        digest
    }

    /// A document over some blobs of the pool; only it is held afterwards.
    fn document(&mut self, caller: &Caller) -> (Digest, Vec<Digest>) {
        let mut children = Vec::new();
        let mut labels = Labels::new();
        for n in 0..2 {
            let text = format!("pool {}", self.roll(POOL));
            let child = self.upload(caller, &text, Labels::new());
            labels.insert(format!("{REF}.{n}"), child.to_string());
            children.push(child);
        }
        // The same documents are made again and again, by all.
        let text = format!("document over {children:?}");
        let document = self.upload(caller, &text, labels);
        for child in &children {
            let resource = Resource::Content(child.clone());
            self.node().let_go(caller, &resource).expect("let go");
        }
        (document, children)
    }

    fn check_document(&self, (document, children): &(Digest, Vec<Digest>), why: &str) {
        self.check_blob(document, why);
        for child in children {
            self.check_blob(child, why);
        }
    }

    fn leases(&mut self) {
        let caller = self.lease();
        let document = self.document(&caller);
        self.check_document(&document, "by a lease");
        thread::yield_now();
        self.check_document(&document, "by a lease, later");
        self.end(&caller);
    }

    /// A name takes over from a lease, and another name from that.
    fn images(&mut self) {
        let caller = self.lease();
        let document = self.document(&caller);
        let first =
            ImageName::parse(&format!("docker.io/{}:1", self.fresh("image"))).expect("name");
        let second =
            ImageName::parse(&format!("docker.io/{}:2", self.fresh("image"))).expect("name");
        let target = Descriptor::new("text/plain", document.0.clone(), 1);
        let anybody = Caller::of(self.store.ns.clone());
        let (node, ns) = (self.node(), &self.store.ns);
        let made = node.image_create(&anybody, &first, target, Labels::new(), None);
        made.expect("image");
        self.end(&caller);
        self.check_document(&document, "by an image");
        node.tag(ns, &first, &second, false).expect("tag");
        node.image_delete(&anybody, &first, None).expect("delete");
        self.check_document(&document, "by another image");
        node.image_delete(&anybody, &second, None).expect("delete");
    }

    /// As a client unpacks: each level is there, or it is prepared and committed under its name.
    fn snapshots(&mut self) {
        let caller = self.lease();
        let (node, ns) = (self.node(), &self.store.ns);
        let mut parent: Option<SnapshotKey> = None;
        for level in 0..STACK {
            let name = SnapshotKey::parse(&format!("level {level}")).expect("key");
            let resource = Resource::Snapshot(name.clone());
            if !node.hold_if_there(&caller, &resource).expect("hold") {
                let work = SnapshotKey::parse(&self.fresh(&format!("work {level}"))).expect("key");
                self.hold(&caller, Resource::Snapshot(work.clone()));
                let prepared = node
                    .snapshots()
                    .prepare(ns, &work, parent.as_ref(), Labels::new());
                prepared.unwrap_or_else(|err| panic!("prepare {work} on {parent:?}: {err}"));
                self.hold(&caller, resource);
                match node.snapshots().commit(ns, &name, &work, Labels::new()) {
                    Ok(()) => {}
                    Err(err) => {
                        // Another was faster; what it made is held here all the same.
                        assert_eq!(err.kind(), ErrorKind::AlreadyExists, "{err}");
                        node.snapshots().remove(ns, &work).expect("remove");
                    }
                }
            }
            self.check_snapshot(&name, "by a lease");
            if let Some(below) = parent.replace(name) {
                // Held by what stands on it.
                node.let_go(&caller, &Resource::Snapshot(below))
                    .expect("let go");
            }
        }
        self.check_snapshot(&parent.expect("top"), "by a lease, with its parents");
        self.end(&caller);
    }

    fn import(&mut self) {
        let which = self.roll(self.layouts.len());
        let (number, round) = (self.number, self.round);
        let source = match self.roll(2) {
            0 => cairn_node::Source::Path(self.layouts[which].path().to_owned()),
            _ => stream(archive_of(self.layouts[which].path())),
        };
        let imported = self.store.import_with(source, |request| {
            request.base_name = Some(format!("docker.io/w{number}/r{round}"));
        });
        let imported = imported.unwrap_or_else(|failure| panic!("import: {failure:?}"));
        let name = imported[0].name.clone();
        let (node, ns) = (self.node(), &self.store.ns);
        for _ in 0..2 {
            let image = node.image(ns, &name).expect("image");
            assert!(image.complete && image.unpacked_size.is_some(), "{image:?}");
            self.checked.fetch_add(1, Ordering::Relaxed);
            thread::yield_now();
        }
        node.remove_image(ns, &name, false).expect("remove");
    }

    /// As a call in this process looks, and relies on what it finds.
    fn pins(&mut self) {
        let pins = self.node().pins();
        let mut found = Vec::new();
        for _ in 0..3 {
            let text = format!("pool {}", self.roll(POOL));
            let digest = Digest::sha256(text.as_bytes());
            let (content, ns) = (self.node().content(), &self.store.ns);
            pins.blob(ns, &digest);
            if !content.exists(ns, &digest).expect("exists")
                && let Err(err) = content.put(ns, text.as_bytes(), None, Labels::new())
            {
                assert_eq!(err.kind(), ErrorKind::AlreadyExists, "{err}");
            }
            self.check_blob(&digest, "pinned");
            found.push(digest);
        }
        // Something that takes a while.
        self.garbage();
        for digest in &found {
            self.check_blob(digest, "pinned, later");
        }
    }

    fn garbage(&mut self) {
        let text = self.fresh("nobody's");
        let put = self
            .node()
            .content()
            .put(&self.store.ns, text.as_bytes(), None, Labels::new());
        put.expect("put");
    }

    fn work(&mut self) {
        for round in 0..ROUNDS {
            self.round = round;
            match self.roll(8) {
                0 | 1 => self.leases(),
                2 => self.images(),
                3 | 4 => self.snapshots(),
                5 => self.import(),
                6 => self.pins(),
                _ => self.garbage(),
            }
        }
    }
}

fn run_with(engine: EngineKind) {
    let mut store = Store::new();
    store.node = Node::open(NodeOptions::new(
        store.dir.path().join(engine.name()),
        engine,
    ))
    .expect("open");
    let layouts: Vec<Layout> = (0..2).map(|number| numbered(number, "latest")).collect();
    let (checked, collections) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (store, checked, done, collections) = (&store, &checked, &done, &collections);
        let workers: Vec<_> = (0..WORKERS)
            .map(|number| {
                let mut worker = Worker {
                    store,
                    layouts: &layouts,
                    number,
                    dice: 0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1),
                    round: 0,
                    checked,
                };
                scope.spawn(move || worker.work())
            })
            .collect();
        scope.spawn(move || {
            while !done.load(Ordering::Relaxed) {
                store.node.gc(false).expect("collect");
                collections.fetch_add(1, Ordering::Relaxed);
            }
        });
        let ends: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(Result::is_ok), "see above");
    });
    assert!(checked.into_inner() > WORKERS * ROUNDS);
    assert!(collections.into_inner() > 1);
    store.node.gc(false).expect("collect");
    store.assert_empty();
    let leases = store.node.leases(&store.ns).expect("leases");
    assert_eq!(leases, []);
}

#[test]
fn nothing_held_is_collected_and_all_else_is() {
    run_with(EngineKind::Redb);
}

#[test]
fn nor_with_the_other_engine() {
    run_with(EngineKind::Sled);
}
