//! An open directory: the capability through which everything below it is reached.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timespec,
        Timestamps, Uid,
    },
    io::Errno,
};

use crate::{Error, Result, fault};

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);

/// An open directory. Names given to its methods are single components and are never followed; only
/// [`Dir::resolve_dir`] and [`Dir::open_in_root`] take a path, and resolve it as if this directory
/// were `/`.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    /// For messages, and for mount sources of our own directories.
    path: Arc<PathBuf>,
}

/// Room on a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes that an unprivileged writer may still take.
    pub free_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// Inodes left.
    pub free_inodes: u64,
    /// Inodes in all; 0 where the file system makes them as it goes.
    pub total_inodes: u64,
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Dir {
    /// Opens a directory of ours by its path.
    pub fn open(path: &Path) -> Result<Dir> {
        fault::gate("open", || path.display().to_string())?;
        let fd = rustix::fs::open(path, DIRECTORY, Mode::empty())
            .map_err(|errno| Error::new("open", path.display().to_string(), errno))?;
        Ok(Dir {
            fd: Arc::new(fd),
            path: Arc::new(path.to_path_buf()),
        })
    }

    /// Opens the directory `name`, which is not a link.
    pub fn open_dir(&self, name: &OsStr) -> Result<Dir> {
        fault::gate("openat", || self.shown(name))?;
        let fd = rustix::fs::openat(self, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|errno| self.failed("openat", name, errno))?;
        Ok(self.child(fd, name))
    }

    /// Makes the directory `name`; the umask applies.
    pub fn create_dir(&self, name: &OsStr, mode: u32) -> Result<()> {
        fault::gate("mkdirat", || self.shown(name))?;
        rustix::fs::mkdirat(self, name, Mode::from_raw_mode(mode))
            .map_err(|errno| self.failed("mkdirat", name, errno))
    }

    /// Makes what is missing of a relative path of ours and opens it. Each new directory has exactly
    /// `mode`, and its name is on the disk.
    pub fn create_dir_all_open(&self, relative: &str, mode: u32) -> Result<Dir> {
        let mut here = self.clone();
        for part in relative.split('/').filter(|part| !part.is_empty()) {
            let name = OsStr::new(part);
            let made = match here.create_dir(name, mode) {
                Ok(()) => true,
                Err(err) if err.is(Errno::EXIST) => false,
                Err(err) => return Err(err),
            };
            let next = here.open_dir(name)?;
            if made {
                crate::raw::fchmod(&next, mode)?;
                here.fsync()?;
            }
            here = next;
        }
        Ok(here)
    }

    /// Resolves a path of an image to a directory, as if chrooted here: `..` and absolute links end
    /// at this directory at most. The empty path and `.` are this directory.
    pub fn resolve_dir(&self, path: &[u8]) -> Result<Dir> {
        let fd = self.open_in_root(path, DIRECTORY, 0)?;
        Ok(self.child(fd, OsStr::from_bytes(path)))
    }

    /// Opens what a path of an image leads to, as if chrooted here (`openat2` with
    /// `RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS`).
    pub fn open_in_root(&self, path: &[u8], flags: OFlags, mode: u32) -> Result<OwnedFd> {
        let name = if path.is_empty() {
            OsStr::new(".")
        } else {
            OsStr::from_bytes(path)
        };
        fault::gate("openat2", || self.shown(name))?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        // The kernel answers EAGAIN when a rename elsewhere raced with the resolution of `..`.
        for _ in 0..128 {
            let opened = rustix::fs::openat2(self, name, flags, Mode::from_raw_mode(mode), resolve);
            match opened {
                Err(Errno::AGAIN) => {}
                other => return other.map_err(|errno| self.failed("openat2", name, errno)),
            }
        }
        Err(self.failed("openat2", name, Errno::AGAIN))
    }

    /// Opens the file `name`, which is not followed if it is a link.
    pub fn open_file(&self, name: &OsStr, flags: OFlags, mode: u32) -> Result<File> {
        fault::gate("openat", || self.shown(name))?;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(self, name, flags, Mode::from_raw_mode(mode))
            .map(File::from)
            .map_err(|errno| self.failed("openat", name, errno))
    }

    /// Reads a regular file of at most `limit` bytes; a longer one is `EFBIG`.
    pub fn read_file(&self, name: &OsStr, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_file(name, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
        let mut bytes = Vec::new();
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
        read.map_err(|err| Error::of_io("read", self.shown(name), &err))?;
        if bytes.len() as u64 > limit {
            return Err(self.failed("read", name, Errno::FBIG));
        }
        Ok(bytes)
    }

    /// What `name` itself is.
    pub fn stat(&self, name: &OsStr) -> Result<Stat> {
        fault::gate("fstatat", || self.shown(name))?;
        rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("fstatat", name, errno))
    }

    /// What `name` itself is, if it is there.
    pub fn try_stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        match self.stat(name) {
            Ok(stat) => Ok(Some(stat)),
            Err(err) if err.is(Errno::NOENT) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// What this directory is.
    pub fn self_stat(&self) -> Result<Stat> {
        rustix::fs::fstat(self).map_err(|errno| Error::new("fstat", self.label(), errno))
    }

    /// Where the link `name` points.
    pub fn read_link(&self, name: &OsStr) -> Result<OsString> {
        rustix::fs::readlinkat(self, name, Vec::new())
            .map(|target| OsString::from_vec(target.into_bytes()))
            .map_err(|errno| self.failed("readlinkat", name, errno))
    }

    /// Removes a name that is no directory.
    pub fn unlink(&self, name: &OsStr) -> Result<()> {
        fault::gate("unlinkat", || self.shown(name))?;
        rustix::fs::unlinkat(self, name, AtFlags::empty())
            .map_err(|errno| self.failed("unlinkat", name, errno))
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, name: &OsStr) -> Result<()> {
        fault::gate("rmdir", || self.shown(name))?;
        rustix::fs::unlinkat(self, name, AtFlags::REMOVEDIR)
            .map_err(|errno| self.failed("rmdir", name, errno))
    }

    /// Renames, replacing what is there.
    pub fn rename(&self, name: &OsStr, to: &Dir, new: &OsStr) -> Result<()> {
        fault::gate("renameat", || self.shown(name))?;
        rustix::fs::renameat(self, name, to, new)
            .map_err(|errno| self.failed("renameat", name, errno))
    }

    /// Renames; `EEXIST` when something is there.
    pub fn rename_noreplace(&self, name: &OsStr, to: &Dir, new: &OsStr) -> Result<()> {
        fault::gate("renameat2", || self.shown(name))?;
        rustix::fs::renameat_with(self, name, to, new, RenameFlags::NOREPLACE)
            .map_err(|errno| self.failed("renameat2", name, errno))
    }

    /// Makes a symbolic link with any target.
    pub fn symlink(&self, target: &OsStr, name: &OsStr) -> Result<()> {
        fault::gate("symlinkat", || self.shown(name))?;
        rustix::fs::symlinkat(target, self, name)
            .map_err(|errno| self.failed("symlinkat", name, errno))
    }

    /// Gives `name` itself, a link included, a second name.
    pub fn link(&self, name: &OsStr, to: &Dir, new: &OsStr) -> Result<()> {
        fault::gate("linkat", || self.shown(name))?;
        rustix::fs::linkat(self, name, to, new, AtFlags::empty())
            .map_err(|errno| self.failed("linkat", name, errno))
    }

    /// Makes a device node, fifo or socket; `device` as `makedev(3)` packs it.
    pub fn mknod(&self, name: &OsStr, kind: FileType, mode: u32, device: u64) -> Result<()> {
        fault::gate("mknodat", || self.shown(name))?;
        rustix::fs::mknodat(self, name, kind, Mode::from_raw_mode(mode), device)
            .map_err(|errno| self.failed("mknodat", name, errno))
    }

    /// Changes the owner of `name` itself.
    pub fn chown(&self, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
        fault::gate("fchownat", || self.shown(name))?;
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(self, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("fchownat", name, errno))
    }

    /// Changes the mode of `name`, which must not be a link (`ELOOP`).
    ///
    /// `fchmodat` follows links, so the object is pinned first and changed through its descriptor.
    pub fn chmod(&self, name: &OsStr, mode: u32) -> Result<()> {
        fault::gate("fchmodat", || self.shown(name))?;
        let failed = |errno| self.failed("fchmodat", name, errno);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let pinned = rustix::fs::openat(self, name, flags, Mode::empty()).map_err(failed)?;
        let stat = rustix::fs::fstat(&pinned).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(failed(Errno::LOOP));
        }
        // A PATH descriptor cannot be given to fchmod; its entry in /proc can.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&pinned));
        rustix::fs::chmod(path, Mode::from_raw_mode(mode)).map_err(failed)
    }

    /// Sets the times of `name` itself.
    pub fn utimens(&self, name: &OsStr, accessed: Timespec, modified: Timespec) -> Result<()> {
        fault::gate("utimensat", || self.shown(name))?;
        let times = Timestamps {
            last_access: accessed,
            last_modification: modified,
        };
        rustix::fs::utimensat(self, name, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.failed("utimensat", name, errno))
    }

    /// Puts the names in this directory on the disk.
    pub fn fsync(&self) -> Result<()> {
        fault::gate("fsync", || self.label())?;
        rustix::fs::fsync(self).map_err(|errno| Error::new("fsync", self.label(), errno))
    }

    /// Puts the whole file system on the disk; foreign dirty pages are waited for as well.
    pub fn syncfs(&self) -> Result<()> {
        fault::gate("syncfs", || self.label())?;
        rustix::fs::syncfs(self).map_err(|errno| Error::new("syncfs", self.label(), errno))
    }

    /// The room on this file system.
    pub fn space(&self) -> Result<Space> {
        let stat = rustix::fs::fstatvfs(self)
            .map_err(|errno| Error::new("fstatvfs", self.label(), errno))?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_inodes: stat.f_favail,
            total_inodes: stat.f_files,
        })
    }

    /// The path it was opened by: for messages, and for mount sources of our own directories.
    pub fn path(&self) -> PathBuf {
        self.path.as_ref().clone()
    }

    pub(crate) fn label(&self) -> String {
        self.path.display().to_string()
    }

    /// A name in this directory for messages, with control characters escaped.
    pub(crate) fn shown(&self, name: &OsStr) -> String {
        format!("{}/{}", self.path.display(), name.as_bytes().escape_ascii())
    }

    pub(crate) fn child(&self, fd: OwnedFd, name: &OsStr) -> Dir {
        Dir {
            fd: Arc::new(fd),
            path: Arc::new(self.path.join(name)),
        }
    }
}
