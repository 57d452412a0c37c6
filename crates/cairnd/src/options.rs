//! The program's flags and subcommands.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, ConfigError, Layers, Override};

/// What `--help` opens with.
const EXAMPLES: &str = "\
Examples:
  systemctl enable --now cairnd    serve from every boot on; `cairn info` says how it is
  cairnd --root DIR --state DIR    serve another store, until stopped";

/// Serves container images over containerd's API.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "cairnd",
    version,
    before_help = EXAMPLES,
    args_conflicts_with_subcommands = false
)]
pub struct Options {
    /// What the configuration is made of.
    #[command(flatten)]
    pub flags: Flags,
    /// Something else than to serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Flags that come before all other sources of the configuration.
#[derive(Args, Clone, Debug)]
pub struct Flags {
    /// Read this file, and conf.d/*.toml beside it
    #[arg(short, long, global = true, env = "CAIRN_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything that lasts is kept [key: root]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<String>,
    /// Where sockets are made [key: state]
    #[arg(long, global = true, value_name = "DIR")]
    pub state: Option<String>,
    /// Where clients connect [key: grpc.address]
    #[arg(short, long, global = true, value_name = "SOCK")]
    pub address: Option<String>,
    /// Where containerd connects that has this store as a plugin; "" for nowhere [key: backend.address]
    #[arg(long, global = true, value_name = "SOCK")]
    pub backend_address: Option<String>,
    /// Where figures are served: IP:PORT of this machine or a path [key: metrics.address]
    #[arg(long, global = true, value_name = "ADDRESS")]
    pub metrics_address: Option<String>,
    /// What to log: error, warn, info, debug, trace, or a filter [key: log.level]
    #[arg(short, long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// How to log: auto, journald, text, json [key: log.format]
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Which engine keeps the records of a new store, or imported ones: redb or sled [key:
    /// metadata.engine]
    #[arg(long, global = true, value_name = "ENGINE")]
    pub engine: Option<String>,
}

/// Something else than to serve.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show or check the configuration
    Config {
        /// What to do with it.
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Take the records of a stopped store out, or put them in
    Meta {
        /// Which of the two.
        #[command(subcommand)]
        verb: MetaVerb,
    },
    /// Print a manual page
    #[command(hide = true)]
    Man {
        /// cairnd, cairn-config.toml or cairn-hosts.toml
        #[arg(default_value = "cairnd")]
        page: String,
    },
    /// Print a script that completes this program's arguments
    #[command(hide = true)]
    Completion {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigVerb {
    /// Print every key with its default
    Default,
    /// Print every key with its value and where that comes from
    Dump,
    /// Say whether the daemon would start with it
    Check,
}

/// What to do with the records.
#[derive(Clone, Debug, Subcommand)]
pub enum MetaVerb {
    /// Write all records as lines of JSON
    Export {
        /// A new file; standard output without it
        file: Option<PathBuf>,
    },
    /// Make such lines the records
    Import {
        /// The file; - for standard input
        file: PathBuf,
        /// Let records that are there give way, and keep them as a backup
        #[arg(long)]
        replace: bool,
        /// The layout that the store is to have
        #[arg(long, value_name = "N")]
        layout: Option<u32>,
    },
}

impl Flags {
    /// All sources together: files, then the environment, then these flags.
    pub fn layers(&self) -> Result<Layers, ConfigError> {
        let file = self.config.clone();
        let named = file.is_some();
        let file = file.unwrap_or_else(|| PathBuf::from(config::FILE));
        let mut layers = Layers::read(&file, named)?;
        // What is not text is not ours: our names and values are.
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let environment = config::environment(variables)?;
        for over in environment.into_iter().chain(self.overrides()?) {
            layers.set(over)?;
        }
        Ok(layers)
    }

    fn overrides(&self) -> Result<Vec<Override>, ConfigError> {
        let here = |value: &String| -> Result<String, ConfigError> {
            // A flag is typed in a directory; a file is not.
            let path = std::path::absolute(value).map_err(|err| ConfigError {
                file: String::new(),
                reason: format!("{value:?} is no path: {err}"),
                place: None,
                next: None,
            })?;
            Ok(path.to_string_lossy().into_owned())
        };
        let mut found = Vec::new();
        for (key, name, value, is_path) in [
            ("root", "--root", &self.root, true),
            ("state", "--state", &self.state, true),
            ("grpc.address", "--address", &self.address, true),
            (
                "backend.address",
                "--backend-address",
                &self.backend_address,
                true,
            ),
            (
                "metrics.address",
                "--metrics-address",
                &self.metrics_address,
                false,
            ),
            ("log.level", "--log-level", &self.log_level, false),
            ("log.format", "--log-format", &self.log_format, false),
            ("metadata.engine", "--engine", &self.engine, false),
        ] {
            let Some(value) = value else { continue };
            let value = if is_path && !value.is_empty() {
                here(value)?
            } else {
                value.clone()
            };
            found.push(Override {
                key,
                name: name.to_owned(),
                value,
            });
        }
        Ok(found)
    }
}
