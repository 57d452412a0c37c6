//! Layers that are unpacked aside and become snapshots together.

use std::sync::Arc;

use cairn_meta::{SnapshotRecord, Timestamp, Tx, View, schema};
use cairn_sys::Dir;
use cairn_types::{
    DiffId, Digest, Labels, LayerTiming, Namespace, SnapshotKey, SnapshotKind, Usage,
};

use crate::{
    Error, Result, Snapshots, Waiting, check_labels,
    disk::lock,
    lifecycle::{committed, insert},
    share::mark_durable,
};

/// What became of a layer that was to be recorded.
enum Taken {
    New(SnapshotKey),
    /// There is one, with this number.
    Known(SnapshotKey, u64),
}

/// An empty tree for a layer, which no record knows yet. Dropped, it is removed with what was
/// written into it.
pub struct Staged {
    snapshots: Snapshots,
    id: u64,
    fs: Dir,
    recorded: bool,
}

impl Staged {
    /// Where the layer's root goes.
    pub fn dir(&self) -> &Dir {
        &self.fs
    }

    /// The number of its directory.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Leaves the tree: a record may speak of it.
    pub(crate) fn keep(mut self) {
        self.recorded = true;
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.recorded {
            self.snapshots.discard(self.id);
        }
    }
}

/// A complete layer, ready to be recorded.
pub struct StagedLayer {
    /// Its tree.
    pub staged: Staged,
    /// Its name to be: the chain ID.
    pub key: SnapshotKey,
    /// What it stands on.
    pub parent: Option<SnapshotKey>,
    /// What it takes.
    pub usage: Usage,
    /// Of its uncompressed tar.
    pub diff_id: Option<DiffId>,
    /// From which it can be unpacked again.
    pub blob: Option<Digest>,
    /// How long it took so far.
    pub timing: Option<LayerTiming>,
    /// For its users.
    pub labels: Labels,
}

impl Snapshots {
    /// Makes a tree to unpack a layer into.
    pub fn stage(&self) -> Result<Staged> {
        self.check_writable()?;
        let id = self.next_id()?;
        let fs = self.make(id)?;
        Ok(Staged {
            snapshots: self.clone(),
            id,
            fs,
            recorded: false,
        })
    }

    /// Records layers as committed snapshots, all or none; parents stand before their children.
    ///
    /// A name that is a committed snapshot already is left as it is, and the layer brought for it
    /// dropped: chain IDs name contents, and two images may have been unpacked at the same time. But where
    /// the tree of that is missing, the one that is brought takes its place.
    ///
    /// Their files need not be on the disk yet. After a power cut before the next
    /// [`Snapshots::flush`] the layers are dropped by [`Snapshots::recover`], to be unpacked again.
    pub fn commit_stack(&self, ns: &Namespace, layers: Vec<StagedLayer>) -> Result<()> {
        self.record_stack(ns, layers, false)
    }

    /// The same, and returns when their files are on the disk, with those of all they stand on.
    pub fn commit_stack_synced(&self, ns: &Namespace, layers: Vec<StagedLayer>) -> Result<()> {
        self.sync("commit snapshots")?;
        self.record_stack(ns, layers, true)
    }

    fn record_stack(&self, ns: &Namespace, layers: Vec<StagedLayer>, durable: bool) -> Result<()> {
        self.check_writable()?;
        let now = Timestamp::now();
        let mut trees = Vec::with_capacity(layers.len());
        let mut records = Vec::with_capacity(layers.len());
        for layer in layers {
            check_labels(&layer.labels)?;
            let record = SnapshotRecord {
                id: layer.staged.id,
                kind: SnapshotKind::Committed,
                parent: layer.parent,
                labels: layer.labels,
                created_at: now,
                updated_at: now,
                usage: layer.usage,
                durable,
                boot_id: self.inner.boot_id.clone(),
                diff_id: layer.diff_id,
                blob: layer.blob,
                timing: layer.timing,
            };
            records.push((layer.key, record));
            trees.push(layer.staged);
        }
        let (namespace, inner) = (ns.clone(), Arc::clone(&self.inner));
        let taken = self.inner.meta.write(move |tx| {
            let layers = records.into_iter();
            let taken = layers.map(|(key, record)| {
                let taken = take(tx, &namespace, key, &record)?;
                // Before anybody can see it: whoever removes blobs asks what waits for the disk. One that is
                // not recorded after all waits in vain, until the next flush.
                if let (Taken::New(key), false) = (&taken, durable) {
                    let id = (namespace.clone(), key.clone());
                    lock(&inner.pending).insert(id, Waiting::of(&record));
                }
                Ok(taken)
            });
            taken.collect::<Result<Vec<Taken>>>()
        });
        let taken = match taken {
            Ok(taken) => taken,
            Err(err) => {
                if err.may_be_recorded() {
                    trees.into_iter().for_each(Staged::keep);
                }
                return Err(err);
            }
        };
        let mut lost = Vec::new();
        for (staged, taken) in trees.into_iter().zip(taken) {
            match taken {
                Taken::New(_) => staged.keep(),
                Taken::Known(key, id) => lost.push((staged, key, id)),
            }
        }
        for (staged, key, id) in lost {
            if !self.has_tree(id)? && self.restore(ns, &key, id, staged)? {
                tracing::warn!("the tree of snapshot {key} was missing and is put in its place");
            }
        }
        Ok(())
    }

    /// When the oldest of the committed snapshots was committed whose files are not known to be on
    /// the disk; `None` when there are none.
    pub fn pending_since(&self) -> Option<Timestamp> {
        let pending = lock(&self.inner.pending);
        pending.values().map(|waiting| waiting.since).min()
    }

    /// Puts the files of all committed snapshots on the disk, if any are not, and says so in their
    /// records.
    pub fn flush(&self) -> Result<()> {
        if lock(&self.inner.pending).is_empty() {
            return Ok(());
        }
        self.sync("flush snapshots")
    }

    /// Puts everything on the disk that was written before this call, and says so in the records, of all who
    /// share a tree.
    pub(crate) fn sync(&self, attempted: &str) -> Result<()> {
        // Taken before the sync begins: whatever is recorded later may have been written later.
        let trees: Vec<_> = lock(&self.inner.pending)
            .iter()
            .map(|(id, waiting)| (id.clone(), waiting.tree))
            .collect();
        self.inner.sync.run(&self.inner.root, attempted)?;
        if trees.is_empty() {
            return Ok(());
        }
        let synced = trees.clone();
        self.inner.meta.write(move |tx| mark_durable(tx, &synced))?;
        let mut left = lock(&self.inner.pending);
        for (id, tree) in trees {
            if left.get(&id).is_some_and(|waiting| waiting.tree == tree) {
                left.remove(&id);
            }
        }
        Ok(())
    }
}

/// Records a layer, unless there is one of its name.
fn take(
    tx: &mut Tx<'_>,
    ns: &Namespace,
    key: SnapshotKey,
    record: &SnapshotRecord,
) -> Result<Taken> {
    match tx.get(&schema::SNAPSHOTS, &(ns.clone(), key.clone()))? {
        None => {}
        Some(known) if known.kind == SnapshotKind::Committed => {
            return Ok(Taken::Known(key, known.id));
        }
        Some(_) => return Err(Error::Exists { key }),
    }
    if let Some(parent) = &record.parent {
        let found = tx.get(&schema::SNAPSHOTS, &(ns.clone(), parent.clone()))?;
        committed(&key, parent, found.as_ref())?;
    }
    insert(tx, ns, &key, record)?;
    Ok(Taken::New(key))
}
