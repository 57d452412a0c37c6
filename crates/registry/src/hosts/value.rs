//! Values of a file of hosts that are texts with a grammar: servers, proxies, durations.

use std::time::Duration;

use http::Uri;

use super::settings::{Server, split};

/// What Go's `http.Transport`, and so containerd, can use as a proxy.
const PROXY_SCHEMES: [&str; 4] = ["http", "https", "socks5", "socks5h"];

/// Nanoseconds of the units of Go's durations.
const UNITS: [(&str, f64); 8] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("μs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];

/// A server's URL; without a scheme it is https. `/v2` is added to a path that does not end in it, unless
/// the path is said to be whole.
pub(super) fn server(text: &str, path_is_whole: bool) -> Result<Server, String> {
    let whole = match text.contains("://") {
        true => text.to_owned(),
        false => format!("https://{text}"),
    };
    let (scheme, authority, path) = url(&whole)?;
    let scheme = match &*scheme {
        "http" => "http",
        "https" => "https",
        other => return Err(format!("{other:?} is neither http nor https")),
    };
    if authority.contains('@') {
        return Err("a URL here has no user".to_owned());
    }
    let mut path = clean(&path);
    if !path_is_whole && !path.ends_with("/v2") {
        path.push_str("/v2");
    }
    Ok(Server {
        scheme,
        authority,
        path,
    })
}

/// A proxy's URL, as it was written.
pub(super) fn proxy(text: &str) -> Result<String, String> {
    let (scheme, _, path) = url(text)?;
    if !PROXY_SCHEMES.contains(&&*scheme) {
        let known = PROXY_SCHEMES.join(", ");
        return Err(format!("the scheme of a proxy is one of {known}"));
    }
    if path != "/" {
        return Err("a proxy has no path".to_owned());
    }
    Ok(text.to_owned())
}

/// Scheme, authority and path (`/` for none). The text is in no complaint: it may have a password in it.
fn url(text: &str) -> Result<(String, String, String), String> {
    // The parser would drop a fragment, and keep a query that nobody sends.
    if text.contains(['?', '#']) {
        return Err("a URL here has neither query nor fragment".to_owned());
    }
    let not_one = || "it is no URL such as https://registry.example.com:5000".to_owned();
    let uri: Uri = text.parse().map_err(|_| not_one())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(not_one());
    };
    let host_and_port = authority.as_str().rsplit('@').next().unwrap_or_default();
    let port = split(host_and_port).1;
    if authority.host().is_empty() || port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err(not_one());
    }
    Ok((
        scheme.to_owned(),
        authority.as_str().to_owned(),
        uri.path().to_owned(),
    ))
}

/// A path without empty parts, `.` and `..`; the root is empty.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let with_slash = parts.iter().map(|part| format!("/{part}"));
    with_slash.collect()
}

/// A duration as Go writes it: `1.5h`, `1m30s`, `500ms`. No time at all is no limit.
pub(super) fn duration(text: &str) -> Result<Option<Duration>, String> {
    let wrong = || format!("{text:?} is no duration such as 500ms, 30s or 1m30s");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(None);
    }
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, after) = rest.split_at(digits.ok_or_else(wrong)?);
        let unit = after.find(|c: char| c.is_ascii_digit() || c == '.');
        let (unit, after) = after.split_at(unit.unwrap_or(after.len()));
        let number: f64 = number.parse().map_err(|_| wrong())?;
        let scale = UNITS.iter().find(|(name, _)| *name == unit);
        nanoseconds += number * scale.ok_or_else(wrong)?.1;
        rest = after;
    }
    let some = Duration::try_from_secs_f64(nanoseconds / 1e9).map_err(|_| wrong())?;
    match text.is_empty() {
        true => Err(wrong()),
        false => Ok(Some(some).filter(|some| !some.is_zero())),
    }
}
