//! What is on the disk and why: the words that all rooms have in common, each of which knows what belongs in
//! its own directories.

use std::{ffi::OsStr, path::PathBuf};

use cairn_types::Usage;

use crate::{Dir, Result};

/// What something on the disk is there for. Of what there are records is `R`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose<R> {
    /// It is a record's.
    Recorded(R),
    /// Somebody is at work on it, and no record has it yet, or has it still.
    Making,
    /// It has no record any more, and goes; at the next opening if not before.
    Leaving,
    /// It was mended by another, which has its place: it goes at the next opening.
    Replaced,
    /// No record speaks of it.
    Unknown,
}

/// A name in the directories of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted<P> {
    /// From the room's directory on.
    pub path: PathBuf,
    /// Why it is there.
    pub purpose: P,
    /// What it takes with all that is in it.
    pub usage: Usage,
}

impl<P> Counted<P> {
    /// What was found out of each of these names.
    pub fn all(
        names: impl IntoIterator<Item = (PathBuf, Usage)>,
        purposes: impl IntoIterator<Item = P>,
    ) -> Vec<Counted<P>> {
        let all = names.into_iter().zip(purposes);
        let counted = all.map(|((path, usage), purpose)| Counted {
            path,
            purpose,
            usage,
        });
        counted.collect()
    }
}

/// Of names in a directory that have these purposes by now: `None` of those that are gone.
///
/// # Errors
/// When one cannot be looked at.
pub fn still_there<P>(dir: &Dir, paths: &[PathBuf], purposes: Vec<P>) -> Result<Vec<Option<P>>> {
    let looked = paths
        .iter()
        .zip(purposes)
        .map(|(path, purpose)| Ok(dir.has(path)?.then_some(purpose)));
    looked.collect()
}

/// The number that a name is, if it is written as numbers are given out.
pub fn number(name: &OsStr) -> Option<u64> {
    let text = name.to_str()?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_one_spelling() {
        for (name, expected) in [
            ("12", Some(12)),
            ("0", Some(0)),
            ("012", None),
            ("+1", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(number(OsStr::new(name)), expected, "{name}");
        }
    }
}
