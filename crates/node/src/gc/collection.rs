//! One collection's picture of the records: read in parts beside the work, and brought up to whatever
//! changed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use cairn_content::Content;
use cairn_meta::{
    Change, Error, IngestRecord, Key, LeaseRecord, Reader, Record, SnapshotRecord, Table,
    Timestamp, View, Watch, schema,
};
use cairn_snapshot::Snapshots;
use cairn_types::{Digest, IngestRef, LeaseId, Namespace, SnapshotKey};

use super::{
    ATTEMPTED,
    graph::{Graph, Id},
    item::{Facts, Item, Place},
    labels,
    why::{Hold, Ways},
};
use crate::{Failure, Node};

/// How long an upload that no lease holds may rest, in nanoseconds (containerd: 24 hours).
pub(super) const INGEST_LIFE: i64 = 24 * 3600 * 1_000_000_000;
/// Records in one look. With one of the engines nothing is committed during a look.
const PART: usize = 256;

/// A lease and what it holds.
struct Lease {
    expired: bool,
    flat: bool,
    refs: Vec<Id>,
    holds: HashSet<Id>,
}

/// A namespace: its objects and leases.
pub(super) struct Space {
    pub(super) graph: Graph,
    leases: BTreeMap<LeaseId, Lease>,
}

/// All namespaces.
pub(super) struct Collection {
    now: Timestamp,
    content: Content,
    snapshots: Snapshots,
    watch: Watch,
    pub(super) spaces: BTreeMap<Namespace, Space>,
    bundles: HashMap<String, (Namespace, Id)>,
    /// Blobs from which trees may have to be unpacked again, which a power cut has torn or could tear, and those.
    sources: HashMap<Digest, HashSet<(Namespace, Id)>>,
    /// Only these may be dead.
    only: Option<Arc<HashSet<Place>>>,
    marking: bool,
}

impl Collection {
    /// Reads everything. What changes meanwhile is heard of, and told by [`Collection::catch_up`].
    pub(super) fn read(
        node: &Node,
        only: Option<Arc<HashSet<Place>>>,
    ) -> Result<Collection, Failure> {
        let failed = |err: Error| Failure::of(ATTEMPTED, &err);
        let mut collection = Collection {
            now: Timestamp::now(),
            content: node.content().clone(),
            snapshots: node.snapshots().clone(),
            watch: node.meta().watch().map_err(failed)?,
            spaces: BTreeMap::new(),
            bundles: HashMap::new(),
            sources: HashMap::new(),
            only,
            marking: false,
        };
        collection.read_all(node).map_err(failed)?;
        Ok(collection)
    }

    fn read_all(&mut self, node: &Node) -> Result<(), Error> {
        each(node, &schema::IMAGES, |_, (ns, name), image| {
            let facts = Facts::of_image(&image, self.now);
            self.set(ns, Item::Image(name), facts);
            Ok(())
        })?;
        each(node, &schema::BLOB_LINKS, |view, (ns, digest), link| {
            match view.get(&schema::BLOBS, &digest)? {
                Some(blob) => {
                    let facts = Facts::of_blob(&link, blob.size);
                    self.set(ns, Item::Blob(digest), facts);
                }
                // One damaged entry must not keep the others from being collected.
                None => tracing::error!("blob {digest} is damaged: its record is missing"),
            }
            Ok(())
        })?;
        each(node, &schema::SNAPSHOTS, |_, (ns, key), snapshot| {
            self.set_snapshot(ns, key, &snapshot);
            Ok(())
        })?;
        each(node, &schema::CONTAINERS, |_, (ns, id), container| {
            let facts = Facts::of_container(&container);
            self.set(ns, Item::Container(id), facts);
            Ok(())
        })?;
        let mut ingests = Vec::new();
        each(node, &schema::INGESTS, |_, key, ingest| {
            ingests.push((key, ingest));
            Ok(())
        })?;
        for (key, ingest) in ingests {
            self.set_ingest(key, &ingest);
        }
        each(node, &schema::LEASES, |_, (ns, id), lease| {
            self.set_lease(ns, id, &lease);
            Ok(())
        })?;
        each(
            node,
            &schema::LEASE_RESOURCES,
            |_, (ns, id, kind, name), ()| {
                self.hold(ns, &id, &kind, &name);
                Ok(())
            },
        )?;
        each(node, &schema::BUNDLES, |_, dir, bundle| {
            self.set_bundle(dir, bundle);
            Ok(())
        })
    }

    /// Brings the picture up to what changed since the last call. Called in a transaction, it is then
    /// exactly what that transaction finds.
    pub(super) fn catch_up(&mut self) -> Result<(), Error> {
        for change in self.watch.take() {
            self.take(&change)?;
        }
        Ok(())
    }

    fn take(&mut self, change: &Change) -> Result<(), Error> {
        if let Some(change) = change.of(&schema::IMAGES) {
            let ((ns, name), image) = change?;
            let facts = image.map(|image| Facts::of_image(&image, self.now));
            self.set_or_unset(ns, Item::Image(name), facts);
        } else if let Some(change) = change.of(&schema::BLOB_LINKS) {
            let ((ns, digest), link) = change?;
            let item = Item::Blob(digest);
            let size = link.as_ref().map_or(0, |_| self.size_of(&ns, &item));
            let facts = link.map(|link| Facts::of_blob(&link, size));
            self.set_or_unset(ns, item, facts);
        } else if let Some(change) = change.of(&schema::SNAPSHOTS) {
            match change? {
                ((ns, key), Some(snapshot)) => self.set_snapshot(ns, key, &snapshot),
                ((ns, key), None) => self.set_or_unset(ns, Item::Snapshot(key), None),
            }
        } else if let Some(change) = change.of(&schema::CONTAINERS) {
            let ((ns, id), container) = change?;
            let facts = container.map(|container| Facts::of_container(&container));
            self.set_or_unset(ns, Item::Container(id), facts);
        } else if let Some(change) = change.of(&schema::INGESTS) {
            match change? {
                (key, Some(ingest)) => self.set_ingest(key, &ingest),
                ((ns, name), None) => self.set_or_unset(ns, Item::Ingest(name), None),
            }
        } else if let Some(change) = change.of(&schema::LEASES) {
            match change? {
                ((ns, id), Some(lease)) => self.set_lease(ns, id, &lease),
                ((ns, id), None) => {
                    self.space(ns).leases.remove(&id);
                }
            }
        } else if let Some(change) = change.of(&schema::LEASE_RESOURCES) {
            match change? {
                ((ns, id, kind, name), Some(())) => self.hold(ns, &id, &kind, &name),
                ((ns, id, kind, name), None) => self.let_go(ns, &id, &kind, &name),
            }
        } else if let Some(change) = change.of(&schema::BUNDLES) {
            match change? {
                (dir, Some(bundle)) => self.set_bundle(dir, bundle),
                (dir, None) => {
                    self.bundles.remove(&dir);
                }
            }
        }
        Ok(())
    }

    fn space(&mut self, ns: Namespace) -> &mut Space {
        let (now, marking) = (self.now, self.marking);
        self.spaces.entry(ns).or_insert_with(|| Space {
            graph: Graph::new(now, marking),
            leases: BTreeMap::new(),
        })
    }

    fn set(&mut self, ns: Namespace, item: Item, mut facts: Facts) {
        if let Some(only) = &self.only {
            let place = (ns, item);
            facts.root |= !only.contains(&place);
            let (ns, item) = place;
            self.space(ns).graph.set(item, facts);
        } else {
            self.space(ns).graph.set(item, facts);
        }
    }

    fn set_or_unset(&mut self, ns: Namespace, item: Item, facts: Option<Facts>) {
        match facts {
            Some(facts) => self.set(ns, item, facts),
            None => self.space(ns).graph.unset(&item),
        }
    }

    /// One that may be torn needs its layer, whatever else does. One that is whole and not known to be on the disk
    /// does not: it is put there before its layer goes.
    fn set_snapshot(&mut self, ns: Namespace, key: SnapshotKey, record: &SnapshotRecord) {
        let mut facts = Facts::of_snapshot(record);
        let item = Item::Snapshot(key);
        if let Some(blob) = &record.blob {
            let unproven = self.snapshots.is_unproven(record);
            if unproven {
                facts.refs.push(Item::Blob(blob.clone()));
            }
            let is_source = unproven || !record.durable;
            if is_source || self.sources.contains_key(blob) {
                let id = self.space(ns.clone()).graph.id(item.clone());
                let trees = self.sources.entry(blob.clone()).or_default();
                match is_source {
                    true => trees.insert((ns.clone(), id)),
                    false => trees.remove(&(ns.clone(), id)),
                };
            }
        }
        self.set(ns, item, facts);
    }

    /// Whether a tree is here that may have to be unpacked again from this blob, in whichever namespace: the last
    /// one that has the blob need not be the one that has the tree. A dead one counts as long as it is recorded,
    /// since somebody may take it.
    fn is_source(&self, digest: &Digest) -> bool {
        let is_here = |(ns, id): &(Namespace, Id)| {
            let space = self.spaces.get(ns);
            space.is_some_and(|space| space.graph.is_there(*id))
        };
        self.sources
            .get(digest)
            .is_some_and(|all| all.iter().any(is_here))
    }

    /// What was known of it; of a blob only its label record may change, never its size.
    fn size_of(&mut self, ns: &Namespace, item: &Item) -> u64 {
        let graph = &mut self.space(ns.clone()).graph;
        let id = graph.id(item.clone());
        let known = graph.size(id);
        match item {
            // Once marks are made sizes are for the report on what was dead then.
            Item::Blob(digest) if known == 0 && !self.marking => {
                let size = self.content.size_of_any(digest);
                size.ok().flatten().unwrap_or(0)
            }
            _ => known,
        }
    }

    /// One that somebody writes to is alive whatever holds it.
    fn set_ingest(&mut self, key: (Namespace, IngestRef), record: &IngestRecord) {
        let now = self.now.0;
        let rests = |at: Timestamp| now.saturating_sub(at.0) < INGEST_LIFE;
        let recent = || {
            // When bytes last came only its file can tell.
            let status = || self.content.status(&key.0, &key.1);
            rests(record.updated_at) || status().is_ok_and(|info| rests(info.updated_at))
        };
        let root = self.content.is_written(&key) || (!record.leased && recent());
        let facts = Facts::of_ingest(record, root);
        self.set(key.0, Item::Ingest(key.1), facts);
    }

    fn set_lease(&mut self, ns: Namespace, id: LeaseId, record: &LeaseRecord) {
        let (now, marking) = (self.now, self.marking);
        let space = self.space(ns);
        let refs = labels::forward(&record.labels).into_iter();
        let known = space.leases.remove(&id);
        let lease = Lease {
            expired: labels::is_expired(&record.labels, now),
            flat: labels::is_flat(&record.labels),
            refs: refs.map(|item| space.graph.id(item)).collect(),
            // What it holds are records of their own, and may have been read already.
            holds: known.map(|lease| lease.holds).unwrap_or_default(),
        };
        if marking {
            lease.keep(&mut space.graph);
        }
        space.leases.insert(id, lease);
    }

    fn hold(&mut self, ns: Namespace, id: &LeaseId, kind: &str, name: &str) {
        let marking = self.marking;
        let space = self.space(ns);
        let (Some(lease), Some(item)) = (space.leases.get_mut(id), Item::of_resource(kind, name))
        else {
            return;
        };
        let item = space.graph.id(item);
        lease.holds.insert(item);
        if marking {
            lease.keep_one(&mut space.graph, item);
        }
    }

    fn let_go(&mut self, ns: Namespace, id: &LeaseId, kind: &str, name: &str) {
        let space = self.space(ns);
        if let (Some(lease), Some(item)) = (space.leases.get_mut(id), Item::of_resource(kind, name))
        {
            lease.holds.remove(&space.graph.id(item));
        }
    }

    fn set_bundle(&mut self, dir: String, bundle: cairn_meta::BundleRecord) {
        let marking = self.marking;
        let graph = &mut self.space(bundle.namespace.clone()).graph;
        let id = graph.id(Item::Snapshot(bundle.snapshot));
        if marking {
            graph.keep(id);
        }
        self.bundles.insert(dir, (bundle.namespace, id));
    }

    /// Marks everything that is alive, and keeps marks true from now on.
    pub(super) fn mark(&mut self, pinned: Vec<Place>) {
        self.marking = true;
        for space in self.spaces.values_mut() {
            for lease in space.leases.values() {
                lease.keep(&mut space.graph);
            }
            space.graph.mark();
        }
        let bundles: Vec<_> = self.bundles.values().cloned().collect();
        for (ns, id) in bundles {
            self.space(ns).graph.keep(id);
        }
        for place in pinned {
            self.keep(place);
        }
    }

    /// A call relies on it.
    pub(super) fn keep(&mut self, (ns, item): Place) {
        let graph = &mut self.space(ns).graph;
        let id = graph.id(item);
        graph.keep(id);
    }

    /// Leases whose time was over when this began, and still are there.
    pub(super) fn expired(&self) -> Vec<(Namespace, LeaseId)> {
        let all = self.spaces.iter();
        let expired = all.flat_map(|(ns, space)| {
            let leases = space.leases.iter().filter(|(_, lease)| lease.expired);
            leases.map(|(id, _)| (ns.clone(), id.clone()))
        });
        expired.collect()
    }

    /// Whether it is one of those.
    pub(super) fn is_expired(&self, (ns, id): &(Namespace, LeaseId)) -> bool {
        let space = self.spaces.get(ns);
        let lease = space.and_then(|space| space.leases.get(id));
        lease.is_some_and(|lease| lease.expired)
    }

    /// What holds it in `ns`, beside the records that are alive by themselves: what kind of thing, its name,
    /// and where its shortest way there begins.
    pub(super) fn held(&self, ns: &Namespace, whole: &Ways, alone: &Ways) -> Vec<(Hold, Id)> {
        let mut held = Vec::new();
        let space = self.spaces.get(ns);
        for (id, lease) in space.iter().flat_map(|space| &space.leases) {
            let (ways, refs) = match lease.flat {
                true => (alone, None),
                false => (whole, Some(&lease.refs)),
            };
            let leads = lease.holds.iter().chain(refs.into_iter().flatten());
            let lengths = leads.filter_map(|id| Some((ways.length(*id)?, *id)));
            if let Some((_, first)) = lengths.min().filter(|_| !lease.expired) {
                held.push((Hold::Lease(id.clone()), first));
            }
        }
        for (dir, (of, id)) in &self.bundles {
            if of == ns && whole.length(*id).is_some() {
                held.push((Hold::Bundle(dir.clone()), *id));
            }
        }
        held
    }

    /// What is dead, each before all that it would keep alive.
    pub(super) fn dead(&self) -> Vec<(Namespace, Id)> {
        let all = self.spaces.iter();
        let dead = all.flat_map(|(ns, space)| {
            let dead = space.graph.dead().into_iter();
            dead.map(|id| (ns.clone(), id))
        });
        dead.collect()
    }

    /// The namespaces that have it. (Asking the records would be a look for each namespace there is.)
    pub(super) fn holders(&self, item: &Item) -> Vec<Namespace> {
        let all = self.spaces.iter();
        let holders = all.filter(|(_, space)| space.graph.has(item));
        holders.map(|(ns, _)| ns.clone()).collect()
    }

    /// Its name, if it is dead still.
    pub(super) fn if_dead(&self, (ns, id): &(Namespace, Id)) -> Option<Place> {
        let graph = &self.spaces.get(ns)?.graph;
        let dead = graph.is_dead(*id);
        dead.then(|| (ns.clone(), graph.item(*id).clone()))
    }

    /// Its name, if it is dead still and may go now.
    pub(super) fn condemned(&self, one: &(Namespace, Id)) -> Option<Place> {
        let place = self.if_dead(one)?;
        match &place.1 {
            Item::Blob(digest) if self.is_source(digest) => None,
            _ => Some(place),
        }
    }

    /// Of what is dead, what had to wait for trees that go as well.
    pub(super) fn put_off(&self, dead: &[(Namespace, Id)]) -> Vec<(Namespace, Id)> {
        let is_source = |one: &&(Namespace, Id)| match self.if_dead(one) {
            Some((_, Item::Blob(digest))) => self.sources.contains_key(&digest),
            _ => false,
        };
        match self.sources.is_empty() {
            true => Vec::new(),
            false => dead.iter().filter(is_source).cloned().collect(),
        }
    }
}

impl Lease {
    fn keep(&self, graph: &mut Graph) {
        for id in &self.holds {
            self.keep_one(graph, *id);
        }
        if !self.expired && !self.flat {
            for id in &self.refs {
                graph.keep(*id);
            }
        }
    }

    fn keep_one(&self, graph: &mut Graph, id: Id) {
        match (self.expired, self.flat) {
            (true, _) => {}
            (false, true) => graph.keep_alone(id),
            (false, false) => graph.keep(id),
        }
    }
}

/// Goes through a table in parts, each with a look of its own.
pub(super) fn each<K: Key + Clone, V: Record>(
    node: &Node,
    table: &'static Table<K, V>,
    mut take: impl FnMut(&Reader<'_>, K, V) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut last: Option<K> = None;
    loop {
        let count = node.meta().read(|view| {
            let part = view.part(table, last.as_ref(), PART)?;
            let count = part.len();
            for (key, value) in part {
                last = Some(key.clone());
                take(view, key, value)?;
            }
            Ok::<_, Error>(count)
        })?;
        if count < PART {
            return Ok(());
        }
    }
}
