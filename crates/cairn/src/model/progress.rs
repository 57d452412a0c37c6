//! The lines of `--progress=json`.

use serde::Serialize;

use super::TimingMs;

/// One line on standard error. What is about a layer names it as the first line of its image does, by its
/// digest.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Progress {
    /// It is known what will be done.
    Resolved {
        /// The image, or the archive when it has no name.
        r#ref: String,
        /// As `linux/amd64`; empty when the manifest names none.
        platform: String,
        /// How many.
        layers: usize,
        /// Bytes of them all as they are packed.
        total: u64,
    },
    /// The first of the layers has come to a phase.
    Phase {
        /// As in the first line.
        r#ref: String,
        /// As people are told.
        phase: &'static str,
        /// Bytes so far, and in all.
        done: u64,
        /// As above.
        total: u64,
    },
    /// How far a layer is: at most ten times a second, but at each of its phases.
    Layer {
        /// As in the first line.
        r#ref: String,
        /// Which.
        digest: String,
        /// As people are told.
        phase: &'static str,
        /// Bytes so far, and in all.
        done: u64,
        /// As above.
        total: u64,
        /// Bytes per second; unknown when nothing moves.
        rate: Option<u64>,
        /// Who was asked for it last; unknown when nobody was.
        host: Option<String>,
        /// The how manieth request for it this is.
        attempt: u32,
    },
    /// The bytes of a layer go on from where they were.
    Resumed {
        /// As in the first line.
        r#ref: String,
        /// Which.
        digest: String,
        /// Bytes that were there.
        at: u64,
    },
    /// A request failed, and will be made again.
    Retry {
        /// As in the first line.
        r#ref: String,
        /// Of which layer.
        digest: String,
        /// Who failed.
        host: String,
        /// Which request the next one is.
        attempt: u32,
        /// How many there are at most.
        attempts: u32,
        /// Milliseconds until then.
        wait_ms: u64,
        /// Why it failed.
        cause: String,
    },
    /// A line about requests to a registry, which was asked for.
    Http {
        /// Without a secret.
        line: String,
    },
    /// A layer is unpacked, and what the time went into.
    Timing {
        /// As in the first line.
        r#ref: String,
        /// Which.
        digest: String,
        /// Of the stack up to it: a layer that is in two stacks is unpacked for each.
        chain_id: String,
        /// Of what goes on side by side that for which the rest waited.
        timing_ms: TimingMs,
    },
    /// There is no more to tell of an image, whether it is complete or not.
    Done {
        /// As in the first line.
        r#ref: String,
    },
}
