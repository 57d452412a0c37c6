//! Making a bundle, or mounting one again.

use std::ffi::OsStr;

use cairn_sys::{Dir, durable, mount};
use cairn_types::{Classified, ErrorKind, Failure, Mount, Platform};

use crate::{
    Begun, BundleRequest, Bundled, Known, Store, claim,
    configure::Chosen,
    copy, owners,
    place::{CONFIG, Marker, Place, unmount_all},
    process,
    remove::{refuse_held, undo, unfinished_part},
    spec::{self, ImageDocument},
};

pub(crate) const ATTEMPTED: &str = "create bundle";

/// Makes a bundle of what `store` hands out.
///
/// A bundle of the same image that is there and not mounted (the machine was started again) is mounted
/// as it is. What an attempt that was cut short left there is undone first.
///
/// # Errors
/// The store's; `AlreadyExists` when the directory is not empty; `Unavailable` when somebody makes or
/// removes a bundle there. Nothing is left behind then, unless the store cannot be reached any more:
/// in that case [`crate::finish`] removes it.
pub fn create<S: Store>(store: &S, request: &BundleRequest) -> Result<Bundled, S::Error> {
    check(request)?;
    let mut place = Place::find(&request.dir, ATTEMPTED)?;
    let _claim = claim::take(place.dir(), ATTEMPTED, "bundle")?;
    let id = match &request.id {
        Some(id) => id.clone(),
        None => process::id_of(place.dir().as_path()),
    };
    match store.get(place.dir())? {
        Some(known) if known.made => return Ok(remount(request, &place, &known, id)?),
        // Whoever was at work on it is gone, since the claim is ours.
        Some(known) => unfinished_part(store, &place, &known)?,
        None => {}
    }
    let failed = |place: &Place, err: &dyn Classified| failure(place, request, err);
    if !place.is_free().map_err(|err| failed(&place, &err))? {
        return Err(not_empty(&place, false).into());
    }
    let begun = store.begin(request, place.dir())?;
    let built = place
        .make_parents()
        .map_err(|err| failed(&place, &err))
        .and_then(|()| build(request, &place, &begun, &id));
    let made = match built {
        Ok(made) => made,
        Err(failure) => {
            let dir = place.dir();
            let undone = undo(&place, &begun.marker(), &begun.mounts).map_err(S::Error::from);
            if let Err(err) = undone.and_then(|()| store.discard(dir)) {
                tracing::warn!("remove what is left of bundle {dir}: {err}");
            }
            return Err(failure.into());
        }
    };
    store.complete(place.dir(), made.copied)?;
    Ok(made)
}

/// Checks what can be checked before anything is touched.
fn check(request: &BundleRequest) -> Result<(), Failure> {
    let refuse = |kind, reason: String| {
        Err(Failure::new(kind, ATTEMPTED, reason).object("bundle", request.dir.display()))
    };
    if !cairn_sys::is_root() {
        let reason = "mounting needs root".to_owned();
        return refuse(ErrorKind::PermissionDenied, reason);
    }
    if let Some(id) = request.id.as_ref().filter(|id| !process::is_id(id)) {
        let reason = format!("id {id:?} is not made of letters, digits and \"_+-.\" alone");
        return refuse(ErrorKind::InvalidArgument, reason);
    }
    let hostname = request.hostname.as_ref();
    if let Some(name) = hostname.filter(|name| !process::is_hostname(name)) {
        let reason = format!("{name:?} cannot be a host name");
        return refuse(ErrorKind::InvalidArgument, reason);
    }
    Ok(())
}

impl Begun {
    fn marker(&self) -> Marker<'_> {
        Marker {
            store: &self.store,
            snapshot: &self.snapshot,
        }
    }
}

impl Known {
    pub(crate) fn marker(&self) -> Marker<'_> {
        Marker {
            store: &self.store,
            snapshot: &self.snapshot,
        }
    }

    /// What makes its root, by which it is found where somebody has it. Plain files are what a runtime
    /// binds.
    pub(crate) fn root(&self, place: &Place) -> Vec<Mount> {
        match self.copied {
            false => self.mounts.clone(),
            true => vec![Mount {
                kind: "bind".to_owned(),
                source: place.rootfs().display().to_string(),
                target: String::new(),
                options: Vec::new(),
            }],
        }
    }
}

fn build(
    request: &BundleRequest,
    place: &Place,
    begun: &Begun,
    id: &str,
) -> Result<Bundled, Failure> {
    let failed = |err: &dyn Classified| failure(place, request, err);
    let document: ImageDocument = serde_json::from_slice(&begun.config).map_err(|err| {
        let reason = "its configuration cannot be read";
        Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason)
            .object("bundle", place.dir())
            .cause(err.to_string())
            .at(format!("image {}", request.image))
    })?;
    let chosen = Chosen {
        platform: platform(&begun.platform),
        document,
    };
    let map = request.owners.as_ref();
    let begun_aside = place.begin(&begun.marker(), map);
    let bundle = begun_aside.map_err(|err| failed(&err))?;
    let copied = root(request, place, begun, &bundle).map_err(|err| failed(&err))?;
    let bytes = {
        let root = Dir::open(&place.rootfs_aside()).map_err(|err| failed(&err))?;
        chosen.configuration(request, place, &bundle, &root, id)?
    };
    durable::write_file(&bundle, OsStr::new(CONFIG), &bytes, 0o600)
        .and_then(|()| place.publish(&bundle))
        .map_err(|err| failed(&err))?;
    Ok(Bundled {
        dir: place.dir().as_path().to_owned(),
        id: id.to_owned(),
        withheld_labels: spec::withheld(&chosen.document),
        platform: chosen.platform,
        copied,
        closed: map.and_then(|map| owners::closed_above(place.dir(), map)),
        remounted: false,
    })
}

/// Makes the bundle's root; answers whether it is plain files.
fn root(
    request: &BundleRequest,
    place: &Place,
    begun: &Begun,
    bundle: &Dir,
) -> Result<bool, cairn_sys::Error> {
    let map = request.owners.as_ref();
    // Files that are copied get their owners then.
    let shown = map.filter(|_| !request.copy);
    let target = place.rootfs_aside();
    let mapped = owners::mount_root(&begun.mounts, &target, shown, place.dir())?;
    if request.copy || !mapped {
        copy::settle(place, bundle, map)?;
        return Ok(true);
    }
    if let Some(map) = map {
        owners::give_root(&Dir::open(&target)?, map)?;
    }
    Ok(false)
}

/// The record has it as text; one that names none is the host's.
fn platform(text: &str) -> Platform {
    text.parse().unwrap_or_else(|_| Platform::host())
}

fn remount(
    request: &BundleRequest,
    place: &Place,
    known: &Known,
    id: String,
) -> Result<Bundled, Failure> {
    let failed = |err: &dyn Classified| failure(place, request, err);
    if !place.is_ours(&known.marker()).map_err(|err| failed(&err))? {
        refuse_held(place, &known.root(place), &[], ATTEMPTED)?;
        return Err(match place.is_free().map_err(|err| failed(&err))? {
            true => gone(place, known),
            false => not_empty(place, false),
        });
    }
    let target = place.rootfs();
    let same = known.image == request.image && known.namespace == request.ns;
    if !same || known.copied || mount::is_mount_point(&target).map_err(|err| failed(&err))? {
        return Err(not_empty(place, true));
    }
    if request.is_customised() {
        let reason = "a bundle of this image is there, with a configuration of its own";
        let (image, dir) = (&request.image, place.dir());
        return Err(Failure::new(ErrorKind::AlreadyExists, ATTEMPTED, reason)
            .object("bundle", dir)
            .next(format!("cairn bundle create {image} {dir}"))
            .next(format!("cairn bundle rm {dir}")));
    }
    if known.mounts.is_empty() {
        let reason = format!("its snapshot {} is gone", known.snapshot);
        let failure = Failure::new(ErrorKind::NotFound, ATTEMPTED, reason);
        return Err(failure
            .object("bundle", place.dir())
            .namespace(&request.ns)
            .next(format!("cairn bundle rm {}", place.dir())));
    }
    // Somebody may have unmounted it while a container runs in it.
    refuse_held(place, &known.mounts, &[], ATTEMPTED)?;
    let map = place.owners().map_err(|err| failed(&err))?;
    let shown = owners::mount_root(&known.mounts, &target, map.as_ref(), place.dir());
    if !shown.map_err(|err| failed(&err))? {
        unmount_all(&target).map_err(|err| failed(&err))?;
        let reason = "its owners cannot be mapped here any more";
        let failure = Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason);
        return Err(failure
            .object("bundle", place.dir())
            .cause("this kernel, or the file system of the store, cannot do so")
            .next(format!("cairn bundle rm {}", place.dir())));
    }
    Ok(Bundled {
        dir: place.dir().as_path().to_owned(),
        id,
        platform: platform(&known.platform),
        copied: false,
        closed: map.and_then(|map| owners::closed_above(place.dir(), &map)),
        remounted: true,
        withheld_labels: Vec::new(),
    })
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

pub(crate) fn failure(place: &Place, request: &BundleRequest, err: &dyn Classified) -> Failure {
    Failure::of(ATTEMPTED, err)
        .object("bundle", place.dir())
        .namespace(&request.ns)
}

/// Perhaps a disk is not mounted; what was written in the container is not thrown away for that.
fn gone(place: &Place, known: &Known) -> Failure {
    let dir = place.dir();
    let reason = format!("the bundle of {} that was made there is gone", known.image);
    Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason)
        .object("bundle", dir)
        .next(format!("cairn bundle rm {dir}"))
}

/// Only one of `ours` can be removed by us.
fn not_empty(place: &Place, ours: bool) -> Failure {
    let dir = place.dir();
    let reason = "the directory is not empty";
    let mut failure =
        Failure::new(ErrorKind::AlreadyExists, ATTEMPTED, reason).object("bundle", dir);
    if ours {
        failure = failure.next(format!("cairn bundle rm {dir}"));
    }
    failure.next("choose another DIR")
}
