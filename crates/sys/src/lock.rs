//! One process at a time: a lock on the root that names its holder and ends with it.

use std::{ffi::OsStr, fs, fs::File, io::Read, os::unix::fs::FileExt};

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
