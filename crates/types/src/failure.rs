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

/// Most bytes of a part that is to be read.
const PART_BYTES_MAX: usize = 1024;

/// Most causes, and most steps.
const PARTS_MAX: usize = 16;

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

    /// The same in a length that can be read and sent. Parts may quote what an image or a registry says,
    /// which can be megabytes, or thousands of platforms.
    #[must_use]
    pub fn bounded(mut self) -> Failure {
        let parts = &mut *self.0;
        cut(&mut parts.reason);
        parts.object.iter_mut().for_each(|(_, name)| cut(name));
        parts.location.iter_mut().for_each(cut);
        if parts.causes.len() > PARTS_MAX {
            let more = parts.causes.len() - (PARTS_MAX - 1);
            parts.causes.truncate(PARTS_MAX - 1);
            parts.causes.push(format!("and {more} more"));
        }
        parts.causes.iter_mut().for_each(cut);
        // A piece of a command is another command.
        let is_whole = |step: &String| step.len() <= PART_BYTES_MAX;
        parts.next.retain(is_whole);
        parts.next.truncate(PARTS_MAX);
        parts.other_platform = parts.other_platform.take().filter(is_whole);
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

/// Cuts a text that is too long, and shows that.
fn cut(text: &mut String) {
    if text.len() > PART_BYTES_MAX {
        let fits = |(at, _): &(usize, char)| *at <= PART_BYTES_MAX;
        let end = text.char_indices().take_while(fits).last();
        text.truncate(end.map_or(0, |(at, _)| at));
        text.push('…');
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
    fn what_is_shown_has_a_length() {
        let platform = "linux/ü".repeat(1 << 19);
        let mut failure = Failure::new(ErrorKind::NotFound, "pull image", platform.clone())
            .object("image", "x".repeat(1 << 20))
            .at(platform.clone())
            .other_platform(platform.clone());
        for number in 0..10_000 {
            failure = failure.cause(format!("cause {number}"));
            failure = failure.next(format!("step {number}"));
        }
        failure.causes[3].clone_from(&platform);
        failure.next[3].clone_from(&platform);
        let bounded = failure.bounded();
        assert!(bounded.reason.starts_with("linux/ü"));
        assert!(bounded.reason.ends_with('…') && bounded.reason.len() < 1100);
        assert_eq!(bounded.causes.len(), 16);
        assert_eq!(bounded.causes[15], "and 9985 more");
        assert!(bounded.causes.iter().all(|cause| cause.len() < 1100));
        assert_eq!(bounded.next.len(), 16);
        assert_eq!(bounded.next[3], "step 4");
        assert_eq!(bounded.other_platform, None);
        assert!(bounded.to_string().len() < 2300);
        // What can be read stays as it is.
        let short = Failure::new(ErrorKind::NotFound, "a", "x".repeat(1024))
            .cause("c")
            .next("n");
        assert_eq!(short.clone().bounded(), short);
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
