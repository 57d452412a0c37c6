//! Removing what nothing refers to, beside the work.
//!
//! References are containerd's: an image leads to its target, a snapshot to its parent, labels to what
//! they name, forward and back. Roots are images, containers, bundles, leases, uploads under way and
//! whatever carries a `containerd.io/gc.root` label. Blobs without record and directories without
//! snapshot are not looked for here; opening the store removes them.
//!
//! # Why nothing that is held goes
//!
//! Nobody waits for a collection as a whole, so the store changes while it marks and sweeps. That
//! nothing held is removed rests on three things.
//!
//! 1. *The picture is true.* A collection first asks to hear of every change ([`cairn_meta::Watch`]),
//!    then reads all records in parts, then puts the changes over them in order: whatever the parts
//!    saw, the last change of a key says what it is now. Removals happen in transactions, which run
//!    one after another; such a one takes in all changes before it, so that the picture is exactly the
//!    state that it finds. No caller has to remember to tell the collector anything.
//! 2. *Marks only grow, and cover all that is reachable.* They begin with what can be reached from the
//!    roots of one state. A change can make something reachable only by writing a record that refers
//!    to it or makes it a root, and each such record is followed when it is taken in. (What ceases to
//!    be reachable meanwhile stays until the next collection. Times are judged as of the beginning.)
//!    So in each removing transaction whatever has no mark is unreachable, and no record that is
//!    written later can hold what had to be there: it was gone before that.
//! 3. *Who looks before holding says so before looking.* A client's hold is a record, written before
//!    the look or in the same transaction; a call that has none pins what it looks for ([`Pins`]). Pins
//!    are roots, taken in by each removing transaction before it decides, and from then until it is on
//!    the disk a pin on what it decided to remove waits.
//!
//! Things are removed in an order in which each goes before all that it keeps alive. So whatever is
//! still there is there with all that it leads to, and a pin or lease on it holds the whole. (Not
//! within a ring of labels, nor below what a flat lease held: that is what flat means.)
//!
//! `tests/fault` has a collection and those beside it go on one at a time, in every order.
//!
//! Files go after their records, as everywhere. A collection that is cut short leaves files without
//! record, which the next opening sweeps.

mod collection;
mod ends;
mod graph;
mod item;
mod labels;
mod pins;
mod spaces;
mod sweep;
mod turns;
mod why;

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_types::{Digest, Namespace};

use self::{collection::Collection, sweep::Sweep};
pub(crate) use self::{
    item::{Item, Place},
    labels::{EXPIRE, expiry},
    pins::Registry,
    turns::Turns,
};
pub use self::{
    pins::Pins,
    spaces::NamespaceUsage,
    why::{Holder, Kept},
};
use crate::{Failure, Node};

const ATTEMPTED: &str = "collect garbage";

/// How many of one kind, and how much that freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcCount {
    /// Objects.
    pub removed: u64,
    /// Bytes on disk.
    pub freed: u64,
}

impl GcCount {
    fn add(&mut self, bytes: u64) {
        self.removed += 1;
        self.freed += bytes;
    }
}

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Nothing was touched.
    pub dry_run: bool,
    /// Images whose time was over.
    pub images: GcCount,
    /// Blobs.
    pub content: GcCount,
    /// Snapshots.
    pub snapshots: GcCount,
    /// Unfinished uploads.
    pub ingests: GcCount,
    /// Expired leases.
    pub leases: GcCount,
    /// How long it took.
    pub took: Duration,
    /// The longest of its transactions: how long a change may have waited for it at most.
    pub pause: Duration,
}

impl GcReport {
    /// Bytes on disk, all kinds together.
    pub fn freed(&self) -> u64 {
        [self.content, self.snapshots, self.ingests, self.leases]
            .iter()
            .map(|c| c.freed)
            .sum()
    }
}

/// How far a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GcStep {
    /// All records are read.
    Read,
    /// What is alive is marked; so many objects are not.
    Marked(usize),
    /// So many are still to be removed.
    Left(usize),
}

/// Who is told of a collection's steps.
type Observer<'a> = dyn FnMut(GcStep) + 'a;

impl Node {
    /// Removes, in every namespace, what nothing leads to. With `dry_run` only counts.
    ///
    /// Whatever was let go of before this call is gone after it, but for files of snapshots that were removed
    /// by name ([`cairn_snapshot::Snapshots::wait_removed`]). Calls at the same time share a
    /// collection that began after all of them.
    pub fn gc(&self, dry_run: bool) -> Result<GcReport, Failure> {
        self.gc_showing(dry_run, &mut |_| ())
    }

    /// As [`Node::gc`]; `observe` is told of each step, unless the collection is another caller's.
    /// Nobody waits for it but those who wait for this collection.
    pub fn gc_showing(
        &self,
        dry_run: bool,
        observe: &mut Observer<'_>,
    ) -> Result<GcReport, Failure> {
        if dry_run {
            return self.count_garbage();
        }
        self.inner.turns.share(|| self.collect(None, observe))
    }

    /// Tells `observer` of every collection from now on, once, whoever asked for it and however many
    /// share it: its report when it succeeded, and how long it took. Those who asked wait for the
    /// observer, so it must not wait. Only the first observer is told.
    pub fn observe_collections(
        &self,
        observer: impl Fn(Option<&GcReport>, Duration) + Send + Sync + 'static,
    ) {
        let _ = self.inner.turns.observer.set(Box::new(observer));
    }

    /// Removes those of `digests` that nothing there leads to, whether itself held or not.
    pub(crate) fn discard(&self, ns: &Namespace, digests: &[Digest]) -> Result<(), Failure> {
        if digests.is_empty() {
            return Ok(());
        }
        let blobs = digests.iter().cloned().map(Item::Blob);
        let places: HashSet<Place> = blobs.map(|blob| (ns.clone(), blob)).collect();
        self.collect(Some(places), &mut |_| ()).map(drop)
    }

    fn collect(
        &self,
        only: Option<HashSet<Place>>,
        observe: &mut Observer<'_>,
    ) -> Result<GcReport, Failure> {
        let began = Instant::now();
        let all = only.is_none();
        let collection = self.marked(only, observe)?;
        let dead = collection.dead();
        let expired = collection.expired();
        observe(GcStep::Marked(dead.len()));
        let mut sweep = Sweep::new(self, collection);
        if all {
            sweep.leases(&expired)?;
        }
        sweep.secure(&dead)?;
        sweep.items(&dead, &mut |left| observe(GcStep::Left(left)))?;
        let put_off = sweep.put_off(&dead);
        sweep.items(&put_off, &mut |left| observe(GcStep::Left(left)))?;
        self.content().remove_left();
        sweep.report.took = began.elapsed();
        Ok(sweep.report)
    }

    fn marked(
        &self,
        only: Option<HashSet<Place>>,
        observe: &mut Observer<'_>,
    ) -> Result<Collection, Failure> {
        let mut collection = Collection::read(self, only.map(Arc::new))?;
        observe(GcStep::Read);
        let caught_up = collection.catch_up();
        caught_up.map_err(|err| Failure::of(ATTEMPTED, &err))?;
        collection.mark(self.inner.pins.pinned());
        Ok(collection)
    }

    /// What a collection would remove now.
    fn count_garbage(&self) -> Result<GcReport, Failure> {
        let began = Instant::now();
        let usage = self.usage()?;
        let mut report = GcReport {
            dry_run: true,
            ..usage.garbage
        };
        report.took = began.elapsed();
        Ok(report)
    }

    /// Counts what there is, and what of it is garbage.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        let collection = self.marked(None, &mut |_| ())?;
        let mut usage = Usage::default();
        usage.garbage.leases.removed = collection.expired().len() as u64;
        let mut blobs: Shared<&Digest> = Shared::default();
        let mut trees: Shared<u64> = Shared::default();
        for (ns, space) in &collection.spaces {
            let graph = &space.graph;
            for id in graph.all() {
                let (size, dead) = (graph.size(id), graph.is_dead(id));
                usage.add(self, ns, graph.item(id), dead);
                match graph.item(id) {
                    Item::Blob(digest) => blobs.add(digest, size, dead),
                    Item::Snapshot(_) => trees.add(graph.tree(id), size, dead),
                    _ => {}
                }
            }
        }
        let dead;
        (usage.blobs, dead) = blobs.counts();
        usage.dead_blobs = dead.removed;
        usage.garbage.content.freed = dead.freed;
        let (all, dead) = trees.counts();
        usage.snapshots.freed = all.freed;
        usage.garbage.snapshots.freed = dead.freed;
        Ok(usage)
    }
}

/// What several namespaces may have and is there once: its bytes, and whether any of them needs it.
struct Shared<K>(HashMap<K, (u64, bool)>);

impl<K> Default for Shared<K> {
    fn default() -> Shared<K> {
        Shared(HashMap::new())
    }
}

impl<K: Eq + Hash> Shared<K> {
    fn add(&mut self, key: K, size: u64, dead: bool) {
        self.0.entry(key).or_insert((size, false)).1 |= !dead;
    }

    /// All, and those that nobody needs.
    fn counts(self) -> (GcCount, GcCount) {
        let (mut all, mut dead) = (GcCount::default(), GcCount::default());
        for (size, alive) in self.0.into_values() {
            all.add(size);
            if !alive {
                dead.add(size);
            }
        }
        (all, dead)
    }
}

/// What there is, all namespaces together: numbers, and bytes on disk.
#[derive(Default)]
pub(crate) struct Usage {
    pub(crate) images: u64,
    /// Each once, however many namespaces have it.
    pub(crate) blobs: GcCount,
    /// Of those, the ones that no namespace needs.
    pub(crate) dead_blobs: u64,
    /// Of each namespace; the bytes of what several share once.
    pub(crate) snapshots: GcCount,
    /// What a collection would remove.
    pub(crate) garbage: GcReport,
}

impl Usage {
    /// Bytes of what several namespaces may have are counted elsewhere.
    fn add(&mut self, node: &Node, ns: &Namespace, item: &Item, dead: bool) {
        let garbage = &mut self.garbage;
        match item {
            Item::Image(_) => {
                self.images += 1;
                garbage.images.removed += u64::from(dead);
            }
            Item::Blob(_) => garbage.content.removed += u64::from(dead),
            Item::Snapshot(_) => {
                self.snapshots.removed += 1;
                garbage.snapshots.removed += u64::from(dead);
            }
            Item::Ingest(reference) if dead => {
                let status = node.content().status(ns, reference);
                garbage.ingests.add(status.map_or(0, |info| info.offset));
            }
            Item::Ingest(_) | Item::Container(_) => {}
        }
    }
}
