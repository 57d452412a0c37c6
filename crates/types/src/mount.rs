//! What a snapshot is handed out as.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// One mount to make, in the words of `mount(8)`, as containerd's API spells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `overlay` or `bind`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `overlay`, or the directory to bind.
    pub source: String,
    /// A directory below the mount point; usually empty.
    pub target: String,
    /// Options in order.
    pub options: Vec<String>,
}

/// The three kinds of snapshot (containerd `core/snapshots`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Read-only look at a committed one.
    View,
    /// Writable.
    Active,
    /// Immutable; the only kind that can be a parent.
    Committed,
}

impl SnapshotKind {
    /// The lower-case word used in filters and JSON.
    pub fn name(self) -> &'static str {
        match self {
            SnapshotKind::View => "view",
            SnapshotKind::Active => "active",
            SnapshotKind::Committed => "committed",
        }
    }
}

/// What a snapshot's own layer takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Allocated blocks times 512, once per inode.
    pub bytes: u64,
    /// Inodes, the layer's root directory included.
    pub inodes: u64,
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}
