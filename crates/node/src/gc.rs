//! Removing what nothing refers to.
//!
//! References are containerd's: an image leads to its target, a snapshot to its parent, labels to what
//! they name, forward and back. Roots are images, containers, bundles, leases, uploads under way and
//! whatever carries a `containerd.io/gc.root` label. Blobs without record and directories without
//! snapshot are not looked for here; opening the store removes them.

mod labels;
mod mark;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use cairn_meta::{View, schema};
use cairn_snapshot::SnapshotInfo;
use cairn_types::{Classified, Digest, ErrorKind};

use self::mark::Item;
pub(crate) use self::mark::Marked;
use crate::{
    Failure, Node,
    events::{Event, What},
};

const ATTEMPTED: &str = "collect garbage";

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

impl Node {
    /// Removes, in every namespace, what nothing leads to. With `dry_run` only counts.
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
            self.sweep_images(marked, dry_run, &mut report)?;
            self.sweep_snapshots(marked, dry_run, &mut report)?;
            self.sweep_ingests(marked, dry_run, &mut report)?;
            self.sweep_blobs(marked, dry_run, &mut holders, &mut report)?;
        }
        report.took = began.elapsed();
        Ok(report)
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

    fn sweep_images(
        &self,
        marked: &Marked,
        dry_run: bool,
        report: &mut GcReport,
    ) -> Result<(), Failure> {
        let dead = marked.dead_images();
        report.images.removed += dead.len() as u64;
        if dry_run || dead.is_empty() {
            return Ok(());
        }
        let (ns, names) = (marked.ns.clone(), dead.clone());
        let written = self.meta().write(move |tx: &mut cairn_meta::Tx| {
            for (name, target) in names {
                let key = (ns.clone(), name);
                // One that was changed meanwhile is somebody's again.
                let known = tx.get(&schema::IMAGES, &key)?;
                if known.is_some_and(|record| record.target.digest == target) {
                    tx.delete(&schema::IMAGES, &key)?;
                }
            }
            Ok::<(), cairn_meta::Error>(())
        });
        written.map_err(|err| Failure::of(ATTEMPTED, &err).namespace(&marked.ns))?;
        for (name, _) in dead {
            self.happened(Event::of(&marked.ns, What::ImageDeleted { name }));
        }
        Ok(())
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
            .filter(|info| !marked.has_snapshot(&info.key))
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
                let key = info.key.clone();
                self.happened(Event::of(&marked.ns, What::SnapshotRemoved { key }));
            }
            report.snapshots.removed += 1;
            report.snapshots.freed += info.usage.bytes;
        }
        Ok(())
    }

    fn sweep_ingests(
        &self,
        marked: &Marked,
        dry_run: bool,
        report: &mut GcReport,
    ) -> Result<(), Failure> {
        for info in marked.dead_ingests() {
            if !dry_run {
                match self.content().abort(&marked.ns, &info.reference) {
                    Ok(()) => {}
                    Err(err) if err.kind() == ErrorKind::NotFound => continue,
                    Err(err) => {
                        return Err(Failure::of(ATTEMPTED, &err)
                            .object("ingest", &info.reference)
                            .namespace(&marked.ns));
                    }
                }
            }
            report.ingests.removed += 1;
            report.ingests.freed += info.offset;
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
            if marked.is_live(&Item::Blob(digest.clone())) {
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
