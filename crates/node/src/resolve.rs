//! From what a person typed to the one image or blob that is meant, or to what helps them on.

use std::collections::HashSet;

use cairn_meta::{View, schema};
use cairn_types::{Digest, ErrorKind, ImageName, Namespace};

use crate::{Failure, Node};

/// Fewest hex digits that stand for a digest.
const PREFIX_DIGITS_MIN: usize = 7;

impl Node {
    /// Finds the image a person means: its exact name, its name completed as Docker does, or at
    /// least 7 hex digits of its target's digest. `attempted` is for the message
    /// (`inspect image`).
    pub fn resolve(
        &self,
        ns: &Namespace,
        text: &str,
        attempted: &str,
    ) -> Result<ImageName, Failure> {
        let records = self.image_records(ns, attempted)?;
        let has = |name: &ImageName| records.iter().any(|(known, _)| known == name);
        let exact = ImageName::parse(text).map_err(|err| invalid(text, &err))?;
        if has(&exact) {
            return Ok(exact);
        }
        let whole = ImageName::normalize(text);
        if let Some(whole) = whole.as_ref().ok().filter(|whole| has(whole)) {
            return Ok(whole.clone());
        }
        if let Some(prefix) = digest_prefix(text) {
            let matches = records
                .iter()
                .filter(|(_, record)| prefix_matches(&record.target.digest, &prefix));
            let matches: Vec<_> = matches.collect();
            let digests: HashSet<_> = matches.iter().map(|(_, r)| &r.target.digest).collect();
            match (matches.first(), digests.len()) {
                (Some((name, _)), 1) => return Ok(name.clone()),
                (Some(_), _) => {
                    let names = matches
                        .iter()
                        .map(|(n, r)| format!("{} {n}", r.target.digest));
                    return Err(ambiguous(text, names));
                }
                (None, _) => {}
            }
        }
        match whole {
            Ok(whole) => Err(self.no_such_image(ns, &whole, attempted)),
            Err(err) => Err(invalid(text, &err)),
        }
    }

    /// The failure for a name that is not in `ns`: where it is, or what is nearest to it.
    pub(crate) fn no_such_image(
        &self,
        ns: &Namespace,
        name: &ImageName,
        attempted: &str,
    ) -> Failure {
        let mut failure = Failure::new(ErrorKind::NotFound, attempted, "not found")
            .object("image", name)
            .namespace(ns);
        let others = self.namespaces().unwrap_or_default();
        for other in others.iter().filter(|other| *other != ns) {
            let key = (other.clone(), name.clone());
            if let Ok(Some(_)) = self.meta().read(|view| view.get(&schema::IMAGES, &key)) {
                failure.found_in.push(other.to_string());
            }
        }
        if let Some(other) = failure.found_in.first().cloned() {
            let words = match attempted {
                "remove image" => format!("images rm {name}"),
                "measure image" => format!("images usage {name}"),
                "inspect image" | "mount image" => {
                    format!(
                        "images {} {name}",
                        &attempted[..attempted.len() - " image".len()]
                    )
                }
                // Those that take more words than the name: who has typed them knows them.
                _ => return failure,
            };
            return failure.next(format!("cairn -n {other} {words}"));
        }
        let records = self.image_records(ns, attempted).unwrap_or_default();
        let images = match records.len() {
            1 => "1 image".to_owned(),
            n => format!("{n} images"),
        };
        let mut failure = failure.namespace(format!("{ns} ({images}; no other namespace has it)"));
        let nearest = records
            .iter()
            .map(|(known, _)| (distance(known.as_str(), name.as_str()), known))
            .min_by_key(|(distance, _)| *distance)
            .filter(|(distance, _)| *distance <= 3);
        if let Some((_, known)) = nearest {
            failure = failure.cause(format!("nearest name: {known}"));
        }
        failure.next("cairn images ls")
    }

    /// Finds the blob a person means: a digest, or at least 7 hex digits of one, with or without
    /// its algorithm.
    pub fn resolve_digest(
        &self,
        ns: &Namespace,
        text: &str,
        attempted: &str,
    ) -> Result<Digest, Failure> {
        let Some(prefix) = digest_prefix(text) else {
            let reason = "it takes a digest, or at least 7 hex digits of one";
            return Err(Failure::new(ErrorKind::InvalidArgument, attempted, reason)
                .object("blob", text)
                .namespace(ns)
                .next("cairn content ls"));
        };
        let listed = self.content().list(ns);
        let listed = listed.map_err(|err| Failure::of(attempted, &err).namespace(ns))?;
        let mut matches = listed
            .into_iter()
            .map(|info| info.digest)
            .filter(|digest| prefix_matches(digest, &prefix));
        match (matches.next(), matches.next()) {
            (None, _) => Err(self.no_such_blob(ns, text, attempted)),
            (Some(only), None) => Ok(only),
            (Some(first), Some(second)) => {
                let all = [first, second].into_iter().chain(matches);
                Err(ambiguous(text, all.map(|d| d.to_string())))
            }
        }
    }
}

/// A name that no image can have is a sentence of its own, whatever was to be done with it.
fn invalid(text: &str, err: &cairn_types::NameError) -> Failure {
    let lower = text.to_lowercase();
    let failure = Failure::of("", err).object("image", text);
    if lower != text && ImageName::normalize(&lower).is_ok() {
        return failure.next(lower);
    }
    failure
}

/// So is a prefix that several digests have; they are the causes.
pub(crate) fn ambiguous(text: &str, matches: impl Iterator<Item = String>) -> Failure {
    let reason = format!("digest {text} is ambiguous");
    let mut failure = Failure::new(ErrorKind::InvalidArgument, "", reason).object("digest", text);
    failure.causes = matches.collect();
    failure
}

/// The algorithm, when given, and the hex digits of what may be the beginning of a digest.
pub(crate) fn digest_prefix(text: &str) -> Option<(Option<&str>, &str)> {
    let (algorithm, hex) = match text.split_once(':') {
        Some((algorithm, hex)) => (Some(algorithm), hex),
        None => (None, text),
    };
    let is_hex = hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (is_hex && hex.len() >= PREFIX_DIGITS_MIN).then_some((algorithm, hex))
}

fn prefix_matches(digest: &Digest, (algorithm, hex): &(Option<&str>, &str)) -> bool {
    let right = algorithm.is_none_or(|word| word == digest.algorithm().name());
    right && digest.hex().starts_with(hex)
}

/// Edits that make one text of the other (Levenshtein), to suggest a name.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, edits) in [
            ("busybx", "busybox", 1),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }

    #[test]
    fn digests_are_found_by_seven_digits() {
        let digest = Digest::sha256(b"abc");
        let matches = |text| digest_prefix(text).is_some_and(|p| prefix_matches(&digest, &p));
        assert!(matches("ba7816b"));
        assert!(matches("sha256:ba7816bf"));
        assert!(!matches("ba7816"));
        assert!(!matches("sha512:ba7816bf"));
        assert!(!matches("ba7816g"));
        assert!(!matches("a7816bf"));
    }
}
