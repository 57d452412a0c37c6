//! Copies of trees: an image's files as plain ones, and what a volume has to begin with.
//!
//! Entries are made through open directories and never followed, names that share a file share it in
//! the copy, and holes stay holes: a tree takes the room that it takes where it came from.

use std::{
    borrow::Cow,
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use cairn_sys::{Dir, Error, mount, raw};
use cairn_types::IdMap;
use rustix::fs::{FileType, OFlags, Stat, Timespec};

use crate::{
    owners,
    place::{Place, ROOTFS},
};

/// Every level takes two descriptors. Deeper trees are made to exhaust somebody.
const DEPTH_MAX: usize = 256;

/// Puts plain files in the place of what is mounted as the root of a bundle that is being built: those
/// that are seen there.
///
/// They are on the disk when this returns. Nothing else could make them again once the store has let
/// go of the bundle's layer, and of one file system it takes less to sync all than each file.
pub(crate) fn settle(place: &Place, bundle: &Dir, map: Option<&IdMap>) -> Result<(), Error> {
    let aside = OsStr::new("copy");
    bundle.create_dir(aside, 0o755)?;
    {
        let to = bundle.open_dir(aside)?;
        // Closed before it is unmounted.
        tree(&Dir::open(&place.rootfs_aside())?, &to, map)?;
    }
    mount::unmount_own(&place.rootfs_aside())?;
    // Over the mount point, which is empty.
    bundle.rename(aside, bundle, OsStr::new(ROOTFS))?;
    bundle.syncfs()
}

/// Copies what is in `from`, and its own attributes, to the empty directory `to`. With a map it belongs
/// there to those of the host who are its owners in the container.
pub(crate) fn tree(from: &Dir, to: &Dir, map: Option<&IdMap>) -> Result<(), Error> {
    let mut copied = Copied {
        top: to.clone(),
        linked: HashMap::new(),
        map,
    };
    copy_entries(from, to, Path::new(""), &mut copied)?;
    copied.attributes_of(from, to, &from.self_stat()?)
}

/// What of the copy is there.
struct Copied<'m> {
    top: Dir,
    /// Files with more than one name by device and inode: the directory in `top` and the name that each
    /// has there. Copied once each, or one file with many names would take the room of many.
    linked: HashMap<(u64, u64), (PathBuf, OsString)>,
    /// Who the owners are.
    map: Option<&'m IdMap>,
}

/// Copies what is in `from` to `to`, which is at `below` in the copy.
fn copy_entries(from: &Dir, to: &Dir, below: &Path, copied: &mut Copied<'_>) -> Result<(), Error> {
    if below.components().count() > DEPTH_MAX {
        let name = from.path().display().to_string();
        return Err(Error::new("copy", name, rustix::io::Errno::NAMETOOLONG));
    }
    for entry in from.entries()? {
        let name = entry.name.as_os_str();
        let stat = from.stat(name)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                to.create_dir(name, 0o700)?;
                let (from, to) = (from.open_dir(name)?, to.open_dir(name)?);
                copy_entries(&from, &to, &below.join(name), copied)?;
                copied.attributes_of(&from, &to, &stat)?;
            }
            FileType::RegularFile => {
                if stat.st_nlink < 2 {
                    copied.file(from, to, name, &stat)?;
                } else if !copied.link(&stat, to, name) {
                    copied.file(from, to, name, &stat)?;
                    let place = (below.to_owned(), name.to_owned());
                    copied.linked.insert((stat.st_dev, stat.st_ino), place);
                }
            }
            FileType::Symlink => {
                to.symlink(&from.read_link(name)?, name)?;
                let (uid, gid) = copied.owner(&stat);
                to.chown(name, uid, gid)?;
                to.utimens(name, accessed(&stat), modified(&stat))?;
            }
            kind => {
                to.mknod(name, kind, stat.st_mode & 0o7777, stat.st_rdev)?;
                let (uid, gid) = copied.owner(&stat);
                to.chown(name, uid, gid)?;
                to.chmod(name, stat.st_mode & 0o7777)?;
                to.utimens(name, accessed(&stat), modified(&stat))?;
            }
        }
    }
    Ok(())
}

impl Copied<'_> {
    /// Whether `name` could be made another name of a file that is there. It cannot when the path to
    /// that is too long or has the most names that its file system allows; then it is copied.
    fn link(&self, stat: &Stat, to: &Dir, name: &OsStr) -> bool {
        let Some((below, first)) = self.linked.get(&(stat.st_dev, stat.st_ino)) else {
            return false;
        };
        let place = match below.as_os_str().is_empty() {
            true => Ok(self.top.clone()),
            false => self.top.open_dir(below.as_os_str()),
        };
        place.and_then(|dir| dir.link(first, to, name)).is_ok()
    }

    /// Whose it is to be.
    fn owner(&self, stat: &Stat) -> (u32, u32) {
        match self.map {
            Some(map) => map.owner(stat.st_uid, stat.st_gid),
            None => (stat.st_uid, stat.st_gid),
        }
    }

    fn file(&self, from: &Dir, to: &Dir, name: &OsStr, stat: &Stat) -> Result<(), Error> {
        let mut source = from.open_file(name, OFlags::RDONLY, 0)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut target = to.open_file(name, flags, 0o600)?;
        let mut done = 0;
        // A layer of some bytes can make a file whose holes would fill the disk.
        while let Some((start, end)) = raw::next_data(&source, done)? {
            copy(&mut source, &mut target, start, end).map_err(|err| {
                Error::of_io("copy", to.path().join(name).display().to_string(), &err)
            })?;
            done = end;
        }
        raw::ftruncate(&target, u64::try_from(stat.st_size).unwrap_or(0))?;
        let (source, target) = (OwnedFd::from(source), OwnedFd::from(target));
        self.attributes_of(&source, &target, stat)
    }

    /// Owner first, since changing it clears setuid bits and capabilities; times last.
    fn attributes_of(
        &self,
        from: impl std::os::fd::AsFd,
        to: impl std::os::fd::AsFd,
        stat: &Stat,
    ) -> Result<(), Error> {
        let (from, to) = (from.as_fd(), to.as_fd());
        let (uid, gid) = self.owner(stat);
        raw::fchown(to, uid, gid)?;
        for name in raw::flistxattr(from)? {
            // Overlay's own marks are none of the image's.
            let is_mark = name.as_encoded_bytes().starts_with(b"trusted.overlay.");
            if let Some(value) = raw::fgetxattr(from, &name)?.filter(|_| !is_mark) {
                let value = match self.map {
                    Some(map) => owners::attribute(&name, &value, map),
                    None => Cow::Borrowed(&*value),
                };
                raw::fsetxattr(to, &name, &value)?;
            }
        }
        raw::fchmod(to, stat.st_mode & 0o7777)?;
        raw::futimens(to, accessed(stat), modified(stat))
    }
}

/// The standard library lets the kernel copy from file to file.
fn copy(source: &mut File, target: &mut File, start: u64, end: u64) -> io::Result<u64> {
    source.seek(SeekFrom::Start(start))?;
    target.seek(SeekFrom::Start(start))?;
    io::copy(&mut source.take(end - start), target)
}

// The types of these fields differ by processor.
#[allow(
    clippy::cast_possible_wrap,
    clippy::useless_conversion,
    clippy::unnecessary_cast
)]
fn accessed(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_atime as i64,
        tv_nsec: stat.st_atime_nsec as _,
    }
}

#[allow(
    clippy::cast_possible_wrap,
    clippy::useless_conversion,
    clippy::unnecessary_cast
)]
fn modified(stat: &Stat) -> Timespec {
    Timespec {
        tv_sec: stat.st_mtime as i64,
        tv_nsec: stat.st_mtime_nsec as _,
    }
}
