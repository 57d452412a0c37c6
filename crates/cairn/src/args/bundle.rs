//! `cairn bundle …`.

use std::path::PathBuf;

use cairn_types::{IdMap, IdRange, IdRanges, Platform};
use clap::{Args, Subcommand, ValueEnum};

use super::{Http, PodmanPlatform, Reach, Secret, examples};
use crate::error::Problem;

const EXAMPLES: &str = "\
Examples:
  cairn bundle create busybox:1.36 /run/demo
  cairn bundle create -e DEBUG=1 busybox:1.36 /run/demo -- sh -c 'echo $DEBUG'

Then: runc run -b /run/demo demo";

/// The group; without a verb it lists.
#[derive(Debug, Args)]
#[command(before_help = examples::BUNDLE)]
pub struct BundleArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<BundleVerb>,
}

/// What to do with bundles.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // One value lives for the whole run.
pub enum BundleVerb {
    /// Make a directory that runc can run
    #[command(before_help = EXAMPLES)]
    Create(BundleCreate),
    /// umoci's `create`
    #[command(hide = true, before_help = EXAMPLES)]
    Unpack(BundleUnpack),
    /// Unmount bundles and delete them
    #[command(visible_alias = "remove", aliases = ["del", "delete"],
              before_help = examples::BUNDLE_RM)]
    Rm(BundleRm),
    /// List bundles
    #[command(visible_alias = "list", before_help = examples::BUNDLE_LS)]
    Ls,
}

/// The container's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum NetChoice {
    /// A loopback device and nothing else
    #[default]
    None,
    /// The host's
    Host,
}

/// When a registry is asked for the image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum BundlePull {
    /// When it is not here
    #[default]
    Missing,
    /// Not at all
    Never,
    /// Whether it is here or not
    Always,
}

/// `create`
///
/// An image that is not here is pulled first; see `cairn images pull`. The container is set up as `docker run` sets it up, from the image's configuration; what is given
/// here goes before it. The result is an OCI runtime bundle: `DIR/config.json` may be edited before
/// it is run. Without a network of its own set up, it has a loopback device only, unless --net=host.
#[derive(Debug, Args)]
pub struct BundleCreate {
    /// Name or digest
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// Empty or absent
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// All else
    #[command(flatten)]
    pub options: BundleOptions,
}

/// umoci's spelling of `create`
#[derive(Debug, Args)]
pub struct BundleUnpack {
    /// Name or digest
    #[arg(long, value_name = "IMAGE")]
    pub image: String,
    /// Empty or absent
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// All else
    #[command(flatten)]
    pub options: BundleOptions,
}

impl From<BundleUnpack> for BundleCreate {
    fn from(args: BundleUnpack) -> BundleCreate {
        let BundleUnpack {
            image,
            dir,
            options,
        } = args;
        BundleCreate {
            image,
            dir,
            options,
        }
    }
}

/// What goes before the image's configuration.
#[derive(Debug, Args)]
pub struct BundleOptions {
    /// Arguments instead of the image's, the program first when it has no entrypoint
    #[arg(value_name = "ARGS", last = true)]
    pub args: Vec<String>,
    /// What to call the container [default: the directory's name]
    #[arg(long, value_name = "ID")]
    pub id: Option<String>,
    /// Which variant
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_parser = |t: &str| t.parse::<Platform>())]
    pub platform: Option<Platform>,
    /// podman's way to say it
    #[command(flatten)]
    pub foreign: PodmanPlatform,
    /// Set a variable; `-e NAME` takes over your own
    ///
    /// May be repeated.
    #[arg(short, long, value_name = "K=V")]
    pub env: Vec<String>,
    /// Working directory
    #[arg(short = 'w', long, visible_alias = "workdir", value_name = "DIR")]
    pub cwd: Option<String>,
    /// User and group, by name or number as the image knows them
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Host name in the container [default: its id]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub hostname: Option<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Its network
    #[arg(long, alias = "network", value_name = "NET", default_value = "none")]
    pub net: NetChoice,
    /// The root is read-only
    #[arg(long)]
    pub read_only: bool,
    /// Program instead of the image's, and of its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// The same as -- ARGS
    #[arg(
        long,
        value_name = "ARGS",
        num_args = 1..,
        allow_hyphen_values = true,
        hide_short_help = true,
        conflicts_with = "args"
    )]
    pub cmd: Vec<String>,
    /// Users of its own: its C on are the host's H on, N of them
    ///
    /// As 0:100000:65536. May be repeated.
    #[arg(long, hide_short_help = true, value_name = "C:H:N", value_delimiter = ',',
          value_parser = |t: &str| t.parse::<IdRange>())]
    pub uidmap: Vec<IdRange>,
    /// The same for groups [default: as users, and the reverse]
    #[arg(long, hide_short_help = true, value_name = "C:H:N", value_delimiter = ',',
          value_parser = |t: &str| t.parse::<IdRange>())]
    pub gidmap: Vec<IdRange>,
    /// Copy the image's files instead of mounting them
    #[arg(long, hide_short_help = true)]
    pub copy: bool,
    /// When to pull the image: missing, never, always [default: missing]
    ///
    /// With missing, when it is not here.
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        default_value_t,
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub pull: BundlePull,
    /// Who asks the registry; `-u` and `--user` would be the container's user
    ///
    /// Without :PASS the password is asked for on the terminal.
    #[arg(long, value_name = "USER[:PASS]", hide_short_help = true,
          value_parser = |t: &str| t.parse::<Secret>())]
    pub creds: Option<Secret>,
    /// Read the registry's password from standard input
    #[arg(long, requires = "creds", hide_short_help = true)]
    pub password_stdin: bool,
    /// Ask the registry by this refresh token
    #[arg(long, value_name = "TOKEN", conflicts_with = "creds", hide_short_help = true,
          value_parser = |t: &str| t.parse::<Secret>())]
    pub refresh: Option<Secret>,
    /// How the registry is reached
    #[command(flatten)]
    pub reach: Reach,
    /// What is told of it
    #[command(flatten)]
    pub http: Http,
    /// Lay this JSON over config.json; null removes a key
    ///
    /// Objects are merged member by member, lists are replaced (RFC 7396).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl BundleOptions {
    /// The container's users and groups, when they are not the host's. Those of one kind serve for
    /// both where the other is not given, as with podman.
    pub fn owners(&self) -> Result<Option<IdMap>, Problem> {
        let (users, groups) = match (&*self.uidmap, &*self.gidmap) {
            ([], []) => return Ok(None),
            (users, []) => (users, users),
            ([], groups) => (groups, groups),
            both => both,
        };
        let ranges = |flag: &str, list: &[IdRange]| {
            IdRanges::new(list.to_vec()).map_err(|err| {
                Problem::usage(format!("{flag}: {err}")).next(format!("{flag} 0:100000:65536"))
            })
        };
        let flag = if self.uidmap.is_empty() {
            "--gidmap"
        } else {
            "--uidmap"
        };
        Ok(Some(IdMap {
            users: ranges(flag, users)?,
            groups: ranges(
                if self.gidmap.is_empty() {
                    flag
                } else {
                    "--gidmap"
                },
                groups,
            )?,
        }))
    }
}

/// `rm`
#[derive(Debug, Args)]
pub struct BundleRm {
    /// As they were created
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
}
