//! The store's part of a bundle, as it is needed here.

use std::fmt::Display;

use cairn_types::{Failure, HostDir, ImageName, Mount, Namespace, SnapshotKey};

use crate::BundleRequest;

/// Keeps records and layers. Every verb is durable when it answers.
pub trait Store {
    /// What its refusals are, and what failures here become.
    type Error: From<Failure> + Display;

    /// Unpacks the image where needed, records a bundle at `dir` that is being made, and prepares its
    /// layer.
    fn begin(&self, request: &BundleRequest, dir: &HostDir) -> Result<Begun, Self::Error>;

    /// Records that the directory is in place. One whose root was copied needs its layer no more.
    fn complete(&self, dir: &HostDir, copied: bool) -> Result<(), Self::Error>;

    /// Records that the directory is going to be removed.
    fn withdraw(&self, dir: &HostDir) -> Result<(), Self::Error>;

    /// Drops layer and record of a bundle that is not whole; one that is gone already is none to drop.
    fn discard(&self, dir: &HostDir) -> Result<(), Self::Error>;

    /// The bundle that is recorded for a directory, whole or not, of whatever namespace.
    fn get(&self, dir: &HostDir) -> Result<Option<Known>, Self::Error>;

    /// The directories of all that are not whole, of every namespace.
    fn unfinished(&self) -> Result<Vec<String>, Self::Error>;
}

/// What a bundle is built from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Which store this is, for the marker in the directory: its root.
    pub store: String,
    /// The writable layer.
    pub snapshot: SnapshotKey,
    /// The variant that was taken, as `linux/amd64`.
    pub platform: String,
    /// To be made at the mount point of the root.
    pub mounts: Vec<Mount>,
    /// The image's configuration as stored.
    pub config: Vec<u8>,
}

/// A bundle that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// As in [`Begun`].
    pub store: String,
    /// The namespace of its image.
    pub namespace: Namespace,
    /// The image it was made from.
    pub image: ImageName,
    /// The variant that was taken.
    pub platform: String,
    /// Its writable layer.
    pub snapshot: SnapshotKey,
    /// To be made at the mount point of its root; none when its layer is gone.
    pub mounts: Vec<Mount>,
    /// Its root is plain files.
    pub copied: bool,
    /// It is whole.
    pub made: bool,
}
