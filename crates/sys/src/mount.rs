//! Mounts by the new API (`fsopen`, `fsconfig`, `move_mount`).
//!
//! `mount(2)` silently cuts overlay's options at one page: of 201 lower directories asked for, 141
//! were mounted, without an error. `fsconfig` takes each lower directory by itself, so neither their
//! number nor commas and colons in their names can cut or split anything.

mod behind;
mod by_string;
mod held;
mod holders;
mod mapped;
mod options;
mod table;
mod users;

use std::{
    fs,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cairn_types::Mount;
use nix::libc;
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::{self, Errno},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    },
};

use crate::{Error, Result, fault};
pub use behind::unmount_behind;
pub use holders::{Holder, holder};
pub use mapped::perform_mapped;
use options::Overlay;
pub use options::escape;
pub use table::{MountInfo, is_mount_point, mounts_below};
pub use users::{MountTables, Users, users};

/// `OVL_MAX_STACK` in the kernel: most lower directories, with or without an upper.
pub const OVERLAY_LOWER_COUNT_MAX: usize = 500;

/// Where the kernel says which features its overlay has.
const PARAMETERS: &str = "/sys/module/overlay/parameters";

/// Features that are always switched off unless the caller's options switch them on. A kernel built
/// to follow redirects always would follow one that a layer brought along; with an index, an upper
/// directory refuses to be mounted again over other lowers.
const SWITCHED_OFF: [(&str, &str); 4] = [
    ("redirect_dir", "nofollow"),
    ("metacopy", "off"),
    ("index", "off"),
    ("nfs_export", "off"),
];

/// Mounts `lowers` (nearest first) at `target`, under an upper and a work directory if given.
///
/// `options` are `key=value` or single words of overlay's, `nosuid` and `nodev`. More lower directories than
/// [`OVERLAY_LOWER_COUNT_MAX`] are `E2BIG`, before anything is mounted.
pub fn overlay(
    target: &Path,
    lowers: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    read_only: bool,
    options: &[String],
) -> Result<()> {
    if lowers.len() > OVERLAY_LOWER_COUNT_MAX {
        return Err(too_long(target, lowers.len()));
    }
    let (attributes, options) = options::attributes(options, read_only);
    if !takes_one_lower_at_a_time() {
        return by_string::overlay(target, lowers, upper_work, attributes, &options);
    }
    let context = Context::open(target)?;
    context.set("source", "overlay")?;
    for lower in lowers {
        context.set_directory("lowerdir+", lower)?;
    }
    if let Some((upper, work)) = upper_work {
        context.set_directory("upperdir", upper)?;
        context.set_directory("workdir", work)?;
    }
    for (key, value) in SWITCHED_OFF {
        // A kernel built without the feature does not know the word, and needs no forbidding.
        match context.set(key, value) {
            Err(err) if err.is(Errno::INVAL) && !knows(key) => {}
            other => other?,
        }
    }
    for option in &options {
        match option.split_once('=') {
            Some((key, value)) => context.set(key, value)?,
            None => context.set_word(option)?,
        }
    }
    attach(&context.create(attributes)?, target)
}

/// A file system that is being described to the kernel.
struct Context<'t> {
    fd: OwnedFd,
    target: &'t Path,
}

impl Context<'_> {
    fn open(target: &Path) -> Result<Context<'_>> {
        let open = || rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
        let fd = fault::call("fsopen overlay", || target.display().to_string(), open)?;
        Ok(Context { fd, target })
    }

    fn set(&self, key: &str, value: &str) -> Result<()> {
        let set = || rustix::mount::fsconfig_set_string(&self.fd, key, value);
        self.call("fsconfig", &format!("{key}={value}"), set)
    }

    fn set_word(&self, word: &str) -> Result<()> {
        let set = || rustix::mount::fsconfig_set_flag(&self.fd, word);
        self.call("fsconfig", word, set)
    }

    /// Overlay takes descriptors since 6.13. Before, it takes a string, which is not split anywhere
    /// but has at most 255 bytes; the descriptor's name in `/proc` is shorter than that.
    fn set_directory(&self, key: &str, path: &Path) -> Result<()> {
        let what = format!("{key}={}", path.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || rustix::fs::open(path, flags, Mode::empty());
        let dir = fault::call("open", || path.display().to_string(), open)?;
        let set = || match rustix::mount::fsconfig_set_fd(&self.fd, key, &dir) {
            Err(Errno::INVAL) => {
                let number = format!("/proc/self/fd/{}", dir.as_raw_fd());
                rustix::mount::fsconfig_set_string(&self.fd, key, number.as_str())
            }
            other => other,
        };
        self.call("fsconfig", &what, set)
    }

    /// Makes the file system, mounted nowhere yet.
    fn create(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        let create = || rustix::mount::fsconfig_create(&self.fd);
        self.call("mount overlay", "", create)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let make = || rustix::mount::fsmount(&self.fd, flags, attributes);
        self.call("fsmount", "", make)
    }

    fn call<T>(
        &self,
        op: &'static str,
        what: &str,
        make: impl FnMut() -> io::Result<T>,
    ) -> Result<T> {
        let gap = if what.is_empty() { "" } else { " for " };
        let object = || format!("{what}{gap}{}{}", self.target.display(), self.said());
        fault::call(op, object, make)
    }

    /// What the kernel itself said about a refusal: its messages are read from the context.
    fn said(&self) -> String {
        let mut text = String::new();
        let mut buffer = [0_u8; 1024];
        while let Ok(n @ 1..) = io::read(&self.fd, &mut buffer[..]) {
            let message = String::from_utf8_lossy(&buffer[..n]);
            text.push_str(&format!(" ({})", message.trim_end()));
        }
        text
    }
}

fn too_long(target: &Path, lowers: usize) -> Error {
    let what = format!("{} with {lowers} lower directories", target.display());
    Error::new("mount overlay", what, Errno::TOOBIG)
}

/// `lowerdir+` came with 6.7; the API that takes it can be there without it.
fn takes_one_lower_at_a_time() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= (6, 7)
}

fn attach(mount: &OwnedFd, target: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    let attach = || rustix::mount::move_mount(mount, "", CWD, target, flags);
    fault::call("move_mount", || target.display().to_string(), attach)
}

/// Binds the tree at `source`, with what is mounted below it, to `target`. A read-only one is so from
/// the start, and so is all that is mounted below it.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    bind_with(source, target, options::attributes(&[], read_only).0)
}

fn bind_with(source: &Path, target: &Path, attributes: MountAttrFlags) -> Result<()> {
    let shown = || format!("{} at {}", source.display(), target.display());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let clone = || rustix::mount::open_tree(CWD, source, flags);
    let tree = fault::call("open_tree", shown, clone)?;
    if !attributes.is_empty() {
        let attributes = libc::mount_attr {
            attr_set: u64::from(attributes.bits()),
            attr_clr: 0,
            propagation: 0,
            userns_fd: 0,
        };
        fault::call("mount_setattr", shown, || {
            set_attributes(&tree, &attributes)
        })?;
    }
    attach(&tree, target)
}

/// Sets attributes on a tree of mounts, all of it; neither rustix nor nix has this call.
fn set_attributes(tree: &OwnedFd, attributes: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: the path is an empty C string and `attributes` a whole `mount_attr` of the size that is
    // passed; both outlive the call, which only reads them. The descriptor is borrowed and open.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_RECURSIVE,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    match nix::errno::Errno::result(answer) {
        Ok(_) => Ok(()),
        Err(errno) => Err(Errno::from_raw_os_error(errno as i32)),
    }
}

/// Makes mounts of ours (as the snapshotter hands them out) at `target`, one over the other: all of
/// them or none.
pub fn perform(mounts: &[Mount], target: &Path) -> Result<()> {
    for (made, mount) in mounts.iter().enumerate() {
        if let Err(err) = perform_one(mount, target) {
            for _ in 0..made {
                // The first error is the one to report; what cannot be undone shows in the table.
                let _ = unmount(target);
            }
            return Err(err);
        }
    }
    Ok(())
}

fn perform_one(mount: &Mount, target: &Path) -> Result<()> {
    let refused = |errno| {
        let what = format!("{} at {}", mount.kind, target.join(&mount.target).display());
        Err(Error::new("mount", what, errno))
    };
    // Ours have none, and a path from elsewhere is not joined to a target.
    if !mount.target.is_empty() {
        return refused(Errno::INVAL);
    }
    let read_only = mount.options.iter().any(|option| option == "ro");
    match mount.kind.as_str() {
        "bind" => {
            let (attributes, _) = options::attributes(&mount.options, read_only);
            bind_with(Path::new(&mount.source), target, attributes)
        }
        "overlay" => {
            let parsed = Overlay::parse(&mount.options);
            let pair = parsed.upper.as_deref().zip(parsed.work.as_deref());
            if pair.is_none() && parsed.upper.is_some() {
                // Without a work directory the upper one would be left out, and writes be lost.
                return refused(Errno::INVAL);
            }
            overlay(target, &parsed.lowers, pair, read_only, &parsed.rest)
        }
        _ => refused(Errno::NODEV),
    }
}

/// Unmounts `target`, which must not be a link; `EBUSY` when it is in use. Never lazily: a mount that
/// only looks gone would be deleted through.
pub fn unmount(target: &Path) -> Result<()> {
    let unmount = || rustix::mount::unmount(target, UnmountFlags::NOFOLLOW);
    fault::call("umount2", || target.display().to_string(), unmount)
}

/// How long [`unmount_own`] waits.
const BRIEFLY: Duration = Duration::from_secs(2);

/// As [`unmount`], for what was only mounted for a moment and nobody was told of: whatever holds it lets
/// go by itself. That is a child of this process, which has all descriptors until it comes to its
/// `exec`, or a mount namespace that is being made, with a copy in it.
///
/// # Errors
/// `EBUSY` when it is still held after two seconds.
pub fn unmount_own(target: &Path) -> Result<()> {
    let began = Instant::now();
    loop {
        match unmount(target) {
            Err(err) if err.is(Errno::BUSY) && began.elapsed() < BRIEFLY => {
                std::thread::sleep(Duration::from_millis(2));
            }
            other => return other,
        }
    }
}

/// Whether this host has the unified cgroup hierarchy (`cgroups(7)`) alone.
pub fn is_cgroup2() -> bool {
    const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;
    // The type of the field differs by processor.
    #[allow(clippy::useless_conversion)]
    let magic = rustix::fs::statfs("/sys/fs/cgroup").map(|fs| i64::from(fs.f_type));
    magic.is_ok_and(|magic| magic == CGROUP2_SUPER_MAGIC)
}

/// Whether this kernel's overlay knows `index`, which then has to be off in the options that are
/// handed to others: with it, an upper directory refuses to be mounted again over other lowers.
pub fn overlay_supports_index_off() -> bool {
    knows("index")
}

fn knows(feature: &str) -> bool {
    Path::new(PARAMETERS).join(feature).exists()
}
