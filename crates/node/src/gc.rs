//! Removing what nothing refers to.

use std::time::Duration;

use crate::{Failure, Node};

/// How many of one kind, and how much that freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcCount {
    /// Objects.
    pub removed: u64,
    /// Bytes on disk.
    pub freed: u64,
}

/// What a collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Nothing was touched.
    pub dry_run: bool,
    /// Blobs.
    pub content: GcCount,
    /// Snapshots.
    pub snapshots: GcCount,
    /// Unfinished uploads.
    pub ingests: GcCount,
    /// Expired leases.
    pub leases: GcCount,
    /// How long it took.
    pub took: Duration,
}

impl GcReport {
    /// Bytes on disk, all kinds together.
    pub fn freed(&self) -> u64 {
        [self.content, self.snapshots, self.ingests, self.leases]
            .iter()
            .map(|c| c.freed)
            .sum()
    }
}

impl Node {
    /// Removes, in every namespace, what no image, bundle, lease or root label leads to. With
    /// `dry_run` only counts.
    pub fn gc(&self, _dry_run: bool) -> Result<GcReport, Failure> {
        Err(crate::unpublished("collect garbage"))
    }
}
