//! Where the space went.

use crate::{Failure, Node};

/// One kind of object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// `images`, `content`, `snapshots` or `ingests`.
    pub kind: &'static str,
    /// How many there are, in all namespaces.
    pub total: u64,
    /// How many something refers to.
    pub active: u64,
    /// Bytes of all.
    pub size: u64,
    /// Bytes that [`Node::gc`] would free.
    pub reclaimable: u64,
}

impl Node {
    /// The four rows of `cairn df`, over all namespaces.
    pub fn df(&self) -> Result<Vec<UsageRow>, Failure> {
        Err(crate::unpublished("measure usage"))
    }
}
