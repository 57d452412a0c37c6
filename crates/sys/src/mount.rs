//! Mounts by the new API (`fsopen`, `fsconfig`, `move_mount`).
//!
//! `mount(2)` silently cuts overlay's options at one page: of 201 lower directories asked for, 141
//! were mounted, without an error. `fsconfig` takes each lower directory by itself, so neither their
//! number nor commas and colons in their names can cut or split anything.

use std::{
    fs,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

use cairn_types::Mount;
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags,
        UnmountFlags,
    },
};

use crate::{Error, Result, fault};

/// `OVL_MAX_STACK` in the kernel: most lower directories, with or without an upper.
pub const OVERLAY_LOWER_COUNT_MAX: usize = 500;

/// A mount as `/proc/self/mountinfo` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Where.
    pub mount_point: PathBuf,
    /// `overlay`, `ext4`, …
    pub fs_type: String,
    /// What was mounted, as the file system names it.
    pub source: String,
    /// Options of the file system.
    pub options: String,
}

/// Mounts `lowers` (nearest first) at `target`, under an upper and a work directory if given.
///
/// `options` are `key=value` or single words of overlay's. Redirects and metacopy are switched off:
/// kernels built to follow them always would follow one that a layer brought along.
pub fn overlay(
    target: &Path,
    lowers: &[PathBuf],
    upper_work: Option<(&Path, &Path)>,
    read_only: bool,
    options: &[String],
) -> Result<()> {
    let shown = || target.display().to_string();
    fault::gate("fsopen", shown)?;
    if lowers.len() > OVERLAY_LOWER_COUNT_MAX {
        let what = format!(
            "{} with {} lower directories",
            target.display(),
            lowers.len()
        );
        return Err(Error::new("mount overlay", what, Errno::TOOBIG));
    }
    let failed = |op| move |errno| Error::new(op, target.display().to_string(), errno);
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(failed("fsopen overlay"))?;
    rustix::mount::fsconfig_set_string(&context, "source", "overlay")
        .map_err(failed("fsconfig source"))?;
    for lower in lowers {
        set_directory(&context, "lowerdir+", lower)?;
    }
    if let Some((upper, work)) = upper_work {
        set_directory(&context, "upperdir", upper)?;
        set_directory(&context, "workdir", work)?;
    }
    for (key, value) in [("redirect_dir", "nofollow"), ("metacopy", "off")] {
        // A kernel built without the feature does not know the word, and needs no forbidding.
        let _ = rustix::mount::fsconfig_set_string(&context, key, value);
    }
    for option in options {
        let set = match option.split_once('=') {
            Some((key, value)) => rustix::mount::fsconfig_set_string(&context, key, value),
            None => rustix::mount::fsconfig_set_flag(&context, option.as_str()),
        };
        set.map_err(|errno| Error::new("fsconfig", format!("{option} {}", shown()), errno))?;
    }
    fault::gate("fsconfig create", shown)?;
    rustix::mount::fsconfig_create(&context)
        .map_err(|errno| Error::new("mount overlay", said(&context, &shown()), errno))?;
    let mut attributes = MountAttrFlags::empty();
    if read_only {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(failed("fsmount"))?;
    attach(&mount, target)
}

fn set_directory(context: &OwnedFd, key: &str, path: &Path) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |errno| Error::new("fsconfig", format!("{key} {}", path.display()), errno);
    let dir = rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?;
    match rustix::mount::fsconfig_set_fd(context, key, &dir) {
        // Overlay takes descriptors since 6.13; before, a string that is not split anywhere.
        Err(Errno::INVAL) => rustix::mount::fsconfig_set_string(context, key, path).map_err(failed),
        other => other.map_err(failed),
    }
}

/// What the kernel itself said about a refused mount: its messages are read from the context.
fn said(context: &OwnedFd, target: &str) -> String {
    let mut text = target.to_owned();
    let mut buffer = [0_u8; 1024];
    while let Ok(n @ 1..) = rustix::io::read(context, &mut buffer[..]) {
        let message = String::from_utf8_lossy(&buffer[..n]);
        text.push_str(&format!(" ({})", message.trim_end()));
    }
    text
}

fn attach(mount: &OwnedFd, target: &Path) -> Result<()> {
    fault::gate("move_mount", || target.display().to_string())?;
    rustix::mount::move_mount(
        mount,
        "",
        CWD,
        target,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .map_err(|errno| Error::new("move_mount", target.display().to_string(), errno))
}

/// Binds the tree at `source`, with what is mounted below it, to `target`.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> Result<()> {
    let shown = || format!("{} at {}", source.display(), target.display());
    fault::gate("open_tree", shown)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, source, flags)
        .map_err(|errno| Error::new("open_tree", shown(), errno))?;
    attach(&tree, target)?;
    if read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        let made = rustix::mount::mount_remount(target, flags, "");
        if let Err(errno) = made {
            let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
            return Err(Error::new("remount read-only", shown(), errno));
        }
    }
    Ok(())
}

/// Makes one of our own mounts (as the snapshotter hands them out) at `target`.
pub fn perform(mounts: &[Mount], target: &Path) -> Result<()> {
    for mount in mounts {
        let has = |word: &str| mount.options.iter().any(|o| o == word);
        match mount.kind.as_str() {
            "bind" => bind(Path::new(&mount.source), target, has("ro"))?,
            "overlay" => {
                let parsed = Overlay::parse(&mount.options);
                let pair = parsed.upper.as_deref().zip(parsed.work.as_deref());
                let read_only = has("ro");
                overlay(target, &parsed.lowers, pair, read_only, &parsed.rest)?;
            }
            other => {
                let what = format!("{other} at {}", target.display());
                return Err(Error::new("mount", what, Errno::NODEV));
            }
        }
    }
    Ok(())
}

/// An overlay mount's options, taken apart.
#[derive(Default)]
struct Overlay {
    lowers: Vec<PathBuf>,
    upper: Option<PathBuf>,
    work: Option<PathBuf>,
    rest: Vec<String>,
}

impl Overlay {
    fn parse(options: &[String]) -> Overlay {
        let mut parsed = Overlay::default();
        for option in options {
            match option.split_once('=') {
                Some(("lowerdir", value)) => parsed.lowers = split_lowers(value),
                Some(("upperdir", value)) => parsed.upper = Some(unescape(value)),
                Some(("workdir", value)) => parsed.work = Some(unescape(value)),
                _ if matches!(option.as_str(), "ro" | "rw") => {}
                _ => parsed.rest.push(option.clone()),
            }
        }
        parsed
    }
}

/// Overlay's own quoting: a backslash keeps a colon, a comma or a backslash.
fn split_lowers(value: &str) -> Vec<PathBuf> {
    let mut lowers = Vec::new();
    let mut current = String::new();
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => current.extend(characters.next()),
            ':' => lowers.push(PathBuf::from(std::mem::take(&mut current))),
            other => current.push(other),
        }
    }
    lowers.push(PathBuf::from(current));
    lowers
}

fn unescape(value: &str) -> PathBuf {
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    PathBuf::from(text)
}

/// Quotes a directory for an overlay option string, as [`perform`] and the kernel read it.
pub fn escape(path: &Path) -> String {
    let mut text = String::new();
    for c in path.to_string_lossy().chars() {
        if matches!(c, ':' | ',' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// Unmounts `target`, which must not be a link; `EBUSY` when it is in use. Never lazily: a mount that
/// only looks gone would be deleted through.
pub fn unmount(target: &Path) -> Result<()> {
    fault::gate("umount2", || target.display().to_string())?;
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW)
        .map_err(|errno| Error::new("umount2", target.display().to_string(), errno))
}

/// All mounts at or below `path`, deepest last.
pub fn mounts_below(path: &Path) -> Result<Vec<MountInfo>> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = fs::read(TABLE).map_err(|err| Error::of_io("read", TABLE, &err))?;
    let lines = table.split(|&b| b == b'\n');
    Ok(lines
        .filter_map(parse_line)
        .filter(|info| info.mount_point.starts_with(path))
        .collect())
}

/// Whether something is mounted exactly at `path`.
pub fn is_mount_point(path: &Path) -> Result<bool> {
    Ok(mounts_below(path)?
        .iter()
        .any(|info| info.mount_point == path))
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
    Some(MountInfo {
        mount_point: PathBuf::from(std::ffi::OsString::from_vec(octal(fields.get(4)?))),
        fs_type: text(dash + 1),
        source: text(dash + 2),
        options: text(dash + 3),
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

/// Whether this kernel's overlay knows `index`, which then has to be off: with it, an upper directory
/// refuses to be mounted again over other lowers.
pub fn overlay_supports_index_off() -> bool {
    Path::new("/sys/module/overlay/parameters/index").exists()
}
