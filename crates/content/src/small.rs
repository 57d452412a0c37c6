//! Small blobs, whose bytes stand in their records until their files are on the disk.
//!
//! A file costs two syncs before a record may speak of it: its own and that of its name. A manifest is
//! no larger than what those write, and its record has to be put on the disk anyhow. So the bytes of a
//! small blob go with its record, and its file is synced later, together with many others; then the
//! records forget the bytes. Whatever a power cut takes of the files, [`Content::restore`] writes again.

use std::{
    collections::HashMap,
    ffi::OsStr,
    sync::{MutexGuard, PoisonError},
};

use cairn_meta::{Timestamp, View, schema};
use cairn_sys::{OFlags, durable, raw};
use cairn_types::Digest;

use crate::{
    Blobs, Content, Error, Result, check::Flaw, error::sys, is_missing, locks::Held, publish::MODE,
};

/// Most bytes of a blob that stand in its record meanwhile: most manifests and configs have fewer.
pub(crate) const SMALL_BYTES_MAX: usize = 8 << 10;

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
    /// A sync failed, or did not help: the kernel tells of lost pages once and counts them as clean, so
    /// the files have to be written again before the next one.
    spoiled: bool,
}

impl Content {
    /// Since when the oldest small blob waits for its file to be synced; `None` when none does.
    pub fn pending_since(&self) -> Option<Timestamp> {
        self.youth().known.values().map(|young| young.since).min()
    }

    /// Notes a blob whose record is about to be written with its bytes, or was at that time.
    pub(crate) fn begin(&self, digest: &Digest, since: Timestamp) {
        let mut youth = self.youth();
        youth.published += 1;
        let number = youth.published;
        youth.known.insert(digest.clone(), Young { since, number });
    }

    /// Puts the files of all small blobs on the disk, if any are not, and forgets their bytes.
    ///
    /// # Errors
    /// That of a sync; the bytes stay in the records.
    pub fn flush(&self) -> Result<()> {
        self.check_writable()?;
        let (known, spoiled) = {
            let youth = self.youth();
            (youth.known.clone(), youth.spoiled)
        };
        if known.is_empty() {
            return Ok(());
        }
        if spoiled {
            known.keys().try_for_each(|digest| self.renew(digest))?;
            self.youth().spoiled = false;
        }
        let synced = match known.len() > durable::SYNCED_EACH_MAX {
            true => self.sync_all(known),
            false => self.sync_each(known),
        };
        let synced = synced.inspect_err(|_| self.youth().spoiled = true)?;
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

    /// Those whose files are on the disk, and those that are gone.
    fn sync_each(&self, known: HashMap<Digest, Young>) -> Result<HashMap<Digest, Young>> {
        let mut synced = HashMap::new();
        for (digest, young) in known {
            if self.sync_one(&digest)? {
                synced.insert(digest, young);
            } else {
                tracing::error!("blob {digest} was not written, and is written again");
                self.youth().spoiled = true;
            }
        }
        for blobs in &self.inner.blobs {
            let named = blobs.syncs.run(|| blobs.dir.fsync());
            named.map_err(|err| self.failed("sync the names of small blobs".to_owned(), err))?;
        }
        Ok(synced)
    }

    /// The same by one sync of the whole file system, which does not say what there is to be synced.
    fn sync_all(&self, mut known: HashMap<Digest, Young>) -> Result<HashMap<Digest, Young>> {
        let synced = self.inner.ingests.syncfs();
        synced.map_err(|err| self.failed("sync small blobs".to_owned(), err))?;
        let is_lost = |digest: &Digest| {
            let is_there = || {
                let (dir, name) = self.place(digest);
                !matches!(dir.try_stat(name), Ok(None))
            };
            if is_there() {
                return false;
            }
            let _changing = self.inner.changing.lock(digest);
            !is_there() && !self.is_forgotten(digest)
        };
        let before = known.len();
        known.retain(|digest, _| !is_lost(digest));
        if known.len() < before {
            tracing::error!("files of small blobs are missing, and are written again");
            self.youth().spoiled = true;
        }
        Ok(known)
    }

    /// Whether a file is on the disk, or gone. Its sync tells of pages that could not be written, but
    /// not when the kernel has forgotten the file since; then what is read comes from the disk.
    fn sync_one(&self, digest: &Digest) -> Result<bool> {
        let (dir, name) = self.place(digest);
        let failed = |err| self.failed(format!("sync blob {digest}"), err);
        let open = || dir.open_file(name, OFlags::RDONLY, 0);
        let file = match open() {
            Err(err) if is_missing(&err) => {
                // Whoever deletes or publishes it comes to his end.
                let _changing = self.inner.changing.lock(digest);
                match open() {
                    Err(err) if is_missing(&err) => return Ok(self.is_forgotten(digest)),
                    other => other,
                }
            }
            other => other,
        };
        let file = file.map_err(failed)?;
        durable::sync_file(&file).map_err(failed)?;
        let bytes = raw::read_at(&file, SMALL_BYTES_MAX + 1, 0);
        Ok(bytes.is_ok_and(|bytes| Digest::of(digest.algorithm(), &bytes) == *digest))
    }

    /// Whether a blob without file was deleted, and its bytes are forgotten with it. Those of one that
    /// has lost its file are the only ones left, unless they are damaged as well.
    fn is_forgotten(&self, digest: &Digest) -> bool {
        let kept = self
            .inner
            .meta
            .read(|view| view.get(&schema::BLOB_BYTES, digest));
        matches!(kept, Ok(None) | Err(cairn_meta::Error::Corrupt { .. }))
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
        let mut unknown = Vec::new();
        for (digest, bytes) in all {
            let known = self
                .inner
                .meta
                .read(|view| Ok::<_, Error>(view.get(&schema::BLOBS, &digest)?));
            // As with other damage, the rest of the store can be used.
            let known = match known {
                Ok(Some(known)) => known,
                Ok(None) => {
                    unknown.push(digest);
                    continue;
                }
                Err(err) => {
                    tracing::error!("{err}");
                    continue;
                }
            };
            let right = Digest::of(digest.algorithm(), &bytes) == digest;
            if !right || known.size != bytes.len() as u64 {
                tracing::error!("bytes of blob {digest} in the records are not its own");
                continue;
            }
            if let Err(err) = self.write_again(&digest, &bytes) {
                let attempted = format!("write blob {digest} again");
                tracing::error!("{:?}", sys(attempted)(err));
                continue;
            }
            self.begin(&digest, known.created_at);
        }
        self.forget_bytes(unknown)
    }

    /// Removes bytes of blobs that a version without them has deleted.
    fn forget_bytes(&self, unknown: Vec<Digest>) -> Result<()> {
        if unknown.is_empty() {
            return Ok(());
        }
        self.inner.meta.note(move |tx| {
            for digest in &unknown {
                tx.delete(&schema::BLOB_BYTES, digest)?;
            }
            Ok::<_, Error>(())
        })
    }

    /// Writes the file of a blob again whose bytes are in the records, so that the next sync has
    /// something to write.
    pub(crate) fn renew(&self, digest: &Digest) -> Result<()> {
        // Nobody removes the file meanwhile, unless he comes back for it.
        let _changing = self.inner.changing.lock(digest);
        let bytes = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.get(&schema::BLOB_BYTES, digest)?))?;
        let Some(bytes) = bytes else { return Ok(()) };
        let written = self.write_again(digest, &bytes);
        written.map_err(sys(format!("write blob {digest} again")))
    }

    /// Puts the bytes that the records have of a blob in the place of its file, which has this flaw, and on
    /// the disk; how many, or `None` when they have none. Before that the old file keeps its name: a flush
    /// would take a blob without file for one that was deleted.
    pub(crate) fn replace(
        &self,
        digest: &Digest,
        flaw: &Flaw,
        _changing: &Held<Digest>,
    ) -> Result<Option<u64>> {
        let kept = self
            .inner
            .meta
            .read(|view| view.get(&schema::BLOB_BYTES, digest));
        let bytes = match kept {
            Err(cairn_meta::Error::Corrupt { .. }) => None,
            kept => kept?,
        };
        let right = |bytes: &Vec<u8>| Digest::of(digest.algorithm(), bytes) == *digest;
        let Some(bytes) = bytes.filter(right) else {
            return Ok(None);
        };
        let name = self.put_name();
        let aside = OsStr::new(&name);
        let replaced = self.replace_by(digest, flaw, aside, &bytes);
        // Also what it has changed places with.
        let _ = self.inner.ingests.remove_tree(aside);
        if let Err(err) = replaced {
            // The next flush writes it before it believes any file.
            self.youth().spoiled = true;
            return Err(self.failed(format!("write blob {digest} again"), err));
        }
        Ok(Some(bytes.len() as u64))
    }

    fn replace_by(
        &self,
        digest: &Digest,
        flaw: &Flaw,
        aside: &OsStr,
        bytes: &[u8],
    ) -> cairn_sys::Result<()> {
        let ingests = &self.inner.ingests;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
        let file = ingests.open_file(aside, flags, 0o600)?;
        raw::write_all(&file, bytes)?;
        raw::fchmod(&file, MODE)?;
        durable::sync_file(&file)?;
        let Blobs { dir, syncs } = self.blobs_of(digest);
        let name = OsStr::new(digest.hex());
        match flaw {
            // No file takes the name of a directory.
            Flaw::NotAFile => ingests.exchange(aside, dir, name)?,
            _ => ingests.rename(aside, dir, name)?,
        }
        syncs.run(|| dir.fsync())
    }

    /// In place: whatever is there is the same or wrong.
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
