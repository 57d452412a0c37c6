//! What a client may be told to do otherwise: times, rates, tries, sizes.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    env::Env,
    observer::{Observer, Silent},
    retry::{Clock, Dice, Policy, System},
    sessions::{Forgetful, Sessions},
};

/// Most bytes of a manifest, an index, a page of tags or referrers (distribution-spec, "Pushing
/// Manifests": registries may limit them, and clients should expect no less than 4 MiB).
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// How a client asks. The defaults are those of the table `[registry]` of the configuration.
#[derive(Clone)]
pub struct Options {
    /// For a name to resolve, a connection to come about and TLS to agree, where the endpoint has no
    /// time of its own.
    pub connect_timeout: Duration,
    /// From a request that was sent to the headers of its answer.
    pub header_timeout: Duration,
    /// Bytes per second that a body must have, averaged over the window. Only what is waited for
    /// counts: a reader that takes its time slows nobody down. 0 lets a connection hang.
    pub min_rate: u64,
    /// The window.
    pub min_rate_window: Duration,
    /// How often a request is repeated, and how long apart.
    pub retry: Policy,
    /// Bytes of one request of an upload. `None` sends a blob in one, as most registries like best, unless
    /// the host turns out to take less.
    pub upload_chunk: Option<u64>,
    /// Where the proxies of endpoints are that have none of their own ([`crate::proxy`]).
    pub env: Env,
    /// What waits are measured by.
    pub clock: Arc<dyn Clock>,
    /// What spreads them.
    pub dice: Arc<dyn Dice>,
    /// Who is told of what goes on; nobody, unless it is set.
    pub observer: Arc<dyn Observer>,
    /// Who keeps the sessions of uploads; nobody, unless it is set.
    pub sessions: Arc<dyn Sessions>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
            min_rate: 10 << 10,
            min_rate_window: Duration::from_secs(30),
            retry: Policy::default(),
            upload_chunk: None,
            env: Env::of_process(),
            clock: Arc::new(System),
            dice: Arc::new(System),
            observer: Arc::new(Silent),
            sessions: Arc::new(Forgetful),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("connect_timeout", &self.connect_timeout)
            .field("header_timeout", &self.header_timeout)
            .field("min_rate", &self.min_rate)
            .field("min_rate_window", &self.min_rate_window)
            .field("retry", &self.retry)
            .field("upload_chunk", &self.upload_chunk)
            .finish_non_exhaustive()
    }
}

impl Options {
    /// Bytes that have to pass in one window.
    pub(crate) fn window_bytes(&self) -> u64 {
        let bytes = u128::from(self.min_rate) * self.min_rate_window.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}
