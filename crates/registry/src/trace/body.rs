//! Bodies: how much came, and the words of those that are short.

use std::time::Instant;

use http::{HeaderMap, header};
use reqwest::Response;

use super::{Told, Trace, mask, time};
use crate::error::Cause;

/// Bytes of a body that is shown. Only the whole of a document says which of it is secret.
const BODY_BYTES_MAX: usize = 16 << 10;

/// Lines of one.
const BODY_LINES_MAX: usize = 64;

/// What a body is, as far as it can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Form,
    Text,
    /// Not at all.
    Other,
}

impl Kind {
    /// By its headers. What comes of a server of tokens is only shown if it can be told what of it is one.
    pub(super) fn of(headers: &HeaderMap, of_tokens: bool) -> Kind {
        let media_type = media_type(headers);
        match &*media_type {
            "application/json" => Kind::Json,
            json if json.ends_with("+json") => Kind::Json,
            "application/x-www-form-urlencoded" => Kind::Form,
            text if text.starts_with("text/") && !of_tokens => Kind::Text,
            _ => Kind::Other,
        }
    }

    /// The lines to show of all of a body.
    pub(super) fn lines(self, bytes: &[u8]) -> Vec<String> {
        if bytes.is_empty() || bytes.len() > BODY_BYTES_MAX {
            return Vec::new();
        }
        let text = match self {
            Kind::Json => mask::json(bytes),
            Kind::Form => Some(mask::form(bytes)),
            // Some say of JSON that it is text.
            Kind::Text => mask::json(bytes).or_else(|| {
                let text = std::str::from_utf8(bytes).ok();
                text.map(mask::text)
            }),
            Kind::Other => None,
        };
        let text = text.unwrap_or_default();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        if lines.len() > BODY_LINES_MAX {
            let more = lines.len() - BODY_LINES_MAX;
            lines.truncate(BODY_LINES_MAX);
            lines.push(format!("… {more} more lines"));
        }
        lines
    }
}

/// Without its parameters, in lower case; empty where there is none.
pub(super) fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    let text = text.and_then(|text| text.split(';').next());
    text.unwrap_or_default().trim().to_ascii_lowercase()
}

impl Told {
    /// Listens to the body of an answer.
    pub(crate) fn body(&self, response: &Response) -> Heard {
        let wants = self.watch.trace().is_some_and(Trace::shows_messages);
        let kind = Kind::of(response.headers(), self.of_tokens);
        Heard {
            told: self.clone(),
            began: Instant::now(),
            bytes: 0,
            all: response.content_length(),
            kept: (wants && kind != Kind::Other).then(Vec::new),
            kind,
            state: State::Coming,
        }
    }
}

/// A body that comes. Dropped before its end it is left, which is told, too.
pub(crate) struct Heard {
    told: Told,
    began: Instant,
    bytes: u64,
    /// How many there are, where that is known. Who has them all need not wait for an end.
    all: Option<u64>,
    /// All of it so far, where it may be shown.
    kept: Option<Vec<u8>>,
    kind: Kind,
    state: State,
}

enum State {
    Coming,
    Ended,
    Broken(Cause),
}

impl Heard {
    pub(crate) fn piece(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        let kept = self.kept.take();
        self.kept = kept.filter(|kept| kept.len() + bytes.len() <= BODY_BYTES_MAX);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
    }

    pub(crate) fn ended(&mut self) {
        self.state = State::Ended;
    }

    pub(crate) fn broke(&mut self, cause: &Cause) {
        self.state = State::Broken(cause.clone());
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        let (bytes, took) = (self.bytes, time(self.began.elapsed()));
        match &self.state {
            State::Coming if self.all != Some(bytes) => {
                self.told
                    .line(&format!("body left after {bytes} bytes in {took}"));
            }
            State::Coming | State::Ended => {
                for line in self.kind.lines(self.kept.as_deref().unwrap_or_default()) {
                    self.told.foreign("<< ", &line);
                }
                if bytes > 0 {
                    self.told.line(&format!("body of {bytes} bytes in {took}"));
                }
            }
            State::Broken(cause) => {
                let why = match cause {
                    Cause::Broken { why, .. } => why.clone(),
                    cause => self.told.brief(cause),
                };
                self.told
                    .line(&format!("body broke after {bytes} bytes in {took}: {why}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn kind(content_type: &'static str, of_tokens: bool) -> Kind {
        let value = HeaderValue::from_static(content_type);
        Kind::of(
            &HeaderMap::from_iter([(header::CONTENT_TYPE, value)]),
            of_tokens,
        )
    }

    #[test]
    fn only_texts_are_shown() {
        for (content_type, expected) in [
            ("application/json; charset=utf-8", Kind::Json),
            ("application/vnd.oci.image.manifest.v1+json", Kind::Json),
            ("application/x-www-form-urlencoded", Kind::Form),
            ("Text/HTML", Kind::Text),
            ("application/octet-stream", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(kind(content_type, false), expected, "{content_type}");
        }
        assert_eq!(kind("text/plain", true), Kind::Other);
        assert_eq!(kind("application/json", true), Kind::Json);
        let bytes = vec![b'x'; BODY_BYTES_MAX + 1];
        assert!(Kind::Text.lines(&bytes).is_empty());
        assert!(Kind::Other.lines(b"abc").is_empty());
        // Cut in the middle it cannot be told what of it is secret.
        assert!(Kind::Json.lines(br#"{"token":"abc"#).is_empty());
        assert_eq!(
            Kind::Text.lines(br#"{"token":"abc"}"#),
            [r#"{"token":"***"}"#]
        );
    }

    #[test]
    fn a_long_text_is_cut() {
        let lines = Kind::Text.lines("a\n".repeat(BODY_LINES_MAX + 2).as_bytes());
        assert_eq!(lines.len(), BODY_LINES_MAX + 1);
        assert_eq!(lines.last().map(String::as_str), Some("… 2 more lines"));
    }
}
