//! The words and flags. What is only an alias of another tool's word is accepted and hidden.
//!
//! Parsing decides everything that can be decided without a store, so that a wrong command line is
//! exit code 2 before anything was attempted.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use cairn_types::{Namespace, Platform};
use clap::{
    ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    parser::ValueSource,
};

use crate::{
    error::{Problem, quote},
    out::ColorChoice,
    size,
};

mod bundle;
mod examples;
mod images;
mod labels;
mod program;
mod records;
mod registry;
mod store;
mod writing;

pub use bundle::{
    BundleArgs, BundleCreate, BundleOptions, BundlePull, BundleRm, BundleUnpack, BundleVerb,
    NetChoice,
};
pub use images::{
    Check, CheckImages, Export, ImagesArgs, ImagesVerb, Import, Inspect, List, Local, MountImage,
    Remove, Snapshotter, Sort, SortBy, Tag, Unmount, Usage,
};
pub use labels::{LabelArgs, LabelChange, LabelImage};
pub use program::{DfArgs, EventsArgs, FsckArgs, ManArgs, PluginsArgs};
pub use records::{
    LeaseAdd, LeaseCreate, LeasesArgs, LeasesLs, LeasesRm, LeasesVerb, NamespacesArgs,
    NamespacesVerb, ResourceKind,
};
pub use registry::{ExplainHost, Http, Login, Pull, PullPolicy, Push, Reach, Secret};
pub use store::{
    ContentArgs, ContentGet, ContentLs, ContentVerb, Range, SnapshotUsage, SnapshotsArgs,
    SnapshotsLs, SnapshotsVerb,
};
pub use writing::{
    ContentIngest, ContentIngests, ContentPut, SnapshotCommit, SnapshotDiff, SnapshotMounts,
    SnapshotNew,
};

/// Where the store is unless something says otherwise.
pub const ROOT: &str = "/var/lib/cairn";

/// Where a daemon listens unless something says otherwise.
pub const SOCKET: &str = "/run/cairn/cairn.sock";

/// In place of `--root`.
pub const ROOT_VARIABLE: &str = "CAIRN_ROOT";

/// In place of `--address`. That of containerd is not read: where both are installed it names the
/// other daemon.
pub const ADDRESS_VARIABLE: &str = "CAIRN_ADDRESS";

/// Which store is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// That of the daemon at this socket.
    Daemon(PathBuf),
    /// The one in this directory, without a daemon.
    Store(PathBuf),
    /// That of the usual daemon, or the usual directory where none listens.
    Usual,
}

/// The namespace unless something says otherwise.
pub const NAMESPACE: &str = "default";

/// Keeps container images and unpacks them for runc.
#[derive(Debug, Parser)]
#[command(
    name = "cairn",
    version,
    before_help = examples::TOP,
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Reads a command line, whose first word is the program.
    ///
    /// # Errors
    /// What clap says of one that makes no sense, or asks for help.
    pub fn read<W>(words: impl IntoIterator<Item = W>) -> Result<Cli, clap::Error>
    where
        W: Into<OsString> + Clone,
    {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(words)?;
        let cli = Cli::from_arg_matches(&matches);
        let mut cli = cli.map_err(|err| err.format(&mut command))?;
        let source = matches.value_source("namespace");
        cli.global.namespace_typed = source == Some(ValueSource::CommandLine);
        Ok(cli)
    }
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressChoice {
    /// Bars on a terminal, lines otherwise.
    #[default]
    Auto,
    /// Bars.
    Tty,
    /// One line per phase.
    Plain,
    /// One object per line.
    Json,
    /// Nothing.
    None,
}

/// Accepted before and after the verb.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Talk to the daemon at this socket [default: /run/cairn/cairn.sock, when one answers]
    #[arg(short, long, global = true, value_name = "SOCK")]
    pub address: Option<PathBuf>,
    /// Work without a daemon, on the store in this directory [default: /var/lib/cairn, when no
    /// daemon answers]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Namespace to work in
    #[arg(short, long, global = true, env = "CONTAINERD_NAMESPACE", hide_env = true,
          value_name = "NS", default_value = NAMESPACE,
          value_parser = |t: &str| Namespace::parse(t))]
    pub namespace: Namespace,
    /// It was typed, and is neither the usual one nor the environment's.
    #[arg(skip)]
    pub namespace_typed: bool,
    /// One JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// docker's spelling of `--json`
    #[arg(long, global = true, hide = true, value_name = "json", value_parser = format_is_json)]
    pub format: Option<String>,
    /// Names only, no progress, no notes
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say what is done; twice says more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// ctr's `-vv`
    #[arg(long, global = true, hide = true)]
    pub debug: bool,
    /// Give up after this long
    #[arg(long, global = true, value_name = "D", value_parser = size::parse_duration)]
    pub timeout: Option<std::time::Duration>,
    /// Give up connecting to the daemon after this long
    #[arg(long, global = true, hide = true, value_name = "D", value_parser = size::parse_duration)]
    pub connect_timeout: Option<std::time::Duration>,
    /// When to use colour
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
    /// How to show progress
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    pub progress: ProgressChoice,
    /// Never shorten anything
    #[arg(long, global = true)]
    pub no_trunc: bool,
}

impl Global {
    /// Which store is meant. A flag is nearer than the environment; of two variables the one that
    /// names a daemon counts, as the daemon has its own root.
    pub fn place(&self) -> Place {
        self.place_with(|name| std::env::var_os(name))
    }

    fn place_with(&self, variable: impl Fn(&str) -> Option<OsString>) -> Place {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        if let Some(socket) = &self.address {
            return Place::Daemon(socket.clone());
        }
        if let Some(root) = &self.root {
            return Place::Store(root.clone());
        }
        let daemon = variable(ADDRESS_VARIABLE).map(|socket| Place::Daemon(socket.into()));
        let store = || variable(ROOT_VARIABLE).map(|root| Place::Store(root.into()));
        daemon.or_else(store).unwrap_or(Place::Usual)
    }

    /// Refuses flags that would do nothing.
    pub fn checked(&self) -> Result<(), Problem> {
        if self.address.is_some() && self.root.is_some() {
            let text = "--root goes without --address: a daemon has its own root";
            return Err(Problem::usage(text).next("leave out one of them"));
        }
        if self.connect_timeout.is_some() && matches!(self.place(), Place::Store(_)) {
            let text = "--connect-timeout goes with --address: without a daemon there is nothing to \
                        connect to";
            return Err(Problem::usage(text).next("--timeout D limits the whole command"));
        }
        Ok(())
    }

    /// The flag that leads to the same store, with a blank before it; `None` where every other command
    /// goes there, too.
    pub fn pointers(&self) -> Option<String> {
        let unset = |name| std::env::var_os(name).is_none_or(|value| value.is_empty());
        let same = |name, path: &Path| std::env::var_os(name).is_some_and(|value| value == *path);
        let (name, path) = match (&self.address, &self.root) {
            (Some(socket), _) if same(ADDRESS_VARIABLE, socket) => return None,
            (Some(socket), _) => ("address", socket),
            (None, Some(root)) if unset(ADDRESS_VARIABLE) && same(ROOT_VARIABLE, root) => {
                return None;
            }
            (None, Some(root)) => ("root", root),
            (None, None) => return None,
        };
        Some(format!(" --{name} {}", quote(&path.to_string_lossy())))
    }

    /// `--json` in either spelling.
    pub fn wants_json(&self) -> bool {
        self.json || self.format.is_some()
    }

    /// `-v` counted, `--debug` as two.
    pub fn verbosity(&self) -> u8 {
        if self.debug {
            self.verbose.max(2)
        } else {
            self.verbose
        }
    }
}

/// Whether a command line that does not parse asks for JSON.
pub fn json_typed(words: impl Iterator<Item = OsString>) -> bool {
    let mut before = OsString::new();
    for word in words.take_while(|word| word != "--") {
        let one = word == "--json" || word == "--format=json";
        if one || (before == "--format" && word == "json") {
            return true;
        }
        before = word;
    }
    false
}

fn format_is_json(text: &str) -> Result<String, String> {
    match text {
        "json" => Ok(text.to_owned()),
        _ => Err("only json is known; for single fields use --json | jq".to_owned()),
    }
}

/// Which variants of an image.
#[derive(Debug, Default, Args)]
pub struct Platforms {
    /// Take this variant, may be repeated [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]",
          value_parser = |t: &str| t.parse::<Platform>())]
    pub platform: Vec<Platform>,
    /// Take every variant
    #[arg(long, conflicts_with = "platform")]
    pub all_platforms: bool,
    #[command(flatten)]
    foreign: PodmanPlatform,
}

/// podman's way to say a platform, answered with ours.
#[derive(Debug, Default, Args)]
pub struct PodmanPlatform {
    #[arg(long, hide = true, value_name = "ARCH")]
    arch: Option<String>,
    #[arg(long, hide = true, value_name = "OS")]
    os: Option<String>,
    #[arg(long, hide = true, value_name = "VARIANT")]
    variant: Option<String>,
}

impl Platforms {
    /// Refuses podman's flags.
    pub fn checked(&self) -> Result<(), Problem> {
        self.foreign.checked()
    }
}

impl PodmanPlatform {
    /// Refuses `--arch`, `--os` and `--variant` with the `--platform` to type instead.
    pub fn checked(&self) -> Result<(), Problem> {
        let PodmanPlatform { arch, os, variant } = self;
        if arch.is_none() && os.is_none() && variant.is_none() {
            return Ok(());
        }
        let host = Platform::host();
        let mut text = format!(
            "{}/{}",
            os.as_deref().unwrap_or("linux"),
            arch.as_deref().unwrap_or(&host.architecture)
        );
        if let Some(variant) = variant {
            text.push('/');
            text.push_str(variant);
        }
        Err(Problem::usage("a platform is one word here").next(format!("--platform {text}")))
    }
}

/// The groups and the commands without one.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // One value lives for the whole run.
pub enum Command {
    /// Images: pull, list, inspect, tag, remove, mount, push; import, export
    #[command(visible_alias = "image", alias = "i")]
    Images(ImagesArgs),
    /// Bundles: directories that runc can run
    Bundle(BundleArgs),
    /// Blobs: list, read, store, label, remove; uploads
    Content(ContentArgs),
    /// Unpacked layers: list, tree, make, mount, diff, label, remove
    #[command(visible_alias = "snapshot")]
    Snapshots(SnapshotsArgs),
    /// Leases: what must not be collected yet
    #[command(visible_alias = "lease")]
    Leases(LeasesArgs),
    /// Namespaces: list, make, label, remove
    #[command(visible_alias = "namespace", alias = "ns")]
    Namespaces(NamespacesArgs),
    /// Where the space went
    ///
    /// As the records say: of all namespaces together, and what several have once. Blobs count by their
    /// bytes, snapshots by the blocks on the disk that they took when they were committed.
    #[command(before_help = examples::DF)]
    Df(DfArgs),
    /// What keeps a thing from being removed
    ///
    /// Everything that leads to it, on which way, and the command that lets go of it here. `gc` removes the
    /// thing when none is left.
    #[command(before_help = examples::WHY)]
    Why {
        /// An image's name, a digest or at least 7 hex digits of one, a snapshot's key, an upload's
        /// reference
        object: String,
    },
    /// Remove what nothing refers to
    #[command(alias = "prune", before_help = examples::GC)]
    Gc {
        /// Only count
        #[arg(long)]
        dry_run: bool,
    },
    /// Check the store: is everything as its records say?
    ///
    /// Looks at every record, at every blob's file and every unpacked layer's directory, in all
    /// namespaces or, with --namespace, in one, while they are in use. With --deep it also reads every
    /// byte: blobs are held against their digests. What it finds has a weight. `damage` is here and not what it should be; `loss` is
    /// needed and not here; `litter` takes room and does no harm; a `note` (with -v) is for whoever looks
    /// closely. With --repair it mends what can be mended from what is here. A damaged blob loses its
    /// file and keeps its record, so that pulling or importing its image again brings it back, and all
    /// that it holds stays held. Exit code 1 when damage or loss is left.
    #[command(alias = "check", before_help = examples::FSCK)]
    Fsck(FsckArgs),
    /// Tell what happens, until stopped
    ///
    /// One line for each change, of every namespace, from now on: its time, its namespace, its topic
    /// and what is known of it. There is no history. It is a daemon's store that others can change
    /// meanwhile; a store that no daemon serves is this command's alone. Topics are /content/create,
    /// /content/delete, /images/create, /images/update, /images/delete, /namespaces/create,
    /// /namespaces/update, /namespaces/delete, /snapshot/prepare, /snapshot/commit, /snapshot/remove,
    /// and, of what clients of containerd run, /containers/create, /containers/update and
    /// /containers/delete.
    #[command(alias = "event", before_help = examples::EVENTS)]
    Events(EventsArgs),
    /// Whom a pull would ask, and which file says so
    #[command(before_help = examples::EXPLAIN_HOST)]
    ExplainHost(ExplainHost),
    /// What the server is made of
    #[command(visible_alias = "plugin")]
    Plugins(PluginsArgs),
    /// The store and what it holds
    #[command(before_help = examples::INFO)]
    Info,
    /// Versions of client and server
    #[command(before_help = examples::VERSION)]
    Version,
    /// A completion script for a shell
    #[command(before_help = examples::COMPLETION)]
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// What a completion script asks for
    #[command(hide = true)]
    Complete(Rest),
    /// Manual pages
    #[command(before_help = examples::MAN)]
    Man(ManArgs),
    /// `images pull`
    #[command(hide = true, before_help = examples::PULL)]
    Pull(Pull),
    /// `images push`
    #[command(hide = true, before_help = examples::PUSH)]
    Push(Push),
    /// `images import`
    #[command(hide = true, before_help = examples::IMPORT)]
    Load(Import),
    /// `images export`
    #[command(hide = true, before_help = examples::EXPORT)]
    Save(Export),
    /// `images tag`
    #[command(hide = true, before_help = examples::TAG)]
    Tag(Tag),
    /// `images rm`
    #[command(hide = true, before_help = examples::RM)]
    Rmi(Remove),
    /// `images inspect`
    #[command(hide = true, before_help = examples::INSPECT)]
    Inspect(Inspect),
    /// `images mount`
    #[command(hide = true, before_help = examples::MOUNT)]
    Mount(MountImage),
    /// `images unmount`
    #[command(hide = true, alias = "unmount", before_help = examples::UNMOUNT)]
    Umount(Unmount),
    /// docker's `system df` and `system prune`
    #[command(hide = true)]
    System {
        /// Which
        #[command(subcommand)]
        verb: SystemVerb,
    },
    /// Asked for, absent, answered with the next step
    #[command(flatten)]
    Absent(Absent),
}

/// docker's `system`.
#[derive(Debug, Subcommand)]
pub enum SystemVerb {
    /// `df`
    #[command(before_help = examples::DF)]
    Df(DfArgs),
    /// `gc`
    #[command(before_help = examples::GC)]
    Prune,
}

/// What other tools do and Cairn leaves to them.
#[derive(Debug, Subcommand)]
pub enum Absent {
    /// Runs nothing
    #[command(hide = true)]
    Run(Rest),
    /// Has nothing that runs
    #[command(hide = true, aliases = ["exec", "start"])]
    Ps(Rest),
    /// Builds nothing
    #[command(hide = true, alias = "commit")]
    Build(Rest),
    /// Keeps no passwords
    #[command(hide = true, alias = "logout")]
    Login(Rest),
    /// Searches nowhere
    #[command(hide = true)]
    Search(Rest),
}

/// Words that are read over.
#[derive(Debug, Args)]
pub struct Rest {
    /// Anything
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub words: Vec<String>,
}

#[cfg(test)]
mod tests;
