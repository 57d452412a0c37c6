//! Storing what was chosen, in the order in which nothing can be found before it is whole: blobs,
//! documents, snapshots, names.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use cairn_meta::{ImageRecord, Timestamp, Tx, View, schema};
use cairn_types::{
    Classified, Descriptor, Digest, ErrorKind, ImageName, Labels, MediaKind, Namespace,
    SnapshotKey, validate_label,
};

use super::{Imported, Origin, choose::Chosen};
use crate::{
    Caller, Contents, Event, Failure, ImagePart, Node, Progress, References, Resource,
    caller::no_lease,
    claims::Pulse,
    events,
    events::What,
    gc::EXPIRE,
    store::SNAPSHOT_REF,
    unpack::{self, Stack, Work},
    walk::{Body, ManifestBody, Tree, gc_labels},
};

/// How what was chosen is stored.
pub(crate) struct Options {
    /// Makes the snapshots, too.
    pub(crate) unpack: bool,
    /// Takes what is not unpacked also if it never can be.
    pub(crate) unchecked: bool,
    /// Keeps no packed layer of what is unpacked.
    pub(crate) discard: bool,
    /// For the image records.
    pub(crate) labels: Labels,
    /// What a transfer calls them. It brings labels of its own, and all labels that an image had before
    /// are replaced.
    pub(crate) references: Option<References>,
    /// Of the caller. It holds images that expire, and all that is stored or was here already.
    pub(crate) lease: Option<String>,
}

impl Options {
    /// The labels of an image that is called so. An empty one is none, as with containerd.
    fn labels(&self, name: &ImageName, now: jiff::Timestamp) -> Labels {
        let mut labels = self.labels.clone();
        if let Some(references) = &self.references {
            labels.extend(references.labels(name, now));
        }
        labels.retain(|_, value| !value.is_empty());
        labels
    }
}

/// A document to store, with the references it holds.
struct Paper<'a> {
    bytes: &'a [u8],
    labels: Labels,
}

/// What all chosen images consist of.
#[derive(Default)]
struct Parts<'a> {
    papers: HashMap<&'a Digest, Paper<'a>>,
    blobs: Vec<Descriptor>,
    stacks: Vec<Stack>,
}

/// Stores everything; the images, and every digest they need.
pub(crate) fn write(
    node: &Node,
    ns: &Namespace,
    origin: &dyn Origin,
    chosen: Vec<Chosen>,
    options: &Options,
    progress: &dyn Progress,
    stored: &mut Vec<Digest>,
) -> Result<(Vec<Imported>, HashSet<Digest>), Failure> {
    let (kind, name) = origin.object();
    for (key, value) in &options.labels {
        validate_label(key, value)
            .map_err(|err| Failure::of(origin.attempted(), &err).object(kind, name))?;
    }
    let work = Work {
        node,
        ns,
        attempted: origin.of_image(),
        object: ("image", title(origin, &chosen)),
        origin: Some(origin),
        progress,
        pins: origin.pins(),
        missing: Arc::default(),
        pulse: Arc::new(Pulse::new(origin.alike())),
    };
    let chosen = origin.prepare(&work, chosen, stored)?;
    let discarded = match options.unpack && options.discard {
        true => layers(&chosen),
        false => HashSet::new(),
    };
    let parts = gather(&work, origin, &chosen, options, &discarded)?;
    announce(&work, &chosen)?;
    let ready = unpack::make(&work, &parts.stacks, &parts.blobs, stored)?;
    let mut needed: HashSet<Digest> = HashSet::new();
    for image in &chosen {
        let kept = image.kept.iter();
        needed.extend(kept.filter(|digest| !discarded.contains(*digest)).cloned());
    }
    for (digest, paper) in parts.papers {
        if put(&work, digest, paper)? {
            stored.push(digest.clone());
        }
    }
    if discarded.is_empty() {
        ready.commit(&work)?;
    } else {
        ready.commit_synced(&work)?;
        // Those that were here before, or are others'.
        let flushed = node.snapshots().flush();
        flushed.map_err(|err| work.unwritten("the unpacked layers", &err))?;
    }
    let tops = parts.stacks.iter().filter_map(|stack| stack.chains().pop());
    let tops = tops.map(|top| Resource::Snapshot(SnapshotKey::from(&top)));
    let handed_out = needed.iter().cloned().map(Resource::Content).chain(tops);
    let imported = record(&work, &chosen, options, handed_out.collect())?;
    Ok((imported, needed))
}

/// How messages name what comes in.
fn title(origin: &dyn Origin, chosen: &[Chosen]) -> String {
    match chosen {
        [Chosen { names, .. }] if !names.is_empty() => names[0].to_string(),
        _ => origin.object().1.to_owned(),
    }
}

/// The manifests of a tree that are unpacked.
fn picked(image: &Chosen) -> impl Iterator<Item = (&Tree, &ManifestBody)> {
    let all = image.tree.manifests().into_iter();
    all.filter_map(|tree| match &tree.body {
        Body::Manifest(body) if image.images.contains(&tree.descriptor.digest) => {
            Some((tree, &**body))
        }
        _ => None,
    })
}

/// The layers of what is unpacked.
fn layers(chosen: &[Chosen]) -> HashSet<Digest> {
    let images = chosen.iter().flat_map(picked);
    let images = images.filter(|(_, body)| body.is_image());
    let layers = images.flat_map(|(_, body)| &body.manifest.layers);
    layers.map(|layer| layer.digest.clone()).collect()
}

fn announce(work: &Work<'_>, chosen: &[Chosen]) -> Result<(), Failure> {
    for image in chosen {
        let name = image.names.first();
        let name = name.map_or_else(String::new, ToString::to_string);
        if work.progress.wants_contents() {
            list(work, image, name.clone())?;
        }
        for (tree, body) in picked(image) {
            let layers = body.manifest.layers.iter();
            work.progress.event(Event::Resolved {
                name: name.clone(),
                platform: tree.platform().map(|p| p.to_string()).unwrap_or_default(),
                layers: layers.map(|l| (l.digest.clone(), l.size)).collect(),
            });
        }
    }
    Ok(())
}

/// Tells what an image consists of. Of its documents the bytes have come, or there would be nothing to tell.
fn list(work: &Work<'_>, image: &Chosen, name: String) -> Result<(), Failure> {
    let parts = image.tree.parts(&|digest| image.kept.contains(digest));
    let contents = Contents { name, parts };
    work.progress.contents(&contents);
    for ImagePart { descriptor, .. } in &contents.parts {
        let kind = MediaKind::of(&descriptor.media_type);
        if let MediaKind::Index | MediaKind::Manifest | MediaKind::Config = kind {
            let here = work.node.has_blob(work.ns, &descriptor.digest)?;
            work.progress.document(&descriptor.digest, here);
        }
    }
    Ok(())
}

fn gather<'a>(
    work: &Work<'_>,
    origin: &dyn Origin,
    chosen: &'a [Chosen],
    options: &Options,
    discarded: &HashSet<Digest>,
) -> Result<Parts<'a>, Failure> {
    let mut parts = Parts::default();
    let unpack = options.unpack;
    for image in chosen {
        papers(origin, &image.tree, (&image.kept, discarded), &mut parts)?;
        for (tree, body) in picked(image).filter(|(_, body)| body.is_image()) {
            // Also without unpacking: a configuration that contradicts its manifest is refused
            // now, while somebody can still fetch it again.
            let stack = match Stack::of(work, tree, body) {
                Ok(stack) => stack,
                Err(_) if !unpack && (options.unchecked || body.layer_types().is_err()) => continue,
                Err(failure) => return Err(failure),
            };
            if !unpack {
                continue;
            }
            if let Some(chain) = stack.chains().pop() {
                let config = &body.manifest.config.digest;
                if let Some(paper) = parts.papers.get_mut(config) {
                    paper
                        .labels
                        .insert(SNAPSHOT_REF.to_owned(), chain.to_string());
                }
            }
            parts.stacks.push(stack);
        }
    }
    // A blob that is also a document is stored as the document, with what it refers to.
    let Parts { papers, blobs, .. } = &mut parts;
    blobs.retain(|blob| !papers.contains_key(&blob.digest));
    Ok(parts)
}

/// Collects the documents of a tree that are kept, and the blobs they refer to.
fn papers<'a>(
    origin: &dyn Origin,
    tree: &'a Tree,
    (kept, discarded): (&HashSet<Digest>, &HashSet<Digest>),
    parts: &mut Parts<'a>,
) -> Result<(), Failure> {
    if !kept.contains(&tree.descriptor.digest) {
        return Ok(());
    }
    // Of a platform that nobody wanted the layers are not: an archive that came as a stream would leave
    // them here, held by a manifest that is.
    let mut held = tree.children(&|_| true);
    held.retain(|child| kept.contains(&child.digest) && !discarded.contains(&child.digest));
    let labels = gc_labels(&held);
    let mut paper = |digest: &'a Digest, bytes: &'a [u8], labels: Labels| {
        let paper = parts.papers.entry(digest).or_insert(Paper {
            bytes,
            labels: Labels::new(),
        });
        paper.labels.extend(labels);
    };
    match &tree.body {
        Body::Missing => {}
        Body::Blob => parts.blobs.push(tree.descriptor.clone()),
        Body::Index(children) => {
            paper(&tree.descriptor.digest, &tree.bytes, labels);
            for child in children {
                papers(origin, child, (kept, discarded), parts)?;
            }
        }
        Body::Manifest(body) => {
            paper(&tree.descriptor.digest, &tree.bytes, labels);
            let config = &body.manifest.config;
            if let Some(bytes) = &body.config_bytes {
                paper(&config.digest, bytes, Labels::new());
            }
            let wanted = |child: &&Descriptor| kept.contains(&child.digest);
            for child in tree.children(&|_| true).into_iter().filter(wanted) {
                if origin.has(&child.digest)? || origin.has_stored(&child.digest) {
                    parts.blobs.push(child.clone());
                }
            }
        }
    }
    Ok(())
}

/// Stores a document; whether it is new.
fn put(work: &Work<'_>, digest: &Digest, paper: Paper<'_>) -> Result<bool, Failure> {
    let content = work.node.content();
    work.pins.blob(work.ns, digest);
    let labels = paper.labels.clone();
    match content.put(work.ns, paper.bytes, Some(digest), labels) {
        Ok(_) => Ok(true),
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {
            work.node.add_labels(work.ns, digest, paper.labels)?;
            Ok(false)
        }
        Err(err) => Err(work.unwritten(&format!("document {digest}"), &err)),
    }
}

/// Names everything, all at once and with all labels: an image that was to go with another would stay for
/// ever if it were named first, and whoever names both were killed. What is handed out the caller's lease
/// holds from then on, since others may take the names away before he comes to use it.
fn record(
    work: &Work<'_>,
    chosen: &[Chosen],
    options: &Options,
    handed_out: Vec<Resource>,
) -> Result<Vec<Imported>, Failure> {
    let now = Timestamp::now();
    let begun = jiff::Timestamp::now();
    let mut records: Vec<(ImageName, Descriptor, Labels)> = Vec::new();
    let mut imported: Vec<Imported> = Vec::new();
    for image in chosen {
        let facts = facts(work, image, options.unpack)?;
        for name in &image.names {
            records.retain(|(known, ..)| known != name);
            imported.retain(|known| known.name != *name);
            let mut target = image.tree.descriptor.clone();
            target.platform = None;
            records.push((name.clone(), target, options.labels(name, begun)));
            imported.push(Imported {
                name: name.clone(),
                ..facts.clone()
            });
        }
    }
    let caller = Caller {
        ns: work.ns.clone(),
        lease: options.lease.clone(),
    };
    let (replace, holder) = (options.references.is_some(), caller.clone());
    let written = work.node.meta().write(move |tx: &mut Tx| {
        // First, since it fails for all of them or for none, and nothing is to be written then.
        for (name, _, labels) in &records {
            let expires = labels.contains_key(EXPIRE);
            if expires && !holder.hold_in(tx, &Resource::Image(name.clone()))? {
                return Ok(None);
            }
        }
        for resource in &handed_out {
            // A lease that is not there holds nothing, and is not missed.
            if !holder.hold_in(tx, resource)? {
                break;
            }
        }
        let told = records.into_iter().map(|(name, target, labels)| {
            let record = ImageRecord {
                target,
                labels,
                created_at: now,
                updated_at: now,
            };
            record_one(tx, (holder.ns.clone(), name), record, replace)
        });
        told.collect::<Result<Vec<What>, cairn_meta::Error>>()
            .map(Some)
    });
    let written = written.map_err(|err| work.unwritten("the image's record", &err))?;
    let lease = caller.lease.as_deref().unwrap_or_default();
    for what in written.ok_or_else(|| no_lease(&caller, lease))? {
        work.node.happened(events::Event::of(work.ns, what));
    }
    Ok(imported)
}

/// Names one, as of `record` unless it is there: then it keeps when it came, and its labels where there
/// are no others and they are not to be `replace`d.
fn record_one(
    tx: &mut Tx<'_>,
    key: (Namespace, ImageName),
    mut record: ImageRecord,
    replace: bool,
) -> Result<What, cairn_meta::Error> {
    let known = match tx.get(&schema::IMAGES, &key) {
        // A damaged one is made anew.
        Err(cairn_meta::Error::Corrupt { .. }) => None,
        known => known?,
    };
    let is_new = known.is_none();
    if let Some(known) = known {
        record.created_at = known.created_at;
        if !replace && record.labels.is_empty() {
            record.labels = known.labels;
        }
    }
    tx.put(&schema::IMAGES, &key, &record)?;
    let (name, labels) = (key.1, record.labels);
    Ok(match is_new {
        true => What::ImageCreated { name, labels },
        false => What::ImageUpdated { name, labels },
    })
}

/// Bytes of them all. A manifest may say anything of its blobs before they come.
pub(crate) fn total_size<'d>(descriptors: impl Iterator<Item = &'d Descriptor>) -> u64 {
    descriptors.fold(0, |sum, one| sum.saturating_add(one.size))
}

/// What is told of an image, whatever its name.
fn facts(work: &Work<'_>, image: &Chosen, unpack: bool) -> Result<Imported, Failure> {
    let everything = image.tree.everything().into_iter();
    let content_size = total_size(everything.filter(|one| image.kept.contains(&one.digest)));
    let mut platform = None;
    let mut unpacked_size = None;
    for (tree, body) in picked(image) {
        platform = platform.or_else(|| tree.platform());
        if unpack && body.is_image() {
            let config = body.config.as_ref();
            let diff_ids = config.map_or(&[][..], |c| &c.rootfs.diff_ids);
            let size = work.node.unpacked_size(work.ns, diff_ids)?;
            unpacked_size = Some(unpacked_size.unwrap_or(0) + size.unwrap_or(0));
        }
    }
    let anything = ImageName::parse("-").map_err(|err| Failure::of(work.attempted, &err))?;
    Ok(Imported {
        name: image.names.first().cloned().unwrap_or(anything),
        target: image.tree.descriptor.clone(),
        platform,
        content_size,
        unpacked_size,
    })
}
