//! Which tags a person may have meant by one that is not there.

use std::{cmp::Reverse, time::Duration};

use crate::{
    client::{Client, Need},
    error::{Cause, Error, What},
    host::{Host, Patience},
    reference::{Reference, Tag},
};

/// How many are named.
const NAMED_MAX: usize = 3;

/// Pairs of letters that are compared: of forty thousand tags of ten letters, or of fewer long ones. Some
/// registries give all tags at once, whatever is asked for.
const COMPARED_MAX: usize = 4 << 20;

/// How long they are waited for: they are no part of what was asked for.
const WAIT: Duration = Duration::from_millis(500);

impl Client {
    /// The tags that are nearest to the one that `err` says is not there, the nearest first; a few at most.
    ///
    /// The host that said so is asked for one page of its list, once, and half a second is waited for it.
    /// Whatever comes between leaves none: there is an error to tell already.
    pub async fn nearest_tags(&self, err: &Error) -> Vec<Tag> {
        let (What::Resolve(Reference::Tag(missing)), Some(failed)) =
            (&err.details().what, err.last())
        else {
            return Vec::new();
        };
        // Of a repository that is not there, there is nothing to list.
        if !matches!(&failed.cause, Cause::NotFound { answer, .. } if !answer.has("NAME_UNKNOWN")) {
            return Vec::new();
        }
        let hosts = self.hosts(Need::Resolve);
        let Some((host, _)) = hosts
            .iter()
            .rev()
            .find(|(host, _)| host.label() == failed.host)
        else {
            return Vec::new();
        };
        let listed = tokio::time::timeout(WAIT, self.some_tags(host)).await;
        nearest(
            missing,
            listed.ok().and_then(Result::ok).unwrap_or_default(),
        )
    }

    async fn some_tags(&self, host: &Host) -> Result<Vec<String>, Cause> {
        let url = self.first_tags(host)?;
        let (tags, _) = self.tags_of(host, Patience::Once, url).await?;
        Ok(tags)
    }
}

/// Those of `tags` that may be mistaken for `missing`.
fn nearest(missing: &Tag, tags: Vec<String>) -> Vec<Tag> {
    let mut left = COMPARED_MAX;
    let tags = tags.into_iter().filter_map(|tag| {
        let distance = distance(missing.as_str(), &tag, &mut left)?;
        Some((distance, Reverse(Tag::parse(&tag)?)))
    });
    let mut near: Vec<_> = tags.collect();
    // Of versions that are equally near the last is likelier meant than the first.
    near.sort();
    near.dedup();
    near.truncate(NAMED_MAX);
    near.into_iter().map(|(_, Reverse(tag))| tag).collect()
}

/// How many letters differ, where it is few, or one goes on where the other ends: `2.1` and `2.1-slim`.
/// Comparing takes from `left`.
fn distance(a: &str, b: &str, left: &mut usize) -> Option<usize> {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    let rest = long.strip_prefix(short);
    if !short.is_empty() && rest.is_some_and(|rest| rest.starts_with(['.', '-', '_'])) {
        return Some(long.len() - short.len());
    }
    let few = (long.len() / 3).max(1);
    // Most tags are no match by their length, which costs nothing to see.
    if long.len() - short.len() > few {
        return None;
    }
    *left = left.checked_sub(a.len() * b.len())?;
    let distance = strsim::osa_distance(a, b);
    (distance <= few && distance < short.len()).then_some(distance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(missing: &str, tags: &[&str], expected: &[&str]) {
        let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
        let near = nearest(&Tag::parse(missing).expect("tag"), tags);
        let near: Vec<&str> = near.iter().map(Tag::as_str).collect();
        assert_eq!(near, expected);
    }

    #[test]
    fn what_was_meant_is_near() {
        check("latst", &["1.36", "latest", "stable"], &["latest"]);
        check("2.1", &["v2.1", "1.0"], &["v2.1"]);
        check("v3", &["v1", "v2"], &["v2", "v1"]);
        // What goes on after it.
        check(
            "bookworm",
            &["bookworm-slim", "bullseye"],
            &["bookworm-slim"],
        );
        check("2", &["2.1", "20", "21.04"], &["2.1"]);
        check("2.1.7", &["2.1", "2"], &["2.1", "2"]);
        // The last few.
        let versions = ["1.30", "1.31", "1.35", "1.36", "1.37", "1.36"];
        check("1.38", &versions, &["1.37", "1.36", "1.35"]);
        check("1.38", &["1.37-glibc", "1.38-glibc"], &["1.38-glibc"]);
    }

    #[test]
    fn what_was_not_meant_is_not_named() {
        check("9.9", &["2.1", "latest"], &[]);
        check("1", &["2", "14", "a"], &[]);
        check("latest", &[], &[]);
        // What a registry may say and what no tag can be.
        check("latest", &["", "latest\n", "látest", ".atest"], &[]);
    }

    #[test]
    fn a_hostile_list_is_not_compared_for_long() {
        let tags = vec!["a".repeat(128); 1_000_000];
        let missing = Tag::parse(&"b".repeat(128)).expect("tag");
        assert_eq!(nearest(&missing, tags), []);
    }
}
