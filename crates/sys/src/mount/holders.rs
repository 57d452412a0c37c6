//! Whose root a file system is.
//!
//! A container has a copy of its root's mount in its own mount namespace. Unmounting it here succeeds
//! and leaves the container with files whose directories are then deleted under it; so one has to ask
//! first. Only `/proc` knows: each process's `mountinfo`, once per namespace.
//!
//! Copies that are mounted elsewhere than at `/` do not count: every namespace begins as a copy of
//! another with all that is mounted there, so services that know nothing of containers have them.

use std::{collections::HashSet, fs, path::Path};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::{Result, fault};

/// A process in another mount namespace whose root is the file system that is mounted at
/// `mount_point` here; `None` when there is none.
pub fn root_of(mount_point: &Path) -> Result<Option<i32>> {
    let ask = || {
        rustix::fs::statx(
            CWD,
            mount_point,
            AtFlags::SYMLINK_NOFOLLOW,
            StatxFlags::empty(),
        )
    };
    let stat = fault::call("statx", || mount_point.display().to_string(), ask)?;
    let device = format!("{}:{}", stat.stx_dev_major, stat.stx_dev_minor);
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let mut seen = HashSet::new();
    seen.extend(fs::read_link("/proc/self/ns/mnt"));
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in listed {
        // A process that has ended meanwhile holds nothing.
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<i32>().ok())
        else {
            continue;
        };
        if !namespace(pid).is_some_and(|namespace| seen.insert(namespace)) {
            continue;
        }
        let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let is_root = |line: &str| {
            let mut fields = line.split(' ').skip(2);
            fields.next() == Some(&device) && fields.nth(1) == Some("/")
        };
        if table.lines().any(is_root) {
            return Ok(Some(pid));
        }
    }
    Ok(None)
}
