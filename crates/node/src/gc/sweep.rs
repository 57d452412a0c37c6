//! Removing what is dead, a little at a time.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cairn_content::Content;
use cairn_meta::{Tx, View, schema};
use cairn_snapshot::{Erased, Snapshots};
use cairn_sys::{
    fault::{self, Flaw},
    steer,
};
use cairn_types::{Digest, ImageName, LeaseId, Namespace, SnapshotKey};

use super::{
    ATTEMPTED, GcReport,
    collection::Collection,
    graph::Id,
    item::{Item, Place},
    pins::Judge,
};
use crate::{
    Failure, Node,
    events::{Event, What},
};

/// Removals in one transaction at first. Whoever changes something waits for one at most, so their
/// number follows the time that they take; fewer would only make more commits, whose time is the
/// disk's.
const BATCH: usize = 64;
const BATCH_MAX: usize = 256;
/// How long one transaction should take, roughly.
const WANTED: Duration = Duration::from_millis(20);

/// A collection on its way out.
pub(super) struct Sweep<'n> {
    node: &'n Node,
    collection: Arc<Mutex<Collection>>,
    batch: usize,
    pub(super) report: GcReport,
}

/// What a transaction removed, and what of it is left to do when that is on the disk.
enum Removed {
    Image(Namespace, ImageName),
    Snapshot(Namespace, SnapshotKey, Box<Erased>),
    /// Whether no namespace has it any more.
    Blob(Digest, bool, u64),
    Ingest(u64),
}

fn lock(collection: &Mutex<Collection>) -> MutexGuard<'_, Collection> {
    collection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'n> Sweep<'n> {
    pub(super) fn new(node: &'n Node, collection: Collection) -> Sweep<'n> {
        Sweep {
            node,
            collection: Arc::new(Mutex::new(collection)),
            batch: BATCH,
            report: GcReport::default(),
        }
    }

    /// Removes leases past their time.
    pub(super) fn leases(&mut self, expired: &[(Namespace, LeaseId)]) -> Result<(), Failure> {
        let mut left = expired;
        while !left.is_empty() {
            let batch;
            (batch, left) = left.split_at(self.batch.min(left.len()));
            let (batch, collection) = (batch.to_vec(), Arc::clone(&self.collection));
            let removed = self.write(move |tx| {
                let mut collection = lock(&collection);
                collection.catch_up()?;
                let mut removed = 0;
                for key in batch {
                    // One of that name may be new.
                    if !collection.is_expired(&key) {
                        continue;
                    }
                    for (resource, ()) in tx.scan(&schema::LEASE_RESOURCES, &key)? {
                        tx.delete(&schema::LEASE_RESOURCES, &resource)?;
                    }
                    tx.delete(&schema::LEASES, &key)?;
                    removed += 1;
                }
                Ok(removed)
            })?;
            self.report.leases.removed += removed;
        }
        Ok(())
    }

    /// What can be unpacked again can be so only as long as its layer is here.
    pub(super) fn secure(&self, dead: &[(Namespace, Id)]) -> Result<(), Failure> {
        if self.node.snapshots().waiting().is_empty() {
            return Ok(());
        }
        let collection = lock(&self.collection);
        let going = dead.iter().filter_map(|one| collection.if_dead(one));
        let going = going.collect();
        drop(collection);
        self.node.secure(&going)
    }

    /// Blobs that had to wait for the trees that may be unpacked from them.
    pub(super) fn put_off(&self, dead: &[(Namespace, Id)]) -> Vec<(Namespace, Id)> {
        lock(&self.collection).put_off(dead)
    }

    /// Removes what is dead, in the order given, if it is dead still. Told `removed` how many are left
    /// after each transaction.
    pub(super) fn items(
        &mut self,
        dead: &[(Namespace, Id)],
        removed: &mut dyn FnMut(usize),
    ) -> Result<(), Failure> {
        let mut left = dead;
        while !left.is_empty() {
            let batch;
            (batch, left) = left.split_at(self.batch.min(left.len()));
            let gone = self.batch(batch.to_vec())?;
            self.mark(&gone);
            for gone in gone {
                self.finish(gone);
            }
            removed(left.len());
        }
        Ok(())
    }

    fn batch(&mut self, batch: Vec<(Namespace, Id)>) -> Result<Vec<Removed>, Failure> {
        // Most of it now, so that little is left to do on the thread that others wait for.
        let caught_up = lock(&self.collection).catch_up();
        caught_up.map_err(|err| Failure::of(ATTEMPTED, &err))?;
        // Whoever wants to rely on any of these from here on waits until they are gone for good.
        let sentence = self.node.inner.pins.sentence();
        let (judge, collection) = (sentence.judge(), Arc::clone(&self.collection));
        let removed = self.write(move |tx| {
            let mut collection = lock(&collection);
            if !fault::has(Flaw::StaleMarks) {
                collection.catch_up()?;
            }
            let condemned = condemn(&mut collection, &judge, &batch);
            let mut removed = Vec::with_capacity(condemned.len());
            for ((ns, item), id) in condemned {
                let size = collection
                    .spaces
                    .get(&ns)
                    .map_or(0, |space| space.graph.size(id));
                let holders = match &item {
                    Item::Blob(_) | Item::Snapshot(_) => collection.holders(&item),
                    _ => Vec::new(),
                };
                removed.extend(remove(tx, ns, item, size, &holders)?);
            }
            Ok(removed)
        });
        steer::point("removed");
        drop(sentence);
        steer::point("files");
        removed
    }

    /// One transaction, whose length decides on that of the next.
    fn write<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, cairn_meta::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let began = Instant::now();
        let written = self.node.meta().write(change);
        let took = began.elapsed();
        self.report.pause = self.report.pause.max(took);
        self.batch = match took {
            took if took > WANTED * 2 => (self.batch / 2).max(BATCH),
            took if took < WANTED / 2 => (self.batch * 2).min(BATCH_MAX),
            _ => self.batch,
        };
        written.map_err(|err| Failure::of(ATTEMPTED, &err))
    }

    /// All of a batch at once: the files of the last may have to wait for those of a large tree.
    fn mark(&self, gone: &[Removed]) {
        for gone in gone {
            match gone {
                Removed::Image(..) | Removed::Blob(_, false, _) => {}
                Removed::Snapshot(_, _, erased) => {
                    self.node.snapshots().mark_leaving([&**erased]);
                }
                Removed::Blob(digest, true, _) => self.node.content().mark_left([digest]),
                Removed::Ingest(id) => self.node.content().mark_ending([*id]),
            }
        }
    }

    /// Files go after records.
    fn finish(&mut self, removed: Removed) {
        let (node, report) = (self.node, &mut self.report);
        match removed {
            Removed::Image(ns, name) => {
                report.images.removed += 1;
                node.happened(Event::of(&ns, What::ImageDeleted { name }));
            }
            Removed::Snapshot(ns, key, erased) => {
                report.snapshots.removed += 1;
                report.snapshots.freed += erased.freed();
                node.snapshots().remove_erased(&erased);
                node.happened(Event::of(&ns, What::SnapshotRemoved { key }));
            }
            Removed::Blob(digest, last, size) => {
                report.content.removed += 1;
                if last {
                    report.content.freed += size;
                    node.content().remove_unrecorded(&digest);
                }
            }
            Removed::Ingest(id) => {
                report.ingests.removed += 1;
                report.ingests.freed += node.content().ingest_bytes(id);
                node.content().remove_ingest(id);
            }
        }
    }
}

/// What of a batch is dead still, now that nobody can pin any of it.
fn condemn(
    collection: &mut Collection,
    judge: &Judge,
    batch: &[(Namespace, Id)],
) -> Vec<(Place, Id)> {
    judge.condemn(|pinned| {
        if !fault::has(Flaw::UnseenPins) {
            for place in pinned {
                collection.keep(place.clone());
            }
        }
        let dead = batch.iter().filter_map(|node| {
            let place = collection.condemned(node)?;
            Some((place, node.1))
        });
        dead.collect()
    })
}

/// Removes one object's record; nothing where there is none.
fn remove(
    tx: &mut Tx<'_>,
    ns: Namespace,
    item: Item,
    size: u64,
    holders: &[Namespace],
) -> Result<Option<Removed>, cairn_meta::Error> {
    let given_up = |what: &dyn std::fmt::Display, err: &dyn std::fmt::Display| {
        tracing::warn!("collect {what}: {err}");
        Ok(None)
    };
    match item {
        Item::Image(name) => {
            let key = (ns, name);
            tx.delete(&schema::IMAGES, &key)?;
            Ok(Some(Removed::Image(key.0, key.1)))
        }
        Item::Snapshot(key) => match Snapshots::erase_among(tx, (ns.clone(), key.clone()), holders)
        {
            Ok(erased) => Ok(Some(Removed::Snapshot(ns, key, Box::new(erased)))),
            Err(cairn_snapshot::Error::Meta(err)) => Err(err),
            // It has children that no record of theirs speaks of, say. The others can still go.
            Err(err) => given_up(&key, &err),
        },
        Item::Blob(digest) => {
            let key = (ns, digest);
            match Content::unlink(tx, &key, holders) {
                Ok(last) => Ok(last.map(|last| Removed::Blob(key.1, last, size))),
                Err(cairn_content::Error::Meta(err)) => Err(err),
                Err(err) => given_up(&key.1, &err),
            }
        }
        Item::Ingest(reference) => {
            let key = (ns, reference);
            match Content::forget(tx, &key) {
                Ok(id) => Ok(id.map(Removed::Ingest)),
                Err(cairn_content::Error::Meta(err)) => Err(err),
                Err(err) => given_up(&key.1, &err),
            }
        }
        Item::Container(_) => Ok(None),
    }
}
