//! One tree for several namespaces.
//!
//! A layer that was unpacked here and proven is the same for everybody. So a namespace that lacks it gets
//! a record of its own, which stands on the same directory. Who has a directory is written down nowhere
//! else: all who share one know it by the same key, so those have it whose record under that key has its
//! number. There is no count that a crash or a damaged record could make wrong.
//!
//! A directory's number stands for the whole stack below it: a layer is shared only with who has its
//! parent's directory already. That also keeps out what stands on a snapshot of a client's. The name of a
//! layer says nothing about what a client committed under it, and a layer that was unpacked on it has the
//! attributes of its directories.

use std::{collections::HashSet, sync::Arc};

use cairn_meta::{SnapshotRecord, Timestamp, Tx, View, schema};
use cairn_types::{Labels, Namespace, SnapshotKey, SnapshotKind};

use crate::{Error, Result, Snapshots, Waiting, disk::lock, lifecycle::insert};

type Id = (Namespace, SnapshotKey);

/// A stack after [`Snapshots::share`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// How many of its layers, from the lowest, the namespace has now.
    pub here: usize,
    /// Those of them that it did not have before.
    pub taken: Vec<SnapshotKey>,
}

/// What a namespace has of a stack, or can have.
struct Found {
    here: usize,
    /// Records of others.
    theirs: Vec<(SnapshotKey, SnapshotRecord)>,
}

impl Snapshots {
    /// Gives a namespace records for what others have of `stack`, lowest first, that it lacks: in one
    /// transaction, and up to the first layer that nobody has. Their trees become its own, too, with all
    /// that is known of them but their labels.
    ///
    /// Shared is what was unpacked by this store from a blob ([`Snapshots::commit_stack`]), and stands on
    /// the same trees in both namespaces.
    ///
    /// # Errors
    /// [`Error::ReadOnly`] after a failed sync, if there is something to share; those of the records.
    /// Nothing is shared then.
    pub fn share(&self, ns: &Namespace, stack: &[SnapshotKey]) -> Result<Shared> {
        let mut lost = HashSet::new();
        loop {
            // Most often there is nothing to share, and a transaction costs a flush.
            let found = self.inner.meta.read(|view| find(view, ns, stack, &lost))?;
            if found.theirs.is_empty() {
                return Ok(Shared {
                    here: found.here,
                    taken: Vec::new(),
                });
            }
            // Damage to one namespace's is not handed on: unpacked anew it is whole. Nor is what may be torn,
            // which the next flush would say to be on the disk.
            let mut gone = Vec::new();
            for (_, record) in &found.theirs {
                if self.is_unproven(record) || !self.has_files(record.id)? {
                    gone.push(record.id);
                }
            }
            if gone.is_empty() {
                return self.record_shared(ns, stack, lost);
            }
            lost.extend(gone);
        }
    }

    fn record_shared(
        &self,
        ns: &Namespace,
        stack: &[SnapshotKey],
        lost: HashSet<u64>,
    ) -> Result<Shared> {
        self.check_writable()?;
        let now = Timestamp::now();
        let (namespace, stack) = (ns.clone(), stack.to_vec());
        let inner = Arc::clone(&self.inner);
        // Asked again: what others had may have been removed, and its files be on their way out.
        let found = self.inner.meta.write(move |tx| {
            let mut found = find(tx, &namespace, &stack, &lost)?;
            for (key, record) in &mut found.theirs {
                record.labels = Labels::new();
                record.created_at = now;
                record.updated_at = now;
                insert(tx, &namespace, key, record)?;
                // Before anybody can see it.
                if !record.durable {
                    let id = (namespace.clone(), key.clone());
                    lock(&inner.pending).insert(id, Waiting::of(record));
                }
            }
            Ok::<_, Error>(found)
        })?;
        Ok(Shared {
            here: found.here,
            taken: found.theirs.into_iter().map(|(key, _)| key).collect(),
        })
    }
}

/// Goes up a stack as far as `ns` has it or others do, who must not be among the `lost`.
fn find(
    view: &impl View,
    ns: &Namespace,
    stack: &[SnapshotKey],
    lost: &HashSet<u64>,
) -> Result<Found> {
    let mut found = Found {
        here: 0,
        theirs: Vec::new(),
    };
    let mut others: Option<Vec<Namespace>> = None;
    let mut below = None;
    for key in stack {
        let id = match view.get(&schema::SNAPSHOTS, &(ns.clone(), key.clone()))? {
            Some(own) if own.kind == SnapshotKind::Committed => own.id,
            Some(_) => break,
            None => {
                let others = match &mut others {
                    Some(others) => others,
                    unknown => unknown.insert(namespaces(view)?.0),
                };
                let Some(theirs) = of_others(view, others, (key, below), lost)? else {
                    break;
                };
                let id = theirs.id;
                found.theirs.push((key.clone(), theirs));
                id
            }
        };
        found.here += 1;
        below = Some((key, id));
    }
    Ok(found)
}

/// The first record of a layer that can be shared with who has a certain tree below it.
fn of_others(
    view: &impl View,
    others: &[Namespace],
    (key, below): (&SnapshotKey, Option<(&SnapshotKey, u64)>),
    lost: &HashSet<u64>,
) -> Result<Option<SnapshotRecord>> {
    for other in others {
        let Some(theirs) = sound(view, &(other.clone(), key.clone()))? else {
            continue;
        };
        let parent = below.map(|(parent, _)| parent);
        if !is_proven(&theirs) || theirs.parent.as_ref() != parent || lost.contains(&theirs.id) {
            continue;
        }
        if let Some((parent, id)) = below {
            let parent = sound(view, &(other.clone(), parent.clone()))?;
            if parent.is_none_or(|parent| parent.id != id) {
                continue;
            }
        }
        return Ok(Some(theirs));
    }
    Ok(None)
}

/// Whether it was unpacked by this store, which has seen that it is what its name says.
fn is_proven(record: &SnapshotRecord) -> bool {
    record.kind == SnapshotKind::Committed && record.diff_id.is_some() && record.blob.is_some()
}

/// A record, unless it is damaged: then others can do without it.
fn sound(view: &impl View, id: &Id) -> Result<Option<SnapshotRecord>> {
    match view.get(&schema::SNAPSHOTS, id) {
        Err(cairn_meta::Error::Corrupt { .. }) => Ok(None),
        found => Ok(found?),
    }
}

/// All namespaces that may have snapshots, and whether some may be missing, their records damaged.
fn namespaces(view: &impl View) -> Result<(Vec<Namespace>, bool)> {
    let (records, damaged) = view.scan_sound(&schema::NAMESPACES, &())?;
    let names = records.into_iter().map(|(ns, _)| ns).collect();
    Ok((names, !damaged.is_empty()))
}

/// Whether another namespace has the directory of this record as well, or may have. Only `among` are
/// looked at, if it is given: all that have a snapshot of this key.
pub(crate) fn is_shared(
    view: &impl View,
    (ns, key): &Id,
    record: &SnapshotRecord,
    among: Option<&[Namespace]>,
) -> Result<bool> {
    if !is_proven(record) {
        return Ok(false);
    }
    let all;
    let among = match among {
        Some(among) => among,
        None => {
            let (names, incomplete) = namespaces(view)?;
            if incomplete {
                return Ok(true);
            }
            all = names;
            &all
        }
    };
    for other in among.iter().filter(|other| *other != ns) {
        match view.get(&schema::SNAPSHOTS, &(other.clone(), key.clone())) {
            Ok(Some(theirs)) if theirs.id == record.id => return Ok(true),
            Ok(_) => {}
            // It may be the one. Without a record the directory is swept once none is damaged.
            Err(cairn_meta::Error::Corrupt { .. }) => return Ok(true),
            Err(err) => return Err(err.into()),
        }
    }
    Ok(false)
}

/// Says of trees in all records that stand on them that their files are on the disk. Each is named by one
/// such record and its number.
pub(crate) fn mark_durable(tx: &mut Tx<'_>, trees: &[(Id, u64)]) -> Result<()> {
    let (names, _) = namespaces(tx)?;
    for (id, tree) in trees {
        // One that was removed meanwhile is no concern, but its name may have come back: with another
        // tree, which was written later.
        let young = |record: &SnapshotRecord| !record.durable && record.id == *tree;
        let own = tx.get(&schema::SNAPSHOTS, id)?;
        if let Some(own) = own.filter(young) {
            mark(tx, id, own)?;
        }
        for other in names.iter().filter(|other| **other != id.0) {
            let other = (other.clone(), id.1.clone());
            if let Some(theirs) = sound(tx, &other)?.filter(young) {
                mark(tx, &other, theirs)?;
            }
        }
    }
    Ok(())
}

fn mark(tx: &mut Tx<'_>, id: &Id, mut record: SnapshotRecord) -> Result<()> {
    record.durable = true;
    Ok(tx.put(&schema::SNAPSHOTS, id, &record)?)
}
