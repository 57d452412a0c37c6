//! What is stored, counted over all namespaces, by store.

use std::collections::HashSet;

use cairn_meta::{View, schema};
use cairn_node::{Node, ScrubStatus};
use cairn_types::SnapshotKind;
use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::{Socket, set as set_count};

pub(super) fn describe() {
    describe_gauge!("cairn_content_blobs", "Blobs.");
    describe_gauge!("cairn_content_bytes", "Bytes of all blobs.");
    describe_gauge!("cairn_snapshots", "Snapshots, by kind.");
    describe_gauge!(
        "cairn_snapshot_bytes",
        "Bytes on disk of committed snapshots."
    );
    describe_gauge!(
        "cairn_snapshots_not_durable",
        "Unpacked layers not yet put on the disk."
    );
    describe_gauge!("cairn_images", "Images.");
    describe_gauge!("cairn_leases", "Leases.");
    describe_gauge!("cairn_inflight", "Unfinished work, by kind.");
    describe_gauge!("cairn_disk_free_bytes", "Bytes free where the store is.");
    describe_counter!(
        "cairn_scrub_read_bytes_total",
        "Bytes that were read again to see whether they are what they should be."
    );
    describe_gauge!("cairn_scrub_running", "1 while that is done.");
    describe_gauge!(
        "cairn_scrub_findings",
        "Places at which it found damage that is still there."
    );
    describe_gauge!(
        "cairn_scrub_ended_timestamp_seconds",
        "When it last came to its end."
    );
}

/// What was counted.
#[derive(Debug, Default)]
pub(super) struct Found {
    blobs: u64,
    blob_bytes: u64,
    active: u64,
    views: u64,
    committed: u64,
    snapshot_bytes: u64,
    not_durable: u64,
    images: u64,
    leases: u64,
    ingests: u64,
    free: Option<u64>,
    scrub: ScrubStatus,
}

/// Counts; for a thread that may wait.
pub(super) fn count(node: &Node) -> Result<Found, cairn_meta::Error> {
    let mut found = Found::default();
    // Several namespaces may share one.
    let mut trees = HashSet::new();
    node.meta().read(|records| {
        for (_, blob) in records.scan(&schema::BLOBS, &())? {
            found.blobs += 1;
            found.blob_bytes += blob.size;
        }
        for (_, snapshot) in records.scan(&schema::SNAPSHOTS, &())? {
            match snapshot.kind {
                SnapshotKind::Active => found.active += 1,
                SnapshotKind::View => found.views += 1,
                SnapshotKind::Committed => {
                    found.committed += 1;
                    if trees.insert(snapshot.id) {
                        found.snapshot_bytes += snapshot.usage.bytes;
                        found.not_durable += u64::from(!snapshot.durable);
                    }
                }
            }
        }
        found.images = records.scan(&schema::IMAGES, &())?.len() as u64;
        found.leases = records.scan(&schema::LEASES, &())?.len() as u64;
        found.ingests = records.scan(&schema::INGESTS, &())?.len() as u64;
        Ok::<(), cairn_meta::Error>(())
    })?;
    let stat = rustix::fs::statvfs(node.root()).ok();
    found.free = stat.map(|stat| stat.f_bavail * stat.f_frsize);
    found.scrub = node.scrub_status();
    Ok(found)
}

impl Found {
    pub(super) fn set(&self, socket: Socket) {
        let store = ("store", socket.label());
        set_count(&gauge!("cairn_content_blobs", &[store]), self.blobs);
        set_count(&gauge!("cairn_content_bytes", &[store]), self.blob_bytes);
        for (kind, count) in [
            ("active", self.active),
            ("view", self.views),
            ("committed", self.committed),
        ] {
            set_count(&gauge!("cairn_snapshots", &[("kind", kind), store]), count);
        }
        set_count(
            &gauge!("cairn_snapshot_bytes", &[store]),
            self.snapshot_bytes,
        );
        set_count(
            &gauge!("cairn_snapshots_not_durable", &[store]),
            self.not_durable,
        );
        set_count(&gauge!("cairn_images", &[store]), self.images);
        set_count(&gauge!("cairn_leases", &[store]), self.leases);
        // As calls under way are told apart by their socket.
        let ingests = [("kind", "ingest"), ("socket", socket.label())];
        set_count(&gauge!("cairn_inflight", &ingests), self.ingests);
        if let Some(free) = self.free {
            set_count(&gauge!("cairn_disk_free_bytes", &[store]), free);
        }
        self.set_scrub(store);
    }

    fn set_scrub(&self, store: (&'static str, &'static str)) {
        let scrub = &self.scrub;
        counter!("cairn_scrub_read_bytes_total", &[store]).absolute(scrub.read_bytes);
        let running = u64::from(scrub.is_running);
        set_count(&gauge!("cairn_scrub_running", &[store]), running);
        let findings = scrub.findings.len() as u64;
        set_count(&gauge!("cairn_scrub_findings", &[store]), findings);
        let ended = scrub
            .last
            .as_ref()
            .map(|last| last.ended_at / 1_000_000_000);
        if let Some(ended) = ended.and_then(|ended| u64::try_from(ended).ok()) {
            set_count(
                &gauge!("cairn_scrub_ended_timestamp_seconds", &[store]),
                ended,
            );
        }
    }
}
