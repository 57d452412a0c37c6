//! Owner, mode, times and extended attributes, in the one order that keeps them all.
//!
//! Owner first, since `chown` clears set-user-ID bits and file capabilities; then attributes, mode,
//! and times last.

use std::{ffi::OsStr, fs::File, os::unix::ffi::OsStrExt};

use cairn_sys::{Dir, Result, Stat, raw};
use rustix::{
    fs::{FileType, OFlags, Timespec},
    io::Errno,
};

use super::skipped::Skipped;
use crate::{
    path::shown,
    tar::{self, Entry, EntryKind},
};

/// Access and modification time of an entry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) accessed: tar::Time,
    pub(crate) modified: tar::Time,
}

impl Times {
    /// Access is never before modification, as containerd sets it; few writers record it at all.
    pub(crate) fn of(entry: &Entry) -> Times {
        let modified = entry.mtime;
        let accessed = match entry.atime {
            Some(at) if (at.secs, at.nanos) > (modified.secs, modified.nanos) => at,
            _ => modified,
        };
        Times { accessed, modified }
    }

    /// Whether ext4, the narrowest filesystem that is likely, would clamp the modification time.
    pub(crate) fn out_of_range(&self) -> bool {
        !(-(1 << 31)..(1 << 34) - (1 << 31)).contains(&self.modified.secs)
    }
}

/// Whether an extended attribute of a layer may reach the disk.
///
/// `trusted.*` and `user.overlay.*` are overlay's own: a redirect among them would open directories
/// of other layers. Of `security.*` only capabilities belong to a file rather than to a host.
pub(crate) fn storable(name: &[u8]) -> bool {
    match name {
        b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        _ => name.starts_with(b"user.") && !name.starts_with(b"user.overlay."),
    }
}

/// Makes a file that nobody else can read while it is written.
pub(crate) fn create_file(parent: &Dir, name: &OsStr) -> Result<File> {
    parent.open_file(
        name,
        OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW,
        0o600,
    )
}

/// Sets everything on a file that is complete but for its attributes.
pub(in crate::apply) fn set_on_file(
    file: &File,
    entry: &Entry,
    times: &Times,
    skipped: &mut Skipped,
) -> Result<()> {
    raw::fchown(file, entry.uid, entry.gid)?;
    set_xattrs(entry, skipped, |name, value| {
        raw::fsetxattr(file, name, value)
    })?;
    raw::fchmod(file, entry.mode)?;
    raw::futimens(file, timespec(times.accessed), timespec(times.modified))
}

/// Sets what an entry says of a directory, but for the times: those come when the layer is complete.
pub(in crate::apply) fn set_on_dir(dir: &Dir, entry: &Entry, skipped: &mut Skipped) -> Result<()> {
    raw::fchown(dir, entry.uid, entry.gid)?;
    set_xattrs(entry, skipped, |name, value| {
        raw::fsetxattr(dir, name, value)
    })?;
    raw::fchmod(dir, entry.mode)
}

/// Sets everything on a link or a device, which cannot be opened for it.
pub(in crate::apply) fn set_on_name(
    parent: &Dir,
    name: &OsStr,
    entry: &Entry,
    times: &Times,
    skipped: &mut Skipped,
) -> Result<()> {
    parent.chown(name, entry.uid, entry.gid)?;
    set_xattrs(entry, skipped, |key, value| {
        parent.set_xattr(name, key, value)
    })?;
    if entry.kind != EntryKind::Symlink {
        parent.chmod(name, entry.mode)?;
    }
    set_times(parent, name, times)
}

fn set_xattrs(
    entry: &Entry,
    skipped: &mut Skipped,
    set: impl Fn(&OsStr, &[u8]) -> Result<()>,
) -> Result<()> {
    for (name, value) in &entry.xattrs {
        if !storable(name) {
            skipped.note(
                &entry.path,
                format!("extended attribute {} not stored", shown(name)),
            );
            continue;
        }
        match set(OsStr::from_bytes(name), value) {
            Err(err) if err.is(Errno::OPNOTSUPP) => {
                let what = shown(name);
                skipped.note(
                    &entry.path,
                    format!("filesystem takes no extended attribute {what}"),
                );
            }
            // The kernel allows `user.*` on files and directories alone.
            Err(err) if err.is(Errno::PERM) && user_xattr_elsewhere(entry, name) => {
                let what = shown(name);
                skipped.note(
                    &entry.path,
                    format!("no extended attribute {what} on such a node"),
                );
            }
            other => other?,
        }
    }
    Ok(())
}

fn user_xattr_elsewhere(entry: &Entry, name: &[u8]) -> bool {
    name.starts_with(b"user.") && !matches!(entry.kind, EntryKind::Regular | EntryKind::Directory)
}

/// Root's, with mode 0755, whatever the umask or a set-group-ID bit above made of it.
pub(crate) fn own_plainly(dir: &Dir) -> Result<()> {
    raw::fchown(dir, 0, 0)?;
    raw::fchmod(dir, 0o755)
}

/// Times of anything by name, links included. The kernel clamps what the filesystem cannot hold.
pub(crate) fn set_times(parent: &Dir, name: &OsStr, times: &Times) -> Result<()> {
    parent.utimens(name, timespec(times.accessed), timespec(times.modified))
}

/// Times of an open directory.
pub(crate) fn set_dir_times(dir: &Dir, times: &Times) -> Result<()> {
    raw::futimens(dir, timespec(times.accessed), timespec(times.modified))
}

fn timespec(time: tar::Time) -> Timespec {
    // The reader keeps nanoseconds below a second; the two largest values mean "now" and "leave".
    Timespec {
        tv_sec: time.secs,
        tv_nsec: i64::from(time.nanos.min(999_999_999)),
    }
}

/// The type in a file's mode.
pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Overlay's mark for a deleted name.
pub(crate) fn is_whiteout(kind: FileType, stat: &Stat) -> bool {
    kind == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Removes every mark for a deleted name in one directory.
pub(crate) fn lift_whiteouts(dir: &Dir) -> Result<()> {
    for entry in dir.entries()? {
        if entry.kind != FileType::CharacterDevice && entry.kind != FileType::Unknown {
            continue;
        }
        if let Some(stat) = dir.try_stat(&entry.name)?
            && is_whiteout(file_type(&stat), &stat)
        {
            dir.unlink(&entry.name)?;
        }
    }
    Ok(())
}

/// Makes overlay's mark for a deleted name.
pub(crate) fn make_whiteout(parent: &Dir, name: &OsStr) -> Result<()> {
    parent.mknod(name, FileType::CharacterDevice, 0, 0)
}

/// Gives a new mark its owner.
pub(crate) fn own_whiteout(parent: &Dir, name: &OsStr, (uid, gid): (u32, u32)) -> Result<()> {
    match (uid, gid) {
        (0, 0) => Ok(()),
        _ => parent.chown(name, uid, gid),
    }
}

/// Makes a device or pipe.
pub(crate) fn make_node(
    parent: &Dir,
    name: &OsStr,
    kind: FileType,
    major: u32,
    minor: u32,
) -> Result<()> {
    parent.mknod(name, kind, 0o600, rustix::fs::makedev(major, minor))
}

/// Says that nothing of the layers below shows in a directory.
pub(crate) fn set_opaque(dir: &Dir, opaque_xattr: &str) -> Result<()> {
    raw::fsetxattr(dir, OsStr::new(opaque_xattr), b"y")
}

/// Whether nothing of the layers below shows in a directory.
pub(crate) fn is_opaque(dir: &Dir, opaque_xattr: &str) -> Result<bool> {
    Ok(raw::fgetxattr(dir, OsStr::new(opaque_xattr))?.as_deref() == Some(b"y"))
}

/// Gives a directory what another layer's has: owner, attributes, mode and times.
pub(crate) fn copy_attributes(from: &Dir, to: &Dir) -> Result<()> {
    let stat = from.self_stat()?;
    raw::fchown(to, stat.st_uid, stat.st_gid)?;
    for name in raw::flistxattr(from)? {
        if !storable(name.as_bytes()) {
            continue;
        }
        if let Some(value) = raw::fgetxattr(from, &name)? {
            match raw::fsetxattr(to, &name, &value) {
                Err(err) if err.is(Errno::OPNOTSUPP) => {}
                other => other?,
            }
        }
    }
    raw::fchmod(to, stat.st_mode & 0o7777)?;
    set_times_of(to, &stat)
}

/// Sets the times that `stat` has.
pub(crate) fn set_times_of(to: &Dir, stat: &Stat) -> Result<()> {
    let time = |secs, nanos| Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    raw::futimens(
        to,
        time(
            stat.st_atime,
            i64::try_from(stat.st_atime_nsec).unwrap_or(0),
        ),
        time(
            stat.st_mtime,
            i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        ),
    )
}
