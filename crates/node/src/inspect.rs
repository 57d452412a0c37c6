//! What an image is made of.

use cairn_types::{ChainId, Descriptor, DiffId, ImageName, Namespace, Platform, Usage};

use crate::{Failure, ImageInfo, Node};

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
    /// (the host's when `None`).
    pub fn inspect(
        &self,
        _ns: &Namespace,
        _name: &ImageName,
        _platform: Option<&Platform>,
    ) -> Result<Inspect, Failure> {
        Err(crate::unpublished("inspect image"))
    }
}
