//! Where the space went.

use crate::{Failure, GcCount, Node};

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
        let usage = self.usage()?;
        let garbage = &usage.garbage;
        let dead_blobs = GcCount {
            removed: usage.dead_blobs,
            freed: garbage.content.freed,
        };
        Ok(vec![
            UsageRow {
                kind: "images",
                total: usage.images,
                active: usage.images,
                size: usage.blobs.freed - dead_blobs.freed,
                reclaimable: 0,
            },
            counted("content", usage.blobs, dead_blobs),
            counted("snapshots", usage.snapshots, garbage.snapshots),
            self.ingests()?,
        ])
    }

    fn ingests(&self) -> Result<UsageRow, Failure> {
        let mut row = row("ingests");
        for ns in self.namespaces()? {
            let listed = self.content().ingests(&ns);
            let listed = listed.map_err(|err| Failure::of("measure usage", &err))?;
            for ingest in listed {
                row.total += 1;
                row.size += ingest.offset;
            }
        }
        row.active = row.total;
        Ok(row)
    }
}

fn row(kind: &'static str) -> UsageRow {
    UsageRow {
        kind,
        total: 0,
        active: 0,
        size: 0,
        reclaimable: 0,
    }
}

fn counted(kind: &'static str, all: GcCount, dead: GcCount) -> UsageRow {
    UsageRow {
        kind,
        total: all.removed,
        active: all.removed - dead.removed,
        size: all.freed,
        reclaimable: dead.freed,
    }
}
