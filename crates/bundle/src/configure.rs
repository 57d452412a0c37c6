//! From an image and a request to the bytes of `config.json`.

use std::{ffi::OsStr, path::PathBuf};

use cairn_sys::{Dir, mount};
use cairn_types::{Classified, ErrorKind, Failure, IdMap, Platform};
use oci_spec::{OciSpecError, runtime::Spec};
use rustix::fs::FileType;

use crate::{
    BundleRequest,
    create::{ATTEMPTED, failure},
    cwd, merge, owners,
    place::Place,
    process::{self, ImageProcess, ProcessError},
    spec::{self, ImageDocument, Parts},
    users::{self, Identity},
    volumes,
};

/// Whoever writes more volumes than this into an image wants to exhaust somebody.
const VOLUMES_MAX: usize = 1024;

/// What of the image the bundle is made from.
pub(crate) struct Chosen {
    pub(crate) platform: Platform,
    pub(crate) document: ImageDocument,
}

impl Chosen {
    /// The bytes of `config.json` for the image whose files are at `root`; makes its volumes.
    pub(crate) fn configuration(
        &self,
        request: &BundleRequest,
        place: &Place,
        bundle: &Dir,
        root: &Dir,
        id: &str,
    ) -> Result<Vec<u8>, Failure> {
        let refuse = |kind, reason: String| {
            Failure::new(kind, ATTEMPTED, reason).object("bundle", place.dir())
        };
        let failed = |err: &dyn Classified| failure(place, request, err);
        mount_points_are_real(root).map_err(|reason| {
            refuse(ErrorKind::FailedPrecondition, reason).at(format!("image {}", request.image))
        })?;
        let config = self.document.config.clone().unwrap_or_default();
        let user = request
            .user
            .as_deref()
            .or_else(|| config.user().as_deref())
            .unwrap_or_default();
        let identity = users::look_up(root, user).map_err(|err| {
            refuse(err.kind(), err.to_string()).next("give another one with --user UID[:GID]")
        })?;
        if let Some(map) = &request.owners {
            named(map, &identity).map_err(|reason| {
                refuse(ErrorKind::InvalidArgument, reason)
                    .next("map more: --uidmap 0:HOST:COUNT --gidmap 0:HOST:COUNT")
            })?;
        }
        let image = ImageProcess {
            entrypoint: config.entrypoint().as_deref().unwrap_or_default(),
            cmd: config.cmd().as_deref().unwrap_or_default(),
            env: config.env().as_deref().unwrap_or_default(),
        };
        let unfit = |err| match err {
            ProcessError::NothingToRun => {
                let reason = "the image names no program to run".to_owned();
                let (image, dir) = (&request.image, place.dir());
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
        let map = request.owners.as_ref();
        let volumes = make_volumes(place, bundle, root, &listed, map).map_err(|err| match err {
            Volumes::Unfit(reason) => {
                refuse(ErrorKind::InvalidArgument, reason).at(format!("image {}", request.image))
            }
            Volumes::Failed(err) => failed(&err),
        })?;
        let document = spec::spec(Parts {
            request,
            image: &self.document,
            platform: &self.platform,
            args: process::arguments(&image, request).map_err(unfit)?,
            env: process::environment(&image, request, &hostname, &identity).map_err(unfit)?,
            cwd,
            identity,
            hostname,
            volumes,
            cgroup2: mount::is_cgroup2(),
        });
        let internal = |err: OciSpecError| refuse(ErrorKind::Internal, err.to_string());
        rendered(request, place, &document.map_err(internal)?)
    }
}

/// The document's bytes, with what the user wants otherwise.
fn rendered(request: &BundleRequest, place: &Place, document: &Spec) -> Result<Vec<u8>, Failure> {
    let refuse = |kind, reason: &str, cause: String| {
        let failure = Failure::new(kind, ATTEMPTED, reason).object("bundle", place.dir());
        failure.cause(cause)
    };
    let internal = |err: serde_json::Error| {
        let reason = "its configuration cannot be written";
        refuse(ErrorKind::Internal, reason, err.to_string())
    };
    let mut value = tidy(document).map_err(internal)?;
    if let Some(over) = &request.config {
        merge::merge(&mut value, over);
        merge::check(&value).map_err(|cause| {
            let reason = "what --config lays over it makes no runtime configuration";
            refuse(ErrorKind::InvalidArgument, reason, cause)
        })?;
    }
    let mut bytes = serde_json::to_vec_pretty(&value).map_err(internal)?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// A process cannot be somebody who is nobody.
fn named(map: &IdMap, who: &Identity) -> Result<(), String> {
    if map.users.outside(who.uid).is_none() {
        return Err(format!("its user {} has no number on the host", who.uid));
    }
    let nobodys = |gid: &&u32| map.groups.outside(**gid).is_none();
    match std::iter::once(&who.gid).chain(&who.groups).find(nobodys) {
        Some(gid) => Err(format!("its group {gid} has no number on the host")),
        None => Ok(()),
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
    map: Option<&IdMap>,
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
    if let Some(map) = map {
        owners::let_through(&dir, map).map_err(Volumes::Failed)?;
    }
    let mut made = Vec::new();
    for (number, path) in paths.into_iter().enumerate() {
        let number = number.to_string();
        let at = (&dir, OsStr::new(&number));
        volumes::make(root, &path, at, map).map_err(Volumes::Failed)?;
        made.push((path, place.dir().as_path().join(name).join(number)));
    }
    Ok(made)
}

/// Keys in order and sets sorted, so that the same request gives the same bytes.
fn tidy(document: &Spec) -> serde_json::Result<serde_json::Value> {
    let mut value = serde_json::to_value(document)?;
    if let Some(sets) = value
        .pointer_mut("/process/capabilities")
        .and_then(|sets| sets.as_object_mut())
    {
        for set in sets.values_mut().filter_map(|set| set.as_array_mut()) {
            set.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        }
    }
    Ok(value)
}
