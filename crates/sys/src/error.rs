//! One error for every system call: which call, on what, and what the kernel said.

use cairn_types::{Classified, ErrorKind};
use rustix::io::Errno;

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed system call; prints like strace: `openat2 /var/lib/cairn/content: No space left on
/// device`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{op} {object}: {}", std::io::Error::from(*errno))]
pub struct Error {
    op: &'static str,
    object: String,
    errno: Errno,
}

impl Error {
    /// Names a failure of `op` on `object`.
    pub fn new(op: &'static str, object: impl Into<String>, errno: Errno) -> Error {
        Error {
            op,
            object: object.into(),
            errno,
        }
    }

    /// The same for errors of the standard library; one without a number becomes `EIO`.
    pub fn of_io(op: &'static str, object: impl Into<String>, err: &std::io::Error) -> Error {
        let errno = Errno::from_io_error(err).unwrap_or_else(|| match err.kind() {
            std::io::ErrorKind::UnexpectedEof => Errno::NODATA,
            std::io::ErrorKind::InvalidInput => Errno::INVAL,
            _ => Errno::IO,
        });
        Error::new(op, object, errno)
    }

    /// The kernel's number.
    pub fn errno(&self) -> Errno {
        self.errno
    }

    /// Whether it is this number.
    pub fn is(&self, errno: Errno) -> bool {
        self.errno == errno
    }

    /// What the kernel said, in lower case and without its number.
    pub fn words(&self) -> String {
        let text = std::io::Error::from(self.errno).to_string();
        let text = text.split(" (os error ").next().unwrap_or_default();
        let mut chars = text.chars();
        let first = chars.next().map(|c| c.to_ascii_lowercase());
        first.into_iter().chain(chars).collect()
    }

    /// The system call.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// What it was called on.
    pub fn object(&self) -> &str {
        &self.object
    }
}

impl Classified for Error {
    fn kind(&self) -> ErrorKind {
        match self.errno {
            Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
                ErrorKind::ResourceExhausted
            }
            Errno::NOENT => ErrorKind::NotFound,
            Errno::EXIST => ErrorKind::AlreadyExists,
            Errno::ACCESS | Errno::PERM => ErrorKind::PermissionDenied,
            Errno::BUSY => ErrorKind::FailedPrecondition,
            _ => ErrorKind::Internal,
        }
    }
}
