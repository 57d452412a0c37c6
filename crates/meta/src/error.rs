//! What can go wrong with records.

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
    },
    /// Reading failed in the engine.
    #[error("read records: {0}")]
    Read(String),
    /// Writing failed in the engine; the store takes no more changes until it is opened again.
    #[error("the store is read-only: writing records failed: {0}")]
    ReadOnly(String),
    /// A system call beside the engine failed.
    #[error("{0}")]
    Sys(String, ErrorKind),
}

impl From<cairn_sys::Error> for Error {
    fn from(err: cairn_sys::Error) -> Error {
        Error::Sys(err.to_string(), err.kind())
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Corrupt { .. } => ErrorKind::DataLoss,
            Error::Nul(_) => ErrorKind::InvalidArgument,
            Error::TooLarge { .. } => ErrorKind::ResourceExhausted,
            Error::Open { .. } | Error::Read(_) => ErrorKind::Internal,
            Error::ReadOnly(_) => ErrorKind::Unavailable,
            Error::Sys(_, kind) => *kind,
        }
    }
}
