//! Removing what nothing refers to.
//!
//! References are containerd's: an image leads to its target; a blob to what its
//! `containerd.io/gc.ref.*` labels name; a snapshot to its parent. Roots are images, leases, bundles
//! and whatever carries a `containerd.io/gc.root` label. Blobs without record and directories
//! without snapshot are not looked for here; opening the store removes them.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use cairn_content::BlobInfo;
use cairn_meta::{Timestamp, View, schema};
use cairn_snapshot::SnapshotInfo;
use cairn_types::{Classified, Digest, ErrorKind, Labels, Namespace, SnapshotKey};

use crate::{Failure, Node, store::SNAPSHOT_REF};

const ATTEMPTED: &str = "collect garbage";
const ROOT: &str = "containerd.io/gc.root";
const EXPIRE: &str = "containerd.io/gc.expire";
const FLAT: &str = "containerd.io/gc.flat";
const CONTENT_REF: &str = "containerd.io/gc.ref.content";

/// How many of one kind, and how much that freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcCount {
    /// Objects.
    pub removed: u64,
    /// Bytes on disk.
    pub freed: u64,
}

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Nothing was touched.
    pub dry_run: bool,
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

/// Everything of one namespace, and what of it is referred to.
pub(crate) struct Marked {
    pub(crate) ns: Namespace,
    pub(crate) images: u64,
    pub(crate) blobs: HashMap<Digest, BlobInfo>,
    pub(crate) snapshots: HashMap<SnapshotKey, SnapshotInfo>,
    pub(crate) live_blobs: HashSet<Digest>,
    pub(crate) live_snapshots: HashSet<SnapshotKey>,
    /// Leases past their time.
    expired: Vec<cairn_types::LeaseId>,
}

/// Something that may be referred to.
enum Item {
    Blob(Digest),
    Snapshot(SnapshotKey),
}

impl Node {
    /// Removes, in every namespace, what no image, bundle, lease or root label leads to. With
    /// `dry_run` only counts.
    pub fn gc(&self, dry_run: bool) -> Result<GcReport, Failure> {
        let began = Instant::now();
        let _alone = self.alone();
        let mut report = GcReport {
            dry_run,
            ..GcReport::default()
        };
        let all: Vec<Marked> = self.mark_all()?;
        // A blob is freed when its last namespace lets go of it.
        let mut holders: HashMap<Digest, usize> = HashMap::new();
        for digest in all.iter().flat_map(|marked| marked.blobs.keys()) {
            *holders.entry(digest.clone()).or_default() += 1;
        }
        for marked in &all {
            self.sweep_leases(marked, dry_run, &mut report)?;
            self.sweep_snapshots(marked, dry_run, &mut report)?;
            self.sweep_blobs(marked, dry_run, &mut holders, &mut report)?;
        }
        report.took = began.elapsed();
        Ok(report)
    }

    /// Marks every namespace.
    pub(crate) fn mark_all(&self) -> Result<Vec<Marked>, Failure> {
        let namespaces = self.namespaces()?;
        namespaces.into_iter().map(|ns| self.mark(ns)).collect()
    }

    fn mark(&self, ns: Namespace) -> Result<Marked, Failure> {
        let failed = |err: &dyn Classified| Failure::of(ATTEMPTED, err).namespace(&ns);
        let blobs = self.content().list(&ns).map_err(|err| failed(&err))?;
        let snapshots = self.snapshots().list(&ns).map_err(|err| failed(&err))?;
        let mut marked = Marked {
            images: 0,
            blobs: blobs
                .into_iter()
                .map(|info| (info.digest.clone(), info))
                .collect(),
            snapshots: snapshots
                .into_iter()
                .map(|info| (info.key.clone(), info))
                .collect(),
            live_blobs: HashSet::new(),
            live_snapshots: HashSet::new(),
            expired: Vec::new(),
            ns: ns.clone(),
        };
        let mut queue = Vec::new();
        let mut flat = Vec::new();
        self.roots_of_records(&mut marked, &mut queue, &mut flat)?;
        for (digest, info) in &marked.blobs {
            if is_root(&info.labels) {
                queue.push(Item::Blob(digest.clone()));
            }
        }
        for (key, info) in &marked.snapshots {
            if is_root(&info.labels) {
                queue.push(Item::Snapshot(key.clone()));
            }
        }
        marked.follow(queue);
        // A flat lease holds its resources alone, not what they refer to; a snapshot still cannot
        // be without its parents.
        for item in flat {
            match item {
                Item::Blob(digest) => {
                    marked.live_blobs.insert(digest);
                }
                Item::Snapshot(mut key) => {
                    while marked.live_snapshots.insert(key.clone()) {
                        match marked
                            .snapshots
                            .get(&key)
                            .and_then(|info| info.parent.clone())
                        {
                            Some(parent) => key = parent,
                            None => break,
                        }
                    }
                }
            }
        }
        Ok(marked)
    }

    fn roots_of_records(
        &self,
        marked: &mut Marked,
        queue: &mut Vec<Item>,
        flat: &mut Vec<Item>,
    ) -> Result<(), Failure> {
        let ns = marked.ns.clone();
        let now = Timestamp::now();
        let read = self.meta().read(|view| {
            let images = view.scan(&schema::IMAGES, &ns)?;
            let leases = view.scan(&schema::LEASES, &ns)?;
            let resources = view.scan(&schema::LEASE_RESOURCES, &ns)?;
            let bundles = view.scan(&schema::BUNDLES, &())?;
            let containers = view.scan(&schema::CONTAINERS, &ns)?;
            Ok::<_, cairn_meta::Error>((images, leases, resources, bundles, containers))
        });
        let (images, leases, resources, bundles, containers) =
            read.map_err(|err| Failure::of(ATTEMPTED, &err).namespace(&ns))?;
        for (_, image) in images {
            marked.images += 1;
            if !is_expired(&image.labels, now) {
                queue.push(Item::Blob(image.target.digest));
            }
        }
        for (_, bundle) in bundles
            .into_iter()
            .filter(|(_, bundle)| bundle.namespace == ns)
        {
            queue.push(Item::Snapshot(bundle.snapshot));
        }
        for (_, container) in containers {
            // It does not hold its image, only what it stands on.
            let key = SnapshotKey::parse(&container.snapshot_key).ok();
            queue.extend(key.map(Item::Snapshot));
            queue.extend(references(&container.labels));
        }
        let mut leases: HashMap<_, Labels> = leases
            .into_iter()
            .map(|((_, id), lease)| (id, lease.labels))
            .collect();
        leases.retain(|id, labels| {
            let expired = is_expired(labels, now);
            if expired {
                marked.expired.push(id.clone());
            }
            !expired
        });
        for ((_, lease, kind, id), _) in resources {
            let Some(labels) = leases.get(&lease) else {
                continue;
            };
            let item = match kind.as_str() {
                "content" => Digest::parse(&id).ok().map(Item::Blob),
                "snapshots/overlayfs" => SnapshotKey::parse(&id).ok().map(Item::Snapshot),
                _ => None,
            };
            let is_flat = labels.get(FLAT).is_some_and(|value| !value.is_empty());
            if is_flat { &mut *flat } else { &mut *queue }.extend(item);
        }
        Ok(())
    }

    fn sweep_leases(
        &self,
        marked: &Marked,
        dry_run: bool,
        report: &mut GcReport,
    ) -> Result<(), Failure> {
        report.leases.removed += marked.expired.len() as u64;
        if dry_run || marked.expired.is_empty() {
            return Ok(());
        }
        let (ns, expired) = (marked.ns.clone(), marked.expired.clone());
        let written = self.meta().write(move |tx: &mut cairn_meta::Tx| {
            for id in expired {
                for (key, _) in tx.scan(&schema::LEASE_RESOURCES, &(ns.clone(), id.clone()))? {
                    tx.delete(&schema::LEASE_RESOURCES, &key)?;
                }
                tx.delete(&schema::LEASES, &(ns.clone(), id))?;
            }
            Ok::<(), cairn_meta::Error>(())
        });
        written.map_err(|err| Failure::of(ATTEMPTED, &err).namespace(&marked.ns))
    }

    fn sweep_snapshots(
        &self,
        marked: &Marked,
        dry_run: bool,
        report: &mut GcReport,
    ) -> Result<(), Failure> {
        let mut dead: Vec<(usize, &SnapshotInfo)> = marked
            .snapshots
            .values()
            .filter(|info| !marked.live_snapshots.contains(&info.key))
            .map(|info| (marked.depth(info), info))
            .collect();
        // Children before their parents.
        dead.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.key.cmp(&y.key)));
        for (_, info) in dead {
            if !dry_run {
                match self.snapshots().remove(&marked.ns, &info.key) {
                    Ok(()) => {}
                    Err(err) if err.kind() == ErrorKind::NotFound => continue,
                    Err(err) => {
                        return Err(Failure::of(ATTEMPTED, &err)
                            .object("snapshot", &info.key)
                            .namespace(&marked.ns));
                    }
                }
            }
            report.snapshots.removed += 1;
            report.snapshots.freed += info.usage.bytes;
        }
        Ok(())
    }

    fn sweep_blobs(
        &self,
        marked: &Marked,
        dry_run: bool,
        holders: &mut HashMap<Digest, usize>,
        report: &mut GcReport,
    ) -> Result<(), Failure> {
        for (digest, info) in &marked.blobs {
            if marked.live_blobs.contains(digest) {
                continue;
            }
            if !dry_run {
                match self.content().delete(&marked.ns, digest) {
                    Ok(_) => {}
                    Err(err) if err.kind() == ErrorKind::NotFound => continue,
                    Err(err) => {
                        return Err(Failure::of(ATTEMPTED, &err)
                            .object("blob", digest)
                            .namespace(&marked.ns));
                    }
                }
            }
            report.content.removed += 1;
            let left = holders.entry(digest.clone()).or_insert(1);
            *left = left.saturating_sub(1);
            if *left == 0 {
                report.content.freed += info.size;
            }
        }
        Ok(())
    }
}

impl Marked {
    /// Marks everything that can be reached from `queue`.
    fn follow(&mut self, mut queue: Vec<Item>) {
        while let Some(item) = queue.pop() {
            let labels = match item {
                Item::Blob(digest) => {
                    if !self.live_blobs.insert(digest.clone()) {
                        continue;
                    }
                    self.blobs.get(&digest).map(|info| &info.labels)
                }
                Item::Snapshot(key) => {
                    if !self.live_snapshots.insert(key.clone()) {
                        continue;
                    }
                    let info = self.snapshots.get(&key);
                    let parent = info.and_then(|info| info.parent.clone());
                    queue.extend(parent.map(Item::Snapshot));
                    info.map(|info| &info.labels)
                }
            };
            queue.extend(labels.into_iter().flat_map(references));
        }
    }

    /// How many parents a snapshot has.
    fn depth(&self, info: &SnapshotInfo) -> usize {
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

fn is_root(labels: &Labels) -> bool {
    labels
        .iter()
        .any(|(key, value)| key.starts_with(ROOT) && !value.is_empty())
}

fn is_expired(labels: &Labels, now: Timestamp) -> bool {
    let Some(text) = labels.get(EXPIRE) else {
        return false;
    };
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => time.as_nanosecond() < i128::from(now.0),
        // What cannot be read must not delete anything.
        Err(_) => false,
    }
}

/// What labels refer to.
fn references(labels: &Labels) -> Vec<Item> {
    let named = |key: &str, word: &str, separators: &[char]| match key.strip_prefix(word) {
        Some(rest) => rest.is_empty() || rest.starts_with(separators),
        None => false,
    };
    labels
        .iter()
        .filter_map(|(key, value)| {
            if named(key, CONTENT_REF, &['.', '/']) {
                Digest::parse(value).ok().map(Item::Blob)
            } else if named(key, SNAPSHOT_REF, &['/']) {
                SnapshotKey::parse(value).ok().map(Item::Snapshot)
            } else {
                None
            }
        })
        .collect()
}
