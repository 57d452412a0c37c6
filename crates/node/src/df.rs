//! Where the space went.

mod disk;
mod parts;

use cairn_types::{ChainId, Classified, ErrorKind, ImageName, Namespace, SnapshotKey};

pub use self::disk::{DiskKind, DiskRow, DiskUsage, Unexplained};
pub(crate) use self::parts::{Holders, Part, Parts};
use crate::{
    Failure, GcCount, Node,
    store::StoreBlobs,
    walk::{Body, Tree},
};

const ATTEMPTED: &str = "measure usage";

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

/// What one image takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// Whose.
    pub namespace: Namespace,
    /// Its name.
    pub name: ImageName,
    /// Bytes of its blobs that are here, each once.
    pub content_size: u64,
    /// Bytes of its unpacked layers, each once; `None` when no platform is unpacked.
    pub unpacked_size: Option<u64>,
    /// Bytes of blobs and layers that no other image of any namespace has: what a collection frees
    /// when it goes, unless something else than an image holds it.
    pub unique_size: u64,
}

/// An image's parts.
struct ImageParts {
    namespace: Namespace,
    name: ImageName,
    of: Parts,
    unpacked: bool,
}

impl Node {
    /// Each image of every namespace, by namespace and name.
    pub fn df_images(&self) -> Result<Vec<ImageUsage>, Failure> {
        let mut all = Vec::new();
        for ns in self.namespaces()? {
            for (name, record) in self.image_records(&ns, ATTEMPTED)? {
                let blobs = StoreBlobs::new(self, &ns, ATTEMPTED, name.to_string()).lenient();
                let tree = blobs.tree(&record.target)?;
                all.push(self.parts(&ns, name, &tree)?);
            }
        }
        let holders: Holders<'_> = all.iter().map(|image| &image.of).collect();
        let usage = |image: &ImageParts| ImageUsage {
            namespace: image.namespace.clone(),
            name: image.name.clone(),
            content_size: image.of.content_size(),
            unpacked_size: image.unpacked.then(|| image.of.snapshot_size()),
            unique_size: holders.unique_size(&image.of),
        };
        let mut usages: Vec<ImageUsage> = all.iter().map(usage).collect();
        usages.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Ok(usages)
    }

    fn parts(&self, ns: &Namespace, name: ImageName, tree: &Tree) -> Result<ImageParts, Failure> {
        let mut of = Parts::default();
        for blob in tree.everything() {
            if self.has_blob(ns, &blob.digest)? {
                of.add(Part::Blob(blob.digest.clone()), blob.size);
            }
        }
        let mut unpacked = false;
        for manifest in tree.images() {
            let Body::Manifest(body) = &manifest.body else {
                continue;
            };
            let Some(config) = &body.config else { continue };
            let mut whole = true;
            for chain in ChainId::stack(&config.rootfs.diff_ids) {
                let key = SnapshotKey::from(&chain);
                match self.snapshots().stat(ns, &key) {
                    Ok(info) => of.add(Part::Layer(info.id), info.usage.bytes),
                    Err(err) if err.kind() == ErrorKind::NotFound => whole = false,
                    Err(err) => {
                        return Err(Failure::of(ATTEMPTED, &err).object("snapshot", key));
                    }
                }
            }
            unpacked |= whole;
        }
        Ok(ImageParts {
            namespace: ns.clone(),
            name,
            of,
            unpacked,
        })
    }

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
            let listed = listed.map_err(|err| Failure::of(ATTEMPTED, &err))?;
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
