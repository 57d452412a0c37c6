//! Several pulls at once, and several namespaces.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use cairn_node::{
    Event, Phase, Progress, RegistryOptions, Sharing, Silent,
    events::{self, What},
};
use cairn_types::{Digest, Namespace};

use crate::{common::*, large, name, noise, pull, push, registry::Registry, request};

#[test]
fn ten_at_once_fetch_and_unpack_each_layer_once() {
    let registry = Registry::start();
    let layout = large(8);
    push(layout.path(), "large", &registry, "large:1");
    let store = Store::new();
    let name = name(&registry, "large:1");
    let fetched = AtomicU64::new(0);
    thread::scope(|scope| {
        for number in 0..10 {
            let (store, name, fetched) = (&store, name.clone(), &fetched);
            scope.spawn(move || {
                let ns = Namespace::parse(["a", "b", "c"][number % 3]).expect("namespace");
                let pulled = store.node.pull(request(&ns, name), &Silent).expect("pull");
                fetched.fetch_add(pulled.fetched_bytes, Ordering::Relaxed);
                assert_eq!(pulled.layers.len(), 1);
            });
        }
    });
    let image = pull(&store, name.clone()).expect("pull").images.remove(0);
    assert_eq!(fetched.load(Ordering::Relaxed), image.content_size);
    for ns in ["a", "b", "c"] {
        let ns = Namespace::parse(ns).expect("namespace");
        let info = store.node.image(&ns, &name).expect("image");
        assert!(info.complete && info.unpacked_size.is_some(), "{info:?}");
    }
    assert_eq!(begun(&store), 1);
}

/// How many unpackings were begun: directories are numbered.
fn begun(store: &Store) -> u64 {
    let next = store.node.snapshots().stage().expect("stage");
    let path = next.dir().path();
    let path = text(&path).strip_suffix("/fs").expect("a tree");
    let number = path.rsplit('/').next().and_then(|name| name.parse().ok());
    number.map(|next: u64| next - 1).expect("a number")
}

/// Whoever waits for another namespace's part of a stack has made its own meanwhile, and keeps it.
#[test]
fn what_images_have_in_common_is_unpacked_once() {
    let registry = Registry::start();
    let base = tar(&[("noise", &noise(8 << 20))]);
    let mut layout = Layout::new();
    for tag in ["one", "two"] {
        let layers = [base.clone(), tar(&[(tag, tag)])];
        let layers = layers.map(|plain| (OCI_LAYER, plain.clone(), plain));
        let manifest = layout.manifest(&host(), &layers);
        layout.name(manifest, tag);
    }
    layout.finish();
    let store = Store::new();
    for tag in ["one", "two"] {
        push(layout.path(), tag, &registry, &format!("both:{tag}"));
    }
    thread::scope(|scope| {
        for (space, tag) in [("a", "one"), ("b", "two")] {
            let (store, name) = (&store, name(&registry, &format!("both:{tag}")));
            scope.spawn(move || {
                let ns = Namespace::parse(space).expect("namespace");
                let pulled = store.node.pull(request(&ns, name), &Silent).expect("pull");
                assert_eq!(pulled.layers.len(), 2);
            });
        }
    });
    assert_eq!(begun(&store), 3);
}

/// Namespaces that have nothing of one another each fetch for themselves, and for nobody else.
#[test]
fn isolated_namespaces_fetch_for_themselves() {
    let registry = Registry::start();
    let layout = large(2);
    push(layout.path(), "large", &registry, "large:1");
    let dir = scratch();
    let mut options =
        cairn_node::NodeOptions::new(dir.path().join("root"), cairn_node::EngineKind::Redb);
    options.sharing = Sharing::Isolated;
    options.registry = RegistryOptions::default();
    let node = cairn_node::Node::open(options).expect("open");
    let name = name(&registry, "large:1");
    for ns in ["a", "b"] {
        let ns = Namespace::parse(ns).expect("namespace");
        let pulled = node
            .pull(request(&ns, name.clone()), &Silent)
            .expect("pull");
        assert_eq!(pulled.fetched_bytes, pulled.images[0].content_size);
    }
    let digest = Digest::sha256(b"nothing of this name");
    assert_eq!(node.content().size_of_any(&digest).expect("look"), None);
}

/// A second namespace gets its layers without their bytes, and with all that is told of them where they come.
#[test]
fn what_is_linked_is_labelled_and_told_of() {
    struct Heard(Mutex<Vec<(Namespace, Digest)>>);
    impl events::Listener for Heard {
        fn hear(&self, event: &Arc<events::Event>) -> bool {
            if let What::ContentCreated { digest, .. } = &event.what {
                let told = (event.ns.clone(), digest.clone());
                self.0.lock().expect("digests").push(told);
            }
            true
        }
    }
    let registry = Registry::start();
    let layout = simple();
    push(layout.path(), "shop/web:1", &registry, "web:1");
    let store = Store::new();
    let name = name(&registry, "web:1");
    let heard = Arc::new(Heard(Mutex::default()));
    let listener: Arc<dyn events::Listener> = heard.clone();
    store.node.listen(&listener);
    for space in ["a", "b"] {
        let ns = Namespace::parse(space).expect("namespace");
        let pulled = store.node.pull(request(&ns, name.clone()), &Silent);
        pulled.expect("pull");
        for (_, packed, plain) in two_layers() {
            let digest = Digest::sha256(&packed);
            let info = store.node.content().info(&ns, &digest).expect("blob");
            let found = info.labels.get("containerd.io/uncompressed");
            assert_eq!(found, Some(&Digest::sha256(&plain).to_string()), "{space}");
            let told = heard.0.lock().expect("digests");
            let told = told
                .iter()
                .filter(|told| **told == (ns.clone(), digest.clone()));
            assert_eq!(told.count(), 1, "{space}");
        }
    }
}

/// So is what was there packed already, while another namespace was finding out.
#[test]
fn what_another_finds_out_is_told_of_what_was_here() {
    /// Calls the first word of a phase, and then goes on when it may.
    struct At<'t> {
        phase: Phase,
        come: &'t AtomicBool,
        may_go_on: &'t AtomicBool,
    }
    impl Progress for At<'_> {
        fn event(&self, event: Event) {
            if matches!(&event, Event::Layer { phase, .. } if *phase == self.phase) {
                self.come.store(true, Ordering::Relaxed);
                wait_for(self.may_go_on);
            }
        }
    }
    fn wait_for(what: &AtomicBool) {
        while !what.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
    }
    let registry = Registry::start();
    let layout = simple();
    push(layout.path(), "shop/web:1", &registry, "web:1");
    let store = Store::new();
    let name = name(&registry, "web:1");
    let [a, b] = ["a", "b"].map(|space| Namespace::parse(space).expect("namespace"));
    let mut packed = request(&b, name.clone());
    packed.unpack = false;
    store.node.pull(packed, &Silent).expect("pull");
    let (unpacking, waiting) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let first = At {
            phase: Phase::Unpack,
            come: &unpacking,
            may_go_on: &waiting,
        };
        let first = scope.spawn(|| store.node.pull(request(&a, name.clone()), &{ first }));
        wait_for(&unpacking);
        let second = At {
            phase: Phase::HereAlready,
            come: &waiting,
            may_go_on: &unpacking,
        };
        let second = store.node.pull(request(&b, name.clone()), &second);
        waiting.store(true, Ordering::Relaxed);
        first.join().expect("no panic").expect("pull");
        second.expect("pull");
    });
    assert_eq!(begun(&store), 2);
    for (_, packed, plain) in two_layers() {
        let info = store.node.content().info(&b, &Digest::sha256(&packed));
        let labels = info.expect("blob").labels;
        let found = labels.get("containerd.io/uncompressed");
        assert_eq!(found, Some(&Digest::sha256(&plain).to_string()));
    }
}
