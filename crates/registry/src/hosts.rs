//! Where to ask for the content of a registry's name: its own host, and mirrors before it.
//!
//! [`endpoints`] finds in `certs.d` directories what containerd 2.x finds there (its `docs/hosts.md` and
//! `core/remotes/docker/config`), with one difference of principle: containerd passes over a file with a
//! mistake and goes on as if it were not there; here it is refused, with the line.

mod dir;
mod error;
mod file;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};

pub use error::HostsError;
pub(crate) use settings::{is_loopback, split};

/// Where hosts are spoken of if nobody says where: Cairn's own place, containerd's, Docker's.
pub const DIRS: [&str; 3] = [
    "/etc/cairn/certs.d",
    "/etc/containerd/certs.d",
    "/etc/docker/certs.d",
];

/// What an endpoint may be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Manifests and blobs by digest.
    pub pull: bool,
    /// A tag's digest.
    pub resolve: bool,
    /// To store manifests and blobs.
    pub push: bool,
    /// Who refers to a manifest.
    pub referrers: bool,
}

impl Capabilities {
    /// What an endpoint has of which nothing else is said.
    pub const ALL: Capabilities = Capabilities {
        pull: true,
        resolve: true,
        push: true,
        referrers: true,
    };
}

/// In the words of `hosts.toml`, with commas between.
impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (self.pull, "pull"),
            (self.resolve, "resolve"),
            (self.push, "push"),
            (self.referrers, "referrers"),
        ];
        let said: Vec<&str> = words
            .iter()
            .filter_map(|(has, word)| has.then_some(*word))
            .collect();
        f.write_str(&said.join(","))
    }
}

/// How its certificate is judged, and what it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM files of authorities besides the system's.
    pub ca: Vec<PathBuf>,
    /// PEM files of client certificates, with their keys where these have files of their own.
    pub client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Any certificate will do.
    pub skip_verify: bool,
}

/// Where an endpoint was learned of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// The name itself.
    #[default]
    Name,
    /// The name, and certificates in a directory without a file of hosts.
    Directory(PathBuf),
    /// A file of hosts, and the line in it.
    File(PathBuf, usize),
    /// Flags of this call.
    Flags,
}

/// As the column FROM of `cairn explain-host` has it.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Name => f.write_str("name"),
            Origin::Directory(dir) => write!(f, "{}", dir.display()),
            Origin::File(file, line) => write!(f, "{}:{line}", file.display()),
            Origin::Flags => f.write_str("--plain-http"),
        }
    }
}

/// One place to ask.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Ask by https first, and by http only if the answer is not TLS. Only where `scheme` is `http`: on
    /// loopback, and where something is said of the certificate of a server of plain http.
    pub https_first: bool,
    /// Host and port, as they are written.
    pub authority: String,
    /// What comes before a repository's name: `/v2`, or what `override_path` says. Without a slash at its
    /// end; empty for the root.
    pub path: String,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// Sent with each request to it, and to nobody else. Marked as sensitive, since tokens are put here.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Of `https`.
    pub tls: Tls,
    /// A proxy of its own: `None` is what the environment says, an empty text none at all. It may have a
    /// password in it.
    pub proxy: Option<String>,
    /// How long a connection may take to come about.
    pub dial_timeout: Option<Duration>,
    /// The registry's own host; others are told whose content is asked for (`ns=`).
    pub is_origin: bool,
    /// Where it comes from.
    pub from: Origin,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.path)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &format_args!("{self}"))
            .field("https_first", &self.https_first)
            .field("capabilities", &format_args!("{}", self.capabilities))
            .field("headers", &self.headers)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy.as_deref().map(crate::proxy::masked))
            .field("dial_timeout", &self.dial_timeout)
            .field("is_origin", &self.is_origin)
            .field("from", &self.from)
            .finish()
    }
}

/// What flags and configuration say of where to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Directories to look for a host's own in, in order; see [`dirs`] and [`DIRS`].
    pub dirs: Vec<PathBuf>,
    /// `--plain-http`: the registry's own host is asked by http. Hosts of a file keep their scheme.
    pub plain_http: bool,
    /// `--tlscacert`, `--tlscert` with `--tlskey`, `--skip-verify`: for every endpoint, besides what a
    /// file says. A file's own `skip_verify` is stronger.
    pub tls: Tls,
    /// For every endpoint, besides those of a file, which are stronger. They should be marked as
    /// sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// The directories of a list such as `/etc/cairn/certs.d:/etc/containerd/certs.d`. A setting that is
/// taken for one directory wherever it has several in it turns all mirrors off and says nothing.
pub fn dirs(list: &str) -> Vec<PathBuf> {
    let parts = list.split(':').filter(|part| !part.is_empty());
    parts.map(PathBuf::from).collect()
}

/// All hosts that directories and their files speak of: registries, and mirrors by host and port, as
/// observers are told of them ([`crate::Exchange::host`]). Others are known by what users ask for alone, and
/// are as many as those think of. A file with a mistake speaks of its own host only.
pub fn named(dirs: &[PathBuf]) -> BTreeSet<String> {
    let options = Options {
        dirs: dirs.to_vec(),
        ..Options::default()
    };
    let mut named = dir::hosts(dirs);
    let registries: Vec<String> = named.iter().cloned().collect();
    named.remove(dir::DEFAULT);
    for registry in registries {
        let endpoints = endpoints(&registry, &options).unwrap_or_default();
        let mirrors = endpoints.into_iter().filter(|one| !one.is_origin);
        named.extend(mirrors.map(|mirror| mirror.authority));
    }
    named
}

/// Where to ask for what `host` has (`docker.io`, `registry.example.com:5000`), best first. The last is
/// the registry's own host, or the `server` that a file names in its place. Reads directories and one
/// file, and asks nobody.
///
/// # Errors
/// A directory or file cannot be read, or a file says what it must not.
pub fn endpoints(host: &str, options: &Options) -> Result<Vec<Endpoint>, HostsError> {
    // It becomes a directory's name, and may come from a client.
    if host.is_empty() || host == "." || host == ".." || host.contains(['/', '\0']) {
        return Err(HostsError::bad_name(host));
    }
    let known = match dir::find(host, &options.dirs)? {
        Some(dir) => dir::load(&dir)?,
        None => dir::Known::default(),
    };
    let all = known.mirrors.into_iter().chain([known.own]);
    Ok(all
        .map(|settings| settings.endpoint(host, options))
        .collect())
}
