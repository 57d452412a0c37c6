//! What every command takes that has to do with a registry, and `images pull`, `images push` and
//! `explain-host`.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use cairn_types::Digest;
use clap::{ArgAction, Args, ValueEnum};

use super::{Local, Platforms, Snapshotter, labels::label};
use crate::size;

/// Something that was typed and is not to be told.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl FromStr for Secret {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Secret, Infallible> {
        Ok(Secret(text.to_owned()))
    }
}

/// Who asks.
#[derive(Debug, Default, Args)]
pub struct Login {
    /// Who asks; without :PASS the password is asked for on the terminal
    ///
    /// Shown to the registry alone, not to its mirrors. Without it, whoever `docker login` or `podman
    /// login` has noted asks.
    #[arg(short, long, alias = "creds", value_name = "USER[:PASS]",
          value_parser = |t: &str| t.parse::<Secret>())]
    pub user: Option<Secret>,
    /// Read the password from standard input
    #[arg(long, requires = "user")]
    pub password_stdin: bool,
    /// Ask by this refresh token
    #[arg(long, value_name = "TOKEN", conflicts_with = "user", hide_short_help = true,
          value_parser = |t: &str| t.parse::<Secret>())]
    pub refresh: Option<Secret>,
}

/// How registries are reached.
#[derive(Debug, Default, Args)]
pub struct Reach {
    /// Speak http to the registry
    #[arg(long, alias = "insecure")]
    pub plain_http: bool,
    /// Take any certificate
    #[arg(short = 'k', long)]
    pub skip_verify: bool,
    /// podman's and skopeo's
    #[arg(long, hide = true, value_name = "BOOL", require_equals = true, num_args = 0..=1,
          default_missing_value = "true", action = ArgAction::Set)]
    pub tls_verify: Option<bool>,
    /// Look for HOST/hosts.toml here, and nowhere else
    #[arg(long, value_name = "DIR", hide_short_help = true)]
    pub hosts_dir: Vec<PathBuf>,
    /// Trust this authority, too
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub tlscacert: Option<PathBuf>,
    /// Show this certificate
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub tlscert: Option<PathBuf>,
    /// Of which this is the key
    #[arg(
        long,
        value_name = "FILE",
        hide_short_help = true,
        requires = "tlscert"
    )]
    pub tlskey: Option<PathBuf>,
    /// Look for passwords here, and nowhere else
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub authfile: Option<PathBuf>,
    /// At most so many bytes a second, as 50M
    #[arg(long, value_name = "RATE", value_parser = size::parse_bytes, hide_short_help = true)]
    pub limit_rate: Option<u64>,
}

impl Reach {
    /// In whoever's words it was said.
    pub fn skips_verify(&self) -> bool {
        self.skip_verify || self.tls_verify == Some(false)
    }
}

/// What is told of requests.
#[derive(Debug, Default, Args)]
pub struct Http {
    /// Print each request to the registry and what came of it
    ///
    /// To standard error: connections, answers, bytes, times, and what is asked for again.
    #[arg(long, hide_short_help = true)]
    pub http_trace: bool,
    /// The same with headers and short bodies; passwords and tokens are left out
    #[arg(long, hide_short_help = true)]
    pub http_dump: bool,
}

/// When a registry is asked for an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PullPolicy {
    /// Whether it is here or not
    #[default]
    Always,
    /// When it is not here, or not all of it
    Missing,
}

/// `pull`
///
/// An image is named as docker names it: busybox is docker.io/library/busybox:latest. What is here
/// already is not fetched again, what was begun goes on where it was. The image gets its name when all
/// of it is here. Which hosts are asked, and in which order, says `cairn explain-host`; mirrors are set
/// up in hosts.toml (man cairn-hosts.toml).
#[derive(Debug, Args)]
pub struct Pull {
    /// Which image
    #[arg(value_name = "REF")]
    pub image: String,
    /// Which variants
    #[command(flatten)]
    pub platforms: Platforms,
    /// Leave the layers packed
    #[arg(long)]
    pub no_unpack: bool,
    /// nerdctl's
    #[arg(long, hide = true, value_name = "BOOL", require_equals = true, num_args = 0..=1,
          default_missing_value = "true", action = ArgAction::Set, conflicts_with = "no_unpack")]
    pub unpack: Option<bool>,
    /// When to ask the registry
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_short_help = true
    )]
    pub pull_policy: PullPolicy,
    /// Label the image
    #[arg(long, value_name = "K=V", value_parser = label, hide_short_help = true)]
    pub label: Vec<(String, String)>,
    /// Layers that come at once [default: as cairnd is configured]
    #[arg(long, value_name = "N", hide_short_help = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_downloads: Option<u32>,
    /// Also print the chain ID of its top layer
    #[arg(long, hide_short_help = true)]
    pub print_chainid: bool,
    /// ctr's: only what the chosen platforms need, which is always so
    #[arg(long, hide = true)]
    pub skip_metadata: bool,
    /// Wait until the unpacked layers are on the disk; without it a power cut may have them unpacked again
    #[arg(long, hide_short_help = true)]
    pub sync_fs: bool,
    /// Who asks
    #[command(flatten)]
    pub login: Login,
    /// How
    #[command(flatten)]
    pub reach: Reach,
    /// What is told of it
    #[command(flatten)]
    pub http: Http,
    /// ctr's
    #[command(flatten)]
    pub local: Local,
    /// ctr's
    #[command(flatten)]
    pub snapshotter: Snapshotter,
}

impl Pull {
    /// In whoever's words it was said.
    pub fn unpacks(&self) -> bool {
        !self.no_unpack && self.unpack != Some(false)
    }
}

/// `push`
///
/// What the registry has already is not sent, manifests are sent last. An image of several platforms goes
/// with all of them. If only one is here, as after a pull without --all-platforms, that one goes by itself,
/// and a note says so; if some are, --platform says which.
#[derive(Debug, Args)]
pub struct Push {
    /// Where to, and under which name
    #[arg(value_name = "REMOTE")]
    pub remote: String,
    /// Which image, if it has another name here
    #[arg(value_name = "LOCAL")]
    pub image: Option<String>,
    /// Which variants
    #[command(flatten)]
    pub platforms: Platforms,
    /// Only this manifest of it
    #[arg(long, value_name = "DIGEST", hide_short_help = true,
          value_parser = |t: &str| t.parse::<Digest>(),
          conflicts_with_all = ["platform", "all_platforms"])]
    pub manifest: Option<Digest>,
    /// Layers that go at once
    #[arg(long, value_name = "N", hide_short_help = true,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_uploaded_layers: Option<u32>,
    /// Send layers, too, that their makers do not want to be passed on
    #[arg(long, hide_short_help = true)]
    pub allow_non_distributable_blobs: bool,
    /// Who asks
    #[command(flatten)]
    pub login: Login,
    /// How
    #[command(flatten)]
    pub reach: Reach,
    /// What is told of it
    #[command(flatten)]
    pub http: Http,
    /// ctr's
    #[command(flatten)]
    pub local: Local,
}

/// `explain-host`
///
/// One line for each host that `images pull` would ask, in that order: what it may be asked for, whose
/// password it would be shown, through which proxy, and which line of which file says so. Nobody is
/// asked.
#[derive(Debug, Args)]
pub struct ExplainHost {
    /// An image or a registry
    #[arg(value_name = "REF")]
    pub image: String,
    /// Who asks
    #[command(flatten)]
    pub login: Login,
    /// How
    #[command(flatten)]
    pub reach: Reach,
}
