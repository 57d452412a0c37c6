//! From prepare or view to commit or removal.

use cairn_meta::{SnapshotRecord, Timestamp, Tx, View, schema};
use cairn_sys::mount::OVERLAY_LOWER_COUNT_MAX;
use cairn_types::{Labels, Mount, Namespace, SnapshotKey, SnapshotKind, Usage};

use crate::{
    Chain, Error, Result, Snapshots, Waiting, chain, check_labels, disk::lock, mounts,
    share::is_shared,
};

impl Snapshots {
    /// Makes a writable snapshot on `parent`, and returns how to mount it.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoParent`], [`Error::ParentNotCommitted`]; [`Error::TooDeep`]
    /// when the kernel could not mount it.
    pub fn prepare(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        self.create(ns, key, parent, labels, SnapshotKind::Active)
    }

    /// Makes a read-only look at `parent`, and returns how to mount it.
    ///
    /// # Errors
    /// As [`Snapshots::prepare`].
    pub fn view(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        labels: Labels,
    ) -> Result<Vec<Mount>> {
        self.create(ns, key, parent, labels, SnapshotKind::View)
    }

    fn create(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        labels: Labels,
        kind: SnapshotKind,
    ) -> Result<Vec<Mount>> {
        check_labels(&labels)?;
        self.check_writable()?;
        let below = self.inner.meta.read(|view| {
            absent(view, ns, key)?;
            parents(view, ns, key, parent)
        })?;
        self.refuse_unproven(&below)?;
        let parent = match below.first() {
            Some((parent, record)) => {
                let owner = self.owner(parent, record.id).map_err(|err| {
                    // Removed since, by whoever may, and not damaged.
                    match self.record(ns, parent) {
                        Ok(known) if known.id == record.id => err,
                        _ => no_parent(key, parent),
                    }
                })?;
                Some((parent, record.id, owner))
            }
            None => None,
        };
        let id = self.next_id()?;
        let named = parent.as_ref().map(|(parent, id, _)| (*parent, *id));
        let made = self
            .make_for(id, kind, parent.map(|(_, _, owner)| owner))
            .and_then(|()| self.record_new(ns, key, named, labels, kind, id));
        if let Err(err) = made {
            if !err.may_be_recorded() {
                self.discard(id);
            }
            return Err(err);
        }
        Ok(self.mounts_of(kind, id, &below))
    }

    fn record_new(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        parent: Option<(&SnapshotKey, u64)>,
        labels: Labels,
        kind: SnapshotKind,
        id: u64,
    ) -> Result<()> {
        let now = Timestamp::now();
        let parent_id = parent.map(|(_, id)| id);
        let record = SnapshotRecord {
            id,
            kind,
            parent: parent.map(|(key, _)| key.clone()),
            labels,
            created_at: now,
            updated_at: now,
            usage: Usage::default(),
            durable: true,
            boot_id: self.inner.boot_id.clone(),
            diff_id: None,
            blob: None,
            timing: None,
        };
        let (ns, key) = (ns.clone(), key.clone());
        // Everything is asked again: others may have come between.
        self.inner.meta.write(move |tx| {
            absent(tx, &ns, &key)?;
            if let Some(parent) = &record.parent {
                let found = tx.get(&schema::SNAPSHOTS, &(ns.clone(), parent.clone()))?;
                committed(&key, parent, found.as_ref())?;
                // Of the same name, but not the one whose directories are about to be mounted.
                if found.map(|found| found.id) != parent_id {
                    return Err(no_parent(&key, parent));
                }
            }
            insert(tx, &ns, &key, &record)
        })
    }

    /// How to mount an active snapshot or a view.
    pub fn mounts(&self, ns: &Namespace, key: &SnapshotKey) -> Result<Vec<Mount>> {
        let (record, below) = self.inner.meta.read(|view| {
            let id = (ns.clone(), key.clone());
            let Some(record) = view.get(&schema::SNAPSHOTS, &id)? else {
                return Err(Error::NotFound { key: key.clone() });
            };
            let below = match &record.parent {
                Some(parent) => chain(view, ns, parent)?,
                None => Vec::new(),
            };
            Ok((record, below))
        })?;
        if record.kind == SnapshotKind::Committed {
            return Err(Error::Committed { key: key.clone() });
        }
        self.refuse_unproven(&below)?;
        Ok(self.mounts_of(record.kind, record.id, &below))
    }

    fn mounts_of(&self, kind: SnapshotKind, id: u64, below: &Chain) -> Vec<Mount> {
        let parents: Vec<u64> = below.iter().map(|(_, record)| record.id).collect();
        mounts::mounts(&self.inner.path, kind, id, &parents, &self.inner.options)
    }

    /// Makes an active snapshot immutable under a new name; its key is free again.
    ///
    /// Nothing could make its tree again, so it is on the disk before this returns. The caller has
    /// unmounted it, or at least written its last byte.
    pub fn commit(
        &self,
        ns: &Namespace,
        name: &SnapshotKey,
        key: &SnapshotKey,
        labels: Labels,
    ) -> Result<()> {
        self.commit_on(ns, name, key, None, labels)
    }

    /// As [`Snapshots::commit`]; a snapshot that stands on nothing is put on `parent`. One that has a
    /// parent keeps it, whatever is asked for, as in containerd.
    pub fn commit_on(
        &self,
        ns: &Namespace,
        name: &SnapshotKey,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        labels: Labels,
    ) -> Result<()> {
        check_labels(&labels)?;
        self.check_writable()?;
        self.inner.meta.read(|view| absent(view, ns, name))?;
        let record = self.record(ns, key)?;
        if record.kind != SnapshotKind::Active {
            return Err(Error::NotActive { key: key.clone() });
        }
        let usage = self.measure(key, record.id)?;
        self.sync_tree(key, record.id, usage)?;
        let (ns, name, key) = (ns.clone(), name.clone(), key.clone());
        let boot_id = self.inner.boot_id.clone();
        let new_parent = parent.filter(|_| record.parent.is_none()).cloned();
        self.inner.meta.write(move |tx| {
            absent(tx, &ns, &name)?;
            let old = (ns.clone(), key);
            let known = tx.get(&schema::SNAPSHOTS, &old)?;
            // The key may have been removed, and even given to another, while files were synced.
            let Some(known) = known.filter(|known| known.id == record.id) else {
                return Err(Error::NotFound { key: old.1 });
            };
            if known.kind != SnapshotKind::Active {
                return Err(Error::NotActive { key: old.1 });
            }
            erase(tx, &ns, &old.1, &known)?;
            if let Some(parent) = &new_parent {
                // Also refuses a stack that would be too deep to mount.
                parents(tx, &ns, &name, Some(parent)).map_err(|err| match err {
                    Error::ParentNotCommitted { key, parent } => {
                        Error::CannotStandOn { key, parent }
                    }
                    other => other,
                })?;
            }
            let now = Timestamp::now();
            let committed = SnapshotRecord {
                kind: SnapshotKind::Committed,
                parent: new_parent.or(known.parent),
                labels,
                created_at: now,
                updated_at: now,
                usage,
                durable: true,
                boot_id,
                ..known
            };
            insert(tx, &ns, &name, &committed)
        })
    }

    /// Removes a snapshot on which no other stands. Its files go after its record, and mostly after this
    /// has returned: [`Snapshots::wait_removed`].
    pub fn remove(&self, ns: &Namespace, key: &SnapshotKey) -> Result<()> {
        let id = (ns.clone(), key.clone());
        let erased = self.inner.meta.write(move |tx| Snapshots::erase(tx, id))?;
        self.let_go(&erased);
        Ok(())
    }

    /// Removes the files of a snapshot whose record is gone, unless others have them, mostly after this
    /// has returned.
    pub fn let_go(&self, erased: &Erased) {
        self.settled(erased);
        if erased.last {
            self.inner.remover.add(erased.record.id);
        }
    }

    /// Says of snapshots whose records went in one transaction that their files are to go as well, however
    /// long each has to wait for [`Snapshots::let_go`] or [`Snapshots::remove_erased`].
    pub fn mark_leaving<'e>(&self, erased: impl IntoIterator<Item = &'e Erased>) {
        for erased in erased.into_iter().filter(|erased| erased.last) {
            self.inner.remover.mark(erased.record.id);
        }
    }

    /// Whether files of removed snapshots are still there.
    pub fn is_removing(&self) -> bool {
        self.inner.remover.is_busy()
    }

    /// Returns when the files of all snapshots that were removed before this call are gone, or have been
    /// given up.
    pub fn wait_removed(&self) {
        self.inner.remover.wait();
    }

    /// Leaves files of removed snapshots to the next [`Snapshots::recover`], as far as they are still
    /// there: for the end of a process that cannot wait.
    pub fn give_up_removed(&self) {
        self.inner.remover.give_up();
    }

    /// Removes the record of a snapshot on which no other stands, as part of a transaction;
    /// [`Snapshots::let_go`] or [`Snapshots::remove_erased`] is to be called after the commit.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::HasChildren`]; then nothing was changed.
    pub fn erase(tx: &mut Tx<'_>, id: (Namespace, SnapshotKey)) -> Result<Erased> {
        erase_checked(tx, id, None)
    }

    /// The same for who knows which namespaces have a snapshot of this key: then only those are asked
    /// whether they share it.
    ///
    /// # Errors
    /// As [`Snapshots::erase`].
    pub fn erase_among(
        tx: &mut Tx<'_>,
        id: (Namespace, SnapshotKey),
        namespaces: &[Namespace],
    ) -> Result<Erased> {
        erase_checked(tx, id, Some(namespaces))
    }

    /// Removes the files of a snapshot whose record is gone, unless others have them, and returns when
    /// they are.
    pub fn remove_erased(&self, erased: &Erased) {
        self.settled(erased);
        if erased.last {
            self.discard(erased.record.id);
        }
    }

    /// Nobody has to sync it any more.
    fn settled(&self, Erased { id, record, .. }: &Erased) {
        let mut pending = lock(&self.inner.pending);
        // The name may already belong to another that has to be synced.
        if pending.get(id) == Some(&Waiting::of(record)) {
            pending.remove(id);
        }
    }
}

fn erase_checked(
    tx: &mut Tx<'_>,
    id: (Namespace, SnapshotKey),
    among: Option<&[Namespace]>,
) -> Result<Erased> {
    let Some(record) = tx.get(&schema::SNAPSHOTS, &id)? else {
        return Err(Error::NotFound { key: id.1 });
    };
    let children = tx.scan(&schema::CHILDREN, &id)?;
    if !children.is_empty() {
        let children = children.into_iter().map(|((_, _, child), ())| child);
        return Err(Error::HasChildren {
            key: id.1,
            children: children.collect(),
        });
    }
    // Decided here, where nobody can come to share it meanwhile.
    let last = !is_shared(tx, &id, &record, among)?;
    erase(tx, &id.0, &id.1, &record)?;
    Ok(Erased { id, record, last })
}

/// A snapshot whose record is gone and whose files may still be there.
#[derive(Debug)]
pub struct Erased {
    id: (Namespace, SnapshotKey),
    record: SnapshotRecord,
    /// No other namespace has its directory.
    last: bool,
}

impl Erased {
    /// Bytes that its files take, as of its commit, and none where others have them still.
    pub fn freed(&self) -> u64 {
        match self.last {
            true => self.record.usage.bytes,
            false => 0,
        }
    }
}

/// Refuses a key that is taken.
fn absent(view: &impl View, ns: &Namespace, key: &SnapshotKey) -> Result<()> {
    let id = (ns.clone(), key.clone());
    match view.get(&schema::SNAPSHOTS, &id)? {
        None => Ok(()),
        Some(_) => Err(Error::Exists { key: id.1 }),
    }
}

/// The parent and all below it, for a snapshot that is to be made.
fn parents(
    view: &impl View,
    ns: &Namespace,
    key: &SnapshotKey,
    parent: Option<&SnapshotKey>,
) -> Result<Chain> {
    let Some(parent) = parent else {
        return Ok(Vec::new());
    };
    let below = chain(view, ns, parent).map_err(|err| match err {
        Error::TooDeep { .. } => Error::TooDeep {
            key: key.clone(),
            limit: OVERLAY_LOWER_COUNT_MAX,
        },
        Error::NotFound { .. } => Error::NoParent {
            key: key.clone(),
            parent: parent.clone(),
        },
        other => other,
    })?;
    committed(key, parent, below.first().map(|(_, record)| record))?;
    Ok(below)
}

fn no_parent(key: &SnapshotKey, parent: &SnapshotKey) -> Error {
    let (key, parent) = (key.clone(), parent.clone());
    Error::NoParent { key, parent }
}

/// Refuses a parent that is absent or not committed.
pub(crate) fn committed(
    key: &SnapshotKey,
    parent: &SnapshotKey,
    record: Option<&SnapshotRecord>,
) -> Result<()> {
    let (key, parent) = (key.clone(), parent.clone());
    match record.map(|record| record.kind) {
        Some(SnapshotKind::Committed) => Ok(()),
        Some(_) => Err(Error::ParentNotCommitted { key, parent }),
        None => Err(Error::NoParent { key, parent }),
    }
}

/// Writes a snapshot's record, and its name below its parent's.
pub(crate) fn insert(
    tx: &mut Tx<'_>,
    ns: &Namespace,
    key: &SnapshotKey,
    record: &SnapshotRecord,
) -> Result<()> {
    tx.use_namespace(ns)?;
    if let Some(parent) = &record.parent {
        let child = (ns.clone(), parent.clone(), key.clone());
        tx.put(&schema::CHILDREN, &child, &())?;
    }
    Ok(tx.put(&schema::SNAPSHOTS, &(ns.clone(), key.clone()), record)?)
}

/// Removes what [`insert`] wrote.
pub(crate) fn erase(
    tx: &mut Tx<'_>,
    ns: &Namespace,
    key: &SnapshotKey,
    record: &SnapshotRecord,
) -> Result<()> {
    if let Some(parent) = &record.parent {
        let child = (ns.clone(), parent.clone(), key.clone());
        tx.delete(&schema::CHILDREN, &child)?;
    }
    Ok(tx.delete(&schema::SNAPSHOTS, &(ns.clone(), key.clone()))?)
}
