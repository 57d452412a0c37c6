//! Image names: listing, tagging, labelling, removing.

use std::{collections::HashSet, path::PathBuf};

use cairn_meta::{ImageRecord, Timestamp, Tx, View, schema};
use cairn_types::{
    Classified, Descriptor, DiffId, Digest, ErrorKind, ImageName, Labels, Namespace, SnapshotKey,
    merge_labels, validate_label,
};

use crate::{
    Failure, Node,
    events::{Event, What},
    objects::{held_by_bundles, word},
    store::StoreBlobs,
    walk::{Body, Tree},
};

/// One image, with what the store has of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInfo {
    /// Its full name.
    pub name: ImageName,
    /// The namespace it is in.
    pub namespace: Namespace,
    /// What the name points at.
    pub target: Descriptor,
    /// The user's.
    pub labels: Labels,
    /// When this store got it, nanoseconds since 1970.
    pub created_at: i64,
    /// When it was last changed, nanoseconds since 1970.
    pub updated_at: i64,
    /// Platforms whose manifests are here, as `linux/amd64`; attestations are none.
    pub platforms: Vec<String>,
    /// Bytes of its blobs that are here, each once.
    pub content_size: u64,
    /// Bytes of its unpacked layers; `None` when no platform is unpacked.
    pub unpacked_size: Option<u64>,
    /// Nothing that a manifest here refers to is missing.
    pub complete: bool,
    /// Blobs that are referred to and not here.
    pub missing: Vec<Digest>,
}

/// What became of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tagged {
    /// The name is new.
    Created,
    /// The name meant another image before.
    Moved,
    /// The name meant this image already.
    Unchanged,
}

/// What removing an image left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The name that is gone.
    pub name: ImageName,
    /// Bundles that were made from it and keep their files.
    pub bundles: Vec<PathBuf>,
}

impl Node {
    /// All images of a namespace, by name.
    pub fn images(&self, ns: &Namespace) -> Result<Vec<ImageInfo>, Failure> {
        let records = self.image_records(ns, "list images")?;
        records
            .into_iter()
            .map(|(name, record)| self.describe(ns, name, record, "list images"))
            .collect()
    }

    /// One image by its full name.
    pub fn image(&self, ns: &Namespace, name: &ImageName) -> Result<ImageInfo, Failure> {
        let record = self.image_record(ns, name, "inspect image")?;
        self.describe(ns, name.clone(), record, "inspect image")
    }

    pub(crate) fn describe(
        &self,
        ns: &Namespace,
        name: ImageName,
        record: ImageRecord,
        attempted: &str,
    ) -> Result<ImageInfo, Failure> {
        let blobs = StoreBlobs::new(self, ns, attempted, name.to_string()).lenient();
        let tree = blobs.tree(&record.target)?;
        let facts = self.facts(ns, &tree)?;
        Ok(ImageInfo {
            name,
            namespace: ns.clone(),
            target: record.target,
            labels: record.labels,
            created_at: record.created_at.0,
            updated_at: record.updated_at.0,
            platforms: facts.platforms,
            content_size: facts.content_size,
            unpacked_size: facts.unpacked_size,
            complete: facts.missing.is_empty(),
            missing: facts.missing,
        })
    }

    /// What the store has of a tree. Manifests that an index lists and that were left out as other
    /// platforms are not missed; what a manifest that is here refers to is. So it is with manifests of
    /// which no layer is here, as long as there is another: they came as metadata.
    fn facts(&self, ns: &Namespace, tree: &Tree) -> Result<Facts, Failure> {
        let mut facts = Facts::default();
        let mut content_size = 0;
        let mut seen = HashSet::new();
        let mut size = |digest: &Digest, bytes: u64| {
            if seen.insert(digest.clone()) {
                content_size += bytes;
            }
        };
        let mut stack = vec![tree];
        let mut manifests = 0;
        let mut bare = Vec::new();
        while let Some(tree) = stack.pop() {
            match &tree.body {
                Body::Index(children) => {
                    size(&tree.descriptor.digest, tree.descriptor.size);
                    stack.extend(children.iter().rev());
                }
                Body::Manifest(body) => {
                    size(&tree.descriptor.digest, tree.descriptor.size);
                    let mut part = Facts::default();
                    for child in tree.children(&|_| true) {
                        if self.has_blob(ns, &child.digest)? {
                            size(&child.digest, child.size);
                        } else if child.data.is_none() {
                            part.missing.push(child.digest.clone());
                        }
                    }
                    if !tree.is_attestation() && body.is_image() {
                        part.platforms
                            .extend(tree.platform().map(|p| p.to_string()));
                        if let Some(config) = &body.config {
                            let diff_ids = &config.rootfs.diff_ids;
                            part.unpacked_size = self.unpacked_size(ns, diff_ids)?;
                        }
                    }
                    let layers = &body.manifest.layers;
                    let no_layer = !layers.is_empty()
                        && layers.iter().all(|l| part.missing.contains(&l.digest));
                    match no_layer && part.unpacked_size.is_none() {
                        true => bare.push(part),
                        false => {
                            manifests += 1;
                            facts.add(part);
                        }
                    }
                }
                Body::Missing | Body::Blob => {}
            }
        }
        facts.content_size = content_size;
        if manifests == 0 {
            manifests += bare.len();
            bare.into_iter().for_each(|part| facts.add(part));
        }
        if manifests == 0 {
            facts.missing.push(tree.descriptor.digest.clone());
        }
        Ok(facts)
    }

    /// Bytes of a stack on disk; `None` when it is not unpacked. A stack of no layers takes none.
    pub(crate) fn unpacked_size(
        &self,
        ns: &Namespace,
        diff_ids: &[DiffId],
    ) -> Result<Option<u64>, Failure> {
        let mut bytes = 0;
        for chain in cairn_types::ChainId::stack(diff_ids) {
            let key = SnapshotKey::from(&chain);
            match self.snapshots().stat(ns, &key) {
                Ok(info) => bytes += info.usage.bytes,
                Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
                Err(err) => {
                    return Err(Failure::of("look up snapshot", &err).object("snapshot", key));
                }
            }
        }
        Ok(Some(bytes))
    }

    /// Gives an image one more name. A name that means another image is moved only with `force`.
    pub fn tag(
        &self,
        ns: &Namespace,
        source: &ImageName,
        target: &ImageName,
        force: bool,
    ) -> Result<Tagged, Failure> {
        let key = (ns.clone(), target.clone());
        let from = (ns.clone(), source.clone());
        let now = Timestamp::now();
        let written = self.meta().write(move |tx: &mut Tx| {
            // In here, so that what the source holds goes from the one name's hands to the other's.
            let Some(record) = tx.get(&schema::IMAGES, &from)? else {
                return Ok(None);
            };
            let (tagged, created_at, labels) = match tx.get(&schema::IMAGES, &key)? {
                None => (Tagged::Created, now, record.labels),
                Some(known) if known.target.digest == record.target.digest => {
                    return Ok(Some(Ok((Tagged::Unchanged, known.labels))));
                }
                Some(known) if !force => return Ok(Some(Err(known.target.digest))),
                Some(known) => (Tagged::Moved, known.created_at, known.labels),
            };
            let record = ImageRecord {
                target: record.target,
                labels,
                created_at,
                updated_at: now,
            };
            tx.put(&schema::IMAGES, &key, &record)?;
            Ok::<_, cairn_meta::Error>(Some(Ok((tagged, record.labels))))
        });
        match written {
            Ok(Some(Ok((tagged, labels)))) => {
                let name = target.clone();
                match tagged {
                    Tagged::Created => {
                        self.happened(Event::of(ns, What::ImageCreated { name, labels }));
                    }
                    Tagged::Moved => {
                        self.happened(Event::of(ns, What::ImageUpdated { name, labels }));
                    }
                    Tagged::Unchanged => {}
                }
                Ok(tagged)
            }
            Ok(None) => Err(self.no_such_image(ns, source, "tag image")),
            Ok(Some(Err(digest))) => {
                let reason = format!("the name exists and means {digest}");
                Err(Failure::new(ErrorKind::AlreadyExists, "tag", reason)
                    .object("image", target)
                    .namespace(ns)
                    .next(format!(
                        "cairn images tag --force {} {}",
                        word(source.as_str()),
                        word(target.as_str())
                    )))
            }
            Err(err) => Err(Failure::of("tag", &err)
                .object("image", target)
                .namespace(ns)),
        }
    }

    /// Sets labels (an empty value removes one), or replaces all of them; returns those after.
    pub fn label_image(
        &self,
        ns: &Namespace,
        name: &ImageName,
        labels: Labels,
        replace_all: bool,
    ) -> Result<Labels, Failure> {
        let attempted = "label image";
        for (key, value) in &labels {
            validate_label(key, value).map_err(|err| {
                Failure::of(attempted, &err)
                    .object("image", name)
                    .namespace(ns)
            })?;
        }
        let key = (ns.clone(), name.clone());
        let now = Timestamp::now();
        let written = self.meta().write(move |tx: &mut Tx| {
            let Some(mut record) = tx.get(&schema::IMAGES, &key)? else {
                return Ok(None);
            };
            if replace_all {
                record.labels.clear();
            }
            merge_labels(&mut record.labels, labels);
            record.updated_at = now;
            tx.put(&schema::IMAGES, &key, &record)?;
            Ok::<_, cairn_meta::Error>(Some(record.labels))
        });
        match written {
            Ok(Some(labels)) => {
                let what = What::ImageUpdated {
                    name: name.clone(),
                    labels: labels.clone(),
                };
                self.happened(Event::of(ns, what));
                Ok(labels)
            }
            Ok(None) => Err(self.no_such_image(ns, name, attempted)),
            Err(err) => Err(Failure::of(attempted, &err)
                .object("image", name)
                .namespace(ns)),
        }
    }

    /// Removes a name. When a bundle was made from it, `force` is needed, and the bundle keeps its
    /// files. Blobs and snapshots stay until [`Node::gc`].
    pub fn remove_image(
        &self,
        ns: &Namespace,
        name: &ImageName,
        force: bool,
    ) -> Result<Removed, Failure> {
        let attempted = "remove image";
        self.image_record(ns, name, attempted)?;
        let scan = self.meta().read(|view| view.scan(&schema::BUNDLES, &()));
        let scan = scan.map_err(|err| Failure::of(attempted, &err).object("image", name))?;
        let bundles: Vec<String> = scan
            .into_iter()
            .filter(|(_, bundle)| bundle.namespace == *ns && bundle.image == *name)
            .map(|(dir, _)| dir)
            .collect();
        if !bundles.is_empty() && !force {
            let words = ("was made from it", "were made from it");
            let force = format!("cairn images rm --force {}", word(name.as_str()));
            let failure = held_by_bundles(attempted, &bundles, words).next(force);
            return Err(failure.object("image", name).namespace(ns));
        }
        let key = (ns.clone(), name.clone());
        let written = self.meta().write(move |tx: &mut Tx| {
            let known = tx.get(&schema::IMAGES, &key)?.is_some();
            tx.delete(&schema::IMAGES, &key)?;
            Ok::<_, cairn_meta::Error>(known)
        });
        match written {
            Ok(true) => {
                self.happened(Event::of(ns, What::ImageDeleted { name: name.clone() }));
                Ok(Removed {
                    name: name.clone(),
                    bundles: bundles.into_iter().map(PathBuf::from).collect(),
                })
            }
            Ok(false) => Err(self.no_such_image(ns, name, attempted)),
            Err(err) => Err(Failure::of(attempted, &err)
                .object("image", name)
                .namespace(ns)),
        }
    }

    /// All namespaces that hold anything, by name.
    pub fn namespaces(&self) -> Result<Vec<Namespace>, Failure> {
        let attempted = "list namespaces";
        let read = self.meta().read(|view| {
            let mut all: Vec<Namespace> = Vec::new();
            let recorded = view.scan(&schema::NAMESPACES, &())?;
            all.extend(recorded.into_iter().map(|(ns, _)| ns));
            let images = view.scan(&schema::IMAGES, &())?;
            all.extend(images.into_iter().map(|((ns, _), _)| ns));
            let blobs = view.scan(&schema::BLOB_LINKS, &())?;
            all.extend(blobs.into_iter().map(|((ns, _), _)| ns));
            let snapshots = view.scan(&schema::SNAPSHOTS, &())?;
            all.extend(snapshots.into_iter().map(|((ns, _), _)| ns));
            let leases = view.scan(&schema::LEASES, &())?;
            all.extend(leases.into_iter().map(|((ns, _), _)| ns));
            let containers = view.scan(&schema::CONTAINERS, &())?;
            all.extend(containers.into_iter().map(|((ns, _), _)| ns));
            let ingests = view.scan(&schema::INGESTS, &())?;
            all.extend(ingests.into_iter().map(|((ns, _), _)| ns));
            Ok::<_, cairn_meta::Error>(all)
        });
        let mut all = read.map_err(|err| Failure::of(attempted, &err))?;
        all.sort();
        all.dedup();
        Ok(all)
    }
}

/// What a store has of one image.
#[derive(Default)]
struct Facts {
    platforms: Vec<String>,
    content_size: u64,
    unpacked_size: Option<u64>,
    missing: Vec<Digest>,
}

impl Facts {
    /// Adds what there is of one manifest, each once. Bytes of blobs are counted by whoever sees them all.
    fn add(&mut self, part: Facts) {
        for platform in part.platforms {
            if !self.platforms.contains(&platform) {
                self.platforms.push(platform);
            }
        }
        for digest in part.missing {
            if !self.missing.contains(&digest) {
                self.missing.push(digest);
            }
        }
        if let Some(bytes) = part.unpacked_size {
            *self.unpacked_size.get_or_insert(0) += bytes;
        }
    }
}
