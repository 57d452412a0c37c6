//! The sending itself: blobs side by side, then documents, the name last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use cairn_registry::{Client, Error, Mounted, Observer, Pushed, Reference, Retry, Source, What};
use cairn_types::{Algorithm, Descriptor, Digest, ErrorKind};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    ATTEMPTED, PushRequest,
    lacking::{Lack, incomplete},
    plan::{Kind, Piece, Place, Plan},
    referrers::{Referrer, Unlisted},
    source::{StoredBlob, Track},
};
use crate::{Event, Failure, Node, Phase, Progress, registries::Pace};

/// How a blob came to be there.
pub(super) struct Arrival {
    pub(super) how: Pushed,
    /// Requests that carried it.
    pub(super) attempts: u32,
}

/// The layers that are sent, for whoever watches.
#[derive(Clone, Default)]
pub(super) struct Tracks(Arc<Mutex<Vec<Arc<Track>>>>);

impl Tracks {
    pub(super) fn all(&self) -> Vec<Arc<Track>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn add(&self, track: &Arc<Track>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(track));
    }
}

/// Makes events of what the client asks again.
pub(super) struct Retries(pub(super) mpsc::UnboundedSender<Event>);

impl Observer for Retries {
    fn retry(&self, retry: &Retry<'_>) {
        let (Some(What::Blob(digest)) | Some(What::Upload(digest))) = retry.what else {
            return;
        };
        let _ = self.0.send(Event::Retry {
            digest: digest.clone(),
            host: retry.failed.host.clone(),
            attempt: (retry.attempt, retry.attempts_max),
            wait: retry.wait,
            cause: retry.reason(),
        });
    }
}

/// Everything that one push sends by.
pub(super) struct Sender<'a> {
    pub(super) node: &'a Node,
    pub(super) request: &'a PushRequest,
    pub(super) client: Client,
    /// Whom it goes to, as people know it.
    pub(super) host: Arc<str>,
    /// What the target is to be known by there.
    pub(super) reference: Reference,
    /// The only image of an index that is whole may go instead of it.
    pub(super) narrows: bool,
    pub(super) pace: Pace,
    /// Blobs at once.
    pub(super) lanes: usize,
    pub(super) events: mpsc::UnboundedSender<Event>,
    /// What is not told as an event.
    pub(super) progress: &'a dyn Progress,
    pub(super) tracks: Tracks,
}

impl Sender<'_> {
    /// Sends all of a plan. What came of each blob.
    pub(super) async fn run(&self, plan: &mut Plan) -> Result<HashMap<Digest, Arrival>, Failure> {
        let mut arrived = self.settle(plan).await?;
        if self.progress.wants_contents() {
            let contents = plan.contents(&self.request.remote_name);
            self.progress.contents(&contents);
        }
        let _ = self.events.send(Event::Resolved {
            name: self.request.remote_name.to_string(),
            platform: plan.platform.clone(),
            layers: plan
                .layers()
                .iter()
                .map(|piece| (piece.descriptor.digest.clone(), piece.descriptor.size))
                .collect(),
        });
        self.blobs(plan, &mut arrived).await?;
        self.documents(plan).await?;
        Ok(arrived)
    }

    /// Finds out whether all that cannot be sent from here is there already, and takes it out of the plan.
    /// Nothing is sent before that is known.
    async fn settle(&self, plan: &mut Plan) -> Result<HashMap<Digest, Arrival>, Failure> {
        let mut arrived = HashMap::new();
        let mut lacks = Vec::new();
        for part in &mut plan.parts {
            if part.is_whole() {
                continue;
            }
            // A registry takes no manifest before what it refers to.
            if self.is_stored(&part.descriptor).await? {
                part.pieces.clear();
                continue;
            }
            match part.kind {
                Kind::NotHere | Kind::LeftOut => lacks.push(Lack::manifest(part)),
                Kind::Sent(_) => {
                    for piece in &part.pieces {
                        let Place::Nowhere(why) = &piece.bytes else {
                            continue;
                        };
                        match self.without_bytes(piece).await? {
                            Some(how) => {
                                let digest = piece.descriptor.digest.clone();
                                arrived.insert(digest, Arrival { how, attempts: 0 });
                            }
                            None => lacks.push(Lack::blob(part, why)),
                        }
                    }
                }
            }
        }
        let goes = lacks.is_empty() || (self.narrows && plan.narrow(&lacks));
        if !goes {
            return Err(incomplete(self.request, plan, &lacks, &self.host));
        }
        plan.parts.retain(|part| matches!(part.kind, Kind::Sent(_)));
        Ok(arrived)
    }

    /// A blob that is not here may be there, or with a neighbour.
    async fn without_bytes(&self, piece: &Piece) -> Result<Option<Pushed>, Failure> {
        if self.is_stored(&piece.descriptor).await? {
            return Ok(Some(Pushed::Present));
        }
        for repository in &piece.from {
            let mounted = self.client.mount(&piece.descriptor, repository).await;
            match mounted.map_err(|err| self.refused(&err))? {
                Mounted::Yes => return Ok(Some(Pushed::Mounted(repository.clone()))),
                Mounted::No(upload) => {
                    if let Err(err) = upload.cancel().await {
                        tracing::debug!(%err, "cancel an upload that is not needed");
                    }
                }
            }
        }
        Ok(None)
    }

    async fn is_stored(&self, descriptor: &Descriptor) -> Result<bool, Failure> {
        let stored = self.client.is_stored(descriptor).await;
        stored.map_err(|err| self.refused(&err))
    }

    async fn blobs(
        &self,
        plan: &Plan,
        arrived: &mut HashMap<Digest, Arrival>,
    ) -> Result<(), Failure> {
        let mut jobs = Vec::new();
        let pieces = plan.pieces();
        for &piece in &pieces {
            let events = piece.layer.is_some().then(|| self.events.clone());
            let track = Arc::new(Track::new(&piece.descriptor, &self.host, events));
            if piece.layer.is_some() {
                self.tracks.add(&track);
            }
            match arrived.get(&piece.descriptor.digest) {
                Some(arrival) => {
                    self.told(piece, arrival);
                    track.end(phase(&arrival.how));
                }
                None => {
                    track.wait();
                    jobs.push((piece, track));
                }
            }
        }
        let mut jobs = jobs.into_iter();
        let mut running = JoinSet::new();
        loop {
            while running.len() < self.lanes {
                let Some((piece, track)) = jobs.next() else {
                    break;
                };
                running.spawn(self.blob(piece, track)?);
            }
            // What is still running when one has failed is dropped, and ended by that.
            let Some(ended) = running.join_next().await else {
                return Ok(());
            };
            let (digest, ended) = ended.map_err(|err| self.broke(&err))?;
            let arrival = ended.map_err(|failed| failed.tell(self))?;
            if let Some(piece) = pieces.iter().find(|one| one.descriptor.digest == digest) {
                self.told(piece, &arrival);
            }
            arrived.insert(digest, arrival);
        }
    }

    /// Of layers it is told as they go.
    fn told(&self, piece: &Piece, arrival: &Arrival) {
        if piece.layer.is_none() {
            let was = arrival.how != Pushed::Sent;
            self.progress.document(&piece.descriptor.digest, was);
        }
    }

    /// The work of one blob.
    fn blob(
        &self,
        piece: &Piece,
        track: Arc<Track>,
    ) -> Result<impl Future<Output = (Digest, Result<Arrival, BlobFailed>)> + Send + 'static, Failure>
    {
        let descriptor = piece.descriptor.clone();
        let (source, stored): (Arc<dyn Source>, _) = match &piece.bytes {
            Place::Embedded(bytes) => (Arc::new(bytes.clone()), None),
            Place::Nowhere(why) => return Err(why.clone()),
            Place::Stored => {
                let stored = Arc::new(self.open(&descriptor, &track)?);
                (Arc::clone(&stored) as Arc<dyn Source>, Some(stored))
            }
        };
        let (client, from) = (self.client.clone(), piece.from.clone());
        Ok(async move {
            let pushed = client.push(&descriptor, &source, &from).await;
            let ended = match pushed {
                Ok(how) => {
                    track.end(phase(&how));
                    let attempts = track.attempts();
                    Ok(Arrival { how, attempts })
                }
                Err(err) => Err(BlobFailed {
                    damage: stored.and_then(|stored| stored.damage()),
                    digest: descriptor.digest.clone(),
                    err,
                }),
            };
            (descriptor.digest, ended)
        })
    }

    fn open(&self, descriptor: &Descriptor, track: &Arc<Track>) -> Result<StoredBlob, Failure> {
        let (ns, digest) = (&self.request.ns, &descriptor.digest);
        let blob = self.node.content().open_blob(ns, digest).map_err(|err| {
            let reason = format!("blob {digest} cannot be opened");
            self.about(Failure::because(ATTEMPTED, reason, &err))
        })?;
        if blob.size() != descriptor.size {
            let (has, wanted) = (blob.size(), descriptor.size);
            let cause = format!("it has {has} bytes, and its manifest says {wanted}");
            return Err(self.damaged(digest, cause));
        }
        Ok(StoredBlob::new(blob, &self.pace, track))
    }

    async fn documents(&self, plan: &Plan) -> Result<(), Failure> {
        for part in &plan.parts {
            let Kind::Sent(bytes) = &part.kind else {
                continue;
            };
            let descriptor = &part.descriptor;
            let by_digest = Reference::Digest(descriptor.digest.clone());
            let put = async |reference: &Reference| {
                let kind = &descriptor.media_type;
                let put = self.client.put(reference, kind, bytes.clone()).await;
                put.map_err(|err| self.refused(&err))
            };
            let referrer = Referrer::of(descriptor, bytes);
            let is_target = descriptor.digest == plan.target.digest;
            // Where something refers to another, the answer says who has to list it.
            if !is_target && referrer.is_none() && self.is_stored(descriptor).await? {
                self.progress.document(&descriptor.digest, true);
                continue;
            }
            // Registries name what has a tag by SHA-256; under another digest it has to be put as well.
            if is_target && descriptor.digest.algorithm() != Algorithm::Sha256 {
                put(&by_digest).await?;
            }
            let reference = if is_target {
                &self.reference
            } else {
                &by_digest
            };
            let stored = put(reference).await?;
            self.progress.document(&descriptor.digest, false);
            if let Some(referrer) = referrer.filter(|_| !stored.lists_subject) {
                let listed = referrer.list(&self.client).await;
                listed.map_err(|why| self.unlisted(&referrer.subject, why))?;
            }
        }
        Ok(())
    }

    fn unlisted(&self, subject: &Digest, why: Unlisted) -> Failure {
        match why {
            Unlisted::Registry(err) => self
                .refused(&err)
                .cause(format!("it has to be listed for its subject {subject}")),
            Unlisted::NoIndex(tag) => {
                let host = &self.host;
                let reason = format!("it cannot be listed for its subject {subject}");
                let failure = Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason);
                self.about(failure)
                    .cause(format!("tag {tag} of {host} is no index"))
                    .next("delete that tag there, and push again")
            }
        }
    }

    /// What the registry said, with the blob or manifest that it was about.
    fn refused(&self, err: &Error) -> Failure {
        let name = self.request.remote_name.to_string();
        let again = "cairn images push";
        let mut failure = err.failure(ATTEMPTED, &name, again);
        let about = format!("{} was not stored", err.details().what);
        failure.causes.insert(0, about);
        if self.request.remote_name != self.request.name {
            for step in &mut failure.next {
                if step.starts_with(again) {
                    *step += &format!(" {}", self.request.name);
                }
            }
        }
        failure
    }

    fn damaged(&self, digest: &Digest, cause: String) -> Failure {
        let reason = format!("blob {digest} is damaged");
        let failure = Failure::new(ErrorKind::DataLoss, ATTEMPTED, reason).cause(cause);
        self.about(failure).next("cairn fsck --deep --repair")
    }

    fn about(&self, failure: Failure) -> Failure {
        let failure = failure.object("image", &self.request.name);
        failure.namespace(&self.request.ns)
    }

    fn broke(&self, err: &tokio::task::JoinError) -> Failure {
        let reason = "sending a blob ended unexpectedly";
        let failure = Failure::new(ErrorKind::Internal, ATTEMPTED, reason);
        self.about(failure).cause(err.to_string())
    }
}

/// A blob that did not arrive.
struct BlobFailed {
    digest: Digest,
    damage: Option<String>,
    err: Error,
}

impl BlobFailed {
    fn tell(self, sender: &Sender<'_>) -> Failure {
        match self.damage {
            Some(cause) => sender.damaged(&self.digest, cause),
            None => sender.refused(&self.err),
        }
    }
}

fn phase(how: &Pushed) -> Phase {
    match how {
        Pushed::Present => Phase::HereAlready,
        Pushed::Mounted(_) => Phase::Mounted,
        Pushed::Sent => Phase::Done,
    }
}
