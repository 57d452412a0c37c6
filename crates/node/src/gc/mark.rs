//! Which objects of a namespace are referred to.

use std::collections::{HashMap, HashSet};

use cairn_content::{BlobInfo, IngestInfo};
use cairn_meta::{ContainerRecord, ImageRecord, Timestamp, View, schema};
use cairn_snapshot::SnapshotInfo;
use cairn_types::{
    Classified, Digest, ImageName, IngestRef, Labels, LeaseId, Namespace, SnapshotKey,
};

use super::{ATTEMPTED, labels};
use crate::{Failure, Node};

/// How long an upload that no lease holds may rest, in nanoseconds (containerd: 24 hours).
const INGEST_LIFE: i64 = 24 * 3600 * 1_000_000_000;

/// Something that may be referred to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Item {
    Blob(Digest),
    Snapshot(SnapshotKey),
    Image(ImageName),
    Ingest(IngestRef),
    Container(String),
}

impl Item {
    /// For messages and tests.
    #[cfg(test)]
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Item::Blob(_) => "content",
            Item::Snapshot(_) => "snapshot",
            Item::Image(_) => "image",
            Item::Ingest(_) => "ingest",
            Item::Container(_) => "container",
        }
    }
}

/// Everything of one namespace, and what of it is referred to.
pub(crate) struct Marked {
    pub(crate) ns: Namespace,
    pub(crate) blobs: HashMap<Digest, BlobInfo>,
    pub(crate) snapshots: HashMap<SnapshotKey, SnapshotInfo>,
    images: HashMap<ImageName, ImageRecord>,
    ingests: HashMap<IngestRef, IngestInfo>,
    containers: HashMap<String, ContainerRecord>,
    live: HashSet<Item>,
    /// Leases past their time.
    pub(super) expired: Vec<LeaseId>,
    now: Timestamp,
}

/// A lease and what it holds.
type Held = (Labels, Vec<Item>);

impl Node {
    /// Marks every namespace.
    pub(crate) fn mark_all(&self) -> Result<Vec<Marked>, Failure> {
        let namespaces = self.namespaces()?;
        namespaces.into_iter().map(|ns| self.mark(ns)).collect()
    }

    fn mark(&self, ns: Namespace) -> Result<Marked, Failure> {
        let failed = |err: &dyn Classified| Failure::of(ATTEMPTED, err).namespace(&ns);
        let blobs = self.content().list(&ns).map_err(|err| failed(&err))?;
        let ingests = self.content().ingests(&ns).map_err(|err| failed(&err))?;
        let snapshots = self.snapshots().list(&ns).map_err(|err| failed(&err))?;
        let read = self.meta().read(|view| {
            let images = view.scan(&schema::IMAGES, &ns)?;
            let leases = view.scan(&schema::LEASES, &ns)?;
            let resources = view.scan(&schema::LEASE_RESOURCES, &ns)?;
            let bundles = view.scan(&schema::BUNDLES, &())?;
            let containers = view.scan(&schema::CONTAINERS, &ns)?;
            Ok::<_, cairn_meta::Error>((images, leases, resources, bundles, containers))
        });
        let (images, leases, resources, bundles, containers) = read.map_err(|err| failed(&err))?;
        let bundles = bundles
            .into_iter()
            .filter(|(_, bundle)| bundle.namespace == ns);
        let bundles: Vec<Item> = bundles
            .map(|(_, bundle)| Item::Snapshot(bundle.snapshot))
            .collect();
        let mut marked = Marked {
            blobs: blobs
                .into_iter()
                .map(|info| (info.digest.clone(), info))
                .collect(),
            snapshots: snapshots
                .into_iter()
                .map(|info| (info.key.clone(), info))
                .collect(),
            images: images
                .into_iter()
                .map(|((_, name), record)| (name, record))
                .collect(),
            ingests: ingests
                .into_iter()
                .map(|info| (info.reference.clone(), info))
                .collect(),
            containers: containers
                .into_iter()
                .map(|((_, id), record)| (id, record))
                .collect(),
            live: HashSet::new(),
            expired: Vec::new(),
            now: Timestamp::now(),
            ns,
        };
        let mut held: HashMap<LeaseId, Held> = leases
            .into_iter()
            .map(|((_, id), lease)| (id, (lease.labels, Vec::new())))
            .collect();
        for ((_, lease, kind, id), ()) in resources {
            if let Some((_, items)) = held.get_mut(&lease) {
                items.extend(resource(&kind, &id));
            }
        }
        marked.run(bundles, held);
        Ok(marked)
    }
}

/// A lease's resource by its type and id.
fn resource(kind: &str, id: &str) -> Option<Item> {
    match kind {
        "content" => Digest::parse(id).ok().map(Item::Blob),
        "ingests" => IngestRef::parse(id).ok().map(Item::Ingest),
        "images" => ImageName::parse(id).ok().map(Item::Image),
        "snapshots/overlayfs" => SnapshotKey::parse(id).ok().map(Item::Snapshot),
        _ => None,
    }
}

impl Marked {
    /// Whether anything leads to it.
    pub(super) fn is_live(&self, item: &Item) -> bool {
        self.live.contains(item)
    }

    /// Whether anything leads to the blob.
    pub(crate) fn has_blob(&self, digest: &Digest) -> bool {
        self.live.contains(&Item::Blob(digest.clone()))
    }

    /// Whether anything leads to the snapshot.
    pub(crate) fn has_snapshot(&self, key: &SnapshotKey) -> bool {
        self.live.contains(&Item::Snapshot(key.clone()))
    }

    /// How many images there are.
    pub(crate) fn image_count(&self) -> u64 {
        self.images.len() as u64
    }

    /// Images that nothing leads to: their time is over.
    pub(super) fn dead_images(&self) -> Vec<(ImageName, Digest)> {
        let dead = self
            .images
            .iter()
            .filter(|(name, _)| !self.is_live(&Item::Image((*name).clone())));
        dead.map(|(name, record)| (name.clone(), record.target.digest.clone()))
            .collect()
    }

    /// Uploads that nobody will go on with.
    pub(super) fn dead_ingests(&self) -> Vec<&IngestInfo> {
        let is_dead = |info: &&IngestInfo| !self.is_live(&Item::Ingest(info.reference.clone()));
        self.ingests.values().filter(is_dead).collect()
    }

    fn run(&mut self, bundles: Vec<Item>, leases: HashMap<LeaseId, Held>) {
        let back = self.back_references();
        let (mut queue, mut flat) = (bundles, Vec::new());
        for (id, (labels, items)) in leases {
            if labels::is_expired(&labels, self.now) {
                self.expired.push(id);
            } else if labels::is_flat(&labels) {
                flat.extend(items);
            } else {
                queue.extend(items);
                queue.extend(labels::forward(&labels));
            }
        }
        queue.extend(self.roots());
        self.follow(queue, &back);
        self.keep_flat(flat);
    }

    fn roots(&self) -> Vec<Item> {
        let now = self.now;
        let images = self
            .images
            .iter()
            .filter(|(_, image)| !labels::is_expired(&image.labels, now));
        let blobs = self
            .blobs
            .iter()
            .filter(|(_, blob)| labels::is_root(&blob.labels));
        let snapshots = self
            .snapshots
            .iter()
            .filter(|(_, s)| labels::is_root(&s.labels));
        let rests = |info: &IngestInfo| now.0.saturating_sub(info.updated_at.0) < INGEST_LIFE;
        let ingests = self
            .ingests
            .iter()
            .filter(|(_, info)| !info.leased && rests(info));
        images
            .map(|(name, _)| Item::Image(name.clone()))
            .chain(blobs.map(|(digest, _)| Item::Blob(digest.clone())))
            .chain(snapshots.map(|(key, _)| Item::Snapshot(key.clone())))
            .chain(ingests.map(|(reference, _)| Item::Ingest(reference.clone())))
            .chain(self.containers.keys().map(|id| Item::Container(id.clone())))
            .collect()
    }

    /// From each object to those that live as long as it does.
    fn back_references(&self) -> HashMap<Item, Vec<Item>> {
        let mut back: HashMap<Item, Vec<Item>> = HashMap::new();
        let mut add = |labels: &Labels, item: Item| {
            for owner in labels::back(labels) {
                back.entry(owner).or_default().push(item.clone());
            }
        };
        for (digest, info) in &self.blobs {
            add(&info.labels, Item::Blob(digest.clone()));
        }
        for (key, info) in &self.snapshots {
            add(&info.labels, Item::Snapshot(key.clone()));
        }
        for (name, record) in &self.images {
            add(&record.labels, Item::Image(name.clone()));
        }
        back
    }

    /// Marks everything that can be reached from `queue`.
    fn follow(&mut self, mut queue: Vec<Item>, back: &HashMap<Item, Vec<Item>>) {
        while let Some(item) = queue.pop() {
            if self.live.contains(&item) {
                continue;
            }
            queue.extend(back.get(&item).into_iter().flatten().cloned());
            queue.extend(self.references(&item));
            self.live.insert(item);
        }
    }

    /// What one object keeps alive.
    fn references(&self, item: &Item) -> Vec<Item> {
        let (labels, mut next) = match item {
            Item::Blob(digest) => match self.blobs.get(digest) {
                Some(info) => (&info.labels, Vec::new()),
                None => return Vec::new(),
            },
            Item::Snapshot(key) => match self.snapshots.get(key) {
                Some(info) => (
                    &info.labels,
                    info.parent.iter().cloned().map(Item::Snapshot).collect(),
                ),
                None => return Vec::new(),
            },
            Item::Image(name) => match self.images.get(name) {
                Some(record) => (
                    &record.labels,
                    vec![Item::Blob(record.target.digest.clone())],
                ),
                None => return Vec::new(),
            },
            Item::Ingest(reference) => {
                let expected = self
                    .ingests
                    .get(reference)
                    .and_then(|info| info.expected.clone());
                return expected.map(Item::Blob).into_iter().collect();
            }
            Item::Container(id) => match self.containers.get(id) {
                // It does not hold its image, only what it stands on.
                Some(record) => {
                    let key = SnapshotKey::parse(&record.snapshot_key).ok();
                    (
                        &record.labels,
                        key.map(Item::Snapshot).into_iter().collect(),
                    )
                }
                None => return Vec::new(),
            },
        };
        next.extend(labels::forward(labels));
        if matches!(item, Item::Blob(_) | Item::Image(_)) {
            for conditional in labels::conditional(labels) {
                let snapshot = self.snapshots.get(&conditional.key);
                if snapshot.is_some_and(|s| conditional.holds(&s.labels, self.now)) {
                    next.push(Item::Snapshot(conditional.key));
                }
            }
        }
        next
    }

    /// A flat lease holds its resources alone, not what they refer to. A snapshot still cannot be
    /// without its parents, nor an image without its target.
    fn keep_flat(&mut self, flat: Vec<Item>) {
        for item in flat {
            match &item {
                Item::Snapshot(key) => {
                    let mut next = Some(key.clone());
                    while let Some(key) = next {
                        next = self
                            .snapshots
                            .get(&key)
                            .and_then(|info| info.parent.clone());
                        if !self.live.insert(Item::Snapshot(key)) {
                            break;
                        }
                    }
                }
                Item::Image(name) => {
                    let target = self.images.get(name).map(|r| r.target.digest.clone());
                    self.live.extend(target.map(Item::Blob));
                    self.live.insert(item);
                }
                _ => {
                    self.live.insert(item);
                }
            }
        }
    }

    /// How many parents a snapshot has.
    pub(super) fn depth(&self, info: &SnapshotInfo) -> usize {
        let mut depth = 0;
        let mut parent = info.parent.as_ref();
        while let Some(info) = parent.and_then(|key| self.snapshots.get(key)) {
            depth += 1;
            // A loop is outside damage; it must not keep us here.
            if depth > self.snapshots.len() {
                break;
            }
            parent = info.parent.as_ref();
        }
        depth
    }
}
