//! What scrubs have come to and found, over restarts: `<root>/scrub`, as JSON.
//!
//! A file that is lost or damaged costs a pass from the beginning, and what was found is found again.

use std::{
    collections::HashSet,
    ffi::OsStr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use cairn_content::Content;
use cairn_meta::Timestamp;
use cairn_sys::{Dir, durable};
use cairn_types::{Classified, Digest, ErrorKind, Namespace, SnapshotKey};
use serde::{Deserialize, Serialize};

use crate::{
    Node,
    fsck::{Finding, Severity},
};

const NAME: &str = "scrub";
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Of more those that were found first are in the log alone.
const FINDINGS_MAX: usize = 1000;

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    /// One that is not at its end.
    pub(super) pass: Option<Pass>,
    /// The last that came to its end.
    pub(super) last: Option<ScrubReport>,
    pub(super) findings: Vec<Found>,
}

/// A pass on its way: blobs in the order of their digests, then trees in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pass {
    /// So far.
    pub(super) report: ScrubReport,
    /// The last blob that was read.
    pub(super) blob: Option<Digest>,
    /// All blobs were.
    pub(super) at_trees: bool,
    /// The last tree that was compared.
    pub(super) tree: Option<u64>,
    /// Bytes of blobs that were read, and of layers whose trees were compared; and of all.
    pub(super) done: u64,
    pub(super) total: u64,
}

/// What a pass came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Nanoseconds since 1970 UTC.
    pub began_at: i64,
    /// The same; 0 before its end.
    pub ended_at: i64,
    /// Blobs that were read, each once.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Trees that were held against their layers, each once.
    pub trees: u64,
    /// Trees that could not be: their layers are not here, mostly.
    pub unproven: u64,
}

/// Something that a scrub found to be wrong, and that is as it was then for all that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// It is not here, rather than not what it should be.
    pub is_loss: bool,
    /// As [`Finding::kind`].
    pub kind: String,
    /// `blob` or `snapshot`.
    pub object: String,
    /// As [`Finding::name`].
    pub name: String,
    /// As [`Finding::namespace`].
    pub namespace: Option<String>,
    /// As [`Finding::path`].
    pub path: Option<String>,
    /// As [`Finding::detail`].
    pub detail: String,
    /// As the `meaning` of a [`Finding`].
    pub meaning: String,
    /// As the `next` of a [`Finding`].
    pub next: Vec<String>,
    /// Nanoseconds since 1970 UTC.
    pub found_at: i64,
    /// The number of a snapshot's tree.
    tree: Option<u64>,
    /// What tells the file or the tree from another in its place.
    mark: Option<String>,
}

impl Found {
    /// What was found just now; of a snapshot with the number of its tree.
    pub(super) fn now(node: &Node, finding: Finding, tree: Option<u64>) -> Found {
        let mut found = Found {
            is_loss: finding.severity == Severity::Loss,
            kind: finding.kind.to_owned(),
            object: finding.object.to_owned(),
            name: finding.name,
            namespace: finding.namespace.map(|ns| ns.to_string()),
            path: finding.path,
            detail: finding.detail,
            meaning: finding.meaning,
            next: finding.next,
            found_at: Timestamp::now().0,
            tree,
            mark: None,
        };
        found.mark = match found.blob() {
            Some(digest) => node.content().file_mark(&digest).ok().flatten(),
            None => found.tree_mark(node),
        };
        found
    }

    fn blob(&self) -> Option<Digest> {
        (self.object == "blob").then(|| Digest::parse(&self.name).ok())?
    }

    /// `None` when the snapshot is gone.
    fn tree_mark(&self, node: &Node) -> Option<String> {
        let ns = Namespace::parse(self.namespace.as_deref()?).ok()?;
        let key = SnapshotKey::parse(&self.name).ok()?;
        match node.snapshots().committed_tree(&ns, &key) {
            Ok(tree) => Some(tree.self_stat().ok()?.st_ino.to_string()),
            Err(err) if err.kind() == ErrorKind::NotFound => None,
            Err(_) => Some("missing".to_owned()),
        }
    }

    /// Whether it is still so, as far as can be told without reading.
    fn stands(&self, node: &Node) -> bool {
        let Some(digest) = self.blob() else {
            let now = self.tree_mark(node);
            return now.is_some() && now == self.mark;
        };
        let content = node.content();
        let is_gone = matches!(content.size_of_any(&digest), Ok(None));
        let is_wrong =
            || content.is_doubted(&digest) || !matches!(content.glance(&digest), Ok(None));
        !is_gone && is_wrong()
    }
}

/// What scrubs have come to in an open store.
#[derive(Default)]
pub(crate) struct Scrubbed {
    state: Mutex<State>,
    running: AtomicBool,
    /// Bytes that were read since the opening.
    pub(super) bytes: AtomicU64,
}

impl Scrubbed {
    /// What is known from before. Whoever brings a blob again that was found to be damaged is let.
    pub(crate) fn read(dir: &Dir, content: &Content) -> Scrubbed {
        let name = OsStr::new(NAME);
        let state = match dir.read_file(name, FILE_BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                tracing::warn!("what the scrub came to is lost, and it begins anew: {err}");
                State::default()
            }),
            Err(err) => {
                if err.kind() != ErrorKind::NotFound {
                    tracing::warn!("what the scrub came to cannot be read: {err}");
                }
                State::default()
            }
        };
        for found in &state.findings {
            if let Some(digest) = found.blob()
                && found.mark.is_some()
                && content
                    .file_mark(&digest)
                    .is_ok_and(|mark| mark == found.mark)
            {
                content.doubt(&digest);
            }
        }
        Scrubbed {
            state: Mutex::new(state),
            ..Scrubbed::default()
        }
    }

    /// A panic elsewhere cannot leave the state half changed.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts all of it on the disk. For the one that has the turn.
    pub(super) fn save(&self, dir: &Dir) -> Result<(), String> {
        let bytes = self.with(|state| serde_json::to_vec(state));
        let bytes = bytes.map_err(|err| err.to_string())?;
        let written = durable::write_file(dir, OsStr::new(NAME), &bytes, 0o600);
        written.map_err(|err| err.to_string())
    }

    /// The numbers of trees that were found to be damaged.
    pub(crate) fn trees(&self) -> HashSet<u64> {
        self.with(|state| {
            state
                .findings
                .iter()
                .filter_map(|found| found.tree)
                .collect()
        })
    }

    /// Says that a tree is what its layer says.
    pub(crate) fn is_whole(&self, tree: u64) {
        self.with(|state| state.findings.retain(|found| found.tree != Some(tree)));
    }

    /// Keeps what was found of one blob or tree, in the place of what was before.
    pub(super) fn keep(&self, all: Vec<Found>) {
        self.with(|state| {
            let is_of = |known: &Found, new: &Found| match new.tree {
                Some(_) => known.tree == new.tree,
                None => known.tree.is_none() && known.name == new.name,
            };
            let findings = &mut state.findings;
            findings.retain(|known| !all.iter().any(|new| is_of(known, new)));
            findings.extend(all);
            // What was found last is what can be told of a disk that fails.
            let more = findings.len().saturating_sub(FINDINGS_MAX);
            findings.drain(..more);
        });
    }

    /// What was found, without what is no more.
    pub(super) fn standing(&self, node: &Node) -> Vec<Found> {
        let all = self.with(|state| state.findings.clone());
        let (standing, gone): (Vec<Found>, Vec<Found>) =
            all.into_iter().partition(|found| found.stands(node));
        if !gone.is_empty() {
            self.with(|state| state.findings.retain(|found| !gone.contains(found)));
        }
        standing
    }

    /// The turn to scrub, unless somebody has it.
    pub(super) fn turn(&self) -> Option<Turn<'_>> {
        let taken = self.running.swap(true, Ordering::Acquire);
        (!taken).then_some(Turn(&self.running))
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }
}

/// The turn to scrub, until it is dropped.
pub(super) struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: String) -> Found {
        Found {
            is_loss: true,
            kind: "blob-missing".to_owned(),
            object: "blob".to_owned(),
            name,
            namespace: None,
            path: None,
            detail: String::new(),
            meaning: String::new(),
            next: Vec::new(),
            found_at: 0,
            tree: None,
            mark: None,
        }
    }

    #[test]
    fn of_too_many_the_newest_are_kept() {
        let scrubbed = Scrubbed::default();
        for number in 0..FINDINGS_MAX + 2 {
            scrubbed.keep(vec![found(number.to_string())]);
        }
        scrubbed.with(|state| {
            let name = |found: Option<&Found>| found.map(|found| found.name.clone());
            assert_eq!(state.findings.len(), FINDINGS_MAX);
            assert_eq!(name(state.findings.first()), Some("2".to_owned()));
            let last = (FINDINGS_MAX + 1).to_string();
            assert_eq!(name(state.findings.last()), Some(last));
        });
    }
}
