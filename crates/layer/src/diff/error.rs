//! Why no layer could be written.

use std::io;

use cairn_types::{Classified, ErrorKind};

use crate::path::{PATH_BYTES_MAX, shown};

/// A layer that was not written, or in part: what came out is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system failed on one of the trees.
    #[error("read \"/{path}\"")]
    Read {
        /// Relative to the root, escaped.
        path: String,
        /// Which call failed on which object.
        source: cairn_sys::Error,
    },
    /// What a tree shows was removed or replaced while it was being read.
    #[error("\"/{path}\" changed while it was read")]
    Changed {
        /// Relative to the root, escaped.
        path: String,
    },
    /// A name that would mean something else in a layer.
    #[error("\"/{path}\": a name that begins with \".wh.\" would delete another in a layer")]
    Marker {
        /// Relative to the root, escaped.
        path: String,
    },
    /// A path that no layer may have.
    #[error("\"/{path}\": the path is longer than {PATH_BYTES_MAX} bytes")]
    TooLong {
        /// Relative to the root, escaped.
        path: String,
    },
    /// A directory or file that refers to another one in the layers below.
    #[error("\"/{path}\" was written by an overlay mount with {feature}, which is not supported")]
    Feature {
        /// Relative to the root, escaped.
        path: String,
        /// The mount's option.
        feature: &'static str,
    },
    /// The layer could not be handed on.
    #[error("write layer")]
    Output(#[source] io::Error),
}

impl Error {
    pub(super) fn read(path: &[u8]) -> impl Fn(cairn_sys::Error) -> Error {
        let path = shown(path);
        move |source| Error::Read {
            path: path.clone(),
            source,
        }
    }

    pub(super) fn changed(path: &[u8]) -> Error {
        Error::Changed { path: shown(path) }
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Read { source, .. } => match source.kind() {
                // Of a name that was just listed: no answer about the snapshot.
                ErrorKind::NotFound | ErrorKind::AlreadyExists => ErrorKind::Internal,
                kind => kind,
            },
            Error::Changed { .. } => ErrorKind::Unavailable,
            Error::Marker { .. } | Error::TooLong { .. } => ErrorKind::FailedPrecondition,
            Error::Feature { .. } => ErrorKind::Unimplemented,
            Error::Output(err) => match err.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    ErrorKind::ResourceExhausted
                }
                _ => ErrorKind::Internal,
            },
        }
    }
}
