//! A repository of a registry as a place that images come from.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_registry::{Client, Error, Observer, Reference, Retry, Tag, What};
use cairn_types::{Descriptor, Digest, ErrorKind, Labels, MediaKind, Namespace};
use tokio::runtime::Handle;

use super::{
    ATTEMPTED, COMMAND,
    documents::Document,
    fetch::{self, Incoming, Watch},
    places::Limits,
};
use crate::{
    Event, Failure, Node, Pins, Progress,
    documents::{self, DOCUMENT_BYTES_MAX, DocumentError},
    intake::{Origin, Wanted},
    objects::word,
    registries::Origins,
    walk::{Blobs, Tree},
};

/// How long a request for a document does not look whether it is still wanted.
const BEAT: Duration = Duration::from_millis(100);

/// Where one image is fetched from.
pub(super) struct Remote<'a> {
    pub(super) node: &'a Node,
    pub(super) ns: &'a Namespace,
    /// As users name it.
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) runtime: Handle,
    pub(super) limits: Limits,
    /// As of [`Origin::alike`].
    pub(super) alike: String,
    pub(super) at_once: usize,
    /// Which platforms are wanted of an index.
    pub(super) wanted: Wanted,
    /// In which repositories its blobs are known.
    pub(super) origins: Origins,
    pub(super) pins: Pins,
    pub(super) progress: &'a dyn Progress,
    pub(super) news: Arc<News>,
    /// What can be asked for.
    pub(super) known: HashMap<Digest, Descriptor>,
    /// Documents that others may have from here, as long as the pull lasts: by then they are stored.
    pub(super) reading: Mutex<Vec<Document>>,
}

/// What happened on the way, for whoever reads the bytes to tell: requests are made in other threads, which
/// may outlive the pull.
#[derive(Default)]
pub(super) struct News {
    events: Mutex<Vec<Event>>,
    any: AtomicBool,
    came: AtomicU64,
    layers: Mutex<HashMap<Digest, Asked>>,
}

/// Who was asked for a blob.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) host: String,
    pub(super) attempts: u32,
    /// Who sent its first bytes, the last time that it was begun. More than one may have a part in it; this
    /// is whom the others are preferred to if it is wrong.
    begun: Option<String>,
}

impl News {
    fn layers(&self) -> MutexGuard<'_, HashMap<Digest, Asked>> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(event);
        self.any.store(true, Ordering::Release);
    }

    pub(super) fn tell(&self, progress: &dyn Progress) {
        if !self.any.swap(false, Ordering::Acquire) {
            return;
        }
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let told = std::mem::take(&mut *events);
        drop(events);
        told.into_iter().for_each(|event| progress.event(event));
    }

    /// Who was asked for a blob last.
    pub(super) fn asked(&self, digest: &Digest) -> Option<Asked> {
        self.layers().get(digest).cloned()
    }

    /// A blob is begun, or begun anew.
    fn begin(self: &Arc<Self>, digest: &Digest) -> Of {
        let mut layers = self.layers();
        let asked = layers.get_mut(digest);
        let before = asked.map_or(0, |asked| {
            asked.begun = None;
            asked.attempts
        });
        Of {
            digest: digest.clone(),
            news: Arc::clone(self),
            before,
        }
    }

    /// Bytes that came of blobs and documents.
    pub(super) fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }
}

impl Observer for News {
    fn retry(&self, retry: &Retry<'_>) {
        let Some(What::Blob(digest)) = retry.what else {
            return;
        };
        self.add(Event::Retry {
            digest: digest.clone(),
            host: retry.failed.host.clone(),
            attempt: (retry.attempt, retry.attempts_max),
            wait: retry.wait,
            cause: retry.reason(),
        });
    }
}

/// The way of one blob.
struct Of {
    digest: Digest,
    news: Arc<News>,
    /// Requests before it was begun anew.
    before: u32,
}

impl Watch for Of {
    fn asked(&self, host: &str, attempt: u32) {
        let attempt = self.before + attempt;
        let mut layers = self.news.layers();
        let asked = layers.entry(self.digest.clone()).or_default();
        asked.host = host.to_owned();
        asked.attempts = attempt;
        asked.begun.get_or_insert_with(|| host.to_owned());
        drop(layers);
        self.news.add(Event::Asked {
            digest: self.digest.clone(),
            host: host.to_owned(),
            attempt,
        });
    }

    fn resumed(&self, at: u64) {
        self.news.add(Event::Resumed {
            digest: self.digest.clone(),
            at,
        });
    }

    fn came(&self, bytes: usize) {
        self.news.came.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// A blob as it comes, and what there is to tell of it.
struct Told<'a> {
    incoming: Incoming,
    news: Arc<News>,
    progress: &'a dyn Progress,
}

impl Read for Told<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.incoming.read(buffer);
        self.news.tell(self.progress);
        read
    }
}

impl Remote<'_> {
    /// What a tag or a digest means there; of a tag that is not there, what may have been meant.
    pub(super) fn resolve(&self, reference: &Reference) -> Result<Descriptor, Failure> {
        self.wait(async {
            let err = match self.client.resolve(reference).await {
                Ok(descriptor) => return Ok(descriptor),
                Err(err) => err,
            };
            let near = self.client.nearest_tags(&err).await;
            let near: Vec<&str> = near.iter().map(Tag::as_str).collect();
            let failure = self.failure(&err);
            Err(match near.as_slice() {
                [] => failure,
                [one] => failure.cause(format!("nearest tag: {one}")),
                several => failure.cause(format!("nearest tags: {}", several.join(", "))),
            })
        })
    }

    /// Waits for requests, as long as they are wanted.
    fn wait<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.runtime.block_on(async {
            tokio::pin!(work);
            loop {
                match tokio::time::timeout(BEAT, &mut work).await {
                    Ok(done) => return done,
                    Err(_) if self.progress.given_up() => return Err(self.stopped()),
                    Err(_) => self.news.tell(self.progress),
                }
            }
        })
    }

    fn failure(&self, err: &Error) -> Failure {
        let mut failure = err.failure(ATTEMPTED, &self.name, COMMAND);
        if let What::Blob(digest) = &err.details().what {
            // The host is named; which of an image's layers it was is not.
            failure.causes.push(format!("fetch blob {digest}"));
        }
        failure.namespace(self.ns)
    }

    fn stopped(&self) -> Failure {
        let failure = Failure::new(ErrorKind::Canceled, ATTEMPTED, "it was stopped");
        failure.object("image", &self.name).namespace(self.ns)
    }

    fn again(&self) -> String {
        format!("{COMMAND} {}", word(&self.name))
    }

    /// Makes everything in a tree known by its digest, so that it can be asked for.
    pub(super) fn know(&mut self, tree: &Tree) {
        let all = tree.everything().into_iter();
        self.known
            .extend(all.map(|one| (one.digest.clone(), one.clone())));
    }

    async fn fetch(&self, descriptor: &Descriptor) -> Result<Bytes, Failure> {
        if matches!(
            MediaKind::of(&descriptor.media_type),
            MediaKind::Index | MediaKind::Manifest
        ) {
            let bytes = self.client.manifest(descriptor).await;
            let bytes = bytes.map_err(|err| self.failure(&err))?;
            self.news
                .came
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            return Ok(bytes);
        }
        let digest = &descriptor.digest;
        loop {
            let mut blob = self.client.blob(descriptor, 0);
            let mut bytes = Vec::new();
            let mut host = String::new();
            while let Some(piece) = blob.chunk().await.map_err(|err| self.failure(&err))? {
                bytes.extend_from_slice(&piece);
                blob.host().unwrap_or_default().clone_into(&mut host);
            }
            self.news
                .came
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            let actual = Digest::of(digest.algorithm(), &bytes);
            if actual == *digest {
                return Ok(bytes.into());
            }
            if let Err(err) = self.client.distrust(digest, &host, actual) {
                let reason = format!("configuration {digest} is damaged");
                let mut failure = Failure::new(ErrorKind::DataLoss, ATTEMPTED, reason)
                    .object("image", &self.name)
                    .namespace(self.ns)
                    .next(self.again());
                failure.causes = sentences(&err);
                failure.location = Some(host);
                return Err(failure);
            }
        }
    }

    /// The bytes of a document: from the store, or fetched by this pull or by another.
    fn bytes(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let digest = &descriptor.digest;
        let (node, pins) = (self.node, &self.pins);
        let place = (node.sharers(self.ns), digest.clone());
        let place = node.inner.documents.place(place);
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.push(Arc::clone(&place));
        drop(reading);
        // Looked for only now: who had it until a moment ago has stored it before.
        pins.blob(self.ns, digest);
        if let Ok(bytes) = node.content().read_all(self.ns, digest, DOCUMENT_BYTES_MAX) {
            return Ok(bytes);
        }
        // It is not here, or damaged.
        if let Some(bytes) = node.read_shared(pins, digest, DOCUMENT_BYTES_MAX)? {
            return Ok(bytes);
        }
        let bytes = self.wait(async {
            let bytes = place.get_or_try_init(|| self.fetch(descriptor)).await;
            bytes.cloned()
        })?;
        Ok(bytes.to_vec())
    }
}

/// What each host did.
fn sentences(err: &Error) -> Vec<String> {
    let failed = err.details().failed.iter();
    failed.map(ToString::to_string).collect()
}

impl Blobs for Remote<'_> {
    type Error = Failure;

    fn document(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Failure> {
        // What says no platform is looked at; what is about another manifest goes with none of them.
        if !self.wanted.reads(descriptor) {
            return Ok(None);
        }
        // Containerd fetches neither what is to have no bytes nor what has others than it is to have.
        if descriptor.size == 0 {
            return Err(self.refuse(descriptor, DocumentError::Empty));
        }
        let bytes = self.bytes(descriptor)?;
        let (expected, actual) = (descriptor.size, bytes.len() as u64);
        if actual != expected {
            let reason = DocumentError::Size { expected, actual };
            return Err(self.refuse(descriptor, reason));
        }
        Ok(Some(bytes))
    }

    fn refuse(&self, descriptor: &Descriptor, reason: DocumentError) -> Failure {
        let text = format!("document {} is refused", descriptor.digest);
        Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, text)
            .object("image", &self.name)
            .namespace(self.ns)
            .cause(reason.to_string())
    }

    fn too_many(&self, _descriptor: &Descriptor, reason: String) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason)
            .object("image", &self.name)
            .namespace(self.ns)
    }
}

impl Origin for Remote<'_> {
    fn attempted(&self) -> &'static str {
        ATTEMPTED
    }

    fn of_image(&self) -> &'static str {
        ATTEMPTED
    }

    fn object(&self) -> (&'static str, &str) {
        ("image", &self.name)
    }

    fn place(&self) -> &'static str {
        "the registry"
    }

    /// What is not there it says when it is asked for it.
    fn has(&self, digest: &Digest) -> Result<bool, Failure> {
        Ok(self.known.contains_key(digest))
    }

    fn has_stored(&self, digest: &Digest) -> bool {
        self.pins.blob(self.ns, digest);
        self.node
            .content()
            .is_whole(self.ns, digest)
            .unwrap_or(false)
    }

    fn open(&self, digest: &Digest, from: u64) -> Result<Box<dyn Read + Send + '_>, Failure> {
        let Some(descriptor) = self.known.get(digest) else {
            let reason = format!("blob {digest} is not part of it");
            return Err(
                Failure::new(ErrorKind::NotFound, ATTEMPTED, reason).object("image", &self.name)
            );
        };
        let embedded = documents::embedded(descriptor);
        if let Some(bytes) = embedded.map_err(|reason| self.refuse(descriptor, reason))? {
            let mut bytes = io::Cursor::new(bytes);
            bytes.set_position(from);
            return Ok(Box::new(bytes));
        }
        let watch = self.news.begin(digest);
        let incoming = fetch::fetch(
            &self.runtime,
            self.client.clone(),
            descriptor.clone(),
            from,
            self.limits.clone(),
            Arc::new(watch),
        );
        Ok(Box::new(Told {
            incoming,
            news: Arc::clone(&self.news),
            progress: self.progress,
        }))
    }

    fn location(&self, digest: &Digest) -> Option<String> {
        self.news.asked(digest).map(|asked| asked.host)
    }

    fn advice(&self) -> (String, String) {
        (self.again(), self.again())
    }

    fn with_platform(&self, platform: &str) -> String {
        format!("{COMMAND} --platform {platform} {}", word(&self.name))
    }

    fn packed(&self) -> String {
        format!("{COMMAND} --no-unpack {}", word(&self.name))
    }

    fn pins(&self) -> &Pins {
        &self.pins
    }

    fn is_dear(&self) -> bool {
        true
    }

    fn alike(&self) -> String {
        self.alike.clone()
    }

    fn at_once(&self) -> Option<usize> {
        Some(self.at_once)
    }

    fn distrust(&self, digest: &Digest, actual: &Digest) -> Result<(), Vec<String>> {
        // What stands in the manifest itself came from nobody else.
        let Some(host) = self.news.asked(digest).and_then(|asked| asked.begun) else {
            return Err(Vec::new());
        };
        let again = self.client.distrust(digest, &host, actual.clone());
        again.map_err(|err| sentences(&err))
    }

    fn explain(&self, err: &io::Error) -> Option<Failure> {
        let err = err.get_ref()?.downcast_ref::<Error>()?;
        Some(self.failure(err))
    }

    fn labels(&self) -> Labels {
        self.origins.label_of_new()
    }
}
