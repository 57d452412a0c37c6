//! System calls on descriptors, each counted and named: the path that every file of a layer takes.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::IoSliceMut,
    num::NonZeroU64,
    ops::Range,
    os::{
        fd::{AsFd, AsRawFd},
        unix::ffi::OsStringExt,
    },
};

use nix::libc;
use rustix::{
    fs::{Advice, FallocateFlags, Gid, Mode, SeekFrom, Timespec, Timestamps, Uid, XattrFlags},
    io::{Errno, ReadWriteFlags},
};

use crate::{Error, Result, fault};

/// Read at once of a file that is read through.
const PIECE_BYTES: usize = 256 << 10;

/// `RWF_DONTCACHE` of preadv2(2), since Linux 6.14; rustix has no name for it.
const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// What reading leaves in the memory that the kernel has for files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Caching {
    /// What was read, in the place of what nobody has used for longest.
    #[default]
    Kept,
    /// What was there before. For whoever reads everything and nothing twice.
    Aside,
}

/// A descriptor as `strace -y` shows it, `7</var/lib/cairn/…>`: whoever reads the error looks for the
/// file. Costs a system call, which only a failure pays for.
pub(crate) fn shown(fd: impl AsFd) -> String {
    let number = fd.as_fd().as_raw_fd();
    match rustix::fs::readlink(format!("/proc/self/fd/{number}"), Vec::new()) {
        Ok(path) => format!("{number}<{}>", path.as_bytes().escape_ascii()),
        Err(_) => number.to_string(),
    }
}

/// Changes the owner.
pub fn fchown(fd: impl AsFd, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fault::call(
        "fchown",
        || shown(&fd),
        || rustix::fs::fchown(&fd, uid, gid),
    )
}

/// Changes the mode, setuid and sticky bits included.
pub fn fchmod(fd: impl AsFd, mode: u32) -> Result<()> {
    let mode = Mode::from_raw_mode(mode);
    fault::call("fchmod", || shown(&fd), || rustix::fs::fchmod(&fd, mode))
}

/// Sets the times.
pub fn futimens(fd: impl AsFd, accessed: Timespec, modified: Timespec) -> Result<()> {
    let times = Timestamps {
        last_access: accessed,
        last_modification: modified,
    };
    fault::call(
        "futimens",
        || shown(&fd),
        || rustix::fs::futimens(&fd, &times),
    )
}

/// Has the kernel begin to write what is yet to be written of a file, and waits for nothing. What goes wrong
/// with it the next sync tells.
pub fn begin_write(file: &File) -> Result<()> {
    let begin = || {
        // SAFETY: it takes a descriptor, which is open as long as `file` is, and numbers.
        let answer =
            unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
        nix::errno::Errno::result(answer)
            .map(drop)
            .map_err(|errno| Errno::from_raw_os_error(errno as i32))
    };
    fault::call("sync_file_range", || shown(file), begin)
}

/// Sets the length; what lies between old and new end is a hole.
pub fn ftruncate(fd: impl AsFd, length: u64) -> Result<()> {
    fault::call(
        "ftruncate",
        || shown(&fd),
        || rustix::fs::ftruncate(&fd, length),
    )
}

/// Takes room on the disk for the first `length` bytes, without writing any.
pub fn allocate(file: &File, length: u64) -> Result<()> {
    let flags = FallocateFlags::empty();
    let take = || rustix::fs::fallocate(file, flags, 0, length);
    fault::call("fallocate", || shown(file), take)
}

/// Gives `to` all bytes of `from` without copying any: they share blocks until one of them is written to,
/// which the other does not see (ioctl_ficlone(2)). Both have to be on one file system, and of one that
/// can; most cannot. After an error some of the bytes may be there.
pub fn clone_file(to: &File, from: &File) -> Result<()> {
    let clone = || rustix::fs::ioctl_ficlone(to, from);
    fault::call("ficlone", || shown(to), clone)
}

/// Writes all bytes at the file's position.
pub fn write_all(file: &File, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let written = fault::write(
            "write",
            || shown(file),
            bytes,
            |b| rustix::io::write(file, b),
        )?;
        bytes = rest("write", file, bytes, written)?;
    }
    Ok(())
}

/// Writes all bytes at `offset`.
pub fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    while !bytes.is_empty() {
        let pwrite = |b: &[u8]| rustix::io::pwrite(file, b, offset);
        let written = fault::write("pwrite", || shown(file), bytes, pwrite)?;
        bytes = rest("pwrite", file, bytes, written)?;
        offset += written as u64;
    }
    Ok(())
}

/// What is left after a write. One that takes nothing and names no reason would be tried for ever.
fn rest<'b>(op: &'static str, file: &File, bytes: &'b [u8], written: usize) -> Result<&'b [u8]> {
    match bytes.get(written..) {
        Some(rest) if written > 0 => Ok(rest),
        _ => Err(Error::new(op, shown(file), Errno::IO)),
    }
}

/// Reads `length` bytes at `offset`, or as many as there are.
pub fn read_at(file: &File, length: usize, offset: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let pread = || rustix::io::pread(file, &mut bytes[filled..], offset + filled as u64);
        match fault::call("pread", || shown(file), pread)? {
            0 => break,
            n => filled += n,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// What is known of an open file.
pub fn stat(file: &File) -> Result<rustix::fs::Stat> {
    fault::call("fstat", || shown(file), || rustix::fs::fstat(file))
}

/// How many bytes a file has.
pub fn length(file: &File) -> Result<u64> {
    Ok(u64::try_from(stat(file)?.st_size).unwrap_or(0))
}

/// The number of a file on its file system.
pub fn inode(file: &File) -> Result<u64> {
    Ok(stat(file)?.st_ino)
}

/// Reads at most `limit` bytes from the file's position to its end; more are `EFBIG`.
pub fn read_to_end(file: &File, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = fault::call(
            "read",
            || shown(file),
            || rustix::io::read(file, &mut buffer[..]),
        )?;
        if n == 0 {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&buffer[..n]);
        if bytes.len() as u64 > limit {
            return Err(Error::new("read", shown(file), Errno::FBIG));
        }
    }
}

/// Reads at `offset` what the kernel has in memory (preadv2(2), `RWF_NOWAIT`). `None` when it would have
/// to wait for the disk, or the file system cannot say.
pub fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> Result<Option<usize>> {
    let read = || {
        let buffers = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(file, buffers, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            // The first two are of kernels and sandboxes that do not know the flag, or the call.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno),
        }
    };
    fault::call("preadv2", || shown(file), read)
}

/// Reads once at `offset`: as many bytes as come, none at the end.
pub fn read_once(file: &File, buffer: &mut [u8], offset: u64, caching: Caching) -> Result<usize> {
    match caching {
        Caching::Kept => pread(file, buffer, offset),
        Caching::Aside => read_aside(file, buffer, offset),
    }
}

fn pread(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let pread = || rustix::io::pread(file, &mut *buffer, offset);
    fault::call("pread", || shown(file), pread)
}

fn read_aside(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let aside = || {
        let buffers = &mut [IoSliceMut::new(buffer)];
        match rustix::io::preadv2(file, buffers, offset, DONTCACHE) {
            Ok(read) => Ok(Some(read)),
            // Of kernels, sandboxes and file systems that do not know it.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno),
        }
    };
    match fault::call("preadv2", || shown(file), aside)? {
        Some(read) => Ok(read),
        None => read_and_drop(file, buffer, offset),
    }
}

/// What is in memory from `offset` on is there for somebody else, and stays. Else all that is read is dropped,
/// also what was in memory behind the first page that was not.
fn read_and_drop(file: &File, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let advise = |from, bytes, advice| {
        let advise = || rustix::fs::fadvise(file, from, bytes, advice);
        let _ = fault::call("fadvise", || shown(file), advise);
    };
    // Also a look at what is in memory has the kernel read ahead, and the next look would take that for somebody
    // else's.
    advise(0, None, Advice::Random);
    if let Some(read) = read_cached(file, buffer, offset)? {
        return Ok(read);
    }
    let read = pread(file, buffer, offset)?;
    // No length is all of the file.
    if let Some(bytes) = NonZeroU64::new(read as u64) {
        advise(offset, Some(bytes), Advice::DontNeed);
    }
    Ok(read)
}

/// Gives `take` a file's bytes from the begin of `range` on, in pieces, up to its end or the file's, or until
/// that says `false`.
pub fn read_through(
    file: &File,
    range: Range<u64>,
    caching: Caching,
    mut take: impl FnMut(&[u8]) -> bool,
) -> Result<()> {
    // Most files are small, and to clear so much would take longer than the reading.
    let bytes = length(file)?.min(range.end).saturating_sub(range.start);
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut buffer = vec![0; bytes.clamp(1, PIECE_BYTES)];
    let mut offset = range.start;
    while offset < range.end {
        let left = usize::try_from(range.end - offset).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        let got = read_once(file, &mut buffer[..most], offset, caching)?;
        if got == 0 || !take(&buffer[..got]) {
            break;
        }
        offset += got as u64;
    }
    Ok(())
}

/// Tells that a file will be read from its beginning to its end, so that the kernel reads further ahead. What it
/// answers matters to nobody.
pub fn read_in_order(file: &File) {
    let advise = || rustix::fs::fadvise(file, 0, None, Advice::Sequential);
    let _ = fault::call("fadvise", || shown(file), advise);
}

/// Where a file's next data is at or behind `offset`: its start and its end, holes left out. `None` when
/// there is none. Moves the file's position.
pub fn next_data(file: &File, offset: u64) -> Result<Option<(u64, u64)>> {
    let seek = |to| fault::call("lseek", || shown(file), || rustix::fs::seek(file, to));
    let start = match seek(SeekFrom::Data(offset)) {
        Ok(start) => start,
        // At the end, or nothing but a hole up to it.
        Err(err) if err.is(Errno::NXIO) => return Ok(None),
        Err(err) => return Err(err),
    };
    Ok(Some((start, seek(SeekFrom::Hole(start))?)))
}

/// Sets an extended attribute.
pub fn fsetxattr(fd: impl AsFd, name: &OsStr, value: &[u8]) -> Result<()> {
    let set = || rustix::fs::fsetxattr(&fd, name, value, XattrFlags::empty());
    fault::call("fsetxattr", || attribute(&fd, name), set)
}

/// Reads an extended attribute; `None` when it is not there or the file system has none.
pub fn fgetxattr(fd: impl AsFd, name: &OsStr) -> Result<Option<Vec<u8>>> {
    // Told apart inside the call: most files lack it, and an error's words cost more than the answer.
    let get = || match grow(|buffer| rustix::fs::fgetxattr(&fd, name, buffer)) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    };
    fault::call("fgetxattr", || attribute(&fd, name), get)
}

/// The names of all extended attributes.
pub fn flistxattr(fd: impl AsFd) -> Result<Vec<OsString>> {
    let list = || grow(|buffer| rustix::fs::flistxattr(&fd, buffer));
    match fault::call("flistxattr", || shown(&fd), list) {
        Ok(list) => Ok(names(&list)),
        Err(err) if err.is(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(err) => Err(err),
    }
}

fn attribute(fd: impl AsFd, name: &OsStr) -> String {
    format!("{} {}", shown(fd), name.as_encoded_bytes().escape_ascii())
}

/// Splits the kernel's NUL-ended list of names.
pub(crate) fn names(list: &[u8]) -> Vec<OsString> {
    list.split(|&b| b == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_vec()))
        .collect()
}

/// Calls with a larger buffer until the answer fits; an attribute has at most 64 KiB.
pub(crate) fn grow(
    call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    let mut size = 256;
    loop {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if size < 1 << 20 => size *= 8,
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;

    /// How many pages of a file are in memory. To look by reading would have them read.
    fn pages(path: &Path) -> u64 {
        let mut fincore = Command::new("fincore");
        fincore.args(["--raw", "--noheadings", "--output", "PAGES"]);
        let output = fincore.arg(path).output().expect("fincore");
        let text = String::from_utf8(output.stdout).expect("text");
        text.trim().parse().expect("a number")
    }

    /// In whichever way the kernel can do it, the memory is as it was.
    #[test]
    fn what_is_read_aside_does_not_stay() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("f");
        let bytes: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
        fs::write(&path, &bytes).expect("write");
        let file = File::open(&path).expect("open");
        file.sync_all().expect("sync");
        rustix::fs::fadvise(&file, 0, None, Advice::DontNeed).expect("advise");
        if pages(&path) != 0 {
            return; // Files of a tmpfs are nowhere else.
        }
        let mut read = Vec::new();
        let done = read_through(&file, 0..u64::MAX, Caching::Aside, |piece| {
            read.extend_from_slice(piece);
            true
        });
        done.expect("read");
        assert!(read == bytes);
        assert_eq!(pages(&path), 0);
        let mut buffer = vec![0; PIECE_BYTES];
        let mut offset = 0;
        while let got @ 1.. = read_and_drop(&file, &mut buffer, offset).expect("read") {
            let from = usize::try_from(offset).expect("small");
            assert!(buffer[..got] == bytes[from..from + got]);
            offset += got as u64;
        }
        assert_eq!(offset, bytes.len() as u64);
        assert_eq!(pages(&path), 0);
        // What somebody else has read stays.
        let done = read_through(&file, 0..u64::MAX, Caching::Kept, |_| true);
        done.expect("read");
        let all = pages(&path);
        assert!(all > 0);
        for _ in 0..2 {
            let done = read_through(&file, 0..u64::MAX, Caching::Aside, |_| true);
            done.expect("read");
            read_and_drop(&file, &mut buffer, 0).expect("read");
            assert_eq!(pages(&path), all);
        }
    }
}
