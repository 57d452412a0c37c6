//! Commands, and what they say when they are done again.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use super::Verdict;
use crate::fault::Images;

/// A command as it is typed; `{i}` stands for the directory of the images, and `{a}` for one that is on
/// another disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Typed {
    pub(super) words: Vec<String>,
    /// A file of that directory for its standard input.
    pub(super) input: Option<String>,
    /// It is refused, and leaves something all the same.
    pub(super) fails: bool,
}

/// What is refused as done already, and in which words.
const DONE: [(&str, &[&str]); 2] = [
    (
        "already exists",
        &[
            "snapshots prepare ",
            "snapshots view ",
            "leases create ",
            "namespaces create ",
        ],
    ),
    (
        "not found",
        &[
            "snapshots commit ",
            "snapshots rm ",
            "content rm ",
            "content abort ",
            "leases rm ",
            "namespaces rm ",
            "images rm ",
        ],
    ),
];

impl Typed {
    pub(super) fn new(line: &str) -> Typed {
        Typed {
            words: line.split(' ').map(str::to_owned).collect(),
            input: None,
            fails: false,
        }
    }

    /// What is said of it when it has been done already; nothing when it is simply done again.
    pub(super) fn done(&self) -> Option<&'static str> {
        let title = self.title();
        let done = DONE.iter();
        let mut done = done.filter(|(_, verbs)| verbs.iter().any(|verb| title.contains(verb)));
        done.next().map(|(word, _)| *word)
    }

    /// Whether it has to do with a directory of another disk, which is not there any more.
    pub(super) fn is_of_bundle(&self) -> bool {
        self.words.first().is_some_and(|word| word == "bundle")
    }

    /// For people.
    pub(super) fn title(&self) -> String {
        self.words.join(" ")
    }

    /// How it ended, for people.
    pub(super) fn told(&self, output: &Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr);
        format!(
            "cairn {:?} ended with {}:\n{said}",
            self.words, output.status
        )
    }

    /// It is refused, and for what it lacks.
    pub(super) fn refused(&self, output: &Output) -> Verdict {
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() == Some(1) && said.contains("it has 25000 bytes, not 50000") {
            true => Ok(()),
            false => Err(self.told(output)),
        }
    }

    /// Adds it to a program.
    pub(super) fn add_to(&self, command: &mut Command, images: &Images, aside: &Path) -> Verdict {
        let dir = images.path();
        let shown = [dir.as_path(), aside].map(|dir| dir.display().to_string());
        let words = self.words.iter();
        command.args(words.map(|word| word.replace("{i}", &shown[0]).replace("{a}", &shown[1])));
        if let Some(file) = &self.input {
            let file = fs::File::open(dir.join(file)).map_err(|err| format!("{file}: {err}"))?;
            command.stdin(file);
        }
        Ok(())
    }
}
