//! File systems, and images of them behind loop devices.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
    time::Duration,
};

use super::Verdict;
// Never lazily: the next state would be disturbed.
pub(super) use crate::fault::unmount;

/// How often, and after what pause, a mount is found busy before that is believed.
const BUSY_TRIES: usize = 200;
const BUSY_PAUSE: Duration = Duration::from_millis(5);
/// How often a mount is tried.
const MOUNT_TRIES: usize = 3;
/// What a program says of it.
const BUSY: &str = "resource busy";

/// A file system as it is made and mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// As Debian makes it.
    Ext4,
    /// One that writes nothing by itself for long, so that all is missing that nobody synced.
    Ext4Lazy,
    /// As Debian makes it, its log as small as may be.
    Xfs,
    /// As Debian makes it.
    Btrfs,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Ext4, Kind::Ext4Lazy, Kind::Xfs, Kind::Btrfs];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Ext4Lazy => "ext4 commit=1000",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    /// The one that is called so.
    pub fn of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn driver(self) -> &'static str {
        match self {
            Kind::Ext4 | Kind::Ext4Lazy => "ext4",
            Kind::Xfs => "xfs",
            Kind::Btrfs => "btrfs",
        }
    }

    /// What it is mounted with. Two images of one recording have one UUID, which xfs minds.
    fn options(self) -> &'static str {
        match self {
            Kind::Ext4 => "rw",
            Kind::Ext4Lazy => "commit=1000",
            Kind::Xfs => "nouuid",
            Kind::Btrfs => "rw",
        }
    }

    /// Makes one in a new file.
    pub(super) fn make(self, file: &Path) -> Verdict {
        // xfs takes no less than 300 MiB, and ext4 has blocks of 1 KiB on small disks.
        let (size, words): (_, &[&str]) = match self {
            Kind::Ext4 | Kind::Ext4Lazy => {
                let lazy = "nodiscard,lazy_itable_init=0,lazy_journal_init=0";
                ("192M", &["-q", "-b", "4096", "-m", "0", "-E", lazy])
            }
            Kind::Xfs => ("300M", &["-q", "-K"]),
            Kind::Btrfs => ("256M", &["-q", "-K"]),
        };
        run(Command::new("truncate").args(["-s", size]).arg(file))?;
        let mut mkfs = Command::new(format!("mkfs.{}", self.driver()));
        run(mkfs.args(words).arg(file)).map(drop)
    }

    /// Mounts a file behind a loop device that goes with the mount, however that ends.
    pub(super) fn mount(self, what: &Path, at: &Path) -> Verdict<Mounted> {
        let turn = self.turn();
        let options = format!("loop,{}", self.options());
        let mut mount = Command::new("mount");
        mount.args(["-t", self.driver(), "-o", &options]);
        mount.arg(what).arg(at);
        // Another program may have taken the loop device that was free.
        let again = (1..MOUNT_TRIES).fold(run(&mut mount), |mounted, _| {
            mounted.or_else(|_| {
                thread::sleep(BUSY_PAUSE);
                run(&mut mount)
            })
        });
        again?;
        let mounted = Mounted {
            at: at.to_owned(),
            _turn: turn,
        };
        is_behind(&mounted.device()?, what)?;
        Ok(mounted)
    }

    /// Kernels before 6.7 mount one btrfs of a UUID at a time.
    fn turn(self) -> Option<MutexGuard<'static, ()>> {
        static TURN: OnceLock<Mutex<()>> = OnceLock::new();
        let alone = self == Kind::Btrfs && !Path::new("/sys/fs/btrfs/features/temp_fsid").exists();
        let lock = TURN.get_or_init(Mutex::default);
        alone.then(|| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A mount, until it is dropped.
pub(super) struct Mounted {
    at: PathBuf,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Mounted {
    /// Takes what its maker mounted there.
    pub(super) fn of(at: &Path) -> Mounted {
        Mounted {
            at: at.to_owned(),
            _turn: None,
        }
    }

    /// The block device below it.
    fn device(&self) -> Verdict<PathBuf> {
        let table = fs::read_to_string("/proc/self/mountinfo").map_err(|err| err.to_string())?;
        let own = self.at.display().to_string();
        let line = table
            .lines()
            .rfind(|line| line.split(' ').nth(4) == Some(&own));
        let source = line.and_then(|line| line.split(" - ").nth(1)?.split(' ').nth(1));
        source
            .map(PathBuf::from)
            .ok_or_else(|| format!("nothing is mounted at {own}"))
    }

    /// Unmounts it.
    pub(super) fn end(self) -> Verdict {
        unmount(&self.at)
    }

    /// Has another program unmount it.
    pub(super) fn end_by(self, mut unmount: impl FnMut() -> Verdict) -> Verdict {
        let busy = |ended: &Verdict| ended.as_ref().is_err_and(|told| told.contains(BUSY));
        let mut ended = unmount();
        for _ in 0..BUSY_TRIES {
            if !busy(&ended) {
                break;
            }
            thread::sleep(BUSY_PAUSE);
            ended = unmount();
        }
        ended
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if is_mounted(&self.at) {
            let _ = unmount(&self.at);
        }
    }
}

fn is_mounted(at: &Path) -> bool {
    let Some(parent) = at.parent() else {
        return true;
    };
    match (fs::metadata(at), fs::metadata(parent)) {
        (Ok(own), Ok(above)) => own.dev() != above.dev(),
        _ => true,
    }
}

/// Whether a loop device is of this file: another program may have been quicker.
fn is_behind(device: &Path, file: &Path) -> Verdict {
    let name = device.file_name().unwrap_or_default();
    let shown = Path::new("/sys/block").join(name).join("loop/backing_file");
    let behind = fs::read_to_string(&shown).map_err(|err| format!("{}: {err}", shown.display()))?;
    match Path::new(behind.trim_end()).file_name() == file.file_name() {
        true => Ok(()),
        false => Err(format!("{} is of {}", device.display(), behind.trim_end())),
    }
}

/// Has a loop device pass the cache of its file by.
pub(super) fn pass_by(mounted: &Mounted) -> Verdict {
    let device = mounted.device()?;
    let mut losetup = Command::new("losetup");
    run(losetup.arg("--direct-io=on").arg(device)).map(drop)
}

/// Runs a program to its good end; what it printed.
pub(super) fn run(command: &mut Command) -> Verdict<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|err| format!("{command:?}: {err}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => {
            let program: OsString = command.get_program().to_owned();
            let words: Vec<_> = command.get_args().collect();
            let said = text(&output.stderr);
            Err(format!("{} {words:?}: {said}", program.display()))
        }
    }
}
