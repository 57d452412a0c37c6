//! What long work tells its caller while it runs, and whoever counts it afterwards.

use std::time::{Duration, Instant};

use cairn_types::{Descriptor, Digest, ErrorKind, LayerTiming, SnapshotKey};

use crate::{Failure, Node};

/// How far a layer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Not begun.
    Waiting,
    /// Its bytes are stored.
    Fetch,
    /// Its bytes are stored and unpacked in one pass.
    FetchUnpack,
    /// It is unpacked from its stored bytes.
    Unpack,
    /// It is made durable.
    Sync,
    /// Complete.
    Done,
    /// There was nothing to do.
    HereAlready,
    /// Its bytes are sent.
    Push,
    /// It was taken over from another repository of the registry.
    Mounted,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is known what will be done.
    Resolved {
        /// The image, or the archive when it has no name.
        name: String,
        /// As `linux/amd64`; empty when the manifest names none.
        platform: String,
        /// Compressed digest and size in bytes, lowest first. In a docker archive the digest of a
        /// packed layer is only known at its end; until then its diff ID stands here.
        layers: Vec<(Digest, u64)>,
    },
    /// A layer went on.
    Layer {
        /// As in [`Event::Resolved`].
        digest: Digest,
        /// Where it is.
        phase: Phase,
        /// Bytes of the stored form so far.
        done: u64,
        /// Bytes of the stored form.
        total: u64,
    },
    /// The bytes of a layer are asked for, or offered.
    Asked {
        /// As in [`Event::Resolved`].
        digest: Digest,
        /// Whom, as people know it.
        host: String,
        /// The how manieth request for it this is.
        attempt: u32,
    },
    /// The bytes of a layer go on from where they were.
    Resumed {
        /// As in [`Event::Resolved`].
        digest: Digest,
        /// Offset.
        at: u64,
    },
    /// A request failed, and will be made again.
    Retry {
        /// As in [`Event::Resolved`].
        digest: Digest,
        /// Which host failed.
        host: String,
        /// Which of them the next one is, and how many there are at most.
        attempt: (u32, u32),
        /// Until then.
        wait: Duration,
        /// Why it failed.
        cause: String,
    },
    /// A layer was unpacked, and is there now.
    Timed {
        /// As in [`Event::Resolved`].
        digest: Digest,
        /// As which: a layer that is in two stacks is unpacked for each.
        key: SnapshotKey,
        /// What the time went into.
        timing: LayerTiming,
    },
    /// A line about requests to a registry, which was asked for. No secret is in it.
    Traced(String),
    /// Everything that was resolved is complete.
    Done,
}

/// A document or blob of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagePart {
    /// What it is.
    pub descriptor: Descriptor,
    /// The documents of the image that refer to it; none do to its target.
    pub parents: Vec<Digest>,
}

/// What of an image is brought in or sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// As in [`Event::Resolved`].
    pub name: String,
    /// The target first, documents before what they refer to, each once.
    pub parts: Vec<ImagePart>,
}

/// Receives events, from several threads at once. Must return quickly: the work waits for it.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);

    /// Whether it takes what images consist of. To list that takes time and memory.
    fn wants_contents(&self) -> bool {
        false
    }

    /// Takes what an image consists of, before anything is told of it.
    fn contents(&self, _image: &Contents) {}

    /// A manifest, index or configuration of it is where it is wanted, and `was` there before.
    fn document(&self, _digest: &Digest, _was: bool) {}

    /// Whether nobody waits for the work any more. It then ends where it can, as `Canceled`; blobs
    /// that are whole by then stay, so that another try has less to do.
    fn given_up(&self) -> bool {
        false
    }
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event) {}
}

/// Work with a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transfer {
    /// [`Node::pull`].
    Pull,
    /// [`Node::push`].
    Push,
}

/// Where work with a registry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferStep {
    /// It has begun.
    Begun,
    /// It has ended, and how if it failed.
    Ended {
        /// All in all.
        took: Duration,
        /// `None` when it was done.
        failed: Option<ErrorKind>,
    },
}

/// Hears of every unpacked layer.
pub(crate) type LayerObserver = Box<dyn Fn(&LayerTiming) + Send + Sync>;

/// Hears of every pull and push.
pub(crate) type TransferObserver = Box<dyn Fn(Transfer, TransferStep) + Send + Sync>;

impl Node {
    /// Tells `observer` of every layer from now on how long it took to unpack. Layers wait for it, so it
    /// must not wait. Only the first observer is told.
    pub fn observe_layers(&self, observer: impl Fn(&LayerTiming) + Send + Sync + 'static) {
        let _ = self.inner.layers.set(Box::new(observer));
    }

    /// Tells `observer` of every pull and push from now on, at its begin and at its end. It must not wait.
    /// Only the first observer is told.
    pub fn observe_transfers(
        &self,
        observer: impl Fn(Transfer, TransferStep) + Send + Sync + 'static,
    ) {
        let _ = self.inner.transfers.set(Box::new(observer));
    }

    /// Does `work`, which is this, and tells whoever counts such work.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn transfer<T>(
        &self,
        what: Transfer,
        work: impl FnOnce(&Node) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut running = Running::begin(self, what);
        let done = work(self);
        running.failed = done.as_ref().err().map(|failure| failure.kind);
        done
    }

    pub(crate) fn layer_took(&self, timing: &LayerTiming) {
        if let Some(observer) = self.inner.layers.get() {
            observer(timing);
        }
    }
}

/// Work that has begun. Its end is told even if it panics.
struct Running<'n> {
    observer: Option<&'n TransferObserver>,
    what: Transfer,
    began: Instant,
    failed: Option<ErrorKind>,
}

impl Running<'_> {
    fn begin(node: &Node, what: Transfer) -> Running<'_> {
        let observer = node.inner.transfers.get();
        if let Some(observer) = observer {
            observer(what, TransferStep::Begun);
        }
        Running {
            observer,
            what,
            began: Instant::now(),
            failed: Some(ErrorKind::Internal),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(observer) = self.observer {
            let (took, failed) = (self.began.elapsed(), self.failed);
            observer(self.what, TransferStep::Ended { took, failed });
        }
    }
}
