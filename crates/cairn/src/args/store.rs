//! `cairn content …` and `cairn snapshots …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{
    Rest, examples,
    labels::LabelArgs,
    writing::{
        ContentIngest, ContentIngests, ContentPut, SnapshotCommit, SnapshotDiff, SnapshotMounts,
        SnapshotNew,
    },
};

/// The group; without a verb it lists.
#[derive(Debug, Args)]
#[command(before_help = examples::CONTENT)]
pub struct ContentArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<ContentVerb>,
}

/// What to do with blobs.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // One value lives for the whole run.
pub enum ContentVerb {
    /// List blobs
    #[command(visible_alias = "list", before_help = examples::CONTENT_LS)]
    Ls(ContentLs),
    /// Write a blob's bytes
    #[command(alias = "cat", before_help = examples::CONTENT_GET)]
    Get(ContentGet),
    /// One blob
    #[command(aliases = ["inspect", "i"], before_help = examples::CONTENT_INFO)]
    Info {
        /// Whole, or at least 7 hex digits
        #[arg(value_name = "DIGEST")]
        digest: String,
    },
    /// Remove blobs, whoever refers to them
    #[command(visible_alias = "remove", aliases = ["del", "delete"],
              before_help = examples::CONTENT_RM)]
    Rm {
        /// Whole, or at least 12 hex digits
        #[arg(value_name = "DIGEST", required = true)]
        digests: Vec<String>,
    },
    /// Store a file and print its digest
    ///
    /// A blob is kept by what refers to it. This one is referred to by nothing yet, so it gets the
    /// label containerd.io/gc.root, which `cairn content label DIGEST containerd.io/gc.root-` takes
    /// away again; or it is held by a lease, with --lease. With --ref an upload that was interrupted
    /// goes on where it ended, after a check that it began with the same bytes.
    #[command(before_help = examples::CONTENT_PUT)]
    Put(ContentPut),
    /// ctr's `put`
    #[command(hide = true, before_help = examples::CONTENT_PUT)]
    Ingest(ContentIngest),
    /// Change a blob's labels
    #[command(before_help = examples::CONTENT_LABEL)]
    Label(LabelArgs),
    /// List uploads that are not complete
    #[command(alias = "active", before_help = examples::CONTENT_INGESTS)]
    Ingests(ContentIngests),
    /// Throw uploads away
    #[command(before_help = examples::CONTENT_ABORT)]
    Abort {
        /// As `ingests` lists them
        #[arg(value_name = "REF", required = true)]
        refs: Vec<String>,
    },
    /// Changes no blob
    #[command(hide = true)]
    Edit(Rest),
}

/// `ls`
#[derive(Debug, Default, Args)]
pub struct ContentLs {
    /// Only these: the beginning of a digest, or digest~=X, size==N, labels.KEY==X
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
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
    /// Only bytes A to B, counted from 0, both included; without B to the end
    #[arg(long, value_name = "A-[B]", value_parser = range)]
    pub range: Option<Range>,
}

/// Bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first one, counted from 0.
    pub first: u64,
    /// The last one, which is included; `None` is the blob's last.
    pub last: Option<u64>,
}

/// The group; without a verb it lists.
#[derive(Debug, Args)]
#[command(before_help = examples::SNAPSHOTS)]
pub struct SnapshotsArgs {
    /// Which verb
    #[command(subcommand)]
    pub verb: Option<SnapshotsVerb>,
    /// ctr's; there is only one
    #[arg(long, global = true, hide = true, env = "CONTAINERD_SNAPSHOTTER", hide_env = true,
          value_name = "NAME", value_parser = ["overlayfs"])]
    pub snapshotter: Option<String>,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // One value lives for the whole run.
pub enum SnapshotsVerb {
    /// List snapshots
    #[command(visible_alias = "list", before_help = examples::SNAPSHOTS_LS)]
    Ls(SnapshotsLs),
    /// Who stands on whom
    #[command(before_help = examples::SNAPSHOTS_TREE)]
    Tree,
    /// One snapshot
    #[command(aliases = ["inspect", "i"], before_help = examples::SNAPSHOTS_INFO)]
    Info {
        /// Its name, or at least 7 hex digits of one that is a digest
        #[arg(value_name = "KEY")]
        key: String,
    },
    /// Disk use
    #[command(before_help = examples::SNAPSHOTS_USAGE)]
    Usage(SnapshotUsage),
    /// Remove snapshots
    #[command(visible_alias = "remove", aliases = ["del", "delete"],
              before_help = examples::SNAPSHOTS_RM)]
    Rm {
        /// Their names, or at least 12 hex digits of those that are digests
        #[arg(value_name = "KEY", required = true)]
        keys: Vec<String>,
        /// What stands on them, too
        #[arg(long)]
        recursive: bool,
    },
    /// Make a writable snapshot
    ///
    /// The new snapshot is labelled containerd.io/gc.root, so that `cairn gc` leaves it alone until
    /// it is removed. Nothing is mounted: what is printed is to be run.
    #[command(before_help = examples::SNAPSHOTS_PREPARE)]
    Prepare(SnapshotNew),
    /// Make a read-only look at a snapshot
    ///
    /// The new snapshot is labelled containerd.io/gc.root, so that `cairn gc` leaves it alone until
    /// it is removed. Nothing is mounted: what is printed is to be run.
    #[command(before_help = examples::SNAPSHOTS_VIEW)]
    View(SnapshotNew),
    /// Freeze a writable snapshot under a name; others can stand on it then
    #[command(before_help = examples::SNAPSHOTS_COMMIT)]
    Commit(SnapshotCommit),
    /// Print the commands that mount a snapshot
    #[command(aliases = ["mount", "m"], before_help = examples::SNAPSHOTS_MOUNTS)]
    Mounts(SnapshotMounts),
    /// Store as a layer what a snapshot adds, and print its digest
    ///
    /// With one name: what that snapshot adds to its parent. With two: what has to be applied to A to
    /// get B. Unless it is labelled with --keep, the next `cairn gc` removes the layer again. With the
    /// variable SOURCE_DATE_EPOCH, in seconds since 1970, later times of files become that one, and the
    /// same files give the same layer.
    #[command(before_help = examples::SNAPSHOTS_DIFF)]
    Diff(SnapshotDiff),
    /// Change a snapshot's labels
    #[command(before_help = examples::SNAPSHOTS_LABEL)]
    Label(LabelArgs),
}

/// `ls`
#[derive(Debug, Default, Args)]
pub struct SnapshotsLs {
    /// Only these: a part of the key, or name==X, parent==X, kind==X, labels.KEY==X
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Also inodes, age and labels
    #[arg(long)]
    pub wide: bool,
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

fn range(text: &str) -> Result<Range, String> {
    let parts = text.split_once('-').and_then(|(first, last)| {
        let first = first.parse().ok()?;
        let last = match last {
            "" => None,
            last => Some(last.parse().ok()?),
        };
        Some(Range { first, last })
    });
    parts
        .filter(|range| range.last.is_none_or(|last| last >= range.first))
        .ok_or_else(|| "a range is A-B with A not after B, or A-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let some = |first, last| Ok(Range { first, last });
        assert_eq!(range("0-0"), some(0, Some(0)));
        assert_eq!(range("10-"), some(10, None));
        for wrong in ["", "-", "-5", "5", "5-4", "a-b", "1-2-3", "+1-2x"] {
            assert!(range(wrong).is_err(), "{wrong}");
        }
    }
}
