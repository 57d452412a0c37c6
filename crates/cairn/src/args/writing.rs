//! What is written into the store piece by piece: blobs, and snapshots.

use std::path::PathBuf;

use cairn_types::{Digest, LeaseId, SnapshotKey, media};
use clap::Args;

use super::labels::label;

/// `content put`
#[derive(Debug, Args)]
pub struct ContentPut {
    /// What to store, or - for standard input [default: -]
    #[arg(value_name = "FILE|-")]
    pub file: Option<PathBuf>,
    /// Refuse any other bytes
    #[arg(long, value_name = "DIGEST", value_parser = |t: &str| Digest::parse(t))]
    pub expected_digest: Option<Digest>,
    /// Refuse any other length
    #[arg(long, value_name = "BYTES")]
    pub expected_size: Option<u64>,
    /// Call the upload so; the same name resumes it
    #[arg(long, value_name = "REF")]
    pub r#ref: Option<String>,
    /// Label the blob
    #[arg(long, value_name = "K=V", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Have this lease hold it, instead of the label
    #[arg(long, value_name = "ID", value_parser = |t: &str| LeaseId::parse(t))]
    pub lease: Option<LeaseId>,
}

/// `content ingest`, ctr's `put` from standard input
#[derive(Debug, Args)]
pub struct ContentIngest {
    /// What to call the upload
    #[arg(value_name = "KEY")]
    pub key: String,
    /// Refuse any other length
    #[arg(long, value_name = "BYTES")]
    pub expected_size: Option<u64>,
    /// Refuse any other bytes
    #[arg(long, value_name = "DIGEST", value_parser = |t: &str| Digest::parse(t))]
    pub expected_digest: Option<Digest>,
}

impl From<ContentIngest> for ContentPut {
    fn from(args: ContentIngest) -> ContentPut {
        ContentPut {
            file: None,
            expected_digest: args.expected_digest,
            // ctr's word for unknown.
            expected_size: args.expected_size.filter(|size| *size > 0),
            r#ref: Some(args.key),
            label: Vec::new(),
            lease: None,
        }
    }
}

/// `content ingests`
#[derive(Debug, Default, Args)]
pub struct ContentIngests {
    /// Only those whose ref matches
    #[arg(value_name = "REGEXP")]
    pub pattern: Option<String>,
}

/// `snapshots prepare` and `view`
#[derive(Debug, Args)]
pub struct SnapshotNew {
    /// What to call it
    #[arg(value_name = "KEY", value_parser = |t: &str| SnapshotKey::parse(t))]
    pub key: SnapshotKey,
    /// What it stands on: a committed one [default: nothing]
    #[arg(value_name = "PARENT")]
    pub parent: Option<String>,
    /// Print the commands that mount it there
    #[arg(short, long, value_name = "DIR")]
    pub target: Option<PathBuf>,
    /// Print its mounts as JSON
    #[arg(long, conflicts_with = "target")]
    pub mounts: bool,
}

/// `snapshots commit`
#[derive(Debug, Args)]
pub struct SnapshotCommit {
    /// What to call it from now on
    #[arg(value_name = "NAME", value_parser = |t: &str| SnapshotKey::parse(t))]
    pub name: SnapshotKey,
    /// What it was called while it was written to
    #[arg(value_name = "ACTIVE-KEY")]
    pub key: String,
}

/// `snapshots mounts`
#[derive(Debug, Args)]
pub struct SnapshotMounts {
    /// Where it is to be mounted
    #[arg(value_name = "TARGET")]
    pub target: PathBuf,
    /// A view or an active snapshot
    #[arg(value_name = "KEY")]
    pub key: String,
}

/// `snapshots diff`
#[derive(Debug, Args)]
pub struct SnapshotDiff {
    /// The snapshot, or the older one of two
    #[arg(value_name = "A")]
    pub a: String,
    /// The newer one
    #[arg(value_name = "B")]
    pub b: Option<String>,
    /// How to write the layer: an OCI layer type, plain, gzip or zstd
    #[arg(long, value_name = "TYPE", default_value = media::OCI_LAYER_GZIP)]
    pub media_type: String,
    /// Call the upload so
    #[arg(long, value_name = "REF")]
    pub r#ref: Option<String>,
    /// Label the blob containerd.io/gc.root: `cairn gc` leaves it alone
    #[arg(long)]
    pub keep: bool,
    /// Label the blob
    #[arg(long, value_name = "K=V", value_parser = label)]
    pub label: Vec<(String, String)>,
}
