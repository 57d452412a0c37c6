//! Whole trees: listing, removing, measuring and syncing them without following a link or crossing a mount.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    fs::File,
    os::unix::ffi::OsStrExt,
    path::Path,
};

use cairn_types::Usage;
use rustix::{
    fs::{FileType, OFlags, RawDir, Stat},
    io::Errno,
};

use crate::{
    Dir, Error, Result, durable,
    fault::{self, Flaw},
    raw,
    walk::{Level, Walk, elsewhere, open_same_mount},
};

/// Bytes of names that one call to the kernel lists.
const LISTING_BYTES: usize = 32 * 1024;
/// Times that a tree is emptied again because something was put into it meanwhile.
const ROUNDS_MAX: u32 = 8;

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
        // A descriptor of its own: the position of a shared one would be shared as well.
        let own = self.open_dir(OsStr::new("."))?;
        let mut entries = Vec::new();
        each_name(&own, |name, kind| {
            let name = name.to_owned();
            entries.push(DirEntry { name, kind });
            Ok(())
        })?;
        Ok(entries)
    }

    /// Removes `name` and all below it; a name that is not there is no error. A tree that holds a
    /// mount is left at that point with `EBUSY`: what is mounted there belongs to somebody else.
    pub fn remove_tree(&self, name: &OsStr) -> Result<()> {
        if name == "." {
            return Err(self.failed("remove", name, Errno::INVAL));
        }
        let stat = match self.try_stat(name)? {
            Some(stat) => stat,
            None => return Ok(()),
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return gone(self.unlink(name));
        }
        for _ in 0..ROUNDS_MAX {
            if self.empty_tree(name)? {
                return Ok(());
            }
        }
        Err(self.failed("rmdir", name, Errno::NOTEMPTY))
    }

    /// Removes `name` if nothing is in it but empty directories of these names, and says whether it is
    /// gone. Of a tree that holds more some of these may be gone. Where most are like that it is the cheaper
    /// first attempt: nothing is listed.
    pub fn remove_hollow(&self, name: &OsStr, inner: &[&str]) -> Result<bool> {
        let Some(dir) = self.open_doomed(name)? else {
            return Ok(true);
        };
        for inner in inner {
            if !rmdir(&dir, OsStr::new(inner))? {
                return Ok(false);
            }
        }
        rmdir(self, name)
    }

    /// Opens a directory that is to be removed; `None` when it is gone already.
    fn open_doomed(&self, name: &OsStr) -> Result<Option<Dir>> {
        match open_same_mount(self, name, true) {
            Ok(dir) => Ok(Some(dir)),
            Err(err) if err.is(Errno::NOENT) => Ok(None),
            Err(err) => Err(mounted(err)),
        }
    }

    /// Removes all that is below `name` when its listing is read, and `name` itself if nothing came in
    /// meanwhile; says whether it is gone.
    fn empty_tree(&self, name: &OsStr) -> Result<bool> {
        let Some(dir) = self.open_doomed(name)? else {
            return Ok(true);
        };
        let pending = unlink_files(&dir)?;
        let name = name.to_owned();
        let mut walk = Walk::new(Level { dir, name, pending });
        loop {
            if let Some(name) = walk.here.pending.pop() {
                match walk.open(&name) {
                    Ok(dir) => {
                        let pending = unlink_files(&dir)?;
                        walk.descend(Level { dir, name, pending })?;
                    }
                    Err(err) if err.is(Errno::NOENT) => {}
                    Err(err) => return Err(mounted(err)),
                }
            } else if let Some(done) = walk.ascend()? {
                // One that is not empty after all keeps its parents, so that the next round meets it.
                rmdir(&walk.here.dir, &done.name)?;
            } else {
                return rmdir(self, &walk.here.name);
            }
        }
    }

    /// Puts this directory and all below it on the disk, one after the other: for a tree of a few files
    /// cheaper than [`Dir::syncfs`], which waits for whatever anybody has written. Does not cross
    /// mounts.
    pub fn sync_tree(&self) -> Result<()> {
        if fault::has(Flaw::NoTreeSync) {
            return Ok(());
        }
        self.each_dir(true, &mut |dir| {
            let directories = each_file(dir, &mut durable::sync_file)?;
            dir.fsync()?;
            Ok(directories)
        })
    }

    /// As [`Dir::sync_tree`], for many files: the kernel begins to write all of them before the first one
    /// is waited for. Each by itself would be a transaction of the file system's own.
    pub fn sync_large_tree(&self) -> Result<()> {
        if fault::has(Flaw::NoTreeSync) {
            return Ok(());
        }
        self.each_dir(true, &mut |dir| each_file(dir, &mut raw::begin_write))?;
        self.sync_tree()
    }

    /// Allocated bytes and inodes of this directory and all below, each inode once. Does not cross
    /// mounts. What disappears while it is measured is not counted.
    pub fn usage(&self) -> Result<Usage> {
        Meter::default().tree(self)
    }

    /// Visits this directory and all below it, without crossing mounts; a visit answers the directories in
    /// the one it was given. With `all` it is an error when one that was on the way is moved meanwhile, by
    /// which others may be missed.
    fn each_dir(
        &self,
        all: bool,
        visit: &mut dyn FnMut(&Dir) -> Result<Vec<OsString>>,
    ) -> Result<()> {
        let name = OsString::from(".");
        let dir = open_same_mount(self, &name, false)?;
        let pending = visit(&dir)?;
        let mut walk = Walk::new(Level { dir, name, pending });
        loop {
            if let Some(name) = walk.here.pending.pop() {
                match walk.open(&name) {
                    Ok(dir) => match visit(&dir) {
                        Ok(pending) => walk.descend(Level { dir, name, pending })?,
                        Err(err) if !all && elsewhere(err.errno()) => {}
                        Err(err) => return Err(err),
                    },
                    Err(err) if elsewhere(err.errno()) => {}
                    Err(err) => return Err(err),
                }
            } else {
                let goes_on = match all {
                    true => walk.ascend()?.is_some(),
                    false => walk.rise(self)?,
                };
                if !goes_on {
                    return Ok(());
                }
            }
        }
    }

    /// Whether there is anything at a relative path of ours, whatever it is.
    pub fn has(&self, path: &Path) -> Result<bool> {
        let Some(name) = path.file_name() else {
            return Ok(false);
        };
        let above = path.parent().map(Path::as_os_str);
        let dir = match above.filter(|above| !above.is_empty()) {
            None => self.clone(),
            Some(above) => match self.open_dir(above) {
                Ok(dir) => dir,
                Err(err) if elsewhere(err.errno()) => return Ok(false),
                Err(err) => return Err(err),
            },
        };
        Ok(seen(&dir, name)?.is_some())
    }
}

/// Opens the files of a directory; answers the directories there.
fn each_file(dir: &Dir, visit: &mut dyn FnMut(&File) -> Result<()>) -> Result<Vec<OsString>> {
    let mut directories = Vec::new();
    each_name(dir, |name, kind| {
        let kind = match kind {
            FileType::Unknown => match dir.try_stat(name)? {
                Some(stat) => FileType::from_raw_mode(stat.st_mode),
                None => return Ok(()),
            },
            known => known,
        };
        match kind {
            FileType::Directory => directories.push(name.to_owned()),
            // Should it be a fifo by now, opening it does not wait.
            FileType::RegularFile => match dir.open_file(name, OFlags::NONBLOCK, 0) {
                Ok(file) => visit(&file)?,
                Err(err) if elsewhere(err.errno()) => {}
                Err(err) => return Err(err),
            },
            // All there is to links and devices is in the directory.
            _ => {}
        }
        Ok(())
    })?;
    Ok(directories)
}

/// Counts allocated bytes, which are blocks times 512, and inodes: each inode once, however many names
/// lead there among all that one meter is shown. Does not cross mounts. What disappears or is moved meanwhile
/// is counted once at most, as long as it is not moved to where the meter still comes by.
#[derive(Default)]
pub struct Meter<'w> {
    /// Inodes with more than one name that were counted, by device and number.
    linked: HashSet<(u64, u64)>,
    /// Asked at every name whether to go on.
    wanted: Option<&'w dyn Fn() -> bool>,
}

impl<'w> Meter<'w> {
    /// One that counts for as long as it is `wanted`, and fails with `ECANCELED` from then on.
    pub fn for_as_long(wanted: &'w dyn Fn() -> bool) -> Meter<'w> {
        Meter {
            linked: HashSet::new(),
            wanted: Some(wanted),
        }
    }

    fn go_on(&self, dir: &Dir) -> Result<()> {
        match self.wanted.is_none_or(|wanted| wanted()) {
            true => Ok(()),
            false => Err(Error::new("measure", dir.label(), Errno::CANCELED)),
        }
    }

    /// A directory and all below it. What disappears meanwhile is not counted.
    pub fn tree(&mut self, dir: &Dir) -> Result<Usage> {
        let mut usage = Usage::default();
        dir.each_dir(false, &mut |dir| self.enter(dir, &mut usage))?;
        Ok(usage)
    }

    /// Whatever is called `name`, with all below it; `None` when nothing is, or something is mounted there.
    pub fn entry(&mut self, dir: &Dir, name: &OsStr) -> Result<Option<Usage>> {
        self.go_on(dir)?;
        let Some(stat) = seen(dir, name)? else {
            return Ok(None);
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(Some(self.inode(&stat)));
        }
        let measured = open_same_mount(dir, name, true).and_then(|dir| self.tree(&dir));
        match measured {
            Ok(usage) => Ok(Some(usage)),
            Err(err) if elsewhere(err.errno()) => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// What a directory itself takes, and each name in it but those of `other`, with all below it.
    pub fn entries(
        &mut self,
        dir: &Dir,
        other: &[&str],
    ) -> Result<(Usage, Vec<(OsString, Usage)>)> {
        let own = self.inode(&dir.self_stat()?);
        let mut entries = Vec::new();
        for DirEntry { name, .. } in dir.entries()? {
            if !other.iter().any(|other| name == *other)
                && let Some(usage) = self.entry(dir, &name)?
            {
                entries.push((name, usage));
            }
        }
        Ok((own, entries))
    }

    /// One inode; nothing when it was counted by another name.
    pub fn inode(&mut self, stat: &Stat) -> Usage {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if !is_dir && stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return Usage::default();
        }
        Usage {
            bytes: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
            inodes: 1,
        }
    }

    /// Counts a directory and what is in it; answers the directories in it.
    fn enter(&mut self, dir: &Dir, usage: &mut Usage) -> Result<Vec<OsString>> {
        *usage += self.inode(&dir.self_stat()?);
        let mut directories = Vec::new();
        each_name(dir, |name, kind| {
            self.go_on(dir)?;
            if kind == FileType::Directory {
                directories.push(name.to_owned());
            } else if let Some(stat) = seen(dir, name)? {
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    directories.push(name.to_owned());
                } else {
                    *usage += self.inode(&stat);
                }
            }
            Ok(())
        })?;
        Ok(directories)
    }
}

/// What is there, if it can be told still.
fn seen(dir: &Dir, name: &OsStr) -> Result<Option<Stat>> {
    match dir.try_stat(name) {
        Err(err) if elsewhere(err.errno()) => Ok(None),
        stat => stat,
    }
}

/// Unlinks all that is no directory in a directory just opened; answers the directories.
fn unlink_files(dir: &Dir) -> Result<Vec<OsString>> {
    let mut directories = Vec::new();
    each_name(dir, |name, kind| {
        let directory = match kind {
            FileType::Directory => true,
            FileType::Unknown => dir
                .try_stat(name)?
                .is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            _ => false,
        };
        if directory {
            directories.push(name.to_owned());
            return Ok(());
        }
        match gone(dir.unlink(name)) {
            // Replaced by a directory since it was listed: the next round meets it.
            Err(err) if err.is(Errno::ISDIR) => Ok(()),
            other => other,
        }
    })?;
    Ok(directories)
}

/// Removes a directory if it is empty; says whether it is gone.
fn rmdir(dir: &Dir, name: &OsStr) -> Result<bool> {
    match gone(dir.rmdir(name)) {
        Ok(()) => Ok(true),
        Err(err) if err.is(Errno::NOTEMPTY) || err.is(Errno::EXIST) => Ok(false),
        Err(err) => Err(err),
    }
}

fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(err) if err.is(Errno::NOENT) => Ok(()),
        other => other,
    }
}

/// `EXDEV` says how it was noticed; `EBUSY` says what is the matter, as `rmdir` and `umount` would.
fn mounted(err: Error) -> Error {
    if err.is(Errno::XDEV) {
        Error::new("remove", err.object(), Errno::BUSY)
    } else {
        err
    }
}

/// Visits all names but `.` and `..` of a directory whose descriptor is nobody else's and new.
fn each_name(dir: &Dir, mut visit: impl FnMut(&OsStr, FileType) -> Result<()>) -> Result<()> {
    fault::gate("getdents", || dir.label())?;
    let mut buffer = Vec::with_capacity(LISTING_BYTES);
    let mut listing = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = match entry {
            Ok(entry) => entry,
            // It was removed while it was open: nothing is in it.
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(Error::new("getdents", dir.label(), errno)),
        };
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            visit(OsStr::from_bytes(name), entry.file_type())?;
        }
    }
    Ok(())
}
