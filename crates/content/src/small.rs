//! Small blobs, whose bytes stand in their records until their files are on the disk.
//!
//! A file costs two syncs before a record may speak of it: its own and that of its name. A manifest is
//! no larger than what those write, and its record has to be put on the disk anyhow. So the bytes of a
//! small blob go with its record, and its file is synced later, together with many others; then the
//! records forget the bytes. Whatever a power cut takes of the files, [`Content::restore`] writes again.

use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError},
};

use cairn_meta::{Timestamp, View, schema};
use cairn_sys::{OFlags, durable, raw};
use cairn_types::Digest;

use crate::{Content, Error, Result, error::sys, is_missing, publish::MODE};

/// Most bytes of a blob that stand in its record meanwhile: most manifests and configs have fewer.
pub(crate) const SMALL_BYTES_MAX: usize = 8 << 10;

/// Most files that are synced one by one; of more, `syncfs` makes shorter work.
const SYNCED_EACH_MAX: usize = 64;

/// A small blob whose file is not known to be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Young {
    /// When it was published.
    since: Timestamp,
    /// Of all that were published, so that one that was deleted and came back is another.
    number: u64,
}

/// All of them. What is published is noted here before its record is written.
#[derive(Default)]
pub(crate) struct Youth {
    known: HashMap<Digest, Young>,
    published: u64,
}

impl Content {
    /// Since when the oldest small blob waits for its file to be synced; `None` when none does.
    pub fn pending_since(&self) -> Option<Timestamp> {
        self.youth().known.values().map(|young| young.since).min()
    }

    /// Notes a blob whose record is about to be written with its bytes.
    pub(crate) fn begin(&self, digest: &Digest) {
        let mut youth = self.youth();
        youth.published += 1;
        let young = Young {
            since: Timestamp::now(),
            number: youth.published,
        };
        youth.known.insert(digest.clone(), young);
    }

    /// Puts the files of all small blobs on the disk, if any are not, and forgets their bytes.
    pub fn flush(&self) -> Result<()> {
        self.check_writable()?;
        let known = self.youth().known.clone();
        if known.is_empty() {
            return Ok(());
        }
        let synced = match known.len() > SYNCED_EACH_MAX {
            true => self.sync_all(known)?,
            false => self.sync_each(known)?,
        };
        let content = self.clone();
        let forgotten = synced.clone();
        // Not waited for: bytes that come back are written once more, and that is all.
        self.inner.meta.note(move |tx| {
            // Here and not before: what was deleted and published again in between has a record of
            // its own, which either comes later than this or was noted before.
            let youth = content.youth();
            for (digest, young) in &forgotten {
                if youth.known.get(digest) == Some(young) {
                    tx.delete(&schema::BLOB_BYTES, digest)?;
                }
            }
            Ok::<_, Error>(())
        })?;
        let mut youth = self.youth();
        for (digest, young) in synced {
            if youth.known.get(&digest) == Some(&young) {
                youth.known.remove(&digest);
            }
        }
        Ok(())
    }

    fn sync_all(&self, known: HashMap<Digest, Young>) -> Result<HashMap<Digest, Young>> {
        let synced = self.inner.ingests.syncfs();
        synced.map_err(|err| self.failed("sync small blobs".to_owned(), err))?;
        Ok(known)
    }

    /// Those whose files are on the disk, and those that are gone.
    fn sync_each(&self, known: HashMap<Digest, Young>) -> Result<HashMap<Digest, Young>> {
        let mut synced = HashMap::new();
        for (digest, young) in known {
            if self.sync_one(&digest)? {
                synced.insert(digest, young);
            } else {
                // Its bytes are in the records until then.
                tracing::error!("blob {digest} was not written; the next opening writes it again");
            }
        }
        for blobs in &self.inner.blobs {
            let named = blobs.syncs.run(|| blobs.dir.fsync());
            named.map_err(|err| self.failed("sync the names of small blobs".to_owned(), err))?;
        }
        Ok(synced)
    }

    /// Whether a file is on the disk, or gone. Its sync tells of pages that could not be written, but
    /// not when the kernel has forgotten the file since; then what is read comes from the disk.
    fn sync_one(&self, digest: &Digest) -> Result<bool> {
        let (dir, name) = self.place(digest);
        let failed = |err| self.failed(format!("sync blob {digest}"), err);
        let file = match dir.open_file(name, OFlags::RDONLY, 0) {
            Ok(file) => file,
            // Deleted meanwhile, and its bytes are forgotten with it.
            Err(err) if is_missing(&err) => return Ok(true),
            Err(err) => return Err(failed(err)),
        };
        durable::sync_file(&file).map_err(failed)?;
        let bytes = raw::read_at(&file, SMALL_BYTES_MAX + 1, 0);
        Ok(bytes.is_ok_and(|bytes| Digest::of(digest.algorithm(), &bytes) == *digest))
    }

    /// Writes the files of small blobs that were not known to be on the disk when the store was last
    /// used. All of them, also those that look right: the process before may have ended because a sync
    /// failed, after which the kernel shows bytes that are nowhere else.
    pub(crate) fn restore(&self) -> Result<()> {
        let (all, damaged) = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan_sound(&schema::BLOB_BYTES, &())?))?;
        for err in &damaged {
            tracing::error!("{err}");
        }
        for (digest, bytes) in all {
            let known = self.size_of_any(&digest)?;
            if known != Some(bytes.len() as u64) || Digest::of(digest.algorithm(), &bytes) != digest
            {
                tracing::error!("bytes of blob {digest} in the records are not its own");
                continue;
            }
            // As with other damage, the rest of the store can be used.
            if let Err(err) = self.write_again(&digest, &bytes) {
                let attempted = format!("write blob {digest} again");
                tracing::error!("{:?}", sys(attempted)(err));
                continue;
            }
            self.begin(&digest);
        }
        Ok(())
    }

    /// In place: there is nobody yet who reads, and whatever was there is the same or wrong.
    fn write_again(&self, digest: &Digest, bytes: &[u8]) -> cairn_sys::Result<()> {
        let (dir, name) = self.place(digest);
        let file = dir.open_file(name, OFlags::WRONLY | OFlags::CREATE, MODE)?;
        raw::write_all_at(&file, bytes, 0)?;
        raw::ftruncate(&file, bytes.len() as u64)?;
        raw::fchmod(&file, MODE)
    }

    fn youth(&self) -> MutexGuard<'_, Youth> {
        let youth = self.inner.youth.lock();
        youth.unwrap_or_else(PoisonError::into_inner)
    }
}
