//! What can go wrong with blobs and uploads.

use cairn_meta::ReadOnly;
use cairn_types::{Classified, Digest, ErrorKind, IngestRef, LabelError, Namespace};

/// An error of the content store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The namespace has no such blob.
    #[error("blob {digest} not found in namespace {ns}")]
    NotFound {
        /// Which blob.
        digest: Digest,
        /// Where it was looked for.
        ns: Namespace,
    },
    /// The namespace has it already.
    #[error("blob {digest} already exists in namespace {ns}")]
    Exists {
        /// Which blob.
        digest: Digest,
        /// Where.
        ns: Namespace,
    },
    /// No upload of that name is known.
    #[error("ingest {reference} not found in namespace {ns}")]
    NoIngest {
        /// Which upload.
        reference: IngestRef,
        /// Where it was looked for.
        ns: Namespace,
    },
    /// Somebody else is writing to the same upload.
    #[error("ingest {reference} is locked by another writer")]
    Locked {
        /// Which upload.
        reference: IngestRef,
    },
    /// The bytes at hand are more or fewer than announced.
    #[error("commit {what}: content has {actual} bytes, the writer expected {expected}")]
    Size {
        /// Which upload or document.
        what: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes there.
        actual: u64,
    },
    /// The bytes at hand are not the expected ones.
    #[error("commit {what}: content is {actual}, the writer expected {expected}")]
    Digest {
        /// Which upload or document.
        what: String,
        /// As announced.
        expected: Digest,
        /// As computed.
        actual: Digest,
    },
    /// A document is longer than its reader takes.
    #[error("read blob {digest}: it has {size} bytes, more than {limit}")]
    TooLarge {
        /// Which blob.
        digest: Digest,
        /// Its bytes.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The file of a recorded blob is gone, cut, or has other bytes.
    #[error("blob {digest} is damaged: {reason}")]
    Damaged {
        /// Which blob.
        digest: Digest,
        /// How it is seen.
        reason: String,
    },
    /// A label that may not be set.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A failed sync, now or earlier: what later syncs say can no longer be believed.
    #[error("{0}")]
    ReadOnly(ReadOnly),
    /// A system call failed.
    #[error("{attempted}")]
    Sys {
        /// What was attempted, on which object.
        attempted: String,
        /// The call.
        source: cairn_sys::Error,
    },
    /// The records could not be read or written.
    #[error(transparent)]
    Meta(#[from] cairn_meta::Error),
}

/// The result of an operation on the content store.
pub type Result<T> = std::result::Result<T, Error>;

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound { .. } | Error::NoIngest { .. } => ErrorKind::NotFound,
            Error::Exists { .. } => ErrorKind::AlreadyExists,
            Error::Locked { .. } => ErrorKind::Unavailable,
            Error::ReadOnly(broken) => broken.kind(),
            Error::Size { .. } | Error::Digest { .. } => ErrorKind::FailedPrecondition,
            Error::TooLarge { .. } => ErrorKind::ResourceExhausted,
            Error::Damaged { .. } => ErrorKind::DataLoss,
            Error::Label(err) => err.kind(),
            Error::Sys { source, .. } => match source.kind() {
                // Of our own files: neither may be taken for an answer about blobs.
                ErrorKind::NotFound | ErrorKind::AlreadyExists => ErrorKind::Internal,
                kind => kind,
            },
            Error::Meta(err) => err.kind(),
        }
    }
}

/// Adds to a failed system call what it was good for.
pub(crate) fn sys(attempted: impl Into<String>) -> impl FnOnce(cairn_sys::Error) -> Error {
    let attempted = attempted.into();
    move |source| Error::Sys { attempted, source }
}

/// The same for the standard library's calls on files of ours.
pub(crate) fn io(
    attempted: impl Into<String>,
    op: &'static str,
) -> impl FnOnce(std::io::Error) -> Error {
    let attempted = attempted.into();
    move |err| Error::Sys {
        source: cairn_sys::Error::of_io(op, attempted.clone(), &err),
        attempted,
    }
}
