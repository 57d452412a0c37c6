//! The store checked, and mended, while it is in use.
//!
//! Nothing is stopped for it: a check looks first at everything in parts, each from a state of its own,
//! and takes whatever looks wrong for a suspicion. Before it becomes a [`Finding`] it is looked at once
//! more, all that belongs to it in one state of the records, or under the lock that its maker would hold.
//! What is on its way in or out is wrong for a moment only: so files without a record are looked at
//! several times, and those are no suspicion at all that this process may be making.
//!
//! What is found has one of four weights. *Damage* is here and not what it should be. *Loss* is not here
//! although something needs it, and somebody has to bring it. *Litter* takes room and nothing else. A
//! *note* is for whoever looks closely.
//!
//! Mending removes no record of anything that somebody holds. Of a damaged blob only the file goes: then
//! its readers are told at once, whoever brings it again is let, and its labels hold what they held.

mod files;
mod images;
mod mend;
mod prove;
mod records;
pub mod scrub;
mod trees;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cairn_sys::raw::Caching;
use cairn_types::{Classified, Digest, Namespace};

pub(crate) use self::files::{BETWEEN, LOOKS};
use self::{images::Needed, records::Records};
use crate::{Failure, Node};

const ATTEMPTED: &str = "check the store";

/// What to check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckRequest {
    /// Reads every byte.
    pub deep: bool,
    /// Mends what it finds.
    pub repair: bool,
    /// Only what is of this one, and the blobs that it sees; everything when `None`.
    pub namespace: Option<Namespace>,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something here is not what it should be.
    Damage,
    /// Something is not here that is needed.
    Loss,
    /// Something takes room for nothing.
    Litter,
    /// Nothing is wrong, and it may be worth to know.
    Note,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// Which kind of wrong, as `blob-bytes`.
    pub kind: &'static str,
    /// Which kind of thing: `blob`, `snapshot`, `image`, `record`, …
    pub object: &'static str,
    /// Its name, whole.
    pub name: String,
    /// Whose it is, if it is of one namespace.
    pub namespace: Option<Namespace>,
    /// Where in it, or which file of the store's.
    pub path: Option<String>,
    /// What is wrong.
    pub detail: String,
    /// What that means to whom.
    pub meaning: String,
    /// What mends it, if it is not mended; commands where there are some.
    pub next: Vec<String>,
    /// It is mended.
    pub repaired: bool,
    /// What was done about it, or why nothing was; empty when nothing was asked for.
    pub action: String,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// Records of all kinds.
    pub records: u64,
    /// Blobs, each once.
    pub blobs: u64,
    /// Bytes of blobs that were read.
    pub bytes: u64,
    /// Snapshots of all namespaces.
    pub snapshots: u64,
    /// Trees that were held against their layers, each once.
    pub trees: u64,
    /// Images of all namespaces.
    pub images: u64,
    /// Bundles.
    pub bundles: u64,
    /// How long it took.
    pub took: Duration,
}

/// Hears of a check while it is made.
pub trait FsckWatcher: Send + Sync {
    /// Something was found, and mended if that was asked for and could be done.
    fn found(&self, finding: Finding);
    /// So many bytes of a `part` are done, of so many.
    fn progress(&self, part: &'static str, done: u64, total: u64);
    /// Whether nobody waits for the check any more.
    fn given_up(&self) -> bool {
        false
    }
    /// So many bytes were read, or none at one more name of a tree. Whether to go on.
    fn has_read(&self, bytes: u64) -> bool {
        let _ = bytes;
        !self.given_up()
    }
}

/// A check under way.
struct Check<'a> {
    node: &'a Node,
    request: FsckRequest,
    watcher: &'a dyn FsckWatcher,
    report: FsckReport,
    needed: Needed,
    caching: Caching,
    /// A record is damaged: what no record speaks of may be what that one did.
    doubtful: bool,
}

impl Node {
    /// Checks the whole store.
    ///
    /// # Errors
    /// When something cannot be looked at at all; `NotFound` when there is no such namespace; `Canceled` when
    /// it was given up; with [`FsckRequest::repair`] also when the store takes no changes.
    pub fn fsck(
        &self,
        request: FsckRequest,
        watcher: &dyn FsckWatcher,
    ) -> Result<FsckReport, Failure> {
        if let Some(mut broken) = self.read_only().filter(|_| request.repair) {
            "repair the store".clone_into(&mut broken.attempted);
            return Err(broken);
        }
        let began = Instant::now();
        let mut check = Check::new(self, request, watcher);
        check.rebuilt();
        let records = Records::read(&mut check)?;
        check.images(&records)?;
        check.damaged(&records);
        check.relations(&records)?;
        check.blobs(&records)?;
        let order = trees::order(&records);
        check.snapshots(&order)?;
        match check.request.deep {
            true => check.trees(&order)?,
            // Those that are known to be damaged are worth it in any case.
            false => check.trees(&trees::of(&order, &self.inner.scrubbed.trees()))?,
        }
        check.strays(&records)?;
        check.report.took = began.elapsed();
        Ok(check.report)
    }
}

impl<'a> Check<'a> {
    fn new(node: &'a Node, request: FsckRequest, watcher: &'a dyn FsckWatcher) -> Check<'a> {
        Check {
            node,
            request,
            watcher,
            report: FsckReport::default(),
            needed: Needed::default(),
            caching: Caching::Kept,
            doubtful: false,
        }
    }
}

impl Check<'_> {
    fn failed(&self, err: &dyn Classified) -> Failure {
        Failure::of(ATTEMPTED, err)
    }

    /// Between two objects.
    fn go_on(&self) -> Result<(), Failure> {
        match self.watcher.given_up() {
            false => Ok(()),
            true => Err(given_up()),
        }
    }

    fn found(&mut self, finding: Finding) {
        self.watcher.found(finding);
    }
}

fn given_up() -> Failure {
    Failure::new(
        cairn_types::ErrorKind::Canceled,
        ATTEMPTED,
        "it was stopped",
    )
}

impl Finding {
    /// One that nothing is known of yet but what and how.
    fn new(
        severity: Severity,
        kind: &'static str,
        object: &'static str,
        name: impl ToString,
        detail: impl Into<String>,
    ) -> Finding {
        Finding {
            severity,
            kind,
            object,
            name: name.to_string(),
            namespace: None,
            path: None,
            detail: detail.into(),
            meaning: String::new(),
            next: Vec::new(),
            repaired: false,
            action: String::new(),
        }
    }

    fn within(mut self, ns: &Namespace) -> Finding {
        self.namespace = Some(ns.clone());
        self
    }

    fn at(mut self, path: impl Into<String>) -> Finding {
        self.path = Some(path.into());
        self
    }

    fn meaning(mut self, meaning: impl Into<String>) -> Finding {
        self.meaning = meaning.into();
        self
    }

    fn next(mut self, step: impl Into<String>) -> Finding {
        self.next.push(step.into());
        self
    }

    /// What to do before all else.
    fn first(mut self, step: impl Into<String>) -> Finding {
        self.next.insert(0, step.into());
        self
    }

    /// It is no more.
    fn mended(mut self, action: impl Into<String>) -> Finding {
        self.repaired = true;
        self.action = action.into();
        self.next.clear();
        self
    }

    /// It is still there, for this reason.
    fn left(mut self, reason: impl Into<String>) -> Finding {
        self.action = reason.into();
        self
    }
}

/// Names for a sentence: the first few of many.
fn few<T: ToString>(all: impl ExactSizeIterator<Item = T>) -> String {
    const SHOWN: usize = 3;
    let count = all.len();
    let mut shown: Vec<String> = all.take(SHOWN).map(|one| one.to_string()).collect();
    if count > SHOWN {
        shown.push(format!("{} more", count - SHOWN));
    }
    shown.join(", ")
}

/// Blobs by digest, with the bytes that their records say.
type Blobs = BTreeMap<Digest, u64>;
