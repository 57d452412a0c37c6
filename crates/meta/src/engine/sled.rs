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

mod tally;

use std::{
    ffi::OsStr,
    fs::File,
    ops::Bound,
    sync::{Mutex, PoisonError},
};

use cairn_sys::{Dir, OFlags, durable};
use cairn_types::{Classified, ErrorKind};

use self::tally::{TALLY, Tally};
use super::{
    Batch, Closing, Engine, Pairs, Snapshot, end_of,
    journaled::TAKEN_OVER,
    patiently,
    turns::{Look, Turns},
    unpanicked,
};
use crate::{
    Error,
    error::{is_damage, kind_of_io},
};

pub(super) const DIRECTORY: &str = "sled";
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
    /// Of what it has.
    tally: Mutex<Tally>,
}

impl Sled {
    /// Makes an empty database in `dir`, durably.
    pub(crate) fn create(dir: &Dir) -> Result<(), Error> {
        dir.create_dir(OsStr::new(DIRECTORY), 0o700)?;
        let sled = Sled::open(dir)?;
        sled.commit(&super::journaled::beginning())
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

    /// Opens what [`Sled::create`] made, if all of it can be read.
    pub(crate) fn open(dir: &Dir) -> Result<Sled, Error> {
        let sled = Sled::open_unread(dir)?;
        match sled.read_through() {
            Ok(()) => Ok(sled),
            Err(err) => Err(open_error(dir, err.to_string(), err.kind())),
        }
    }

    /// Damage shows when it is met, or only when all is counted; and what is lost is better known before than
    /// while something is done.
    fn read_through(&self) -> Result<(), Error> {
        let found = self.tree.look(|| {
            let (mut found, mut kept, mut place) = (Tally::default(), None, None);
            for pair in self.tree.iter() {
                let (key, value) = pair.map_err(read_error)?;
                if key[..] == *TALLY {
                    kept = Some(value);
                    continue;
                }
                found.add(&key, &value);
                if key[..] == *TAKEN_OVER {
                    place = Some(value);
                }
            }
            let Some(kept) = kept else {
                return Ok(found);
            };
            match Tally::open(&kept, place.as_deref()) {
                Ok(Some(kept)) if kept != found => {
                    let text = "records are missing, or older ones are in their place";
                    Err(Error::Damaged(text.to_owned()))
                }
                Ok(_) => Ok(found),
                Err(reason) => Err(Error::Damaged(reason)),
            }
        })?;
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(())
    }

    fn open_unread(dir: &Dir) -> Result<Sled, Error> {
        let inner = dir
            .open_dir(OsStr::new(DIRECTORY))
            .map_err(|err| match err.kind() {
                ErrorKind::NotFound => open_error(dir, err.to_string(), ErrorKind::DataLoss),
                _ => Error::from(err),
            })?;
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
                    sled::Error::Io(err) if is_damage(err) => ErrorKind::DataLoss,
                    sled::Error::Io(err) => kind_of_io(err),
                    // Of files that this program has written it knows no other cause.
                    _ => ErrorKind::DataLoss,
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
            tally: Mutex::default(),
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
    match &err {
        sled::Error::Io(cause) if !is_damage(cause) => Error::Read(err.to_string()),
        _ => Error::Damaged(err.to_string()),
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
        let _turn = self.turns.commit();
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let after = self.tree.change(|| {
            let get = |key: &[u8]| self.tree.get(key).map_err(|err| err.to_string());
            let (mut changes, mut after) = (sled::Batch::default(), *tally);
            for (key, value) in batch {
                if let Some(before) = get(key)? {
                    after.remove(key, &before);
                }
                match value {
                    Some(value) => {
                        after.add(key, value);
                        changes.insert(key.as_slice(), value.as_slice());
                    }
                    None => changes.remove(key.as_slice()),
                }
            }
            let place = match batch.get(TAKEN_OVER) {
                Some(place) => place.clone(),
                None => get(TAKEN_OVER)?.map(|place| place.to_vec()),
            };
            changes.insert(TALLY, after.seal(place.as_deref()));
            let applied = self.tree.apply_batch(changes);
            applied.map_err(|err| err.to_string())?;
            self.sync()?;
            Ok(after)
        })?;
        *tally = after;
        Ok(())
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
