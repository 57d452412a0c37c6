//! Mending what was found.

use std::collections::HashMap;

use cairn_content::Mended;
use cairn_meta::{Error, Key, Record, SnapshotRecord, Table, Tx, View, schema};
use cairn_snapshot::Staged;
use cairn_sys::{Dir, mount::Users};
use cairn_types::{Digest, LeaseId, Namespace, SnapshotKey, SnapshotKind};

use super::{
    Check, Finding, Severity,
    trees::{Ordered, provable},
};
use crate::Silent;

type Id = (Namespace, SnapshotKey);

impl Check<'_> {
    /// A blob whose bytes are wrong loses its file, so that nobody reads it, and everything else stays.
    pub(super) fn mend_blob(&mut self, mut finding: Finding, digest: &Digest) -> Finding {
        let watcher = self.watcher;
        let mut read = |bytes| watcher.has_read(bytes);
        match self.node.content().give_up(digest, &mut read) {
            Ok(Mended::Whole) => finding.mended("written again from its record"),
            Ok(Mended::Nothing) => finding.mended("it is whole by now"),
            Ok(Mended::Measured) => {
                finding.mended("its bytes are right, and its record says by now how many they are")
            }
            Ok(Mended::Unread) => {
                finding.left("its file stays where it is: it may be whole, and readable again")
            }
            Ok(Mended::Stopped) => finding.left("it was stopped"),
            Ok(Mended::Aside) if finding.severity == Severity::Loss => {
                finding.left("nothing here has its bytes")
            }
            Ok(Mended::Aside) => {
                finding.severity = Severity::Loss;
                finding.left("its damaged file is removed, and its records wait for its bytes")
            }
            Err(err) => finding.left(err.to_string()),
        }
    }

    /// Unpacks a committed tree again from its layer and puts it in its place, unless somebody has that
    /// mounted. What it stands on is `below`, nearest first, or what its record says. The error is the reason.
    pub(super) fn rebuild(&self, one: &Ordered<'_>, below: Option<&[Dir]>) -> Result<(), String> {
        let id = one.record.id;
        let staged = self.stage_again(one, below, &|| self.unused(id))?;
        let replaced = self.node.snapshots().replace(one.ns, one.key, id, staged);
        replaced.map_err(|err| err.to_string())
    }

    /// Unpacks a committed tree again beside itself. `may` is asked before and afterwards whether nobody has the
    /// one that is there mounted.
    pub(super) fn stage_again(
        &self,
        one: &Ordered<'_>,
        below: Option<&[Dir]>,
        may: &dyn Fn() -> Result<(), String>,
    ) -> Result<Staged, String> {
        let Some(layer) = provable(one.record) else {
            return Err("it was not unpacked by this store".to_owned());
        };
        let pins = self.node.pins();
        pins.snapshot(one.ns, one.key);
        pins.blob(one.ns, layer.0);
        may()?;
        let snapshots = self.node.snapshots();
        let below = match (below, &one.record.parent) {
            (Some(below), _) => Ok(below.to_vec()),
            (None, Some(parent)) => snapshots.lowers(one.ns, parent),
            (None, None) => Ok(Vec::new()),
        };
        let below = below.map_err(|err| err.to_string())?;
        let staged = snapshots.stage().map_err(|err| err.to_string())?;
        self.unpack_again(layer, &staged, &below)?;
        may()?;
        Ok(staged)
    }

    /// Refuses a tree that is mounted, or may be.
    fn unused(&self, id: u64) -> Result<(), String> {
        let tree = self.node.real_root().join(format!("snapshots/{id}/fs"));
        let Users { found, silent } = cairn_sys::mount::users(&tree);
        if let Some((at, pid)) = found.first() {
            let at = at.display();
            return Err(format!(
                "it is in use, mounted at {at} (seen by pid {pid}): unmount that first"
            ));
        }
        let above = match silent {
            true => self.mountable_above(id)?,
            false => None,
        };
        above.map_or(Ok(()), |key| {
            Err(format!(
                "snapshot {key} stands on it and may be mounted, and not all mounts can be seen from here"
            ))
        })
    }

    /// A snapshot that can be mounted and stands on this tree: nothing else ever shows it.
    fn mountable_above(&self, id: u64) -> Result<Option<SnapshotKey>, String> {
        let read = self
            .node
            .meta()
            .read(|view| view.scan_sound(&schema::SNAPSHOTS, &()));
        let (all, damaged) = read.map_err(|err: Error| err.to_string())?;
        if !damaged.is_empty() {
            return Err("records of snapshots are damaged".to_owned());
        }
        let all: HashMap<_, _> = all.into_iter().collect();
        let stands = |(ns, _): &Id, record: &SnapshotRecord| {
            let mut below = record.parent.as_ref();
            // Damage may have made a ring of them.
            for _ in 0..all.len() {
                let Some(parent) = below.and_then(|key| all.get(&(ns.clone(), key.clone()))) else {
                    break;
                };
                if parent.id == id {
                    return true;
                }
                below = parent.parent.as_ref();
            }
            false
        };
        let mountable = all
            .iter()
            .filter(|(_, record)| record.kind != SnapshotKind::Committed);
        let mut found = mountable.filter(|(id, record)| stands(id, record));
        Ok(found.next().map(|((_, key), _)| key.clone()))
    }

    /// Of a blob whose record is lost the file may be whole.
    pub(super) fn mend_unrecorded(&mut self, finding: Finding, digest: &Digest) -> Finding {
        match self.node.content().record_again(digest) {
            Ok(true) => finding.mended("recorded again: its file is whole"),
            Ok(false) => finding.left("its file is not whole"),
            Err(err) => finding.left(err.to_string()),
        }
    }

    /// Of a damaged record, whose key is all that is known of it.
    pub(super) fn mend_record(&mut self, finding: Finding, key: &str) -> Finding {
        let (table, name) = key.split_once(' ').unwrap_or((key, ""));
        let mended = match (table, name.split(' ').collect::<Vec<_>>().as_slice()) {
            ("blob", [digest]) => match Digest::parse(digest) {
                Ok(digest) => return self.mend_unrecorded(finding, &digest),
                Err(_) => None,
            },
            ("blob-bytes", [digest]) => Digest::parse(digest).ok().map(|it| self.mend_bytes(it)),
            ("snapshot", [ns, key]) => {
                let id = Namespace::parse(ns).ok().zip(SnapshotKey::parse(key).ok());
                id.map(|id| self.mend_snapshot(id))
            }
            // All that they say is their keys.
            ("child", [ns, parent, child]) => {
                let keys = SnapshotKey::parse(parent)
                    .ok()
                    .zip(SnapshotKey::parse(child).ok());
                let id = Namespace::parse(ns).ok().zip(keys);
                id.map(|(ns, (parent, child))| {
                    self.mend_key(&schema::CHILDREN, (ns, parent, child))
                })
            }
            ("lease-resource", [ns, lease, kind, name]) => {
                let id = Namespace::parse(ns).ok().zip(LeaseId::parse(lease).ok());
                let rest = ((*kind).to_owned(), (*name).to_owned());
                id.map(|(ns, lease)| {
                    self.mend_key(&schema::LEASE_RESOURCES, (ns, lease, rest.0, rest.1))
                })
            }
            _ => None,
        };
        match mended {
            Some(Ok(action)) => finding.mended(action),
            Some(Err(reason)) => finding.left(reason),
            None => finding.left("nothing here knows what it said"),
        }
    }

    /// The bytes of a small blob are in its file as well, or else there is damage to the blob.
    fn mend_bytes(&self, digest: Digest) -> Mending {
        let settled = self.node.content().settle(&digest);
        if !settled.map_err(|err| err.to_string())? {
            return Err("its file or what is recorded of it is not whole either".to_owned());
        }
        self.change(move |tx| {
            remove_damaged(tx, &schema::BLOB_BYTES, &digest)?;
            Ok("removed: its file is whole")
        })
    }

    /// A record that has nothing but its key is written again.
    fn mend_key<K: Key + Send + 'static>(&self, table: &'static Table<K, ()>, key: K) -> Mending {
        self.change(move |tx| {
            if let Err(Error::Corrupt { .. }) = tx.get(table, &key) {
                tx.put(table, &key, &())?;
            }
            Ok("written again")
        })
    }

    /// The uppermost layer of an image can be unpacked again, and its record made anew. Others may be somebody's
    /// changes; and where something stands on it, it alone says on what that stands, so that without it all
    /// below would be garbage, mounted or not. Those records are left.
    fn mend_snapshot(&self, id: (Namespace, SnapshotKey)) -> Mending {
        let (Some((ns, target)), Some(blob)) = (self.needed.target(&id), self.needed.packed(&id.1))
        else {
            return Err("nothing here knows what it said".to_owned());
        };
        // The tree that it spoke of may be the only copy.
        let packed = self.node.content().is_whole(&ns, blob);
        if !packed.map_err(|err| err.to_string())? {
            return Err("its layer is not here to be unpacked again".to_owned());
        }
        let key = id.1.clone();
        let removed = self.node.meta().write(move |tx| {
            let stood_on = stands_on(tx, &id.0, &id.1)?;
            if !stood_on {
                remove_damaged(tx, &schema::SNAPSHOTS, &id)?;
            }
            Ok::<_, Error>(!stood_on)
        });
        if !removed.map_err(|err| err.to_string())? {
            return Err("others stand on it, and it alone says on what that is".to_owned());
        }
        let pins = self.node.pins();
        if let Err(failure) = self.node.unpack(&ns, &target, None, &Silent, &pins) {
            tracing::debug!("{failure}");
        }
        // It may be for another platform.
        match self.node.has_snapshot(&ns, &key) {
            Ok(true) => Ok("unpacked again"),
            _ => Err("it is removed: pull or import its image again".to_owned()),
        }
    }

    fn change(
        &self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<&'static str, Error> + Send + 'static,
    ) -> Mending {
        self.node
            .meta()
            .write(change)
            .map_err(|err| err.to_string())
    }
}

/// What was done, or why nothing was.
type Mending = Result<&'static str, String>;

/// Whether anything is said to stand on a snapshot, by its own record or in a list.
pub(super) fn stands_on(tx: &mut Tx<'_>, ns: &Namespace, key: &SnapshotKey) -> Result<bool, Error> {
    let (listed, damaged) = tx.scan_sound(&schema::CHILDREN, &(ns.clone(), key.clone()))?;
    if !listed.is_empty() || !damaged.is_empty() {
        return Ok(true);
    }
    let (all, _) = tx.scan_sound(&schema::SNAPSHOTS, ns)?;
    Ok(all.iter().any(|(_, one)| one.parent.as_ref() == Some(key)))
}

/// Removes a record if it is still one that does not prove itself.
fn remove_damaged<K: Key, V: Record>(
    tx: &mut Tx<'_>,
    table: &Table<K, V>,
    key: &K,
) -> Result<(), Error> {
    match tx.get(table, key) {
        Err(Error::Corrupt { .. }) => tx.delete(table, key),
        other => other.map(drop),
    }
}
