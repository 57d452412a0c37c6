//! `cairn df`, `cairn fsck`, `cairn events`, `cairn plugins` and `cairn man`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::examples;

/// `df`
#[derive(Clone, Copy, Debug, Args)]
pub struct DfArgs {
    /// Also by image and by namespace, with what no other has
    #[arg(long)]
    pub wide: bool,
    /// Every byte and inode on the disk, and what it is there for
    ///
    /// All that is below the root is walked through; without this the records are asked, which is
    /// quick however much there is. Sizes are those of `du`, allocated blocks, and each inode counts
    /// once. Types are `content` (blobs), snapshots as `committed`, `active` or `views`, `ingests`
    /// (unfinished uploads), `staging` (being made), `garbage` (waiting to be deleted) and `replaced`
    /// (mended trees, gone at the next start of the server), `records` with their `journal`, `copies`,
    /// `reserve` and `backups`, `pushes` (uploads to registries that can be resumed), `lost` (what no
    /// record spoke of when some were lost), `backend` (the store of that socket) and `store` (its own
    /// directories). What none of these explains is listed by path.
    #[arg(long, conflicts_with = "wide")]
    pub disk: bool,
}

/// `fsck`
#[derive(Clone, Copy, Debug, Args)]
pub struct FsckArgs {
    /// Also read every byte
    #[arg(long)]
    pub deep: bool,
    /// Mend what can be mended
    #[arg(long)]
    pub repair: bool,
    /// Records and sizes only, as without --deep
    #[arg(long, hide = true, conflicts_with = "deep")]
    pub fast: bool,
}

/// `events`
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only these: the beginning of a topic, or topic=="X", namespace==X, event.FIELD==X
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
}

/// `plugins`
#[derive(Debug, Args)]
#[command(before_help = examples::PLUGINS)]
pub struct PluginsArgs {
    /// `ls`
    #[command(subcommand)]
    pub verb: Option<PluginsVerb>,
    /// All that is known of each
    #[arg(short, long, global = true)]
    pub detailed: bool,
}

/// What to do with plugins.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum PluginsVerb {
    /// List them
    #[command(visible_alias = "list", before_help = examples::PLUGINS)]
    Ls,
}

/// `man`
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Of this command [default: of cairn itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub command: Vec<String>,
    /// Write all pages there
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}
