//! Fetching an image of a registry.

use cairn_types::{
    ChainId, Descriptor, DiffId, Digest, ErrorKind, ImageName, Labels, LayerTiming, Platform,
};

use crate::{Caller, Failure, Imported, Node, Progress, registries::Remote};

/// What to fetch, and what becomes of it.
pub struct PullRequest {
    /// Whose image, and the lease that is to hold what comes.
    pub caller: Caller,
    /// Registry, repository and tag, or digest.
    pub name: ImageName,
    /// Names to store it under, by its digest; `None` for `name` alone.
    pub names: Option<Box<dyn Fn(&Digest) -> Result<Vec<ImageName>, Failure> + Send + Sync>>,
    /// How the registry is reached.
    pub remote: Remote,
    /// Which platforms of an index to take; none means the host's.
    pub platforms: Vec<Platform>,
    /// Takes every platform there is.
    pub all_platforms: bool,
    /// Makes the snapshots, too.
    pub unpack: bool,
    /// Asks nobody when the image is here and complete.
    pub missing_only: bool,
    /// For the image records.
    pub labels: Labels,
}

impl PullRequest {
    /// Fetches and unpacks what suits the host.
    pub fn new(caller: Caller, name: ImageName) -> PullRequest {
        PullRequest {
            caller,
            name,
            names: None,
            remote: Remote::default(),
            platforms: Vec::new(),
            all_platforms: false,
            unpack: true,
            missing_only: false,
            labels: Labels::new(),
        }
    }
}

/// What a pull made.
#[derive(Clone, Debug, PartialEq)]
pub struct Pulled {
    /// One for each name.
    pub images: Vec<Imported>,
    /// Bytes of blobs that came.
    pub fetched_bytes: u64,
    /// Bytes of blobs that were here already.
    pub reused_bytes: u64,
    /// The layers of the first image that was unpacked, or would be, lowest first.
    pub layers: Vec<TransferredLayer>,
}

/// A layer that was fetched or sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TransferredLayer {
    /// As stored.
    pub descriptor: Descriptor,
    /// As its configuration has it; `None` of what is no image's layer.
    pub diff_id: Option<DiffId>,
    /// Its snapshot; `None` when it is not unpacked.
    pub chain_id: Option<ChainId>,
    /// Bytes of its snapshot.
    pub unpacked_size: Option<u64>,
    /// Which host it came from or went to; `None` when there was nothing to do.
    pub host: Option<String>,
    /// Requests that it took.
    pub attempts: u32,
    /// What unpacking it went into, when that was done now.
    pub timing: Option<LayerTiming>,
}

impl Node {
    /// Fetches an image. Either it is there whole afterwards under all its names, or under none; blobs
    /// that came are kept for another try.
    ///
    /// # Errors
    /// What the registry's hosts said, or what is wrong with what they sent.
    pub fn pull(&self, request: PullRequest, progress: &dyn Progress) -> Result<Pulled, Failure> {
        let _ = progress;
        let failure = Failure::new(ErrorKind::Unimplemented, "pull image", "not yet");
        Err(failure.object("image", &request.name))
    }
}
