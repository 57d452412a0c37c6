//! One process at a time: a lock on the root that names its holder and ends with it, and claims to
//! what many processes work on.

use std::{
    ffi::{OsStr, OsString},
    fs,
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
};

use cairn_types::{Classified, ErrorKind};
use rustix::{
    fs::{FlockOperation, OFlags},
    io::Errno,
};

use crate::{Dir, Error};

/// Why a root could not be locked.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("locked by {program} (pid {})", pid.map_or_else(|| "unknown".to_owned(), |p| p.to_string()))]
    Held {
        /// Who, as far as the lock file says.
        pid: Option<i32>,
        /// Its command name.
        program: String,
    },
    /// The lock file could not be used.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl Classified for LockError {
    fn kind(&self) -> ErrorKind {
        match self {
            LockError::Held { .. } => ErrorKind::Unavailable,
            LockError::Failed(err) => err.kind(),
        }
    }
}

/// Holds the lock until dropped, or until the process ends in whatever way: it is `flock(2)`'s.
#[derive(Debug)]
pub struct RootLock {
    _file: File,
}

impl RootLock {
    /// Takes the lock of `dir` by its file `name`, without waiting.
    pub fn acquire(dir: &Dir, name: &OsStr) -> Result<RootLock, LockError> {
        let file = dir.open_file(name, OFlags::RDWR | OFlags::CREATE, 0o600)?;
        let exclusive = FlockOperation::NonBlockingLockExclusive;
        match dir.call("flock", name, || rustix::fs::flock(&file, exclusive)) {
            Ok(()) => {}
            Err(err) if err.is(Errno::WOULDBLOCK) => return Err(held(&file)),
            Err(err) => return Err(err.into()),
        }
        let pid = format!("{}\n", nix::unistd::getpid());
        // Only a courtesy to the next one who asks; a full disk must not keep anyone out.
        let _ = file
            .set_len(0)
            .and_then(|()| file.write_all_at(pid.as_bytes(), 0));
        Ok(RootLock { _file: file })
    }
}

/// Something that one at a time is at work on, of all processes of this host and all threads: a locked
/// file that is there for as long as the work is. A lock ends with its process in whatever way, so a
/// claim that can be taken is one of nobody who lives.
#[derive(Debug)]
pub struct Claim {
    dir: Dir,
    name: OsString,
    _file: File,
}

impl Claim {
    /// Takes the claim `name` in `dir`, without waiting; `None` when somebody has it.
    pub fn take(dir: &Dir, name: &OsStr) -> Result<Option<Claim>, Error> {
        loop {
            let file = dir.open_file(name, OFlags::RDWR | OFlags::CREATE, 0o600)?;
            let exclusive = FlockOperation::NonBlockingLockExclusive;
            match dir.call("flock", name, || rustix::fs::flock(&file, exclusive)) {
                Ok(()) => {}
                Err(err) if err.is(Errno::WOULDBLOCK) => return Ok(None),
                Err(err) => return Err(err),
            }
            // Whoever had it before takes the name away. The lock on a file without one keeps nobody out.
            let ours = dir.call("fstat", name, || rustix::fs::fstat(&file))?;
            let named = dir.try_stat(name)?;
            if named.is_some_and(|named| (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino))
            {
                return Ok(Some(Claim {
                    dir: dir.clone(),
                    name: name.to_owned(),
                    _file: file,
                }));
            }
        }
    }
}

impl Drop for Claim {
    /// While the lock is held. A name that stays is in nobody's way.
    fn drop(&mut self) {
        let _ = self.dir.unlink(&self.name);
    }
}

fn held(mut file: &File) -> LockError {
    let mut text = String::new();
    let _ = file.read_to_string(&mut text);
    let pid: Option<i32> = text.trim().parse().ok();
    let program = pid
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).ok())
        .map_or_else(
            || "another process".to_owned(),
            |comm| comm.trim().to_owned(),
        );
    LockError::Held { pid, program }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn one_of_many_has_a_claim() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let dir = Dir::open(temp.path()).expect("open");
        let name = OsStr::new("claim");
        let take = || Claim::take(&dir, name).expect("take");
        let first = take().expect("free");
        assert!(take().is_none());
        assert!(
            Claim::take(&dir, OsStr::new("another"))
                .expect("take")
                .is_some()
        );
        drop(first);
        assert_eq!(fs::read_dir(temp.path()).expect("directory").count(), 0);
        let (inside, taken) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let Some(_claim) = take() else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert!(taken.into_inner() > 0);
        assert!(take().is_some());
    }
}
