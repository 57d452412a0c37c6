//! Uploads: appended to and hashed as bytes come, resumable by their ref, and then a blob or nothing.

mod shared;

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    sync::{MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use cairn_meta::{IngestRecord, Timestamp, Tx, View, schema};
use cairn_sys::{OFlags, Part, raw};
use cairn_types::{Algorithm, Digest, Hasher, IngestRef, Labels, Namespace};

use crate::{
    Content, Error, Result,
    blob::hash_file,
    error::{io as io_failed, sys},
    is_missing, links,
    locks::Held,
    publish::{Written, is_sync},
};

/// What is known of an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestInfo {
    /// Its name.
    pub reference: IngestRef,
    /// Bytes that came.
    pub offset: u64,
    /// Bytes announced; 0 when unknown.
    pub total: u64,
    /// The digest announced.
    pub expected: Option<Digest>,
    /// When it was begun.
    pub started_at: Timestamp,
    /// When it was last opened or grew.
    pub updated_at: Timestamp,
    /// It was last opened under a lease, which alone keeps it.
    pub leased: bool,
}

/// An upload under way. Holding it is holding its ref: a second writer gets [`Error::Locked`].
/// Dropped, its bytes stay for resuming.
pub struct Ingest {
    content: Content,
    ns: Namespace,
    reference: IngestRef,
    record: IngestRecord,
    file: File,
    /// Of the first `offset` bytes.
    hasher: Hasher,
    algorithm: Algorithm,
    offset: u64,
    /// Bytes of the file that are shared with a source; those behind `offset` did not come yet.
    shared: u64,
    /// Of the last byte that came, whoever brought it.
    updated_at: Timestamp,
    written: bool,
    _writing: Held<(Namespace, IngestRef)>,
}

impl Content {
    /// Opens an upload, or goes on with one: what came before is hashed again, since nobody knows
    /// what of it reached the disk.
    ///
    /// `total` is 0 when unknown; another one than before starts over. A blob that is known to be damaged
    /// is taken as one that is not there, and replaced at the commit.
    ///
    /// # Errors
    /// [`Error::Exists`] when the namespace has `expected`; [`Error::Locked`] while another writer
    /// has the ref.
    pub fn writer(
        &self,
        ns: &Namespace,
        reference: &IngestRef,
        expected: Option<&Digest>,
        total: u64,
    ) -> Result<Ingest> {
        self.writer_for(ns, reference, expected, total, false)
    }

    /// As [`Content::writer`], for somebody whose lease holds the upload: it then lives as long as
    /// the lease does, not for a time of its own.
    pub fn writer_for(
        &self,
        ns: &Namespace,
        reference: &IngestRef,
        expected: Option<&Digest>,
        total: u64,
        leased: bool,
    ) -> Result<Ingest> {
        self.check_writable()?;
        if let Some(digest) = expected
            && self.is_whole(ns, digest)?
        {
            let (digest, ns) = (digest.clone(), ns.clone());
            return Err(Error::Exists { digest, ns });
        }
        let key = (ns.clone(), reference.clone());
        let Some(writing) = self.inner.writing.try_lock(&key) else {
            let reference = reference.clone();
            return Err(Error::Locked { reference });
        };
        let (record, file) = loop {
            let (record, start_over) = self.open_record(&key, expected, total, leased)?;
            if let Some(file) = self.open_recorded(&key, record.id, start_over)? {
                break (record, file);
            }
        };
        let attempted = || format!("open ingest {reference}");
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let (hasher, offset) =
            hash_file(&file, Hasher::new(algorithm)).map_err(io_failed(attempted(), "read"))?;
        let updated_at = match offset {
            0 => record.updated_at,
            _ => modified(&file).unwrap_or(record.updated_at),
        };
        Ok(Ingest {
            content: self.clone(),
            ns: ns.clone(),
            reference: reference.clone(),
            record,
            file,
            hasher,
            algorithm,
            offset,
            shared: 0,
            updated_at,
            written: false,
            _writing: writing,
        })
    }

    /// Opens the file of a recorded upload, or makes it; `None` when somebody has thrown the upload away
    /// since. He may have come before there was a file to remove, so it is made first and the record
    /// looked for afterwards: a file without record would stay until the store is next opened.
    fn open_recorded(
        &self,
        key: &(Namespace, IngestRef),
        id: u64,
        start_over: bool,
    ) -> Result<Option<File>> {
        // Its name need not last: an upload may shrink in a power cut.
        let mut flags = OFlags::RDWR | OFlags::CREATE;
        if start_over {
            flags |= OFlags::TRUNC;
        }
        let name = id.to_string();
        let file = self
            .inner
            .ingests
            .open_file(OsStr::new(&name), flags, 0o600)
            .map_err(sys(format!("open ingest {}", key.1)))?;
        let known: Option<IngestRecord> = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.get(&schema::INGESTS, key)?))?;
        if known.is_some_and(|known| known.id == id) {
            return Ok(Some(file));
        }
        self.remove_ingest(id);
        Ok(None)
    }

    /// Finds or makes the record of an upload; whether its bytes are to be thrown away.
    fn open_record(
        &self,
        key: &(Namespace, IngestRef),
        expected: Option<&Digest>,
        total: u64,
        leased: bool,
    ) -> Result<(IngestRecord, bool)> {
        let (key, expected) = (key.clone(), expected.cloned());
        // Not waited for: an upload that a power cut takes away is begun again.
        self.inner.meta.note(move |tx| {
            let now = Timestamp::now();
            let (mut record, start_over) = match tx.get(&schema::INGESTS, &key)? {
                Some(known) => {
                    let other = total > 0 && known.total > 0 && total != known.total;
                    (known, other)
                }
                None => {
                    let record = IngestRecord {
                        id: tx.next_id("ingest")?,
                        expected: None,
                        total: 0,
                        started_at: now,
                        updated_at: now,
                        leased,
                    };
                    (record, true)
                }
            };
            if total > 0 {
                record.total = total;
            }
            if expected.is_some() {
                record.expected = expected;
            }
            record.updated_at = now;
            record.leased = leased;
            tx.put(&schema::INGESTS, &key, &record)?;
            Ok((record, start_over))
        })
    }

    /// What is known of one upload.
    pub fn status(&self, ns: &Namespace, reference: &IngestRef) -> Result<IngestInfo> {
        let key = (ns.clone(), reference.clone());
        let record: Option<IngestRecord> = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.get(&schema::INGESTS, &key)?))?;
        match record {
            Some(record) => self.describe(reference.clone(), record),
            None => {
                let (ns, reference) = key;
                Err(Error::NoIngest { reference, ns })
            }
        }
    }

    /// All uploads of a namespace, by ref.
    pub fn ingests(&self, ns: &Namespace) -> Result<Vec<IngestInfo>> {
        let records = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan(&schema::INGESTS, ns)?))?;
        records
            .into_iter()
            .map(|((_, reference), record)| self.describe(reference, record))
            .collect()
    }

    pub(crate) fn describe(
        &self,
        reference: IngestRef,
        record: IngestRecord,
    ) -> Result<IngestInfo> {
        let attempted = || format!("look at ingest {reference}");
        let name = record.id.to_string();
        // It may be missing: it is made after the record.
        let stat = self.inner.ingests.try_stat(OsStr::new(&name));
        let stat = stat.map_err(sys(attempted()))?;
        let mut updated_at = record.updated_at;
        let mut offset = 0;
        if let Some(stat) = stat {
            offset = u64::try_from(stat.st_size).unwrap_or(0);
            let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
            let grew = stat.st_mtime.saturating_mul(1_000_000_000);
            updated_at = updated_at.max(Timestamp(grew.saturating_add(nanos)));
        }
        Ok(IngestInfo {
            reference,
            offset,
            total: record.total,
            expected: record.expected,
            started_at: record.started_at,
            updated_at,
            leased: record.leased,
        })
    }

    /// Throws an upload away, whether or not somebody is writing to it.
    pub fn abort(&self, ns: &Namespace, reference: &IngestRef) -> Result<()> {
        let key = (ns.clone(), reference.clone());
        let id = self
            .inner
            .meta
            .write(move |tx| match Content::forget(tx, &key)? {
                Some(id) => Ok(id),
                None => {
                    let (ns, reference) = key;
                    Err(Error::NoIngest { reference, ns })
                }
            })?;
        self.mark_ending([id]);
        self.remove_ingest(id);
        Ok(())
    }

    /// Removes the record of an upload as part of a transaction. Returns what
    /// [`Content::remove_ingest`] is to be called with after the commit; `None` when there is none.
    pub fn forget(tx: &mut Tx<'_>, key: &(Namespace, IngestRef)) -> Result<Option<u64>> {
        let Some(record) = tx.get(&schema::INGESTS, key)? else {
            return Ok(None);
        };
        tx.delete(&schema::INGESTS, key)?;
        Ok(Some(record.id))
    }

    /// Whether somebody has the upload open. Its record was written after it was opened, so who reads
    /// a record and then finds nobody has either an upload without a writer, or a record that is about
    /// to be written again.
    pub fn is_written(&self, key: &(Namespace, IngestRef)) -> bool {
        self.inner.writing.is_held(key)
    }

    /// Bytes that came of the upload whose files have this number.
    pub fn ingest_bytes(&self, id: u64) -> u64 {
        let name = id.to_string();
        let stat = self
            .inner
            .ingests
            .try_stat(OsStr::new(&name))
            .ok()
            .flatten();
        stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Says of uploads whose records went in one transaction that their files are to go as well, however
    /// long each has to wait for [`Content::remove_ingest`].
    pub fn mark_ending(&self, ids: impl IntoIterator<Item = u64>) {
        self.ending().extend(ids);
    }

    /// Those whose files are still there, or were a moment ago.
    pub(crate) fn ending(&self) -> MutexGuard<'_, HashSet<u64>> {
        let ending = self.inner.ending.lock();
        ending.unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes the file of an upload whose record is gone; what fails is left to the next sweep.
    pub fn remove_ingest(&self, id: u64) {
        let name = id.to_string();
        match self.inner.ingests.unlink(OsStr::new(&name)) {
            Err(err) if !is_missing(&err) => tracing::warn!("remove file of ingest {name}: {err}"),
            _ => {
                self.ending().remove(&id);
            }
        }
    }
}

impl Ingest {
    /// Its name.
    pub fn reference(&self) -> &IngestRef {
        &self.reference
    }

    /// Bytes that came.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes announced; 0 when unknown.
    pub fn total(&self) -> u64 {
        self.record.total
    }

    /// When it was begun.
    pub fn started_at(&self) -> Timestamp {
        self.record.started_at
    }

    /// The bytes that came before this call, from the first on, for whoever needs them once more. They
    /// were read when the upload was opened, and are not proven.
    pub fn written(&self) -> Result<impl io::Read + Send + use<>> {
        let attempted = format!("read ingest {}", self.reference);
        let file = self.file.try_clone();
        let file = file.map_err(io_failed(attempted, "dup"))?;
        Ok(Part::new(file, 0..self.offset))
    }

    /// When it was last written to, or begun.
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// The digest of what came, by the algorithm of the digest that was expected at opening.
    pub fn digest_so_far(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Starts over.
    pub fn truncate(&mut self) -> Result<()> {
        let attempted = format!("truncate ingest {}", self.reference);
        raw::ftruncate(&self.file, 0).map_err(sys(attempted))?;
        self.hasher = Hasher::new(self.algorithm);
        self.offset = 0;
        self.shared = 0;
        Ok(())
    }

    /// Makes a blob of what came, and ends the upload.
    ///
    /// `size` and `expected`, or what was announced at opening, must be true. On
    /// [`Error::Size`] and [`Error::Digest`] the bytes stay for resuming; on [`Error::Exists`] the
    /// upload is gone, as are its bytes after a failed sync, since nobody can vouch for them.
    pub fn commit(
        mut self,
        size: Option<u64>,
        expected: Option<&Digest>,
        labels: Labels,
    ) -> Result<Digest> {
        links::check(&labels)?;
        self.content.check_writable()?;
        let digest = self.prove(size, expected)?;
        let content = self.content.clone();
        let changing = content.inner.changing.lock(&digest);
        if content.is_whole(&self.ns, &digest)? {
            let ns = self.ns.clone();
            self.abort()?;
            return Err(Error::Exists { digest, ns });
        }
        self.cut()
            .map_err(sys(format!("commit ingest {}", self.reference)))?;
        let name = self.record.id.to_string();
        let written = Written {
            file: &self.file,
            dir: &content.inner.ingests,
            name: OsStr::new(&name),
            size: self.offset,
        };
        let bytes = content.small(&digest, &written)?;
        let published = content.publish(&digest, &written, bytes, &changing);
        let published = published.inspect_err(|err| {
            if is_sync(err) {
                content.remove_ingest(self.record.id);
            }
        })?;
        let moved = published.moved;
        let key = (self.ns.clone(), self.reference.clone());
        content.record(&self.ns, published, labels, move |tx| {
            Ok(tx.delete(&schema::INGESTS, &key)?)
        })?;
        if !moved {
            content.remove_ingest(self.record.id);
        }
        // Nobody resumes it.
        self.written = false;
        Ok(digest)
    }

    /// Counts bytes that are in the file.
    fn came(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        self.updated_at = Timestamp::now();
        self.written = true;
    }

    /// Takes away what is behind the bytes that were counted, as a write that failed half-way leaves some.
    /// Mostly there is nothing, and then nothing is written: to the length that it has a file is not cut
    /// for nothing, since its last block is zeroed behind its end, and so shared no longer.
    fn cut(&self) -> cairn_sys::Result<()> {
        match raw::length(&self.file)? == self.offset {
            true => Ok(()),
            false => raw::ftruncate(&self.file, self.offset),
        }
    }

    /// Checks what came against what was announced.
    fn prove(&self, size: Option<u64>, expected: Option<&Digest>) -> Result<Digest> {
        let what = || format!("ingest {}", self.reference);
        let announced = size.or_else(|| (self.record.total > 0).then_some(self.record.total));
        if let Some(expected) = announced.filter(|size| *size != self.offset) {
            return Err(Error::Size {
                what: what(),
                expected,
                actual: self.offset,
            });
        }
        let expected = expected.or(self.record.expected.as_ref());
        let actual = match expected.map(Digest::algorithm) {
            Some(other) if other != self.algorithm => {
                let (hasher, _) = hash_file(&self.file, Hasher::new(other))
                    .map_err(io_failed(format!("hash {}", what()), "read"))?;
                hasher.finish()
            }
            _ => self.digest_so_far(),
        };
        match expected {
            Some(expected) if *expected != actual => Err(Error::Digest {
                what: what(),
                expected: expected.clone(),
                actual,
            }),
            _ => Ok(actual),
        }
    }

    /// Throws the upload away.
    pub fn abort(self) -> Result<()> {
        match self.content.abort(&self.ns, &self.reference) {
            // Somebody else did.
            Err(Error::NoIngest { .. }) => Ok(()),
            other => other,
        }
    }
}

impl Write for Ingest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        raw::write_all_at(&self.file, bytes, self.offset)
            .map_err(|err| io::Error::from(err.errno()))?;
        self.came(bytes);
        Ok(bytes.len())
    }

    /// Nothing is buffered here; only [`Ingest::commit`] makes bytes last.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest {
    /// Leaves the time of the last byte to whoever resumes: what the kernel set is as coarse as its
    /// clock's ticks. Nothing hangs on it when that fails.
    fn drop(&mut self) {
        let nanos = u64::try_from(self.updated_at.0).unwrap_or(0);
        let at = SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos);
        if self.written
            && let Err(err) = self.file.set_modified(at)
        {
            tracing::debug!("set the time of ingest {}: {err}", self.reference);
        }
    }
}

/// When bytes last came.
fn modified(file: &File) -> Option<Timestamp> {
    let at = file.metadata().ok()?.modified().ok()?;
    let since = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_nanos()).ok().map(Timestamp)
}
