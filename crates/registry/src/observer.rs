//! Who is told of what goes on: requests as they end, bytes as they pass, what is asked again.
//!
//! Nothing that is told has a secret in it: no header, no body, no query of an address.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    error::{Cause, Failed, What},
    trace::Trace,
};

/// A request that has ended, by the headers of an answer or without one.
///
/// Each exchange is one: that which was sent on to storage counts twice, and so does that which was
/// refused until it showed a token.
#[derive(Clone, Copy, Debug)]
pub struct Exchange<'a> {
    /// The endpoint that was asked, as the user knows it: the registry's name, or a mirror's host and port.
    /// The same where it sent on to storage, or to the server that gives its tokens; `url` tells.
    pub host: &'a str,
    /// `GET`, `PUT`, …
    pub method: &'a str,
    /// Scheme, host and path.
    pub url: &'a str,
    /// The status, or why there is none.
    pub outcome: Result<u16, &'a Cause>,
    /// From its first byte to the headers of its answer.
    pub took: Duration,
}

/// A request, or a body, that failed and will be asked for again.
#[derive(Clone, Copy, Debug)]
pub struct Retry<'a> {
    /// What was asked for.
    pub what: Option<&'a What>,
    /// The host and why it failed.
    pub failed: &'a Failed,
    /// The how manieth try the next one is, counted from one.
    pub attempt: u32,
    /// How many there are at most.
    pub attempts_max: u32,
    /// Until then.
    pub wait: Duration,
}

impl Retry<'_> {
    /// Why it failed, in a few words, without the host's name: `connect timed out after 5 s`, `503 service
    /// unavailable`.
    pub fn reason(&self) -> String {
        self.failed.brief()
    }
}

/// Is told, from several threads at once. Requests wait for it, so it must not wait.
pub trait Observer: Send + Sync {
    /// A request has ended.
    fn ended(&self, _exchange: &Exchange<'_>) {}

    /// So many bytes of bodies have come. Whom from is told as in [`Exchange::host`].
    fn received(&self, _host: &str, _bytes: u64) {}

    /// So many bytes of bodies were handed to a connection; what breaks may not have arrived.
    fn sent(&self, _host: &str, _bytes: u64) {}

    /// Something failed and will be asked for again.
    fn retry(&self, _retry: &Retry<'_>) {}

    /// Who makes lines of all that goes on, if somebody wants them. Asked before each request.
    fn trace(&self) -> Option<&Trace> {
        None
    }
}

/// Is told nothing.
pub(crate) struct Silent;

impl Observer for Silent {}

/// The observer, and the endpoint that is spoken of.
#[derive(Clone)]
pub(crate) struct Watch {
    host: Arc<str>,
    observer: Arc<dyn Observer>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "watch of {}", self.host)
    }
}

impl Watch {
    pub(crate) fn new(host: &str, observer: &Arc<dyn Observer>) -> Watch {
        Watch {
            host: host.into(),
            observer: Arc::clone(observer),
        }
    }

    pub(crate) fn ended(
        &self,
        method: &str,
        url: &url::Url,
        outcome: Result<u16, &Cause>,
        took: Duration,
    ) {
        // No more than what says where: addresses of storage are signed in their query, and one that a
        // registry made up may have a name and a password in it.
        let authority = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let url = format!("{}://{authority}{}", url.scheme(), url.path());
        self.observer.ended(&Exchange {
            host: &self.host,
            method,
            url: &url,
            outcome,
            took,
        });
    }

    pub(crate) fn received(&self, bytes: u64) {
        if bytes > 0 {
            self.observer.received(&self.host, bytes);
        }
    }

    pub(crate) fn sent(&self, bytes: u64) {
        if bytes > 0 {
            self.observer.sent(&self.host, bytes);
        }
    }

    pub(crate) fn retry(&self, retry: &Retry<'_>) {
        self.observer.retry(retry);
    }

    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.observer.trace()
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }
}
