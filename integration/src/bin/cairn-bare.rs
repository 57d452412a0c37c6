//! The least that storing and unpacking layers takes: read, copy, hash, inflate, hash, write files. What
//! `cairn images import` is measured by; nothing of Cairn's is in it, no record, no promise.
//!
//! ```text
//! cairn-bare DIR LAYER…
//! ```
//!
//! Layers are gzip; as many are under way at once as there are cores.
#![allow(clippy::print_stderr, reason = "a command")]

use std::{
    collections::BTreeMap,
    error::Error,
    fs::{self, File},
    io::{self, BufReader, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    thread,
};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use sha2::{Digest, Sha256};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

const BUFFER_BYTES: usize = 256 << 10;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let dir = arguments.next().unwrap_or_default();
    let queue: Mutex<Vec<(usize, PathBuf)>> = Mutex::new(arguments.enumerate().collect());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let work = || -> Outcome {
        loop {
            let next = queue.lock().ok().and_then(|mut queue| queue.pop());
            let Some((number, layer)) = next else {
                return Ok(());
            };
            unpack(&layer, &dir, number)?;
        }
    };
    let done = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err("a thread broke".into()))
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            eprintln!("error: {err}");
            ExitCode::FAILURE
        }
    }
}

/// Hashes what is read, and copies it where there is a file.
struct Tee<R> {
    inner: R,
    hash: Sha256,
    copy: Option<File>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..read])?;
        }
        Ok(read)
    }
}

impl<R> Tee<R> {
    fn new(inner: R, copy: Option<File>) -> Tee<R> {
        let hash = Sha256::new();
        Tee { inner, hash, copy }
    }
}

fn unpack(layer: &Path, dir: &Path, number: usize) -> Outcome {
    let root = dir.join(format!("tree-{number}"));
    fs::create_dir(&root)?;
    let root = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let blob = File::create(dir.join(format!("blob-{number}")))?;
    let packed = BufReader::with_capacity(BUFFER_BYTES, Tee::new(File::open(layer)?, Some(blob)));
    let plain = Tee::new(flate2::bufread::MultiGzDecoder::new(packed), None);
    let mut archive = tar::Archive::new(BufReader::with_capacity(BUFFER_BYTES, plain));
    let (mut directories, mut buffer) = (BTreeMap::new(), vec![0; BUFFER_BYTES]);
    for entry in archive.entries()? {
        let mut entry = entry?;
        write(&root, &mut entry, &mut directories, &mut buffer)?;
    }
    for (path, times) in &directories {
        rustix::fs::utimensat(&root, path, times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    let plain = rest.into_inner();
    let names = [
        plain.hash.finalize(),
        plain.inner.into_inner().into_inner().hash.finalize(),
    ];
    fs::write(
        dir.join(format!("digests-{number}")),
        format!("{names:x?}\n"),
    )?;
    Ok(())
}

fn write<R: Read>(
    root: &OwnedFd,
    entry: &mut tar::Entry<'_, R>,
    directories: &mut BTreeMap<PathBuf, Timestamps>,
    buffer: &mut [u8],
) -> Outcome {
    let path = entry.path()?.into_owned();
    let header = entry.header();
    let (mode, kind) = (Mode::from_raw_mode(header.mode()?), header.entry_type());
    let (uid, gid) = (u32::try_from(header.uid()?)?, u32::try_from(header.gid()?)?);
    let at = Timespec {
        tv_sec: i64::try_from(header.mtime()?)?,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: at,
        last_modification: at,
    };
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !directories.contains_key(*parent)) {
        parents(root, parent)?;
    }
    let link = entry.link_name()?.map(|link| link.into_owned());
    let own = |path: &Path| {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(root, path, owner(uid), group(gid), flags)
    };
    match (kind, link) {
        (tar::EntryType::Directory, _) => {
            parents(root, &path)?;
            if path.as_os_str() != "." && path.as_os_str() != "./" {
                own(&path)?;
                rustix::fs::chmodat(root, &path, mode, AtFlags::empty())?;
                directories.insert(path, times);
            }
        }
        (tar::EntryType::Symlink, Some(link)) => {
            rustix::fs::symlinkat(link, root, &path)?;
            own(&path)?;
            rustix::fs::utimensat(root, &path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        (tar::EntryType::Link, Some(link)) => {
            rustix::fs::linkat(root, link, root, &path, AtFlags::empty())?;
        }
        (kind, _) if kind.is_file() => {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = rustix::fs::openat(root, &path, flags, Mode::RUSR | Mode::WUSR)?;
            content(entry, file.as_fd(), buffer)?;
            rustix::fs::fchown(&file, owner(uid), group(gid))?;
            rustix::fs::fchmod(&file, mode)?;
            rustix::fs::futimens(&file, &times)?;
        }
        (tar::EntryType::Char, _) => {
            let number = rustix::fs::makedev(
                header_number(entry.header().device_major()?),
                header_number(entry.header().device_minor()?),
            );
            rustix::fs::mknodat(root, &path, FileType::CharacterDevice, mode, number)?;
        }
        (kind, _) => return Err(format!("{}: an entry of kind {kind:?}", path.display()).into()),
    }
    Ok(())
}

fn header_number(number: Option<u32>) -> u32 {
    number.unwrap_or(0)
}

fn owner(uid: u32) -> Option<Uid> {
    Some(Uid::from_raw(uid))
}

fn group(gid: u32) -> Option<Gid> {
    Some(Gid::from_raw(gid))
}

fn content(from: &mut impl Read, to: BorrowedFd<'_>, buffer: &mut [u8]) -> Outcome {
    loop {
        let read = from.read(buffer)?;
        if read == 0 {
            return Ok(());
        }
        let mut rest = &buffer[..read];
        while !rest.is_empty() {
            rest = &rest[rustix::io::write(to, rest)?..];
        }
    }
}

/// Makes a directory with those above it, where they are not there.
fn parents(root: &OwnedFd, path: &Path) -> Outcome {
    let mode = Mode::from_raw_mode(0o755);
    match rustix::fs::mkdirat(root, path, mode) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(rustix::io::Errno::NOENT) => {
            parents(root, path.parent().ok_or("no parent")?)?;
            parents(root, path)
        }
        Err(err) => Err(format!("{}: {err}", path.display()).into()),
    }
}
