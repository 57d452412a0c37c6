//! The kernel's list of mounts, `/proc/self/mountinfo`.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
};

use crate::{Result, fault, raw};

const TABLE: &str = "/proc/self/mountinfo";
/// A mount of 500 lower directories takes a line of some 50 KiB.
const TABLE_BYTES_MAX: u64 = 1 << 30;

/// A mount as `/proc/self/mountinfo` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// `major:minor` of the file system.
    pub device: String,
    /// The directory of the file system that is mounted.
    pub root: PathBuf,
    /// Where.
    pub mount_point: PathBuf,
    /// `overlay`, `ext4`, …
    pub fs_type: String,
    /// What was mounted, as the file system names it.
    pub source: String,
    /// Options of the file system.
    pub options: String,
    /// An overlay's writable directory.
    pub upper: Option<PathBuf>,
}

/// All mounts at or below `path`, a mount before what is mounted on or below it.
pub fn mounts_below(path: &Path) -> Result<Vec<MountInfo>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = || rustix::fs::open(TABLE, flags, Mode::empty());
    let file = fault::call("open", || TABLE.to_owned(), open)?;
    let table = raw::read_to_end(&file.into(), TABLE_BYTES_MAX)?;
    let path = spelled_as_listed(path);
    Ok(parse(&table)
        .filter(|info| info.mount_point.starts_with(&path))
        .collect())
}

/// The lines of such a table.
pub(super) fn parse(table: &[u8]) -> impl Iterator<Item = MountInfo> {
    table.split(|&b| b == b'\n').filter_map(parse_line)
}

/// Whether something is mounted exactly at `path`; what does not exist is no mount point.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let ask = || rustix::fs::statx(CWD, path, flags, StatxFlags::empty());
    match fault::call("statx", || path.display().to_string(), ask) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(err) if err.is(Errno::NOENT) => Ok(false),
        Err(err) => Err(err),
    }
}

/// The list has absolute paths without links. The last component is kept as it is: it may be a link,
/// which is no mount point, or not exist.
pub(super) fn spelled_as_listed(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let parent = if parent.as_os_str().is_empty() {
                Path::new(".")
            } else {
                parent
            };
            parent
                .canonicalize()
                .map_or_else(|_| path.to_path_buf(), |parent| parent.join(name))
        }
        _ => path.canonicalize().unwrap_or_else(|_| path.to_path_buf()),
    }
}

/// One line: `id parent major:minor root MOUNTPOINT options [tags] - TYPE SOURCE OPTIONS`
/// (`proc_pid_mountinfo(5)`).
fn parse_line(line: &[u8]) -> Option<MountInfo> {
    let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let dash = fields.iter().position(|field| *field == b"-")?;
    let text = |i: usize| {
        fields
            .get(i)
            .map(|f| String::from_utf8_lossy(&octal(f)).into_owned())
            .unwrap_or_default()
    };
    let path = |i: usize| Some(PathBuf::from(OsString::from_vec(octal(fields.get(i)?))));
    // Commas of a value's own are quoted, like blanks.
    let options = fields.get(dash + 3).copied().unwrap_or_default();
    let upper = options
        .split(|&b| b == b',')
        .find_map(|option| option.strip_prefix(b"upperdir="));
    Some(MountInfo {
        device: text(2),
        root: path(3)?,
        mount_point: path(4)?,
        fs_type: text(dash + 1),
        source: text(dash + 2),
        options: text(dash + 3),
        upper: upper.map(|upper| PathBuf::from(OsString::from_vec(octal(upper)))),
    })
}

/// Undoes the kernel's `\040` for blanks and the like.
fn octal(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let (
            b'\\',
            [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ],
        ) = (first, tail)
        {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = after;
        } else {
            out.push(first);
            rest = tail;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line =
            b"36 35 98:0 / /mnt/a\\040b\\134c rw,noatime shared:1 master:2 - overlay over\\011lay \
            rw,upperdir=/a\\054b,lowerdir=/x";
        let info = parse_line(line).expect("a mount");
        assert_eq!(info.mount_point, Path::new("/mnt/a b\\c"));
        assert_eq!(info.fs_type, "overlay");
        assert_eq!(info.source, "over\tlay");
        assert_eq!(info.options, "rw,upperdir=/a,b,lowerdir=/x");
        assert_eq!(info.upper.as_deref(), Some(Path::new("/a,b")));
        assert_eq!((&*info.device, &*info.root), ("98:0", Path::new("/")));
    }

    #[test]
    fn what_is_no_line_is_no_mount() {
        for line in [&b""[..], b"36 35 98:0 / /mnt rw", b"- - -", b"\\"] {
            assert_eq!(parse_line(line), None, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn paths_are_spelled_without_links() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let real = temp.path().canonicalize().expect("real");
        std::os::unix::fs::symlink(&real, real.join("again")).expect("link");
        let asked = real.join("again/none");
        assert_eq!(spelled_as_listed(&asked), real.join("none"));
        assert_eq!(spelled_as_listed(&real.join("again")), real.join("again"));
        assert_eq!(spelled_as_listed(Path::new("/")), Path::new("/"));
    }
}
