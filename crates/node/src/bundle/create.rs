//! Making a bundle, or mounting one again.

use std::{ffi::OsStr, path::PathBuf};

use cairn_meta::{BundleRecord, Timestamp, Tx, View, schema};
use cairn_sys::{Dir, durable, mount};
use cairn_types::{Classified, Descriptor, ErrorKind, Labels, Platform, SnapshotKey, SnapshotKind};
use rustix::fs::FileType;

use super::{
    BundleRequest, Bundled, cwd,
    place::{CONFIG, Place},
    process::{self, ImageProcess, ProcessError},
    spec::{self, ImageDocument, Parts},
    users, volumes,
};
use crate::{
    Failure, Node, Progress,
    store::StoreBlobs,
    walk::{Body, Tree},
};

const ATTEMPTED: &str = "create bundle";
/// Keeps the writable snapshot from the garbage collector while there is no whole record of it.
const ROOT: &str = "containerd.io/gc.root";
/// Whoever writes more volumes than this into an image wants to exhaust somebody.
const VOLUMES_MAX: usize = 1024;

/// What of the image the bundle is made from.
struct Chosen {
    manifest: Descriptor,
    platform: Platform,
    document: ImageDocument,
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
        let place = self.bundle_place(request)?;
        let _taken = self.take_place(&place, ATTEMPTED)?;
        let failed = |err: &dyn Classified| failure(&place, request, err);
        let record = self.image_record(&request.ns, &request.image, ATTEMPTED)?;
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
        let chain = self.unpack(
            &request.ns,
            &record.target,
            request.platform.as_ref(),
            progress,
        )?;
        let _busy = self.working();
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
    fn bundle_place(&self, request: &BundleRequest) -> Result<Place, Failure> {
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
        self.image_record(&request.ns, &request.image, ATTEMPTED)?;
        let place = Place::find(&request.dir, true, ATTEMPTED)?;
        // What the store does not know there is swept at its next opening.
        match self.root().canonicalize() {
            Ok(root) if place.dir().starts_with(&root) => refuse(
                ErrorKind::InvalidArgument,
                "it would be inside the store".to_owned(),
            ),
            _ => Ok(place),
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

    /// The bytes of `config.json` for the image whose files are at `root`; makes its volumes.
    fn configuration(
        &self,
        request: &BundleRequest,
        place: &Place,
        chosen: &Chosen,
        bundle: &Dir,
        root: &Dir,
        id: &str,
    ) -> Result<Vec<u8>, Failure> {
        let refuse = |kind, reason: String| {
            Failure::new(kind, ATTEMPTED, reason).object("bundle", place.dir().display())
        };
        let failed = |err: &dyn Classified| failure(place, request, err);
        mount_points_are_real(root).map_err(|reason| {
            refuse(ErrorKind::FailedPrecondition, reason).at(format!("image {}", request.image))
        })?;
        let config = chosen.document.config.clone().unwrap_or_default();
        let user = request
            .user
            .as_deref()
            .or_else(|| config.user().as_deref())
            .unwrap_or_default();
        let identity = users::look_up(root, user).map_err(|err| {
            refuse(err.kind(), err.to_string()).next("give another one with --user UID[:GID]")
        })?;
        let image = ImageProcess {
            entrypoint: config.entrypoint().as_deref().unwrap_or_default(),
            cmd: config.cmd().as_deref().unwrap_or_default(),
            env: config.env().as_deref().unwrap_or_default(),
        };
        let unfit = |err| match err {
            ProcessError::NothingToRun => {
                let reason = "the image names no program to run".to_owned();
                let (image, dir) = (&request.image, place.dir().display());
                refuse(ErrorKind::FailedPrecondition, reason)
                    .next(format!("cairn bundle create {image} {dir} -- /bin/sh"))
            }
            ProcessError::Unfit(reason) => refuse(ErrorKind::InvalidArgument, reason),
        };
        let hostname = match &request.hostname {
            Some(name) => name.clone(),
            None => process::hostname_of(id),
        };
        let cwd = request
            .cwd
            .as_deref()
            .or_else(|| config.working_dir().as_deref())
            .unwrap_or("/");
        let cwd = cwd::check(root, cwd).map_err(|reason| {
            refuse(
                ErrorKind::InvalidArgument,
                format!("working directory {cwd:?}: {reason}"),
            )
            .next("give another one with --cwd DIR")
        })?;
        let listed = spec::sorted(config.volumes().clone().unwrap_or_default());
        let volumes = make_volumes(place, bundle, root, &listed).map_err(|err| match err {
            Volumes::Unfit(reason) => {
                refuse(ErrorKind::InvalidArgument, reason).at(format!("image {}", request.image))
            }
            Volumes::Failed(err) => failed(&err),
        })?;
        let document = spec::spec(Parts {
            request,
            image: &chosen.document,
            platform: &chosen.platform,
            args: process::arguments(&image, request).map_err(unfit)?,
            env: process::environment(&image, request, &hostname, &identity).map_err(unfit)?,
            cwd,
            identity,
            hostname,
            volumes,
            cgroup2: mount::is_cgroup2(),
        });
        document
            .map_err(|err| err.to_string())
            .and_then(|document| render(&document).map_err(|err| err.to_string()))
            .map_err(|reason| refuse(ErrorKind::Internal, reason))
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
        let _busy = self.working();
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

/// Runtimes mount on these, and some follow a link that an image put in the way
/// (CVE-2019-19921, CVE-2023-27561).
fn mount_points_are_real(root: &Dir) -> Result<(), String> {
    for name in ["dev", "proc", "sys"] {
        let stat = root
            .try_stat(OsStr::new(name))
            .map_err(|err| err.to_string())?;
        let kind = stat.map(|stat| FileType::from_raw_mode(stat.st_mode));
        if kind.is_some_and(|kind| kind != FileType::Directory) {
            return Err(format!("the image's /{name} is not a directory"));
        }
    }
    Ok(())
}

enum Volumes {
    Unfit(String),
    Failed(cairn_sys::Error),
}

fn make_volumes(
    place: &Place,
    bundle: &Dir,
    root: &Dir,
    listed: &[String],
) -> Result<Vec<(String, PathBuf)>, Volumes> {
    if listed.len() > VOLUMES_MAX {
        let reason = format!("the image has more than {VOLUMES_MAX} volumes");
        return Err(Volumes::Unfit(reason));
    }
    // A runtime follows the image's links to where it mounts. So what counts is where they lead: a
    // directory of the image bound over `/dev` would have the runtime open whatever the image's
    // `null` is a link to. The kernel's mounts are not covered, and a path given in two spellings is
    // one volume.
    let mut paths = Vec::new();
    for path in listed.iter().filter(|path| !process::is_kernels(path)) {
        let place = cwd::resolve(root, path)
            .map_err(|reason| Volumes::Unfit(format!("volume {path:?}: {reason}")))?;
        if !process::is_kernels(&place) {
            paths.push(place);
        }
    }
    paths.sort_unstable();
    paths.dedup();
    if paths.is_empty() {
        return Ok(Vec::new());
    }
    let name = OsStr::new("volumes");
    bundle.create_dir(name, 0o700).map_err(Volumes::Failed)?;
    let dir = bundle.open_dir(name).map_err(Volumes::Failed)?;
    let mut made = Vec::new();
    for (number, path) in paths.into_iter().enumerate() {
        let number = number.to_string();
        volumes::make(root, &path, &dir, OsStr::new(&number)).map_err(Volumes::Failed)?;
        made.push((path, place.dir().join(name).join(number)));
    }
    Ok(made)
}

/// Keys in order and sets sorted, so that the same request gives the same bytes.
fn render(document: &oci_spec::runtime::Spec) -> serde_json::Result<Vec<u8>> {
    let mut value = serde_json::to_value(document)?;
    if let Some(sets) = value
        .pointer_mut("/process/capabilities")
        .and_then(|sets| sets.as_object_mut())
    {
        for set in sets.values_mut().filter_map(|set| set.as_array_mut()) {
            set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    let mut bytes = serde_json::to_vec_pretty(&value)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn failure(place: &Place, request: &BundleRequest, err: &dyn Classified) -> Failure {
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
