//! What is wrong with a directory or a file of hosts.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use cairn_types::{Classified, ErrorKind, Failure};

/// A file that cannot be read or says what it must not. Nothing is asked before it is mended: to go on
/// without it would be to ask other hosts than the ones that somebody chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsError {
    /// The file or directory.
    pub file: PathBuf,
    /// Line and column, from one, in characters.
    pub at: Option<(usize, usize)>,
    /// In lower case, without a full stop.
    pub reason: String,
    /// What to do.
    pub next: Option<String>,
    kind: ErrorKind,
}

impl HostsError {
    pub(super) fn unreadable(file: &Path, err: &io::Error) -> HostsError {
        HostsError {
            file: file.to_owned(),
            at: None,
            reason: err.to_string(),
            next: None,
            kind: match err.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
                _ => ErrorKind::Internal,
            },
        }
    }

    pub(super) fn wrong(file: &Path, text: &str, at: usize, reason: String) -> HostsError {
        HostsError {
            file: file.to_owned(),
            at: Some(position(text, at)),
            reason,
            next: None,
            kind: ErrorKind::InvalidArgument,
        }
    }

    pub(super) fn bad_name(host: &str) -> HostsError {
        HostsError {
            file: PathBuf::from(host),
            at: None,
            reason: "it is no name of a host".to_owned(),
            next: None,
            kind: ErrorKind::InvalidArgument,
        }
    }

    pub(super) fn next(mut self, step: impl Into<String>) -> HostsError {
        self.next = Some(step.into());
        self
    }

    /// What the user sees, whatever was to be done at the host.
    pub fn failure(&self) -> Failure {
        let failure = Failure::new(self.kind, "read", &*self.reason);
        let failure = failure.object("file", self.file.display());
        let failure = match self.at {
            Some(_) => failure.at(self.place()),
            None => failure,
        };
        match &self.next {
            Some(step) => failure.next(step),
            None => failure,
        }
    }

    /// The file, with line and column where there are any, as editors take it.
    pub fn place(&self) -> String {
        match self.at {
            Some((line, column)) => format!("{}:{line}:{column}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }
}

impl fmt::Display for HostsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.reason)
    }
}

impl std::error::Error for HostsError {}

impl Classified for HostsError {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

/// Line and column, from one, in characters, of a byte of a text.
pub(super) fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}
