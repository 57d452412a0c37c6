//! A file system of a given size, in memory behind a loop device: what is full is really full, and a
//! sync waits for nobody else's pages.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use rustix::{io::Errno, mount::UnmountFlags};
use tempfile::TempDir;

/// How often, and after what pause, a mount is found busy before that is believed.
const BUSY_TRIES: usize = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// A mounted file system, ext4 unless another is asked for. Gone, with everything mounted below it, when
/// dropped.
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    /// Makes one of `size` bytes (with `K`, `M`) and mounts it; `options` are for `mkfs.ext4`.
    pub fn new(size: &str, options: &[&str]) -> Disk {
        Disk::of("ext4", size, &[&["-m", "0"][..], options].concat())
    }

    /// The same with a file system of another kind; `options` are for its `mkfs`.
    pub fn of(kind: &str, size: &str, options: &[&str]) -> Disk {
        let dir = TempDir::new().expect("temporary directory");
        let disk = Disk { dir };
        let own = disk.dir.path();
        run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(own));
        // Whoever binds the directories above gets no copy of what is mounted here.
        run(Command::new("mount").arg("--make-private").arg(own));
        let image = own.join("image");
        run(Command::new("truncate").args(["-s", size]).arg(&image));
        run(Command::new(format!("mkfs.{kind}"))
            .arg("-q")
            .args(options)
            .arg(&image));
        fs::create_dir(disk.path()).expect("mount point");
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(disk.path()));
        disk
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    /// Fills it but for so many KiB, with a file in its root.
    pub fn fill(&self, but: u64) {
        let filler = fs::File::create(self.filler()).expect("create");
        let room = rustix::fs::statvfs(self.path()).expect("statvfs");
        let mut length = (room.f_bavail * room.f_frsize).saturating_sub(but * 1024) & !4095;
        // The file's own bookkeeping takes a few blocks of what is left.
        while length > 0 {
            let flags = rustix::fs::FallocateFlags::empty();
            match rustix::fs::fallocate(&filler, flags, 0, length) {
                Ok(()) => break,
                Err(rustix::io::Errno::NOSPC) => length -= 4096,
                Err(err) => panic!("fill the disk: {err}"),
            }
        }
        if but == 0 {
            while filler.write_all_at(&[0; 4096], length).is_ok() {
                length += 4096;
            }
        }
    }

    /// Makes room again.
    pub fn unfill(&self) {
        fs::remove_file(self.filler()).expect("remove");
    }

    /// From now on no block that was never written can be, as on a disk whose spare sectors are used
    /// up: the kernel learns of it when it writes pages out, and every sync fails.
    pub fn fail(&self) {
        let below = rustix::fs::statvfs(self.dir.path()).expect("statvfs");
        let used = (below.f_blocks - below.f_bfree) * below.f_frsize;
        self.below(&format!("remount,size={used}"));
    }

    /// Has the disk mended, and what is on it mounted anew; nobody may use it meanwhile.
    pub fn mend(&self) {
        self.below("remount,size=50%");
        run(Command::new("umount").arg(self.path()));
        let image = self.dir.path().join("image");
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(self.path()));
    }

    /// Changes the memory behind the disk.
    fn below(&self, options: &str) {
        run(Command::new("mount")
            .args(["-o", options])
            .arg(self.dir.path()));
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    /// Mount points below it, the innermost first.
    pub fn mounts(&self) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let own = self.path();
        let mut below: Vec<_> = points
            .map(PathBuf::from)
            .filter(|point| point.starts_with(&own) && *point != own)
            .collect();
        below.reverse();
        below
    }

    /// Unmounts everything below it.
    pub fn unmount_all(&self) {
        for point in self.mounts() {
            run(Command::new("umount").arg(point));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let own = [self.path(), self.dir.path().to_owned()];
        let points = self.mounts().into_iter().chain(own);
        for point in points {
            // The image is in use until the loop device has gone, which is a moment later.
            let _ = unmount(&point);
        }
    }
}

/// A program that another thread has just begun to start still shares the files that were open here,
/// until its own beginning; so "busy" is no last word.
pub(crate) fn unmount(at: &Path) -> Result<(), String> {
    for _ in 0..BUSY_TRIES {
        match rustix::mount::unmount(at, UnmountFlags::empty()) {
            Err(Errno::BUSY) => thread::sleep(BUSY_PAUSE),
            other => return other.map_err(|err| format!("unmount {}: {err}", at.display())),
        }
    }
    Err(format!("{} stays busy", at.display()))
}

/// Runs a program to its good end.
pub(super) fn attempt(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|err| format!("{command:?}: {err}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn run(command: &mut Command) {
    attempt(command).unwrap_or_else(|reason| panic!("{reason}"));
}

/// Copies a whole tree with everything that `cp -a` keeps.
pub(super) fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("-a").arg("--").arg(from).arg(to));
}
