//! Pulls that are slow, by their registry's or their own choice, beside others.

use std::{
    collections::HashSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use cairn_node::{Event, Phase, Progress, PullRequest, Pulled, RegistryOptions, Silent};
use cairn_types::{Digest, ErrorKind, ImageName, Namespace};

use crate::{
    common::*, image_of, large, name, noise, push, registry::Registry, request, slow::Narrow,
};

/// Bytes a second that no client takes for a broken connection.
const DRIPS: u64 = 20 << 10;

/// Lets a pull go on until it is told.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) stop: AtomicBool,
    pub(crate) asked: AtomicUsize,
    done: Mutex<HashSet<Digest>>,
}

impl Progress for Held {
    fn event(&self, event: Event) {
        match event {
            Event::Asked { .. } => drop(self.asked.fetch_add(1, Ordering::Relaxed)),
            Event::Layer {
                digest,
                phase: Phase::Done,
                ..
            } => drop(self.done.lock().expect("done").insert(digest)),
            _ => {}
        }
    }

    fn given_up(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Has `other` pulled while `slow` has asked for so many blobs, of which none comes to its end meanwhile.
fn beside(store: &Store, slow: PullRequest, asked: usize, other: PullRequest) -> Pulled {
    let held = Held::default();
    thread::scope(|scope| {
        let begun = scope.spawn(|| store.node.pull(slow, &held));
        while held.asked.load(Ordering::Relaxed) < asked {
            assert!(!begun.is_finished(), "{:?}", begun.join());
            thread::sleep(Duration::from_millis(10));
        }
        let pulled = store.node.pull(other, &Silent);
        let done = held.done.lock().expect("done").len();
        held.stop.store(true, Ordering::Relaxed);
        let ended = begun.join().expect("no panic");
        let pulled = pulled.expect("pull");
        assert_eq!(done, 0, "it was waited for");
        assert_eq!(ended.expect_err("stopped").kind, ErrorKind::Canceled);
        pulled
    })
}

fn at(narrow: &Narrow, rest: &str) -> ImageName {
    ImageName::parse(&format!("{}/{rest}", narrow.address)).expect("name")
}

fn of(space: &str, name: ImageName) -> PullRequest {
    request(&Namespace::parse(space).expect("namespace"), name)
}

/// Who names the layers of another image and sends them drop by drop holds nobody up.
fn a_stranger_is_not_waited_for(space: &str) {
    let registry = Registry::start();
    let layout = large(2);
    push(layout.path(), "large", &registry, "large:1");
    let narrow = Narrow::to(&registry, DRIPS, true);
    let store = Store::new();
    let slow = of("slow", at(&narrow, "large:1"));
    let name = name(&registry, "large:1");
    let pulled = beside(&store, slow, 1, of(space, name.clone()));
    assert!(pulled.fetched_bytes > 2 << 20, "{pulled:?}");
    let ns = Namespace::parse(space).expect("namespace");
    let info = store.node.image(&ns, &name).expect("image");
    assert!(info.complete && info.unpacked_size.is_some(), "{info:?}");
    let left = store.node.content().ingests(&ns).expect("uploads");
    let own = left
        .iter()
        .filter(|one| !one.reference.as_str().starts_with("cairn.pull-"));
    assert_eq!(own.count(), 0, "{left:?}");
}

#[test]
fn a_stranger_in_the_same_namespace_is_not_waited_for() {
    a_stranger_is_not_waited_for("slow");
}

#[test]
fn a_stranger_in_another_namespace_is_not_waited_for() {
    a_stranger_is_not_waited_for("other");
}

fn limited(connections: usize) -> Store {
    let store = Store::new();
    store.node.set_registry(RegistryOptions {
        max_concurrent_downloads: connections,
        ..RegistryOptions::default()
    });
    store
}

/// Nobody has all places for himself.
#[test]
fn many_slow_blobs_leave_a_place() {
    let registry = Registry::start();
    let layout = image_of("slow", (0..4).map(|number| noise((1 << 20) + number * 512)));
    push(layout.path(), "slow", &registry, "slow:1");
    push(large(2).path(), "large", &registry, "large:1");
    let narrow = Narrow::to(&registry, DRIPS, true);
    let store = limited(2);
    let slow = of("slow", at(&narrow, "slow:1"));
    beside(&store, slow, 2, of("other", name(&registry, "large:1")));
}

/// Nor does who wants his slowly keep others from theirs, though both want the same.
#[test]
fn who_chose_to_be_slow_is_not_waited_for() {
    let registry = Registry::start();
    push(large(2).path(), "large", &registry, "large:1");
    let store = limited(1);
    let name = name(&registry, "large:1");
    let mut slow = of("slow", name.clone());
    slow.remote.limit_rate = 1;
    let pulled = beside(&store, slow, 1, of("other", name));
    assert!(pulled.fetched_bytes > 2 << 20, "{pulled:?}");
}
