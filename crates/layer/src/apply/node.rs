//! Everything that is not a directory: files with their data, links, devices.

use std::{ffi::OsStr, fs::File, io::BufRead, os::unix::ffi::OsStrExt};

use cairn_sys::raw;
use rustix::{fs::FileType, io::Errno};

use super::{
    Applier,
    attributes::{self, Times},
    tree::{Missing, Place},
};
use crate::{
    Error, Refusal,
    path::{self, PATH_BYTES_MAX, PathError, shown},
    tar::{self, Entry, EntryKind},
};

/// The kernel keeps 12 bits of a major number and 20 of a minor. What is above is cut off by some
/// filesystems, so that 4096:0 would come back as 0:0.
const MAJOR_MAX: u32 = (1 << 12) - 1;
const MINOR_MAX: u32 = (1 << 20) - 1;

impl Applier {
    /// The hot path of a layer: six calls on an open parent for a file nobody has put there before.
    pub(super) fn regular<R: BufRead>(
        &mut self,
        parent: &Place,
        name: &[u8],
        entry: &Entry,
        times: Times,
        reader: &mut tar::Reader<R>,
    ) -> Result<(), Error> {
        let failed = Error::write(&entry.path);
        let name_os = OsStr::from_bytes(name);
        let file = match attributes::create_file(&parent.dir, name_os) {
            Err(err) if err.is(Errno::EXIST) => {
                self.tree
                    .clear_the_way(parent, name)
                    .map_err(|stop| stop.at(&entry.path))?;
                attributes::create_file(&parent.dir, name_os)
            }
            other => other,
        }
        .map_err(&failed)?;
        match (&self.sums, &entry.sparse) {
            (Some(sums), _) => sums.take(reader, &file, entry)?,
            (None, None) => copy(reader, &file, &entry.path)?,
            (None, Some(segments)) => copy_sparse(reader, &file, entry, segments)?,
        }
        attributes::set_on_file(&file, entry, &times, &mut self.skipped).map_err(&failed)
    }
}

impl Applier {
    /// Symbolic links, devices and pipes: made by name, and never followed afterwards.
    pub(super) fn special(
        &mut self,
        parent: &Place,
        name: &[u8],
        entry: &Entry,
        times: Times,
    ) -> Result<(), Error> {
        check_special(entry).map_err(|refusal| Error::refused(&entry.path, refusal))?;
        let failed = Error::write(&entry.path);
        let name_os = OsStr::from_bytes(name);
        match make_special(parent, name_os, entry) {
            Err(err) if err.is(Errno::EXIST) => {
                self.tree
                    .clear_the_way(parent, name)
                    .map_err(|stop| stop.at(&entry.path))?;
                make_special(parent, name_os, entry)
            }
            other => other,
        }
        .map_err(&failed)?;
        attributes::set_on_name(&parent.dir, name_os, entry, &times, &mut self.skipped)
            .map_err(&failed)
    }

    /// A second name for a file that this layer has brought already. Owner, mode and times are the
    /// file's and stay as its own entry set them: `chown` for the second name would cost the file
    /// its capabilities.
    pub(super) fn hard_link(
        &mut self,
        parent: &Place,
        name: &[u8],
        entry: &Entry,
    ) -> Result<(), Error> {
        let refused = |refusal| Error::refused(&entry.path, refusal);
        let failed = Error::write(&entry.path);
        let shown_target = || shown(&entry.link);
        let target = path::clean(&entry.link).map_err(|reason| {
            refused(Refusal::LinkPath {
                target: shown_target(),
                reason,
            })
        })?;
        if target.is_empty() {
            return Err(refused(Refusal::LinkDirectory {
                target: shown_target(),
            }));
        }
        let (target_parent, target_name) = path::split(&target);
        let missing = || {
            refused(Refusal::LinkMissing {
                target: shown_target(),
            })
        };
        let source = self
            .tree
            .enter(target_parent, Missing::Leave)
            .map_err(|stop| stop.at(&entry.path))?
            .ok_or_else(missing)?;
        let target_os = OsStr::from_bytes(target_name);
        let stat = source
            .dir
            .try_stat(target_os)
            .map_err(&failed)?
            .ok_or_else(missing)?;
        match attributes::file_type(&stat) {
            FileType::Directory => {
                return Err(refused(Refusal::LinkDirectory {
                    target: shown_target(),
                }));
            }
            // A deleted name is no file, and a second whiteout would delete another.
            kind if attributes::is_whiteout(kind, &stat) => return Err(missing()),
            _ => {}
        }
        if source.path == parent.path && target_name == name {
            return Err(refused(Refusal::LinkSelf {
                target: shown_target(),
            }));
        }
        let name_os = OsStr::from_bytes(name);
        match source.dir.link(target_os, &parent.dir, name_os) {
            Err(err) if err.is(Errno::EXIST) => {
                self.tree
                    .clear_the_way(parent, name)
                    .map_err(|stop| stop.at(&entry.path))?;
                // What stood in the way may have been the directory that held the target.
                match source.dir.link(target_os, &parent.dir, name_os) {
                    Err(err) if err.is(Errno::NOENT) => Err(missing()),
                    other => other.map_err(&failed),
                }
            }
            other => other.map_err(&failed),
        }
    }
}

fn check_special(entry: &Entry) -> Result<(), Refusal> {
    match entry.kind {
        EntryKind::Symlink if entry.link.is_empty() => Err(Refusal::EmptyLink),
        EntryKind::Symlink if entry.link.contains(&0) => Err(PathError::Nul.into()),
        EntryKind::Symlink if entry.link.len() > PATH_BYTES_MAX => Err(PathError::TooLong.into()),
        EntryKind::CharDevice { major: 0, minor: 0 } => Err(Refusal::ForgedWhiteout),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor }
            if major > MAJOR_MAX || minor > MINOR_MAX =>
        {
            Err(Refusal::Device { major, minor })
        }
        _ => Ok(()),
    }
}

fn make_special(parent: &Place, name: &OsStr, entry: &Entry) -> cairn_sys::Result<()> {
    let node = |kind, major, minor| attributes::make_node(&parent.dir, name, kind, major, minor);
    match entry.kind {
        EntryKind::Symlink => parent.dir.symlink(OsStr::from_bytes(&entry.link), name),
        EntryKind::CharDevice { major, minor } => node(FileType::CharacterDevice, major, minor),
        EntryKind::BlockDevice { major, minor } => node(FileType::BlockDevice, major, minor),
        EntryKind::Fifo => node(FileType::Fifo, 0, 0),
        EntryKind::Regular | EntryKind::Directory | EntryKind::HardLink => {
            unreachable!("files, directories and hard links have functions of their own")
        }
    }
}

fn copy<R: BufRead>(reader: &mut tar::Reader<R>, file: &File, entry: &[u8]) -> Result<(), Error> {
    loop {
        let bytes = reader.data()?;
        if bytes.is_empty() {
            return Ok(());
        }
        let n = bytes.len();
        raw::write_all(file, bytes).map_err(Error::write(entry))?;
        reader.consume(n);
    }
}

/// The stored bytes go to their segments in order; what lies between stays a hole.
fn copy_sparse<R: BufRead>(
    reader: &mut tar::Reader<R>,
    file: &File,
    entry: &Entry,
    segments: &[tar::Segment],
) -> Result<(), Error> {
    let failed = Error::write(&entry.path);
    for segment in segments {
        let mut offset = segment.offset;
        let mut left = segment.len;
        while left > 0 {
            let bytes = reader.data()?;
            if bytes.is_empty() {
                // The reader has checked that the map and the stored size agree.
                break;
            }
            let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            raw::write_all_at(file, &bytes[..n], offset).map_err(&failed)?;
            reader.consume(n);
            offset += n as u64;
            left -= n as u64;
        }
    }
    raw::ftruncate(file, entry.size).map_err(&failed)
}
