//! Why a layer was not applied: which entry, what was attempted, and whose fault it is.

use cairn_types::{Classified, ErrorKind};

use crate::{
    inflate::InflateError,
    path::{PathError, shown},
    tar::TarError,
};

/// A layer that was not applied, in whole or in part: the directory is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream could not be unpacked.
    #[error(transparent)]
    Inflate(#[from] InflateError),
    /// The stream is no tar, or one that is refused.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The uncompressed stream is longer than [`Options::max_bytes`](crate::Options::max_bytes).
    #[error("unpack layer: more than {limit} bytes uncompressed")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// An entry asks for something that no layer may have.
    #[error("apply entry \"{entry}\" at byte {offset}: {refusal}")]
    Refused {
        /// The path as written, escaped.
        entry: String,
        /// Where its first header begins in the uncompressed stream, in bytes.
        offset: u64,
        /// What is wrong with it.
        refusal: Refusal,
    },
    /// The system failed while an entry was written.
    #[error("apply entry \"{entry}\"")]
    Write {
        /// The path as written, escaped.
        entry: String,
        /// Which call failed on which object.
        source: cairn_sys::Error,
    },
    /// The system failed on the layer as a whole.
    #[error("{attempted}")]
    Layer {
        /// What was attempted, as in "count the layer's usage".
        attempted: &'static str,
        /// Which call failed on which object.
        source: cairn_sys::Error,
    },
    /// An invented directory could not take the attributes of the layers below.
    #[error("adopt attributes for directory \"/{path}\"")]
    Adopt {
        /// Relative to the layer's root, escaped.
        path: String,
        /// Which call failed on which object.
        source: cairn_sys::Error,
    },
    /// The thread that reads the layer could not be started or broke off.
    #[error("unpack layer: {0}")]
    Thread(String),
}

/// What is wrong with an entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The path itself.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The root of a layer can only be a directory.
    #[error("the root of a layer must be a directory")]
    Root,
    /// A parent that this layer made something else than a directory.
    #[error("its parent \"{0}\" is not a directory")]
    Parent(String),
    /// More links on the way than the kernel would follow, or a link without target.
    #[error("its parents lead through too many or too long symbolic links")]
    Links,
    /// A few entries can need millions of directories, each with a path of its own.
    #[error("the paths of the layer's directories take more than {limit} bytes")]
    Directories {
        /// The limit in bytes.
        limit: usize,
    },
    /// A whiteout that is not an empty regular file.
    #[error("a whiteout must be an empty regular file")]
    Whiteout,
    /// A character device 0:0 is overlay's own mark for a deleted name.
    #[error("a character device 0:0 would forge a whiteout")]
    ForgedWhiteout,
    /// More than the kernel's 12 bits of major and 20 of minor number.
    #[error("device number {major}:{minor} is out of range")]
    Device {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A symbolic link that leads nowhere at all.
    #[error("a symbolic link needs a target")]
    EmptyLink,
    /// The target of a hard link is a path that is refused.
    #[error("hard link to \"{target}\": {reason}")]
    LinkPath {
        /// As written, escaped.
        target: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// The target of a hard link is not in this layer (yet).
    #[error("hard link to \"{target}\": the layer has no such file before this entry")]
    LinkMissing {
        /// As written, escaped.
        target: String,
    },
    /// Only files can have two names.
    #[error("hard link to \"{target}\": the target is a directory")]
    LinkDirectory {
        /// As written, escaped.
        target: String,
    },
    /// A hard link that names itself.
    #[error("hard link to \"{target}\": the target is the entry itself")]
    LinkSelf {
        /// As written, escaped.
        target: String,
    },
}

impl Error {
    pub(crate) fn refused(entry: &[u8], refusal: impl Into<Refusal>) -> Error {
        Error::Refused {
            entry: shown(entry),
            offset: 0,
            refusal: refusal.into(),
        }
    }

    /// Says where in the stream a refused entry begins.
    pub(crate) fn at(mut self, entry_offset: u64) -> Error {
        if let Error::Refused { offset, .. } = &mut self {
            *offset = entry_offset;
        }
        self
    }

    pub(crate) fn write(entry: &[u8]) -> impl Fn(cairn_sys::Error) -> Error {
        move |source| Error::Write {
            entry: shown(entry),
            source,
        }
    }

    pub(crate) fn layer(attempted: &'static str) -> impl Fn(cairn_sys::Error) -> Error {
        move |source| Error::Layer { attempted, source }
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::Inflate(err) => err.kind(),
            Error::Tar(err) => err.kind(),
            Error::TooLarge { .. } => ErrorKind::ResourceExhausted,
            Error::Refused { .. } => ErrorKind::InvalidArgument,
            Error::Write { source, .. }
            | Error::Layer { source, .. }
            | Error::Adopt { source, .. } => source.kind(),
            Error::Thread(_) => ErrorKind::Internal,
        }
    }
}
