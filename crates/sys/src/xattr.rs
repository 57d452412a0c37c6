//! Extended attributes by name in a directory, without following a link.

use std::{
    ffi::{OsStr, OsString},
    os::fd::{AsFd, AsRawFd},
    path::PathBuf,
};

use rustix::{fs::XattrFlags, io::Errno};

use crate::{Dir, Result, raw};

impl Dir {
    /// Sets an attribute of `name` itself.
    pub fn set_xattr(&self, name: &OsStr, key: &OsStr, value: &[u8]) -> Result<()> {
        let path = self.by_proc(name);
        let set = || rustix::fs::lsetxattr(&path, key, value, XattrFlags::empty());
        self.call("lsetxattr", name, set)
    }

    /// Reads an attribute of `name` itself; `None` when it is not there or the file system has none.
    pub fn get_xattr(&self, name: &OsStr, key: &OsStr) -> Result<Option<Vec<u8>>> {
        let path = self.by_proc(name);
        let get = || raw::grow(|buffer| rustix::fs::lgetxattr(&path, key, buffer));
        match self.call("lgetxattr", name, get) {
            Ok(value) => Ok(Some(value)),
            Err(err) if err.is(Errno::NODATA) || err.is(Errno::OPNOTSUPP) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// The names of the attributes of `name` itself.
    pub fn list_xattr(&self, name: &OsStr) -> Result<Vec<OsString>> {
        let path = self.by_proc(name);
        let list = || raw::grow(|buffer| rustix::fs::llistxattr(&path, buffer));
        match self.call("llistxattr", name, list) {
            Ok(list) => Ok(raw::names(&list)),
            Err(err) if err.is(Errno::OPNOTSUPP) => Ok(Vec::new()),
            Err(err) => Err(err),
        }
    }

    /// The kernel has no `lsetxattrat` before 6.13. The way through `/proc/self/fd` starts at our
    /// descriptor, and [`Dir::call`] has refused a `name` of more than one component, so nothing in it
    /// can lead elsewhere.
    fn by_proc(&self, name: &OsStr) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.as_fd().as_raw_fd())).join(name)
    }
}
