//! Images: whether what they lead to is here, and who needs what.

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
};

use cairn_meta::{Error, ImageRecord, View, schema};
use cairn_types::{
    ChainId, Classified, Compression, Descriptor, DiffId, Digest, ErrorKind, ImageName, LayerType,
    Namespace, SnapshotKey,
};

use super::{Check, Finding, Severity, few, records::Records};
use crate::{
    Failure, Node,
    documents::{DOCUMENT_BYTES_MAX, DocumentError},
    intake::is_foreign,
    objects::word,
    walk::{Blobs, Body, ManifestBody, Tree},
};

/// Which images need a thing.
#[derive(Default)]
pub(super) struct Needed {
    images: Vec<(Namespace, ImageName, Descriptor)>,
    blobs: HashMap<Digest, Vec<usize>>,
    layers: HashMap<SnapshotKey, Vec<usize>>,
    /// What the layers are packed in.
    packed: HashMap<SnapshotKey, Digest>,
    /// Layers of images, and whether all of those call it a plain tar.
    plain: HashMap<Digest, bool>,
    /// Documents that could not be read.
    pub(super) suspects: HashSet<Digest>,
}

/// The documents of a namespace, of which those that cannot be read are noted.
struct Read<'a> {
    node: &'a Node,
    ns: &'a Namespace,
    suspects: RefCell<HashSet<Digest>>,
}

impl Blobs for Read<'_> {
    type Error = Failure;

    fn document(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Failure> {
        let content = self.node.content();
        match content.read_all(self.ns, &descriptor.digest, DOCUMENT_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => {
                tracing::debug!("read {}: {err}", descriptor.digest);
                let mut suspects = self.suspects.borrow_mut();
                suspects.insert(descriptor.digest.clone());
                Ok(None)
            }
        }
    }

    fn refuse(&self, descriptor: &Descriptor, reason: DocumentError) -> Failure {
        let text = format!("document {} is refused: {reason}", descriptor.digest);
        Failure::new(ErrorKind::InvalidArgument, super::ATTEMPTED, text)
    }

    fn too_many(&self, _: &Descriptor, reason: String) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, super::ATTEMPTED, reason)
    }
}

impl Needed {
    /// An image of the namespace that has this layer, if there is one.
    pub(super) fn target(
        &self,
        (ns, key): &(Namespace, SnapshotKey),
    ) -> Option<(Namespace, Descriptor)> {
        let mut images = self
            .layers
            .get(key)?
            .iter()
            .map(|image| &self.images[*image]);
        let (ns, _, target) = images.find(|(of, ..)| of == ns)?;
        Some((ns.clone(), target.clone()))
    }

    /// What a layer is packed in, if an image has it.
    pub(super) fn packed(&self, key: &SnapshotKey) -> Option<&Digest> {
        self.packed.get(key)
    }

    /// How the layer is packed that unpacks to this. What manifests say is no proof: any image may call
    /// another's layer what it likes. A plain tar is what it unpacks to, so that their names are the
    /// same; the first bytes of all else tell.
    pub(super) fn layer_type(&self, layer: &Digest, diff_id: &DiffId) -> LayerType {
        let diff_id = diff_id.digest();
        let always_plain = match diff_id.algorithm() == layer.algorithm() {
            true => diff_id == layer,
            false => self.plain.get(layer) == Some(&true),
        };
        LayerType {
            compression: Compression::Gzip,
            always_plain,
            foreign: false,
        }
    }
}

impl Check<'_> {
    /// Every image: its documents, and whether what a manifest here refers to is here.
    pub(super) fn images(&mut self, records: &Records) -> Result<(), Failure> {
        for ((ns, name), record) in &records.images {
            self.go_on()?;
            let blobs = Read {
                node: self.node,
                ns,
                suspects: RefCell::default(),
            };
            let tree = match Tree::read(&blobs, &record.target) {
                Ok(tree) => tree,
                Err(failure) => {
                    // Its bytes are those that somebody stored under this name.
                    let kind = "image-document";
                    let detail = failure.reason.clone();
                    let finding = Finding::new(Severity::Note, kind, "image", name, detail);
                    self.found(finding.within(ns).meaning("it cannot be unpacked"));
                    continue;
                }
            };
            self.needed.suspects.extend(blobs.suspects.into_inner());
            self.needs(ns, name, &tree);
            self.image((ns, name), record, &tree)?;
        }
        Ok(())
    }

    fn needs(&mut self, ns: &Namespace, name: &ImageName, tree: &Tree) {
        let needed = &mut self.needed;
        let image = needed.images.len();
        let image_of = (ns.clone(), name.clone(), tree.descriptor.clone());
        needed.images.push(image_of);
        for blob in tree.everything() {
            needed
                .blobs
                .entry(blob.digest.clone())
                .or_default()
                .push(image);
        }
        for manifest in tree.images() {
            let Body::Manifest(body) = &manifest.body else {
                continue;
            };
            for layer in &body.manifest.layers {
                if let Some(known) = LayerType::parse(&layer.media_type) {
                    let all = needed.plain.entry(layer.digest.clone()).or_insert(true);
                    *all &= known.always_plain;
                }
            }
            let packed = body.manifest.layers.iter().map(|layer| &layer.digest);
            for (key, blob) in layers(body).into_iter().zip(packed) {
                needed.packed.insert(key.clone(), blob.clone());
                needed.layers.entry(key).or_default().push(image);
            }
        }
    }

    fn image(
        &mut self,
        (ns, name): (&Namespace, &ImageName),
        record: &ImageRecord,
        tree: &Tree,
    ) -> Result<(), Failure> {
        let mut missing = Vec::new();
        if !self.is_here(ns, &record.target.digest)? {
            missing.push((record.target.digest.clone(), "what it names"));
        }
        for manifest in tree.manifests() {
            let Body::Manifest(body) = &manifest.body else {
                continue;
            };
            missing.extend(self.missing(ns, body)?);
        }
        if missing.is_empty() {
            return Ok(());
        }
        // It may have been removed, or moved, and its blobs collected.
        let key = (ns.clone(), name.clone());
        let look = |view: &cairn_meta::Reader<'_>| {
            let own = view.get(&schema::IMAGES, &key)?;
            if own.is_none_or(|own| own.target.digest != record.target.digest) {
                return Ok(Vec::new());
            }
            let mut still = Vec::new();
            for (digest, what) in &missing {
                let link = view.get(&schema::BLOB_LINKS, &(ns.clone(), digest.clone()));
                if matches!(link, Ok(None)) {
                    still.push((digest.clone(), *what));
                }
            }
            Ok::<_, Error>(still)
        };
        let still = self
            .node
            .meta()
            .read(look)
            .map_err(|err| self.failed(&err))?;
        for (digest, what) in still {
            let detail = format!("{what}, {digest}, is missing");
            let finding = Finding::new(Severity::Loss, "image-part", "image", name, detail)
                .within(ns)
                .meaning("it cannot be unpacked or sent")
                .next(format!(
                    "cairn{} images pull {}",
                    flag(ns),
                    word(name.as_str())
                ))
                .next("import it again");
            self.found(finding);
        }
        Ok(())
    }

    /// What of a manifest that is here is not. Manifests of which no layer is here came as metadata, and
    /// what is unpacked may have been brought without its packed layers.
    fn missing(
        &self,
        ns: &Namespace,
        body: &ManifestBody,
    ) -> Result<Vec<(Digest, &'static str)>, Failure> {
        let mut missing = Vec::new();
        let config = &body.manifest.config;
        let no_config = config.data.is_none() && !self.is_here(ns, &config.digest)?;
        let layers = body.manifest.layers.iter();
        let layers: Vec<&Descriptor> = layers
            .filter(|layer| layer.data.is_none() && !is_foreign(layer))
            .collect();
        let mut lacks = Vec::new();
        for layer in &layers {
            if !self.is_here(ns, &layer.digest)? {
                lacks.push(layer.digest.clone());
            }
        }
        let none = !layers.is_empty() && lacks.len() == layers.len();
        if no_config && !none {
            missing.push((config.digest.clone(), "its configuration"));
        }
        if !lacks.is_empty() && !none && !self.is_unpacked(ns, body)? {
            missing.extend(lacks.into_iter().map(|digest| (digest, "a layer of it")));
        }
        Ok(missing)
    }

    fn is_here(&self, ns: &Namespace, digest: &Digest) -> Result<bool, Failure> {
        match self.node.content().exists(ns, digest) {
            Ok(here) => Ok(here),
            // Its record is damaged, and told of as such.
            Err(err) if err.kind() == ErrorKind::DataLoss => Ok(true),
            Err(err) => Err(self.failed(&err)),
        }
    }

    fn is_unpacked(&self, ns: &Namespace, body: &ManifestBody) -> Result<bool, Failure> {
        match layers(body).last() {
            None => Ok(false),
            Some(top) => match self.node.snapshots().stat(ns, top) {
                Ok(_) => Ok(true),
                Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
                Err(err) if err.kind() == ErrorKind::DataLoss => Ok(true),
                Err(err) => Err(self.failed(&err)),
            },
        }
    }

    /// What damage to a blob means, and what helps.
    pub(super) fn about_blob(&self, finding: Finding, digest: &Digest) -> Finding {
        self.about(finding, self.needed.blobs.get(digest))
    }

    /// The same of an unpacked layer.
    pub(super) fn about_layer(&self, finding: Finding, key: &SnapshotKey) -> Finding {
        self.about(finding, self.needed.layers.get(key))
    }

    fn about(&self, finding: Finding, images: Option<&Vec<usize>>) -> Finding {
        let images = images.map(Vec::as_slice).unwrap_or_default();
        let Some((ns, name, _)) = images.first().map(|first| &self.needed.images[*first]) else {
            return finding
                .meaning("no image here needs it")
                .next("store it again, or remove what needs it");
        };
        let names = images
            .iter()
            .map(|image| self.needed.images[*image].1.as_str());
        finding
            .meaning(format!("needed by {}", few(names)))
            .next(format!(
                "cairn{} images pull {}",
                flag(ns),
                word(name.as_str())
            ))
            .next("import it again")
    }
}

/// The snapshots of a manifest's layers, lowest first.
fn layers(body: &ManifestBody) -> Vec<SnapshotKey> {
    let diff_ids = body.config.as_ref().map(|config| &config.rootfs.diff_ids);
    let chains = diff_ids.map(|ids| ChainId::stack(ids)).unwrap_or_default();
    chains.iter().map(SnapshotKey::from).collect()
}

/// What leads a command to a namespace.
pub(super) fn flag(ns: &Namespace) -> String {
    match ns.as_str() {
        "default" => String::new(),
        other => format!(" -n {other}"),
    }
}
