//! Unmounting without waiting for what others wrote.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{fs::CWD, mount::OpenTreeFlags};

use super::{held, unmount};
use crate::{Result, fault, is_crowded};

/// As [`unmount`], for a writable overlay of which nothing is to be kept: without waiting for its file system.
///
/// With the last mount of an overlay the kernel syncs the file system of its upper directory, whatever
/// others have written there (`ovl_sync_fs` in Linux `fs/overlayfs/super.c`): beside somebody's backup
/// that is minutes. Another mount of it, attached nowhere, is left with a process of its own, which
/// ends as soon as the one at `target` is gone and does the waiting. Where there is much to write it ends later,
/// when the kernel has begun to write by itself: a sync at once would take disk and processors from whoever
/// comes next.
///
/// # Errors
/// Those of [`unmount`]: `EBUSY` when it is in use.
pub fn unmount_behind(target: &Path) -> Result<()> {
    let kept = keep(target);
    unmount(target)?;
    // Its own descriptor first, the pipe's end last: whoever is the last to let go waits.
    if let Ok((mount, end)) = kept {
        drop(mount);
        drop(end);
    }
    Ok(())
}

/// Another mount of what is mounted at `target`, held here and by a process that lets go of it when the
/// pipe's end is closed. What has none of it is unmounted as well, and waited for.
fn keep(target: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let shown = || target.display().to_string();
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = || rustix::mount::open_tree(CWD, target, flags);
    let mount = fault::call("open_tree", shown, clone)?;
    let (waits, end) = fault::call("pipe2", String::new, held::pipe)?;
    let later = later(mount.as_fd());
    let holder = || held::orphan(waits.as_fd(), mount.as_fd(), later);
    fault::call("clone3", || "a holder of a mount".to_owned(), holder)?;
    Ok((mount, end))
}

/// With less than this free, room is worth more than time.
const SCARCE_BYTES: u64 = 1 << 30;

/// Whether a mount should be held for a while (`held`). As long as it is, the bytes of files that were opened there
/// stay, though they have no name any more: so a quarter of the file system has to be free.
fn later(mount: BorrowedFd<'_>) -> bool {
    let has_room = rustix::fs::fstatvfs(mount).is_ok_and(|stat| {
        stat.f_bavail * stat.f_frsize >= SCARCE_BYTES && stat.f_bavail >= stat.f_blocks / 4
    });
    has_room && is_crowded(0)
}
