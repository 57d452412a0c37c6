//! Making a bundle, or mounting one again.

use std::ffi::OsStr;

use cairn_meta::{BundleRecord, ImageRecord, Timestamp, Tx, View, schema};
use cairn_sys::{Dir, durable, mount};
use cairn_types::{Classified, Descriptor, ErrorKind, Labels, Platform, SnapshotKey, SnapshotKind};

use super::{
    BundleRequest, Bundled,
    place::{CONFIG, Place},
    process::{self},
    spec::{self, ImageDocument},
};
use crate::{
    Failure, Node, Progress,
    store::StoreBlobs,
    walk::{Body, Tree},
};

pub(super) const ATTEMPTED: &str = "create bundle";
/// Keeps the writable snapshot from the garbage collector while there is no whole record of it.
const ROOT: &str = "containerd.io/gc.root";

/// What of the image the bundle is made from.
pub(super) struct Chosen {
    pub(super) manifest: Descriptor,
    pub(super) platform: Platform,
    pub(super) document: ImageDocument,
}

impl Node {
    /// Makes a bundle, unpacking the image first when needed; `progress` hears of that.
    ///
    /// A bundle of the same image that is there and not mounted (the machine was started again) is
    /// mounted as it is.
    pub fn bundle_create(
        &self,
        request: &BundleRequest,
        progress: &dyn Progress,
    ) -> Result<Bundled, Failure> {
        let (place, record) = self.bundle_place(request)?;
        let _taken = self.take_place(&place, ATTEMPTED)?;
        let failed = |err: &dyn Classified| failure(&place, request, err);
        let id = match &request.id {
            Some(id) => id.clone(),
            None => process::id_of(place.dir()),
        };
        let chosen = self.choose_for_bundle(request, &record.target)?;
        if let Some(known) = self.bundle_record(place.key(), ATTEMPTED)? {
            let ours = place.is_ours(self.root()).map_err(|err| failed(&err))?;
            if known.made && ours {
                return self.remount(request, &place, &known, id, chosen.platform);
            }
            if known.made {
                self.refuse_held(&place, &known, &[], ATTEMPTED)?;
                return Err(match place.is_free().map_err(|err| failed(&err))? {
                    true => gone(&place, &known),
                    false => not_empty(&place, false),
                });
            }
            // An attempt of this process failed half-way.
            self.drop_bundle(&place, &known)?;
        }
        if !place.is_free().map_err(|err| failed(&err))? {
            return Err(not_empty(&place, false));
        }
        let pins = self.pins();
        pins.snapshot(&request.ns, place.snapshot());
        let chain = self.unpack_pinned(
            &request.ns,
            &record.target,
            request.platform.as_ref(),
            progress,
            &pins,
        )?;
        let mut record = BundleRecord {
            namespace: request.ns.clone(),
            image: request.image.clone(),
            manifest: chosen.manifest.digest.clone(),
            snapshot: place.snapshot().clone(),
            platform: chosen.platform.to_string(),
            created_at: Timestamp::now(),
            made: false,
        };
        // First, so that whatever is made from here on is found after a crash.
        self.put_bundle(&place, &record)?;
        let parent = chain.as_ref().map(SnapshotKey::from);
        let made = self.build(request, &place, &chosen, parent.as_ref(), &id);
        if let Err(failure) = made {
            if let Err(err) = self.drop_bundle(&place, &record) {
                tracing::warn!("remove what is left of bundle {}: {err}", place.key());
            }
            return Err(failure);
        }
        record.made = true;
        self.put_bundle(&place, &record)?;
        Ok(Bundled {
            dir: place.dir().to_owned(),
            id,
            platform: chosen.platform,
            remounted: false,
            withheld_labels: spec::withheld(&chosen.document),
        })
    }

    /// Checks what can be checked before anything is touched.
    fn bundle_place(&self, request: &BundleRequest) -> Result<(Place, ImageRecord), Failure> {
        let refuse = |kind, reason: String| {
            Err(Failure::new(kind, ATTEMPTED, reason).object("bundle", request.dir.display()))
        };
        if !cairn_sys::is_root() {
            return refuse(
                ErrorKind::PermissionDenied,
                "mounting needs root".to_owned(),
            );
        }
        if let Some(id) = request.id.as_ref().filter(|id| !process::is_id(id)) {
            let reason = format!("id {id:?} is not made of letters, digits and \"_+-.\" alone");
            return refuse(ErrorKind::InvalidArgument, reason);
        }
        if let Some(name) = request
            .hostname
            .as_ref()
            .filter(|name| !process::is_hostname(name))
        {
            let reason = format!("{name:?} cannot be a host name");
            return refuse(ErrorKind::InvalidArgument, reason);
        }
        // An image must exist before directories are made for it.
        let record = self.image_record(&request.ns, &request.image, ATTEMPTED)?;
        let place = Place::find(&request.dir, true, ATTEMPTED)?;
        // What the store does not know there is swept at its next opening.
        match self.root().canonicalize() {
            Ok(root) if place.dir().starts_with(&root) => refuse(
                ErrorKind::InvalidArgument,
                "it would be inside the store".to_owned(),
            ),
            _ => Ok((place, record)),
        }
    }

    fn choose_for_bundle(
        &self,
        request: &BundleRequest,
        target: &Descriptor,
    ) -> Result<Chosen, Failure> {
        let image = request.image.as_str();
        let blobs = StoreBlobs::new(self, &request.ns, ATTEMPTED, image.to_owned());
        let tree = Tree::read(&blobs, target)?;
        let picked = self.pick(
            &request.ns,
            &tree,
            request.platform.as_ref(),
            ATTEMPTED,
            image,
        )?;
        let Body::Manifest(body) = &picked.body else {
            return Err(blobs.missing(&picked.descriptor));
        };
        let bytes = body.config_bytes.as_deref().unwrap_or_default();
        let document: ImageDocument = serde_json::from_slice(bytes).map_err(|err| {
            let reason = "its configuration cannot be read";
            Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason)
                .object("bundle", request.dir.display())
                .cause(err.to_string())
                .at(format!("blob {}", body.manifest.config.digest))
        })?;
        Ok(Chosen {
            manifest: picked.descriptor.clone(),
            platform: picked.platform().unwrap_or_else(Platform::host),
            document,
        })
    }

    fn build(
        &self,
        request: &BundleRequest,
        place: &Place,
        chosen: &Chosen,
        parent: Option<&SnapshotKey>,
        id: &str,
    ) -> Result<(), Failure> {
        let failed = |err: &dyn Classified| failure(place, request, err);
        let bundle = place.begin(self.root()).map_err(|err| failed(&err))?;
        let mut labels = Labels::new();
        labels.insert(ROOT.to_owned(), jiff::Timestamp::now().to_string());
        let prepared = self
            .snapshots()
            .prepare(&request.ns, place.snapshot(), parent, labels);
        let mounts = prepared.map_err(|err| failed(&err))?;
        mount::perform(&mounts, &place.rootfs_aside()).map_err(|err| failed(&err))?;
        let bytes = {
            let root = Dir::open(&place.rootfs_aside()).map_err(|err| failed(&err))?;
            self.configuration(request, place, chosen, &bundle, &root, id)?
        };
        durable::write_file(&bundle, OsStr::new(CONFIG), &bytes, 0o600)
            .and_then(|()| place.publish(&bundle))
            .map_err(|err| failed(&err))
    }

    fn remount(
        &self,
        request: &BundleRequest,
        place: &Place,
        known: &BundleRecord,
        id: String,
        platform: Platform,
    ) -> Result<Bundled, Failure> {
        let failed = |err: &dyn Classified| failure(place, request, err);
        let target = place.rootfs();
        let same = known.image == request.image && known.namespace == request.ns;
        if !same || mount::is_mount_point(&target).map_err(|err| failed(&err))? {
            return Err(not_empty(place, true));
        }
        if request.is_customised() {
            let reason = "a bundle of this image is there, with a configuration of its own";
            let (image, dir) = (&request.image, place.dir().display());
            return Err(Failure::new(ErrorKind::AlreadyExists, ATTEMPTED, reason)
                .object("bundle", &dir)
                .next(format!("cairn bundle create {image} {dir}"))
                .next(format!("cairn bundle rm {dir}")));
        }
        let pins = self.pins();
        pins.snapshot(&known.namespace, &known.snapshot);
        // Somebody may have unmounted it while a container runs in it.
        self.refuse_held(place, known, &[], ATTEMPTED)?;
        let stat = self.snapshots().stat(&known.namespace, &known.snapshot);
        let stat = stat.map_err(|err| failed(&err))?;
        debug_assert_eq!(stat.kind, SnapshotKind::Active);
        let mounts = self.snapshots().mounts(&known.namespace, &known.snapshot);
        mounts
            .map_err(|err| failed(&err))
            .and_then(|mounts| mount::perform(&mounts, &target).map_err(|err| failed(&err)))?;
        Ok(Bundled {
            dir: place.dir().to_owned(),
            id,
            platform,
            remounted: true,
            withheld_labels: Vec::new(),
        })
    }

    /// The record of the bundle at `key`.
    pub(super) fn bundle_record(
        &self,
        key: &str,
        attempted: &str,
    ) -> Result<Option<BundleRecord>, Failure> {
        let read = self
            .meta()
            .read(|view| view.get(&schema::BUNDLES, &key.to_owned()));
        read.map_err(|err| Failure::of(attempted, &err).object("bundle", key))
    }

    pub(super) fn put_bundle(&self, place: &Place, record: &BundleRecord) -> Result<(), Failure> {
        let (key, record) = (place.key().to_owned(), record.clone());
        let written = self
            .meta()
            .write(move |tx: &mut Tx| tx.put(&schema::BUNDLES, &key, &record));
        written.map_err(|err| Failure::of(ATTEMPTED, &err).object("bundle", place.key()))
    }
}

impl BundleRequest {
    /// Whether it asks for more than the image's own configuration.
    fn is_customised(&self) -> bool {
        let plain = BundleRequest {
            id: self.id.clone(),
            platform: self.platform.clone(),
            ..BundleRequest::new(self.ns.clone(), self.image.clone(), self.dir.clone())
        };
        *self != plain
    }
}

pub(super) fn failure(place: &Place, request: &BundleRequest, err: &dyn Classified) -> Failure {
    Failure::of(ATTEMPTED, err)
        .object("bundle", place.dir().display())
        .namespace(&request.ns)
}

/// Only one of `ours` can be removed by us.
/// Perhaps a disk is not mounted; what was written in the container is not thrown away for that.
fn gone(place: &Place, known: &BundleRecord) -> Failure {
    let dir = place.dir().display();
    let reason = format!("the bundle of {} that was made there is gone", known.image);
    Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason)
        .object("bundle", &dir)
        .next(format!("cairn bundle rm {dir}"))
}

fn not_empty(place: &Place, ours: bool) -> Failure {
    let dir = place.dir().display();
    let reason = "the directory is not empty";
    let mut failure =
        Failure::new(ErrorKind::AlreadyExists, ATTEMPTED, reason).object("bundle", &dir);
    if ours {
        failure = failure.next(format!("cairn bundle rm {dir}"));
    }
    failure.next("choose another DIR")
}
