//! That nobody else is at work on a directory: another process, or another thread of this one.
//!
//! The lock is in a directory of the host's and not beside the bundle: there somebody else might make
//! the name first, a disk might be full, and what a kill leaves would be litter in a user's directory.

use std::{
    ffi::OsStr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use cairn_sys::{Dir, Error, lock::Claim};
use cairn_types::{Digest, ErrorKind, Failure, HostDir};

/// Empty after the next boot, when no process lives that could hold one.
const CLAIMS: &str = "/run/cairn/claims";

/// Where layers are mounted for the moment in which a root is made of them. Closed to others, since
/// layers have setuid files.
const MAPPED: &str = "/run/cairn/mapped";

/// Takes a directory for oneself; `None` when somebody has it.
pub(crate) fn try_take(dir: &HostDir) -> Result<Option<Claim>, Error> {
    make(CLAIMS)?;
    let name = Digest::sha256(dir.as_str().as_bytes());
    Claim::take(&Dir::open(Path::new(CLAIMS))?, OsStr::new(name.hex()))
}

/// An empty directory for whoever has the claim to `dir`.
pub(crate) fn scratch(dir: &HostDir) -> Result<PathBuf, Error> {
    make(MAPPED)?;
    let path = scratch_path(dir);
    make_one(&path.to_string_lossy())?;
    Ok(path)
}

/// Removes it; what cannot be removed is taken up by the next who has the claim.
pub(crate) fn remove_scratch(dir: &HostDir) {
    let _ = std::fs::remove_dir(scratch_path(dir));
}

/// A path can be longer than a name.
pub(crate) fn scratch_path(dir: &HostDir) -> PathBuf {
    Path::new(MAPPED).join(Digest::sha256(dir.as_str().as_bytes()).hex())
}

fn make(path: &str) -> Result<(), Error> {
    if let Some(parent) = Path::new(path).parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        let made = builder.create(parent);
        made.map_err(|err| Error::of_io("mkdir", path, &err))?;
    }
    make_one(path)
}

fn make_one(path: &str) -> Result<(), Error> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::of_io("mkdir", path, &err))
        }
        _ => Ok(()),
    }
}

/// The same, where somebody else's work is a refusal.
pub(crate) fn take(dir: &HostDir, attempted: &str, noun: &str) -> Result<Claim, Failure> {
    match try_take(dir) {
        Ok(Some(claim)) => Ok(claim),
        Ok(None) => {
            let reason = "it is being made or removed already";
            Err(Failure::new(ErrorKind::Unavailable, attempted, reason).object(noun, dir))
        }
        Err(err) => Err(Failure::of(attempted, &err).object(noun, dir)),
    }
}
