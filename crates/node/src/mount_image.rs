//! An image's files at a directory, without a container.

use std::path::{Path, PathBuf};

use cairn_types::{ImageName, Namespace, Platform};

use crate::{Failure, Node};

/// What to mount, and where.
#[derive(Clone, Debug)]
pub struct MountRequest {
    /// The namespace that has the image.
    pub ns: Namespace,
    /// Its full name.
    pub name: ImageName,
    /// The mount point; made when absent.
    pub target: PathBuf,
    /// Writable: changes go to a snapshot of their own.
    pub rw: bool,
    /// Which variant; the host's when `None`.
    pub platform: Option<Platform>,
}

impl Node {
    /// Mounts an image's files, unpacking them first when needed.
    pub fn mount_image(&self, _request: &MountRequest) -> Result<PathBuf, Failure> {
        Err(crate::unpublished("mount image"))
    }

    /// Unmounts what [`Node::mount_image`] mounted at `target`. Its snapshot goes too when it was
    /// read-only, or with `remove`; what was changed in a writable one is otherwise kept.
    pub fn unmount_image(
        &self,
        _ns: &Namespace,
        _target: &Path,
        _remove: bool,
    ) -> Result<(), Failure> {
        Err(crate::unpublished("unmount"))
    }
}
