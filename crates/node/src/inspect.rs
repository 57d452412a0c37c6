//! What an image is made of.

use cairn_types::{
    ChainId, Classified, Descriptor, DiffId, ErrorKind, ImageName, LayerTiming, Namespace,
    Platform, PlatformMatcher, SnapshotKey, Usage,
};

use crate::{
    Failure, ImageInfo, Node, SnapshotInfo,
    store::StoreBlobs,
    walk::{Body, ManifestBody, Tree},
};

const ATTEMPTED: &str = "inspect image";

/// What a blob is to its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Lists manifests.
    Index,
    /// Lists a configuration and layers.
    Manifest,
    /// A manifest about another one: provenance, a bill of materials.
    Attestation,
    /// The configuration.
    Config,
    /// A layer; the lowest is 1.
    Layer(usize),
    /// Anything else.
    Other,
}

/// One blob of an image, and those it refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct InspectNode {
    /// What it is to its image.
    pub role: Role,
    /// How it is referred to.
    pub descriptor: Descriptor,
    /// It is in the store.
    pub present: bool,
    /// Of a manifest or configuration.
    pub platform: Option<Platform>,
    /// Of a layer, as its manifest and configuration claim.
    pub diff_id: Option<DiffId>,
    /// Of a layer: the stack up to it.
    pub chain_id: Option<ChainId>,
    /// Of a layer: its snapshot on disk, when it is unpacked.
    pub unpacked: Option<Usage>,
    /// Of a layer that was unpacked here: how long that took.
    pub timing: Option<LayerTiming>,
    /// In the order of the document.
    pub children: Vec<InspectNode>,
}

/// An image and everything it refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspect {
    /// The record and sums.
    pub image: ImageInfo,
    /// The target, and so on downwards.
    pub tree: InspectNode,
    /// The manifest of the chosen platform; `None` when it is not here.
    pub manifest: Option<Descriptor>,
    /// Its bytes as they are stored.
    pub manifest_bytes: Vec<u8>,
    /// The bytes of its configuration as they are stored; empty when absent.
    pub config_bytes: Vec<u8>,
}

impl Node {
    /// Looks into an image; `platform` chooses whose manifest and configuration are returned whole
    /// (the host's when `None`, or the first one when the host's is not there).
    pub fn inspect(
        &self,
        ns: &Namespace,
        name: &ImageName,
        platform: Option<&Platform>,
    ) -> Result<Inspect, Failure> {
        let record = self.image_record(ns, name, ATTEMPTED)?;
        let blobs = StoreBlobs::new(self, ns, ATTEMPTED, name.to_string());
        let tree = Tree::read(&blobs, &record.target)?;
        let picked = match platform {
            Some(_) => Some(self.pick(ns, &tree, platform, ATTEMPTED, name.as_str())?),
            None => {
                let host = PlatformMatcher::only(&Platform::host());
                let here = |tree: &&Tree| matches!(tree.body, Body::Manifest(_));
                let best = tree.pick(&host).filter(here);
                best.or_else(|| tree.manifests().into_iter().find(here))
            }
        };
        let (manifest_bytes, config_bytes) = match picked.map(|tree| (tree, &tree.body)) {
            Some((tree, Body::Manifest(body))) => {
                let config = body.config_bytes.clone().unwrap_or_default();
                (tree.bytes.clone(), config)
            }
            _ => (Vec::new(), Vec::new()),
        };
        Ok(Inspect {
            image: self.describe(ns, name.clone(), record, ATTEMPTED)?,
            manifest: picked
                .filter(|_| !manifest_bytes.is_empty())
                .map(|tree| tree.descriptor.clone()),
            tree: self.look(ns, &tree)?,
            manifest_bytes,
            config_bytes,
        })
    }

    fn look(&self, ns: &Namespace, tree: &Tree) -> Result<InspectNode, Failure> {
        let (role, children) = match &tree.body {
            Body::Index(children) => {
                let children = children.iter().map(|child| self.look(ns, child));
                (Role::Index, children.collect::<Result<_, _>>()?)
            }
            Body::Manifest(body) if tree.is_attestation() => {
                (Role::Attestation, self.look_inside(ns, body)?)
            }
            Body::Manifest(body) => (Role::Manifest, self.look_inside(ns, body)?),
            Body::Missing if tree.is_attestation() => (Role::Attestation, Vec::new()),
            Body::Missing => (Role::Manifest, Vec::new()),
            Body::Blob => (Role::Other, Vec::new()),
        };
        Ok(InspectNode {
            role,
            descriptor: tree.descriptor.clone(),
            present: match tree.body {
                Body::Blob => self.has_blob(ns, &tree.descriptor.digest)?,
                Body::Missing => false,
                _ => true,
            },
            platform: tree.platform(),
            diff_id: None,
            chain_id: None,
            unpacked: None,
            timing: None,
            children,
        })
    }

    fn look_inside(
        &self,
        ns: &Namespace,
        body: &ManifestBody,
    ) -> Result<Vec<InspectNode>, Failure> {
        let blob = |role, descriptor: &Descriptor| {
            Ok::<_, Failure>(InspectNode {
                role,
                descriptor: descriptor.clone(),
                present: self.has_blob(ns, &descriptor.digest)?,
                platform: None,
                diff_id: None,
                chain_id: None,
                unpacked: None,
                timing: None,
                children: Vec::new(),
            })
        };
        let mut config = blob(Role::Config, &body.manifest.config)?;
        config.platform = body.config.as_ref().map(|c| c.platform().normalized());
        let mut nodes = vec![config];
        let diff_ids = body.config.as_ref().map(|c| c.rootfs.diff_ids.clone());
        let diff_ids = diff_ids
            .filter(|ids| ids.len() == body.manifest.layers.len())
            .unwrap_or_default();
        let chains = ChainId::stack(&diff_ids);
        for (i, layer) in body.manifest.layers.iter().enumerate() {
            let mut node = blob(Role::Layer(i + 1), layer)?;
            node.diff_id = diff_ids.get(i).cloned();
            node.chain_id = chains.get(i).cloned();
            if let Some(chain) = chains.get(i) {
                let snapshot = self.snapshot_of(ns, chain)?;
                node.unpacked = snapshot.as_ref().map(|snapshot| snapshot.usage);
                node.timing = snapshot.and_then(|snapshot| snapshot.timing);
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    fn snapshot_of(
        &self,
        ns: &Namespace,
        chain: &ChainId,
    ) -> Result<Option<SnapshotInfo>, Failure> {
        let key = SnapshotKey::from(chain);
        match self.snapshots().stat(ns, &key) {
            Ok(info) => Ok(Some(info)),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) => Err(Failure::of("look up snapshot", &err).object("snapshot", key)),
        }
    }
}
