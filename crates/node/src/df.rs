//! Where the space went.

use std::collections::HashMap;

use cairn_types::Digest;

use crate::{Failure, Node, gc::Marked};

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
        let _busy = self.working();
        let all = self.mark_all()?;
        let (content, reachable) = content(&all);
        let images = all.iter().map(|marked| marked.image_count()).sum();
        Ok(vec![
            UsageRow {
                kind: "images",
                total: images,
                active: images,
                size: reachable,
                reclaimable: 0,
            },
            content,
            snapshots(&all),
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

/// A blob that several namespaces have is there once, and reclaimable when none needs it. Also
/// returns the bytes of those that are needed.
fn content(all: &[Marked]) -> (UsageRow, u64) {
    let mut blobs: HashMap<&Digest, (u64, bool)> = HashMap::new();
    for marked in all {
        for (digest, info) in &marked.blobs {
            let blob = blobs.entry(digest).or_insert((info.size, false));
            blob.1 |= marked.has_blob(digest);
        }
    }
    let mut row = row("content");
    for (size, live) in blobs.values() {
        row.total += 1;
        row.size += size;
        if *live {
            row.active += 1;
        } else {
            row.reclaimable += size;
        }
    }
    let reachable = row.size - row.reclaimable;
    (row, reachable)
}

fn snapshots(all: &[Marked]) -> UsageRow {
    let mut row = row("snapshots");
    for marked in all {
        for (key, info) in &marked.snapshots {
            row.total += 1;
            row.size += info.usage.bytes;
            if marked.has_snapshot(key) {
                row.active += 1;
            } else {
                row.reclaimable += info.usage.bytes;
            }
        }
    }
    row
}
