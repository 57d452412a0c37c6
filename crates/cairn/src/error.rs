//! Errors as people and programs read them: one greppable line, then what helps.
//!
//! Nothing here decides what went wrong; it only writes it down. Lines that would repeat what
//! another already says are left out by whoever fills in the problem.

use std::{
    fmt,
    ops::{Deref, DerefMut},
};

use cairn_types::ErrorKind;

use crate::{
    again,
    args::{Global, NAMESPACE},
    model,
    out::{Out, Style, paint},
};

/// Columns from the margin of a detail line to its value: the longest label and a blank.
const LABEL_WIDTH: usize = "namespace: ".len();

/// What could not be done, to what, why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The class, for programs and for the exit code.
    pub kind: ErrorKind,
    /// Verb and kind, as `inspect image`; empty when nothing was attempted.
    pub attempted: String,
    /// Kind and name of the object, unquoted.
    pub object: Option<(String, String)>,
    /// Lower case, no full stop.
    pub reason: String,
    /// Where it was looked for.
    pub namespace: Option<String>,
    /// Stands in brackets behind the namespace.
    pub namespace_note: Option<String>,
    /// Other namespaces that have it.
    pub found_in: Vec<String>,
    /// The chain, outermost first.
    pub causes: Vec<String>,
    /// A file and a place in it.
    pub location: Option<String>,
    /// One command to paste each.
    pub next: Vec<String>,
    /// A platform for which the same would work.
    pub other_platform: Option<String>,
    /// Wrong usage: nothing was attempted, exit code 2.
    pub usage: bool,
}

/// A failed command. Boxed, so that the happy path carries one pointer; its fields are [`Parts`]'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(Box<Parts>);

impl Deref for Problem {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl DerefMut for Problem {
    fn deref_mut(&mut self) -> &mut Parts {
        &mut self.0
    }
}

impl Problem {
    /// `cannot ATTEMPTED NAME: REASON`. The object's kind is the last word of `attempted`.
    pub fn new(kind: ErrorKind, attempted: &str, name: &str, reason: impl Into<String>) -> Problem {
        let noun = attempted.split_once(' ').map_or("", |(_, noun)| noun);
        Problem(Box::new(Parts {
            kind,
            attempted: attempted.to_owned(),
            object: (!name.is_empty()).then(|| (noun.to_owned(), name.to_owned())),
            reason: reason.into(),
            namespace: None,
            namespace_note: None,
            found_in: Vec::new(),
            causes: Vec::new(),
            location: None,
            next: Vec::new(),
            other_platform: None,
            usage: false,
        }))
    }

    /// A sentence of its own, answered with exit code 2.
    pub fn usage(sentence: impl Into<String>) -> Problem {
        let mut problem = Problem::new(ErrorKind::InvalidArgument, "", "", sentence);
        problem.usage = true;
        problem
    }

    /// What the parser of the command line says, as its text has it: a sentence, what that is about
    /// on indented lines below it, and a tip.
    pub fn of_usage(text: &str) -> Problem {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let Some(sentence) = first.strip_prefix("error: ") else {
            return Problem::usage("a command is missing").next("cairn --help");
        };
        let mut problem = Problem::usage(sentence.trim_end_matches(':'));
        let about = lines.by_ref().take_while(|line| line.starts_with("  "));
        problem.causes = about.map(|line| line.trim().to_owned()).collect();
        let tips = lines.filter_map(|line| line.trim_start().strip_prefix("tip: "));
        problem.next = tips.map(str::to_owned).collect();
        problem
    }

    /// Wrong usage after all: exit code 2.
    #[must_use]
    pub fn into_usage(mut self) -> Problem {
        self.usage = true;
        self
    }

    /// Adds one `cause:` line.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<String>) -> Problem {
        self.causes.push(cause.into());
        self
    }

    /// Adds one `next:` line.
    #[must_use]
    pub fn next(mut self, command: impl Into<String>) -> Problem {
        self.next.push(command.into());
        self
    }

    /// Completes the commands of `next` with the flags that lead to the same store and namespace:
    /// they are there to be pasted.
    #[must_use]
    pub fn pointed_at(mut self, global: &Global) -> Problem {
        for next in &mut self.next {
            *next = pointed(next, global);
        }
        self.repeated()
    }

    /// Two things are mended by the same command with another flag: what another namespace has, and
    /// what is there for another platform.
    fn repeated(mut self) -> Problem {
        if self.usage {
            return self;
        }
        if let ([], Some(other)) = (&*self.next, self.found_in.first()) {
            let command = again::in_namespace(other);
            return self.next(command);
        }
        if let Some(other) = self.other_platform.take() {
            // Where several were typed, which one is meant is for a person to see.
            let command = again::for_platform(&other);
            self.next
                .push(command.unwrap_or_else(|| format!("--platform {other}")));
        }
        self
    }

    /// 1 failed, 2 wrong usage.
    pub fn exit_code(&self) -> u8 {
        if self.usage { 2 } else { 1 }
    }

    /// The first line without its `error: `.
    pub fn message(&self) -> String {
        let reason = escape(&self.reason);
        match (&*self.attempted, &self.object) {
            ("", _) => reason,
            (attempted, None) => format!("cannot {attempted}: {reason}"),
            // The only name that is no file's.
            (attempted, Some((_, name))) if name == "standard input" => {
                format!("cannot {attempted} {name}: {reason}")
            }
            (attempted, Some((_, name))) => {
                format!("cannot {attempted} {}: {reason}", quote(name))
            }
        }
    }

    /// All lines, each with its end.
    pub fn render(&self, color: bool) -> String {
        let mut text = format!(
            "{}: {}\n",
            paint(color, Style::Red, "error"),
            self.message()
        );
        let mut detail = |label: &str, value: &str| {
            let padded = format!("{:LABEL_WIDTH$}", format!("{label}:"));
            let padded = match label {
                "next" => paint(color, Style::Cyan, &padded),
                _ => padded,
            };
            text.push_str(&format!("  {padded}{}\n", escape(value)));
        };
        if let Some(namespace) = self.namespace.as_ref().filter(|n| self.turns_on(n)) {
            match &self.namespace_note {
                Some(note) => detail("namespace", &format!("{namespace} ({note})")),
                None => detail("namespace", namespace),
            }
        }
        if !self.found_in.is_empty() {
            detail("found in", &self.found_in.join(", "));
        }
        self.causes.iter().for_each(|cause| detail("cause", cause));
        self.location
            .iter()
            .for_each(|place| detail("where", place));
        self.next.iter().for_each(|next| detail("next", next));
        text
    }

    /// The usual namespace is worth a line only where another could have made the difference: what
    /// is not found, and a name that is not given up.
    fn turns_on(&self, namespace: &str) -> bool {
        let missing = self.reason == "not found" || self.reason.ends_with("in this namespace");
        let name_kept = self.attempted == "remove image";
        namespace != NAMESPACE || missing || name_kept
    }

    /// The machine-readable form; every key is always there.
    pub fn document(&self) -> model::Failure {
        let object = self.object.as_ref().map(|(kind, name)| model::Object {
            kind: kind.clone(),
            name: name.clone(),
        });
        model::Failure {
            error: model::FailureParts {
                attempted: self.attempted.clone(),
                causes: self.causes.clone(),
                code: self.kind.code(),
                found_in: self.found_in.clone(),
                message: self.message(),
                namespace: self.namespace.clone(),
                next: self.next.clone(),
                object,
            },
        }
    }

    /// [`Problem::document`] on one line.
    pub fn json(&self) -> String {
        serde_json::to_string(&self.document()).expect("texts under text keys")
    }

    /// Writes it to standard error in the form that was asked for.
    pub fn report(&self, out: &Out, json: bool) {
        if json {
            out.error_text(&format!("{}\n", self.json()));
        } else {
            out.error_text(&self.render(out.stderr.color));
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl std::error::Error for Problem {}

impl cairn_types::Classified for Problem {
    fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<cairn_types::NameError> for Problem {
    fn from(err: cairn_types::NameError) -> Problem {
        let mut problem = Problem::new(ErrorKind::InvalidArgument, "", "", err.to_string());
        // Docker's most common slip has an obvious repair; other texts are not guessed at.
        if let cairn_types::NameError::Grammar {
            what: "reference",
            text,
            reason,
        } = &err
            && reason.contains("lower case")
        {
            problem.next.push(quote(&text.to_lowercase()));
        }
        problem
    }
}

/// Why a system call failed, in lower case and without its number.
pub fn io_reason(err: &std::io::Error) -> String {
    let text = err.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}

/// Commands of this program with the flags that lead to the same store and namespace.
pub fn pointed(commands: &str, global: &Global) -> String {
    let env = |name| std::env::var_os(name).unwrap_or_default();
    let namespace = global.namespace.as_str();
    let known = namespace == NAMESPACE || *namespace == *env("CONTAINERD_NAMESPACE");
    flagged(commands, global, (!known).then_some(namespace))
}

/// As [`pointed`], for what is about the whole store, in whichever namespace it was asked.
pub fn pointed_at_store(commands: &str, global: &Global) -> String {
    flagged(commands, global, None)
}

fn flagged(commands: &str, global: &Global, namespace: Option<&str>) -> String {
    let flags = global.pointers().unwrap_or_default();
    let mut parts: Vec<String> = Vec::new();
    for part in commands.split("cairn ") {
        let Some(before) = parts.last_mut() else {
            parts.push(part.to_owned());
            continue;
        };
        let ends = ["&& ", "; ", ": ", "$("];
        let command = before.is_empty() || ends.iter().any(|end| before.ends_with(end));
        before.push_str("cairn ");
        if command && !part.starts_with("--root ") && !part.starts_with("--address ") {
            before.pop();
            before.push_str(&flags);
            if let Some(namespace) = namespace.filter(|_| !part.starts_with("-n ")) {
                before.push_str(&format!(" -n {namespace}"));
            }
            before.push(' ');
        }
        parts.push(part.to_owned());
    }
    parts.concat()
}

/// A name as a shell takes it back: quoted when it needs it, control characters escaped.
pub fn quote(name: &str) -> String {
    let escaped = escape(name);
    match shlex::try_quote(&escaped) {
        Ok(quoted) => quoted.into_owned(),
        Err(_) => escaped, // Only for NUL, which `escape` has replaced.
    }
}

fn escape(text: &str) -> String {
    crate::table::printable(text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    const B: &str = "docker.io/library/busybox:1.36";

    #[test]
    fn the_rendered_example() {
        let mut problem = Problem::new(ErrorKind::NotFound, "inspect image", B, "not found")
            .next(format!("cairn -n k8s.io images inspect {B}"));
        problem.namespace = Some("default".to_owned());
        problem.found_in = vec!["k8s.io".to_owned()];
        assert_eq!(
            problem.render(false),
            "\
error: cannot inspect image docker.io/library/busybox:1.36: not found
  namespace: default
  found in:  k8s.io
  next:      cairn -n k8s.io images inspect docker.io/library/busybox:1.36
"
        );
        let painted = problem.render(true);
        assert!(
            painted.starts_with("\x1b[31merror\x1b[0m: cannot"),
            "{painted}"
        );
        assert_eq!(
            problem.json(),
            r#"{"error":{"attempted":"inspect image","causes":[],"code":"not_found","found_in":["k8s.io"],"message":"cannot inspect image docker.io/library/busybox:1.36: not found","namespace":"default","next":["cairn -n k8s.io images inspect docker.io/library/busybox:1.36"],"object":{"kind":"image","name":"docker.io/library/busybox:1.36"}}}"#
        );
    }

    #[test]
    fn nobody_has_it_but_one_is_near() {
        let typed = "docker.io/library/busybx:1.36";
        let mut problem = Problem::new(ErrorKind::NotFound, "export image", typed, "not found")
            .cause(format!("nearest name: {B}"))
            .next("cairn images ls");
        problem.namespace = Some("default".to_owned());
        problem.namespace_note = Some("2 images; no other namespace has it".to_owned());
        assert_eq!(
            problem.render(false),
            "\
error: cannot export image docker.io/library/busybx:1.36: not found
  namespace: default (2 images; no other namespace has it)
  cause:     nearest name: docker.io/library/busybox:1.36
  next:      cairn images ls
"
        );
    }

    #[test]
    fn a_bad_reference_is_a_sentence_with_its_repair() {
        let err = cairn_types::ImageName::normalize("Busybox:1.36").expect_err("upper case");
        assert_eq!(
            Problem::from(err).render(false),
            "error: invalid reference \"Busybox:1.36\": repository must be lower case\n  \
             next:      busybox:1.36\n"
        );
    }

    #[test]
    fn what_comes_next_leads_to_the_same_store() {
        let check = |line: &str, next: &str, pointed: &str| {
            let cli = crate::args::Cli::try_parse_from(line.split(' ')).expect(line);
            let problem = Problem::usage("no").next(next).pointed_at(&cli.global);
            assert_eq!(problem.next, [pointed], "{line}");
        };
        check("cairn df", "cairn gc", "cairn gc");
        check("cairn df -n dev", "cairn gc", "cairn -n dev gc");
        check(
            "cairn df -n dev --root /r",
            "cairn a B && cairn b; sudo cairn c",
            "cairn --root /r -n dev a B && cairn --root /r -n dev b; sudo cairn c",
        );
        check(
            "cairn df --root /r",
            "cairn -n dev images rm $(cairn -n dev images ls -q)",
            "cairn --root /r -n dev images rm $(cairn --root /r -n dev images ls -q)",
        );
        check(
            "cairn df -n dev",
            "cairn -n k8s.io images ls",
            "cairn -n k8s.io images ls",
        );
        check(
            "cairn df -n dev",
            "leave out --address",
            "leave out --address",
        );
        check(
            "cairn df -a /run/x.sock",
            "cairn gc; cairn df",
            "cairn --address /run/x.sock gc; cairn --address /run/x.sock df",
        );
    }

    #[test]
    fn what_is_about_the_store_has_no_namespace() {
        let line = "cairn df -n dev --root /r";
        let cli = crate::args::Cli::try_parse_from(line.split(' ')).expect(line);
        let pointed = pointed_at_store("cairn fsck", &cli.global);
        assert_eq!(pointed, "cairn --root /r fsck");
    }

    #[test]
    fn what_the_parser_says_is_a_document() {
        let of = |line: &str| {
            let err = crate::args::Cli::try_parse_from(line.split(' ')).expect_err(line);
            let problem = Problem::of_usage(&err.render().to_string());
            assert_eq!(problem.exit_code(), 2);
            (
                problem.message(),
                problem.causes.clone(),
                problem.next.clone(),
            )
        };
        let tip = "a similar argument exists: '--wide'".to_owned();
        let unknown = "unexpected argument '--wid' found".to_owned();
        assert_eq!(of("cairn images ls --wid"), (unknown, vec![], vec![tip]));
        let missing = "the following required arguments were not provided".to_owned();
        let names = vec!["<SRC>".to_owned(), "<DST>...".to_owned()];
        assert_eq!(of("cairn tag"), (missing, names, vec![]));
        let nothing = (
            "a command is missing".to_owned(),
            vec![],
            vec!["cairn --help".to_owned()],
        );
        assert_eq!(of("cairn"), nothing);
    }

    #[test]
    fn names_come_out_as_a_shell_takes_them() {
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("a'b"), "\"a'b\"");
        assert_eq!(quote("a\x1b[2J"), "\"a\\\\u{1b}[2J\"");
        assert_eq!(quote(B), B);
        let problem = Problem::new(ErrorKind::NotFound, "import", "my notes.txt", "bad\nthing");
        assert_eq!(
            problem.message(),
            "cannot import 'my notes.txt': bad\\nthing"
        );
        assert_eq!(problem.exit_code(), 1);
        assert_eq!(Problem::usage("no").exit_code(), 2);
    }
}
