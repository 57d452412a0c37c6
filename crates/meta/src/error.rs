//! What can go wrong with records.

use std::{io, sync::Arc};

use cairn_types::{Classified, ErrorKind};

/// An error of the records.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A record's checksum, version or content is wrong.
    #[error("record {key} is damaged: {reason}")]
    Corrupt {
        /// Table and key, printable.
        key: String,
        /// What does not fit.
        reason: String,
    },
    /// A key is longer than the engine can hold safely.
    #[error("key {key} has {length} bytes, more than the {limit} that {engine} keeps safely")]
    KeyTooLong {
        /// Table and key, printable, shortened.
        key: String,
        /// Bytes of the key.
        length: usize,
        /// Bytes allowed.
        limit: usize,
        /// Which engine.
        engine: &'static str,
    },
    /// A key component holds a byte that keys cannot hold.
    #[error("key component {0:?} has a NUL byte")]
    Nul(String),
    /// A record is longer than the engine can hold safely.
    #[error("record {key} has {length} bytes, more than the {limit} that {engine} keeps safely")]
    TooLarge {
        /// Table and key, printable.
        key: String,
        /// Bytes of the record.
        length: usize,
        /// Bytes allowed.
        limit: usize,
        /// Which engine.
        engine: &'static str,
    },
    /// The engine could not be opened.
    #[error("open records at {path} with {engine}: {reason}")]
    Open {
        /// The directory.
        path: String,
        /// Which engine.
        engine: &'static str,
        /// Its own words.
        reason: String,
        /// Damage, a full disk, or anything else.
        kind: ErrorKind,
    },
    /// The directory holds records of the other engine.
    #[error("open records at {path} with {engine}: the records there were written by {other}")]
    OtherEngine {
        /// The directory.
        path: String,
        /// Which engine was asked for.
        engine: &'static str,
        /// Which one wrote them.
        other: &'static str,
    },
    /// The engine's own structure on disk, above any one record, is damaged.
    #[error("the records are damaged: {0}")]
    Damaged(String),
    /// A change was asked for inside another look or change, which would wait for itself.
    #[error("a change of the records inside another look or change would wait for itself")]
    Nested,
    /// Reading failed in the engine.
    #[error("read records: {0}")]
    Read(String),
    /// Writing failed in the engine; the store takes no more changes until it is opened again.
    #[error("the store is read-only: writing records failed: {0}")]
    ReadOnly(String),
    /// A system call beside the engine failed.
    #[error("keep records")]
    Sys(#[source] Arc<cairn_sys::Error>),
}

impl From<cairn_sys::Error> for Error {
    fn from(err: cairn_sys::Error) -> Error {
        Error::Sys(Arc::new(err))
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Corrupt { .. } | Error::Damaged(_) => ErrorKind::DataLoss,
            Error::Nul(_) | Error::KeyTooLong { .. } => ErrorKind::InvalidArgument,
            Error::TooLarge { .. } => ErrorKind::ResourceExhausted,
            Error::Open { kind, .. } => *kind,
            Error::OtherEngine { .. } => ErrorKind::FailedPrecondition,
            Error::Read(_) | Error::Nested => ErrorKind::Internal,
            // The engines hand on only words; this one is the system's, and what it asks for is
            // space, not patience.
            Error::ReadOnly(reason) if reason.contains("No space left on device") => {
                ErrorKind::ResourceExhausted
            }
            Error::ReadOnly(_) => ErrorKind::Unavailable,
            Error::Sys(err) => err.kind(),
        }
    }
}

/// The class of an I/O error that an engine hands on.
pub(crate) fn kind_of_io(err: &io::Error) -> ErrorKind {
    match err.kind() {
        io::ErrorKind::StorageFull
        | io::ErrorKind::QuotaExceeded
        | io::ErrorKind::OutOfMemory
        | io::ErrorKind::FileTooLarge => ErrorKind::ResourceExhausted,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ErrorKind::PermissionDenied
        }
        _ => ErrorKind::Internal,
    }
}
