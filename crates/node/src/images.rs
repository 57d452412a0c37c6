//! Image names: finding, listing, tagging, removing.

use std::path::PathBuf;

use cairn_types::{Descriptor, Digest, ImageName, Labels, Namespace};

use crate::{Failure, Node};

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
    pub fn images(&self, _ns: &Namespace) -> Result<Vec<ImageInfo>, Failure> {
        Err(crate::unpublished("list images"))
    }

    /// One image by its full name.
    pub fn image(&self, _ns: &Namespace, _name: &ImageName) -> Result<ImageInfo, Failure> {
        Err(crate::unpublished("inspect image"))
    }

    /// Finds the image a person means: its exact name, its name completed as Docker does, or at
    /// least 7 hex digits of its target's digest. `attempted` is for the message
    /// (`inspect image`).
    pub fn resolve(
        &self,
        _ns: &Namespace,
        _text: &str,
        attempted: &str,
    ) -> Result<ImageName, Failure> {
        Err(crate::unpublished(attempted))
    }

    /// Gives an image one more name. A name that means another image is moved only with `force`.
    pub fn tag(
        &self,
        _ns: &Namespace,
        _source: &ImageName,
        _target: &ImageName,
        _force: bool,
    ) -> Result<Tagged, Failure> {
        Err(crate::unpublished("tag"))
    }

    /// Sets labels (an empty value removes one), or replaces all of them; returns those after.
    pub fn label_image(
        &self,
        _ns: &Namespace,
        _name: &ImageName,
        _labels: Labels,
        _replace_all: bool,
    ) -> Result<Labels, Failure> {
        Err(crate::unpublished("label image"))
    }

    /// Removes a name. When it is the last that leads to an image that a bundle was made from,
    /// `force` is needed. Blobs and snapshots stay until [`Node::gc`].
    pub fn remove_image(
        &self,
        _ns: &Namespace,
        _name: &ImageName,
        _force: bool,
    ) -> Result<Removed, Failure> {
        Err(crate::unpublished("remove image"))
    }

    /// Finds the blob a person means: a digest, or at least 7 hex digits of one, with or without
    /// its algorithm.
    pub fn resolve_digest(
        &self,
        _ns: &Namespace,
        _text: &str,
        attempted: &str,
    ) -> Result<Digest, Failure> {
        Err(crate::unpublished(attempted))
    }

    /// All namespaces that hold anything, by name.
    pub fn namespaces(&self) -> Result<Vec<Namespace>, Failure> {
        Err(crate::unpublished("list namespaces"))
    }
}
