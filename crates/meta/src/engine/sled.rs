//! sled 0.34, by the only recipe that lost nothing in a power-cut recorder.
//!
//! Its `flush` ends in `sync_file_range`, which neither grows the file durably nor flushes the
//! device, so each commit syncs the file itself. A start that is killed leaves
//! `snap.*.generating`, which the next start would take for a snapshot and refuse for ever; such
//! leftovers are removed before opening.
//!
//! A page over a quarter of a segment goes to a file under `blobs/` that is never synced and, once
//! rewritten, never removed. A page holds up to 17 values, or 257 keys of pages below, so with sled's
//! own half-megabyte segments values of 8 KiB already go there. The segments are larger here, and
//! values and keys so limited that no page can come near.

use std::{ffi::OsStr, fs::File, ops::Bound};

use cairn_sys::{Dir, OFlags, durable};
use cairn_types::ErrorKind;

use super::{
    Batch, Closing, Engine, Pairs, Snapshot, end_of, patiently,
    turns::{Look, Turns},
    unpanicked,
};
use crate::{Error, error::kind_of_io};

const DIRECTORY: &str = "sled";
const VALUE_BYTES_MAX: usize = 32 << 10;
/// Room for the longest path.
const KEY_BYTES_MAX: usize = 6 << 10;
/// Written into the files: a store made with another number does not open.
const SEGMENT_BYTES: usize = 8 << 20;
/// What a page and its headers may take before it goes to a file of its own.
const PAGE_BYTES_MAX: usize = SEGMENT_BYTES / 4 - (4 << 10);
const _: () = assert!(17 * (VALUE_BYTES_MAX + KEY_BYTES_MAX + 64) < PAGE_BYTES_MAX);
const _: () = assert!(257 * (KEY_BYTES_MAX + 64) < PAGE_BYTES_MAX);

/// Records in one sled tree.
pub(crate) struct Sled {
    tree: Closing<sled::Db>,
    /// sled's own data file, for the sync that sled leaves out.
    file: File,
    /// sled has no read transactions; a reader keeps the committer out instead.
    turns: Turns,
}

impl Sled {
    /// Makes an empty database in `dir`, durably.
    pub(crate) fn create(dir: &Dir) -> Result<(), Error> {
        dir.create_dir(OsStr::new(DIRECTORY), 0o700)?;
        let sled = Sled::open(dir)?;
        sled.sync()
            .map_err(|reason| open_error(dir, reason, ErrorKind::Internal))?;
        drop(sled);
        Sled::sync_files(dir)
    }

    /// Puts a closed database on the disk, with its names.
    pub(crate) fn sync_files(dir: &Dir) -> Result<(), Error> {
        let inner = dir.open_dir(OsStr::new(DIRECTORY))?;
        for entry in inner.entries()? {
            if let Ok(file) = inner.open_file(&entry.name, OFlags::RDONLY, 0) {
                durable::sync_file(&file)?;
            }
        }
        inner.fsync()?;
        Ok(dir.fsync()?)
    }

    /// Opens what [`Sled::create`] made.
    pub(crate) fn open(dir: &Dir) -> Result<Sled, Error> {
        let inner = dir.open_dir(OsStr::new(DIRECTORY))?;
        for entry in inner.entries()? {
            if entry.name.to_string_lossy().ends_with(".generating") {
                inner.unlink(&entry.name)?;
            }
        }
        let config = sled::Config::new()
            .path(inner.path())
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None)
            .cache_capacity(32 << 20);
        let tree = match unpanicked(|| patiently(|| config.open(), busy)) {
            Ok(Ok(tree)) => tree,
            Ok(Err(err)) => {
                let kind = match &err {
                    sled::Error::Corruption { .. } => ErrorKind::DataLoss,
                    sled::Error::Io(err) => kind_of_io(err),
                    _ => ErrorKind::Internal,
                };
                return Err(open_error(dir, err.to_string(), kind));
            }
            Err(panic) => return Err(open_error(dir, panic, ErrorKind::DataLoss)),
        };
        let file = inner.open_file(OsStr::new("db"), OFlags::RDWR, 0)?;
        Ok(Sled {
            tree: Closing::new(tree),
            file,
            turns: Turns::default(),
        })
    }

    fn sync(&self) -> Result<(), String> {
        self.tree.flush().map_err(|err| err.to_string())?;
        self.file.sync_all().map_err(|err| err.to_string())
    }
}

fn busy(err: &sled::Error) -> bool {
    // sled packs the lock's error into text; its kind alone is `Other`.
    matches!(err, sled::Error::Io(err) if err.to_string().contains("could not acquire lock"))
}

fn open_error(dir: &Dir, reason: String, kind: ErrorKind) -> Error {
    Error::Open {
        path: dir.path().display().to_string(),
        engine: "sled",
        reason,
        kind,
    }
}

fn read_error(err: sled::Error) -> Error {
    match err {
        sled::Error::Corruption { .. } => Error::Damaged(err.to_string()),
        other => Error::Read(other.to_string()),
    }
}

impl Engine for Sled {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error> {
        Ok(Box::new(State {
            tree: &self.tree,
            _look: self.turns.look(),
        }))
    }

    fn commit(&self, batch: &Batch) -> Result<(), String> {
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key.as_slice(), value.as_slice()),
                None => changes.remove(key.as_slice()),
            }
        }
        let _turn = self.turns.commit();
        self.tree.change(|| {
            let applied = self.tree.apply_batch(changes);
            applied.map_err(|err| err.to_string())?;
            self.sync()
        })
    }

    fn value_bytes_max(&self) -> usize {
        VALUE_BYTES_MAX
    }

    fn key_bytes_max(&self) -> usize {
        KEY_BYTES_MAX
    }

    fn name(&self) -> &'static str {
        "sled"
    }
}

struct State<'a> {
    tree: &'a Closing<sled::Db>,
    _look: Look<'a>,
}

impl Snapshot for State<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let found = self.tree.look(|| self.tree.get(key).map_err(read_error))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Error> {
        self.tree.look(|| {
            self.tree
                .scan_prefix(prefix)
                .map(|pair| {
                    let (key, value) = pair.map_err(read_error)?;
                    Ok((key.to_vec(), value.to_vec()))
                })
                .collect()
        })
    }

    fn scan_after(&self, prefix: &[u8], after: &[u8], limit: usize) -> Result<Pairs, Error> {
        let upper = end_of(prefix).map_or(Bound::Unbounded, Bound::Excluded);
        self.tree.look(|| {
            self.tree
                .range((Bound::Excluded(after.to_vec()), upper))
                .take(limit)
                .map(|pair| {
                    let (key, value) = pair.map_err(read_error)?;
                    Ok((key.to_vec(), value.to_vec()))
                })
                .collect()
        })
    }
}
