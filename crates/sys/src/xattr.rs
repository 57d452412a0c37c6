//! Extended attributes by name in a directory, without following a link.

use std::{
    ffi::{OsStr, OsString},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use rustix::{fs::XattrFlags, io::Errno};

use crate::{Dir, Error, Result, fault, raw};

impl Dir {
    /// Sets an attribute of `name` itself.
    pub fn set_xattr(&self, name: &OsStr, key: &OsStr, value: &[u8]) -> Result<()> {
        fault::gate("lsetxattr", || self.shown(name))?;
        rustix::fs::lsetxattr(self.by_proc(name), key, value, XattrFlags::empty())
            .map_err(|errno| self.failed("lsetxattr", name, errno))
    }

    /// Reads an attribute of `name` itself; `None` when it is not there.
    pub fn get_xattr(&self, name: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>> {
        let path = self.by_proc(name);
        match raw::grow(|buffer| rustix::fs::lgetxattr(&path, key, buffer)) {
            Ok(value) => Ok(Some(value)),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(errno) => Err(self.failed("lgetxattr", name, errno)),
        }
    }

    /// The names of the attributes of `name` itself.
    pub fn list_xattr(&self, name: &OsStr) -> Result<Vec<OsString>> {
        let path = self.by_proc(name);
        match raw::grow(|buffer| rustix::fs::llistxattr(&path, buffer)) {
            Ok(list) => Ok(raw::names(&list)),
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(errno) => Err(self.failed("llistxattr", name, errno)),
        }
    }

    /// The kernel has no `lsetxattrat` before 6.13. The way through `/proc/self/fd` starts at our
    /// descriptor, and `name` is one component, so nothing in it can lead elsewhere.
    fn by_proc(&self, name: &OsStr) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.as_fd().as_raw_fd())).join(name)
    }

    pub(crate) fn failed(&self, op: &'static str, name: &OsStr, errno: Errno) -> Error {
        Error::new(op, self.shown(name), errno)
    }
}
