//! The program's flags. Every one is an environment variable, too.

use std::path::PathBuf;

use clap::Parser;

/// Serves container images over containerd's API.
#[derive(Clone, Debug, Parser)]
#[command(name = "cairnd", version)]
pub struct Options {
    /// Where everything that lasts is kept
    #[arg(
        long,
        env = "CAIRN_ROOT",
        value_name = "DIR",
        default_value = "/var/lib/cairn"
    )]
    pub root: PathBuf,
    /// Where clients connect
    #[arg(
        short,
        long,
        env = "CAIRN_ADDRESS",
        value_name = "SOCK",
        default_value = "/run/cairn/cairn.sock"
    )]
    pub address: PathBuf,
    /// What to log: error, warn, info, debug, trace, or a filter as tracing has them
    #[arg(
        short,
        long,
        env = "CAIRN_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub log_level: String,
    /// Which engine keeps the records of a new store: redb or sled
    #[arg(
        long,
        env = "CAIRN_METADATA_ENGINE",
        value_name = "ENGINE",
        default_value = "redb"
    )]
    pub engine: String,
}
