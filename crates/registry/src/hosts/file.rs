//! `hosts.toml`: tables to settings, with the place of whatever is wrong.

use std::{
    path::{Path, PathBuf},
    str,
};

use http::{HeaderName, HeaderValue};
use toml::de::{DeArray, DeTable, DeValue};

use super::{
    Capabilities, HostsError, Origin,
    dir::Known,
    error::position,
    settings::Settings,
    value::{duration, proxy, server},
};

/// What may be said of an endpoint.
const KEYS: [&str; 8] = [
    "capabilities",
    "ca",
    "client",
    "skip_verify",
    "header",
    "override_path",
    "dial_timeout",
    "proxy",
];
/// What may be said besides, outside of all tables.
const ROOT_KEYS: [&str; 2] = ["server", "host"];
/// How alike two words must be for one to be meant by the other, as `strsim::jaro` has it.
const ALIKE: f64 = 0.7;

type Key<'t> = toml::Spanned<std::borrow::Cow<'t, str>>;
type Value<'t> = toml::Spanned<DeValue<'t>>;

/// Reads a file of hosts. Relative names in it are relative to its directory.
pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Known, HostsError> {
    let text = str::from_utf8(bytes).map_err(|err| {
        let (good, _) = bytes.split_at(err.valid_up_to());
        let good = String::from_utf8_lossy(good);
        HostsError::wrong(file, &good, good.len(), "it is not UTF-8".to_owned())
    })?;
    let root = DeTable::parse(text).map_err(|err| {
        let at = err.span().map_or(0, |span| span.start);
        let reason = err.message().lines().next().unwrap_or_default();
        HostsError::wrong(file, text, at, reason.to_owned())
    })?;
    let dir = file.parent().unwrap_or_else(|| Path::new(""));
    Reader { file, dir, text }.root(root.get_ref())
}

struct Reader<'t> {
    file: &'t Path,
    dir: &'t Path,
    text: &'t str,
}

impl Reader<'_> {
    fn wrong(&self, at: usize, reason: impl Into<String>) -> HostsError {
        HostsError::wrong(self.file, self.text, at, reason.into())
    }

    fn origin(&self, at: usize) -> Origin {
        Origin::File(self.file.to_owned(), position(self.text, at).0)
    }

    fn root(&self, root: &DeTable<'_>) -> Result<Known, HostsError> {
        let (mut own, whole) = self.settings(root, &ROOT_KEYS)?;
        let mut known = Known::default();
        for (key, value) in in_order(root) {
            let at = key.span().start;
            match &**key.get_ref() {
                "host" => known.mirrors = self.mirrors(value)?,
                "server" => match self.string("server", value)? {
                    // As in containerd, an empty one is none.
                    "" => {}
                    text => {
                        own.server =
                            Some(server(text, whole).map_err(|reason| self.wrong(at, reason))?);
                        own.from = self.origin(at);
                    }
                },
                // Of the name's own host, something is said here.
                _ if own.from == Origin::Name => own.from = self.origin(at),
                _ => {}
            }
        }
        known.own = own;
        Ok(known)
    }

    /// Mirrors are asked in the order of the file, which the parser's table has lost.
    fn mirrors(&self, hosts: &Value<'_>) -> Result<Vec<Settings>, HostsError> {
        let mut mirrors = Vec::new();
        for (key, value) in in_order(self.table("host", hosts)?) {
            let at = key.span().start;
            let name = format!("host.{:?}", key.get_ref());
            let (mut mirror, whole) = self.settings(self.table(&name, value)?, &[])?;
            let found = server(key.get_ref(), whole);
            mirror.server = Some(found.map_err(|reason| self.wrong(at, reason))?);
            mirror.from = self.origin(at);
            mirrors.push(mirror);
        }
        Ok(mirrors)
    }

    /// What a table says of an endpoint, and whether its URL's path is whole.
    fn settings(
        &self,
        table: &DeTable<'_>,
        besides: &[&str],
    ) -> Result<(Settings, bool), HostsError> {
        let mut said = Settings::default();
        let mut path_is_whole = false;
        for (key, value) in in_order(table) {
            let at = value.span().start;
            let name = &**key.get_ref();
            match name {
                "capabilities" => said.capabilities = self.capabilities(value)?,
                "ca" => said.ca = self.files(name, value)?,
                "client" => said.client = self.client(value)?,
                "skip_verify" => said.skip_verify = Some(self.boolean(name, value)?),
                "header" => said.headers = self.headers(value)?,
                "override_path" => path_is_whole = self.boolean(name, value)?,
                "dial_timeout" => match self.string(name, value)? {
                    "" => {}
                    text => {
                        said.dial_timeout =
                            duration(text).map_err(|reason| self.wrong(at, reason))?;
                    }
                },
                "proxy" => {
                    said.proxy = Some(match self.string(name, value)? {
                        "" => String::new(),
                        text => proxy(text).map_err(|reason| self.wrong(at, reason))?,
                    });
                }
                name if besides.contains(&name) => {}
                name => return Err(self.unknown(key.span().start, "key", name, &[besides, &KEYS])),
            }
        }
        Ok((said, path_is_whole))
    }

    fn capabilities(&self, value: &Value<'_>) -> Result<Option<Capabilities>, HostsError> {
        let mut said = Capabilities::default();
        let words = self.array("capabilities", value)?;
        for word in words.iter() {
            let name = self.string("a capability", word)?;
            match &*name.to_ascii_lowercase() {
                "pull" => said.pull = true,
                "resolve" => said.resolve = true,
                "push" => said.push = true,
                "referrers" => said.referrers = true,
                _ => {
                    let known = ["pull", "resolve", "push", "referrers"];
                    return Err(self.unknown(word.span().start, "capability", name, &[&known]));
                }
            }
        }
        // An empty list is one that was left out, as in containerd.
        Ok(Some(said).filter(|_| !words.is_empty()))
    }

    /// One file or several.
    fn files(&self, key: &str, value: &Value<'_>) -> Result<Vec<PathBuf>, HostsError> {
        match value.get_ref() {
            DeValue::String(_) => Ok(vec![self.path(key, value)?]),
            DeValue::Array(files) => files.iter().map(|file| self.path(key, file)).collect(),
            _ => Err(self.mistyped(key, "a string or an array of strings", value)),
        }
    }

    /// A file, several, or several pairs of a certificate and its key, which may be empty.
    fn client(&self, value: &Value<'_>) -> Result<Vec<(PathBuf, Option<PathBuf>)>, HostsError> {
        let wanted = "a string, an array of strings, or an array of pairs of strings";
        let one = |value: &Value<'_>| match value.get_ref() {
            DeValue::String(_) => Ok((self.path("client", value)?, None)),
            DeValue::Array(pair) => match pair.iter().collect::<Vec<_>>()[..] {
                [cert, key] => {
                    let cert = self.path("client", cert)?;
                    let inside = self.string("client", key)?.is_empty();
                    let key = (!inside).then(|| self.path("client", key)).transpose()?;
                    Ok((cert, key))
                }
                _ => Err(self.mistyped("client", wanted, value)),
            },
            _ => Err(self.mistyped("client", wanted, value)),
        };
        match value.get_ref() {
            DeValue::String(_) => Ok(vec![one(value)?]),
            DeValue::Array(all) => all.iter().map(one).collect(),
            _ => Err(self.mistyped("client", wanted, value)),
        }
    }

    fn headers(&self, value: &Value<'_>) -> Result<Vec<(HeaderName, HeaderValue)>, HostsError> {
        let mut headers = Vec::new();
        for (key, value) in in_order(self.table("header", value)?) {
            let text = &**key.get_ref();
            let name: HeaderName = text.parse().map_err(|_| {
                let reason = format!("{text:?} is no name of a header");
                self.wrong(key.span().start, reason)
            })?;
            let values: Vec<&Value<'_>> = match value.get_ref() {
                DeValue::String(_) => vec![value],
                DeValue::Array(values) => values.iter().collect(),
                _ => return Err(self.mistyped(text, "a string or an array of strings", value)),
            };
            for value in values {
                let found = HeaderValue::from_str(self.string(text, value)?);
                let mut found = found.map_err(|_| {
                    let reason = format!("the value of {text} cannot be sent in a header");
                    self.wrong(value.span().start, reason)
                })?;
                found.set_sensitive(true);
                headers.push((name.clone(), found));
            }
        }
        Ok(headers)
    }

    fn path(&self, key: &str, value: &Value<'_>) -> Result<PathBuf, HostsError> {
        match self.string(key, value)? {
            "" => {
                let reason = format!("{key} names a file without a name");
                Err(self.wrong(value.span().start, reason))
            }
            file => Ok(self.dir.join(file)),
        }
    }

    fn string<'v>(&self, key: &str, value: &'v Value<'_>) -> Result<&'v str, HostsError> {
        let found = value.get_ref().as_str();
        found.ok_or_else(|| self.mistyped(key, "a string", value))
    }

    fn boolean(&self, key: &str, value: &Value<'_>) -> Result<bool, HostsError> {
        let found = value.get_ref().as_bool();
        found.ok_or_else(|| self.mistyped(key, "true or false", value))
    }

    fn array<'v, 't>(
        &self,
        key: &str,
        value: &'v Value<'t>,
    ) -> Result<&'v DeArray<'t>, HostsError> {
        let found = value.get_ref().as_array();
        found.ok_or_else(|| self.mistyped(key, "an array of strings", value))
    }

    fn table<'v, 't>(
        &self,
        key: &str,
        value: &'v Value<'t>,
    ) -> Result<&'v DeTable<'t>, HostsError> {
        let found = value.get_ref().as_table();
        found.ok_or_else(|| self.mistyped(key, "a table", value))
    }

    fn mistyped(&self, key: &str, wanted: &str, value: &Value<'_>) -> HostsError {
        let reason = format!("{key} wants {wanted}, not {}", value.get_ref().type_str());
        self.wrong(value.span().start, reason)
    }

    fn unknown(&self, at: usize, what: &str, name: &str, known: &[&[&str]]) -> HostsError {
        let err = self.wrong(at, format!("unknown {what} {name:?}"));
        let nearest = known
            .concat()
            .into_iter()
            .map(|known| (strsim::jaro(known, &name.to_ascii_lowercase()), known))
            .filter(|(alike, _)| *alike > ALIKE)
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        match nearest {
            Some((_, meant)) => err.next(format!("did you mean {meant}?")),
            None => err.next(format!("one of {}", known.concat().join(", "))),
        }
    }
}

/// The entries of a table in the order of the file.
fn in_order<'v, 't>(table: &'v DeTable<'t>) -> Vec<(&'v Key<'t>, &'v Value<'t>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, value)| first_place(key, value));
    entries
}

/// Where an entry is first spoken of. Its key's own place is that of `[host.x]`, also where
/// `[host.x.header]` comes before it, and with that maybe another host.
fn first_place(key: &Key<'_>, value: &Value<'_>) -> usize {
    let inside = value.get_ref().as_table().into_iter().flatten();
    let inside = inside.map(|(key, value)| first_place(key, value)).min();
    let own = key.span().start;
    inside.map_or(own, |inside| inside.min(own))
}
