//! Writing images out as one archive that OCI and docker tools both read.

use std::io::Write;

use cairn_types::{ImageName, Namespace, Platform};

use crate::{Failure, Node, Progress};

/// What to export, and how.
pub struct ExportRequest<'a> {
    /// The namespace that has the images.
    pub ns: Namespace,
    /// Gets the archive, in order; never seeked.
    pub out: &'a mut dyn Write,
    /// Full names, as [`Node::resolve`] returns them.
    pub names: Vec<ImageName>,
    /// Which platforms of an index to take; none means the host's.
    pub platforms: Vec<Platform>,
    /// Takes every platform; each must be here whole.
    pub all_platforms: bool,
    /// Leaves out docker's `manifest.json`.
    pub skip_manifest_json: bool,
    /// Leaves out foreign layers.
    pub skip_non_distributable: bool,
}

impl Node {
    /// Writes the archive and returns its length in bytes. Every blob is verified while it is
    /// written, so a damaged one ends in an error and an archive without end.
    pub fn export(
        &self,
        _request: ExportRequest<'_>,
        _progress: &dyn Progress,
    ) -> Result<u64, Failure> {
        Err(crate::unpublished("export image"))
    }
}
