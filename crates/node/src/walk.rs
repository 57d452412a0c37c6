//! An image as a tree of documents, from wherever its blobs can be read.
//!
//! Import walks an archive, everything else walks the store; both must see the same tree, choose
//! the same manifest for a platform, and write the same references for the garbage collector.

use std::collections::{HashMap, HashSet};

use cairn_types::{
    Descriptor, Digest, ImageConfig, Labels, LayerType, Manifest, MediaKind, Platform,
    PlatformMatcher,
};

use crate::{
    documents::{self, Document, DocumentError},
    failure::size,
    progress::ImagePart,
};

/// Deepest nesting of indexes.
const DEPTH_MAX: usize = 8;
/// Most documents of one image.
const NODES_MAX: usize = 10_000;
/// Most bytes of all documents of one image, which are in memory together. One that is listed twice counts
/// twice: what is made of it is there twice.
const BYTES_MAX: u64 = 64 << 20;
/// Most blobs that one manifest may list, whatever they are: each is work for somebody.
const BLOBS_MAX: usize = 10_000;
/// Most layers of one image that we unpack: the kernel takes 500 lower directories, and one more
/// commit must still fit.
pub(crate) const LAYERS_MAX: usize = 499;
/// Annotation of an index's entry: the digest of the manifest that it is about (BuildKit).
pub(crate) const ABOUT: &str = "vnd.docker.reference.digest";

/// Where small blobs are read.
pub(crate) trait Blobs {
    /// What reading may fail with.
    type Error;
    /// The verified bytes; `None` when the blob is not there. At most
    /// [`documents::DOCUMENT_BYTES_MAX`] are wanted.
    fn document(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Self::Error>;
    /// Turns a refusal into the error.
    fn refuse(&self, descriptor: &Descriptor, reason: DocumentError) -> Self::Error;
    /// Turns a limit into the error.
    fn too_many(&self, descriptor: &Descriptor, reason: String) -> Self::Error;
}

/// One document and what hangs below it.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// How it is referred to; its media type is filled in when the reference had none.
    pub(crate) descriptor: Descriptor,
    /// As stored; empty when it is missing or a blob.
    pub(crate) bytes: Vec<u8>,
    /// What it is.
    pub(crate) body: Body,
}

/// What a node of the tree is.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// Should be a document, and is not there.
    Missing,
    /// Lists these.
    Index(Vec<Tree>),
    /// An image or artifact.
    Manifest(Box<ManifestBody>),
    /// Neither index nor manifest by its media type: a blob listed by an index.
    Blob,
}

/// A manifest with its configuration.
#[derive(Clone, Debug)]
pub(crate) struct ManifestBody {
    /// Parsed.
    pub(crate) manifest: Manifest,
    /// The configuration as stored; `None` when it is missing or no JSON we need.
    pub(crate) config_bytes: Option<Vec<u8>>,
    /// Parsed, when it is an image's.
    pub(crate) config: Option<ImageConfig>,
}

impl ManifestBody {
    /// Whether its configuration is an image's by type; otherwise it is an artifact.
    pub(crate) fn is_image(&self) -> bool {
        MediaKind::of(&self.manifest.config.media_type) == MediaKind::Config
            && self.manifest.artifact_type.is_none()
    }

    /// Layers with their types, or the number (from 1) and media type of the first unknown one.
    pub(crate) fn layer_types(&self) -> Result<Vec<LayerType>, (usize, String)> {
        let layers = self.manifest.layers.iter().enumerate();
        layers
            .map(|(i, layer)| {
                LayerType::parse(&layer.media_type).ok_or_else(|| (i + 1, layer.media_type.clone()))
            })
            .collect()
    }
}

/// A tree that is being read.
struct Walk<'b, B> {
    blobs: &'b B,
    above: Vec<Digest>,
    nodes: usize,
    bytes: u64,
    /// Bytes that all documents and blobs are said to have, so that whoever adds them up may.
    sizes: u64,
}

impl<B: Blobs> Walk<'_, B> {
    fn node(&mut self, descriptor: &Descriptor) -> Result<Tree, B::Error> {
        let blobs = self.blobs;
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let reason = format!("it has more than {NODES_MAX} documents");
            return Err(blobs.too_many(descriptor, reason));
        }
        if self.above.len() >= DEPTH_MAX || self.above.contains(&descriptor.digest) {
            let reason = format!("indexes are nested deeper than {DEPTH_MAX}");
            return Err(blobs.too_many(descriptor, reason));
        }
        self.count(descriptor)?;
        let mut tree = Tree {
            descriptor: descriptor.clone(),
            bytes: Vec::new(),
            body: Body::Blob,
        };
        match MediaKind::of(&descriptor.media_type) {
            MediaKind::Schema1 => {
                return Err(blobs.refuse(descriptor, DocumentError::Schema1));
            }
            MediaKind::Index | MediaKind::Manifest => {}
            _ if descriptor.media_type.is_empty() => {}
            _ => return Ok(tree),
        }
        let Some(bytes) = self.blob(descriptor)? else {
            tree.body = Body::Missing;
            return Ok(tree);
        };
        let document = documents::document(&bytes, &descriptor.media_type)
            .map_err(|reason| blobs.refuse(descriptor, reason))?;
        tree.descriptor.media_type = match &descriptor.media_type {
            empty if empty.is_empty() => document.media_type().to_owned(),
            given => given.clone(),
        };
        tree.bytes = bytes;
        self.above.push(descriptor.digest.clone());
        tree.body = match document {
            Document::Index(index) => {
                let children = index.manifests.iter().map(|child| self.node(child));
                Body::Index(children.collect::<Result<_, _>>()?)
            }
            Document::Manifest(manifest) => {
                let count = manifest.layers.len();
                if count > BLOBS_MAX {
                    let reason =
                        format!("a manifest of it lists {count} blobs, more than {BLOBS_MAX}");
                    return Err(self.blobs.too_many(descriptor, reason));
                }
                Body::Manifest(Box::new(self.with_config(*manifest)?))
            }
        };
        self.above.pop();
        Ok(tree)
    }

    fn with_config(&mut self, manifest: Manifest) -> Result<ManifestBody, B::Error> {
        let mut body = ManifestBody {
            manifest,
            config_bytes: None,
            config: None,
        };
        for layer in &body.manifest.layers {
            self.count(layer)?;
        }
        let descriptor = &body.manifest.config;
        self.count(descriptor)?;
        if MediaKind::of(&descriptor.media_type) == MediaKind::Config {
            body.config_bytes = self.blob(descriptor)?;
        }
        if let Some(bytes) = body.config_bytes.as_ref().filter(|_| body.is_image()) {
            let parsed = documents::config(bytes);
            body.config = Some(parsed.map_err(|reason| self.blobs.refuse(descriptor, reason))?);
        }
        Ok(body)
    }

    fn count(&mut self, descriptor: &Descriptor) -> Result<(), B::Error> {
        let sizes = self.sizes.checked_add(descriptor.size);
        self.sizes = sizes.ok_or_else(|| self.blobs.refuse(descriptor, DocumentError::Sizes))?;
        Ok(())
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, B::Error> {
        let blobs = self.blobs;
        if descriptor.size > documents::DOCUMENT_BYTES_MAX {
            return Err(blobs.refuse(descriptor, DocumentError::Long(descriptor.size)));
        }
        let embedded = documents::embedded(descriptor);
        let bytes = match embedded.map_err(|reason| blobs.refuse(descriptor, reason))? {
            Some(bytes) => Some(bytes),
            None => blobs.document(descriptor)?,
        };
        // What came, and not what was promised: a descriptor may say anything.
        self.bytes += bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.bytes > BYTES_MAX {
            let most = size(BYTES_MAX);
            let reason = format!("its documents have more than {most} together");
            return Err(blobs.too_many(descriptor, reason));
        }
        Ok(bytes)
    }
}

impl Tree {
    /// Reads everything below `target`.
    pub(crate) fn read<B: Blobs>(blobs: &B, target: &Descriptor) -> Result<Tree, B::Error> {
        let mut walk = Walk {
            blobs,
            above: Vec::new(),
            nodes: 0,
            bytes: 0,
            sizes: 0,
        };
        walk.node(target)
    }

    /// The platform: the reference's, or the configuration's.
    pub(crate) fn platform(&self) -> Option<Platform> {
        if let Some(platform) = &self.descriptor.platform {
            return Some(platform.clone().normalized());
        }
        let Body::Manifest(body) = &self.body else {
            return None;
        };
        let platform = body.config.as_ref()?.platform();
        (!platform.os.is_empty()).then(|| platform.normalized())
    }

    /// Whether it is for what the matcher wants; one that says no platform is for any.
    pub(crate) fn is_for(&self, matcher: &PlatformMatcher) -> bool {
        let own = self.platform();
        own.is_none_or(|own| matcher.rank(&own).is_some())
    }

    /// Whether this is a manifest about another one, kept and never picked.
    pub(crate) fn is_attestation(&self) -> bool {
        let unknown = self
            .descriptor
            .platform
            .as_ref()
            .is_some_and(Platform::is_unknown);
        unknown || self.descriptor.annotations.contains_key(ABOUT)
    }

    /// The manifest that this one is about, if it is an attestation that names one.
    pub(crate) fn about(&self) -> Option<Digest> {
        let text = self.descriptor.annotations.get(ABOUT)?;
        Digest::parse(text).ok()
    }

    /// All manifests, indexes opened, in order.
    pub(crate) fn manifests(&self) -> Vec<&Tree> {
        match &self.body {
            Body::Index(children) => children.iter().flat_map(Tree::manifests).collect(),
            Body::Blob => Vec::new(),
            Body::Manifest(_) => vec![self],
            Body::Missing => match MediaKind::of(&self.descriptor.media_type) {
                MediaKind::Index => Vec::new(),
                _ => vec![self],
            },
        }
    }

    /// Blobs that indexes list beside manifests, in order: the parts of a container's checkpoint.
    pub(crate) fn leaves(&self) -> Vec<&Descriptor> {
        match &self.body {
            Body::Index(children) => children.iter().flat_map(Tree::leaves).collect(),
            Body::Blob => vec![&self.descriptor],
            Body::Manifest(_) | Body::Missing => Vec::new(),
        }
    }

    /// Manifests of images, in order.
    pub(crate) fn images(&self) -> impl Iterator<Item = &Tree> {
        self.manifests()
            .into_iter()
            .filter(|tree| !tree.is_attestation())
            .filter(|tree| match &tree.body {
                Body::Manifest(body) => body.is_image(),
                _ => tree.descriptor.artifact_type.is_none(),
            })
    }

    /// The manifest for a platform: one that is no index's entry is taken as it is; of an index's
    /// entries the best match, the first of equals, those without any platform last.
    pub(crate) fn pick(&self, matcher: &PlatformMatcher) -> Option<&Tree> {
        if let Body::Manifest(_) = self.body {
            return Some(self);
        }
        let ranked = self.images().filter_map(|tree| match tree.platform() {
            Some(platform) => Some((matcher.rank(&platform)?, tree)),
            None => Some((usize::MAX, tree)),
        });
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, tree)| tree)
    }

    /// Platforms of its images, in order, each once.
    pub(crate) fn platforms(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        self.images()
            .filter_map(|tree| tree.platform().map(|p| p.to_string()))
            .filter(|text| seen.insert(text.clone()))
            .collect()
    }

    /// What it refers to directly, those of `kept` only when it is an index.
    pub(crate) fn children(&self, kept: &dyn Fn(&Digest) -> bool) -> Vec<&Descriptor> {
        match &self.body {
            Body::Index(children) => children
                .iter()
                .map(|child| &child.descriptor)
                .filter(|child| kept(&child.digest))
                .collect(),
            Body::Manifest(body) => std::iter::once(&body.manifest.config)
                .chain(&body.manifest.layers)
                .collect(),
            Body::Missing | Body::Blob => Vec::new(),
        }
    }

    /// Every document and blob in the tree, each once, documents before what they refer to.
    pub(crate) fn everything(&self) -> Vec<&Descriptor> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        self.collect(&mut |descriptor| {
            if seen.insert(&descriptor.digest) {
                all.push(descriptor);
            }
        });
        all
    }

    /// What of it is kept, and which documents refer to it: each once, documents before what they refer to.
    pub(crate) fn parts(&self, kept: &dyn Fn(&Digest) -> bool) -> Vec<ImagePart> {
        let mut parts = Vec::new();
        self.list(None, kept, &mut parts, &mut HashMap::new());
        parts
    }

    fn list<'t>(
        &'t self,
        parent: Option<&Digest>,
        kept: &dyn Fn(&Digest) -> bool,
        parts: &mut Vec<ImagePart>,
        places: &mut HashMap<&'t Digest, usize>,
    ) {
        let own = &self.descriptor;
        if !kept(&own.digest) {
            return;
        }
        if !list(own, parent, parts, places) {
            return;
        }
        match &self.body {
            Body::Index(children) => {
                for child in children {
                    child.list(Some(&own.digest), kept, parts, places);
                }
            }
            Body::Manifest(_) => {
                for child in self.children(&|_| true) {
                    if kept(&child.digest) {
                        list(child, Some(&own.digest), parts, places);
                    }
                }
            }
            Body::Missing | Body::Blob => {}
        }
    }

    fn collect<'t>(&'t self, visit: &mut impl FnMut(&'t Descriptor)) {
        visit(&self.descriptor);
        match &self.body {
            Body::Index(children) => children.iter().for_each(|child| child.collect(visit)),
            Body::Manifest(_) => self.children(&|_| true).into_iter().for_each(visit),
            Body::Missing | Body::Blob => {}
        }
    }
}

/// Documents that refer to one thing, of which is told. More say nothing to whoever looks.
const PARENTS_MAX: usize = 8;

/// Adds something that is kept; whether it is new.
fn list<'t>(
    descriptor: &'t Descriptor,
    parent: Option<&Digest>,
    parts: &mut Vec<ImagePart>,
    places: &mut HashMap<&'t Digest, usize>,
) -> bool {
    let place = *places.entry(&descriptor.digest).or_insert(parts.len());
    let is_new = place == parts.len();
    if is_new {
        parts.push(ImagePart {
            descriptor: descriptor.clone(),
            parents: Vec::new(),
        });
    }
    let parents = &mut parts[place].parents;
    if parents.len() < PARENTS_MAX {
        parents.extend(parent.filter(|parent| !parents.contains(parent)).cloned());
    }
    is_new
}

/// The labels by which containerd's garbage collector finds what a blob refers to
/// (`core/images/mediatypes.go: ChildGCLabels`, `handlers.go: SetChildrenMappedLabels`).
pub(crate) fn gc_labels(children: &[&Descriptor]) -> Labels {
    const PREFIX: &str = "containerd.io/gc.ref.content.";
    let mut labels = Labels::new();
    let (mut manifests, mut layers, mut others, mut configs) = (0, 0, 0, 0);
    for child in children {
        let counted = |word: &str, count: &mut usize| {
            let key = format!("{PREFIX}{word}{count}");
            *count += 1;
            key
        };
        let key = match MediaKind::of(&child.media_type) {
            MediaKind::Manifest => counted("m.", &mut manifests),
            MediaKind::Layer(_) => counted("l.", &mut layers),
            MediaKind::Config if configs == 0 => {
                configs += 1;
                format!("{PREFIX}config")
            }
            MediaKind::Config => counted("config", &mut configs),
            // An index has no word of its own there.
            MediaKind::Index | MediaKind::Schema1 | MediaKind::Other => counted("", &mut others),
        };
        labels.insert(key, child.digest.to_string());
    }
    labels
}

#[cfg(test)]
mod tests {
    use cairn_types::media;

    use super::*;

    /// The keys are those that containerd 2.1.9 gave the same children.
    #[test]
    fn each_kind_is_counted_under_its_own_word() {
        let children = [
            (media::OCI_MANIFEST, "m.0"),
            (media::OCI_INDEX, "0"),
            (media::OCI_CONFIG, "config"),
            (media::OCI_LAYER_GZIP, "l.0"),
            (media::DOCKER_MANIFEST, "m.1"),
            (media::DOCKER_LIST, "1"),
            (media::OCI_LAYER, "l.1"),
        ];
        let of = |kind: &str| Descriptor::new(kind, Digest::sha256(kind.as_bytes()), 1);
        let descriptors = children.map(|(kind, _)| of(kind));
        let labels = gc_labels(&descriptors.iter().collect::<Vec<_>>());
        let expected = children.iter().zip(&descriptors).map(|((_, key), child)| {
            let key = format!("containerd.io/gc.ref.content.{key}");
            (key, child.digest.to_string())
        });
        assert_eq!(labels, expected.collect::<Labels>());
    }
}
