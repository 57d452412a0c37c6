//! The one closed list of error classes, shared by every room.

/// What kind of failure an error is: the classes of containerd's `errdefs` that Cairn answers with.
///
/// Domain errors keep their own types and say their class by [`Classified`]; only the edge turns a
/// class into a status code or an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The named thing exists already.
    AlreadyExists,
    /// What is on disk contradicts its digest, checksum or record.
    DataLoss,
    /// The state of the object forbids it (a snapshot with children, a wrong digest at commit).
    FailedPrecondition,
    /// The system failed in a way that is nobody's argument (an I/O error).
    Internal,
    /// The input is wrong whatever the state.
    InvalidArgument,
    /// The named thing does not exist.
    NotFound,
    /// Not supported by this build or kernel.
    Unimplemented,
    /// The caller's rights do not suffice.
    PermissionDenied,
    /// Disk, memory, descriptors or a configured limit are used up.
    ResourceExhausted,
    /// Busy now; the same call may succeed later (a locked ingest, a root in use).
    Unavailable,
    /// Stopped by the caller.
    Canceled,
}

impl ErrorKind {
    /// All classes.
    pub const ALL: [ErrorKind; 11] = [
        ErrorKind::AlreadyExists,
        ErrorKind::DataLoss,
        ErrorKind::FailedPrecondition,
        ErrorKind::Internal,
        ErrorKind::InvalidArgument,
        ErrorKind::NotFound,
        ErrorKind::Unimplemented,
        ErrorKind::PermissionDenied,
        ErrorKind::ResourceExhausted,
        ErrorKind::Unavailable,
        ErrorKind::Canceled,
    ];

    /// The class of a name that [`ErrorKind::code`] gave.
    pub fn from_code(code: &str) -> Option<ErrorKind> {
        ErrorKind::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The class in snake case, as gRPC names it, for machine-readable output.
    pub fn code(self) -> &'static str {
        match self {
            ErrorKind::AlreadyExists => "already_exists",
            ErrorKind::DataLoss => "data_loss",
            ErrorKind::FailedPrecondition => "failed_precondition",
            ErrorKind::Internal => "internal",
            ErrorKind::InvalidArgument => "invalid_argument",
            ErrorKind::NotFound => "not_found",
            ErrorKind::Unimplemented => "unimplemented",
            ErrorKind::PermissionDenied => "permission_denied",
            ErrorKind::ResourceExhausted => "resource_exhausted",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::Canceled => "canceled",
        }
    }
}

/// An error that knows its class.
pub trait Classified: std::error::Error {
    /// The class, decided where the error is made.
    fn kind(&self) -> ErrorKind;
}
