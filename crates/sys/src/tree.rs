//! Whole trees: listing, removing and measuring them without following a link or crossing a mount.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStringExt,
};

use cairn_types::Usage;
use rustix::{
    fs::{AtFlags, FileType, RawDir, Stat},
    io::Errno,
};

use crate::{Dir, Error, Result, fault};

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// One component.
    pub name: OsString,
    /// What it is; `Unknown` where the file system does not say.
    pub kind: FileType,
}

impl Dir {
    /// All names but `.` and `..`, in the order of the file system.
    pub fn entries(&self) -> Result<Vec<DirEntry>> {
        fault::gate("getdents", || self.label())?;
        let failed = |errno| Error::new("getdents", self.label(), errno);
        // A descriptor of its own: the position of a shared one would be shared as well.
        let own = self.open_dir(OsStr::new("."))?;
        let mut buffer = Vec::with_capacity(32 * 1024);
        let mut listing = RawDir::new(&own, buffer.spare_capacity_mut());
        let mut entries = Vec::new();
        while let Some(entry) = listing.next() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let name = OsString::from_vec(name.to_vec());
                entries.push(DirEntry {
                    name,
                    kind: entry.file_type(),
                });
            }
        }
        Ok(entries)
    }

    /// Removes `name` and all below it. A tree that holds a mount is left at that point with
    /// `EBUSY`: what is mounted there belongs to somebody else.
    ///
    /// The way down is kept as a list of open directories only two deep: a hostile tree of any depth
    /// takes neither stack nor descriptors, since a directory that is too deep is first moved up
    /// beside its ancestor.
    pub fn remove_tree(&self, name: &OsStr) -> Result<()> {
        match self.unlink(name) {
            Ok(()) => return Ok(()),
            Err(err) if err.is(Errno::NOENT) => return Ok(()),
            Err(err) if err.is(Errno::ISDIR) || err.is(Errno::PERM) => {}
            Err(err) => return Err(err),
        }
        let device = self.self_stat()?.st_dev;
        let top = self.open_dir(name)?;
        same_device(&top, device)?;
        let mut lifted = 0_u64;
        loop {
            let deeper = empty_one_level(&top, device, &mut lifted)?;
            if !deeper {
                return self.rmdir(name);
            }
        }
    }

    /// Allocated bytes and inodes of this directory and all below, each inode once. Does not cross
    /// mounts.
    pub fn usage(&self) -> Result<Usage> {
        let root = self.self_stat()?;
        let mut usage = Usage {
            bytes: blocks(&root),
            inodes: 1,
        };
        let mut linked = HashSet::new();
        let mut left = vec![self.clone()];
        while let Some(dir) = left.pop() {
            for entry in dir.entries()? {
                let stat = match rustix::fs::statat(&dir, &entry.name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => stat,
                    // An active snapshot changes while it is measured.
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(dir.failed("fstatat", &entry.name, errno)),
                };
                let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
                if stat.st_dev != root.st_dev {
                    continue;
                }
                if !directory && stat.st_nlink > 1 && !linked.insert(stat.st_ino) {
                    continue;
                }
                usage.bytes += blocks(&stat);
                usage.inodes += 1;
                if directory {
                    left.push(dir.open_dir(&entry.name)?);
                }
            }
        }
        Ok(usage)
    }
}

/// Empties `top` of everything but directories that had directories of their own: those inner ones
/// are lifted up into `top`, so that the next round meets them one level below. Says whether
/// anything is left.
fn empty_one_level(top: &Dir, device: u64, lifted: &mut u64) -> Result<bool> {
    let mut left = false;
    for entry in top.entries()? {
        if remove_leaf(top, &entry.name)? {
            continue;
        }
        let inner = top.open_dir(&entry.name)?;
        same_device(&inner, device)?;
        for below in inner.entries()? {
            if remove_leaf(&inner, &below.name)? {
                continue;
            }
            same_device(&inner.open_dir(&below.name)?, device)?;
            *lifted += 1;
            inner.rename(
                &below.name,
                top,
                &OsString::from(format!(".lifted-{lifted}")),
            )?;
            left = true;
        }
        top.rmdir(&entry.name)?;
    }
    Ok(left)
}

/// Removes a name that is no directory, or an empty one; `false` when it is a full directory.
fn remove_leaf(dir: &Dir, name: &OsStr) -> Result<bool> {
    match dir.unlink(name) {
        Ok(()) => return Ok(true),
        Err(err) if err.is(Errno::NOENT) => return Ok(true),
        Err(err) if err.is(Errno::ISDIR) || err.is(Errno::PERM) => {}
        Err(err) => return Err(err),
    }
    match dir.rmdir(name) {
        Ok(()) => Ok(true),
        Err(err) if err.is(Errno::NOENT) => Ok(true),
        Err(err) if err.is(Errno::NOTEMPTY) => Ok(false),
        Err(err) => Err(err),
    }
}

fn same_device(dir: &Dir, device: u64) -> Result<()> {
    if dir.self_stat()?.st_dev == device {
        return Ok(());
    }
    Err(Error::new("remove", dir.label(), Errno::BUSY))
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}
