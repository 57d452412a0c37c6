//! The tables, drawn once:
//!
//! ```text
//! namespaces       NAMESPACE                      labels
//! images           NAMESPACE NAME                 target descriptor, labels, times
//! blobs            DIGEST                         size, time            one for each file in blobs/
//! blob-bytes       DIGEST                         the bytes, until a small one's file is on the disk
//! blob-links       NAMESPACE DIGEST               labels, times         who may see it
//! ingests          NAMESPACE REF                  id of its file, expected, total, times
//! snapshots        NAMESPACE KEY                  id of its directory, kind, parent, usage, …; the same
//!                                                 KEY elsewhere may have the same directory
//! children         NAMESPACE PARENT CHILD         -
//! leases           NAMESPACE ID                   labels, time
//! lease-resources  NAMESPACE ID TYPE NAME         -
//! bundles          DIRECTORY                      image, snapshot, platform
//! containers       NAMESPACE ID                   snapshot, labels, the client's document
//! counters         NAME                           the last number given out
//! ```
//!
//! On disk all stand in one ordered key space, each table behind a tag byte, so that a transaction
//! over several tables is one batch in either engine.

use std::marker::PhantomData;

use cairn_types::{Digest, ImageName, IngestRef, LeaseId, Namespace, SnapshotKey};

use crate::{
    BlobLink, BlobRecord, BundleRecord, ContainerRecord, ImageRecord, IngestRecord, LeaseRecord,
    NamespaceRecord, SnapshotRecord,
};

/// A table: keys of one type, records of one type.
pub struct Table<K, V> {
    pub(crate) tag: u8,
    _types: PhantomData<fn() -> (K, V)>,
}

impl<K, V> Table<K, V> {
    const fn new(tag: u8) -> Table<K, V> {
        Table {
            tag,
            _types: PhantomData,
        }
    }
}

/// Namespaces that were created explicitly or hold labels.
pub static NAMESPACES: Table<Namespace, NamespaceRecord> = Table::new(1);
/// Images by name.
pub static IMAGES: Table<(Namespace, ImageName), ImageRecord> = Table::new(2);
/// Blobs on disk.
pub static BLOBS: Table<Digest, BlobRecord> = Table::new(3);
/// Which namespace sees which blob.
pub static BLOB_LINKS: Table<(Namespace, Digest), BlobLink> = Table::new(4);
/// Uploads that have not become blobs.
pub static INGESTS: Table<(Namespace, IngestRef), IngestRecord> = Table::new(5);
/// Snapshots by key or name.
pub static SNAPSHOTS: Table<(Namespace, SnapshotKey), SnapshotRecord> = Table::new(6);
/// Parent to child.
pub static CHILDREN: Table<(Namespace, SnapshotKey, SnapshotKey), ()> = Table::new(7);
/// Leases.
pub static LEASES: Table<(Namespace, LeaseId), LeaseRecord> = Table::new(8);
/// What leases hold: type and name.
pub static LEASE_RESOURCES: Table<(Namespace, LeaseId, String, String), ()> = Table::new(9);
/// Bundles by their absolute directory.
pub static BUNDLES: Table<String, BundleRecord> = Table::new(10);
/// Containers that clients keep records of; nothing here runs them.
pub static CONTAINERS: Table<(Namespace, String), ContainerRecord> = Table::new(12);
/// Of small blobs whose files may not be on the disk.
pub static BLOB_BYTES: Table<Digest, Vec<u8>> = Table::new(13);
/// Numbers that only grow.
pub(crate) static COUNTERS: Table<String, u64> = Table::new(11);

/// The names of tables in messages and exports, by tag. No table has the first.
const NAMES: [&str; 14] = [
    "unknown",
    "namespace",
    "image",
    "blob",
    "blob-link",
    "ingest",
    "snapshot",
    "child",
    "lease",
    "lease-resource",
    "bundle",
    "counter",
    "container",
    "blob-bytes",
];

/// The name of a table.
pub(crate) fn table_name(tag: u8) -> &'static str {
    NAMES.get(usize::from(tag)).copied().unwrap_or(NAMES[0])
}

/// The tags of all tables.
pub(crate) fn tags() -> impl Iterator<Item = u8> {
    (1..NAMES.len()).filter_map(|tag| u8::try_from(tag).ok())
}

/// The tag of the table of this name.
pub(crate) fn tag_of(name: &str) -> Option<u8> {
    let at = NAMES.iter().skip(1).position(|known| *known == name)?;
    u8::try_from(at + 1).ok()
}
