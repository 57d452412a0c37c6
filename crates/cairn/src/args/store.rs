//! `cairn content …` and `cairn snapshots …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The group; without a verb it lists.
#[derive(Debug, Args)]
pub struct ContentArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<ContentVerb>,
}

/// What to do with blobs.
#[derive(Debug, Subcommand)]
pub enum ContentVerb {
    /// List blobs
    #[command(visible_alias = "list")]
    Ls {
        /// Only digests that begin so
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
    },
    /// Write a blob's bytes
    #[command(alias = "cat")]
    Get(ContentGet),
}

/// `get`
#[derive(Debug, Args)]
pub struct ContentGet {
    /// Whole, or at least 7 hex digits
    #[arg(value_name = "DIGEST")]
    pub digest: String,
    /// Write there instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// The group; without a verb it lists.
#[derive(Debug, Args)]
pub struct SnapshotsArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<SnapshotsVerb>,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotsVerb {
    /// List snapshots
    #[command(visible_alias = "list")]
    Ls {
        /// Only keys that contain this
        #[arg(value_name = "FILTER")]
        filters: Vec<String>,
        /// Also inodes, age and labels
        #[arg(long)]
        wide: bool,
    },
    /// Who stands on whom
    Tree,
    /// One snapshot
    #[command(aliases = ["inspect", "i"])]
    Info {
        /// Its name
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Disk use
    Usage(SnapshotUsage),
}

/// `usage`
#[derive(Debug, Args)]
pub struct SnapshotUsage {
    /// Only these
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,
    /// Exact bytes
    #[arg(short, long)]
    pub bytes: bool,
}
