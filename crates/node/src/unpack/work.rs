//! What all workers of one request share, and how its failures name things.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_types::{Classified, Digest, ErrorKind, Namespace};

use crate::{
    Event, Failure, Node, Phase, Pins, Progress,
    claims::Pulse,
    failure::{MAKE_ROOM, size},
    intake::Origin,
    store::is_full,
};

/// What to do about damage in the store.
const FROM_STORE: &str = "import or pull the image again";

/// Where a worker reads a blob.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Where the image comes from, from an offset on.
    Source { from: u64 },
    /// From the store; it is there.
    Store,
}

/// What all workers share, and how they name things in messages.
pub(crate) struct Work<'a> {
    pub(crate) node: &'a Node,
    pub(crate) ns: &'a Namespace,
    /// As in [`crate::Report::attempted`].
    pub(crate) attempted: &'static str,
    /// Kind and name, as in [`crate::Report::object`].
    pub(crate) object: (&'static str, String),
    /// Where the image comes from; `None` when all of it is in the store.
    pub(crate) origin: Option<&'a dyn Origin>,
    pub(crate) progress: &'a dyn Progress,
    /// Everything that is looked for in the store.
    pub(crate) pins: &'a Pins,
    /// Bytes of blobs that are still to be stored, as far as the workers know.
    pub(crate) missing: Arc<AtomicU64>,
    /// Whether it gets on, for those who wait for it.
    pub(crate) pulse: Arc<Pulse>,
}

impl<'a> Work<'a> {
    /// Opens a blob for a worker.
    pub(crate) fn open(
        &self,
        digest: &Digest,
        reading: Reading,
    ) -> Result<Box<dyn Read + Send + 'a>, Failure> {
        match (reading, self.origin) {
            (Reading::Source { from }, Some(origin)) => origin.open(digest, from),
            _ => self.node.open_stored(self.ns, digest, self.attempted),
        }
    }

    /// Whether what others are at is waited for, and uploads are gone on with.
    pub(crate) fn is_dear(&self) -> bool {
        self.origin.is_some_and(Origin::is_dear)
    }

    fn location(&self, digest: &Digest) -> Option<String> {
        self.origin.and_then(|origin| origin.location(digest))
    }

    pub(crate) fn layer(&self, digest: &Digest, phase: Phase, done: u64, total: u64) {
        self.progress.event(Event::Layer {
            digest: digest.clone(),
            phase,
            done,
            total,
        });
    }

    /// Says which object and namespace a failure is about.
    pub(crate) fn failure(&self, failure: Failure) -> Failure {
        let failure = failure.object(self.object.0, &self.object.1);
        failure.namespace(self.ns)
    }

    pub(crate) fn located(&self, failure: Failure, digest: &Digest) -> Failure {
        let mut failure = self.failure(failure);
        failure.location = self.location(digest);
        failure
    }

    /// A layer whose bytes are wrong; the caller adds how.
    pub(crate) fn damaged(&self, digest: &Digest) -> Failure {
        let reason = format!("layer {digest} is damaged");
        let failure = Failure::new(ErrorKind::DataLoss, self.attempted, reason);
        let advice = self.origin.map(|origin| origin.advice().0);
        let advice = advice.unwrap_or_else(|| FROM_STORE.to_owned());
        self.located(failure, digest).next(advice)
    }

    /// A blob that is here and cannot be read: whence it came there is nothing to mend.
    pub(crate) fn in_store(&self, mut failure: Failure, digest: &Digest) -> Failure {
        failure.location = None;
        failure.next(format!("cairn content rm {digest}; then try again"))
    }

    /// What leads on when an image cannot be unpacked for what it is.
    pub(super) fn keep_packed(&self) -> Option<String> {
        let origin = self.origin?;
        Some(format!("keep it packed: {}", origin.packed()))
    }

    pub(super) fn full(&self, digest: &Digest, cause: &str) -> Failure {
        self.full_while(&format!("write layer {digest}"), cause)
    }

    /// That what is still to be stored does not fit.
    pub(super) fn too_large(&self, kept: u64) -> Failure {
        let missing = self.missing.load(Ordering::Relaxed);
        let reason = self.node.nothing_left(missing);
        let failure = Failure::new(ErrorKind::ResourceExhausted, self.attempted, reason);
        let failure = match kept {
            0 => failure,
            kept => failure.cause(kept_free(kept)),
        };
        self.failure(failure.next(format!("{MAKE_ROOM}; then try again")))
    }

    fn full_while(&self, writing: &str, cause: &str) -> Failure {
        let missing = self.missing.load(Ordering::Relaxed);
        let reason = self.node.nothing_left(missing);
        let failure = Failure::new(ErrorKind::ResourceExhausted, self.attempted, reason)
            .cause(writing)
            .cause(cause)
            .next(format!("{MAKE_ROOM}; then try again"));
        self.failure(failure)
    }

    /// A document or record that could not be written.
    pub(crate) fn unwritten(&self, what: &str, err: &dyn Classified) -> Failure {
        if is_full(err) {
            return self.full_while(&format!("write {what}"), &root_cause(err));
        }
        let reason = format!("{what} cannot be stored");
        self.failure(Failure::because(self.attempted, reason, err))
    }

    pub(crate) fn store_failure(&self, digest: &Digest, err: &dyn Classified) -> Failure {
        if is_full(err) {
            return self.full(digest, &root_cause(err));
        }
        let reason = format!("layer {digest} cannot be stored");
        self.failure(Failure::because(self.attempted, reason, err))
    }

    pub(super) fn layer_failure(&self, digest: &Digest, err: &cairn_layer::Error) -> Failure {
        use cairn_layer::Error as Layer;
        let exhausted = err.kind() == ErrorKind::ResourceExhausted;
        let by_system = matches!(
            err,
            Layer::Write { .. } | Layer::Layer { .. } | Layer::Adopt { .. }
        );
        if by_system && is_full(err) {
            return self.full(digest, &root_cause(err));
        }
        let reason = format!("layer {digest} cannot be unpacked");
        let mut failure = Failure::because(self.attempted, reason, err);
        if exhausted && !by_system {
            // Over a limit of ours, which no space and no other try will change.
            failure.kind = ErrorKind::InvalidArgument;
        }
        self.located(failure, digest)
    }
}

/// Why bytes that are free are not to be had.
pub(super) fn kept_free(kept: u64) -> String {
    format!("{} of the disk are kept free", size(kept))
}

fn root_cause(err: &dyn Classified) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text = err.to_string();
        source = err.source();
    }
    text
}
