//! What leads where, worked out from the records as plainly as it can be: all of it anew, each time.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use cairn_meta::{
    BlobLink, Change, ImageRecord, IngestRecord, LeaseRecord, SnapshotRecord, schema,
};
use cairn_types::{Digest, ImageName, IngestRef, Labels, LeaseId, Namespace, SnapshotKey};

/// What has expired, and what has not, for as long as this program is tested.
pub const PAST: &str = "2001-01-01T00:00:00Z";
pub const FUTURE: &str = "2101-01-01T00:00:00Z";

pub const ROOT: &str = "containerd.io/gc.root";
pub const EXPIRE: &str = "containerd.io/gc.expire";
pub const FLAT: &str = "containerd.io/gc.flat";
pub const REF: &str = "containerd.io/gc.ref.content";
pub const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.overlayfs";
pub const BACK: &str = "containerd.io/gc.bref.content";

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Thing {
    Blob(Digest),
    Snapshot(SnapshotKey),
    Image(ImageName),
    Upload(IngestRef),
}

/// A thing where it is.
pub type Place = (Namespace, Thing);

/// The records, as their changes tell.
#[derive(Default)]
pub struct Records {
    pub images: HashMap<(Namespace, ImageName), ImageRecord>,
    pub blobs: HashMap<(Namespace, Digest), BlobLink>,
    pub snapshots: HashMap<(Namespace, SnapshotKey), SnapshotRecord>,
    pub uploads: HashMap<(Namespace, IngestRef), IngestRecord>,
    pub leases: HashMap<(Namespace, LeaseId), LeaseRecord>,
    held: HashMap<(Namespace, LeaseId, String, String), ()>,
}

fn put<K: Eq + Hash, V>(
    known: &mut HashMap<K, V>,
    change: Result<(K, Option<V>), cairn_meta::Error>,
) {
    match change.expect("a sound record") {
        (key, Some(value)) => drop(known.insert(key, value)),
        (key, None) => drop(known.remove(&key)),
    }
}

/// The key of a record that a change removes.
fn removed<K, V>(change: Option<Result<(K, Option<V>), cairn_meta::Error>>) -> Option<K> {
    let (key, value) = change?.expect("a sound record");
    value.is_none().then_some(key)
}

/// The thing that a change removes, if it does.
pub fn removed_thing(change: &Change) -> Option<Place> {
    let image = || removed(change.of(&schema::IMAGES)).map(|(ns, name)| (ns, Thing::Image(name)));
    let blob = || removed(change.of(&schema::BLOB_LINKS)).map(|(ns, one)| (ns, Thing::Blob(one)));
    let snapshot =
        || removed(change.of(&schema::SNAPSHOTS)).map(|(ns, key)| (ns, Thing::Snapshot(key)));
    let upload = || removed(change.of(&schema::INGESTS)).map(|(ns, one)| (ns, Thing::Upload(one)));
    image().or_else(blob).or_else(snapshot).or_else(upload)
}

/// The lease that a change removes, if it does.
pub fn removed_lease(change: &Change) -> Option<(Namespace, LeaseId)> {
    removed(change.of(&schema::LEASES))
}

fn is_expired(labels: &Labels) -> bool {
    labels.get(EXPIRE).is_some_and(|end| end == PAST)
}

/// What labels of one way name: `ref` or `bref`.
fn named(labels: &Labels, way: &str) -> Vec<Thing> {
    let thing = |(key, value): (&String, &String)| {
        let kind = key.strip_prefix("containerd.io/gc.")?.strip_prefix(way)?;
        match kind.starts_with(".content") {
            true => Some(Thing::Blob(Digest::parse(value).expect("a digest"))),
            false if kind.starts_with(".snapshot.overlayfs") => {
                Some(Thing::Snapshot(SnapshotKey::parse(value).expect("a key")))
            }
            false => panic!("{key}: this label is not known here"),
        }
    };
    labels.iter().filter_map(thing).collect()
}

impl Records {
    /// Takes in a change.
    pub fn take(&mut self, change: &Change) {
        if let Some(change) = change.of(&schema::IMAGES) {
            put(&mut self.images, change);
        } else if let Some(change) = change.of(&schema::BLOB_LINKS) {
            put(&mut self.blobs, change);
        } else if let Some(change) = change.of(&schema::SNAPSHOTS) {
            put(&mut self.snapshots, change);
        } else if let Some(change) = change.of(&schema::INGESTS) {
            put(&mut self.uploads, change);
        } else if let Some(change) = change.of(&schema::LEASES) {
            put(&mut self.leases, change);
        } else if let Some(change) = change.of(&schema::LEASE_RESOURCES) {
            put(&mut self.held, change);
        }
    }

    /// Whether a lease is there whose time is over.
    pub fn is_over(&self, lease: &(Namespace, LeaseId)) -> bool {
        let lease = self.leases.get(lease);
        lease.is_some_and(|lease| is_expired(&lease.labels))
    }

    /// Everything that is there.
    pub fn things(&self) -> Vec<Place> {
        let images = self.images.keys().cloned();
        let blobs = self.blobs.keys().cloned();
        let snapshots = self.snapshots.keys().cloned();
        let uploads = self.uploads.keys().cloned();
        images
            .map(|(ns, name)| (ns, Thing::Image(name)))
            .chain(blobs.map(|(ns, one)| (ns, Thing::Blob(one))))
            .chain(snapshots.map(|(ns, key)| (ns, Thing::Snapshot(key))))
            .chain(uploads.map(|(ns, one)| (ns, Thing::Upload(one))))
            .collect()
    }

    fn has(&self, (ns, thing): &Place) -> bool {
        let ns = ns.clone();
        match thing {
            Thing::Image(name) => self.images.contains_key(&(ns, name.clone())),
            Thing::Blob(digest) => self.blobs.contains_key(&(ns, digest.clone())),
            Thing::Snapshot(key) => self.snapshots.contains_key(&(ns, key.clone())),
            Thing::Upload(reference) => self.uploads.contains_key(&(ns, reference.clone())),
        }
    }

    fn labels(&self, (ns, thing): &Place) -> Labels {
        let ns = ns.clone();
        let labels = match thing {
            Thing::Image(name) => self.images.get(&(ns, name.clone())).map(|one| &one.labels),
            Thing::Blob(digest) => self.blobs.get(&(ns, digest.clone())).map(|one| &one.labels),
            Thing::Snapshot(key) => {
                let known = self.snapshots.get(&(ns, key.clone()));
                known.map(|one| &one.labels)
            }
            Thing::Upload(_) => None,
        };
        labels.cloned().unwrap_or_default()
    }

    /// What it cannot be without.
    fn below(&self, (ns, thing): &Place) -> Option<Place> {
        let below = match thing {
            Thing::Image(name) => {
                let image = self.images.get(&(ns.clone(), name.clone()))?;
                Thing::Blob(image.target.digest.clone())
            }
            Thing::Snapshot(key) => {
                let snapshot = self.snapshots.get(&(ns.clone(), key.clone()))?;
                Thing::Snapshot(snapshot.parent.clone()?)
            }
            Thing::Blob(_) | Thing::Upload(_) => return None,
        };
        Some((ns.clone(), below))
    }

    /// All that it leads to.
    fn leads_to(&self, place: &Place) -> Vec<Place> {
        let (ns, thing) = place;
        let mut led: Vec<Place> = self.below(place).into_iter().collect();
        let refs = named(&self.labels(place), "ref").into_iter();
        led.extend(refs.map(|one| (ns.clone(), one)));
        if let Thing::Upload(reference) = thing {
            let upload = self.uploads.get(&(ns.clone(), reference.clone()));
            let becomes = upload.and_then(|upload| upload.expected.clone());
            led.extend(becomes.map(|digest| (ns.clone(), Thing::Blob(digest))));
        }
        for other in self.things() {
            if other.0 == *ns && named(&self.labels(&other), "bref").contains(thing) {
                led.push(other);
            }
        }
        led
    }

    /// What is alive by itself, leases aside.
    fn is_root(&self, place: &Place) -> bool {
        let (ns, thing) = place;
        match thing {
            Thing::Image(_) => !is_expired(&self.labels(place)),
            Thing::Blob(_) | Thing::Snapshot(_) => self.labels(place).contains_key(ROOT),
            Thing::Upload(reference) => {
                let upload = self.uploads.get(&(ns.clone(), reference.clone()));
                upload.is_some_and(|upload| !upload.leased)
            }
        }
    }

    /// What leases hold that are flat, or not.
    fn leased(&self, flat: bool) -> Vec<Place> {
        let held = self.held.keys().filter_map(|(ns, id, kind, name)| {
            let lease = self.leases.get(&(ns.clone(), id.clone()))?;
            if is_expired(&lease.labels) || lease.labels.contains_key(FLAT) != flat {
                return None;
            }
            let thing = match &**kind {
                "content" => Thing::Blob(Digest::parse(name).expect("a digest")),
                "snapshots/overlayfs" => Thing::Snapshot(SnapshotKey::parse(name).expect("a key")),
                "images" => Thing::Image(ImageName::parse(name).expect("a name")),
                "ingests" => Thing::Upload(IngestRef::parse(name).expect("a ref")),
                other => panic!("{other}: this kind is not known here"),
            };
            Some((ns.clone(), thing))
        });
        held.collect()
    }

    /// Everything to which something leads, calls under way included that rely on `relied`.
    pub fn kept(&self, relied: &[Place]) -> HashSet<Place> {
        let mut queue: Vec<Place> = relied.to_vec();
        queue.extend(self.leased(false));
        queue.extend(self.things().into_iter().filter(|one| self.is_root(one)));
        let mut kept = HashSet::new();
        while let Some(place) = queue.pop() {
            if kept.insert(place.clone()) {
                queue.extend(self.leads_to(&place));
            }
        }
        for place in self.leased(true) {
            let mut next = Some(place);
            while let Some(place) = next {
                next = self.below(&place);
                kept.insert(place);
            }
        }
        kept.retain(|place| self.has(place));
        kept
    }

    /// Everything that is there and to which nothing leads.
    pub fn garbage(&self) -> Vec<Place> {
        let kept = self.kept(&[]);
        let mut things = self.things();
        things.retain(|place| !kept.contains(place));
        things
    }
}
