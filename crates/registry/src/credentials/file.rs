//! Docker's `config.json` and Podman's `auth.json`: one format, and what each of the two adds to it.
//!
//! Docker keeps a whole host's credentials under its name or an old URL of it, and names programs that
//! know more (`credHelpers`, `credsStore`). Podman also keeps those of a part of a registry, under
//! `host/path` (containers-auth.json(5)).

use std::collections::BTreeMap;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::Deserialize;

use super::Credential;

/// Docker Hub has three names for one thing, and a URL under which Docker keeps what is for it.
const DOCKER: &str = "docker.io";
const DOCKER_URL: &str = "https://index.docker.io/v1/";
/// Docker Desktop keeps its own tokens beside what is for the registry, at longer URLs.
const NOT_FOR_REGISTRIES: [&str; 2] = ["/access-token", "/refresh-token"];

/// The tables of a file. Others, such as `psFormat`, are somebody else's. No `Debug`: it is secrets.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tables {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    #[serde(rename = "credHelpers")]
    helpers: Option<BTreeMap<String, String>>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// One thing to try, and the line that says so, where it could be found.
pub(super) enum Step {
    /// It is written there.
    Have(Credential, Option<usize>),
    /// A program knows: its name after `docker-credential-`, and what to ask it for.
    Ask {
        helper: String,
        server: String,
        line: Option<usize>,
    },
}

/// What a file has for a repository of a host, best first. What is wrong with it is told without a word
/// of its text.
pub(super) fn steps(text: &str, host: &str, repository: &str) -> Result<Vec<Step>, String> {
    // Docker takes an empty file for one without tables.
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    // The parser's own message quotes what it found, such as a token in an unexpected place.
    let tables: Tables = serde_json::from_str(text).map_err(|err| {
        let what = match err.classify() {
            serde_json::error::Category::Data => "it has not the shape of a credentials file",
            _ => "it is not JSON",
        };
        format!("{what} (line {}, column {})", err.line(), err.column())
    })?;
    let host = canonical(host);
    let mut steps = Vec::new();
    let helpers = tables.helpers.unwrap_or_default();
    if let Some(key) = of_host(&helpers, host) {
        let helper = helpers[key].clone();
        // An empty one says that this host's are in the file although others' are not.
        if !helper.is_empty() {
            let line = line(text, "credHelpers", key);
            let server = key.to_owned();
            return Ok(vec![Step::Ask {
                helper,
                server,
                line,
            }]);
        }
    } else if let Some(helper) = tables.store.filter(|helper| !helper.is_empty()) {
        let server = if host == DOCKER { DOCKER_URL } else { host };
        steps.push(Step::Ask {
            line: line(text, "credsStore", "credsStore"),
            helper,
            server: server.to_owned(),
        });
    }
    // Docker would not look here beside a `credsStore`; Podman, which does not know that word, would.
    let auths = tables.auths.unwrap_or_default();
    if let Some(key) = of_repository(&auths, host, repository)
        && let Some(entry) = &auths[key]
    {
        let line = line(text, "auths", key);
        let found = entry.credential().map_err(|reason| match line {
            Some(line) => format!("{key} has {reason} (line {line})"),
            None => format!("{key} has {reason}"),
        })?;
        steps.extend(found.map(|credential| Step::Have(credential, line)));
    }
    Ok(steps)
}

impl Entry {
    /// The strongest that is there, in Docker's order. `None` where there is nothing, which is what Docker
    /// writes beside a helper.
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let some = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = some(&self.registrytoken) {
            return Ok(Some(Credential::Bearer(token)));
        }
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token)));
        }
        let pair = match some(&self.auth) {
            Some(auth) => Some(decode(&auth)?),
            None => some(&self.username).zip(some(&self.password)),
        };
        let pair = pair.filter(|(_, secret)| !secret.is_empty());
        Ok(pair.map(|(user, secret)| Credential::Basic { user, secret }))
    }
}

/// User and password of an `auth`.
fn decode(auth: &str) -> Result<(String, String), &'static str> {
    // Docker writes padding; not all who write such files do.
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let bytes = GeneralPurpose::new(&STANDARD, config)
        .decode(auth.trim())
        .map_err(|_| "an auth that is not base64")?;
    let text = String::from_utf8(bytes).map_err(|_| "an auth that is not text")?;
    match text.split_once(':') {
        // Docker once padded passwords with NUL.
        Some((user, password)) if !user.is_empty() => {
            Ok((user.to_owned(), password.trim_matches('\0').to_owned()))
        }
        _ => Err("an auth without a user and a colon"),
    }
}

/// The name that a host's other names stand for.
pub(super) fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER,
        host => host,
    }
}

/// The key that speaks of a repository: the longest of `host/a/b`, `host/a`, `host`, then any that
/// comes to the host alone.
fn of_repository<'k, V>(
    keys: &'k BTreeMap<String, V>,
    host: &str,
    repository: &str,
) -> Option<&'k str> {
    let whole = format!("{host}/{repository}");
    let mut part = whole.as_str();
    while let Some((shorter, _)) = part.rsplit_once('/') {
        if part.len() > host.len()
            && let Some((key, _)) = keys.get_key_value(part)
        {
            return Some(key);
        }
        part = shorter;
    }
    of_host(keys, host)
}

/// The key that speaks of a whole host: its name, its other names, a URL of it.
fn of_host<'k, V>(keys: &'k BTreeMap<String, V>, host: &str) -> Option<&'k str> {
    let exact = keys.get_key_value(host);
    let docker = || (host == DOCKER).then(|| keys.get_key_value(DOCKER_URL))?;
    if let Some((key, _)) = exact.or_else(docker) {
        return Some(key);
    }
    let mut keys = keys.keys().map(String::as_str);
    keys.find(|key| {
        let for_others = NOT_FOR_REGISTRIES.iter().any(|end| key.ends_with(end));
        !for_others && host_of(key) == host
    })
}

/// The host of a key. Only a URL's path is passed over: in `host/path` it says which part is meant.
fn host_of(key: &str) -> &str {
    let url = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"));
    let host = url.map_or(key, |rest| rest.split('/').next().unwrap_or(rest));
    canonical(host)
}

/// The line of a key in a table, for people. JSON's reader keeps no places, so it is looked for as it is
/// commonly written; one that is written with escapes is not found.
fn line(text: &str, table: &str, key: &str) -> Option<usize> {
    let after = |from: usize, key: &str| {
        let quoted = format!("\"{key}\"");
        let mut places = text[from..].match_indices(&quoted);
        let is_key = |end: usize| text[end..].trim_start().starts_with(':');
        places.find_map(|(at, _)| is_key(from + at + quoted.len()).then_some(from + at))
    };
    let start = after(0, table)?;
    let at = if table == key {
        start
    } else {
        after(start, key)?
    };
    Some(text[..at].matches('\n').count() + 1)
}
