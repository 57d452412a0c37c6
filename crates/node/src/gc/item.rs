//! What refers and is referred to, and what its record says about that.

use cairn_meta::{BlobLink, ContainerRecord, ImageRecord, IngestRecord, SnapshotRecord, Timestamp};
use cairn_types::{Digest, ImageName, IngestRef, Labels, Namespace, SnapshotKey};

use super::labels::{self, Conditional};

/// Something that may be referred to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item {
    Blob(Digest),
    Snapshot(SnapshotKey),
    Image(ImageName),
    Ingest(IngestRef),
    Container(String),
}

/// An item where it is.
pub(crate) type Place = (Namespace, Item);

impl Item {
    /// A lease's resource by its type and id; what we do not have is held by nobody here.
    pub(crate) fn of_resource(kind: &str, id: &str) -> Option<Item> {
        match kind {
            "content" => Digest::parse(id).ok().map(Item::Blob),
            "ingests" => IngestRef::parse(id).ok().map(Item::Ingest),
            "images" => ImageName::parse(id).ok().map(Item::Image),
            "snapshots/overlayfs" => SnapshotKey::parse(id).ok().map(Item::Snapshot),
            _ => None,
        }
    }

    /// What a person calls it, and what it is called by.
    pub(super) fn named(&self) -> (&'static str, String) {
        let name = match self {
            Item::Blob(digest) => digest.to_string(),
            Item::Snapshot(key) => key.to_string(),
            Item::Image(name) => name.to_string(),
            Item::Ingest(reference) => reference.to_string(),
            Item::Container(id) => id.clone(),
        };
        (self.kind(), name)
    }

    /// What a person calls it. (To a lease a blob is `content`.)
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Item::Blob(_) => "blob",
            Item::Snapshot(_) => "snapshot",
            Item::Image(_) => "image",
            Item::Ingest(_) => "ingest",
            Item::Container(_) => "container",
        }
    }
}

/// What counts of a record.
#[derive(Default)]
pub(super) struct Facts {
    /// Bytes on disk, as far as the record tells.
    pub(super) size: u64,
    /// Of a snapshot: its directory's number, which others may have, too.
    pub(super) tree: u64,
    /// Alive by itself.
    pub(super) root: bool,
    /// What it cannot be without, even where what it refers to may go: a snapshot's parent, an image's
    /// target.
    pub(super) stands_on: Option<Item>,
    /// What it keeps alive beside that.
    pub(super) refs: Vec<Item>,
    /// With any of which it lives.
    pub(super) owners: Vec<Item>,
    /// Snapshots that it keeps alive as long as they are used.
    pub(super) conditions: Vec<Conditional>,
    /// When it was last used, in nanoseconds since 1970, if it says so.
    pub(super) used_at: Option<i128>,
}

impl Facts {
    fn labelled(labels: &Labels) -> Facts {
        Facts {
            refs: labels::forward(labels),
            owners: labels::back(labels),
            ..Facts::default()
        }
    }

    pub(super) fn of_blob(link: &BlobLink, size: u64) -> Facts {
        Facts {
            size,
            root: labels::is_root(&link.labels),
            conditions: labels::conditional(&link.labels),
            ..Facts::labelled(&link.labels)
        }
    }

    pub(super) fn of_snapshot(record: &SnapshotRecord) -> Facts {
        Facts {
            size: record.usage.bytes,
            tree: record.id,
            root: labels::is_root(&record.labels),
            stands_on: record.parent.clone().map(Item::Snapshot),
            used_at: labels::used_at(&record.labels),
            ..Facts::labelled(&record.labels)
        }
    }

    pub(super) fn of_image(record: &ImageRecord, now: Timestamp) -> Facts {
        Facts {
            root: !labels::is_expired(&record.labels, now),
            stands_on: Some(Item::Blob(record.target.digest.clone())),
            conditions: labels::conditional(&record.labels),
            ..Facts::labelled(&record.labels)
        }
    }

    pub(super) fn of_ingest(record: &IngestRecord, root: bool) -> Facts {
        Facts {
            root,
            refs: record
                .expected
                .clone()
                .map(Item::Blob)
                .into_iter()
                .collect(),
            ..Facts::default()
        }
    }

    /// It does not hold its image, only what it stands on.
    pub(super) fn of_container(record: &ContainerRecord) -> Facts {
        let mut facts = Facts::labelled(&record.labels);
        let key = SnapshotKey::parse(&record.snapshot_key).ok();
        facts.refs.extend(key.map(Item::Snapshot));
        Facts {
            root: true,
            owners: Vec::new(),
            ..facts
        }
    }
}
