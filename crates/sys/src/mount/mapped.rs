//! Overlays for containers with users of their own: idmapped lower directories.
//!
//! An image's files belong to 0, 1, 2 …, which on the host are other people than in a container that
//! has a user namespace. A mapped mount shows them to be those of the container's users, and changes
//! none. Overlay takes such directories as lower ones since 5.19. The upper one is not mapped: what
//! the container writes is written by the host's numbers, or overlay could not write there itself,
//! since its own user has no number in the container.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use cairn_types::{IdMap, IdRanges, Mount};
use nix::libc;
use rustix::{
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::OpenTreeFlags,
    process::{Pid, WaitOptions},
};

use super::{
    attach, held, options::Overlay, overlay, perform, set_attributes, unmount, unmount_own,
};
use crate::{Error, Result, fault};

/// As [`perform`], for a container with these users and groups. `scratch` is an empty directory that
/// nobody else uses or can enter; something is mounted on it meanwhile.
///
/// Answers `false`, with nothing mounted, when this kernel, or the file system that the layers are on,
/// cannot map owners.
pub fn perform_mapped(
    mounts: &[Mount],
    target: &Path,
    map: &IdMap,
    scratch: &Path,
) -> Result<bool> {
    let overlays = mounts.iter().filter(|mount| mount.kind == "overlay");
    let (mut overlays, only) = (overlays, mounts.len() == 1);
    let Some(mount) = overlays.next().filter(|_| only) else {
        // No lower directory, so nothing of the image's.
        perform(mounts, target)?;
        return Ok(true);
    };
    let parsed = Overlay::parse(&mount.options);
    let Some(base) = common(&parsed.lowers) else {
        return Ok(false);
    };
    match attach_mapped(&base, map, scratch) {
        Err(err) if cannot(&err) => return Ok(false),
        other => other?,
    }
    let mapped = |lower: &PathBuf| match lower.strip_prefix(&base) {
        Ok(below) if !below.as_os_str().is_empty() => scratch.join(below),
        _ => scratch.to_path_buf(),
    };
    let lowers: Vec<PathBuf> = parsed.lowers.iter().map(mapped).collect();
    let pair = parsed.upper.as_deref().zip(parsed.work.as_deref());
    let read_only = mount.options.iter().any(|option| option == "ro");
    let mounted = overlay(target, &lowers, pair, read_only, &parsed.rest);
    // Overlay has clones of its own.
    let gone = unmount_own(scratch);
    match mounted {
        Err(err) if cannot(&err) => gone.map(|()| false),
        Err(err) => Err(err),
        Ok(()) => {
            if gone.is_err() {
                // The first error is the one to report.
                let _ = unmount(target);
            }
            gone.map(|()| true)
        }
    }
}

/// What kernels and file systems say that do not know how.
fn cannot(err: &Error) -> bool {
    [Errno::INVAL, Errno::OPNOTSUPP, Errno::NOSYS, Errno::PERM]
        .iter()
        .any(|errno| err.is(*errno))
}

/// The nearest directory that all are in, or are.
fn common(paths: &[PathBuf]) -> Option<PathBuf> {
    let (first, rest) = paths.split_first()?;
    let holds = |dir: &&Path| rest.iter().all(|path| path.starts_with(dir));
    first.ancestors().find(holds).map(Path::to_path_buf)
}

/// Attaches a mapped clone of the mount that `base` is in, from `base` downwards.
fn attach_mapped(base: &Path, map: &IdMap, scratch: &Path) -> Result<()> {
    let shown = || base.display().to_string();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = || rustix::mount::open_tree(CWD, base, flags);
    let tree = fault::call("open_tree", shown, clone)?;
    let namespace = namespace(map)?;
    let number = namespace.as_raw_fd();
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(number.unsigned_abs()),
    };
    fault::call("mount_setattr", shown, || {
        set_attributes(&tree, &attributes)
    })?;
    attach(&tree, scratch)
}

/// A user namespace with these mappings and nobody in it.
///
/// Only a process can make one. A child does, and lives until its namespace is open here: it waits for
/// the end of a pipe, which comes when this process ends, too.
fn namespace(map: &IdMap) -> Result<OwnedFd> {
    let (waits, ends) = fault::call("pipe2", String::new, held::pipe)?;
    let child = || held::child(libc::CLONE_NEWUSER, waits.as_fd());
    let child = fault::call("clone3", || "a user namespace".to_owned(), child)?;
    let opened = open_mapped(child, map);
    drop(ends);
    let wait = || rustix::process::waitpid(Some(child), WaitOptions::empty());
    fault::call("waitpid", || child.as_raw_nonzero().to_string(), wait)?;
    opened
}

fn open_mapped(child: Pid, map: &IdMap) -> Result<OwnedFd> {
    let number = child.as_raw_nonzero();
    for (name, ranges) in [("uid_map", &map.users), ("gid_map", &map.groups)] {
        let path = format!("/proc/{number}/{name}");
        // In one write, as the kernel wants it.
        fs::write(&path, lines(ranges)).map_err(|err| Error::of_io("write", &*path, &err))?;
    }
    let path = format!("/proc/{number}/ns/user");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let open = || rustix::fs::open(&path, flags, Mode::empty());
    fault::call("open", || path.clone(), open)
}

fn lines(ranges: &IdRanges) -> String {
    let line = |range: &cairn_types::IdRange| {
        format!("{} {} {}\n", range.inside, range.outside, range.count)
    };
    ranges.ranges().iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each would wait for the other's end if it had a copy of it.
    #[test]
    fn many_are_made_at_once() {
        let range = "0:100000:65536".parse().expect("range");
        let ranges = IdRanges::new(vec![range]).expect("ranges");
        let map = IdMap {
            users: ranges.clone(),
            groups: ranges,
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let namespace = namespace(&map).expect("namespace");
                        // Nobody is left in it, so that this is the last that leads to it.
                        let path = format!("/proc/self/fd/{}", namespace.as_raw_fd());
                        let shown = fs::read_link(path).expect("link");
                        assert!(shown.display().to_string().starts_with("user:["));
                    }
                });
            }
        });
    }

    #[test]
    fn the_nearest_directory_of_all() {
        let of = |paths: &[&str]| {
            let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
            common(&paths).map(|path| path.display().to_string())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["/s/1/fs"]).as_deref(), Some("/s/1/fs"));
        assert_eq!(of(&["/s/1/fs", "/s/12/fs"]).as_deref(), Some("/s"));
        assert_eq!(of(&["/s/1/fs", "/s/1"]).as_deref(), Some("/s/1"));
        assert_eq!(of(&["/a", "/b"]).as_deref(), Some("/"));
    }
}
