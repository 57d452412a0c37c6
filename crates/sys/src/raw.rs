//! System calls on descriptors, each counted and named: the path that every file of a layer takes.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{
        fd::{AsFd, AsRawFd},
        unix::{ffi::OsStringExt, fs::FileExt},
    },
};

use rustix::{
    fs::{Gid, Mode, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use crate::{Error, Result, fault};

fn shown(fd: impl AsFd) -> String {
    format!("fd {}", fd.as_fd().as_raw_fd())
}

/// Changes the owner.
pub fn fchown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    fault::gate("fchown", || shown(&fd))?;
    rustix::fs::fchown(&fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|errno| Error::new("fchown", shown(&fd), errno))
}

/// Changes the mode, setuid and sticky bits included.
pub fn fchmod(fd: impl AsFd, mode: u32) -> Result<()> {
    fault::gate("fchmod", || shown(&fd))?;
    rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))
        .map_err(|errno| Error::new("fchmod", shown(&fd), errno))
}

/// Sets the times.
pub fn futimens(fd: impl AsFd, accessed: Timespec, modified: Timespec) -> Result<()> {
    fault::gate("futimens", || shown(&fd))?;
    let times = Timestamps {
        last_access: accessed,
        last_modification: modified,
    };
    rustix::fs::futimens(&fd, &times).map_err(|errno| Error::new("futimens", shown(&fd), errno))
}

/// Sets the length; what lies between old and new end is a hole.
pub fn ftruncate(fd: impl AsFd, length: u64) -> Result<()> {
    fault::gate("ftruncate", || shown(&fd))?;
    rustix::fs::ftruncate(&fd, length).map_err(|errno| Error::new("ftruncate", shown(&fd), errno))
}

/// Writes all bytes at the file's position.
pub fn write_all(file: &File, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        fault::gate("write", || shown(file))?;
        match rustix::io::write(file, bytes) {
            Ok(0) => return Err(Error::new("write", shown(file), Errno::IO)),
            Ok(n) => bytes = &bytes[n..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::new("write", shown(file), errno)),
        }
    }
    Ok(())
}

/// Writes all bytes at `offset`.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> Result<()> {
    fault::gate("pwrite", || shown(file))?;
    file.write_all_at(bytes, offset)
        .map_err(|err| Error::of_io("pwrite", shown(file), &err))
}

/// Sets an extended attribute.
pub fn fsetxattr(fd: impl AsFd, name: &OsStr, value: &[u8]) -> Result<()> {
    fault::gate("fsetxattr", || shown(&fd))?;
    rustix::fs::fsetxattr(&fd, name, value, XattrFlags::empty())
        .map_err(|errno| Error::new("fsetxattr", name.to_string_lossy(), errno))
}

/// Reads an extended attribute; `None` when it is not there or the file system has none.
pub fn fgetxattr(fd: impl AsFd, name: &OsStr) -> Result<Option<Vec<u8>>> {
    let read = grow(|buf| rustix::fs::fgetxattr(&fd, name, buf));
    match read {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(Error::new("fgetxattr", name.to_string_lossy(), errno)),
    }
}

/// The names of all extended attributes.
pub fn flistxattr(fd: impl AsFd) -> Result<Vec<OsString>> {
    match grow(|buf| rustix::fs::flistxattr(&fd, buf)) {
        Ok(list) => Ok(names(&list)),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(errno) => Err(Error::new("flistxattr", shown(&fd), errno)),
    }
}

/// Splits the kernel's NUL-ended list of names.
pub(crate) fn names(list: &[u8]) -> Vec<OsString> {
    list.split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect()
}

/// Calls with a larger buffer until the answer fits; an attribute has at most 64 KiB.
pub(crate) fn grow(
    call: impl Fn(&mut [u8]) -> std::result::Result<usize, Errno>,
) -> std::result::Result<Vec<u8>, Errno> {
    let mut size = 256;
    loop {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if size < 1 << 20 => size *= 8,
            Err(errno) => return Err(errno),
        }
    }
}
