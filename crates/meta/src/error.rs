//! What can go wrong with records.

use std::{fmt, io, sync::Arc};

use cairn_types::{Classified, ErrorKind};

use crate::Timestamp;

/// Why and since when a store takes no changes, until it is opened again: a sync failed, and what later
/// ones say of the same pages can no longer be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadOnly {
    since: Timestamp,
    reason: String,
}

impl ReadOnly {
    /// From now on, for this reason.
    pub fn now(reason: impl Into<String>) -> ReadOnly {
        ReadOnly {
            since: Timestamp::now(),
            reason: reason.into(),
        }
    }

    /// The class of what cannot be done for it.
    pub fn kind(&self) -> ErrorKind {
        match kind_of_words(&self.reason) {
            // What it asks for is space, not patience.
            ErrorKind::ResourceExhausted => ErrorKind::ResourceExhausted,
            _ => ErrorKind::Unavailable,
        }
    }
}

impl fmt::Display for ReadOnly {
    /// The time is that of day, UTC, as the log has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self
            .since
            .0
            .div_euclid(1_000_000_000)
            .rem_euclid(24 * 60 * 60);
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        write!(
            f,
            "the store is read-only since {hours:02}:{minutes:02}:{:02} ({})",
            seconds % 60,
            self.reason
        )
    }
}

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
    /// A line of an export is not what it should be.
    #[error("line {line}: {reason}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An import was to go where there are records.
    #[error("there are records already, kept by {engine}")]
    Occupied {
        /// Which engine has them.
        engine: &'static str,
    },
    /// An export could not be read, written or stored.
    #[error("{attempted} exported records: {reason}")]
    Stream {
        /// Which of the three.
        attempted: &'static str,
        /// The system's or the engine's words.
        reason: String,
        /// A full disk, or anything else.
        kind: ErrorKind,
    },
    /// Reading failed in the engine.
    #[error("read records: {0}")]
    Read(String),
    /// Writing failed in the engine; the store takes no more changes until it is opened again.
    #[error("{0}")]
    ReadOnly(ReadOnly),
    /// The disk has no room left for records; they can be changed again as soon as it has.
    #[error("no space left for records ({free} bytes free, at least {needed} needed)")]
    Full {
        /// Bytes free on their file system.
        free: u64,
        /// Bytes without which none is begun.
        needed: u64,
    },
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
            Error::Nul(_) | Error::KeyTooLong { .. } | Error::Line { .. } => {
                ErrorKind::InvalidArgument
            }
            Error::TooLarge { .. } | Error::Full { .. } => ErrorKind::ResourceExhausted,
            Error::Open { kind, .. } | Error::Stream { kind, .. } => *kind,
            Error::OtherEngine { .. } | Error::Occupied { .. } => ErrorKind::FailedPrecondition,
            Error::Read(_) | Error::Nested => ErrorKind::Internal,
            Error::ReadOnly(broken) => broken.kind(),
            Error::Sys(err) => err.kind(),
        }
    }
}

/// The class of an error of which an engine hands on only the system's words.
pub(crate) fn kind_of_words(reason: &str) -> ErrorKind {
    match reason.contains("No space left on device") {
        true => ErrorKind::ResourceExhausted,
        false => ErrorKind::Internal,
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

/// Whether an I/O error that an engine hands on is of a file that is not as it was written, rather than of the
/// disk or the process.
pub(crate) fn is_damage(err: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, InvalidInput, NotFound, UnexpectedEof};
    matches!(
        err.kind(),
        InvalidData | InvalidInput | NotFound | UnexpectedEof
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_read_only_store_says() {
        let broken = |reason: &str| ReadOnly {
            since: Timestamp(1_795_840_267_000_000_001),
            reason: reason.to_owned(),
        };
        let failed = broken("sync failed: Input/output error (os error 5)");
        assert_eq!(
            failed.to_string(),
            "the store is read-only since 04:31:07 (sync failed: Input/output error (os error 5))"
        );
        assert_eq!(failed.kind(), ErrorKind::Unavailable);
        let full = broken("writing records failed: No space left on device (os error 28)");
        assert_eq!(full.kind(), ErrorKind::ResourceExhausted);
    }
}
