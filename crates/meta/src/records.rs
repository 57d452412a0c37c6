//! What each table holds. The types are the rooms' own; protobuf is only how they lie on disk, where
//! fields may be added and are never renumbered.

pub(crate) mod hex;
pub(crate) mod json;
mod wire;

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use cairn_types::{
    Descriptor, DiffId, Digest, ImageName, Labels, LayerTiming, Namespace, SnapshotKey,
    SnapshotKind, Usage,
};
use prost::Message;

use crate::Record;

/// Nanoseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The present; a clock before 1970 or after 2262 is clamped.
    pub fn now() -> Timestamp {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }
}

/// A namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// Its labels.
    pub labels: Labels,
}

/// An image: a name for a root descriptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Type, digest, size and annotations; nothing else of a descriptor is kept.
    pub target: Descriptor,
    /// Its labels.
    pub labels: Labels,
    /// When this store got it.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A blob on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Bytes.
    pub size: u64,
    /// When it was published.
    pub created_at: Timestamp,
}

/// A namespace's view of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobLink {
    /// Its labels in this namespace.
    pub labels: Labels,
    /// When it was linked.
    pub created_at: Timestamp,
    /// When its labels last changed.
    pub updated_at: Timestamp,
}

/// An upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestRecord {
    /// Names its directory.
    pub id: u64,
    /// What it is said to become.
    pub expected: Option<Digest>,
    /// Bytes it is said to have; 0 is unknown.
    pub total: u64,
    /// When it was first opened.
    pub started_at: Timestamp,
    /// When it was last opened.
    pub updated_at: Timestamp,
    /// It was opened under a lease, and lives no longer than that.
    pub leased: bool,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Names its directory, which records under the same key in other namespaces may stand on, too.
    pub id: u64,
    /// View, active or committed.
    pub kind: SnapshotKind,
    /// What it stands on.
    pub parent: Option<SnapshotKey>,
    /// Its labels.
    pub labels: Labels,
    /// When it was prepared, or committed.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// Measured at commit; zero before.
    pub usage: Usage,
    /// Whether the tree's files are known to be on the disk.
    pub durable: bool,
    /// Under which boot the tree was written; empty for one to be mounted that has outlived a boot.
    pub boot_id: String,
    /// The layer it was unpacked from.
    pub diff_id: Option<DiffId>,
    /// The blob it can be rebuilt from.
    pub blob: Option<Digest>,
    /// How long that took, to the microsecond; unknown of what a client unpacked.
    pub timing: Option<LayerTiming>,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Its labels; one may tell when it expires.
    pub labels: Labels,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A bundle that was handed out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRecord {
    /// Whose it is.
    pub namespace: Namespace,
    /// The image it was made from.
    pub image: ImageName,
    /// The manifest that was picked.
    pub manifest: Digest,
    /// Its writable snapshot.
    pub snapshot: SnapshotKey,
    /// `linux/amd64`.
    pub platform: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// It is whole. One that is not was being made or removed when that was cut short, and has to
    /// be removed altogether.
    pub made: bool,
    /// Its root is plain files: it has no snapshot any more.
    pub copied: bool,
}

/// A container as its client describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its labels; those about collection count.
    pub labels: Labels,
    /// Whose snapshot it stands on.
    pub snapshotter: String,
    /// Its snapshot.
    pub snapshot_key: String,
    /// The image it was made from, as text.
    pub image: String,
    /// Everything else as the client sent it.
    pub document: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

fn labelled(labels: &Labels, created_at: Timestamp, updated_at: Timestamp) -> wire::Labelled {
    let labels: BTreeMap<String, String> = labels.clone();
    wire::Labelled {
        labels,
        created_at: created_at.0,
        updated_at: updated_at.0,
    }
}

fn parse<M: Message + Default>(payload: &[u8]) -> Result<M, String> {
    M::decode(payload).map_err(|err| err.to_string())
}

fn text<T: ToString>(value: Option<&T>) -> String {
    value.map(ToString::to_string).unwrap_or_default()
}

/// An empty text is absence.
fn optional<T, E: ToString>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, String> {
    if text.is_empty() {
        Ok(None)
    } else {
        parse(text).map(Some).map_err(|err| err.to_string())
    }
}

fn required<T, E: ToString>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, String> {
    parse(text).map_err(|err| err.to_string())
}

impl Record for NamespaceRecord {
    fn encode(&self) -> Vec<u8> {
        labelled(&self.labels, Timestamp(0), Timestamp(0)).encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        Ok(NamespaceRecord {
            labels: parse::<wire::Labelled>(payload)?.labels,
        })
    }
}

impl Record for LeaseRecord {
    fn encode(&self) -> Vec<u8> {
        labelled(&self.labels, self.created_at, self.created_at).encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        let common: wire::Labelled = parse(payload)?;
        Ok(LeaseRecord {
            labels: common.labels,
            created_at: Timestamp(common.created_at),
        })
    }
}

impl Record for BlobLink {
    fn encode(&self) -> Vec<u8> {
        labelled(&self.labels, self.created_at, self.updated_at).encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        let common: wire::Labelled = parse(payload)?;
        Ok(BlobLink {
            labels: common.labels,
            created_at: Timestamp(common.created_at),
            updated_at: Timestamp(common.updated_at),
        })
    }
}

impl Record for BlobRecord {
    fn encode(&self) -> Vec<u8> {
        wire::Blob {
            size: self.size,
            created_at: self.created_at.0,
        }
        .encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        let blob: wire::Blob = parse(payload)?;
        Ok(BlobRecord {
            size: blob.size,
            created_at: Timestamp(blob.created_at),
        })
    }
}

impl Record for ImageRecord {
    fn encode(&self) -> Vec<u8> {
        wire::Image {
            common: Some(labelled(&self.labels, self.created_at, self.updated_at)),
            media_type: self.target.media_type.clone(),
            digest: self.target.digest.to_string(),
            size: self.target.size,
            annotations: self.target.annotations.clone(),
        }
        .encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        let image: wire::Image = parse(payload)?;
        let common = image.common.unwrap_or_default();
        let digest = required(&image.digest, Digest::parse)?;
        let mut target = Descriptor::new(image.media_type, digest, image.size);
        target.annotations = image.annotations;
        Ok(ImageRecord {
            target,
            labels: common.labels,
            created_at: Timestamp(common.created_at),
            updated_at: Timestamp(common.updated_at),
        })
    }
}

impl Record for IngestRecord {
    fn encode(&self) -> Vec<u8> {
        wire::Ingest {
            id: self.id,
            expected: text(self.expected.as_ref()),
            total: self.total,
            started_at: self.started_at.0,
            updated_at: self.updated_at.0,
            leased: self.leased,
        }
        .encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        let ingest: wire::Ingest = parse(payload)?;
        Ok(IngestRecord {
            id: ingest.id,
            expected: optional(&ingest.expected, Digest::parse)?,
            total: ingest.total,
            started_at: Timestamp(ingest.started_at),
            updated_at: Timestamp(ingest.updated_at),
            leased: ingest.leased,
        })
    }
}

impl Record for SnapshotRecord {
    fn encode(&self) -> Vec<u8> {
        wire::Snapshot {
            common: Some(labelled(&self.labels, self.created_at, self.updated_at)),
            id: self.id,
            kind: match self.kind {
                SnapshotKind::View => 1,
                SnapshotKind::Active => 2,
                SnapshotKind::Committed => 3,
            },
            parent: text(self.parent.as_ref()),
            bytes: self.usage.bytes,
            inodes: self.usage.inodes,
            durable: self.durable,
            boot_id: self.boot_id.clone(),
            diff_id: text(self.diff_id.as_ref()),
            blob: text(self.blob.as_ref()),
            timing: self.timing.as_ref().map(timing),
        }
        .encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        let snapshot: wire::Snapshot = parse(payload)?;
        let common = snapshot.common.unwrap_or_default();
        Ok(SnapshotRecord {
            id: snapshot.id,
            kind: match snapshot.kind {
                1 => SnapshotKind::View,
                2 => SnapshotKind::Active,
                3 => SnapshotKind::Committed,
                other => return Err(format!("snapshot kind {other} is not known")),
            },
            parent: optional(&snapshot.parent, SnapshotKey::parse)?,
            labels: common.labels,
            created_at: Timestamp(common.created_at),
            updated_at: Timestamp(common.updated_at),
            usage: Usage {
                bytes: snapshot.bytes,
                inodes: snapshot.inodes,
            },
            durable: snapshot.durable,
            boot_id: snapshot.boot_id,
            diff_id: optional(&snapshot.diff_id, Digest::parse)?.map(DiffId::new),
            blob: optional(&snapshot.blob, Digest::parse)?,
            timing: snapshot.timing.map(|timing| LayerTiming {
                fetch: Duration::from_micros(timing.fetch),
                inflate: Duration::from_micros(timing.inflate),
                untar: Duration::from_micros(timing.untar),
                sync: Duration::from_micros(timing.sync),
                commit: Duration::from_micros(timing.commit),
            }),
        })
    }
}

fn timing(timing: &LayerTiming) -> wire::Timing {
    let micros = |part: Duration| u64::try_from(part.as_micros()).unwrap_or(u64::MAX);
    wire::Timing {
        fetch: micros(timing.fetch),
        inflate: micros(timing.inflate),
        untar: micros(timing.untar),
        sync: micros(timing.sync),
        commit: micros(timing.commit),
    }
}

impl Record for BundleRecord {
    fn encode(&self) -> Vec<u8> {
        wire::Bundle {
            namespace: self.namespace.to_string(),
            image: self.image.to_string(),
            manifest: self.manifest.to_string(),
            snapshot: self.snapshot.to_string(),
            platform: self.platform.clone(),
            created_at: self.created_at.0,
            made: self.made,
            copied: self.copied,
        }
        .encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        let bundle: wire::Bundle = parse(payload)?;
        Ok(BundleRecord {
            namespace: required(&bundle.namespace, Namespace::parse)?,
            image: required(&bundle.image, ImageName::parse)?,
            manifest: required(&bundle.manifest, Digest::parse)?,
            snapshot: required(&bundle.snapshot, SnapshotKey::parse)?,
            platform: bundle.platform,
            created_at: Timestamp(bundle.created_at),
            made: bundle.made,
            copied: bundle.copied,
        })
    }
}

impl Record for ContainerRecord {
    fn encode(&self) -> Vec<u8> {
        wire::Container {
            labelled: Some(labelled(&self.labels, self.created_at, self.updated_at)),
            snapshotter: self.snapshotter.clone(),
            snapshot_key: self.snapshot_key.clone(),
            image: self.image.clone(),
            document: self.document.clone(),
        }
        .encode_to_vec()
    }
    fn decode(payload: &[u8]) -> Result<Self, String> {
        let container: wire::Container = parse(payload)?;
        let labelled = container.labelled.unwrap_or_default();
        Ok(ContainerRecord {
            labels: labelled.labels,
            snapshotter: container.snapshotter,
            snapshot_key: container.snapshot_key,
            image: container.image,
            document: container.document,
            created_at: Timestamp(labelled.created_at),
            updated_at: Timestamp(labelled.updated_at),
        })
    }
}
