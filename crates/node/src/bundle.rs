//! The store's half of bundles: an image's stack under a writable snapshot, and the record of both.
//!
//! Nothing here mounts, or writes outside of the store: whoever asks for a bundle builds its directory
//! from what [`Node::bundle_begin`] hands out, and says when it is there. The record says first that it
//! is being made, and last that it is whole; so what was cut short is known, to be undone by the next
//! one who finds nobody at work on it.

use cairn_meta::{BundleRecord, Timestamp, Tx, View, schema};
use cairn_types::{
    Classified, Descriptor, Digest, ErrorKind, HostDir, ImageName, Labels, Mount, Namespace,
    Platform, SnapshotKey,
};

use crate::{
    Failure, Node, Progress,
    objects::word,
    store::StoreBlobs,
    walk::{Body, Tree},
};

const CREATE: &str = "create bundle";
const REMOVE: &str = "remove bundle";
const LIST: &str = "list bundles";
/// Keeps the writable snapshot from the garbage collector while there is no whole record of it.
const ROOT: &str = "containerd.io/gc.root";

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleOrder {
    /// The namespace that has the image.
    pub ns: Namespace,
    /// Its full name.
    pub image: ImageName,
    /// Where the bundle will be.
    pub dir: HostDir,
    /// Which variant; the host's when `None`.
    pub platform: Option<Platform>,
}

/// A bundle as the store knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleInfo {
    /// Its directory.
    pub dir: String,
    /// The namespace of its image.
    pub namespace: Namespace,
    /// The image it was made from.
    pub image: ImageName,
    /// The manifest that was taken.
    pub manifest: Digest,
    /// `linux/amd64`.
    pub platform: String,
    /// Its writable layer.
    pub snapshot: SnapshotKey,
    /// Bytes of its writable layer.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    /// It is whole; otherwise it is being made or removed, or that was cut short.
    pub made: bool,
    /// Its root is plain files: it has no writable layer any more.
    pub copied: bool,
}

/// What a bundle's directory is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleBegun {
    /// Its record.
    pub bundle: BundleInfo,
    /// To be made at the mount point of its root.
    pub mounts: Vec<Mount>,
    /// The image's configuration as stored.
    pub config: Vec<u8>,
}

struct Chosen {
    manifest: Descriptor,
    platform: Platform,
    config: Vec<u8>,
}

fn failed(attempted: &str, dir: &HostDir, err: &dyn Classified) -> Failure {
    Failure::of(attempted, err).object("bundle", dir)
}

impl Node {
    /// Unpacks the image where needed (`progress` hears of that), records a bundle that is being made,
    /// and prepares its writable snapshot. Nothing is recorded when it was given up meanwhile.
    ///
    /// # Errors
    /// `AlreadyExists` when there is a record for the directory, whole or not; `InvalidArgument` for a
    /// directory inside the store, where its next opening would sweep it away.
    pub fn bundle_begin(
        &self,
        order: &BundleOrder,
        progress: &dyn Progress,
    ) -> Result<BundleBegun, Failure> {
        let BundleOrder { ns, image, dir, .. } = order;
        let failed = |err: &dyn Classified| failed(CREATE, dir, err).namespace(ns);
        let record = self.image_record(ns, image, CREATE)?;
        if dir.as_path().starts_with(self.real_root()) {
            let reason = "it would be inside the store";
            let failure = Failure::new(ErrorKind::InvalidArgument, CREATE, reason);
            return Err(failure.object("bundle", dir));
        }
        let chosen = self.choose_for_bundle(order, &record.target)?;
        let (pins, platform) = (self.pins(), order.platform.as_ref());
        pins.snapshot(ns, &dir.bundle_key());
        let chain = self.unpack(ns, &record.target, platform, progress, &pins)?;
        if progress.given_up() {
            let failure = Failure::new(ErrorKind::Canceled, CREATE, "nobody waits for it any more");
            return Err(failure.object("bundle", dir));
        }
        let record = BundleRecord {
            namespace: ns.clone(),
            image: image.clone(),
            manifest: chosen.manifest.digest,
            snapshot: dir.bundle_key(),
            platform: chosen.platform.to_string(),
            created_at: Timestamp::now(),
            made: false,
            copied: false,
        };
        // First, so that whatever is made from here on is found after a crash.
        self.record_bundle(dir, &record)?;
        let mut labels = Labels::new();
        labels.insert(ROOT.to_owned(), jiff::Timestamp::now().to_string());
        let parent = chain.as_ref().map(SnapshotKey::from);
        let snapshots = self.snapshots();
        let prepared = snapshots.prepare(ns, &record.snapshot, parent.as_ref(), labels);
        let mounts = prepared.map_err(|err| {
            if let Err(err) = self.forget_bundle(dir, &record) {
                tracing::warn!("remove what is left of bundle {dir}: {err}");
            }
            failed(&err)
        })?;
        Ok(BundleBegun {
            bundle: info(dir.to_string(), record, 0),
            mounts,
            config: chosen.config,
        })
    }

    fn choose_for_bundle(
        &self,
        order: &BundleOrder,
        target: &Descriptor,
    ) -> Result<Chosen, Failure> {
        let (ns, image) = (&order.ns, order.image.as_str());
        let blobs = StoreBlobs::new(self, ns, CREATE, image.to_owned());
        let tree = Tree::read(&blobs, target)?;
        let picked = self.pick(ns, &tree, order.platform.as_ref(), CREATE, image)?;
        let Body::Manifest(body) = &picked.body else {
            return Err(blobs.missing(&picked.descriptor));
        };
        Ok(Chosen {
            manifest: picked.descriptor.clone(),
            platform: picked.platform().unwrap_or_else(Platform::host),
            config: body.config_bytes.clone().unwrap_or_default(),
        })
    }

    /// Records that the directory is in place. One whose root was `copied` needs its writable layer no
    /// more, nor what that stands on.
    ///
    /// # Errors
    /// `NotFound` when nothing was begun there.
    pub fn bundle_complete(&self, dir: &HostDir, copied: bool) -> Result<(), Failure> {
        // Before it is whole: what is cut short in between is undone altogether.
        if copied && let Some(known) = self.bundle_record(dir, CREATE)? {
            let pins = self.pins();
            pins.snapshot(&known.namespace, &known.snapshot);
            self.drop_layer(dir, &known, CREATE)?;
        }
        self.mark_bundle(dir, CREATE, move |record| {
            record.made = true;
            record.copied = copied;
        })
    }

    /// Records that the directory is going to be removed, before anything of it is.
    ///
    /// # Errors
    /// `NotFound` when there is no bundle.
    pub fn bundle_withdraw(&self, dir: &HostDir) -> Result<(), Failure> {
        self.mark_bundle(dir, REMOVE, |record| record.made = false)
    }

    /// Drops snapshot and record of a bundle that is not whole, after its directory was unmounted and
    /// deleted. One that is gone already is none to drop.
    ///
    /// # Errors
    /// `FailedPrecondition` when it is whole.
    pub fn bundle_drop(&self, dir: &HostDir) -> Result<(), Failure> {
        let Some(known) = self.bundle_record(dir, REMOVE)? else {
            return Ok(());
        };
        let pins = self.pins();
        pins.snapshot(&known.namespace, &known.snapshot);
        if known.made {
            let failure = Failure::new(ErrorKind::FailedPrecondition, REMOVE, "it is whole");
            return Err(failure.object("bundle", dir));
        }
        self.forget_bundle(dir, &known)
    }

    /// The bundle at a directory, of whatever namespace, with the mounts of its root. There are none
    /// when its snapshot is gone, or its root plain files.
    pub fn bundle(&self, dir: &HostDir) -> Result<Option<(BundleInfo, Vec<Mount>)>, Failure> {
        let Some(record) = self.bundle_record(dir, LIST)? else {
            return Ok(None);
        };
        let mounts = self.snapshots().mounts(&record.namespace, &record.snapshot);
        let mounts = match mounts {
            Ok(mounts) => mounts,
            Err(err) if err.kind() == ErrorKind::NotFound => Vec::new(),
            Err(err) => return Err(failed(LIST, dir, &err)),
        };
        let size = self.bundle_size(&record, dir.as_str())?;
        Ok(Some((info(dir.to_string(), record, size), mounts)))
    }

    /// The whole bundles of a namespace by directory.
    pub fn bundles(&self, ns: &Namespace) -> Result<Vec<BundleInfo>, Failure> {
        let scan = self.meta().read(|view| view.scan(&schema::BUNDLES, &()));
        let records = scan.map_err(|err| Failure::of(LIST, &err).namespace(ns))?;
        let mut bundles = Vec::new();
        for (dir, record) in records {
            if record.namespace == *ns && record.made {
                let size = self.bundle_size(&record, &dir)?;
                bundles.push(info(dir, record, size));
            }
        }
        bundles.sort_by(|a, b| a.dir.cmp(&b.dir));
        Ok(bundles)
    }

    /// Those of every namespace that are not whole: somebody is at work on them, or was.
    pub fn unfinished_bundles(&self) -> Result<Vec<BundleInfo>, Failure> {
        let scan = self
            .meta()
            .read(|view| view.scan_sound(&schema::BUNDLES, &()));
        let (records, damaged) = scan.map_err(|err| Failure::of(LIST, &err))?;
        for err in damaged {
            tracing::error!("{err}");
        }
        let unfinished = records.into_iter().filter(|(_, record)| !record.made);
        Ok(unfinished
            .map(|(dir, record)| info(dir, record, 0))
            .collect())
    }

    fn bundle_size(&self, record: &BundleRecord, dir: &str) -> Result<u64, Failure> {
        match self.snapshots().usage(&record.namespace, &record.snapshot) {
            Ok(usage) => Ok(usage.bytes),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(0),
            Err(err) => Err(Failure::of(LIST, &err).object("bundle", dir)),
        }
    }

    fn bundle_record(
        &self,
        dir: &HostDir,
        attempted: &str,
    ) -> Result<Option<BundleRecord>, Failure> {
        let key = dir.to_string();
        let read = self.meta().read(|view| view.get(&schema::BUNDLES, &key));
        read.map_err(|err| failed(attempted, dir, &err))
    }

    /// Looks and writes in one transaction: of two who begin at once one is refused.
    fn record_bundle(&self, dir: &HostDir, record: &BundleRecord) -> Result<(), Failure> {
        let (key, record) = (dir.to_string(), record.clone());
        let written = self.meta().write(move |tx: &mut Tx| {
            if tx.get(&schema::BUNDLES, &key)?.is_some() {
                return Ok(false);
            }
            tx.put(&schema::BUNDLES, &key, &record)?;
            Ok::<_, cairn_meta::Error>(true)
        });
        match written {
            Ok(true) => Ok(()),
            Ok(false) => {
                let reason = "there is one already";
                Err(Failure::new(ErrorKind::AlreadyExists, CREATE, reason)
                    .object("bundle", dir)
                    .next(format!("cairn bundle rm {}", word(dir.as_str()))))
            }
            Err(err) => Err(failed(CREATE, dir, &err)),
        }
    }

    fn mark_bundle(
        &self,
        dir: &HostDir,
        attempted: &str,
        change: impl FnOnce(&mut BundleRecord) + Send + 'static,
    ) -> Result<(), Failure> {
        let key = dir.to_string();
        let written = self.meta().write(move |tx: &mut Tx| {
            let Some(mut record) = tx.get(&schema::BUNDLES, &key)? else {
                return Ok(false);
            };
            change(&mut record);
            tx.put(&schema::BUNDLES, &key, &record)?;
            Ok::<_, cairn_meta::Error>(true)
        });
        match written {
            Ok(true) => Ok(()),
            Ok(false) => {
                let reason = "no bundle was made there";
                Err(Failure::new(ErrorKind::NotFound, attempted, reason).object("bundle", dir))
            }
            Err(err) => Err(failed(attempted, dir, &err)),
        }
    }

    /// The snapshot first: a record without one is finished by the next who comes by.
    fn forget_bundle(&self, dir: &HostDir, known: &BundleRecord) -> Result<(), Failure> {
        self.drop_layer(dir, known, REMOVE)?;
        let key = dir.to_string();
        let written = self
            .meta()
            .write(move |tx: &mut Tx| tx.delete(&schema::BUNDLES, &key));
        written.map_err(|err| failed(REMOVE, dir, &err))
    }

    fn drop_layer(
        &self,
        dir: &HostDir,
        known: &BundleRecord,
        attempted: &str,
    ) -> Result<(), Failure> {
        match self.snapshots().remove(&known.namespace, &known.snapshot) {
            Err(err) if err.kind() != ErrorKind::NotFound => Err(failed(attempted, dir, &err)),
            _ => Ok(()),
        }
    }
}

fn info(dir: String, record: BundleRecord, size: u64) -> BundleInfo {
    BundleInfo {
        dir,
        namespace: record.namespace,
        image: record.image,
        manifest: record.manifest,
        platform: record.platform,
        snapshot: record.snapshot,
        size,
        created_at: record.created_at.0,
        made: record.made,
        copied: record.copied,
    }
}
