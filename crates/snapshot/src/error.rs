//! What can go wrong with snapshots: containerd's classes, and the words its clients look for.

use std::path::PathBuf;

use cairn_meta::ReadOnly;
use cairn_types::{Classified, ErrorKind, LabelError, SnapshotKey};

/// An error of the snapshotter.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No snapshot of that key in the namespace.
    #[error("snapshot {key} not found")]
    NotFound {
        /// Which.
        key: SnapshotKey,
    },
    /// The key or name is taken.
    #[error("snapshot {key} already exists")]
    Exists {
        /// Which.
        key: SnapshotKey,
    },
    /// The parent named does not exist.
    #[error("parent snapshot {parent} of {key} not found")]
    NoParent {
        /// What was to be made.
        key: SnapshotKey,
        /// What it was to stand on.
        parent: SnapshotKey,
    },
    /// Only a committed snapshot can be a parent.
    #[error("parent {parent} of {key} is not a committed snapshot")]
    ParentNotCommitted {
        /// What was to be made.
        key: SnapshotKey,
        /// What it was to stand on.
        parent: SnapshotKey,
    },
    /// As [`Error::ParentNotCommitted`], when a snapshot that is there shall be put on another.
    #[error("{key} cannot be put on {parent}, which is not a committed snapshot")]
    CannotStandOn {
        /// What was to be committed.
        key: SnapshotKey,
        /// What it was to stand on.
        parent: SnapshotKey,
    },
    /// Only an active snapshot can be committed.
    #[error("snapshot {key} is not active")]
    NotActive {
        /// Which.
        key: SnapshotKey,
    },
    /// Only active snapshots and views have mounts.
    #[error("snapshot {key} is committed and cannot be mounted itself")]
    Committed {
        /// Which.
        key: SnapshotKey,
    },
    /// Others stand on it. (Clients look for "cannot remove snapshot with child".)
    #[error(
        "cannot remove snapshot with child: {key} is the parent of {}",
        list(children)
    )]
    HasChildren {
        /// Which.
        key: SnapshotKey,
        /// What stands on it.
        children: Vec<SnapshotKey>,
    },
    /// The kernel would refuse the mount.
    #[error("snapshot {key} would stand on more than {limit} others, the kernel's limit")]
    TooDeep {
        /// Which.
        key: SnapshotKey,
        /// Layers that can be mounted.
        limit: usize,
    },
    /// What a record speaks of is not there.
    #[error("snapshot {key} is damaged: {reason}")]
    Damaged {
        /// Which.
        key: SnapshotKey,
        /// What is missing.
        reason: String,
    },
    /// Somebody looks at the files of a directory that is to go.
    #[error("directory {name} among the snapshots is mounted at {}", at.display())]
    Mounted {
        /// Which.
        name: String,
        /// Where.
        at: PathBuf,
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

/// The result of an operation on snapshots.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the records may hold what was to be written although writing failed. Then its files
    /// stay, and the next recovery, which sees what was really written, decides.
    pub(crate) fn may_be_recorded(&self) -> bool {
        matches!(self, Error::Meta(cairn_meta::Error::ReadOnly(_)))
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Error::NotFound { .. } | Error::NoParent { .. } => ErrorKind::NotFound,
            Error::Exists { .. } => ErrorKind::AlreadyExists,
            Error::ParentNotCommitted { .. } => ErrorKind::InvalidArgument,
            Error::NotActive { .. }
            | Error::CannotStandOn { .. }
            | Error::Committed { .. }
            | Error::HasChildren { .. }
            | Error::TooDeep { .. }
            | Error::Mounted { .. } => ErrorKind::FailedPrecondition,
            Error::Damaged { .. } => ErrorKind::DataLoss,
            Error::Label(err) => err.kind(),
            Error::ReadOnly(broken) => broken.kind(),
            Error::Sys { source, .. } => match source.kind() {
                // Of our own files: neither may be taken for an answer about snapshots.
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

/// The first few of many.
fn list(keys: &[SnapshotKey]) -> String {
    const SHOWN: usize = 5;
    let mut text: Vec<&str> = keys.iter().take(SHOWN).map(SnapshotKey::as_str).collect();
    if keys.len() > SHOWN {
        text.push("…");
    }
    text.join(", ")
}
