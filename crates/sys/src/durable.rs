//! Durability is an order of writes, written once: data, directory, and only then a record.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
};

use rustix::fs::OFlags;

use crate::{Dir, Result, fault, raw};

/// Syncs a file: bytes, length, owner and mode.
///
/// An error is final: the kernel marks the pages clean after a failed sync, so trying again would
/// succeed without having written anything.
pub fn sync_file(file: &File) -> Result<()> {
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
    )
}

/// Gives a written file its final name, such that after a power cut the name either does not exist
/// or leads to all of its bytes.
///
/// `EEXIST` leaves both files as they are.
pub fn publish(file: &File, from: (&Dir, &OsStr), to: (&Dir, &OsStr)) -> Result<()> {
    // The bytes, before any name can lead to them.
    sync_file(file)?;
    from.0.rename_noreplace(from.1, to.0, to.1)?;
    // The name itself; only after this may a record speak of it.
    to.0.fsync()
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
