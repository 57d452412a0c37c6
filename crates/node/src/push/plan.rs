//! What a push is about: which manifests, which blobs, and where their bytes are.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use cairn_types::{
    ChainId, Descriptor, DiffId, Digest, ErrorKind, ImageName, LayerType, PlatformMatcher,
    SnapshotKey,
};

use super::{ATTEMPTED, PushRequest, lacking::Lack};
use crate::{
    Contents, Failure, ImagePart, Node, Pins, documents,
    registries::Origins,
    store::StoreBlobs,
    unpack::no_platform,
    walk::{Body, ManifestBody, Tree},
};

/// Everything that the new meaning of the name needs.
pub(super) struct Plan {
    /// What the name will mean.
    pub(super) target: Descriptor,
    /// Of the only image; empty for several.
    pub(super) platform: String,
    /// What belongs to each document, those that are referred to before those that refer to them. The
    /// last is the target's.
    pub(super) parts: Vec<Part>,
    /// The same, for whoever watches.
    pub(super) contents: Vec<ImagePart>,
}

/// A document with the blobs that it names itself.
pub(super) struct Part {
    /// Of the document.
    pub(super) descriptor: Descriptor,
    /// As people are told; `None` when it names none.
    pub(super) platform: Option<String>,
    /// It is neither an index nor about another manifest.
    pub(super) is_image: bool,
    /// Why it is in the plan.
    pub(super) kind: Kind,
    /// Blobs that it names.
    pub(super) pieces: Vec<Piece>,
}

/// What becomes of a part.
pub(super) enum Kind {
    /// It goes, with these bytes.
    Sent(Bytes),
    /// It is not here, and has to be there.
    NotHere,
    /// It was not asked for, and has to be there.
    LeftOut,
}

/// A blob.
pub(super) struct Piece {
    pub(super) descriptor: Descriptor,
    pub(super) bytes: Place,
    /// Repositories of the same registry that may have it, the likeliest first.
    pub(super) from: Vec<String>,
    /// `None` for what is no layer.
    pub(super) layer: Option<Layer>,
}

/// What is known of a layer besides its bytes.
#[derive(Clone, Default)]
pub(super) struct Layer {
    pub(super) diff_id: Option<DiffId>,
    /// Its snapshot, if there is one, and the bytes of that.
    pub(super) unpacked: Option<(ChainId, u64)>,
}

/// Where the bytes of a blob are.
#[derive(Clone)]
pub(super) enum Place {
    /// In the store.
    Stored,
    /// In the descriptor.
    Embedded(Bytes),
    /// Nowhere here; what to say of it.
    Nowhere(Failure),
}

impl Node {
    /// Reads the image and decides what goes. Pins everything that it finds. Lists it if it is `listed`.
    pub(super) fn plan_push(
        &self,
        request: &PushRequest,
        origins: &Origins,
        pins: &Pins,
        listed: bool,
    ) -> Result<Plan, Failure> {
        let (ns, name) = (&request.ns, &request.name);
        let record = self.image_record(ns, name, ATTEMPTED)?;
        let blobs = StoreBlobs::new(self, ns, ATTEMPTED, name.to_string()).pinned(pins);
        let tree = Tree::read(&blobs, &record.target)?;
        let (root, chosen) = choose(request, &tree)?;
        if matches!(root.body, Body::Missing | Body::Blob) {
            let mut missing = blobs.missing(&root.descriptor);
            if let Some(platform) = root.platform() {
                missing.next = vec![format!("cairn images pull --platform {platform} {name}")];
            }
            return Err(missing);
        }
        let mut parts = Gathering {
            node: self,
            request,
            pins,
            chosen,
            origins,
            parts: Vec::new(),
            seen: HashSet::new(),
        };
        parts.gather(root, &[])?;
        let platform = match root.body {
            Body::Manifest(_) => root.platform(),
            _ => None,
        };
        Ok(Plan {
            target: root.descriptor.clone(),
            platform: platform.map(|p| p.to_string()).unwrap_or_default(),
            parts: parts.parts,
            contents: root.parts(&|_| listed),
        })
    }
}

/// What the name will mean, and which manifests of it may go; `None` for all.
fn choose<'t>(
    request: &PushRequest,
    tree: &'t Tree,
) -> Result<(&'t Tree, Option<HashSet<Digest>>), Failure> {
    let refused = |failure: Failure| {
        let failure = failure.object("image", &request.name);
        failure.namespace(&request.ns)
    };
    let root = match &request.manifest {
        None => tree,
        Some(digest) => find(tree, digest).ok_or_else(|| {
            let reason = format!("it has no manifest {digest}");
            let next = format!("cairn images inspect {}", request.name);
            refused(Failure::new(ErrorKind::NotFound, ATTEMPTED, reason).next(next))
        })?,
    };
    let mut wanted: Vec<&Tree> = Vec::new();
    for platform in &request.platforms {
        let matcher = PlatformMatcher::only(platform);
        let picked = root.pick(&matcher);
        let picked = picked.filter(|manifest| manifest.is_for(&matcher));
        let picked = picked.ok_or_else(|| refused(no_platform(root, platform, ATTEMPTED)))?;
        if !wanted
            .iter()
            .any(|known| known.descriptor.digest == picked.descriptor.digest)
        {
            wanted.push(picked);
        }
    }
    match wanted.as_slice() {
        [] => Ok((root, None)),
        [one] => Ok((one, None)),
        several => {
            let mut chosen: HashSet<Digest> = HashSet::new();
            chosen.extend(several.iter().map(|tree| tree.descriptor.digest.clone()));
            let about = root.manifests().into_iter().filter(|manifest| {
                let subject = manifest.about();
                subject.is_some_and(|subject| chosen.contains(&subject))
            });
            let about: Vec<Digest> = about.map(|tree| tree.descriptor.digest.clone()).collect();
            chosen.extend(about);
            Ok((root, Some(chosen)))
        }
    }
}

fn find<'t>(tree: &'t Tree, digest: &Digest) -> Option<&'t Tree> {
    if tree.descriptor.digest == *digest && !matches!(tree.body, Body::Blob) {
        return Some(tree);
    }
    match &tree.body {
        Body::Index(children) => children.iter().find_map(|child| find(child, digest)),
        _ => None,
    }
}

struct Gathering<'a> {
    node: &'a Node,
    request: &'a PushRequest,
    pins: &'a Pins,
    chosen: Option<HashSet<Digest>>,
    origins: &'a Origins,
    parts: Vec<Part>,
    seen: HashSet<Digest>,
}

impl Gathering<'_> {
    /// Adds a document after all that it refers to. `above` has the labels of those that refer to it.
    fn gather(&mut self, tree: &Tree, above: &[String]) -> Result<(), Failure> {
        let digest = &tree.descriptor.digest;
        if matches!(tree.body, Body::Blob) || !self.seen.insert(digest.clone()) {
            return Ok(());
        }
        let left_out = matches!(tree.body, Body::Manifest(_) | Body::Missing)
            && self
                .chosen
                .as_ref()
                .is_some_and(|chosen| !chosen.contains(digest));
        let mut part = Part {
            descriptor: tree.descriptor.clone(),
            platform: tree.platform().map(|platform| platform.to_string()),
            is_image: matches!(tree.body, Body::Manifest(_)) && !tree.is_attestation(),
            kind: Kind::Sent(Bytes::from(tree.bytes.clone())),
            pieces: Vec::new(),
        };
        let sources = self.origins.of(self.node, digest, above);
        match &tree.body {
            _ if left_out => part.kind = Kind::LeftOut,
            Body::Missing | Body::Blob => part.kind = Kind::NotHere,
            Body::Manifest(body) => part.pieces = self.pieces(tree, body, &sources)?,
            Body::Index(children) => {
                for child in children {
                    match &child.body {
                        Body::Blob => {
                            let piece = self.piece(tree, &child.descriptor, None, &sources)?;
                            part.pieces.push(piece);
                        }
                        _ => self.gather(child, &sources)?,
                    }
                }
            }
        }
        self.parts.push(part);
        Ok(())
    }

    fn pieces(
        &self,
        tree: &Tree,
        body: &ManifestBody,
        above: &[String],
    ) -> Result<Vec<Piece>, Failure> {
        let mut pieces = vec![self.piece(tree, &body.manifest.config, None, above)?];
        let mut facts = self.layers(body).into_iter();
        for layer in &body.manifest.layers {
            let fact = facts.next().unwrap_or_default();
            let piece = self.piece(tree, layer, Some(fact), above)?;
            let foreign = LayerType::parse(&layer.media_type).is_some_and(|layer| layer.foreign);
            let here = !matches!(piece.bytes, Place::Nowhere(_));
            if !foreign || (self.request.allow_non_distributable && here) {
                pieces.push(piece);
            }
        }
        Ok(pieces)
    }

    /// As many as the configuration names.
    fn layers(&self, body: &ManifestBody) -> Vec<Layer> {
        let Some(config) = &body.config else {
            return Vec::new();
        };
        let diff_ids = &config.rootfs.diff_ids;
        let layers = diff_ids.iter().zip(ChainId::stack(diff_ids));
        let layer = |(diff_id, chain): (&DiffId, ChainId)| {
            let key = SnapshotKey::from(&chain);
            let usage = self.node.snapshots().usage(&self.request.ns, &key);
            Layer {
                diff_id: Some(diff_id.clone()),
                unpacked: usage.ok().map(|usage| (chain, usage.bytes)),
            }
        };
        layers.map(layer).collect()
    }

    fn piece(
        &self,
        tree: &Tree,
        descriptor: &Descriptor,
        layer: Option<Layer>,
        above: &[String],
    ) -> Result<Piece, Failure> {
        let (node, ns) = (self.node, &self.request.ns);
        self.pins.blob(ns, &descriptor.digest);
        let bytes = if node.has_blob(ns, &descriptor.digest)? {
            Place::Stored
        } else {
            let embedded = documents::embedded(descriptor).map_err(|reason| {
                let failure =
                    Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason.to_string());
                failure.object("image", &self.request.name).namespace(ns)
            })?;
            match embedded {
                Some(bytes) => Place::Embedded(Bytes::from(bytes)),
                None => {
                    let name = &self.request.name;
                    Place::Nowhere(node.not_here(ns, (name, ATTEMPTED), tree, descriptor)?)
                }
            }
        };
        Ok(Piece {
            descriptor: descriptor.clone(),
            bytes,
            from: self.origins.of(node, &descriptor.digest, above),
            layer,
        })
    }
}

impl Plan {
    /// Makes the one image that nothing is lacking for what goes, and its platform what is told. `false`,
    /// and nothing done, where there is none, or several of which one would have to be chosen.
    pub(super) fn narrow(&mut self, lacks: &[Lack]) -> bool {
        let can_go = |part: &&Part| {
            let lacks_none = !lacks.iter().any(|lack| lack.is_of(part));
            part.is_image && lacks_none && matches!(part.kind, Kind::Sent(_))
        };
        let mut images = self.parts.iter().filter(can_go);
        let (Some(only), None) = (images.next(), images.next()) else {
            return false;
        };
        let Some(platform) = only.platform.clone() else {
            return false;
        };
        self.target = only.descriptor.clone();
        self.platform = platform;
        let target = &self.target.digest;
        self.parts.retain(|part| part.descriptor.digest == *target);
        true
    }

    /// What goes, or is looked for there.
    pub(super) fn contents(&mut self, name: &ImageName) -> Contents {
        let mut parts = std::mem::take(&mut self.contents);
        let mut sent = HashSet::new();
        for part in &self.parts {
            sent.insert(&part.descriptor.digest);
            sent.extend(part.pieces.iter().map(|piece| &piece.descriptor.digest));
        }
        parts.retain(|part| sent.contains(&part.descriptor.digest));
        Contents {
            name: name.to_string(),
            parts,
        }
    }

    /// The layers of all that goes, lowest first, each once.
    pub(super) fn layers(&self) -> Vec<&Piece> {
        let mut seen = HashSet::new();
        let pieces = self.parts.iter().flat_map(|part| &part.pieces);
        pieces
            .filter(|piece| piece.layer.is_some() && seen.insert(&piece.descriptor.digest))
            .collect()
    }

    /// All blobs, each once, the largest first: that which takes longest does not begin last.
    pub(super) fn pieces(&self) -> Vec<&Piece> {
        let mut by_digest: HashMap<&Digest, &Piece> = HashMap::new();
        for piece in self.parts.iter().flat_map(|part| &part.pieces) {
            by_digest.entry(&piece.descriptor.digest).or_insert(piece);
        }
        let mut pieces: Vec<&Piece> = by_digest.into_values().collect();
        pieces.sort_by(|a, b| {
            let key = |piece: &Piece| (piece.descriptor.size, piece.descriptor.digest.clone());
            key(b).cmp(&key(a))
        });
        pieces
    }
}
