//! The store read again behind everything else: all blobs against their digests, all unpacked layers
//! against their blobs.
//!
//! What a disk forgets nobody notices until it is wanted, which may be when the registry that had it too is
//! gone. So whoever serves a store for long lets it be read from time to time. It is slow on purpose, leaves the
//! kernel's memory of files as it was, goes on after a restart where it was, and changes nothing: a blob that
//! is damaged is brought again by the next pull or import that wants it, as if its reader had met the
//! damage, and of what else it finds `fsck` tells.

mod kept;
mod run;

use std::{sync::atomic::Ordering, time::Duration};

use cairn_meta::Timestamp;
use cairn_types::ErrorKind;

pub(crate) use self::kept::Scrubbed;
pub use self::kept::{Found, ScrubReport};
use self::run::Run;
use crate::{Failure, Node};

/// How it is about the scrub of a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// It is at work.
    pub is_running: bool,
    /// The pass that did not come to its end yet.
    pub under_way: Option<ScrubUnderWay>,
    /// The last that did.
    pub last: Option<ScrubReport>,
    /// What was found and is still so, for all that is known.
    pub findings: Vec<Found>,
    /// Bytes that were read since the store was opened.
    pub read_bytes: u64,
}

/// A pass on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubUnderWay {
    /// Nanoseconds since 1970 UTC.
    pub began_at: i64,
    /// Bytes of the blobs that were read, and of layers whose trees were compared.
    pub done: u64,
    /// The same of all.
    pub total: u64,
}

impl Node {
    /// Goes on with the pass that was cut short, or begins one: at most `rate` bytes a second (0 for as many
    /// as come), for as long as it is `wanted`. Whether it came to its end; `false` also when somebody
    /// else is at it.
    ///
    /// # Errors
    /// When something cannot be looked at at all. It can be gone on with.
    pub fn scrub(&self, rate: u64, wanted: &(dyn Fn() -> bool + Sync)) -> Result<bool, Failure> {
        let scrubbed = &self.inner.scrubbed;
        let Some(_turn) = scrubbed.turn() else {
            return Ok(false);
        };
        let mut run = Run::new(self, rate, wanted);
        let ended = match run.pass() {
            Ok(()) => Ok(true),
            Err(failure) if failure.kind == ErrorKind::Canceled => Ok(false),
            Err(failure) => Err(failure),
        };
        run.keep();
        ended
    }

    /// How long it is until a pass is to begin, if one begins every so often, or one that was cut short to go on.
    pub fn scrub_due(&self, every: Duration) -> Duration {
        let now = Timestamp::now().0;
        let last = self.inner.scrubbed.with(|state| match &state.pass {
            Some(_) => None,
            None => state.last.as_ref().map(|last| last.began_at),
        });
        match last.and_then(|last| u64::try_from(now.saturating_sub(last)).ok()) {
            Some(age) => every.saturating_sub(Duration::from_nanos(age)),
            // A clock that was wrong puts nothing off.
            None => Duration::ZERO,
        }
    }

    /// What scrubs have come to.
    pub fn scrub_status(&self) -> ScrubStatus {
        let scrubbed = &self.inner.scrubbed;
        let findings = scrubbed.standing(self);
        let (under_way, last) = scrubbed.with(|state| {
            let under_way = state.pass.as_ref().map(|pass| ScrubUnderWay {
                began_at: pass.report.began_at,
                done: pass.done.min(pass.total),
                total: pass.total,
            });
            (under_way, state.last.clone())
        });
        ScrubStatus {
            is_running: scrubbed.is_running(),
            under_way,
            last,
            findings,
            read_bytes: scrubbed.bytes.load(Ordering::Relaxed),
        }
    }
}
