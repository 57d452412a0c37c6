//! The directories of snapshots: making, finding, removing and syncing them.

use std::{
    ffi::OsStr,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use cairn_meta::{ReadOnly, Timestamp};
use cairn_sys::{Dir, Stat, durable, raw};
use cairn_types::{Classified, ErrorKind, SnapshotKey, SnapshotKind, Usage};

use crate::{Error, Result, Snapshots, error::sys};

/// Ids taken from their counter at once: a transaction costs a flush, and skipped numbers nothing.
const IDS: usize = 64;

/// A snapshot's own tree.
pub(crate) const FS: &str = "fs";
const FS_MODE: u32 = 0o755;

/// The directory that overlay works in.
pub(crate) const WORK: &str = "work";
const WORK_MODE: u32 = 0o711;

/// Of what holds both. Only root passes there, so what is setuid in a layer is out of everybody's reach.
const TOP_MODE: u32 = 0o700;

/// Of a file's mode, without its kind.
const MODE_BITS: u32 = 0o7777;

/// Where removed trees wait for their end.
pub(crate) const TRASH: &str = "trash";

impl Snapshots {
    /// A number that no snapshot ever had.
    pub(crate) fn next_id(&self) -> Result<u64> {
        let mut ids = lock(&self.inner.ids);
        if ids.is_empty() {
            // Not waited for: whatever record uses one comes after it.
            *ids = self.inner.meta.note(|tx| {
                let mut fresh = Vec::with_capacity(IDS);
                for _ in 0..IDS {
                    fresh.push(tx.next_id("snapshot")?);
                }
                // The lowest is taken first.
                fresh.reverse();
                Ok::<_, Error>(fresh)
            })?;
            let mut first = lock(&self.inner.first_id);
            *first = first.or(ids.last().copied());
        }
        ids.pop().ok_or_else(|| {
            let reason = "no snapshot id could be taken".to_owned();
            Error::Meta(cairn_meta::Error::Read(reason))
        })
    }

    /// Makes `<id>/fs` and opens it. Not synced.
    pub(crate) fn make(&self, id: u64) -> Result<Dir> {
        let made = self.try_make(id, false);
        let opened = made.and_then(|(dir, _)| dir.open_dir(OsStr::new(FS)));
        self.made(id, opened)
    }

    /// Makes the directories of a snapshot that is to be mounted. Not synced, and need not be: they are
    /// empty, and [`Snapshots::recover`] makes them again where a power cut took them. What a client
    /// syncs inside takes the names that lead to it to the disk with it.
    pub(crate) fn make_for(
        &self,
        id: u64,
        kind: SnapshotKind,
        parent: Option<Owner>,
    ) -> Result<()> {
        let made = self.try_make(id, kind == SnapshotKind::Active);
        let owned = made.and_then(|(dir, fs)| match parent {
            Some(owner) if owner != Owner::of(&fs) => owner.give(&dir.open_dir(OsStr::new(FS))?),
            _ => Ok(()),
        });
        self.made(id, owned)
    }

    /// Leaves nothing of what could not be made whole. What was there before is somebody else's: a record that
    /// was lost may have given the number to a container's changes.
    fn made<T>(&self, id: u64, made: cairn_sys::Result<T>) -> Result<T> {
        let own = |err: &cairn_sys::Error| err.kind() != ErrorKind::AlreadyExists;
        if made.as_ref().is_err_and(own) {
            self.discard(id);
        }
        made.map_err(sys(format!("make directory of snapshot {id}")))
    }

    /// Makes what of these directories is missing, as [`Snapshots::make_for`] would have; whether any
    /// was. An empty tree may have been left without its mode and owner as well, but not one that was
    /// touched after `recorded`, when it was its client's already.
    pub(crate) fn make_again(
        &self,
        id: u64,
        kind: SnapshotKind,
        parent: Option<Owner>,
        recorded: Timestamp,
    ) -> cairn_sys::Result<bool> {
        let (dir, mut made) = make_absent(&self.inner.root, &id.to_string(), TOP_MODE)?;
        let (fs, new) = make_absent(&dir, FS, FS_MODE)?;
        made |= new;
        if new || is_as_made(&fs, recorded)? {
            raw::fchmod(&fs, FS_MODE)?;
            parent.map_or(Ok(()), |owner| owner.give(&fs))?;
        }
        if kind == SnapshotKind::Active {
            let (work, new) = make_absent(&dir, WORK, WORK_MODE)?;
            made |= new;
            raw::fchmod(&work, WORK_MODE)?;
        }
        Ok(made)
    }

    /// Its directory, and what the tree in it is.
    fn try_make(&self, id: u64, work: bool) -> cairn_sys::Result<(Dir, Stat)> {
        let name = id.to_string();
        let name = OsStr::new(&name);
        // No umask takes anything from this mode.
        self.inner.root.create_dir(name, TOP_MODE)?;
        let dir = self.inner.root.open_dir(name)?;
        let fs = make_dir(&dir, FS, FS_MODE)?;
        if work {
            make_dir(&dir, WORK, WORK_MODE)?;
        }
        Ok((dir, fs))
    }

    /// The tree of a recorded snapshot.
    pub(crate) fn tree(&self, key: &SnapshotKey, id: u64) -> Result<Dir> {
        let place = format!("{id}/{FS}");
        let opened = self.inner.root.open_dir(OsStr::new(&place));
        opened.map_err(|err| match err.kind() {
            ErrorKind::NotFound => Error::Damaged {
                key: key.clone(),
                reason: format!("its directory {place} is missing"),
            },
            _ => sys(format!("open snapshot {key}"))(err),
        })
    }

    /// Whose the tree of a recorded snapshot is.
    pub(crate) fn owner(&self, key: &SnapshotKey, id: u64) -> Result<Owner> {
        let tree = self.tree(key, id)?;
        Owner::of_dir(&tree).map_err(sys(format!("open snapshot {key}")))
    }

    /// Removes the directory of a snapshot that has no record, or none any more. What fails is left
    /// to the next recovery.
    pub(crate) fn discard(&self, id: u64) {
        self.inner.remover.remove(id);
    }

    /// Puts a snapshot's tree of this size on the disk, with the names that lead there.
    pub(crate) fn sync_tree(&self, key: &SnapshotKey, id: u64, usage: Usage) -> Result<()> {
        let attempted = format!("commit snapshot {key}");
        let is_large = usage.inodes > durable::SYNCED_EACH_MAX as u64;
        // With gigabytes of somebody else's in the way, one file after the other is the shorter wait.
        if is_large && !cairn_sys::is_crowded(usage.bytes) {
            return self.sync(&attempted);
        }
        let name = id.to_string();
        let tree = self.tree(key, id)?;
        let synced = match is_large {
            true => tree.sync_large_tree(),
            false => tree.sync_tree(),
        };
        // The names come last: a journaling file system has them on the disk by then.
        let synced = synced.and_then(|()| {
            self.inner.root.open_dir(OsStr::new(&name))?.fsync()?;
            self.inner.sync.names.run(|| self.inner.root.fsync())
        });
        synced.map_err(|err| match err.op() {
            "fsync" => self.inner.sync.failed(&attempted, err),
            _ => sys(attempted)(err),
        })
    }

    /// Refuses changes after a sync has failed.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.inner.sync.check()
    }
}

/// Whether nobody has touched a tree since its record was written, as far as files' times tell: they go
/// by ticks of the kernel's clock, of a few milliseconds.
fn is_as_made(fs: &Dir, recorded: Timestamp) -> cairn_sys::Result<bool> {
    let stat = fs.self_stat()?;
    let nanos = i64::try_from(stat.st_ctime_nsec).unwrap_or(0);
    let changed = stat
        .st_ctime
        .saturating_mul(1_000_000_000)
        .saturating_add(nanos);
    Ok(changed <= recorded.0 && fs.entries()?.is_empty())
}

/// Whose a tree is: the upper directory is the root that a container sees.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    fn of(stat: &Stat) -> Owner {
        Owner {
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }

    pub(crate) fn of_dir(dir: &Dir) -> cairn_sys::Result<Owner> {
        Ok(Owner::of(&dir.self_stat()?))
    }

    fn give(self, dir: &Dir) -> cairn_sys::Result<()> {
        raw::fchown(dir, self.uid, self.gid)
    }
}

/// Makes a directory of exactly this mode; what it is.
fn make_dir(parent: &Dir, name: &str, mode: u32) -> cairn_sys::Result<Stat> {
    let name = OsStr::new(name);
    parent.create_dir(name, mode)?;
    let stat = parent.stat(name)?;
    // The umask may have taken of it, or the directory above given to it. To ask takes less than to set
    // what is set already.
    if stat.st_mode & MODE_BITS != mode {
        raw::fchmod(&parent.open_dir(name)?, mode)?;
    }
    Ok(stat)
}

/// The directory of a name, and whether there was none. Where there was one it is left as it is.
fn make_absent(parent: &Dir, name: &str, mode: u32) -> cairn_sys::Result<(Dir, bool)> {
    let new = match make_dir(parent, name, mode) {
        Ok(_) => true,
        Err(err) if err.kind() == ErrorKind::AlreadyExists => false,
        Err(err) => return Err(err),
    };
    Ok((parent.open_dir(OsStr::new(name))?, new))
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The syncs of the store, each shared by all who wait for the same one.
#[derive(Default)]
pub(crate) struct Sync {
    /// Everything that was written.
    all: durable::Shared,
    /// The names of snapshots' directories.
    names: durable::Shared,
    /// The sync that failed: the kernel says so once and then counts the lost pages as clean.
    broken: OnceLock<ReadOnly>,
}

impl Sync {
    /// Returns when everything that was written before this call is on the disk.
    pub(crate) fn run(&self, dir: &Dir, attempted: &str) -> Result<()> {
        self.check()?;
        let synced = self.all.run(|| dir.syncfs());
        synced.map_err(|err| self.failed(attempted, err))?;
        self.check()
    }

    /// The sync that failed, if one did.
    pub(crate) fn broken(&self) -> Option<&ReadOnly> {
        self.broken.get()
    }

    fn check(&self) -> Result<()> {
        match self.broken.get() {
            None => Ok(()),
            Some(broken) => Err(Error::ReadOnly(broken.clone())),
        }
    }

    /// Remembers a failed sync for ever.
    pub(crate) fn failed(&self, attempted: &str, err: cairn_sys::Error) -> Error {
        let broken = ReadOnly::now(format!("sync failed: {}", err.words()));
        tracing::error!("{broken}: {err}");
        let _ = self.broken.set(broken);
        sys(attempted)(err)
    }
}
