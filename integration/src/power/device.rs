//! A disk that takes down everything it is told: each write and each flush in its order, and between
//! them what the test has to say.
//!
//! It is a file that this process serves by FUSE, below a loop device. A block device has no reason to
//! trust its cache before a flush, so what was written since the last one may be on the disk or not.

use std::{
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::{Verdict, disks, image::Image};

/// What the disk was told, or the test did.
#[derive(Clone, Debug)]
pub(super) enum Record {
    /// Bytes at an offset.
    Write { at: u64, bytes: Vec<u8> },
    /// What was written before is on the disk from here on.
    Flush,
    /// A command begins, by its number.
    Begun(usize),
    /// It was answered.
    Answered(usize),
}

/// A disk, and what it was told since it was made.
pub(super) struct Device {
    shared: Arc<Mutex<Shared>>,
    /// Where it is served; unmounted on drop.
    session: BackgroundSession,
    file: PathBuf,
}

struct Shared {
    now: Image,
    log: Vec<Record>,
}

impl Device {
    /// Serves a disk as a file in the empty directory `dir`.
    pub(super) fn serve(begin: &Image, dir: &Path) -> io::Result<Device> {
        let shared = Arc::new(Mutex::new(Shared {
            now: begin.clone(),
            log: Vec::new(),
        }));
        let disk = Disk {
            shared: Arc::clone(&shared),
            size: begin.size(),
        };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("cairn-power".to_owned())];
        // One thread, so that what is taken down first came first.
        config.n_threads = Some(1);
        let session = fuser::spawn_mount(disk, dir, &config)?;
        Ok(Device {
            shared,
            session,
            file: dir.join(NAME),
        })
    }

    /// The disk.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Takes down what the test does.
    pub(super) fn note(&self, record: Record) {
        lock(&self.shared).log.push(record);
    }

    /// What was taken down until now.
    pub(super) fn taken(&self) -> Vec<Record> {
        std::mem::take(&mut lock(&self.shared).log)
    }

    /// Ends the service. The loop device is gone a moment after what was mounted on it.
    pub(super) fn end(self) -> Verdict {
        let dir = self.file.parent().unwrap_or(&self.file);
        disks::unmount(dir)?;
        drop(self.session);
        Ok(())
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

const NAME: &str = "disk";
const ROOT: INodeNo = INodeNo(1);
const FILE: INodeNo = INodeNo(2);
const TTL: Duration = Duration::from_secs(60);

/// The directory with its one file.
struct Disk {
    shared: Arc<Mutex<Shared>>,
    size: u64,
}

impl Disk {
    fn attr(&self, ino: INodeNo) -> FileAttr {
        let (kind, perm, size) = match ino {
            ROOT => (FileType::Directory, 0o700, 0),
            _ => (FileType::RegularFile, 0o600, self.size),
        };
        FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match parent == ROOT && name == NAME {
            true => reply.entry(&TTL, &self.attr(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&TTL, &self.attr(ino));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = self.size.saturating_sub(offset).min(u64::from(size));
        let mut bytes = vec![0; usize::try_from(left).expect("below 4 GiB")];
        lock(&self.shared).now.fill(offset, &mut bytes);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut shared = lock(&self.shared);
        shared.now.write(offset, data);
        shared.log.push(Record::Write {
            at: offset,
            bytes: data.to_vec(),
        });
        drop(shared);
        reply.written(u32::try_from(data.len()).expect("of one request"));
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.shared).log.push(Record::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        _: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        // A disk need not know how to discard.
        reply.error(Errno::EOPNOTSUPP);
    }
}
