//! Fetching an image of a registry.
//!
//! - `remote` is the registry as a place that images come from, and hands it all to `intake`;
//! - `documents` are what it reads first, and what several pulls at once read;
//! - `fetch` brings the bytes of a blob, by one connection or several;
//! - `places` is how many there are of these, and how quick they may be;
//! - `held` keeps what came of a pull that broke off.
//!
//! What is to be unpacked passes through `unpack/pool.rs`, as everywhere.

mod documents;
mod fetch;
mod held;
mod places;
mod remote;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cairn_registry::Observer;
use cairn_types::{
    ChainId, Descriptor, DiffId, Digest, ErrorKind, ImageName, Labels, LayerTiming, Namespace,
    Platform, PlatformMatcher, SnapshotKey,
};

pub(crate) use self::documents::Documents;
use self::{places::Limits, remote::News};
use crate::{
    Caller, Contents, Event, Extent, Failure, Imported, Node, Progress, References, Resource,
    failure::{MAKE_ROOM, size},
    intake::{self, Chosen, Wanted, total_size},
    registries::{CONNECTIONS_MAX, Origins, Pace, Places, Remote, RemoteName},
    store::StoreBlobs,
    walk::{Body, ManifestBody, Tree},
};

/// What to fetch, and what becomes of it.
pub struct PullRequest {
    /// Whose image, and the lease that is to hold what comes.
    pub caller: Caller,
    /// Registry, repository and tag, or digest.
    pub name: ImageName,
    /// Names to store it under; `None` for `name` alone.
    pub references: Option<References>,
    /// How the registry is reached.
    pub remote: Remote,
    /// Which platforms of an index to take; none means the host's.
    pub platforms: Vec<Platform>,
    /// Takes every platform there is.
    pub all_platforms: bool,
    /// What else is taken, or not.
    pub extent: Extent,
    /// Makes the snapshots, too.
    pub unpack: bool,
    /// Asks nobody when the image is here and complete.
    pub missing_only: bool,
    /// Answers when the unpacked layers are on the disk, for which a pull otherwise does not wait.
    pub sync: bool,
    /// For the image records.
    pub labels: Labels,
}

impl PullRequest {
    /// Fetches and unpacks what suits the host.
    pub fn new(caller: Caller, name: ImageName) -> PullRequest {
        PullRequest {
            caller,
            name,
            references: None,
            remote: Remote::default(),
            platforms: Vec::new(),
            all_platforms: false,
            extent: Extent::default(),
            unpack: true,
            missing_only: false,
            sync: false,
            labels: Labels::new(),
        }
    }
}

/// What a pull made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// One for each name.
    pub images: Vec<Imported>,
    /// Bytes of blobs that came.
    pub fetched_bytes: u64,
    /// Bytes of blobs that were here already.
    pub reused_bytes: u64,
    /// The layers of the first image that was unpacked, or would be, lowest first.
    pub layers: Vec<TransferredLayer>,
}

/// A layer that was fetched or sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TransferredLayer {
    /// As stored.
    pub descriptor: Descriptor,
    /// As its configuration has it; `None` of what is no image's layer.
    pub diff_id: Option<DiffId>,
    /// Its snapshot; `None` when it is not unpacked.
    pub chain_id: Option<ChainId>,
    /// Bytes of its snapshot.
    pub unpacked_size: Option<u64>,
    /// Which host it came from or went to; `None` when there was nothing to do.
    pub host: Option<String>,
    /// Requests that it took.
    pub attempts: u32,
    /// What unpacking it went into, when that was done now.
    pub timing: Option<LayerTiming>,
}

/// Who is told of a pull, with what he was told of the time that layers took: that of those that were here
/// is known as well, and was taken by somebody else's.
struct Times<'p> {
    progress: &'p dyn Progress,
    told: Mutex<HashMap<SnapshotKey, LayerTiming>>,
}

impl<'p> Times<'p> {
    fn of(progress: &'p dyn Progress) -> Times<'p> {
        let told = Mutex::default();
        Times { progress, told }
    }

    fn told(&self) -> MutexGuard<'_, HashMap<SnapshotKey, LayerTiming>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &SnapshotKey) -> Option<LayerTiming> {
        self.told().get(key).copied()
    }
}

impl Progress for Times<'_> {
    fn event(&self, event: Event) {
        if let Event::Timed { key, timing, .. } = &event {
            self.told().insert(key.clone(), *timing);
        }
        self.progress.event(event);
    }

    fn wants_contents(&self) -> bool {
        self.progress.wants_contents()
    }

    fn contents(&self, image: &Contents) {
        self.progress.contents(image);
    }

    fn document(&self, digest: &Digest, was: bool) {
        self.progress.document(digest, was);
    }

    fn given_up(&self) -> bool {
        self.progress.given_up()
    }
}

/// For messages.
const ATTEMPTED: &str = "pull image";
/// Blobs that are begun side by side at least, whether or not there are places for their connections.
const AT_ONCE: usize = 8;
/// What leads on.
const COMMAND: &str = "cairn images pull";

impl Node {
    /// Fetches an image. Either it is there whole afterwards under all its names, or under none; blobs
    /// that came are kept for another try, for a day.
    ///
    /// # Errors
    /// What the registry's hosts said, or what is wrong with what they sent.
    pub fn pull(&self, request: PullRequest, progress: &dyn Progress) -> Result<Pulled, Failure> {
        let times = Times::of(progress);
        let mut pulled = match self.here(&request, &times)? {
            Some(pulled) => Ok(pulled),
            None => self.pull_from(&request, &times),
        };
        if request.sync {
            pulled = pulled.and_then(|pulled| self.sync_layers().map(|()| pulled));
        }
        progress.event(Event::Done);
        pulled
    }

    fn pull_from(&self, request: &PullRequest, progress: &Times<'_>) -> Result<Pulled, Failure> {
        let (mut remote, name) = self.remote(request, progress)?;
        let pulled = self.pull_by(&mut remote, &name, request, progress);
        // What was said last, nobody may have been there to pass on.
        remote.news.tell(progress);
        pulled
    }

    fn pull_by(
        &self,
        remote: &mut remote::Remote<'_>,
        name: &RemoteName,
        request: &PullRequest,
        progress: &Times<'_>,
    ) -> Result<Pulled, Failure> {
        let ns = &request.caller.ns;
        let target = self.resolve_remote(remote, name)?;
        let tree = Tree::read(remote, &target)?;
        remote.know(&tree);
        let remote = &*remote;
        let names = match &request.references {
            Some(references) => references.whole(&target.digest),
            None => Ok(vec![request.name.clone()]),
        };
        let names = names.map_err(|err| Failure::of(ATTEMPTED, &err))?;
        let chosen = intake::choose_one(remote, tree, names, &remote.wanted)?;
        let (first, total) = (chosen.clone(), content_size(&chosen));
        let lease = self.hold_pull(&request.caller, &request.name, &chosen.kept)?;
        let options = intake::Options {
            unpack: request.unpack,
            unchecked: false,
            discard: false,
            labels: request.labels.clone(),
            references: request.references.clone(),
            lease: request.caller.lease.clone(),
        };
        let mut stored = Vec::new();
        let written = intake::write(
            self,
            ns,
            remote,
            vec![chosen],
            &options,
            progress,
            &mut stored,
        );
        self.tell_stored(ns, stored.iter());
        let (images, needed) =
            written.map_err(|failure| self.kept_for_next(failure, ns, &stored))?;
        remote.origins.record(self, &needed);
        if let Some(lease) = lease {
            self.release_pull(ns, &lease);
        }
        let is_new: HashSet<&Digest> = stored.iter().collect();
        let everything = first.tree.everything().into_iter();
        let new = everything.filter(|one| is_new.contains(&one.digest));
        let new = total_size(new);
        Ok(Pulled {
            layers: self.layers_of(
                ns,
                &first,
                request.unpack,
                Some((&remote.news, &stored)),
                progress,
            )?,
            images,
            fetched_bytes: remote.news.came(),
            reused_bytes: total.saturating_sub(new),
        })
    }

    fn remote<'a>(
        &'a self,
        request: &'a PullRequest,
        progress: &'a dyn Progress,
    ) -> Result<(remote::Remote<'a>, RemoteName), Failure> {
        let news = Arc::new(News::default());
        let (listening, told) = (Arc::clone(&news), Arc::clone(&news));
        let mut observers: Vec<Arc<dyn Observer>> = vec![listening];
        observers.extend(request.remote.tracer(move |event| told.add(event)));
        let name = RemoteName::parse(&request.name)?;
        let reach = self.reach(name, &request.remote, observers)?;
        let runtime = self.registry_runtime()?;
        let options = self.registry_options();
        let (own, at_once) = match request.remote.max_concurrent {
            // The limit of all may be raised meanwhile; threads that wait for a place cost little.
            0 => {
                let at_once = options.max_concurrent_downloads;
                (usize::MAX, at_once.clamp(AT_ONCE, CONNECTIONS_MAX))
            }
            chosen => (chosen, chosen.min(CONNECTIONS_MAX)),
        };
        let remote = remote::Remote {
            node: self,
            ns: &request.caller.ns,
            name: request.name.to_string(),
            client: reach.client()?,
            runtime,
            limits: Limits {
                places: [self.inner.places.share(), Places::new(own).share()],
                paces: [
                    self.inner.pace.clone(),
                    Pace::new(request.remote.limit_rate),
                ],
            },
            alike: format!(
                "{}/{} {}",
                reach.name.registry, reach.name.repository, request.remote.limit_rate
            ),
            at_once,
            wanted: Wanted::new(
                &request.platforms,
                request.all_platforms,
                request.extent.clone(),
            ),
            origins: Origins::new(&request.caller.ns, &reach.name),
            pins: self.pins(),
            progress,
            news,
            known: HashMap::new(),
            reading: Mutex::default(),
        };
        Ok((remote, reach.name))
    }

    /// What the name means at the registry.
    fn resolve_remote(
        &self,
        remote: &remote::Remote<'_>,
        name: &RemoteName,
    ) -> Result<Descriptor, Failure> {
        let Some(reference) = name.reference() else {
            let failure = Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, "it has no tag");
            return Err(failure.object("image", &remote.name));
        };
        remote.resolve(&reference)
    }

    /// The image as it is here, if that is enough for the request and nothing of it is missing.
    fn here(&self, request: &PullRequest, progress: &Times<'_>) -> Result<Option<Pulled>, Failure> {
        if !request.missing_only || request.all_platforms || request.platforms.len() > 1 {
            return Ok(None);
        }
        let (ns, name) = (&request.caller.ns, &request.name);
        let info = match self.image(ns, name) {
            Ok(info) => info,
            Err(failure) if failure.kind == ErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let pins = self.pins();
        let blobs = StoreBlobs::new(self, ns, ATTEMPTED, name.to_string()).lenient();
        let tree = blobs.pinned(&pins).tree(&info.target)?;
        let host = Platform::host();
        let platform = request.platforms.first();
        let matcher = PlatformMatcher::only(platform.unwrap_or(&host));
        let picked = tree.pick(&matcher).cloned();
        let Some(picked) = picked.filter(|picked| platform.is_none() || picked.is_for(&matcher))
        else {
            return Ok(None);
        };
        for one in picked.everything() {
            pins.blob(ns, &one.digest);
            if !self.has_blob(ns, &one.digest)? {
                return Ok(None);
            }
        }
        let mut handed_out: Vec<Resource> = Vec::new();
        if request.unpack && matches!(&picked.body, Body::Manifest(body) if body.is_image()) {
            let chain = self.unpack(ns, &info.target, platform, progress, &pins)?;
            handed_out.extend(chain.map(|top| Resource::Snapshot(SnapshotKey::from(&top))));
        }
        let blobs = picked.everything().into_iter();
        handed_out.extend(blobs.map(|one| Resource::Content(one.digest.clone())));
        handed_out.push(Resource::Content(info.target.digest.clone()));
        for resource in &handed_out {
            match self.hold(&request.caller, resource) {
                // As for what comes new: a lease that is not there is not missed.
                Err(failure) if failure.kind == ErrorKind::NotFound => break,
                other => other?,
            }
        }
        let content_size = total_size(picked.everything().into_iter());
        let chosen = Chosen {
            names: vec![name.clone()],
            kept: HashSet::new(),
            images: vec![picked.descriptor.digest.clone()],
            tree: Arc::new(tree),
        };
        let layers = self.layers_of(ns, &chosen, request.unpack, None, progress)?;
        let sizes = layers.iter().map(|layer| layer.unpacked_size);
        Ok(Some(Pulled {
            images: vec![Imported {
                name: name.clone(),
                target: info.target,
                platform: picked.platform(),
                content_size,
                unpacked_size: sizes.sum::<Option<u64>>().filter(|_| request.unpack),
            }],
            fetched_bytes: 0,
            reused_bytes: content_size,
            layers,
        }))
    }

    /// The layers of the first image that was chosen; of what was done now, by whom and how long.
    fn layers_of(
        &self,
        ns: &Namespace,
        chosen: &Chosen,
        unpack: bool,
        done: Option<(&News, &[Digest])>,
        times: &Times<'_>,
    ) -> Result<Vec<TransferredLayer>, Failure> {
        let manifests = chosen.tree.manifests().into_iter();
        let mut bodies = manifests.filter_map(|tree| match &tree.body {
            Body::Manifest(body) if chosen.images.contains(&tree.descriptor.digest) => Some(body),
            _ => None,
        });
        let Some(body) = bodies.next() else {
            return Ok(Vec::new());
        };
        let diff_ids = diff_ids(body);
        let chains = ChainId::stack(&diff_ids);
        let mut layers = Vec::new();
        for (number, descriptor) in body.manifest.layers.iter().enumerate() {
            let chain = chains.get(number).filter(|_| unpack).cloned();
            let key = chain.as_ref().map(SnapshotKey::from);
            let info = match &key {
                Some(key) => Some(self.snapshots().stat(ns, key).map_err(|err| {
                    Failure::of("look up snapshot", &err).object("snapshot", key)
                })?),
                None => None,
            };
            let new = done.filter(|(_, stored)| stored.contains(&descriptor.digest));
            let asked = new.and_then(|(news, _)| news.asked(&descriptor.digest));
            layers.push(TransferredLayer {
                descriptor: descriptor.clone(),
                diff_id: diff_ids.get(number).cloned(),
                chain_id: chain,
                unpacked_size: info.as_ref().map(|info| info.usage.bytes),
                host: asked.as_ref().map(|asked| asked.host.clone()),
                attempts: asked.map_or(0, |asked| asked.attempts),
                timing: key.as_ref().and_then(|key| times.get(key)),
            });
        }
        Ok(layers)
    }

    /// Says what of a pull that failed for want of room is kept.
    fn kept_for_next(&self, mut failure: Failure, ns: &Namespace, stored: &[Digest]) -> Failure {
        // A registry that allows no more has nothing to do with room.
        let mut steps = failure.next.iter_mut();
        if let Some(step) = steps.find(|step| step.starts_with(MAKE_ROOM)) {
            let kept = self.stored_size(ns, stored);
            if kept > 0 {
                *step = format!("{MAKE_ROOM}; then pull again, {} are kept", size(kept));
            }
        }
        failure
    }
}

fn diff_ids(body: &ManifestBody) -> Vec<DiffId> {
    let config = body.config.as_ref();
    config.map_or_else(Vec::new, |config| config.rootfs.diff_ids.clone())
}

/// Bytes of everything that is kept.
fn content_size(chosen: &Chosen) -> u64 {
    let all = chosen.tree.everything().into_iter();
    total_size(all.filter(|one| chosen.kept.contains(&one.digest)))
}
