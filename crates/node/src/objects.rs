//! Single blobs and snapshots, as a person names and removes them.
//!
//! Everything else that is asked of one goes through [`Node::content`] and [`Node::snapshots`].

use std::collections::{HashMap, HashSet};

pub use cairn_content::BlobInfo;
use cairn_meta::{Tx, View, schema};
pub use cairn_snapshot::SnapshotInfo;
use cairn_snapshot::Snapshots;
use cairn_types::{Classified, Digest, ErrorKind, Namespace, SnapshotKey};

use crate::{
    Failure, Holder, Node,
    events::{Event, What},
    gc::{Item, Place},
    resolve::{ambiguous, digest_prefix},
};

const REMOVE_SNAPSHOT: &str = "remove snapshot";

/// Children, and then holders, that a refusal lists by name.
const SHOWN: usize = 5;

impl Node {
    /// Finds the snapshot a person means: its exact key, or at least 7 hex digits of a key that is
    /// a digest.
    pub fn resolve_snapshot(
        &self,
        ns: &Namespace,
        text: &str,
        attempted: &str,
    ) -> Result<SnapshotKey, Failure> {
        let failed = |err: &dyn Classified| {
            Failure::of(attempted, err)
                .object("snapshot", text)
                .namespace(ns)
        };
        let exact = SnapshotKey::parse(text).map_err(|err| failed(&err))?;
        let known = self.snapshots().list(ns).map_err(|err| failed(&err))?;
        if known.iter().any(|info| info.key == exact) {
            return Ok(exact);
        }
        let mut matches: Vec<SnapshotKey> = match digest_prefix(text) {
            Some(prefix) => known
                .into_iter()
                .map(|info| info.key)
                .filter(|key| begins(key, &prefix))
                .collect(),
            None => Vec::new(),
        };
        match matches.len() {
            0 => {
                let elsewhere =
                    self.elsewhere(ns, |other| self.snapshots().stat(other, &exact).is_ok());
                let failure = Failure::new(ErrorKind::NotFound, attempted, "not found")
                    .object("snapshot", text)
                    .namespace(ns);
                Err(found_in(failure, elsewhere, "snapshots"))
            }
            1 => Ok(matches.remove(0)),
            _ => Err(ambiguous(text, matches.iter().map(ToString::to_string))),
        }
    }

    /// Removes a snapshot. One that others stand on is refused, unless `recursive`: then those go
    /// first, or, when one of them is in use, nothing goes. Returns what went, in order. Whether a snapshot
    /// is mounted is for those to see who mount.
    pub fn remove_snapshot(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        recursive: bool,
    ) -> Result<Vec<SnapshotKey>, Failure> {
        let failed = |err: &dyn Classified| {
            Failure::of(REMOVE_SNAPSHOT, err)
                .object("snapshot", key)
                .namespace(ns)
        };
        let known = self.snapshots().list(ns).map_err(|err| failed(&err))?;
        let doomed = family(&known, key);
        if doomed.len() > 1 && !recursive {
            // What cannot be looked at now is no reason to refuse for another one.
            let holders = self.held_through(ns, key).unwrap_or_else(|failure| {
                tracing::debug!("{failure}");
                Vec::new()
            });
            return Err(stood_on(ns, key, &known, &holders));
        }
        // Waits for calls that rely on one (an import, a mount), and makes others wait: what is looked
        // at now stays so.
        let snapshots = doomed.iter().cloned().map(Item::Snapshot);
        let places: Vec<Place> = snapshots.map(|one| (ns.clone(), one)).collect();
        let _condemned = self.inner.pins.condemn(&places);
        self.check_unused(ns, key, &doomed)?;
        let all: Vec<_> = doomed.iter().map(|one| (ns.clone(), one.clone())).collect();
        // All or nothing: a child may have been made since they were listed.
        let erased = self.meta().write(move |tx: &mut Tx| {
            let erase = |one| Snapshots::erase(tx, one);
            all.into_iter().map(erase).collect::<Result<Vec<_>, _>>()
        });
        let erased = erased.map_err(|err| failed(&err))?;
        self.snapshots().mark_leaving(&erased);
        for (one, erased) in doomed.iter().zip(erased) {
            self.snapshots().let_go(&erased);
            self.happened(Event::of(ns, What::SnapshotRemoved { key: one.clone() }));
        }
        Ok(doomed)
    }

    /// The overlay of a running container would lose its files under it.
    fn check_unused(
        &self,
        ns: &Namespace,
        asked: &SnapshotKey,
        doomed: &[SnapshotKey],
    ) -> Result<(), Failure> {
        let about = |failure: Failure| failure.object("snapshot", asked).namespace(ns);
        let bundles = self.meta().read(|view| view.scan(&schema::BUNDLES, &()));
        let bundles: Vec<String> = bundles
            .map_err(|err| about(Failure::of(REMOVE_SNAPSHOT, &err)))?
            .into_iter()
            .filter(|(_, bundle)| bundle.namespace == *ns && doomed.contains(&bundle.snapshot))
            .map(|(dir, _)| dir)
            .collect();
        match bundles.is_empty() {
            true => Ok(()),
            false => {
                let words = ("stands on it", "stand on it");
                Err(about(held_by_bundles(REMOVE_SNAPSHOT, &bundles, words)))
            }
        }
    }

    /// Removes a blob from a namespace, whoever refers to it.
    pub fn remove_blob(&self, ns: &Namespace, digest: &Digest) -> Result<(), Failure> {
        let place = (ns.clone(), Item::Blob(digest.clone()));
        // Relies on the blob, and so would wait for ever behind its own sentence.
        self.renew_from(ns, digest)?;
        let _condemned = self.inner.pins.condemn(std::slice::from_ref(&place));
        self.secure(&HashSet::from([place]))?;
        let removed = self.content().delete(ns, digest);
        removed.map_err(|err| {
            Failure::of("remove blob", &err)
                .object("blob", digest)
                .namespace(ns)
        })?;
        let digest = digest.clone();
        self.happened(Event::of(ns, What::ContentDeleted { digest }));
        Ok(())
    }

    /// The failure for a blob that is not in `ns`: where it is.
    pub(crate) fn no_such_blob(&self, ns: &Namespace, text: &str, attempted: &str) -> Failure {
        let digest = Digest::parse(text).ok();
        let elsewhere = self.elsewhere(ns, |other| {
            let exists = |digest| self.content().exists(other, digest);
            digest.as_ref().is_some_and(|d| exists(d).unwrap_or(false))
        });
        let failure = Failure::new(ErrorKind::NotFound, attempted, "not found")
            .object("blob", text)
            .namespace(ns);
        found_in(failure, elsewhere, "content")
    }

    /// The other namespaces of which `has` is true.
    fn elsewhere(&self, ns: &Namespace, has: impl Fn(&Namespace) -> bool) -> Vec<String> {
        let all = self.namespaces().unwrap_or_default();
        let others = all.iter().filter(|other| *other != ns && has(other));
        others.map(ToString::to_string).collect()
    }
}

fn found_in(mut failure: Failure, elsewhere: Vec<String>, group: &str) -> Failure {
    failure.found_in = elsewhere;
    match failure.found_in.first().cloned() {
        Some(other) => failure.next(format!("cairn -n {other} {group} ls")),
        None => failure.next(format!("cairn {group} ls")),
    }
}

fn begins(key: &SnapshotKey, (algorithm, hex): &(Option<&str>, &str)) -> bool {
    Digest::parse(key.as_str()).is_ok_and(|digest| {
        algorithm.is_none_or(|word| word == digest.algorithm().name())
            && digest.hex().starts_with(hex)
    })
}

/// A snapshot and all above it, children before their parents.
fn family(known: &[SnapshotInfo], key: &SnapshotKey) -> Vec<SnapshotKey> {
    let mut children: HashMap<&SnapshotKey, Vec<&SnapshotKey>> = HashMap::new();
    for info in known {
        if let Some(parent) = &info.parent {
            children.entry(parent).or_default().push(&info.key);
        }
    }
    let mut order = vec![key];
    let mut next = 0;
    while let Some(key) = order.get(next) {
        // Taken out, so that a ring of damaged records ends.
        order.extend(children.remove(*key).into_iter().flatten());
        next += 1;
    }
    order.into_iter().rev().cloned().collect()
}

/// All that is in the way, and the commands that take it out of it: bundles go before what they stand on.
fn stood_on(
    ns: &Namespace,
    key: &SnapshotKey,
    known: &[SnapshotInfo],
    holders: &[Holder],
) -> Failure {
    let children: Vec<&SnapshotKey> = known
        .iter()
        .filter(|info| info.parent.as_ref() == Some(key))
        .map(|info| &info.key)
        .collect();
    let reason = match children.len() {
        1 => "1 snapshot stands on it".to_owned(),
        n => format!("{n} snapshots stand on it"),
    };
    let kind = ErrorKind::FailedPrecondition;
    let failure = Failure::new(kind, REMOVE_SNAPSHOT, reason)
        .object("snapshot", key)
        .namespace(ns);
    let children = children.iter().map(|child| format!("child {child}"));
    let failure = caused_by(failure, children);
    let kept = holders.iter().map(|holder| {
        let (kind, name) = (holder.kind, word(&holder.name));
        format!("kept by {kind} {name}")
    });
    let failure = caused_by(failure, kept);
    let bundles = holders.iter().filter(|holder| holder.kind == "bundle");
    let bundles: Vec<String> = bundles.map(|holder| word(&holder.name)).collect();
    let failure = match bundles.is_empty() {
        true => failure,
        false => failure.next(remove_bundles(&bundles)),
    };
    let key = word(key.as_str());
    failure.next(format!("cairn snapshots rm --recursive {key}"))
}

/// The first of them, and how many more there are.
fn caused_by(failure: Failure, causes: impl ExactSizeIterator<Item = String>) -> Failure {
    let more = causes.len().saturating_sub(SHOWN);
    let failure = causes.take(SHOWN).fold(failure, Failure::cause);
    match more {
        0 => failure,
        more => failure.cause(format!("… and {more} more")),
    }
}

/// The failure of a removal that bundles are in the way of: how many, the first of them, and how they go;
/// `words` are what one does, and what several do.
pub(crate) fn held_by_bundles(attempted: &str, bundles: &[String], words: (&str, &str)) -> Failure {
    let quoted: Vec<String> = bundles.iter().map(|dir| word(dir)).collect();
    let reason = match quoted.as_slice() {
        [dir] => format!("bundle {dir} {}", words.0),
        all => format!("{} bundles {}", all.len(), words.1),
    };
    let failure = Failure::new(ErrorKind::FailedPrecondition, attempted, reason);
    let failure = match quoted.len() {
        1 => failure,
        _ => caused_by(failure, quoted.iter().map(|dir| format!("bundle {dir}"))),
    };
    failure.next(remove_bundles(&quoted))
}

/// The command by which they go. Of more than are shown the first: who tries again is told of the others.
fn remove_bundles(quoted: &[String]) -> String {
    let some = quoted.iter().take(SHOWN).map(String::as_str);
    let command = format!("cairn bundle rm {}", some.collect::<Vec<_>>().join(" "));
    match quoted.len() > SHOWN {
        true => format!("{command}; then try again"),
        false => command,
    }
}

/// A text as one word of a shell.
pub(crate) fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&b);
    match text.bytes().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use cairn_meta::Timestamp;
    use cairn_types::{Labels, SnapshotKind, Usage};

    use super::*;

    fn info(key: &str, parent: Option<&str>) -> SnapshotInfo {
        let key_of = |text: &str| SnapshotKey::parse(text).expect("key");
        SnapshotInfo {
            key: key_of(key),
            id: 0,
            kind: SnapshotKind::Committed,
            parent: parent.map(key_of),
            labels: Labels::new(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            usage: Usage::default(),
            durable: true,
            timing: None,
        }
    }

    #[test]
    fn of_many_bundles_a_few_are_told() {
        let dirs = |count: usize| (0..count).map(|n| format!("/run/{n}")).collect::<Vec<_>>();
        let words = ("stands on it", "stand on it");
        let next = |count| {
            held_by_bundles(REMOVE_SNAPSHOT, &dirs(count), words)
                .next
                .clone()
        };
        let five = "cairn bundle rm /run/0 /run/1 /run/2 /run/3 /run/4";
        assert_eq!(next(SHOWN), [five]);
        assert_eq!(next(1000), [format!("{five}; then try again")]);
    }

    #[test]
    fn children_go_before_their_parents() {
        let known = [
            info("a", None),
            info("b", Some("a")),
            info("c", Some("b")),
            info("d", Some("a")),
            info("e", None),
        ];
        let order = family(&known, &known[0].key);
        let order: Vec<&str> = order.iter().map(SnapshotKey::as_str).collect();
        assert_eq!(order, ["c", "d", "b", "a"]);
        let ring = [info("a", Some("b")), info("b", Some("a"))];
        assert_eq!(family(&ring, &ring[0].key).len(), 3, "ends");
    }
}
