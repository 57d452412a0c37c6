//! That nobody else is at work on a directory: another process, or another thread of this one.
//!
//! The lock is in a directory of the host's and not beside the bundle: there somebody else might make
//! the name first, a disk might be full, and what a kill leaves would be litter in a user's directory.

use std::{ffi::OsStr, os::unix::fs::DirBuilderExt, path::Path};

use cairn_sys::{Dir, Error, lock::Claim};
use cairn_types::{Digest, ErrorKind, Failure, HostDir};

/// Empty after the next boot, when no process lives that could hold one.
const CLAIMS: &str = "/run/cairn/claims";

/// Takes a directory for oneself; `None` when somebody has it.
pub(crate) fn try_take(dir: &HostDir) -> Result<Option<Claim>, Error> {
    let failed = |err: &std::io::Error| Error::of_io("mkdir", CLAIMS, err);
    if let Some(parent) = Path::new(CLAIMS).parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(parent).map_err(|err| failed(&err))?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(CLAIMS) {
        Err(err) if err.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(&err)),
        _ => {}
    }
    // A path can be longer than a name.
    let name = Digest::sha256(dir.as_str().as_bytes());
    Claim::take(&Dir::open(Path::new(CLAIMS))?, OsStr::new(name.hex()))
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
