//! Requests, connections and answers as lines for whoever looks for what goes wrong, without a secret.
//!
//! Lines are made here and not by who shows them: only here it is known what is one. What may be seen is
//! decided by name (`trace/mask.rs`), so that what nobody thought of stays hidden; and whatever was shown to a
//! host is struck out of everything that hosts send, since some servers answer with what they were asked.

mod body;
mod dial;
mod mask;

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, header};
use reqwest::Response;
use url::Url;

use crate::{
    error::{Cause, Failed, named},
    net::{Ask, Payload},
    observer::{Observer, Retry, Watch},
};

pub(crate) use body::Heard;
pub(crate) use dial::Dialing;

/// Characters of one line.
const LINE_CHARS_MAX: usize = 4096;

/// Secrets that are remembered to be struck out: tokens end, and long work is given many.
const SECRETS_MAX: usize = 256;

/// Shorter ones are parts of ordinary words; where they belong they are hidden by their place.
const SECRET_CHARS_MIN: usize = 4;

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// A line for each request, connection, answer, body and wait.
    Exchanges,
    /// Headers as well, and bodies that are short texts.
    Messages,
}

/// An observer that makes lines of what it is told. Requests of several threads are told apart by a number.
pub struct Trace {
    detail: Detail,
    tell: Box<dyn Fn(String) + Send + Sync>,
    requests: AtomicU64,
    /// The newest last.
    secrets: Mutex<VecDeque<String>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "trace of {:?}", self.detail)
    }
}

impl Trace {
    /// Hands each line to `tell`, without a line end. Requests wait for it, so it must not wait.
    pub fn new(detail: Detail, tell: impl Fn(String) + Send + Sync + 'static) -> Trace {
        Trace {
            detail,
            tell: Box::new(tell),
            requests: AtomicU64::new(0),
            secrets: Mutex::default(),
        }
    }

    fn line(&self, text: &str) {
        (self.tell)(tame(text));
    }

    fn shows_messages(&self) -> bool {
        self.detail == Detail::Messages
    }

    /// What comes from others may have it in it from now on.
    fn hide(&self, secret: &str) {
        if secret.chars().count() < SECRET_CHARS_MIN {
            return;
        }
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        if secrets.iter().any(|known| known == secret) {
            return;
        }
        if secrets.len() == SECRETS_MAX {
            secrets.pop_front();
        }
        secrets.push_back(secret.to_owned());
    }

    fn without_secrets(&self, text: &str) -> String {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<&String> = secrets
            .iter()
            .filter(|secret| text.contains(*secret))
            .collect();
        // Of one that another begins with, the rest of that would stay.
        found.sort_by_key(|secret| usize::MAX - secret.len());
        found.into_iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret, mask::MASK)
        })
    }
}

impl Observer for Trace {
    fn retry(&self, retry: &Retry<'_>) {
        self.line(&format!(
            "retry {} of {} in {}: {}: {}",
            retry.attempt,
            retry.attempts_max,
            time(retry.wait),
            retry.failed.host,
            retry.reason()
        ));
    }

    fn trace(&self) -> Option<&Trace> {
        Some(self)
    }
}

/// A request whose lines bear one number.
#[derive(Clone)]
pub(crate) struct Told {
    watch: Watch,
    number: u64,
    /// It is for a token, of whose answer nothing is shown that cannot be read.
    of_tokens: bool,
}

tokio::task_local! {
    /// The request that is being sent, for the connection that it may need.
    static SENDING: Told;
}

impl Told {
    /// Tells that a request is made, if anybody wants to know.
    pub(crate) fn begin(watch: &Watch, ask: &Ask, url: &Url, headers: &HeaderMap) -> Option<Told> {
        let trace = watch.trace()?;
        let told = Told {
            watch: watch.clone(),
            number: trace.requests.fetch_add(1, Ordering::Relaxed) + 1,
            of_tokens: ask.of_tokens,
        };
        mask::secrets(headers, |secret| trace.hide(secret));
        mask::secrets_of_url(url, |secret| trace.hide(secret));
        if let Payload::Bytes(bytes) = &ask.payload
            && is_form(headers)
        {
            mask::secrets_of_form(bytes, |secret| trace.hide(secret));
        }
        told.request(trace, ask, url, headers);
        Some(told)
    }

    fn request(&self, trace: &Trace, ask: &Ask, url: &Url, headers: &HeaderMap) {
        let mut text = format!("{} {}", ask.method, mask::url(url, *url != ask.url));
        if let Some(range) = headers.get(header::RANGE).and_then(|r| r.to_str().ok()) {
            text += &format!(", {range}");
        }
        match &ask.payload {
            Payload::Nothing => {}
            Payload::Bytes(bytes) => text += &format!(", with {} bytes", bytes.len()),
            Payload::Stream(outgoing) => text += &format!(", with {} bytes", outgoing.len()),
        }
        self.line(&text);
        if !trace.shows_messages() {
            return;
        }
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        self.line(&format!("> host: {host}"));
        for (name, value) in headers {
            self.line(&format!("> {name}: {}", mask::header(name, value)));
        }
        if let Payload::Bytes(bytes) = &ask.payload {
            let kind = body::Kind::of(headers, self.of_tokens);
            for line in kind.lines(bytes) {
                self.line(&format!(">> {line}"));
            }
        }
    }

    fn line(&self, text: &str) {
        if let Some(trace) = self.watch.trace() {
            trace.line(&format!("#{} {text}", self.number));
        }
    }

    /// A line of what others sent.
    fn foreign(&self, start: &str, text: &str) {
        if let Some(trace) = self.watch.trace() {
            self.line(&format!("{start}{}", trace.without_secrets(text)));
        }
    }

    /// Sends it, so that a connection that comes about for it is known to be its.
    pub(crate) async fn during<T>(&self, sending: impl Future<Output = T>) -> T {
        SENDING.scope(self.clone(), sending).await
    }

    fn brief(&self, cause: &Cause) -> String {
        let failed = Failed {
            host: self.watch.host().to_owned(),
            cause: cause.clone(),
        };
        failed.brief()
    }

    /// Tells how it ended.
    pub(crate) fn ended(&self, outcome: &Result<Response, Cause>, took: Duration) {
        let response = match outcome {
            Ok(response) => response,
            Err(cause) => {
                let why = self.brief(cause);
                return self.line(&format!("failed after {}: {why}", time(took)));
            }
        };
        let mut text = format!("{} after {}", named(response.status().as_u16()), time(took));
        if let Some(address) = response.remote_addr() {
            text += &format!(" from {address}");
        }
        if let Some(length) = response.content_length().filter(|length| *length > 0) {
            text += &format!(", {length} bytes");
        }
        self.line(&text);
        if self.watch.trace().is_some_and(Trace::shows_messages) {
            for (name, value) in response.headers() {
                self.foreign("< ", &format!("{name}: {}", mask::header(name, value)));
            }
        }
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    body::media_type(headers) == "application/x-www-form-urlencoded"
}

/// `3 s`, `12 ms`.
fn time(time: Duration) -> String {
    match time.as_millis() {
        ms @ 0..10_000 => format!("{ms} ms"),
        ms => format!("{} s", ms / 1000),
    }
}

/// Fit for a terminal and for one line.
fn tame(text: &str) -> String {
    let mut tamed: String = text
        .chars()
        .take(LINE_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(LINE_CHARS_MAX).is_some() {
        tamed.push('…');
    }
    tamed
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn heard(detail: Detail) -> (Trace, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let ears = Arc::clone(&lines);
        let trace = Trace::new(detail, move |line| ears.lock().expect("lines").push(line));
        (trace, lines)
    }

    #[test]
    fn a_wait_is_a_line() {
        let (trace, lines) = heard(Detail::Exchanges);
        trace.retry(&Retry {
            what: None,
            failed: &Failed {
                host: "mirror.example.com".to_owned(),
                cause: Cause::ConnectTimeout(Duration::from_secs(5)),
            },
            attempt: 2,
            attempts_max: 5,
            wait: Duration::from_millis(500),
        });
        assert_eq!(
            *lines.lock().expect("lines"),
            ["retry 2 of 5 in 500 ms: mirror.example.com: connect timed out after 5 s"]
        );
    }

    #[test]
    fn lines_are_fit_for_terminals() {
        let (trace, lines) = heard(Detail::Exchanges);
        trace.line("a\u{1b}[2Jb\nc");
        trace.line(&"x".repeat(LINE_CHARS_MAX + 1));
        let lines = lines.lock().expect("lines");
        assert_eq!(lines[0], "a [2Jb c");
        assert_eq!(lines[1].chars().count(), LINE_CHARS_MAX + 1);
        assert!(lines[1].ends_with('…'));
    }

    #[test]
    fn secrets_are_struck_out_wherever_they_stand() {
        let (trace, _) = heard(Detail::Messages);
        trace.hide("abc");
        trace.hide("p4ssword");
        let struck = trace.without_secrets("abc: you said p4ssword, p4ssword");
        assert_eq!(struck, "abc: you said ***, ***");
        for number in 0..SECRETS_MAX {
            trace.hide(&format!("token-{number}"));
        }
        // The newest are those that may come back.
        let last = format!("token-{}", SECRETS_MAX - 1);
        assert_eq!(trace.without_secrets(&last), "***");
        assert_eq!(trace.secrets.lock().expect("secrets").len(), SECRETS_MAX);
    }

    #[test]
    fn times_are_told_shortly() {
        assert_eq!(time(Duration::from_micros(1900)), "1 ms");
        assert_eq!(time(Duration::from_millis(9999)), "9999 ms");
        assert_eq!(time(Duration::from_millis(10_000)), "10 s");
    }
}
