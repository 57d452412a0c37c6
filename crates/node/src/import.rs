//! Bringing images in from an archive or a layout directory.

use std::path::PathBuf;

use cairn_types::{Descriptor, Labels, Namespace, Platform};
use tokio::io::AsyncRead;

use crate::{Failure, Node, Progress};

/// Where an archive comes from.
pub enum Source {
    /// A file (OCI or docker archive, plain or compressed), or an OCI layout directory.
    Path(PathBuf),
    /// Standard input.
    Stdin,
    /// Any stream.
    Stream {
        /// For messages.
        name: String,
        /// The archive's bytes, plain or compressed.
        reader: Box<dyn AsyncRead + Send + Unpin>,
    },
}

impl Source {
    /// For messages: the path as given, `standard input`, or the stream's name.
    pub fn name(&self) -> String {
        match self {
            Source::Path(path) => path.display().to_string(),
            Source::Stdin => "standard input".to_owned(),
            Source::Stream { name, .. } => name.clone(),
        }
    }
}

/// What to import, and how.
pub struct ImportRequest {
    /// The namespace that gets the images.
    pub ns: Namespace,
    /// The archive.
    pub source: Source,
    /// Only names that have this as a component prefix are kept; bare tags are put behind it.
    pub base_name: Option<String>,
    /// Names the archive's whole index.
    pub index_name: Option<String>,
    /// Also names every manifest `<base>@<digest>`.
    pub digests: bool,
    /// Which platforms of an index to take; none means the host's.
    pub platforms: Vec<Platform>,
    /// Takes every platform that is in the archive.
    pub all_platforms: bool,
    /// Makes the snapshots, too.
    pub unpack: bool,
    /// For the image records.
    pub labels: Labels,
}

impl ImportRequest {
    /// Imports and unpacks what suits the host, under the names the archive gives.
    pub fn new(ns: Namespace, source: Source) -> ImportRequest {
        ImportRequest {
            ns,
            source,
            base_name: None,
            index_name: None,
            digests: false,
            platforms: Vec::new(),
            all_platforms: false,
            unpack: true,
            labels: Labels::new(),
        }
    }
}

/// One image that was imported.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Its full name.
    pub name: cairn_types::ImageName,
    /// What the name points at.
    pub target: Descriptor,
    /// The platform of the manifest that was taken; `None` when it is an artifact or names none.
    pub platform: Option<Platform>,
    /// Bytes of its blobs.
    pub content_size: u64,
    /// Bytes of its unpacked layers; `None` when they are not unpacked.
    pub unpacked_size: Option<u64>,
}

impl Node {
    /// Imports every image of an archive. Either all of them are there afterwards, or none.
    pub fn import(
        &self,
        _request: ImportRequest,
        _progress: &dyn Progress,
    ) -> Result<Vec<Imported>, Failure> {
        Err(crate::unpublished("import"))
    }
}
