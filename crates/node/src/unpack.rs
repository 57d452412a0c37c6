//! Making the snapshots of an image's layers exist.

use cairn_types::{ChainId, Descriptor, Namespace, Platform};

use crate::{Failure, Node, Progress};

impl Node {
    /// Makes the snapshots of the image `target` (a manifest, or an index from which `platform`
    /// chooses; the host's when `None`) exist, and returns the chain ID of its top.
    ///
    /// Layers that are there already are left alone. An image without layers has no chain: `None`.
    pub fn unpack(
        &self,
        _ns: &Namespace,
        _target: &Descriptor,
        _platform: Option<&Platform>,
        _progress: &dyn Progress,
    ) -> Result<Option<ChainId>, Failure> {
        Err(crate::unpublished("unpack image"))
    }
}
