//! Directories for an image's volumes.
//!
//! The image-spec wants data written there kept off the container's root. So each volume is a
//! directory inside the bundle, bound over its place, with what the image has there to begin with;
//! it lives as long as the bundle does. (A tmpfs would lose a database at its first stop.)

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use cairn_sys::{Dir, Error, raw};
use rustix::fs::{FileType, OFlags, Stat, Timespec};

/// Deeper trees are no initial content of a volume.
const DEPTH_MAX: usize = 256;

/// Makes the directory `name` in `volumes` as the image has it at `path`; an empty one of root's,
/// 0755, where the image has none. Whatever leads out of the image leads to nothing.
pub(crate) fn make(root: &Dir, path: &str, volumes: &Dir, name: &OsStr) -> Result<(), Error> {
    volumes.create_dir(name, 0o755)?;
    let to = volumes.open_dir(name)?;
    let from = match root.resolve_dir(path.as_bytes()) {
        Ok(from) => from,
        Err(err) if is_elsewhere(&err) => {
            return raw::fchmod(&to, 0o755);
        }
        Err(err) => return Err(err),
    };
    let mut copied = Copied {
        top: to.clone(),
        linked: HashMap::new(),
    };
    copy_entries(&from, &to, Path::new(""), &mut copied)?;
    let stat = from.self_stat()?;
    attributes_of(&from, &to, &stat)
}

fn is_elsewhere(err: &Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| err.is(*errno))
}

/// What of a volume is there.
struct Copied {
    top: Dir,
    /// Files with more than one name by device and inode: the directory in `top` and the name that each
    /// has there. Copied once each, or one file with many names would take the room of many.
    linked: HashMap<(u64, u64), (PathBuf, OsString)>,
}

/// Copies what is in `from` to `to`, which is at `below` in the volume.
fn copy_entries(from: &Dir, to: &Dir, below: &Path, copied: &mut Copied) -> Result<(), Error> {
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
                attributes_of(&from, &to, &stat)?;
            }
            FileType::RegularFile => {
                if stat.st_nlink < 2 {
                    copy_file(from, to, name, &stat)?;
                } else if !copied.link(&stat, to, name) {
                    copy_file(from, to, name, &stat)?;
                    let place = (below.to_owned(), name.to_owned());
                    copied.linked.insert((stat.st_dev, stat.st_ino), place);
                }
            }
            FileType::Symlink => {
                to.symlink(&from.read_link(name)?, name)?;
                to.chown(name, stat.st_uid, stat.st_gid)?;
                to.utimens(name, accessed(&stat), modified(&stat))?;
            }
            kind => {
                to.mknod(name, kind, stat.st_mode & 0o7777, stat.st_rdev)?;
                to.chown(name, stat.st_uid, stat.st_gid)?;
                to.chmod(name, stat.st_mode & 0o7777)?;
                to.utimens(name, accessed(&stat), modified(&stat))?;
            }
        }
    }
    Ok(())
}

impl Copied {
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
}

fn copy_file(from: &Dir, to: &Dir, name: &OsStr, stat: &Stat) -> Result<(), Error> {
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
    attributes_of(&source, &target, stat)
}

/// The standard library lets the kernel copy from file to file.
fn copy(source: &mut File, target: &mut File, start: u64, end: u64) -> io::Result<u64> {
    source.seek(SeekFrom::Start(start))?;
    target.seek(SeekFrom::Start(start))?;
    io::copy(&mut source.take(end - start), target)
}

/// Owner first, since changing it clears setuid bits and capabilities; times last.
fn attributes_of(
    from: impl std::os::fd::AsFd,
    to: impl std::os::fd::AsFd,
    stat: &Stat,
) -> Result<(), Error> {
    let (from, to) = (from.as_fd(), to.as_fd());
    raw::fchown(to, stat.st_uid, stat.st_gid)?;
    for name in raw::flistxattr(from)? {
        // Overlay's own marks are none of the image's.
        let is_mark = name.as_encoded_bytes().starts_with(b"trusted.overlay.");
        if let Some(value) = raw::fgetxattr(from, &name)?.filter(|_| !is_mark) {
            raw::fsetxattr(to, &name, &value)?;
        }
    }
    raw::fchmod(to, stat.st_mode & 0o7777)?;
    raw::futimens(to, accessed(stat), modified(stat))
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
