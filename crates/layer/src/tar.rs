//! Tar, read strictly: every entry as it stands in the stream, or a refusal that names it.
//!
//! What becomes of an entry is the sink's business, a directory today and perhaps an index tomorrow,
//! so nothing here opens a file. Where tar programs disagree about the same bytes, one of them sees
//! a file that the other took for data (CVE-2025-62518), so such archives are refused rather than
//! guessed at. The rules:
//!
//! - v7, ustar, star, GNU and PAX headers; numbers octal or base-256; checksum unsigned or signed.
//! - A PAX `path` *and* a GNU long name for one entry are refused, and so are two extension headers
//!   of one type, and those that no entry follows. Of a key repeated in one PAX header the last
//!   counts. Nothing of one entry is left for the next.
//! - PAX `size` always wins. Links, directories, devices and pipes have no data whatever size their
//!   header names, as POSIX, Go, libarchive and Python have it; GNU tar alone skips some after
//!   symbolic links, devices and pipes. A hard link with a size *and* PAX records is refused, since
//!   libarchive sees data there and the others do not.
//! - A global header is checked and ignored; one that sets a path, a size or a sparse map for all
//!   entries is refused.
//! - Sparse maps of GNU `S`, PAX 0.0, 0.1 and 1.0. Only the stored bytes come out of
//!   [`Reader::data`], in the order of [`Entry::sparse`].
//! - Type `7` is a file; type NUL is a file, or a directory if its path ends in a slash. Volume
//!   labels, continued volumes, directory dumps and unknown types are refused.
//! - Extended attributes come from `SCHILY.xattr.*` and, failing that, `LIBARCHIVE.xattr.*`. What
//!   is not Linux's own form of an attribute goes the same way, so that a sink can count what it
//!   drops: `RHT.security.selinux` as `security.selinux`, `SCHILY.acl.*` under its own name. User
//!   and group names are ignored, ids are what they are: 0 to 2³²−2.
//! - The end is two zero blocks, or one, or none: at the end of a block, or anywhere in what pads the
//!   data of the last entry to one. What follows two zero blocks is counted by [`Reader::finish`], since it belongs to a layer's diff ID, and not read.

mod error;
mod extension;
mod header;
mod input;
mod pax;
mod reader;
mod sparse;

pub use self::{
    error::{Problem, TarError},
    reader::Reader,
};

/// What one archive may ask for. A limit itself is allowed, one more is refused.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of all extension headers of one entry together.
    pub ext_bytes: u64,
    /// Extension headers before one entry, global ones included.
    pub ext_headers: u32,
    /// Bytes of names and values of one entry's extended attributes.
    pub xattr_bytes: u64,
    /// Bytes of a path or link target as written; `PATH_MAX` without its NUL.
    pub path_bytes: usize,
    /// Bytes of a path's component; `NAME_MAX`.
    pub component_bytes: usize,
    /// Components of a path.
    pub depth: usize,
    /// Entries of an archive.
    pub entries: u64,
    /// Regions of one sparse file, empty ones included.
    pub sparse_regions: usize,
    /// Bytes of one file, holes included.
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ext_bytes: 1 << 20,
            ext_headers: 8,
            xattr_bytes: 64 << 10,
            path_bytes: 4095,
            component_bytes: 255,
            depth: 2000,
            entries: 4 << 20,
            sparse_regions: 64 << 10,
            file_bytes: 64 << 30,
        }
    }
}

/// A point in time. `nanos` is below a second and counts forward from `secs`, also before 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since 1970.
    pub secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanos: u32,
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file with data.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link to [`Entry::link`].
    Symlink,
    /// Another name for the entry whose path is [`Entry::link`].
    HardLink,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A part of a sparse file that has data; between segments there are zeros. Never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file, in bytes.
    pub offset: u64,
    /// How many bytes it has.
    pub len: u64,
}

/// One entry, all extension headers applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As written: not empty, without NUL, but not cleaned in any way.
    pub path: Vec<u8>,
    /// The target of a link as written, perhaps empty; empty for everything else.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// The permission bits, within `0o7777`.
    pub mode: u32,
    /// The owner, never 2³²−1, which means "leave it" to the kernel.
    pub uid: u32,
    /// The group, never 2³²−1.
    pub gid: u32,
    /// Modification time.
    pub mtime: Time,
    /// Access time, which few writers record.
    pub atime: Option<Time>,
    /// Extended attributes sorted by name; no name comes twice.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of a regular file, holes included; zero for everything else.
    pub size: u64,
    /// The segments of a sparse file, ascending and apart, within `size`; [`Reader::data`] yields
    /// their bytes one after the other and no others.
    pub sparse: Option<Vec<Segment>>,
    /// Where in the stream its first header begins, in bytes.
    pub offset: u64,
}
