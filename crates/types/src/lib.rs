//! The nouns of Cairn: digests, descriptors, platforms, names, labels, error classes.
//!
//! No I/O, no async, no database: what is here is parsed once at an edge and then true everywhere.

mod digest;
mod document;
mod error;
pub mod failure;
pub mod filter;
mod idmap;
mod labels;
pub mod media;
mod mount;
mod name;
mod platform;
pub mod size;
mod timing;

pub use digest::{Algorithm, ChainId, DiffId, Digest, DigestError, Hasher};
pub use document::{ConfigPlatform, Descriptor, ImageConfig, Index, Manifest, RootFs};
pub use error::{Classified, ErrorKind};
pub use failure::{Failure, Report};
pub use idmap::{ID_RANGES_MAX, IdMap, IdMapError, IdRange, IdRanges, OVERFLOW_ID};
pub use labels::{LABEL_BYTES_MAX, LabelError, Labels, merge_labels, validate_label};
pub use media::{Compression, LayerType, MediaKind};
pub use mount::{Mount, SnapshotKind, Usage};
pub use name::{HostDir, ImageName, IngestRef, LeaseId, NameError, Namespace, SnapshotKey};
pub use platform::{Platform, PlatformError, PlatformMatcher};
pub use timing::LayerTiming;
