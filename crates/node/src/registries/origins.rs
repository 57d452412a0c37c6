//! Where else a registry may have a blob, as labels tell: `containerd.io/distribution.source.HOST` with
//! repositories between commas ([`RemoteName::source_label`]).

use cairn_types::{Digest, Labels, Namespace, validate_label};

use super::RemoteName;
use crate::Node;

/// Repositories that are asked for a blob before it is sent.
const TRIES: usize = 2;

/// Reads and writes the labels for one repository.
pub(crate) struct Origins {
    ns: Namespace,
    repository: String,
    key: String,
}

impl Origins {
    /// Those of the blobs of `ns`, for the repository of a name.
    pub(crate) fn new(ns: &Namespace, name: &RemoteName) -> Origins {
        Origins {
            ns: ns.clone(),
            key: name.source_label(),
            repository: name.repository.clone(),
        }
    }

    /// The label of a blob that is known there alone.
    pub(crate) fn label_of_new(&self) -> Labels {
        Labels::from([(self.key.clone(), self.repository.clone())])
    }

    /// The repositories that may have a blob, the nearest to the target's first: those that its own label
    /// names, then those of `above`, since who has a manifest has what it refers to.
    pub(crate) fn of(&self, node: &Node, digest: &Digest, above: &[String]) -> Vec<String> {
        let label = self.label(node, digest).unwrap_or_default();
        let mut all: Vec<String> = Vec::new();
        for repository in label.split(',').chain(above.iter().map(String::as_str)) {
            if !repository.is_empty() && repository != self.repository {
                all.push(repository.to_owned());
            }
        }
        // Stable, so that its own come before inherited ones.
        all.sort_by_key(|repository| usize::MAX - common(&self.repository, repository));
        let mut seen = std::collections::HashSet::new();
        all.retain(|repository| seen.insert(repository.clone()));
        all.truncate(TRIES);
        all
    }

    fn label(&self, node: &Node, digest: &Digest) -> Option<String> {
        let info = node.content().info(&self.ns, digest).ok()?;
        info.labels.get(&self.key).cloned()
    }

    /// Writes down that the repository has these blobs, beside those it is known in already. What cannot be
    /// written is no loss: the next push sends what it could have taken over.
    pub(crate) fn record<'d>(&self, node: &Node, digests: impl IntoIterator<Item = &'d Digest>) {
        for digest in digests {
            let Ok(info) = node.content().info(&self.ns, digest) else {
                continue;
            };
            let known = info.labels.get(&self.key).cloned().unwrap_or_default();
            let Some(value) = with(&known, &self.repository) else {
                continue;
            };
            if let Err(err) = validate_label(&self.key, &value) {
                tracing::debug!(%digest, "say in which repository it is: {err}");
                continue;
            }
            let labels = Labels::from([(self.key.clone(), value)]);
            if let Err(err) = node.add_labels(&self.ns, digest, labels) {
                tracing::warn!(%digest, "say in which repository it is: {err}");
            }
        }
    }
}

/// The parts that two repositories have in common, from the front.
fn common(a: &str, b: &str) -> usize {
    a.split('/')
        .zip(b.split('/'))
        .take_while(|(a, b)| a == b)
        .count()
}

/// A list with a repository put into its place; `None` when it is there.
fn with(list: &str, repository: &str) -> Option<String> {
    let mut all: Vec<&str> = list.split(',').filter(|one| !one.is_empty()).collect();
    if all.contains(&repository) {
        return None;
    }
    all.push(repository);
    all.sort_unstable();
    all.dedup();
    Some(all.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lists of containerd's own tests (`core/remotes/docker/handler_test.go`).
    #[test]
    fn lists_are_sorted_and_have_each_once() {
        assert_eq!(with("", "library/redis"), Some("library/redis".to_owned()));
        assert_eq!(
            with("library/redis", "library/alpine"),
            Some("library/alpine,library/redis".to_owned())
        );
        assert_eq!(with("library/alpine,library/redis", "library/redis"), None);
    }

    #[test]
    fn neighbours_are_nearer() {
        assert_eq!(common("a/b/c", "a/b/d"), 2);
        assert_eq!(common("a/b/c", "a/bc/d"), 1);
        assert_eq!(common("a", "b/a"), 0);
    }
}
