//! Where to ask for the content of a registry's name: its own host, and mirrors before it.

use std::{fmt, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The name itself.
    Name,
    /// A file of hosts, and the line in it.
    File(PathBuf, usize),
    /// Flags of this call.
    Flags,
}

/// One place to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host, and port where it is not the scheme's own.
    pub authority: String,
    /// What comes before a repository's name: `/v2`, or what `override_path` says.
    pub path: String,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// Sent with each request to it, and to nobody else.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Of `https`.
    pub tls: Tls,
    /// A proxy of its own: `None` is what the environment says, an empty text none at all.
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
