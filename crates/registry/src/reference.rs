//! What is asked for in a repository: a tag, or a digest; and what a repository may be called.

use std::fmt;

use cairn_types::Digest;

/// Characters of the longest tag (distribution-spec, "Pulling manifests").
const TAG_CHARS_MAX: usize = 128;

/// Characters of host and repository together, as the specification advises clients.
const NAME_CHARS_MAX: usize = 255;

/// A tag that can be one: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. It is safe in a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// Parses a tag; `None` where the specification allows no such one.
    pub fn parse(text: &str) -> Option<Tag> {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let first = text.bytes().next().is_some_and(word);
        let right = text.len() <= TAG_CHARS_MAX
            && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
        (first && right).then(|| Tag(text.to_owned()))
    }

    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names a manifest in its repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// What the registry says it is now.
    Tag(Tag),
    /// These bytes and no others.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Tag(tag) => tag.fmt(f),
            Reference::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Reference {
        Reference::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Reference {
        Reference::Digest(digest)
    }
}

/// Whether a text can be a repository's name: `[a-z0-9]+` in which single `.`, one or two `_` and any
/// number of `-` may stand between, parts separated by `/`. Such a name cannot leave its place in a path.
pub(crate) fn is_repository(name: &str) -> bool {
    name.len() <= NAME_CHARS_MAX && name.split('/').all(is_component)
}

fn is_component(part: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = part.bytes().next().is_some_and(word) && part.bytes().next_back().is_some_and(word);
    ends && part
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// > `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}` (distribution-spec)
    #[test]
    fn tags_are_those_of_the_specification() {
        let longest = "a".repeat(128);
        for good in ["latest", "_", "1.2.3-rc_1", "V1", &longest] {
            assert_eq!(
                Tag::parse(good).map(|tag| tag.to_string()),
                Some(good.to_owned())
            );
        }
        let longer = "a".repeat(129);
        for bad in ["", ".a", "-a", "a/b", "a b", "a?", "ä", "..", &longer] {
            assert_eq!(Tag::parse(bad), None, "{bad}");
        }
    }

    /// > `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*` (distribution-spec)
    #[test]
    fn repositories_are_those_of_the_specification() {
        for good in ["a", "library/alpine", "a.b/c_d/e__f/g---h", "0/1"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in [
            "", "/a", "a/", "a//b", "A", "a..b", "a___b", "a._b", "../x", "a/../b", "a?b", "-a",
        ] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
