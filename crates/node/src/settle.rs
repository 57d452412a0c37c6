//! Layers become durable behind the user's back: some time after they were unpacked, when the kernel
//! has written their pages anyway, so that nobody waits for a disk.
//!
//! Until then they carry the boot they were unpacked under, and a power cut drops them, to be
//! unpacked again from their blobs. Small blobs stand in the records until then.

use std::{collections::HashSet, time::Duration};

use cairn_meta::{Timestamp, View, schema};
use cairn_types::{Digest, ErrorKind, Namespace, SnapshotKey};

use crate::{
    Failure, Node,
    gc::{Item, Place},
};

/// A machine that never stops writing must not put the sync off for ever: after so many times the
/// wanted age it is made all the same.
const PATIENCE: u32 = 10;

impl Node {
    /// Puts unpacked layers and small blobs on the disk and records that they are, if there are any that
    /// have waited for `min_age` or longer. Whether it did.
    ///
    /// For the time after an answer was given. It is put off while the machine has much to write,
    /// since `syncfs` waits for what others wrote, too.
    pub fn settle(&self, min_age: Duration) -> Result<bool, Failure> {
        let waiting = [
            self.snapshots().pending_since(),
            self.content().pending_since(),
        ];
        let due = |since| is_due(since, min_age);
        if !waiting.into_iter().flatten().any(due) {
            return Ok(false);
        }
        // Both: the sync of the one is half of the other's.
        self.sync_layers()?;
        let flushed = self.content().flush();
        flushed.map_err(|err| Failure::of("put small blobs on the disk", &err))?;
        Ok(true)
    }

    /// For whoever removes a blob from a namespace, before he condemns it, since this relies on it: layers that a
    /// power cut may have torn are unpacked from it again.
    ///
    /// # Errors
    /// `FailedPrecondition` when such a one cannot be unpacked now, and no other namespace has the blob.
    pub(crate) fn renew_from(&self, ns: &Namespace, digest: &Digest) -> Result<(), Failure> {
        if self.torn_of(ns, digest)?.is_none() {
            return Ok(());
        }
        self.prove(&|| ());
        let Some((of, key)) = self.torn_of(ns, digest)? else {
            return Ok(());
        };
        let reason = format!("snapshot {key} of {of} has to be unpacked from it again");
        let failure = Failure::new(ErrorKind::FailedPrecondition, "remove blob", reason)
            .object("blob", digest)
            .namespace(ns)
            .cause("a power cut came before the snapshot's files were known to be on the disk");
        Err(failure.next("cairn fsck --repair"))
    }

    /// A snapshot that may be torn and has to be unpacked again from this blob, which no namespace has but `ns`.
    fn torn_of(
        &self,
        ns: &Namespace,
        digest: &Digest,
    ) -> Result<Option<(Namespace, SnapshotKey)>, Failure> {
        let unproven = self.snapshots().unproven();
        if unproven.is_empty() {
            return Ok(None);
        }
        let read = self.meta().read(|view| {
            let link = (ns.clone(), digest.clone());
            if view.get(&schema::BLOB_LINKS, &link)?.is_none() {
                return Ok(None);
            }
            for id in unproven {
                let record = view.get(&schema::SNAPSHOTS, &id)?;
                let torn = record.filter(|record| self.snapshots().is_unproven(record));
                if torn.and_then(|record| record.blob).as_ref() != Some(digest) {
                    continue;
                }
                for (other, _) in view.scan(&schema::NAMESPACES, &())? {
                    let link = (other, digest.clone());
                    if link.0 != *ns && view.get(&schema::BLOB_LINKS, &link)?.is_some() {
                        return Ok(None);
                    }
                }
                return Ok(Some(id));
            }
            Ok::<_, cairn_meta::Error>(None)
        });
        read.map_err(|err| Failure::of("look for layers that may be torn", &err))
    }

    /// Before blobs go: layers that are to be unpacked from them after a power cut, should it come before
    /// they are on the disk, have to be on the disk. Those that go as well do not count.
    pub(crate) fn secure(&self, going: &HashSet<Place>) -> Result<(), Failure> {
        let waiting = self.snapshots().waiting();
        let blobs: HashSet<&Digest> = going
            .iter()
            .filter_map(|(_, item)| match item {
                Item::Blob(digest) => Some(digest),
                _ => None,
            })
            .collect();
        if waiting.is_empty() || blobs.is_empty() {
            return Ok(());
        }
        let read = self.meta().read(|view| {
            for (ns, key) in waiting {
                if going.contains(&(ns.clone(), Item::Snapshot(key.clone()))) {
                    continue;
                }
                let record = view.get(&schema::SNAPSHOTS, &(ns, key))?;
                let blob = record.and_then(|record| record.blob);
                if blob.is_some_and(|blob| blobs.contains(&blob)) {
                    return Ok(true);
                }
            }
            Ok::<_, cairn_meta::Error>(false)
        });
        match read.map_err(|err| Failure::of("look for layers that wait for the disk", &err))? {
            true => self.sync_layers(),
            false => Ok(()),
        }
    }

    /// Puts all unpacked layers on the disk that are not known to be, for whoever waits for that.
    pub(crate) fn sync_layers(&self) -> Result<(), Failure> {
        let flushed = self.snapshots().flush();
        flushed.map_err(|err| Failure::of("put unpacked layers on the disk", &err))
    }
}

fn is_due(since: Timestamp, min_age: Duration) -> bool {
    let age = age(since, Timestamp::now());
    age >= min_age && (age >= min_age * PATIENCE || !cairn_sys::is_crowded(0))
}

/// A clock that was set back makes nothing older.
fn age(since: Timestamp, now: Timestamp) -> Duration {
    let nanos = now.0.saturating_sub(since.0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let at = |nanos| Timestamp(nanos);
        assert_eq!(age(at(1), at(4)), Duration::from_nanos(3));
        assert_eq!(age(at(4), at(1)), Duration::ZERO);
        assert_eq!(age(at(i64::MIN), at(i64::MAX)).as_nanos(), i64::MAX as u128);
    }
}
