//! What crashes and power cuts leave, mended before the snapshots are used.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    path::PathBuf,
};

use cairn_meta::{SnapshotRecord, View, schema};
use cairn_sys::{Dir, mount::MountTables};
use cairn_types::{Classified, ErrorKind, Namespace, SnapshotKey, SnapshotKind};

use crate::{
    Error, Result, Snapshots, Waiting,
    disk::{FS, TRASH, lock},
    error::sys,
    lifecycle::erase,
};

/// What a recovery did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Snapshots whose files may not have reached the disk, and all above them.
    pub dropped: Vec<(Namespace, SnapshotKey)>,
    /// Such snapshots on which something stands that cannot be made again: they have to be
    /// [replaced](Snapshots::replace), and nothing is mounted over them before.
    pub unproven: Vec<(Namespace, SnapshotKey)>,
    /// Snapshots that were to be mounted and whose directories had not reached the disk; made again.
    pub made_again: Vec<(Namespace, SnapshotKey)>,
    /// Recorded snapshots whose directory is gone: outside damage, left for whoever repairs.
    pub missing: Vec<(Namespace, SnapshotKey)>,
    /// Directories without record that were removed.
    pub swept: u64,
}

type Id = (Namespace, SnapshotKey);

/// Stands in the place of a boot in records whose directories have outlived one: from then on a missing
/// one is damage.
const NAMES_LAST: &str = "";

impl Snapshots {
    /// Drops committed snapshots that were not known to be on the disk when another boot ended, with
    /// everything above them, unless something is that nobody can make again; makes directories again that
    /// were to be mounted and had not reached it, and removes those that no record names.
    ///
    /// For the time between opening and first use. It may be killed at any point and run again.
    pub fn recover(&self) -> Result<Recovered> {
        self.recover_and(true)
    }

    /// The same, but nothing is removed because no record names it: for a store whose records may know of less
    /// than there is.
    pub fn recover_unswept(&self) -> Result<Recovered> {
        self.recover_and(false)
    }

    fn recover_and(&self, sweep: bool) -> Result<Recovered> {
        let (all, damaged): (Vec<(Id, SnapshotRecord)>, _) = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan_sound(&schema::SNAPSHOTS, &())?))?;
        for err in &damaged {
            tracing::error!("{err}");
        }
        // Something that cannot be made again may be what a damaged record speaks of.
        let (doomed, unproven) = fates(&all, &self.inner.boot_id, !damaged.is_empty());
        let trees = all
            .iter()
            .map(|(id, record)| (id.clone(), record.id))
            .collect();
        let mut recovered = Recovered::default();
        let mut alive = HashSet::new();
        let mut lost = Vec::new();
        let mut moved = Vec::new();
        for (id, record) in all {
            if doomed.contains(&id) {
                tracing::warn!("drop snapshot {} of {}: it may not be whole", id.1, id.0);
                recovered.dropped.push(id.clone());
                lost.push((id, record));
                continue;
            }
            if unproven.contains(&id) {
                // It may have no directory at all. Nothing may say that it is on the disk, as a flush would.
                alive.insert(record.id.to_string());
                lock(&self.inner.unproven).insert(id.clone(), record.id);
                recovered.unproven.push(id);
                continue;
            }
            if let Some(boot_id) = self.remake(&id, &record, &trees) {
                if boot_id != NAMES_LAST {
                    recovered.made_again.push(id.clone());
                }
                moved.push((id.clone(), boot_id));
            }
            if !self.has_files(record.id)? {
                tracing::error!("the directory of snapshot {} of {} is missing", id.1, id.0);
                recovered.missing.push(id.clone());
            }
            alive.insert(record.id.to_string());
            if !record.durable {
                lock(&self.inner.pending).insert(id, Waiting::of(&record));
            }
        }
        if !lost.is_empty() || !moved.is_empty() {
            self.inner.meta.write(move |tx| {
                for ((ns, key), record) in &lost {
                    erase(tx, ns, key, record)?;
                }
                for (id, boot_id) in moved {
                    if let Some(mut record) = tx.get(&schema::SNAPSHOTS, &id)? {
                        record.boot_id = boot_id;
                        tx.put(&schema::SNAPSHOTS, &id, &record)?;
                    }
                }
                Ok::<_, Error>(())
            })?;
        }
        // Any directory may be the one that a damaged record speaks of.
        if damaged.is_empty() && sweep {
            recovered.swept = self.sweep(&alive)?;
        }
        Ok(recovered)
    }

    /// Makes the directories of a snapshot that was to be mounted when another boot ended, as far as
    /// they had not reached the disk. The boot that its record is to have from now on, if it is another
    /// one: this one where some were made, [`NAMES_LAST`] where all had outlived the one before.
    fn remake(
        &self,
        (ns, key): &Id,
        record: &SnapshotRecord,
        trees: &HashMap<Id, u64>,
    ) -> Option<String> {
        let settled = record.boot_id == self.inner.boot_id || record.boot_id == NAMES_LAST;
        if record.kind == SnapshotKind::Committed || settled {
            return None;
        }
        // Without its parent it cannot be mounted whoever owns it.
        let parent = record.parent.as_ref().and_then(|parent| {
            let id = *trees.get(&(ns.clone(), parent.clone()))?;
            self.owner(parent, id).ok()
        });
        let recorded = record.created_at;
        match self.make_again(record.id, record.kind, parent, recorded) {
            Ok(true) => {
                tracing::warn!("directories of snapshot {key} of {ns} had not reached the disk");
                Some(self.inner.boot_id.clone())
            }
            Ok(false) => Some(NAMES_LAST.to_owned()),
            // As with a missing tree, the others can be used.
            Err(err) => {
                tracing::error!("make directories of snapshot {key} of {ns} again: {err}");
                None
            }
        }
    }

    /// A tree that cannot be removed (somebody mounted something in it) is no reason not to open the
    /// store: the next recovery tries again. Nor is one that somebody has mounted, and who would lose his
    /// files: he may know of it what the records do not.
    fn sweep(&self, alive: &HashSet<String>) -> Result<u64> {
        let mut swept = 0;
        let mut mounts = None;
        for entry in self.inner.root.entries().map_err(sys("sweep snapshots"))? {
            let name = entry.name.to_str();
            if name.is_some_and(|name| name == TRASH || alive.contains(name)) {
                continue;
            }
            // Asked for once, and mostly not at all.
            let mounts = mounts.get_or_insert_with(MountTables::read);
            if let Some(at) = mounts.showing(&self.shown_at(&entry.name)) {
                let at = at.display();
                tracing::warn!(
                    "keep directory {:?} of no snapshot: it is mounted at {at}",
                    entry.name
                );
            } else if sweep_one(&self.inner.root, &entry.name) {
                swept += 1;
                continue;
            }
            // It is still to go.
            if let Some(id) = name.and_then(|name| name.parse().ok()) {
                self.inner.remover.mark(id);
            }
        }
        Ok(swept + self.clean_up()?)
    }

    /// What mounts show of the directory of this name.
    pub(crate) fn shown_at(&self, name: &OsStr) -> PathBuf {
        self.inner.path.join(name).join(FS)
    }

    /// Removes trees whose removal failed, and tells how many. Unlike a recovery it may come at any
    /// time, and waits for those under way.
    pub fn clean_up(&self) -> Result<u64> {
        self.wait_removed();
        let trash = &self.inner.trash;
        let entries = trash.entries().map_err(sys("sweep snapshots"))?;
        let swept = entries.iter().filter(|it| sweep_one(trash, &it.name));
        Ok(swept.count() as u64)
    }
}

/// Removes a tree of nobody; whether it did.
fn sweep_one(dir: &Dir, name: &OsStr) -> bool {
    match dir.remove_tree(name) {
        Ok(()) => true,
        // Whoever removed it was also at it.
        Err(err) if err.kind() == ErrorKind::NotFound => false,
        Err(err) => {
            tracing::warn!("remove what was left of a snapshot: {err}");
            false
        }
    }
}

/// Whether a tree may be torn.
pub(crate) fn is_unproven(record: &SnapshotRecord, boot_id: &str) -> bool {
    record.kind == SnapshotKind::Committed && !record.durable && record.boot_id != boot_id
}

/// The snapshots to be dropped, and the unproven ones that are not: somebody's snapshots stand on those, which
/// nobody here could make again.
fn fates(
    all: &[(Id, SnapshotRecord)],
    boot_id: &str,
    keep_all: bool,
) -> (HashSet<Id>, HashSet<Id>) {
    let unproven = all.iter().filter(|(_, it)| is_unproven(it, boot_id));
    let unproven: HashSet<Id> = unproven.map(|(id, _)| id.clone()).collect();
    if unproven.is_empty() || keep_all {
        return (HashSet::new(), unproven);
    }
    let records: HashMap<&Id, &SnapshotRecord> =
        all.iter().map(|(id, record)| (id, record)).collect();
    let parent = |id: &Id, record: &SnapshotRecord| {
        let parent = record.parent.clone()?;
        Some((id.0.clone(), parent))
    };
    let mut kept = HashSet::new();
    let mut children: HashMap<Id, Vec<Id>> = HashMap::new();
    for (id, record) in all {
        let Some(mut below) = parent(id, record) else {
            continue;
        };
        children.entry(below.clone()).or_default().push(id.clone());
        if is_unproven(record, boot_id) {
            continue;
        }
        // Damage may have made a ring of them.
        for _ in 0..records.len() {
            let Some(known) = records.get(&below) else {
                break;
            };
            if is_unproven(known, boot_id) && !kept.insert(below.clone()) {
                break;
            }
            match parent(&below, known) {
                Some(next) => below = next,
                None => break,
            }
        }
    }
    let mut queue: Vec<Id> = unproven.difference(&kept).cloned().collect();
    let mut doomed = HashSet::new();
    while let Some(id) = queue.pop() {
        if doomed.insert(id.clone()) {
            queue.extend(children.remove(&id).unwrap_or_default());
        }
    }
    (doomed, kept)
}
