//! Where a bundle is, and the hidden directory beside it in which it is built and taken apart.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

use cairn_sys::{Dir, durable, mount};
use cairn_types::{Classified, Digest, ErrorKind, Failure, HostDir, IdMap, SnapshotKey};
use rustix::io::Errno;

use crate::owners;

/// The file by which a bundle directory is known as ours, and as which one.
const MARKER: &str = ".cairn";
const MARKER_BYTES_MAX: u64 = 16 << 10;
pub(crate) const ROOTFS: &str = "rootfs";
pub(crate) const CONFIG: &str = "config.json";

/// A bundle's place, whether or not there is one.
pub(crate) struct Place {
    /// `None` when it is gone, and with it whatever was in it.
    parent: Option<Dir>,
    name: OsString,
    aside: OsString,
    dir: HostDir,
}

/// Which bundle of which store a directory is to be.
pub(crate) struct Marker<'a> {
    pub(crate) store: &'a str,
    pub(crate) snapshot: &'a SnapshotKey,
}

impl Marker<'_> {
    fn bytes(&self) -> Vec<u8> {
        format!("{}\n{}\n", self.store, self.snapshot).into_bytes()
    }
}

impl Place {
    /// The place that `dir` means: absolute, links in its parents resolved. Nothing is made.
    pub(crate) fn find(dir: &Path, attempted: &str) -> Result<Place, Failure> {
        let failed = |kind, reason: String| {
            Failure::new(kind, attempted, reason).object("bundle", dir.display())
        };
        let io = |err: io::Error| failed(io_kind(&err), err.to_string());
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
        let parent = real_path(parent).map_err(io)?;
        let Some(text) = parent.join(name).to_str().map(str::to_owned) else {
            let reason = "its path is not valid UTF-8, which config.json needs".to_owned();
            return Err(failed(ErrorKind::InvalidArgument, reason));
        };
        let dir = HostDir::parse(&text)
            .map_err(|err| failed(ErrorKind::InvalidArgument, err.to_string()))?;
        // Of one length whatever the name's is, so that every name that can be made has one.
        let aside = format!(".cairn-{:.16}", Digest::sha256(name.as_bytes()).hex());
        Ok(Place {
            parent: match Dir::open(&parent) {
                Ok(parent) => Some(parent),
                Err(err) if err.kind() == ErrorKind::NotFound => None,
                Err(err) => return Err(Failure::of(attempted, &err).object("bundle", dir)),
            },
            name: name.to_owned(),
            aside: OsString::from(aside),
            dir,
        })
    }

    /// Makes what is missing of its parents.
    pub(crate) fn make_parents(&mut self) -> Result<(), cairn_sys::Error> {
        let (None, Some(parent)) = (&self.parent, self.dir.as_path().parent()) else {
            return Ok(());
        };
        let failed =
            |err: &io::Error| cairn_sys::Error::of_io("mkdir", parent.display().to_string(), err);
        std::fs::create_dir_all(parent).map_err(|err| failed(&err))?;
        // Somebody can have put a link there meanwhile; the name that is recorded would be another's.
        if parent.canonicalize().map_err(|err| failed(&err))? != parent {
            let name = parent.display().to_string();
            return Err(cairn_sys::Error::new("open", name, Errno::LOOP));
        }
        self.parent = Some(Dir::open(parent)?);
        Ok(())
    }

    /// The bundle's directory, by which its record is found.
    pub(crate) fn dir(&self) -> &HostDir {
        &self.dir
    }

    /// The mount point of its root.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.as_path().join(ROOTFS)
    }

    /// The mount point while it is being made.
    pub(crate) fn rootfs_aside(&self) -> PathBuf {
        self.dir.as_path().with_file_name(&self.aside).join(ROOTFS)
    }

    fn parent(&self) -> Result<&Dir, cairn_sys::Error> {
        self.parent.as_ref().ok_or_else(|| {
            let dir = self.dir.as_path();
            let parent = dir.parent().unwrap_or(dir).display().to_string();
            cairn_sys::Error::new("open", parent, Errno::NOENT)
        })
    }

    /// Whether the name is free: absent, or an empty directory that is no link.
    pub(crate) fn is_free(&self) -> Result<bool, cairn_sys::Error> {
        let Some(parent) = &self.parent else {
            return Ok(true);
        };
        if parent.try_stat(&self.name)?.is_none() {
            return Ok(true);
        }
        match parent.open_dir(&self.name) {
            Ok(dir) => Ok(dir.entries()?.is_empty() && !mount::is_mount_point(self.dir.as_path())?),
            Err(err) if err.is(Errno::NOTDIR) || err.is(Errno::LOOP) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Whether a whole bundle of ours is there.
    pub(crate) fn is_ours(&self, marker: &Marker<'_>) -> Result<bool, cairn_sys::Error> {
        let found = self.marker()?;
        Ok(found.is_some_and(|bytes| bytes.starts_with(&marker.bytes())))
    }

    /// Whose the files of the bundle's root shall seem to be, when that is not whose they are.
    pub(crate) fn owners(&self) -> Result<Option<IdMap>, cairn_sys::Error> {
        let found = self.marker()?.unwrap_or_default();
        Ok(owners::of_lines(&String::from_utf8_lossy(&found)))
    }

    /// What is in the marker, if there is one of ours.
    fn marker(&self) -> Result<Option<Vec<u8>>, cairn_sys::Error> {
        let Some(parent) = &self.parent else {
            return Ok(None);
        };
        let dir = match parent.open_dir(&self.name) {
            Ok(dir) => dir,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            Err(err) if err.is(Errno::NOTDIR) || err.is(Errno::LOOP) => return Ok(None),
            Err(err) => return Err(err),
        };
        let name = OsStr::new(MARKER);
        // What is in a marker is no secret: where anybody may make names, anybody can make a directory
        // that looks like a bundle which was there before the machine was started again. But not with
        // a file of root's; nor is one of root's that has a second name one of ours.
        let stat = dir.try_stat(name)?;
        if stat.is_none_or(|stat| stat.st_uid != 0 || stat.st_nlink != 1) {
            return Ok(None);
        }
        match dir.read_file(name, MARKER_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// The hidden directory, empty but for the marker and the mount point. What an earlier one left
    /// is removed.
    pub(crate) fn begin(
        &self,
        marker: &Marker<'_>,
        map: Option<&IdMap>,
    ) -> Result<Dir, cairn_sys::Error> {
        self.clear_aside()?;
        let parent = self.parent()?;
        parent.create_dir(&self.aside, 0o700)?;
        let dir = parent.open_dir(&self.aside)?;
        if dir.self_stat()?.st_uid != 0 {
            // Its parent's owner has put one of his own there.
            let aside = dir.path().display().to_string();
            return Err(cairn_sys::Error::new("open", aside, Errno::PERM));
        }
        let mut bytes = marker.bytes();
        bytes.extend(map.map(owners::lines).unwrap_or_default().into_bytes());
        durable::write_file(&dir, OsStr::new(MARKER), &bytes, 0o600)?;
        dir.create_dir(OsStr::new(ROOTFS), 0o755)?;
        if let Some(map) = map {
            owners::let_through(&dir, map)?;
        }
        Ok(dir)
    }

    /// Gives the finished directory its name. Mounts below go with it.
    pub(crate) fn publish(&self, dir: &Dir) -> Result<(), cairn_sys::Error> {
        dir.fsync()?;
        // Over an empty directory or nothing; anything else is refused by the kernel.
        let parent = self.parent()?;
        parent.rename(&self.aside, parent, &self.name)?;
        parent.fsync()
    }

    /// Takes the directory away under its hidden name, then its contents. It must not be mounted on.
    pub(crate) fn withdraw(&self) -> Result<(), cairn_sys::Error> {
        self.clear_aside()?;
        let parent = self.parent()?;
        parent.rename(&self.name, parent, &self.aside)?;
        parent.fsync()?;
        self.clear_aside()
    }

    /// Unmounts and removes the hidden directory if there is one.
    pub(crate) fn clear_aside(&self) -> Result<(), cairn_sys::Error> {
        let Some(parent) = &self.parent else {
            return Ok(());
        };
        if parent.try_stat(&self.aside)?.is_none() {
            return Ok(());
        }
        // Where anybody may make names, somebody can have put a directory of his own there, or a link
        // to another bundle, whose root is not to be unmounted by that way.
        match parent.open_dir(&self.aside) {
            Ok(dir) if dir.self_stat()?.st_uid == 0 => discard_all(&self.rootfs_aside())?,
            Ok(_) => {}
            Err(err) if err.is(Errno::NOTDIR) || err.is(Errno::LOOP) => {}
            Err(err) => return Err(err),
        }
        parent.remove_tree(&self.aside)?;
        parent.fsync()
    }
}

/// The path that `path` will have when what is missing of it is made: absolute and without links.
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    let mut here = absolute.as_path();
    let mut missing = Vec::new();
    loop {
        match here.canonicalize() {
            Ok(mut real) => {
                for part in missing.into_iter().rev() {
                    match part {
                        // What is missing is no link, so that this leads back to where it would be.
                        Component::ParentDir => drop(real.pop()),
                        part => real.push(part),
                    }
                }
                return Ok(real);
            }
            Err(err) if err.kind() == io::ErrorKind::NotFound => {
                let (Some(parent), Some(last)) = (here.parent(), here.components().next_back())
                else {
                    return Err(err);
                };
                missing.push(last);
                here = parent;
            }
            Err(err) => return Err(err),
        }
    }
}

/// The class of an error about a path that somebody named.
pub(crate) fn io_kind(err: &io::Error) -> ErrorKind {
    match err.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
        _ => ErrorKind::InvalidArgument,
    }
}

/// Unmounts everything that is mounted exactly there.
pub(crate) fn unmount_all(target: &Path) -> Result<(), cairn_sys::Error> {
    while mount::is_mount_point(target)? {
        mount::unmount(target)?;
    }
    Ok(())
}

/// As [`unmount_all`], for a root whose layer goes with it.
pub(crate) fn discard_all(target: &Path) -> Result<(), cairn_sys::Error> {
    while mount::is_mount_point(target)? {
        mount::unmount_behind(target)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_missing_has_a_path_already() {
        let temp = tempfile::tempdir().expect("temporary directory");
        let root = temp.path().canonicalize().expect("real");
        std::fs::create_dir(root.join("dir")).expect("directory");
        std::fs::write(root.join("file"), "").expect("file");
        symlink("dir", root.join("link")).expect("link");
        for (asked, expected) in [
            ("link/a/b", "dir/a/b"),
            ("link/../x", "x"),
            ("none/../link/y", "link/y"),
            ("dir/./a//b/", "dir/a/b"),
            ("none/a/../b", "none/b"),
        ] {
            let real = real_path(&root.join(asked)).expect(asked);
            assert_eq!(real, root.join(expected), "{asked}");
        }
        real_path(&root.join("file/x")).expect_err("a file has nothing in it");
        assert_eq!(std::fs::read_dir(&root).expect("directory").count(), 3);
    }
}
