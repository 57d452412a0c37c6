//! Who has a snapshot's mount.
//!
//! A container has a copy of its root's mount in its own mount namespace. Unmounting it here succeeds
//! and leaves the container with files whose directories are then deleted under it; and a writable
//! layer that is mounted twice is undefined behaviour, which the kernel only warns of. So one has to
//! ask first. Only `/proc` knows: each process's `mountinfo`, once per namespace.
//!
//! Copies in other namespaces that are mounted elsewhere than at `/` do not count: every namespace
//! begins as a copy of another with all that is mounted there, so services that know nothing of
//! containers have them.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use cairn_types::Mount;

use super::{
    options::Overlay,
    table::{self, MountInfo},
};
use crate::Result;

/// Who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It is mounted here in this process's own namespace.
    Here(PathBuf),
    /// This process, in another mount namespace, has it as its root.
    RootOf(i32),
}

/// Who has what `mounts` (as the snapshotter hands them out) would mount, or is mounted at one of
/// `own`, apart from `own` itself.
///
/// Kernels from 6.7 to 6.12 do not tell the directories of an overlay, so there only what is still
/// mounted at one of `own` is found elsewhere.
pub fn holder(mounts: &[Mount], own: &[&Path]) -> Result<Option<Holder>> {
    let here = table::mounts_below(Path::new("/"))?;
    let own: Vec<PathBuf> = own
        .iter()
        .map(|path| table::spelled_as_listed(path))
        .collect();
    let sought = Sought::new(mounts, &here, &own);
    if let Some(found) = here
        .iter()
        .find(|info| !own.contains(&info.mount_point) && sought.is(info))
    {
        return Ok(Some(Holder::Here(found.mount_point.clone())));
    }
    let mut seen = HashSet::new();
    // Of one namespace, processes with other roots see other parts.
    let view = |process: &str| {
        let link = |what: &str| fs::read_link(format!("/proc/{process}/{what}")).ok();
        Some((link("ns/mnt")?, link("root")?))
    };
    seen.extend(view("self"));
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process that has ended meanwhile holds nothing.
        let Some((namespace, root)) = view(&pid.to_string()) else {
            continue;
        };
        if seen
            .iter()
            .any(|(known, at)| *known == namespace && *at == root)
        {
            continue;
        }
        seen.insert((namespace, root));
        let table = fs::read(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        let is_root = |info: &MountInfo| info.mount_point == Path::new("/") && sought.is(info);
        if table::parse(&table).any(|info| is_root(&info)) {
            return Ok(Some(Holder::RootOf(pid)));
        }
    }
    Ok(None)
}

/// By what a mount is known.
#[derive(Default)]
struct Sought {
    /// An overlay's writable directory, as the kernel shows it.
    upper: Option<PathBuf>,
    /// Device of an overlay that is mounted at a place of the caller's. Every overlay has its own.
    device: Option<String>,
    /// Device and directory in it of what is bound.
    bound: Option<(String, PathBuf)>,
}

impl Sought {
    fn new(mounts: &[Mount], here: &[MountInfo], own: &[PathBuf]) -> Sought {
        let overlay = here
            .iter()
            .find(|info| info.fs_type == "overlay" && own.contains(&info.mount_point));
        let mut sought = Sought {
            device: overlay.map(|info| info.device.clone()),
            ..Sought::default()
        };
        for mount in mounts {
            match mount.kind.as_str() {
                "overlay" => {
                    let upper = Overlay::parse(&mount.options).upper;
                    sought.upper = upper.and_then(|upper| upper.canonicalize().ok());
                }
                _ => sought.bound = inside(Path::new(&mount.source), here),
            }
        }
        sought
    }

    fn is(&self, info: &MountInfo) -> bool {
        if info.fs_type == "overlay" {
            return self.device.as_ref() == Some(&info.device)
                || (self.upper.is_some() && self.upper == info.upper);
        }
        self.bound
            .as_ref()
            .is_some_and(|(device, root)| *device == info.device && *root == info.root)
    }
}

/// The device of a directory's file system, and its path in that.
pub(super) fn inside(path: &Path, here: &[MountInfo]) -> Option<(String, PathBuf)> {
    let path = path.canonicalize().ok()?;
    let device = fs::metadata(&path).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = format!("{major}:{minor}");
    let over = here
        .iter()
        .filter(|info| info.device == device && path.starts_with(&info.mount_point))
        .max_by_key(|info| info.mount_point.as_os_str().len())?;
    let below = path.strip_prefix(&over.mount_point).ok()?;
    let root = match below.as_os_str().is_empty() {
        true => over.root.clone(),
        false => over.root.join(below),
    };
    Some((device, root))
}
