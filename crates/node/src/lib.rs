//! Where the rooms meet: opening a store, and importing, unpacking, listing, exporting and removing
//! images in it, and preparing what others mount.
//!
//! Content, snapshots, records and layers know nothing of one another; what needs two of them is
//! here. No socket and no terminal: callers translate.

pub mod apply;
pub mod bundle;
pub mod caller;
mod claims;
pub mod containers;
pub mod df;
pub mod diff;
mod documents;
pub mod events;
pub mod export;
pub mod failure;
pub mod fsck;
pub mod gc;
pub mod image_records;
pub mod images;
pub mod import;
pub mod inspect;
mod intake;
pub mod leases;
mod lost;
pub mod mounts;
pub mod namespaces;
pub mod node;
mod objects;
pub mod progress;
pub mod pull;
pub mod push;
pub mod records;
pub mod registries;
mod resolve;
mod settle;
pub mod sharing;
pub mod state;
mod store;
mod unpack;
mod uploads;
mod uuid;
mod walk;

pub use apply::LayerApplied;
pub use bundle::{BundleBegun, BundleInfo, BundleOrder};
pub use cairn_meta::Rebuilt;
pub use caller::{Caller, Resource};
pub use df::{DiskKind, DiskRow, DiskUsage, ImageUsage, Unexplained, UsageRow};
pub use diff::DiffOptions;
pub use export::ExportRequest;
pub use failure::{Failure, Report};
pub use fsck::{
    Finding, FsckReport, FsckRequest, FsckWatcher, Severity,
    scrub::{Found, ScrubReport, ScrubStatus, ScrubUnderWay},
};
pub use gc::{GcCount, GcReport, GcStep, Holder, Kept, NamespaceUsage, Pins};
pub use images::{ImageInfo, Removed, Tagged};
pub use import::{ImportRequest, Reference, References, Source};
pub use inspect::{Inspect, InspectNode, Role};
pub use intake::{Extent, Imported};
pub use leases::LeaseInfo;
pub use mounts::{MountInfo, MountOrder};
pub use namespaces::NamespaceInfo;
pub use node::{EngineKind, Node, NodeOptions, SnapshotOptions};
pub use objects::{BlobInfo, SnapshotInfo};
pub use progress::{Contents, Event, ImagePart, Phase, Progress, Silent, Transfer, TransferStep};
pub use pull::{PullRequest, Pulled, TransferredLayer};
pub use push::{PushRequest, Pushed};
pub use records::{
    Exported, RecordsImport, RecordsImported, Replaced, export_records, import_records,
};
pub use registries::{RegistryOptions, Remote};
pub use sharing::Sharing;
pub use state::State;
