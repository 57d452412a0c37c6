//! An image's files at a directory, without a container.

use std::{
    fmt::Display,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_sys::mount::{self, Holder};
use cairn_types::{
    Classified, ErrorKind, Failure, HostDir, ImageName, Mount, Namespace, Platform, SnapshotKey,
    failure::words,
};

use crate::{claim, place::real_path};

const MOUNT: &str = "mount image";
const UNMOUNT: &str = "unmount";

/// What to mount, and where.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// The namespace that has the image.
    pub ns: Namespace,
    /// Its full name.
    pub name: ImageName,
    /// The mount point; made when absent.
    pub target: PathBuf,
    /// Writable: changes go to a snapshot of their own.
    pub rw: bool,
    /// Which variant; the host's when `None`.
    pub platform: Option<Platform>,
    /// How long the store keeps it at least; until it is unmounted when `None`.
    pub life: Option<Duration>,
}

/// The store's part of it: the snapshots behind mount points.
pub trait Mounts {
    /// What its refusals are, and what failures here become.
    type Error: From<Failure> + Display;

    /// Prepares what is to be mounted at `target`, unpacking the image first when needed.
    fn prepare(&self, request: &MountRequest, target: &HostDir) -> Result<Prepared, Self::Error>;

    /// What stands behind a mount point in this namespace.
    fn get(&self, ns: &Namespace, target: &HostDir) -> Result<Option<Prepared>, Self::Error>;

    /// Lets go of it, when nothing is mounted there any more; of changes only when `remove` says so.
    fn release(&self, ns: &Namespace, target: &HostDir, remove: bool) -> Result<(), Self::Error>;
}

/// The snapshot behind a mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Its key.
    pub key: SnapshotKey,
    /// Changes can be written to it.
    pub writable: bool,
    /// It was there before, with changes in it.
    pub reused: bool,
    /// To be made at the mount point.
    pub mounts: Vec<Mount>,
}

/// Mounts an image's files. Returns the mount point as the kernel names it.
///
/// # Errors
/// The store's; `AlreadyExists` when something is mounted there; `FailedPrecondition` when what is to
/// be written to is mounted elsewhere.
pub fn mount<M: Mounts>(store: &M, request: &MountRequest) -> Result<PathBuf, M::Error> {
    let MountRequest {
        ns, name, target, ..
    } = request;
    if !cairn_sys::is_root() {
        let failure = Failure::new(ErrorKind::PermissionDenied, MOUNT, "mounting needs root");
        return Err(failure.object("image", name).into());
    }
    let place = mount_point(target).map_err(|failure| failure.object("image", name))?;
    let _claim = claim::take(&place, MOUNT, "directory")?;
    if is_mounted(&place, MOUNT)? {
        let reason = format!("something is mounted at {place} already");
        let failure = Failure::new(ErrorKind::AlreadyExists, MOUNT, reason);
        let next = format!("cairn images unmount {place}");
        return Err(failure.object("image", name).next(next).into());
    }
    let prepared = store.prepare(request, &place)?;
    let made = refuse_reuse(&prepared)
        // After the store's part: an image that cannot be mounted leaves no directory.
        .and_then(|()| make(target, &place).map_err(|failure| failure.object("image", name)))
        .and_then(|()| perform(&prepared, &place));
    if let Err(failure) = made {
        // A writable snapshot from before keeps what was changed in it.
        if !request.rw
            && let Err(err) = store.release(ns, &place, false)
        {
            tracing::warn!("remove snapshot {}: {err}", prepared.key);
        }
        let failure = match failure.object {
            Some(_) => failure,
            None => failure.object("image", name),
        };
        return Err(failure.namespace(ns).into());
    }
    Ok(place.as_path().to_owned())
}

/// Two mounts of one writable layer would destroy each other's changes.
fn refuse_reuse(prepared: &Prepared) -> Result<(), Failure> {
    if !prepared.reused {
        return Ok(());
    }
    let failed = |err: &dyn Classified| Failure::of(MOUNT, err).object("snapshot", &prepared.key);
    match mount::holder(&prepared.mounts, &[]).map_err(|err| failed(&err))? {
        None => Ok(()),
        Some(holder) => Err(in_use(MOUNT, &holder).object("snapshot", &prepared.key)),
    }
}

fn perform(prepared: &Prepared, place: &HostDir) -> Result<(), Failure> {
    let mut mounts = prepared.mounts.clone();
    // An image's files are looked at, not run; to anybody on this host its setuid programs and devices
    // would be root's.
    for mount in &mut mounts {
        mount.options.extend(["nosuid", "nodev"].map(str::to_owned));
    }
    mount::perform(&mounts, place.as_path()).map_err(|err| {
        let reason = format!("{place} cannot be mounted on");
        Failure::because(MOUNT, reason, &err)
    })
}

/// Unmounts what [`mount()`] mounted at `target`. Its snapshot goes too when it was read-only, or with
/// `remove`; what was changed in a writable one is otherwise kept.
///
/// # Errors
/// The store's; `NotFound` when it is nobody's in this namespace; `FailedPrecondition` when its files
/// are in use elsewhere, or something else is mounted there.
pub fn unmount<M: Mounts>(
    store: &M,
    ns: &Namespace,
    target: &Path,
    remove: bool,
) -> Result<(), M::Error> {
    let real = std::fs::canonicalize(target).map_err(|err| io(UNMOUNT, target, &err))?;
    let place = host_dir(&real, UNMOUNT)?;
    if !cairn_sys::is_root() {
        let reason = "unmounting needs root";
        let failure = Failure::new(ErrorKind::PermissionDenied, UNMOUNT, reason);
        return Err(failure.object("directory", place).into());
    }
    let _claim = claim::take(&place, UNMOUNT, "directory")?;
    let mounted = is_mounted(&place, UNMOUNT)?;
    let Some(known) = store.get(ns, &place)? else {
        // What somebody else mounted is not ours to unmount.
        let reason = match mounted {
            true => "it was not mounted by cairn in this namespace",
            false => "nothing is mounted there",
        };
        let failure = Failure::new(ErrorKind::NotFound, UNMOUNT, reason);
        return Err(failure.object("directory", &place).namespace(ns).into());
    };
    if known.writable {
        refuse_held(&known, &place, mounted)?;
    }
    if mounted {
        // What is kept is on the disk after this, as with any file system.
        let unmount = match remove {
            true => mount::unmount_behind,
            false => mount::unmount,
        };
        unmount(place.as_path())
            .map_err(|err| Failure::of(UNMOUNT, &err).object("directory", &place))?;
    }
    store.release(ns, &place, remove)
}

fn refuse_held(known: &Prepared, place: &HostDir, mounted: bool) -> Result<(), Failure> {
    let failed = |err: &dyn Classified| Failure::of(UNMOUNT, err).object("directory", place);
    let elsewhere = mount::holder(&known.mounts, &[place.as_path()]).map_err(|err| failed(&err))?;
    if let Some(holder) = elsewhere {
        return Err(in_use(UNMOUNT, &holder).object("directory", place));
    }
    let ours = mount::holder(&known.mounts, &[]).map_err(|err| failed(&err))?;
    if mounted && ours.is_none() {
        let reason = "something else is mounted there";
        let failure = Failure::new(ErrorKind::FailedPrecondition, UNMOUNT, reason);
        return Err(failure
            .object("directory", place)
            .next(format!("umount {place}")));
    }
    Ok(())
}

fn is_mounted(place: &HostDir, attempted: &str) -> Result<bool, Failure> {
    let mounted = mount::is_mount_point(place.as_path());
    mounted.map_err(|err| Failure::of(attempted, &err).object("directory", place))
}

/// Where the files of this snapshot of [`mount()`]'s are mounted, if they are. The store cannot tell.
pub fn mounted_at(key: &SnapshotKey) -> Option<HostDir> {
    let target = HostDir::of_mount_key(key)?;
    let mounted = mount::is_mount_point(target.as_path()).unwrap_or(false);
    mounted.then_some(target)
}

/// A writable layer is in use elsewhere than it should be.
fn in_use(attempted: &str, holder: &Holder) -> Failure {
    let reason = match holder {
        Holder::Here(at) => format!("its files are mounted at {}", at.display()),
        Holder::RootOf(pid) => format!("process {pid} runs in it"),
    };
    Failure::new(ErrorKind::FailedPrecondition, attempted, reason)
}

/// The mount point as the kernel will name it; it need not be there.
fn mount_point(target: &Path) -> Result<HostDir, Failure> {
    let real = real_path(target).map_err(|err| io(MOUNT, target, &err))?;
    if real.symlink_metadata().is_ok_and(|found| !found.is_dir()) {
        let err = io::Error::from(io::ErrorKind::NotADirectory);
        return Err(io(MOUNT, target, &err));
    }
    host_dir(&real, MOUNT)
}

fn host_dir(real: &Path, attempted: &str) -> Result<HostDir, Failure> {
    let failed = |kind, reason: String| {
        Failure::new(kind, attempted, reason).object("directory", real.display())
    };
    let text = real.to_str().ok_or_else(|| {
        let reason = "its path is not valid UTF-8".to_owned();
        failed(ErrorKind::InvalidArgument, reason)
    })?;
    HostDir::parse(text).map_err(|err| failed(err.kind(), err.to_string()))
}

/// Makes the directory where it is absent.
fn make(target: &Path, place: &HostDir) -> Result<(), Failure> {
    let real = std::fs::create_dir_all(place.as_path())
        .and_then(|()| std::fs::canonicalize(place.as_path()))
        .map_err(|err| io(MOUNT, target, &err))?;
    if real != place.as_path() {
        let reason = format!("{place} leads elsewhere now");
        let failure = Failure::new(ErrorKind::FailedPrecondition, MOUNT, reason);
        return Err(failure.object("directory", place));
    }
    Ok(())
}

fn io(attempted: &str, target: &Path, err: &io::Error) -> Failure {
    let kind = match err.kind() {
        io::ErrorKind::NotFound => ErrorKind::NotFound,
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    };
    let reason = match err.kind() {
        io::ErrorKind::NotFound => "no such directory".to_owned(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            format!("{} is not a directory", target.display())
        }
        _ => format!("{}: {}", target.display(), words(err)),
    };
    Failure::new(kind, attempted, reason).object("directory", target.display())
}
