//! Where a bundle is, and the hidden directory beside it in which it is built and taken apart.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::{MutexGuard, PoisonError},
};

use cairn_sys::{Dir, durable, mount};
use cairn_types::{Classified, Digest, ErrorKind, SnapshotKey};

use crate::{Failure, Node};

/// The file by which a bundle directory is known as ours, and as which one.
const MARKER: &str = ".cairn";
const MARKER_BYTES_MAX: u64 = 16 << 10;
pub(super) const ROOTFS: &str = "rootfs";
pub(super) const CONFIG: &str = "config.json";

/// A bundle's place, whether or not there is one.
pub(super) struct Place {
    /// `None` when it is gone, and with it whatever was in it.
    parent: Option<Dir>,
    name: OsString,
    aside: OsString,
    dir: PathBuf,
    key: String,
    snapshot: SnapshotKey,
}

impl Place {
    /// The place that `dir` means: absolute, links in its parents resolved. With `make` parents that
    /// are missing are made.
    pub(super) fn find(dir: &Path, make: bool, attempted: &str) -> Result<Place, Failure> {
        let failed = |kind, reason: String| {
            Failure::new(kind, attempted, reason).object("bundle", dir.display())
        };
        let io = |err: std::io::Error| {
            let kind = match err.kind() {
                std::io::ErrorKind::NotFound => ErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                std::io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
                _ => ErrorKind::InvalidArgument,
            };
            failed(kind, err.to_string())
        };
        let absolute = std::path::absolute(dir).map_err(io)?;
        // A last component of `..` has no name of its own; what it leads to has.
        let absolute = match absolute.ends_with("..") {
            true => absolute.canonicalize().map_err(io)?,
            false => absolute,
        };
        let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
            let reason = "the root directory cannot be a bundle".to_owned();
            return Err(failed(ErrorKind::InvalidArgument, reason));
        };
        if make {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        // A bundle whose parents are gone is still known by its name.
        let parent = match parent.canonicalize() {
            Ok(parent) => parent,
            Err(err) if make => return Err(io(err)),
            Err(_) => parent.to_owned(),
        };
        let dir = parent.join(name);
        let Some(key) = dir.to_str().map(str::to_owned) else {
            let reason = "its path is not valid UTF-8, which config.json needs".to_owned();
            return Err(failed(ErrorKind::InvalidArgument, reason));
        };
        let snapshot = SnapshotKey::parse(&format!("bundle:{key}"))
            .map_err(|err| failed(ErrorKind::InvalidArgument, err.to_string()))?;
        Place::at(&parent, name, dir.clone(), key, snapshot)
            .map_err(|err| Failure::of(attempted, &err).object("bundle", dir.display()))
    }

    fn at(
        parent: &Path,
        name: &OsStr,
        dir: PathBuf,
        key: String,
        snapshot: SnapshotKey,
    ) -> Result<Place, cairn_sys::Error> {
        // Of one length whatever the name's is, so that every name that can be made has one.
        let digest = Digest::sha256(name.as_bytes());
        let aside = format!(".cairn-{:.16}", digest.hex());
        Ok(Place {
            parent: match Dir::open(parent) {
                Ok(parent) => Some(parent),
                Err(err) if err.kind() == ErrorKind::NotFound => None,
                Err(err) => return Err(err),
            },
            name: name.to_owned(),
            aside: OsString::from(aside),
            dir,
            key,
            snapshot,
        })
    }

    /// The bundle's directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// By which its record is found.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The key of its writable snapshot.
    pub(super) fn snapshot(&self) -> &SnapshotKey {
        &self.snapshot
    }

    /// The mount point of its root.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.dir.join(ROOTFS)
    }

    /// The mount point while it is being made.
    pub(super) fn rootfs_aside(&self) -> PathBuf {
        self.dir.with_file_name(&self.aside).join(ROOTFS)
    }

    fn parent(&self) -> Result<&Dir, cairn_sys::Error> {
        self.parent.as_ref().ok_or_else(|| {
            let parent = self.dir.parent().unwrap_or(&self.dir).display().to_string();
            cairn_sys::Error::new("open", parent, rustix::io::Errno::NOENT)
        })
    }

    /// Whether the name is free: absent, or an empty directory that is no link.
    pub(super) fn is_free(&self) -> Result<bool, cairn_sys::Error> {
        let parent = self.parent()?;
        if parent.try_stat(&self.name)?.is_none() {
            return Ok(true);
        }
        match parent.open_dir(&self.name) {
            Ok(dir) => Ok(dir.entries()?.is_empty() && !mount::is_mount_point(&self.dir)?),
            Err(err) if err.is(rustix::io::Errno::NOTDIR) || err.is(rustix::io::Errno::LOOP) => {
                Ok(false)
            }
            Err(err) => Err(err),
        }
    }

    /// Whether a whole bundle of ours is there.
    pub(super) fn is_ours(&self, root: &Path) -> Result<bool, cairn_sys::Error> {
        let Some(parent) = &self.parent else {
            return Ok(false);
        };
        let dir = match parent.open_dir(&self.name) {
            Ok(dir) => dir,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(false),
            Err(err) if err.is(rustix::io::Errno::NOTDIR) || err.is(rustix::io::Errno::LOOP) => {
                return Ok(false);
            }
            Err(err) => return Err(err),
        };
        let name = OsStr::new(MARKER);
        // What is in a marker is no secret: where anybody may make names, anybody can make a directory
        // that looks like a bundle which was there before the machine was started again. But not with
        // a file of root's; nor is one of root's that has a second name one of ours.
        let stat = dir.try_stat(name)?;
        if stat.is_none_or(|stat| stat.st_uid != 0 || stat.st_nlink != 1) {
            return Ok(false);
        }
        match dir.read_file(name, MARKER_BYTES_MAX) {
            Ok(bytes) => Ok(bytes == self.marker(root)),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
            Err(err) => Err(err),
        }
    }

    fn marker(&self, root: &Path) -> Vec<u8> {
        let mut marker = root.as_os_str().as_bytes().to_vec();
        marker.extend_from_slice(format!("\n{}\n", self.snapshot).as_bytes());
        marker
    }

    /// The hidden directory, empty but for the marker and the mount point. What an earlier one left
    /// is removed.
    pub(super) fn begin(&self, root: &Path) -> Result<Dir, cairn_sys::Error> {
        self.clear_aside()?;
        let parent = self.parent()?;
        parent.create_dir(&self.aside, 0o700)?;
        let dir = parent.open_dir(&self.aside)?;
        if dir.self_stat()?.st_uid != 0 {
            // Its parent's owner has put one of his own there.
            let aside = dir.path().display().to_string();
            return Err(cairn_sys::Error::new(
                "open",
                aside,
                rustix::io::Errno::PERM,
            ));
        }
        durable::write_file(&dir, OsStr::new(MARKER), &self.marker(root), 0o600)?;
        dir.create_dir(OsStr::new(ROOTFS), 0o755)?;
        Ok(dir)
    }

    /// Gives the finished directory its name. Mounts below go with it.
    pub(super) fn publish(&self, dir: &Dir) -> Result<(), cairn_sys::Error> {
        dir.fsync()?;
        // Over an empty directory or nothing; anything else is refused by the kernel.
        let parent = self.parent()?;
        parent.rename(&self.aside, parent, &self.name)?;
        parent.fsync()
    }

    /// Takes the directory away under its hidden name, then its contents. It must not be mounted on.
    pub(super) fn withdraw(&self) -> Result<(), cairn_sys::Error> {
        self.clear_aside()?;
        let parent = self.parent()?;
        parent.rename(&self.name, parent, &self.aside)?;
        parent.fsync()?;
        self.clear_aside()
    }

    /// Unmounts and removes the hidden directory if there is one.
    pub(super) fn clear_aside(&self) -> Result<(), cairn_sys::Error> {
        let Some(parent) = &self.parent else {
            return Ok(());
        };
        if parent.try_stat(&self.aside)?.is_none() {
            return Ok(());
        }
        // Where anybody may make names, somebody can have put a directory of his own there, or a link
        // to another bundle, whose root is not to be unmounted by that way.
        match parent.open_dir(&self.aside) {
            Ok(dir) if dir.self_stat()?.st_uid == 0 => unmount_all(&self.rootfs_aside())?,
            Ok(_) => {}
            Err(err) if err.is(rustix::io::Errno::NOTDIR) || err.is(rustix::io::Errno::LOOP) => {}
            Err(err) => return Err(err),
        }
        parent.remove_tree(&self.aside)?;
        parent.fsync()
    }
}

/// A place that nobody else makes or removes a bundle at.
pub(super) struct Taken<'n> {
    node: &'n Node,
    key: String,
}

impl Node {
    /// Takes a place for oneself; `Unavailable` when somebody has it.
    pub(super) fn take_place(&self, place: &Place, attempted: &str) -> Result<Taken<'_>, Failure> {
        let key = place.key().to_owned();
        match self.places().insert(key.clone()) {
            true => Ok(Taken { node: self, key }),
            false => {
                let reason = "it is being made or removed already";
                Err(Failure::new(ErrorKind::Unavailable, attempted, reason)
                    .object("bundle", place.dir().display()))
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, BTreeSet<String>> {
        let places = self.inner.places.lock();
        places.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.node.places().remove(&self.key);
    }
}

/// Unmounts everything that is mounted exactly there.
pub(super) fn unmount_all(target: &Path) -> Result<(), cairn_sys::Error> {
    while mount::is_mount_point(target)? {
        mount::unmount(target)?;
    }
    Ok(())
}
