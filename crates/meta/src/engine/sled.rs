//! sled 0.34, by the only recipe that lost nothing in a power-cut recorder.
//!
//! Its `flush` ends in `sync_file_range`, which neither grows the file durably nor flushes the
//! device, so each commit syncs the file itself. A start that is killed leaves
//! `snap.*.generating`, which the next start would take for a snapshot and refuse for ever; such
//! leftovers are removed before opening. Values over 128 KiB go to files that are never synced;
//! records are kept far below.

use std::{
    ffi::OsStr,
    fs::File,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use cairn_sys::{Dir, OFlags, durable};

use super::{Batch, Engine, Pairs, Snapshot};
use crate::Error;

const DIRECTORY: &str = "sled";
const VALUE_BYTES_MAX: usize = 32 << 10;

/// Records in one sled tree.
pub(crate) struct Sled {
    tree: sled::Db,
    /// sled's own data file, for the sync that sled leaves out.
    file: File,
    /// sled has no read transactions; a reader keeps the committer out instead.
    readers: RwLock<()>,
}

impl Sled {
    /// Makes an empty database in `dir`, durably.
    pub(crate) fn create(dir: &Dir) -> Result<(), Error> {
        dir.create_dir(OsStr::new(DIRECTORY), 0o700)?;
        let sled = Sled::open(dir)?;
        sled.sync().map_err(|reason| open_error(dir, reason))?;
        drop(sled);
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
            .flush_every_ms(None)
            .cache_capacity(32 << 20);
        // sled panics on some damaged files; a panic of a library is no way to say so.
        let opened = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| config.open()));
        let tree = match opened {
            Ok(Ok(tree)) => tree,
            Ok(Err(err)) => return Err(open_error(dir, err.to_string())),
            Err(_) => return Err(open_error(dir, "the files are damaged".to_owned())),
        };
        let file = inner.open_file(OsStr::new("db"), OFlags::RDWR, 0)?;
        Ok(Sled {
            tree,
            file,
            readers: RwLock::new(()),
        })
    }

    fn sync(&self) -> Result<(), String> {
        self.tree.flush().map_err(|err| err.to_string())?;
        self.file.sync_all().map_err(|err| err.to_string())
    }
}

fn open_error(dir: &Dir, reason: String) -> Error {
    Error::Open {
        path: dir.path().display().to_string(),
        engine: "sled",
        reason,
    }
}

impl Engine for Sled {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error> {
        let _guard = self.readers.read().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(State {
            tree: &self.tree,
            _guard,
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
        let _guard = self.readers.write().unwrap_or_else(PoisonError::into_inner);
        self.tree
            .apply_batch(changes)
            .map_err(|err| err.to_string())?;
        self.sync()
    }

    fn value_bytes_max(&self) -> usize {
        VALUE_BYTES_MAX
    }

    fn name(&self) -> &'static str {
        "sled"
    }
}

struct State<'a> {
    tree: &'a sled::Db,
    _guard: RwLockReadGuard<'a, ()>,
}

impl Snapshot for State<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let found = self
            .tree
            .get(key)
            .map_err(|err| Error::Read(err.to_string()))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn scan(&self, prefix: &[u8]) -> Result<Pairs, Error> {
        self.tree
            .scan_prefix(prefix)
            .map(|pair| {
                let (key, value) = pair.map_err(|err| Error::Read(err.to_string()))?;
                Ok((key.to_vec(), value.to_vec()))
            })
            .collect()
    }
}
