//! Sending an image to a registry.
//!
//! What goes, and what the name means there afterwards:
//!
//! | asked for | the name means | sent |
//! |---|---|---|
//! | nothing in particular | what it means here | all of it |
//! | the same, and one platform alone is here | that manifest alone | that |
//! | one platform | that manifest alone | that |
//! | several platforms | the index as it is | those, with their attestations |
//! | a manifest | that | as above, of it |
//!
//! An index is never rewritten: its digest is what others have signed, and what they pull it by. So what it
//! lists and what is not sent has to be at the registry already, which is asked before anything goes. Where it
//! is neither here nor there and one platform is whole, as after a pull of one, that goes by itself, unless the
//! name there has the index's digest in it. With several of them the push fails, and says which can be pushed by
//! themselves. With one platform that is what `ctr images push --platform` does; with several that one sends
//! the index and lets the registry refuse it.
//!
//! Blobs go first, the largest before the others and some of them at once, then documents after what they
//! refer to, the name last: nothing has a name there that is not whole. A blob is looked for before it is
//! sent, and asked for at the registry's other repositories that labels name; so layers whose
//! packed bytes were not kept can be pushed to where they came from, or beside it. Layers that are not to be
//! passed on stay here, unless they are asked for and here. What refers to another manifest (`subject`) is
//! listed for it. What of a blob has gone when a push is broken off, its registry may keep for the next one.

mod kept;
mod lacking;
mod plan;
mod referrers;
mod send;
mod source;

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use cairn_registry::{Observer, Pushed as How, Reference, hosts::Capabilities};
use cairn_types::{Descriptor, Digest, ErrorKind, ImageName, Namespace, Platform};
use tokio::sync::mpsc;

use self::{
    kept::Kept,
    plan::{Kind, Piece, Place, Plan},
    send::{Arrival, Retries, Sender, Tracks},
};
pub(crate) use kept::{DIR as KEPT, Sending};

use crate::{
    Event, Failure, Node, Phase, Progress,
    pull::TransferredLayer,
    registries::{CONNECTIONS_MAX, Origins, Pace, Reach, Remote, RemoteName},
};

const ATTEMPTED: &str = "push image";

/// Blobs at once where a request names no number.
const LANES: usize = 4;

/// How often it is looked whether anybody waits still, and how far the layers are.
const TICK: Duration = Duration::from_millis(200);

/// What to send, and where.
pub struct PushRequest {
    /// Whose image.
    pub ns: Namespace,
    /// Its name here.
    pub name: ImageName,
    /// Only this manifest of it.
    pub manifest: Option<Digest>,
    /// Registry, repository and tag, or digest.
    pub remote_name: ImageName,
    /// How the registry is reached.
    pub remote: Remote,
    /// Without any all of them; only one, if no other is here.
    pub platforms: Vec<Platform>,
    /// Also layers that their makers do not want to be passed on.
    pub allow_non_distributable: bool,
}

impl PushRequest {
    /// Sends all of an image, to nobody's account.
    pub fn new(ns: Namespace, name: ImageName, remote_name: ImageName) -> PushRequest {
        PushRequest {
            ns,
            name,
            manifest: None,
            remote_name,
            remote: Remote::default(),
            platforms: Vec::new(),
            allow_non_distributable: false,
        }
    }
}

/// What a push sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// What the name means there.
    pub target: Descriptor,
    /// The platform of it, where that is only one of several here because the others are not.
    pub only_platform: Option<String>,
    /// Bytes of blobs that went.
    pub sent_bytes: u64,
    /// Bytes of blobs that were there already, or were taken over from another repository there.
    pub reused_bytes: u64,
    /// Layers, lowest first.
    pub layers: Vec<TransferredLayer>,
}

impl Node {
    /// Sends an image: what is missing there, the manifests last. Blocks, and is not to be called where
    /// others are waited for in a runtime.
    ///
    /// # Errors
    /// What the registry said, and of which blob or manifest; what is neither here nor there; which blob
    /// here is damaged. [`ErrorKind::Canceled`] soon after nobody waits for it any more.
    pub fn push(&self, request: PushRequest, progress: &dyn Progress) -> Result<Pushed, Failure> {
        let pins = self.pins();
        let name = RemoteName::parse(&request.remote_name)?;
        let origins = Origins::new(&request.ns, &name);
        let listed = progress.wants_contents();
        let mut plan = self.plan_push(&request, &origins, &pins, listed)?;
        let (events, heard) = mpsc::unbounded_channel();
        let mut observers: Vec<Arc<dyn Observer>> = vec![Arc::new(Retries(events.clone()))];
        let traced = events.clone();
        observers.extend(request.remote.tracer(move |event| {
            // Nobody listens any more to what is given up.
            let _ = traced.send(event);
        }));
        let mut reach = self.reach(name, &request.remote, observers)?;
        let host = store_only(&mut reach);
        let index = plan.target.digest.clone();
        let anything = request.platforms.is_empty() && request.manifest.is_none();
        let narrows = anything && reach.name.digest.is_none();
        let reference = reference(&request, &reach.name, &plan.target)?;
        let lanes = match request.remote.max_concurrent {
            0 => LANES,
            some => some.min(CONNECTIONS_MAX),
        };
        let rate = request.remote.limit_rate;
        if rate > 0 {
            // Who is held back here is not slow there.
            let share = rate / (2 * lanes as u64);
            reach.options.min_rate = reach.options.min_rate.min(share);
        }
        match Kept::of(self, &request.ns) {
            Ok(kept) => reach.options.sessions = Arc::new(kept),
            // Of a store that cannot be written to can be pushed all the same.
            Err(failure) => tracing::debug!(%failure, "keep uploads"),
        }
        let sender = Sender {
            node: self,
            request: &request,
            client: reach.client()?,
            host: host.as_str().into(),
            reference,
            narrows,
            pace: Pace::new(rate),
            lanes,
            events,
            progress,
            tracks: Tracks::default(),
        };
        let runtime = self.registry_runtime()?;
        let arrived = runtime.block_on(attend(&sender, &mut plan, heard, progress))?;
        self.remember(&origins, &plan);
        progress.event(Event::Done);
        let mut pushed = summary(&plan, &arrived, &host);
        let narrowed = plan.target.digest != index;
        pushed.only_platform = narrowed.then_some(plan.platform);
        Ok(pushed)
    }

    /// Writes down where the blobs are now.
    fn remember(&self, origins: &Origins, plan: &Plan) {
        let documents = plan.parts.iter();
        let documents = documents.filter(|part| matches!(part.kind, Kind::Sent(_)));
        let mut digests: Vec<Digest> = documents
            .map(|part| part.descriptor.digest.clone())
            .collect();
        let stored = plan.pieces().into_iter();
        let stored = stored.filter(|piece| matches!(piece.bytes, Place::Stored));
        digests.extend(stored.map(|piece| piece.descriptor.digest.clone()));
        origins.record(self, &digests);
    }
}

/// Leaves the one endpoint at which to store, also for what has to be read there: a mirror knows nothing yet
/// of what was stored a moment ago. Its name, as people know it.
fn store_only(reach: &mut Reach) -> String {
    let first = reach.endpoints.iter().position(|one| one.capabilities.push);
    let Some(first) = first else {
        // The client says that nobody may be asked.
        return reach.name.registry.clone();
    };
    let mut endpoint = reach.endpoints.swap_remove(first);
    endpoint.capabilities = Capabilities::ALL;
    let host = match endpoint.is_origin {
        true => reach.name.registry.clone(),
        false => endpoint.authority.clone(),
    };
    reach.endpoints = vec![endpoint];
    host
}

/// What the target is to be known by.
fn reference(
    request: &PushRequest,
    name: &RemoteName,
    target: &Descriptor,
) -> Result<Reference, Failure> {
    if let Some(digest) = name
        .digest
        .as_ref()
        .filter(|digest| **digest != target.digest)
    {
        let reason = format!("the name says {digest}, and the image is {}", target.digest);
        return Err(Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason)
            .object("image", &request.remote_name)
            .next("give it a tag instead of a digest"));
    }
    let reference = match &name.tag {
        Some(tag) => Some(Reference::Tag(tag.clone())),
        None => name.reference(),
    };
    Ok(reference.unwrap_or_else(|| Reference::Digest(target.digest.clone())))
}

/// Has the work done, tells what it says of itself, and drops it when nobody waits for it any more.
async fn attend(
    sender: &Sender<'_>,
    plan: &mut Plan,
    mut heard: mpsc::UnboundedReceiver<Event>,
    progress: &dyn Progress,
) -> Result<HashMap<Digest, Arrival>, Failure> {
    let tell = |event: Event| {
        let tracks = sender.tracks.all();
        let known = |digest: &Digest| tracks.iter().any(|track| track.is_of(digest));
        // Of what is no layer nobody has been told.
        if !matches!(&event, Event::Retry { digest, .. } if !known(digest)) {
            progress.event(event);
        }
    };
    let mut work = pin!(sender.run(plan));
    let mut ticks = tokio::time::interval(TICK);
    let mut told: HashMap<usize, u64> = HashMap::new();
    loop {
        tokio::select! {
            biased;
            Some(event) = heard.recv() => tell(event),
            ended = &mut work => {
                while let Ok(event) = heard.try_recv() {
                    tell(event);
                }
                return ended;
            }
            _ = ticks.tick() => {
                if progress.given_up() {
                    let reason = "nobody waits for it any more";
                    return Err(Failure::new(ErrorKind::Canceled, ATTEMPTED, reason)
                        .object("image", &sender.request.remote_name));
                }
                for (i, track) in sender.tracks.all().iter().enumerate() {
                    if let Some(done) = track.moving().filter(|done| told.get(&i) != Some(done)) {
                        told.insert(i, done);
                        progress.event(track.step(Phase::Push, done));
                    }
                }
            }
        }
    }
}

fn summary(plan: &Plan, arrived: &HashMap<Digest, Arrival>, host: &str) -> Pushed {
    let (mut sent, mut reused) = (0, 0);
    for piece in plan.pieces() {
        match arrived
            .get(&piece.descriptor.digest)
            .map(|arrival| &arrival.how)
        {
            Some(How::Sent) => sent += piece.descriptor.size,
            Some(How::Present | How::Mounted(_)) => reused += piece.descriptor.size,
            None => {}
        }
    }
    let target = &plan.target;
    let layer = |piece: &Piece| {
        let facts = piece.layer.clone().unwrap_or_default();
        let arrival = arrived.get(&piece.descriptor.digest);
        let moved = arrival.filter(|arrival| arrival.how != How::Present);
        TransferredLayer {
            descriptor: piece.descriptor.clone(),
            diff_id: facts.diff_id,
            unpacked_size: facts.unpacked.as_ref().map(|(_, bytes)| *bytes),
            chain_id: facts.unpacked.map(|(chain, _)| chain),
            host: moved.map(|_| host.to_owned()),
            attempts: moved.map_or(0, |arrival| arrival.attempts.max(1)),
            timing: None,
        }
    };
    Pushed {
        target: Descriptor::new(&target.media_type, target.digest.clone(), target.size),
        only_platform: None,
        sent_bytes: sent,
        reused_bytes: reused,
        layers: plan.layers().into_iter().map(layer).collect(),
    }
}
