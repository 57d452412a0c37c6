//! What of an address, a header or a body may be seen. Names decide: what is known to say what is wanted is
//! shown, and what may say who wants it is not.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::Value;
use url::{Position, Url, form_urlencoded};

/// Stands for what is not shown.
pub(super) const MASK: &str = "***";

/// Parts of queries that say what is wanted: the specification's, those of tokens and of mirrors.
const QUERY_SHOWN: &[&str] = &[
    "account",
    "artifactType",
    "client_id",
    "digest",
    "from",
    "last",
    "mount",
    "n",
    "ns",
    "scope",
    "service",
];

/// Fields of forms by which tokens are asked for.
const FORM_SHOWN: &[&str] = &[
    "access_type",
    "client_id",
    "grant_type",
    "scope",
    "service",
    "username",
];

/// What names of headers have in them whose values are nobody's business.
const SECRET_WORDS: &[&str] = &[
    "api-key",
    "apikey",
    "auth",
    "cookie",
    "credential",
    "password",
    "secret",
    "session",
    "signature",
    "token",
];

/// An address without a name and a password in it. Where a registry sent us on to, its query is signed.
pub(super) fn url(url: &Url, foreign: bool) -> String {
    let mut text = format!("{}://", url.scheme());
    if !url.username().is_empty() || url.password().is_some() {
        text += MASK;
        text.push('@');
    }
    text += &url[Position::BeforeHost..Position::AfterPath];
    if let Some(query) = url.query() {
        text.push('?');
        match foreign {
            true => text += MASK,
            false => text += &pairs(query, QUERY_SHOWN),
        }
    }
    text
}

/// A query or a form of which only the values of these names are shown.
fn pairs(text: &str, shown: &[&str]) -> String {
    let pairs = text.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if shown.contains(&name) => pair.to_owned(),
        Some((name, _)) => format!("{name}={MASK}"),
        None if pair.is_empty() => String::new(),
        // A name alone may be the secret itself.
        None => MASK.to_owned(),
    });
    pairs.collect::<Vec<_>>().join("&")
}

/// The value of a header.
pub(super) fn header(name: &HeaderName, value: &HeaderValue) -> String {
    let Ok(text) = value.to_str() else {
        return MASK.to_owned();
    };
    match *name {
        header::AUTHORIZATION | header::PROXY_AUTHORIZATION => scheme_alone(text),
        header::WWW_AUTHENTICATE | header::PROXY_AUTHENTICATE => challenge(text),
        header::LOCATION | header::CONTENT_LOCATION | header::REFRESH => location(text),
        _ if value.is_sensitive() || is_secret(name.as_str()) => MASK.to_owned(),
        _ => self::text(text),
    }
}

fn is_secret(name: &str) -> bool {
    let is_writer = name.ends_with("author") || name.ends_with("authors");
    !is_writer && SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// `Basic ***`; of what has no scheme nothing.
fn scheme_alone(text: &str) -> String {
    match text.split_once(' ') {
        Some((scheme, _)) if is_token(scheme) => format!("{scheme} {MASK}"),
        _ => MASK.to_owned(),
    }
}

/// What a host wants to be shown. What follows schemes that we do not know may be part of a secret.
fn challenge(text: &str) -> String {
    let scheme = text.split(' ').next().unwrap_or_default();
    match scheme.to_ascii_lowercase().as_str() {
        "basic" | "bearer" => self::text(text),
        _ => scheme_alone(text),
    }
}

fn is_token(text: &str) -> bool {
    let mut chars = text.chars();
    !text.is_empty() && chars.all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Where an answer leads, which may be relative.
fn location(text: &str) -> String {
    let masked = without_users(text);
    match masked.split_once('?') {
        Some((before, _)) => format!("{before}?{MASK}"),
        None => masked,
    }
}

/// A stranger's text, in which there may be addresses.
pub(super) fn text(text: &str) -> String {
    without_queries(&without_users(text))
}

/// Ends an address in a text.
fn ends_address(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | ',' | ';' | ')' | '`' | '\\')
}

fn without_users(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("//") {
        let (before, after) = rest.split_at(at + 2);
        masked += before;
        let end = after.find(|c| ends_address(c) || matches!(c, '/' | '?' | '#'));
        let authority = &after[..end.unwrap_or(after.len())];
        rest = after;
        if let Some(user) = authority.rfind('@') {
            masked += MASK;
            rest = &after[user..];
        }
    }
    masked + rest
}

fn without_queries(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('?') {
        let (before, after) = rest.split_at(at + 1);
        masked += before;
        let end = after.find(ends_address).unwrap_or(after.len());
        let query = &after[..end];
        match query.contains('=') {
            true => masked += &pairs(query, QUERY_SHOWN),
            // A question mark of a sentence.
            false => masked += query,
        }
        rest = &after[end..];
    }
    masked + rest
}

/// A form.
pub(super) fn form(bytes: &[u8]) -> String {
    pairs(&String::from_utf8_lossy(bytes), FORM_SHOWN)
}

/// A document of JSON without what its names say to be secret; `None` of what is none. Letter by letter
/// where nothing had to be hidden.
pub(super) fn json(bytes: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(bytes).ok()?;
    let masked = masked(&document);
    match masked == document {
        true => String::from_utf8(bytes.to_vec()).ok(),
        false => Some(masked.to_string()),
    }
}

fn masked(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| {
                let value = match is_secret(&name.to_ascii_lowercase()) {
                    true => Value::String(MASK.to_owned()),
                    false => masked(value),
                };
                (name.clone(), value)
            };
            Value::Object(members.iter().map(member).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(masked).collect()),
        Value::String(text) => Value::String(self::text(text)),
        other => other.clone(),
    }
}

/// Tells what of a request's headers is secret: all that is marked so, and of a name and its password both.
pub(super) fn secrets(headers: &HeaderMap, mut tell: impl FnMut(&str)) {
    let marked = headers.iter().filter(|(name, value)| {
        *name == header::AUTHORIZATION || value.is_sensitive() || is_secret(name.as_str())
    });
    for (_, value) in marked {
        let Ok(text) = value.to_str() else { continue };
        let Some((scheme, secret)) = text.split_once(' ') else {
            tell(text);
            continue;
        };
        tell(secret);
        if !scheme.eq_ignore_ascii_case("basic") {
            continue;
        }
        let decoded = STANDARD.decode(secret).ok();
        let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        if let Some((_, password)) = decoded.as_ref().and_then(|both| both.split_once(':')) {
            tell(password);
        }
    }
}

/// The same of an address that has a name and a password in it, of which a header is made.
pub(super) fn secrets_of_url(url: &Url, mut tell: impl FnMut(&str)) {
    if let Some(password) = url.password() {
        tell(password);
        tell(&STANDARD.encode(format!("{}:{password}", url.username())));
    }
}

/// The same of a form, as it is and as it was meant.
pub(super) fn secrets_of_form(bytes: &[u8], mut tell: impl FnMut(&str)) {
    for (name, value) in form_urlencoded::parse(bytes) {
        if FORM_SHOWN.contains(&&*name) {
            continue;
        }
        tell(&value);
        let encoded: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
        tell(&encoded);
    }
}

#[cfg(test)]
mod tests;
