//! Durability is an order of writes, written once: data, directory, and only then a record.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
};

use rustix::fs::OFlags;

use crate::{Dir, Error, Result, fault, raw};

/// Syncs a file's bytes and length.
///
/// An error is final: the kernel marks the pages clean after a failed sync, so trying again would
/// succeed without having written anything.
pub fn sync_file(file: &File) -> Result<()> {
    fault::gate("fdatasync", || "file".to_owned())?;
    rustix::fs::fdatasync(file).map_err(|errno| Error::new("fdatasync", "file", errno))
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

/// Writes a small file whole: it has either its old or its new bytes, at any crash.
pub fn write_file(dir: &Dir, name: &OsStr, bytes: &[u8], mode: u32) -> Result<()> {
    let mut aside = OsString::from(".");
    aside.push(name);
    aside.push(".tmp");
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
    let file = dir.open_file(&aside, flags, mode)?;
    raw::write_all(&file, bytes)?;
    raw::fchmod(&file, mode)?;
    sync_file(&file)?;
    dir.rename(&aside, dir, name)?;
    dir.fsync()
}
