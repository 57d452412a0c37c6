//! An open directory: the capability through which everything below it is reached.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
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

use crate::{
    Error, Result,
    fault::{self, Flaw},
    raw,
};

pub(crate) const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY);

/// Times that a rename elsewhere may get in the way of resolving `..` before that is an error.
const RACES_MAX: u32 = 128;

/// An open directory.
///
/// Names given to its methods are single components (anything else is `EINVAL`) and are never
/// followed. [`Dir::open_dir`] and [`Dir::open_file`] also take a relative path of our own layout, in
/// which no component may be a link or lead upwards. [`Dir::resolve_dir`] and [`Dir::open_in_root`]
/// take a path of an image and resolve it as if this directory were `/`.
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
        let open = || rustix::fs::open(path, DIRECTORY, Mode::empty());
        let fd = fault::call("open", || path.display().to_string(), open)?;
        Ok(Dir {
            fd: Arc::new(fd),
            path: Arc::new(path.to_path_buf()),
        })
    }

    /// Opens the directory `name`, which is not a link (`ENOTDIR`).
    pub fn open_dir(&self, name: &OsStr) -> Result<Dir> {
        let fd = self.open_own(name, DIRECTORY | OFlags::NOFOLLOW, 0)?;
        Ok(self.child(fd, name))
    }

    /// Makes the directory `name`; the umask applies.
    pub fn create_dir(&self, name: &OsStr, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        self.call("mkdirat", name, || rustix::fs::mkdirat(self, name, mode))
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
                raw::fchmod(&next, mode)?;
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
    ///
    /// Opening a device or a fifo of an image can do something or wait for ever; to read a file, use
    /// [`Dir::read_in_root`].
    pub fn open_in_root(&self, path: &[u8], flags: OFlags, mode: u32) -> Result<OwnedFd> {
        let name = if path.is_empty() {
            OsStr::new(".")
        } else {
            OsStr::from_bytes(path)
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        self.openat2(name, flags, mode, resolve)
    }

    /// Reads the regular file that a path of an image leads to, at most `limit` bytes (`EFBIG`).
    /// Anything but a regular file is `EINVAL` and is not opened.
    pub fn read_in_root(&self, path: &[u8], limit: u64) -> Result<Vec<u8>> {
        let pinned = self.open_in_root(path, OFlags::PATH, 0)?;
        self.read_pinned(&pinned, OsStr::from_bytes(path), limit)
    }

    /// Opens the file `name`, which is not followed if it is a link (`ELOOP`).
    pub fn open_file(&self, name: &OsStr, flags: OFlags, mode: u32) -> Result<File> {
        let fd = self.open_own(name, flags | OFlags::NOFOLLOW, mode)?;
        Ok(File::from(fd))
    }

    /// Takes hold of `name` itself, whatever it is, without opening it (`O_PATH`).
    pub fn open_path(&self, name: &OsStr) -> Result<OwnedFd> {
        self.open_own(name, OFlags::PATH | OFlags::NOFOLLOW, 0)
    }

    /// Reads a regular file of at most `limit` bytes; a longer one is `EFBIG`, and anything but a
    /// regular file is `EINVAL` and is not opened.
    pub fn read_file(&self, name: &OsStr, limit: u64) -> Result<Vec<u8>> {
        let pinned = self.open_path(name)?;
        self.read_pinned(&pinned, name, limit)
    }

    /// What `name` itself is.
    pub fn stat(&self, name: &OsStr) -> Result<Stat> {
        let stat = || rustix::fs::statat(self, name, AtFlags::SYMLINK_NOFOLLOW);
        self.call("fstatat", name, stat)
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
        fault::call("fstat", || self.label(), || rustix::fs::fstat(self))
    }

    /// Where the link `name` points.
    pub fn read_link(&self, name: &OsStr) -> Result<OsString> {
        let read = || rustix::fs::readlinkat(self, name, Vec::new());
        let target = self.call("readlinkat", name, read)?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Removes a name that is no directory.
    pub fn unlink(&self, name: &OsStr) -> Result<()> {
        let unlink = || rustix::fs::unlinkat(self, name, AtFlags::empty());
        self.call("unlinkat", name, unlink)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, name: &OsStr) -> Result<()> {
        let rmdir = || rustix::fs::unlinkat(self, name, AtFlags::REMOVEDIR);
        self.call("rmdir", name, rmdir)
    }

    /// Renames, replacing what is there.
    pub fn rename(&self, name: &OsStr, to: &Dir, new: &OsStr) -> Result<()> {
        to.component("renameat", new)?;
        let rename = || rustix::fs::renameat(self, name, to, new);
        self.call("renameat", name, rename)
    }

    /// Renames; `EEXIST` when something is there.
    pub fn rename_noreplace(&self, name: &OsStr, to: &Dir, new: &OsStr) -> Result<()> {
        to.component("renameat2", new)?;
        let rename = || rustix::fs::renameat_with(self, name, to, new, RenameFlags::NOREPLACE);
        self.call("renameat2", name, rename)
    }

    /// Has two names change places, at once: neither is ever without what it had or gets.
    pub fn exchange(&self, name: &OsStr, to: &Dir, new: &OsStr) -> Result<()> {
        to.component("renameat2", new)?;
        let rename = || rustix::fs::renameat_with(self, name, to, new, RenameFlags::EXCHANGE);
        self.call("renameat2", name, rename)
    }

    /// Makes a symbolic link with any target.
    pub fn symlink(&self, target: &OsStr, name: &OsStr) -> Result<()> {
        let symlink = || rustix::fs::symlinkat(target, self, name);
        self.call("symlinkat", name, symlink)
    }

    /// Gives `name` itself, a link included, a second name.
    pub fn link(&self, name: &OsStr, to: &Dir, new: &OsStr) -> Result<()> {
        to.component("linkat", new)?;
        let link = || rustix::fs::linkat(self, name, to, new, AtFlags::empty());
        self.call("linkat", name, link)
    }

    /// Makes a device node, fifo or socket; `device` as `makedev(3)` packs it. The umask applies.
    pub fn mknod(&self, name: &OsStr, kind: FileType, mode: u32, device: u64) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        let mknod = || rustix::fs::mknodat(self, name, kind, mode, device);
        self.call("mknodat", name, mknod)
    }

    /// Makes a named pipe. The umask applies.
    pub fn mkfifo(&self, name: &OsStr, mode: u32) -> Result<()> {
        self.mknod(name, FileType::Fifo, mode, 0)
    }

    /// Changes the owner of `name` itself.
    pub fn chown(&self, name: &OsStr, uid: u32, gid: u32) -> Result<()> {
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        let chown = || rustix::fs::chownat(self, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW);
        self.call("fchownat", name, chown)
    }

    /// Changes the mode of `name`, which must not be a link (`ELOOP`).
    ///
    /// `fchmodat` follows links, so the object is pinned first and changed through its descriptor.
    pub fn chmod(&self, name: &OsStr, mode: u32) -> Result<()> {
        self.component("fchmodat", name)?;
        let pinned = self.open_path(name)?;
        let stat = self.call("fstat", name, || rustix::fs::fstat(&pinned))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Err(self.failed("fchmodat", name, Errno::LOOP));
        }
        let (path, mode) = (by_number(&pinned), Mode::from_raw_mode(mode));
        self.call("fchmodat", name, || rustix::fs::chmod(&path, mode))
    }

    /// Sets the times of `name` itself.
    pub fn utimens(&self, name: &OsStr, accessed: Timespec, modified: Timespec) -> Result<()> {
        let times = Timestamps {
            last_access: accessed,
            last_modification: modified,
        };
        let set = || rustix::fs::utimensat(self, name, &times, AtFlags::SYMLINK_NOFOLLOW);
        self.call("utimensat", name, set)
    }

    /// Puts the names in this directory on the disk.
    pub fn fsync(&self) -> Result<()> {
        if fault::has(Flaw::NoDirSync) {
            return Ok(());
        }
        fault::call("fsync", || self.label(), || rustix::fs::fsync(self))
    }

    /// Puts the whole file system on the disk; foreign dirty pages are waited for as well.
    pub fn syncfs(&self) -> Result<()> {
        if fault::has(Flaw::NoTreeSync) {
            return Ok(());
        }
        fault::call("syncfs", || self.label(), || rustix::fs::syncfs(self))
    }

    /// The room on this file system.
    pub fn space(&self) -> Result<Space> {
        let stat = fault::call("fstatvfs", || self.label(), || rustix::fs::fstatvfs(self))?;
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

    /// Opens one component, or a relative path of ours in which nothing may be a link.
    fn open_own(&self, name: &OsStr, flags: OFlags, mode: u32) -> Result<OwnedFd> {
        if is_component(name) {
            let (flags, mode) = (flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode));
            return self.call("openat", name, || {
                rustix::fs::openat(self, name, flags, mode)
            });
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        self.openat2(name, flags, mode, resolve)
    }

    pub(crate) fn openat2(
        &self,
        name: &OsStr,
        flags: OFlags,
        mode: u32,
        resolve: ResolveFlags,
    ) -> Result<OwnedFd> {
        let (flags, mode) = (flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode));
        let mut races = 0;
        fault::call(
            "openat2",
            || self.shown(name),
            || {
                loop {
                    match rustix::fs::openat2(self, name, flags, mode, resolve) {
                        Err(Errno::AGAIN) if races < RACES_MAX => races += 1,
                        other => return other,
                    }
                }
            },
        )
    }

    /// Looks before it opens: a device of an image may do something when it is opened, and a fifo
    /// waits.
    fn read_pinned(&self, pinned: &OwnedFd, name: &OsStr, limit: u64) -> Result<Vec<u8>> {
        let shown = || self.shown(name);
        let stat = fault::call("fstat", shown, || rustix::fs::fstat(pinned))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(self.failed("read", name, Errno::LOOP)),
            FileType::Directory => return Err(self.failed("read", name, Errno::ISDIR)),
            _ => return Err(self.failed("read", name, Errno::INVAL)),
        }
        let (path, flags) = (by_number(pinned), OFlags::RDONLY | OFlags::CLOEXEC);
        let open = || rustix::fs::open(&path, flags, Mode::empty());
        raw::read_to_end(&File::from(fault::call("open", shown, open)?), limit)
    }

    /// Makes a system call on the single component `name`.
    pub(crate) fn call<T>(
        &self,
        op: &'static str,
        name: &OsStr,
        make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T> {
        self.component(op, name)?;
        fault::call(op, || self.shown(name), make)
    }

    /// Refuses a name that could lead out of this directory, or through a link in it.
    fn component(&self, op: &'static str, name: &OsStr) -> Result<()> {
        if is_component(name) {
            Ok(())
        } else {
            Err(self.failed(op, name, Errno::INVAL))
        }
    }

    pub(crate) fn failed(&self, op: &'static str, name: &OsStr, errno: Errno) -> Error {
        Error::new(op, self.shown(name), errno)
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

    /// A directory somewhere below, under the label of this one.
    pub(crate) fn below(&self, fd: OwnedFd) -> Dir {
        Dir {
            fd: Arc::new(fd),
            path: Arc::clone(&self.path),
        }
    }
}

/// `.` counts: it leads nowhere. An empty name is left to the kernel, which refuses it.
fn is_component(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    bytes != b".." && !bytes.contains(&b'/')
}

/// A `PATH` descriptor cannot be given to `fchmod` or `read`; its entry in `/proc` can be opened.
fn by_number(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
