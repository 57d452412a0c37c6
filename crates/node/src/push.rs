//! Sending an image to a registry.

use cairn_types::{Descriptor, Digest, ErrorKind, ImageName, Namespace, Platform};

use crate::{Failure, Node, Progress, pull::TransferredLayer, registries::Remote};

/// What to send, and where.
pub struct PushRequest {
    /// Whose image.
    pub ns: Namespace,
    /// Its name here.
    pub name: ImageName,
    /// Only this manifest of it.
    pub manifest: Option<Digest>,
    /// Registry, repository and tag, or digest.
    pub remote_name: ImageName,
    /// How the registry is reached.
    pub remote: Remote,
    /// Without any all that is here.
    pub platforms: Vec<Platform>,
    /// Also layers that their makers do not want to be passed on.
    pub allow_non_distributable: bool,
}

/// What a push sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Pushed {
    /// What the name means there.
    pub target: Descriptor,
    /// Bytes of blobs that went.
    pub sent_bytes: u64,
    /// Bytes of blobs that were there already, or were taken over from another repository there.
    pub reused_bytes: u64,
    /// Layers, lowest first.
    pub layers: Vec<TransferredLayer>,
}

impl Node {
    /// Sends an image: what is missing there, the manifests last.
    ///
    /// # Errors
    /// What the registry said, or which blob is not here.
    pub fn push(&self, request: PushRequest, progress: &dyn Progress) -> Result<Pushed, Failure> {
        let _ = progress;
        let failure = Failure::new(ErrorKind::Unimplemented, "push image", "not yet");
        Err(failure.object("image", &request.name))
    }
}
