//! The bytes of a blob on their way from their source to whoever unpacks them: stored and counted.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cairn_content::Ingest;
use cairn_types::{Digest, ErrorKind};

use super::{Work, work::kept_free};
use crate::{Failure, Node, Progress, claims::Pulse};

/// Bytes that are read between two looks whether the disk has room.
const LOOK_BYTES: u64 = 4 << 20;

/// Why a pass broke off outside of the layer itself.
pub(crate) enum Broken {
    Source(io::Error),
    Store(io::Error),
    Stopped,
}

impl Broken {
    /// What whoever reads is told.
    fn copy(&self) -> io::Error {
        match self {
            Broken::Source(err) | Broken::Store(err) => io::Error::new(err.kind(), err.to_string()),
            Broken::Stopped => io::Error::other("stopped"),
        }
    }

    pub(crate) fn failure(self, work: &Work<'_>, digest: &Digest) -> Failure {
        if let Broken::Source(err) = &self
            && let Some(failure) = work.origin.and_then(|origin| origin.explain(err))
        {
            return work.located(failure, digest);
        }
        let (kind, reason, err) = match self {
            Broken::Stopped => {
                let failure = Failure::new(ErrorKind::Canceled, work.attempted, "it was stopped");
                return work.failure(failure);
            }
            Broken::Source(err) if err.kind() == io::ErrorKind::UnexpectedEof => (
                ErrorKind::DataLoss,
                format!("layer {digest} is cut short"),
                err,
            ),
            Broken::Source(err) => (
                ErrorKind::Internal,
                format!("layer {digest} cannot be read"),
                err,
            ),
            Broken::Store(err) if is_full(&err) => {
                return work.full(digest, &err.to_string());
            }
            Broken::Store(err) => (
                ErrorKind::Internal,
                format!("layer {digest} cannot be stored"),
                err,
            ),
        };
        let failure = Failure::new(kind, work.attempted, reason).cause(err.to_string());
        work.located(failure, digest)
    }
}

pub(super) fn is_full(err: &io::Error) -> bool {
    matches!(
        err.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Passes a source's bytes on, and stores and counts them on the way. Where the upload shares its file with
/// the source, they are read from the upload.
pub(crate) struct Tee<'a> {
    source: Box<dyn Read + Send + 'a>,
    pub(super) ingest: Option<Ingest>,
    /// Bytes that the upload had already.
    before: u64,
    pub(crate) read: u64,
    limit: u64,
    pub(crate) failed: Option<Broken>,
    stop: &'a AtomicBool,
    progress: &'a dyn Progress,
    missing: Arc<AtomicU64>,
    node: &'a Node,
    /// Where to look next.
    look: u64,
}

impl<'a> Tee<'a> {
    /// At most `limit` bytes and one more; `ingest` gets them, too.
    pub(crate) fn new(
        work: &Work<'a>,
        (source, limit): (Box<dyn Read + Send + 'a>, u64),
        ingest: Option<Ingest>,
        stop: &'a AtomicBool,
    ) -> Tee<'a> {
        Tee {
            source,
            before: ingest.as_ref().map_or(0, Ingest::offset),
            ingest,
            read: 0,
            limit,
            failed: None,
            stop,
            progress: work.progress,
            missing: Arc::clone(&work.missing),
            node: work.node,
            look: 0,
        }
    }

    /// Reads what is left, so that the digest is of everything.
    pub(super) fn drain(&mut self, progress: &dyn Fn(u64)) {
        let mut buffer = vec![0; 1 << 18];
        while self.failed.is_none() {
            match self.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(_) => progress(self.read),
            }
        }
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = loop {
            if self.stop.load(Ordering::Relaxed) || self.progress.given_up() {
                self.failed.get_or_insert(Broken::Stopped);
                return Err(Broken::Stopped.copy());
            }
            let read = match &mut self.ingest {
                // What is read is the store's own file.
                Some(ingest) if ingest.is_shared() => {
                    ingest.read_shared(buffer).map_err(Broken::Store)
                }
                _ => self.source.read(buffer).map_err(Broken::Source),
            };
            match read {
                // Nothing has come yet.
                Err(Broken::Source(err)) if err.kind() == io::ErrorKind::WouldBlock => {}
                other => break other,
            }
        };
        let got = match got {
            Ok(got) => got,
            Err(broken) => {
                let copy = broken.copy();
                self.failed = Some(broken);
                return Err(copy);
            }
        };
        self.read += got as u64;
        if self.read >= self.look {
            self.look = self.read + LOOK_BYTES;
            if let Err(kept) = self.node.has_room(got as u64) {
                let full = || io::Error::new(io::ErrorKind::StorageFull, kept_free(kept));
                self.failed = Some(Broken::Store(full()));
                return Err(full());
            }
        }
        // One byte too many proves the size wrong; the rest of an endless source is not wanted.
        if self.read > self.limit {
            return Ok(0);
        }
        let known = usize::try_from(self.before).unwrap_or(usize::MAX).min(got);
        self.before -= known as u64;
        let new = &buffer[known..got];
        if let Some(ingest) = &mut self.ingest
            && !new.is_empty()
        {
            if !ingest.is_shared()
                && let Err(err) = io::Write::write_all(ingest, new)
            {
                let broken = Broken::Store(err);
                let copy = broken.copy();
                self.failed = Some(broken);
                return Err(copy);
            }
            self.missing.fetch_sub(new.len() as u64, Ordering::Relaxed);
        }
        Ok(got)
    }
}

/// A blob whose bytes are felt by those who wait for it.
pub(super) struct Felt<'a> {
    source: Box<dyn Read + Send + 'a>,
    pulse: &'a Pulse,
    digest: Digest,
}

impl<'a> Felt<'a> {
    pub(super) fn new(
        source: Box<dyn Read + Send + 'a>,
        work: &'a Work<'_>,
        digest: &Digest,
    ) -> Felt<'a> {
        Felt {
            source,
            pulse: &work.pulse,
            digest: digest.clone(),
        }
    }
}

impl Read for Felt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.pulse.came(&self.digest, read as u64);
        Ok(read)
    }
}
