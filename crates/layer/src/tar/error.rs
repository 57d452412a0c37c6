//! Why an archive is refused, at which entry and where in the stream.

use std::io;

use cairn_types::{Classified, ErrorKind};

use crate::path::shown;

/// An archive that could not be read on. The reader that gave it gives nothing more.
#[derive(Debug, thiserror::Error)]
#[error("read tar {} at byte {offset}", place(.entry.as_deref()))]
pub struct TarError {
    /// The entry's path, escaped, as far as it was known.
    entry: Option<String>,
    /// Where the entry's first header begins, in bytes.
    offset: u64,
    /// What is wrong.
    #[source]
    problem: Problem,
}

impl TarError {
    pub(super) fn new(path: &[u8], offset: u64, problem: Problem) -> TarError {
        TarError {
            entry: (!path.is_empty()).then(|| shown(path)),
            offset,
            problem,
        }
    }

    /// What is wrong.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Where the header of the entry begins in the stream, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

fn place(entry: Option<&str>) -> String {
    entry.map_or_else(|| "header".to_owned(), |path| format!("entry \"{path}\""))
}

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The stream itself failed.
    #[error("the stream failed")]
    Io(#[source] io::Error),
    /// The stream ends within something.
    #[error("the stream ends inside its {0}")]
    Truncated(&'static str),
    /// Not a header, or a damaged one.
    #[error("the header's checksum is wrong")]
    Checksum,
    /// A magic that no known format has.
    #[error("unknown header format \"{}\"", .0.escape_ascii())]
    Magic([u8; 8]),
    /// A type of entry that a layer cannot have.
    #[error("type '{}' ({}) is not supported", .0.escape_ascii(), type_name(*.0))]
    Type(u8),
    /// A number that is none, or too large to be told.
    #[error("the {0} field is no valid number")]
    Number(&'static str),
    /// An id beyond 2³²−2, or below zero.
    #[error("{0} {1} is out of range")]
    Id(&'static str, i128),
    /// A PAX record that breaks the format.
    #[error("malformed PAX record: {0}")]
    Record(&'static str),
    /// A PAX record whose value is not what its key wants.
    #[error("PAX record {0} has an invalid value")]
    Value(String),
    /// A global header that would change what all entries are.
    #[error("a global header may not set {0}")]
    Global(String),
    /// Two sources for the same fact, which programs rank differently.
    #[error("ambiguous: {0}")]
    Ambiguous(&'static str),
    /// Extension headers and then no entry.
    #[error("extension headers without an entry")]
    Dangling,
    /// A path of no bytes.
    #[error("its path is empty")]
    EmptyPath,
    /// A NUL within a path or link target.
    #[error("its {0} has a NUL byte")]
    Nul(&'static str),
    /// A sparse map that contradicts itself or its file.
    #[error("sparse map: {0}")]
    Sparse(&'static str),
    /// More than [`Limits`](super::Limits) allow.
    #[error("{what} above the limit of {limit}")]
    Limit {
        /// What there is too much of, with its unit.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The reader was asked again after it had failed.
    #[error("an earlier error ended this archive")]
    Broken,
}

fn type_name(flag: u8) -> &'static str {
    match flag {
        b'A' => "Solaris access control list",
        b'D' => "GNU directory dump",
        b'E' => "Solaris extended attribute",
        b'I' => "star inode metadata",
        b'M' => "continued from another volume",
        b'N' => "old GNU long names",
        b'S' => "sparse file of a format other than GNU",
        b'V' => "volume label",
        b'X' => "Solaris extended header",
        _ => "unknown",
    }
}

impl Classified for TarError {
    fn kind(&self) -> ErrorKind {
        match self.problem {
            Problem::Io(_) => ErrorKind::Internal,
            Problem::Limit { .. } => ErrorKind::ResourceExhausted,
            _ => ErrorKind::InvalidArgument,
        }
    }
}
