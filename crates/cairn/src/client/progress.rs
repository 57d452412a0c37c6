//! What long work tells while it runs.

use std::time::Duration;

use cairn_proto::cairn::v1;

use super::inspect::timing;
use crate::model;

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
    /// It is read, and held against what it should be.
    Check,
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
        /// Digest and size in bytes, lowest first.
        layers: Vec<(String, u64)>,
    },
    /// A layer went on.
    Layer {
        /// As in [`Event::Resolved`].
        digest: String,
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
        digest: String,
        /// Whom.
        host: String,
        /// The how manieth request for it this is.
        attempt: u32,
    },
    /// The bytes of a layer go on from where they were.
    Resumed {
        /// As in [`Event::Resolved`].
        digest: String,
        /// Offset in the stored form.
        at: u64,
    },
    /// A request failed, and will be made again.
    Retry {
        /// As in [`Event::Resolved`].
        digest: String,
        /// Which host failed.
        host: String,
        /// Which of them the next one is, and how many there are at most.
        attempt: (u32, u32),
        /// Until then.
        wait: Duration,
        /// Why it failed.
        cause: String,
    },
    /// A layer was unpacked.
    Timed {
        /// As in [`Event::Resolved`].
        digest: String,
        /// Of the stack up to it: a layer that is in two stacks is unpacked for each.
        chain_id: String,
        /// What the time went into.
        timing: model::TimingMs,
    },
    /// A line about requests to a registry, which was asked for.
    Traced(String),
    /// Everything that was resolved is complete.
    Done,
}

/// Receives events. Must return quickly: the answer waits for it.
pub trait Progress: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Hands an event on. One that only a later server knows is none for us.
pub(super) fn tell(progress: &dyn Progress, told: v1::Progress) {
    if let Some(event) = event(told) {
        progress.event(event);
    }
}

fn event(told: v1::Progress) -> Option<Event> {
    use v1::progress::Event as Wire;
    Some(match told.event? {
        Wire::Resolved(resolved) => Event::Resolved {
            name: resolved.name,
            platform: resolved.platform,
            layers: resolved
                .layers
                .into_iter()
                .map(|layer| (layer.digest, layer.size))
                .collect(),
        },
        Wire::Layer(layer) => Event::Layer {
            phase: phase(layer.phase())?,
            digest: layer.digest,
            done: layer.done,
            total: layer.total,
        },
        Wire::Timed(timed) => Event::Timed {
            digest: timed.digest,
            chain_id: timed.chain_id,
            timing: timing(timed.timing?),
        },
        Wire::Http(http) => Event::Traced(http.line),
        Wire::Done(_) => Event::Done,
        Wire::Asked(asked) => Event::Asked {
            digest: asked.digest,
            host: asked.host,
            attempt: asked.attempt,
        },
        Wire::Resumed(resumed) => Event::Resumed {
            digest: resumed.digest,
            at: resumed.at,
        },
        Wire::Retry(retry) => Event::Retry {
            digest: retry.digest,
            host: retry.host,
            attempt: (retry.attempt, retry.attempts_max),
            wait: Duration::from_millis(retry.wait_ms),
            cause: retry.cause,
        },
    })
}

fn phase(wire: v1::Phase) -> Option<Phase> {
    Some(match wire {
        v1::Phase::Unspecified => return None,
        v1::Phase::Waiting => Phase::Waiting,
        v1::Phase::Fetch => Phase::Fetch,
        v1::Phase::FetchUnpack => Phase::FetchUnpack,
        v1::Phase::Unpack => Phase::Unpack,
        v1::Phase::Sync => Phase::Sync,
        v1::Phase::Done => Phase::Done,
        v1::Phase::HereAlready => Phase::HereAlready,
        v1::Phase::Push => Phase::Push,
        v1::Phase::Mounted => Phase::Mounted,
    })
}
