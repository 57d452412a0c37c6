//! The store's half of an image's files at a directory: the snapshot behind the mount point.
//!
//! Nothing here mounts; whoever asks does, with what is handed out, and says when it is unmounted.

use cairn_meta::{Timestamp, View, schema};
use cairn_types::{
    Classified, Digest, ErrorKind, HostDir, ImageName, Labels, LeaseId, Mount, Namespace, Platform,
    SnapshotKey, SnapshotKind,
};

use crate::{Failure, Node, Progress, gc::EXPIRE, objects::word};

const MOUNT: &str = "mount image";
const UNMOUNT: &str = "unmount";
/// Keeps the snapshot of a mount from the garbage collector (containerd `pkg/gc`).
const ROOT: &str = "containerd.io/gc.root";
/// What a lease calls snapshots.
const SNAPSHOTS: &str = "snapshots/overlayfs";

/// What will be mounted, and where.
#[derive(Clone, Debug)]
pub struct MountOrder {
    /// The namespace that has the image.
    pub ns: Namespace,
    /// Its full name.
    pub name: ImageName,
    /// The mount point.
    pub target: HostDir,
    /// Writable: changes go to a snapshot of their own.
    pub rw: bool,
    /// Which variant; the host's when `None`.
    pub platform: Option<Platform>,
    /// When the garbage collector may have it, mounted or not; never when `None`. Changes of an earlier
    /// mount are kept whatever this says.
    pub expires: Option<Timestamp>,
}

/// The snapshot behind a mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    /// Its key.
    pub key: SnapshotKey,
    /// Changes can be written to it.
    pub writable: bool,
    /// It was there before, with changes in it: it must not be mounted twice.
    pub reused: bool,
    /// To be made at the mount point; of one that is looked up only when it is writable.
    pub mounts: Vec<Mount>,
}

impl Node {
    /// Prepares what shows an image's files at a mount point, unpacking them first when needed;
    /// `progress` hears of that.
    ///
    /// A snapshot that is left of an earlier mount is handed out again when it is writable, since it
    /// holds changes, and replaced when it is not.
    ///
    /// # Errors
    /// `FailedPrecondition` when changes to another image are kept for this mount point.
    pub fn prepare_mount(
        &self,
        order: &MountOrder,
        progress: &dyn Progress,
    ) -> Result<MountInfo, Failure> {
        let MountOrder { ns, name, .. } = order;
        let record = self.image_record(ns, name, MOUNT)?;
        let (pins, platform) = (self.pins(), order.platform.as_ref());
        let chain = self.unpack(ns, &record.target, platform, progress, &pins);
        let chain = chain.map_err(|mut failure| {
            // Asked for was the mount, of the image by its name.
            MOUNT.clone_into(&mut failure.attempted);
            failure.object("image", name)
        })?;
        let parent = chain.as_ref().map(SnapshotKey::from);
        let key = order.target.mount_key();
        pins.snapshot(ns, &key);
        let failed = |err: &dyn Classified| {
            Failure::of(MOUNT, err)
                .object("snapshot", &key)
                .namespace(ns)
        };
        let snapshots = self.snapshots();
        match snapshots.stat(ns, &key) {
            Ok(known) if known.kind == SnapshotKind::Active => {
                if !order.rw || known.parent != parent {
                    let reason = "changes of an earlier mount of another image are kept for it";
                    let kind = ErrorKind::FailedPrecondition;
                    return Err(Failure::new(kind, MOUNT, reason)
                        .object("snapshot", &key)
                        .namespace(ns)
                        .next(format!("cairn snapshots rm {}", word(key.as_str()))));
                }
                let mounts = snapshots.mounts(ns, &key).map_err(|err| failed(&err))?;
                return Ok(MountInfo {
                    key,
                    writable: true,
                    reused: true,
                    mounts,
                });
            }
            Ok(_) => snapshots.remove(ns, &key).map_err(|err| failed(&err))?,
            Err(err) if err.kind() == ErrorKind::NotFound => {}
            Err(err) => return Err(failed(&err)),
        }
        let mut labels = Labels::new();
        match order.expires {
            None => drop(labels.insert(ROOT.to_owned(), jiff::Timestamp::now().to_string())),
            Some(end) => self.hold_mount(ns, &order.target, end)?,
        }
        let made = match order.rw {
            true => snapshots.prepare(ns, &key, parent.as_ref(), labels),
            // An image without layers has nothing to look at but an empty directory.
            false => snapshots.view(ns, &key, parent.as_ref(), labels),
        };
        Ok(MountInfo {
            mounts: made.map_err(|err| failed(&err))?,
            key,
            writable: order.rw,
            reused: false,
        })
    }

    /// Has a lease hold the snapshot of a mount point until `end`. Before there is one: a lease holds
    /// what it names.
    fn hold_mount(&self, ns: &Namespace, target: &HostDir, end: Timestamp) -> Result<(), Failure> {
        let failed = |err: &dyn Classified| Failure::of(MOUNT, err).object("directory", target);
        let id = lease(target).map_err(|err| failed(&err))?;
        self.let_mount_go(ns, &id)?;
        let end = jiff::Timestamp::from_nanosecond(i128::from(end.0));
        let end = end.map_err(|err| {
            let reason = format!("its end is no time: {err}");
            Failure::new(ErrorKind::InvalidArgument, MOUNT, reason).object("directory", target)
        })?;
        let labels = Labels::from([(EXPIRE.to_owned(), end.to_string())]);
        self.lease_create(ns, Some(id.clone()), labels)?;
        let key = target.mount_key();
        self.lease_resource(ns, &id, (SNAPSHOTS, key.as_str()), true)
    }

    /// Removes the lease of a mount point if it has one.
    fn let_mount_go(&self, ns: &Namespace, id: &LeaseId) -> Result<(), Failure> {
        // Few have one, and a change costs a flush.
        let key = (ns.clone(), id.clone());
        let known = self.meta().read(|view| view.get(&schema::LEASES, &key));
        match known.map_err(|err| Failure::of(UNMOUNT, &err).object("lease", id))? {
            Some(_) => self.lease_delete(ns, id),
            None => Ok(()),
        }
    }

    /// What stands behind a mount point in this namespace.
    pub fn mount(&self, ns: &Namespace, target: &HostDir) -> Result<Option<MountInfo>, Failure> {
        let key = target.mount_key();
        let failed = |err: &dyn Classified| Failure::of(UNMOUNT, err).object("directory", target);
        let known = match self.snapshots().stat(ns, &key) {
            Ok(known) => known,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(failed(&err)),
        };
        let writable = known.kind == SnapshotKind::Active;
        // Nothing can be lost in a view, so nobody has to know what it shows; and one whose layers were
        // dropped after a power cut has nothing to show.
        let mounts = match writable {
            true => self
                .snapshots()
                .mounts(ns, &key)
                .map_err(|err| failed(&err))?,
            false => Vec::new(),
        };
        Ok(Some(MountInfo {
            key,
            writable,
            reused: true,
            mounts,
        }))
    }

    /// Lets go of what [`Node::prepare_mount`] made, when nothing is mounted there any more. What was
    /// changed in a writable one is kept unless `remove` says otherwise.
    ///
    /// # Errors
    /// `NotFound` when there is nothing in this namespace.
    pub fn release_mount(
        &self,
        ns: &Namespace,
        target: &HostDir,
        remove: bool,
    ) -> Result<(), Failure> {
        let key = target.mount_key();
        let pins = self.pins();
        pins.snapshot(ns, &key);
        let failed = |err: &dyn Classified| {
            Failure::of(UNMOUNT, err)
                .object("directory", target)
                .namespace(ns)
        };
        let known = self
            .snapshots()
            .stat(ns, &key)
            .map_err(|err| failed(&err))?;
        if remove || known.kind == SnapshotKind::View {
            let removed = self.snapshots().remove(ns, &key);
            removed.map_err(|err| failed(&err))?;
            let id = lease(target).map_err(|err| failed(&err))?;
            self.let_mount_go(ns, &id)?;
        }
        Ok(())
    }
}

/// The lease of a mount point: a path can have what a lease's name cannot.
fn lease(target: &HostDir) -> Result<LeaseId, cairn_types::NameError> {
    let digest = Digest::sha256(target.as_str().as_bytes());
    LeaseId::parse(&format!("mount-{:.16}", digest.hex()))
}
