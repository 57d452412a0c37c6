//! An error for a person: a sentence, with what helps them next.
//!
//! Every room keeps its own typed errors. Where they meet what the user asked for they become a
//! [`Failure`]: what was attempted, on which object, why it failed, and what to do. Rendering it
//! (quoting, colour, JSON) is left to the program that shows it.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use crate::{Classified, ErrorKind};

/// What a [`Failure`] says, in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its class.
    pub kind: ErrorKind,
    /// Verb and kind of thing, as after "cannot": `import image`, `open`. Empty when the reason
    /// is a sentence of its own.
    pub attempted: String,
    /// Kind and name of what it was about: `("image", "docker.io/library/busybox:1.36")`.
    pub object: Option<(String, String)>,
    /// Why, in lower case and without a full stop.
    pub reason: String,
    /// The namespace that was looked in.
    pub namespace: Option<String>,
    /// Other namespaces that have the object.
    pub found_in: Vec<String>,
    /// The chain of causes, outermost first, without `reason`.
    pub causes: Vec<String>,
    /// File, archive entry or line.
    pub location: Option<String>,
    /// Commands or steps that lead on; each stands alone.
    pub next: Vec<String>,
    /// What is not there for the platform that was asked for is there for this one.
    pub other_platform: Option<String>,
}

/// A failed request. Boxed, so that the happy path carries one pointer; its fields are those of
/// [`Report`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(Box<Report>);

impl Failure {
    /// A failure of class `kind`: cannot `attempted` …: `reason`.
    pub fn new(
        kind: ErrorKind,
        attempted: impl Into<String>,
        reason: impl Into<String>,
    ) -> Failure {
        Failure(Box::new(Report {
            kind,
            attempted: attempted.into(),
            object: None,
            reason: reason.into(),
            namespace: None,
            found_in: Vec::new(),
            causes: Vec::new(),
            location: None,
            next: Vec::new(),
            other_platform: None,
        }))
    }

    /// Takes another room's error: its message is the reason, its sources are the causes.
    pub fn of(attempted: impl Into<String>, err: &dyn Classified) -> Failure {
        let mut failure = Failure::new(err.kind(), attempted, err.to_string());
        failure.push_sources(err.source());
        failure
    }

    /// As [`Failure::of`], but with a reason of one's own; the error becomes the first cause.
    pub fn because(
        attempted: impl Into<String>,
        reason: impl Into<String>,
        err: &dyn Classified,
    ) -> Failure {
        let mut failure = Failure::new(err.kind(), attempted, reason).cause(err.to_string());
        failure.push_sources(err.source());
        failure
    }

    fn push_sources(&mut self, mut source: Option<&(dyn std::error::Error + 'static)>) {
        while let Some(err) = source {
            let text = err.to_string();
            // A message that already ends in its source's would say it twice.
            if !self.reason.ends_with(&text) && !self.causes.iter().any(|c| c.ends_with(&text)) {
                self.causes.push(text);
            }
            source = err.source();
        }
    }

    /// Names the object.
    #[must_use]
    pub fn object(mut self, kind: &str, name: impl fmt::Display) -> Failure {
        self.0.object = Some((kind.to_owned(), name.to_string()));
        self
    }

    /// Names the namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl fmt::Display) -> Failure {
        self.0.namespace = Some(namespace.to_string());
        self
    }

    /// Adds a cause.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Failure {
        self.0.causes.push(cause.into());
        self
    }

    /// Says where: a file, an archive's entry.
    #[must_use]
    pub fn at(mut self, location: impl Into<String>) -> Failure {
        self.0.location = Some(location.into());
        self
    }

    /// Names a platform for which the same would work.
    #[must_use]
    pub fn other_platform(mut self, platform: impl Into<String>) -> Failure {
        self.0.other_platform = Some(platform.into());
        self
    }

    /// Adds a step that leads on.
    #[must_use]
    pub fn next(mut self, step: impl Into<String>) -> Failure {
        self.0.next.push(step.into());
        self
    }
}

impl Deref for Failure {
    type Target = Report;
    fn deref(&self) -> &Report {
        &self.0
    }
}

impl DerefMut for Failure {
    fn deref_mut(&mut self) -> &mut Report {
        &mut self.0
    }
}

impl fmt::Display for Failure {
    /// The first line, complete in itself; the rest is for the program that renders it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.attempted.is_empty() {
            return f.write_str(&self.reason);
        }
        write!(f, "cannot {}", self.attempted)?;
        if let Some((_, name)) = &self.object {
            write!(f, " {}", name.escape_debug())?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl std::error::Error for Failure {}

impl Classified for Failure {
    fn kind(&self) -> ErrorKind {
        self.0.kind
    }
}

/// Why a system call failed, in lower case and without its number.
pub fn words(err: &std::io::Error) -> String {
    let text = err.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_for_people() {
        let err = std::io::Error::from_raw_os_error(28);
        assert_eq!(words(&err), "no space left on device");
    }

    #[test]
    fn the_first_line_is_complete() {
        let failure = Failure::new(ErrorKind::NotFound, "inspect image", "not found")
            .object("image", "docker.io/library/busybox:1.36")
            .namespace("default")
            .next("cairn images ls");
        assert_eq!(
            failure.to_string(),
            "cannot inspect image docker.io/library/busybox:1.36: not found"
        );
        assert_eq!(failure.kind(), ErrorKind::NotFound);
    }
}
