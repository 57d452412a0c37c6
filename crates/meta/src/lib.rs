//! The records: typed trees over an ordered key-value engine.
//!
//! This room decides what a record looks like, that many changes share one flush, and which engine
//! keeps them; it is the only one that names an engine. It deliberately knows no rule of images,
//! blobs or snapshots: those live in the rooms that write the records.

mod census;
mod committer;
mod copy;
mod engine;
mod error;
mod export;
mod import;
mod journal;
mod keeper;
mod key;
mod lines;
mod rebuild;
mod record;
mod records;
mod reserve;
pub mod schema;
mod store;
mod txn;
mod watch;

pub use census::{Counted, Purpose};
pub use committer::Committed;
pub use error::{Error, ReadOnly};
pub use export::Exported;
pub use import::{Import, Replaced};
pub use key::{Component, Key, Prefix};
pub use lines::Origin;
pub use rebuild::Rebuilt;
pub use record::Record;
pub use records::{
    BlobLink, BlobRecord, BundleRecord, ContainerRecord, ImageRecord, IngestRecord, LeaseRecord,
    NamespaceRecord, SnapshotRecord, Timestamp,
};
pub use schema::Table;
pub use store::{EngineKind, Store};
pub use txn::{Place, Reader, Sound, Tx, View, number_of};
pub use watch::{Change, Watch};
