//! Why a thing is kept: everything that leads to it, and by which way.

use std::{collections::HashMap, iter};

use cairn_types::{ErrorKind, ImageName, IngestRef, LeaseId, Namespace, SnapshotKey};

use super::{
    collection::Collection,
    graph::{Graph, Id},
    item::Item,
    labels,
};
use crate::{Failure, Node, resolve::digest_prefix};

const ATTEMPTED: &str = "find what holds";

/// A thing, and whatever keeps it from being collected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// `image`, `blob`, `snapshot` or `ingest`.
    pub kind: &'static str,
    /// Its name, digest, key or reference.
    pub name: String,
    /// Bytes on disk, as its record has them; of an image none but those of its blobs and layers.
    pub size: u64,
    /// By kind and name. When there are none the next collection removes it.
    pub holders: Vec<Holder>,
}

/// What keeps a thing. It is enough that one does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// `image`, `container`, `bundle`, `lease`, `ingest`; `blob` or `snapshot`, which a label keeps; or
    /// `call`, which is under way.
    pub kind: &'static str,
    /// Its name; of a call what it relies on.
    pub name: String,
    /// The label by which a blob or a snapshot is kept whatever else leads to it.
    pub label: Option<String>,
    /// What lies between it and the thing, on a shortest way: kinds and names.
    pub through: Vec<(&'static str, String)>,
}

/// What holds without being an object of the graph.
pub(super) enum Hold {
    Lease(LeaseId),
    Bundle(String),
}

/// Ways to one object.
pub(super) struct Ways {
    target: Id,
    next: HashMap<Id, Id>,
}

impl Ways {
    fn to(graph: &Graph, target: Id, alone: bool) -> Ways {
        let next = graph.ways_to(target, alone);
        Ways { target, next }
    }

    /// What comes from `id` on until the target, without that.
    fn from(&self, id: Id) -> impl Iterator<Item = Id> + '_ {
        let first = self.next.contains_key(&id).then_some(id);
        let all = iter::successors(first, |at| self.next.get(at).copied());
        all.take_while(|at| *at != self.target)
    }

    /// How long the way from `id` is, if there is one.
    pub(super) fn length(&self, id: Id) -> Option<usize> {
        self.next.contains_key(&id).then(|| self.from(id).count())
    }
}

impl Node {
    /// Whatever a person means by `text` in `ns`, and what keeps it: an image's name; a digest or at least 7
    /// hex digits of one, which may be a blob's and a snapshot's; a snapshot's key; an upload's reference.
    ///
    /// # Errors
    /// `NotFound` when nothing is called so, `InvalidArgument` when several things may be meant.
    pub fn why(&self, ns: &Namespace, text: &str) -> Result<Vec<Kept>, Failure> {
        let collection = self.marked(None, &mut |_| ())?;
        let Some(space) = collection.spaces.get(ns) else {
            return Err(self.nothing_called(ns, text));
        };
        let meant = self.meant(ns, text)?.into_iter();
        let kept = meant.filter_map(|item| {
            let id = space.graph.find(&item)?;
            Some(self.held_by(ns, &collection, &space.graph, id))
        });
        let kept: Vec<Kept> = kept.collect();
        if kept.is_empty() {
            return Err(self.nothing_called(ns, text));
        }
        Ok(kept)
    }

    /// What keeps a snapshot, itself or through what stands on it, and is no snapshot.
    pub(crate) fn held_through(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
    ) -> Result<Vec<Holder>, Failure> {
        let collection = self.marked(None, &mut |_| ())?;
        let Some(space) = collection.spaces.get(ns) else {
            return Ok(Vec::new());
        };
        let Some(id) = space.graph.find(&Item::Snapshot(key.clone())) else {
            return Ok(Vec::new());
        };
        let mut holders = self.held_by(ns, &collection, &space.graph, id).holders;
        holders.retain(|holder| !matches!(holder.kind, "snapshot" | "call"));
        Ok(holders)
    }

    /// What may be called so, whether it is there or not.
    fn meant(&self, ns: &Namespace, text: &str) -> Result<Vec<Item>, Failure> {
        let mut items = Vec::new();
        let exact = ImageName::parse(text).ok();
        let whole = ImageName::normalize(text).ok();
        items.extend(exact.clone().map(Item::Image));
        items.extend(
            whole
                .filter(|name| Some(name) != exact.as_ref())
                .map(Item::Image),
        );
        if digest_prefix(text).is_some() {
            items.extend(found(self.resolve_digest(ns, text, ATTEMPTED))?.map(Item::Blob));
            items.extend(found(self.resolve_snapshot(ns, text, ATTEMPTED))?.map(Item::Snapshot));
        } else {
            items.extend(SnapshotKey::parse(text).ok().map(Item::Snapshot));
        }
        items.extend(IngestRef::parse(text).ok().map(Item::Ingest));
        Ok(items)
    }

    fn nothing_called(&self, ns: &Namespace, text: &str) -> Failure {
        if let Ok(name) = ImageName::normalize(text) {
            let failure = self.no_such_image(ns, &name, ATTEMPTED);
            if let Some(other) = failure.found_in.first().cloned() {
                return failure.next(format!("cairn -n {other} why {name}"));
            }
        }
        let reason = "no image, blob, snapshot or upload is called so";
        Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
            .object("object", text)
            .namespace(ns)
            .next("cairn images ls; cairn content ls; cairn snapshots ls; cairn content ingests")
    }

    fn held_by(&self, ns: &Namespace, collection: &Collection, graph: &Graph, id: Id) -> Kept {
        let (whole, alone) = (Ways::to(graph, id, false), Ways::to(graph, id, true));
        let name = |id: Id| graph.item(id).named();
        let mut holders = Vec::new();
        for root in graph.roots().filter(|root| whole.length(*root).is_some()) {
            let (kind, holder) = name(root);
            holders.push(Holder {
                kind,
                name: holder,
                label: self.root_label(ns, graph.item(root)),
                through: whole.from(root).skip(1).map(name).collect(),
            });
        }
        for (hold, first) in collection.held(ns, &whole, &alone) {
            let (kind, holder) = match hold {
                Hold::Lease(id) => ("lease", id.to_string()),
                Hold::Bundle(dir) => ("bundle", dir),
            };
            holders.push(Holder {
                kind,
                name: holder,
                label: None,
                through: whole.from(first).map(name).collect(),
            });
        }
        for (_, item) in self.pinned_in(ns) {
            let Some(pinned) = graph.find(&item).filter(|id| whole.length(*id).is_some()) else {
                continue;
            };
            holders.push(Holder {
                kind: "call",
                name: name(pinned).1,
                label: None,
                through: whole.from(pinned).map(name).collect(),
            });
        }
        holders.sort();
        let (kind, name) = name(id);
        Kept {
            kind,
            name,
            size: graph.size(id),
            holders,
        }
    }

    fn pinned_in(&self, ns: &Namespace) -> impl Iterator<Item = super::Place> {
        let ns = ns.clone();
        let pinned = self.inner.pins.pinned().into_iter();
        pinned.filter(move |(of, _)| *of == ns)
    }

    /// The label that makes it a root, if one does.
    fn root_label(&self, ns: &Namespace, item: &Item) -> Option<String> {
        let labels = match item {
            Item::Blob(digest) => self.content().info(ns, digest).ok()?.labels,
            Item::Snapshot(key) => self.snapshots().stat(ns, key).ok()?.labels,
            Item::Image(_) | Item::Ingest(_) | Item::Container(_) => return None,
        };
        labels::root_key(&labels).map(str::to_owned)
    }
}

/// What was found; that nothing was is no failure.
fn found<T>(result: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(failure) if failure.kind == ErrorKind::NotFound => Ok(None),
        Err(failure) => Err(failure),
    }
}
