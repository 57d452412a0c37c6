//! Durability is an order of writes, written once: data, directory, and only then a record.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    sync::{Condvar, Mutex, PoisonError},
};

use cairn_types::{Classified, ErrorKind};
use rustix::fs::OFlags;

use crate::{
    Dir, Error, Result,
    fault::{self, Flaw},
    raw,
};

/// Most files that are worth syncing one by one. Each costs a flush of the device; of more than these
/// [`Dir::syncfs`] makes shorter work, even though it waits for what others wrote.
pub const SYNCED_EACH_MAX: usize = 64;

/// Syncs a file: bytes, length, owner and mode.
///
/// An error is final: the kernel marks the pages clean after a failed sync, so trying again would
/// succeed without having written anything.
pub fn sync_file(file: &File) -> Result<()> {
    if fault::has(Flaw::RecordFirst)
        && let Ok(file) = file.try_clone()
    {
        fault::later(move || fsync(&file));
        return Ok(());
    }
    fsync(file)
}

fn fsync(file: &File) -> Result<()> {
    fault::call("fsync", || raw::shown(file), || rustix::fs::fsync(file))
}

/// Syncs the bytes of a file, and of what else is known of it only what leads to them.
///
/// An error is as final as one of [`sync_file`].
pub fn sync_data(file: &File) -> Result<()> {
    fault::call(
        "fdatasync",
        || raw::shown(file),
        || rustix::fs::fdatasync(file),
    )?;
    fault::overdue()
}

/// Gives a written file its final name, and returns when the bytes and the name are on the disk.
/// Whoever publishes in the same directory at the same time shares `syncs`, its own.
///
/// The name comes first: a journaling file system then has both in one of its transactions, and the
/// second sync finds nothing left to do. So after a power cut the name may lead to other bytes, and
/// nothing may be believed of it that no record says. After an error of a sync the name is taken away
/// again: what the kernel still shows under it need not be on the disk, and no later sync would tell.
///
/// `EEXIST` leaves both files as they are.
pub fn publish(
    file: &File,
    from: (&Dir, &OsStr),
    to: (&Dir, &OsStr),
    syncs: &Shared,
) -> Result<()> {
    from.0.rename_noreplace(from.1, to.0, to.1)?;
    // Only after these may a record speak of it.
    let synced = sync_file(file).and_then(|()| syncs.run(|| to.0.fsync()));
    if synced.is_err() {
        let _ = to.0.unlink(to.1);
    }
    synced
}

/// One sync for all who wait for the same one: whoever comes while one is running needs the next, and
/// all of those share it.
///
/// The kernel tells of lost pages once, to whoever syncs first, and then counts them as clean. So after
/// a failure all who come later are told of it as well, unless it is that the disk is full.
#[derive(Default)]
pub struct Shared {
    state: Mutex<Runs>,
    ended: Condvar,
}

#[derive(Default)]
struct Runs {
    begun: u64,
    done: u64,
    /// The last that failed, by its number.
    failed: Option<(u64, Error)>,
}

impl Runs {
    /// What those are told who needed the run `mine`, which is over or to begin now.
    fn outcome(&self, mine: u64) -> Result<()> {
        match &self.failed {
            Some((number, err)) if *number >= mine || !is_full(err) => Err(err.clone()),
            _ => Ok(()),
        }
    }
}

fn is_full(err: &Error) -> bool {
    err.kind() == ErrorKind::ResourceExhausted
}

impl Shared {
    /// Returns when a run of `sync` that began after this call has ended, whoever made it.
    ///
    /// # Errors
    /// That of the run, of an earlier one, or of a later one that ended before this returns.
    pub fn run(&self, sync: impl FnOnce() -> Result<()>) -> Result<()> {
        let lock = || self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut runs = lock();
        let mine = runs.begun + 1;
        while runs.begun > runs.done {
            runs = self
                .ended
                .wait(runs)
                .unwrap_or_else(PoisonError::into_inner);
            if runs.done >= mine {
                return runs.outcome(mine);
            }
        }
        runs.outcome(mine)?;
        runs.begun += 1;
        let number = runs.begun;
        drop(runs);
        let ending = Ending(self, number);
        let synced = sync();
        if let Err(err) = &synced {
            lock().failed = Some((number, err.clone()));
        }
        drop(ending);
        synced
    }
}

/// The end of a run, through a panic too: those who wait must not wait for ever.
struct Ending<'s>(&'s Shared, u64);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut runs = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        if std::thread::panicking() {
            let err = Error::new("fsync", "by another thread", rustix::io::Errno::IO);
            runs.failed = Some((self.1, err));
        }
        runs.done = self.1;
        self.0.ended.notify_all();
    }
}

/// Writes a small file whole: it has either its old or its new bytes, at any crash. One writer per
/// name at a time.
pub fn write_file(dir: &Dir, name: &OsStr, bytes: &[u8], mode: u32) -> Result<()> {
    let mut aside = OsString::from(".");
    aside.push(name);
    aside.push(".tmp");
    let written = write_aside(dir, &aside, bytes, mode);
    let renamed = written.and_then(|()| dir.rename(&aside, dir, name));
    if let Err(err) = renamed {
        // On a full disk every byte counts. What a crash leaves here the next write truncates.
        let _ = dir.unlink(&aside);
        return Err(err);
    }
    dir.fsync()
}

fn write_aside(dir: &Dir, aside: &OsStr, bytes: &[u8], mode: u32) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC;
    let file = dir.open_file(aside, flags, mode)?;
    raw::write_all(&file, bytes)?;
    raw::fchmod(&file, mode)?;
    sync_file(&file)
}
