//! An image's files at a directory, without a container.

use std::path::{Path, PathBuf};

use cairn_sys::mount;
use cairn_types::{
    Classified, ErrorKind, ImageName, Labels, Mount, Namespace, Platform, SnapshotKey,
};

use crate::{Failure, Node, Progress, Silent, failure::words};

/// Keeps the snapshot of a mount from the garbage collector (containerd `pkg/gc`).
const ROOT: &str = "containerd.io/gc.root";

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
}

impl Node {
    /// Mounts an image's files, unpacking them first when needed.
    pub fn mount_image(&self, request: &MountRequest) -> Result<PathBuf, Failure> {
        self.mount_image_showing(request, &Silent)
    }

    /// As [`Node::mount_image`]; `progress` hears of the unpacking.
    pub fn mount_image_showing(
        &self,
        request: &MountRequest,
        progress: &dyn Progress,
    ) -> Result<PathBuf, Failure> {
        let attempted = "mount image";
        let MountRequest {
            ns, name, target, ..
        } = request;
        let failed = |err: &dyn Classified| {
            Failure::of(attempted, err)
                .object("image", name)
                .namespace(ns)
        };
        if !cairn_sys::is_root() {
            let reason = "mounting needs root";
            return Err(Failure::new(ErrorKind::PermissionDenied, attempted, reason)
                .object("image", name)
                .next(format!(
                    "sudo cairn images mount {name} {}",
                    target.display()
                )));
        }
        let record = self.image_record(ns, name, attempted)?;
        let (pins, platform) = (self.pins(), request.platform.as_ref());
        let chain = self.unpack_pinned(ns, &record.target, platform, progress, &pins);
        let chain = chain.map_err(|mut failure| {
            // Asked for was the mount, of the image by its name.
            attempted.clone_into(&mut failure.attempted);
            failure.object("image", name)
        })?;
        // After it: an image that cannot be mounted leaves no directory.
        let target = mount_point(target).map_err(|failure| failure.object("image", name))?;
        if mount::is_mount_point(&target).map_err(|err| failed(&err))? {
            let reason = format!("something is mounted at {} already", target.display());
            return Err(Failure::new(ErrorKind::AlreadyExists, attempted, reason)
                .object("image", name)
                .next(format!("cairn images unmount {}", target.display())));
        }
        let parent = chain.as_ref().map(SnapshotKey::from);
        let key = key_of(&target).map_err(|err| failed(&err))?;
        pins.snapshot(ns, &key);
        let mut mounts = self.prepare(ns, &key, parent.as_ref(), request.rw, attempted)?;
        // An image's files are looked at, not run; to anybody on this host its setuid programs and
        // devices would be root's.
        for mount in &mut mounts {
            mount.options.extend(["nosuid", "nodev"].map(str::to_owned));
        }
        if let Err(err) = mount::perform(&mounts, &target) {
            let reason = format!("{} cannot be mounted on", target.display());
            let failure = Failure::because(attempted, reason, &err);
            // A writable snapshot from before keeps what was changed in it.
            if !request.rw
                && let Err(err) = self.snapshots().remove(ns, &key)
            {
                tracing::warn!("remove snapshot {key}: {err}");
            }
            return Err(failure.object("image", name).namespace(ns));
        }
        Ok(target)
    }

    /// A fresh snapshot for a mount point. One that is left of an earlier mount is used again when
    /// it is writable, since it holds changes, and replaced when it is not.
    fn prepare(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        parent: Option<&SnapshotKey>,
        rw: bool,
        attempted: &str,
    ) -> Result<Vec<Mount>, Failure> {
        let failed = |err: &dyn Classified| {
            Failure::of(attempted, err)
                .object("snapshot", key)
                .namespace(ns)
        };
        let mut labels = Labels::new();
        labels.insert(ROOT.to_owned(), jiff::Timestamp::now().to_string());
        let snapshots = self.snapshots();
        match snapshots.stat(ns, key) {
            Ok(known) if rw && known.parent.as_ref() == parent => {
                let mounts = snapshots.mounts(ns, key).map_err(|err| failed(&err))?;
                // Two mounts of one writable layer would destroy each other's changes.
                let held = mount::holder(&mounts, &[]).map_err(|err| failed(&err))?;
                return match held {
                    None => Ok(mounts),
                    Some(holder) => Err(in_use(attempted, &holder).object("snapshot", key)),
                };
            }
            Ok(known) if known.kind == cairn_types::SnapshotKind::Active => {
                let reason = "changes of an earlier mount of another image are kept for it";
                return Err(
                    Failure::new(ErrorKind::FailedPrecondition, attempted, reason)
                        .object("snapshot", key)
                        .namespace(ns)
                        .next(format!("cairn snapshots rm '{key}'")),
                );
            }
            Ok(_) => snapshots.remove(ns, key).map_err(|err| failed(&err))?,
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(failed(&err)),
        }
        let made = match rw {
            true => snapshots.prepare(ns, key, parent, labels),
            // An image without layers has nothing to look at but an empty directory.
            false => snapshots.view(ns, key, parent, labels),
        };
        made.map_err(|err| failed(&err))
    }

    /// Unmounts what [`Node::mount_image`] mounted at `target`. Its snapshot goes too when it was
    /// read-only, or with `remove`; what was changed in a writable one is otherwise kept.
    pub fn unmount_image(
        &self,
        ns: &Namespace,
        target: &Path,
        remove: bool,
    ) -> Result<(), Failure> {
        let attempted = "unmount";
        let failed = |err: &dyn Classified| {
            Failure::of(attempted, err).object("directory", target.display())
        };
        let target = std::fs::canonicalize(target).map_err(|err| io(attempted, target, &err))?;
        let key = key_of(&target).map_err(|err| failed(&err))?;
        let pins = self.pins();
        pins.snapshot(ns, &key);
        let mounted = mount::is_mount_point(&target).map_err(|err| failed(&err))?;
        let known = match self.snapshots().stat(ns, &key) {
            Ok(info) => Some(info),
            Err(err) if err.kind() == ErrorKind::NotFound => None,
            Err(err) => return Err(failed(&err)),
        };
        // What somebody else mounted is not ours to unmount.
        let Some(known) = known else {
            let reason = match mounted {
                true => "it was not mounted by cairn in this namespace",
                false => "nothing is mounted there",
            };
            return Err(Failure::new(ErrorKind::NotFound, attempted, reason)
                .object("directory", target.display())
                .namespace(ns));
        };
        if known.kind == cairn_types::SnapshotKind::Active {
            let mounts = self.snapshots().mounts(ns, &key);
            let mounts = mounts.map_err(|err| failed(&err))?;
            let held = mount::holder(&mounts, &[&target]).map_err(|err| failed(&err))?;
            if let Some(holder) = held {
                return Err(in_use(attempted, &holder).object("directory", target.display()));
            }
            let ours = mount::holder(&mounts, &[])
                .map_err(|err| failed(&err))?
                .is_some();
            if mounted && !ours {
                let reason = "something else is mounted there";
                return Err(
                    Failure::new(ErrorKind::FailedPrecondition, attempted, reason)
                        .object("directory", target.display())
                        .next(format!("umount {}", target.display())),
                );
            }
        }
        if mounted {
            mount::unmount(&target).map_err(|err| failed(&err))?;
        }
        if remove || known.kind == cairn_types::SnapshotKind::View {
            let removed = self.snapshots().remove(ns, &key);
            removed.map_err(|err| failed(&err))?;
        }
        Ok(())
    }
}

/// A writable layer is in use elsewhere than it should be.
fn in_use(attempted: &str, holder: &mount::Holder) -> Failure {
    let reason = match holder {
        mount::Holder::Here(at) => format!("its files are mounted at {}", at.display()),
        mount::Holder::RootOf(pid) => format!("process {pid} runs in it"),
    };
    Failure::new(ErrorKind::FailedPrecondition, attempted, reason)
}

/// The snapshot of a mount point.
fn key_of(target: &Path) -> Result<SnapshotKey, cairn_types::NameError> {
    SnapshotKey::parse(&format!("mount:{}", target.display()))
}

/// Makes the directory when it is absent, and names it as the kernel will.
fn mount_point(target: &Path) -> Result<PathBuf, Failure> {
    std::fs::create_dir_all(target)
        .and_then(|()| std::fs::canonicalize(target))
        .map_err(|err| io("mount image", target, &err))
}

fn io(attempted: &str, target: &Path, err: &std::io::Error) -> Failure {
    let kind = match err.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        std::io::ErrorKind::StorageFull => ErrorKind::ResourceExhausted,
        _ => ErrorKind::Internal,
    };
    let reason = match err.kind() {
        std::io::ErrorKind::NotFound => "no such directory".to_owned(),
        std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
            format!("{} is not a directory", target.display())
        }
        _ => format!("{}: {}", target.display(), words(err)),
    };
    Failure::new(kind, attempted, reason).object("directory", target.display())
}
