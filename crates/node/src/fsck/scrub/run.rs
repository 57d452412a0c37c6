//! A scrub at work: everything in its order, at its pace.

use std::{
    collections::{BTreeMap, HashSet},
    mem, slice,
    sync::{Mutex, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use cairn_content::Flaw;
use cairn_meta::{Error, SnapshotRecord, Timestamp, View, schema};
use cairn_sys::{Dir, raw::Caching};
use cairn_types::{Classified, Digest, Namespace, SnapshotKey, SnapshotKind};

use super::kept::{Found, Pass, ScrubReport};
use crate::{
    Failure, Node,
    fsck::{
        Check, Finding, FsckRequest, FsckWatcher, Severity, given_up, images::Needed,
        records::Records, trees,
    },
    registries::Pace,
};

const ATTEMPTED: &str = "scrub the store";

/// Records in one look.
const PART: usize = 256;
/// How often it is put on the disk how far it is, and how soon what was found.
const KEPT_EVERY: Duration = Duration::from_secs(30);
const FOUND_KEPT_AFTER: Duration = Duration::from_secs(1);
/// A name of a tree costs as much as so many bytes: it takes some looks at the disk.
const NAME_BYTES: u64 = 512;
/// So much slower it is while anything is unpacked.
const BESIDE_OTHERS: u64 = 4;
/// No stack is so deep: what is, stands on itself.
const STACK_MAX: usize = 4096;

/// A scrub.
pub(super) struct Run<'a> {
    node: &'a Node,
    watch: Watch<'a>,
    /// Who needs what, once that has been asked for.
    needed: Option<Needed>,
    /// Blobs whose records were lost, and that nobody has read since.
    unread: HashSet<Digest>,
    kept_at: Instant,
    /// Since then.
    found: bool,
    began: Instant,
}

/// A snapshot's name and record.
type Snapshot = ((Namespace, SnapshotKey), SnapshotRecord);

/// A name and the layer of each tree, by its number.
type Trees = BTreeMap<u64, ((Namespace, SnapshotKey), Digest)>;

impl<'a> Run<'a> {
    /// One that has not begun.
    pub(super) fn new(node: &'a Node, rate: u64, wanted: &'a (dyn Fn() -> bool + Sync)) -> Run<'a> {
        let now = Instant::now();
        Run {
            node,
            watch: Watch {
                node,
                pace: Pace::new(rate),
                wanted,
                found: Mutex::default(),
            },
            needed: None,
            unread: HashSet::new(),
            kept_at: now,
            found: false,
            began: now,
        }
    }
}

impl Run<'_> {
    /// Everything that is not done yet; `Canceled` when it is not wanted any more.
    pub(super) fn pass(&mut self) -> Result<(), Failure> {
        self.go_on()?;
        self.begin()?;
        self.blobs()?;
        self.trees()?;
        self.end();
        Ok(())
    }

    fn failed(&self, err: &dyn Classified) -> Failure {
        Failure::of(ATTEMPTED, err)
    }

    fn go_on(&self) -> Result<(), Failure> {
        match self.watch.given_up() {
            false => Ok(()),
            true => Err(given_up()),
        }
    }

    /// Changes what is known of this pass.
    fn with<T>(&self, act: impl FnOnce(&mut Pass) -> T) -> T {
        let scrubbed = &self.node.inner.scrubbed;
        scrubbed.with(|state| act(state.pass.get_or_insert_default()))
    }

    /// What is there to be done, and how much of it is done.
    fn begin(&mut self) -> Result<(), Failure> {
        let now = Timestamp::now().0;
        let scrubbed = &self.node.inner.scrubbed;
        scrubbed.with(|state| {
            state.pass.get_or_insert_with(|| Pass {
                report: ScrubReport {
                    began_at: now,
                    ..ScrubReport::default()
                },
                ..Pass::default()
            });
        });
        let (blob, tree) = self.with(|pass| (pass.blob.clone(), pass.tree));
        let (mut done, mut total) = (0, 0);
        self.each_blob(|_, digest, size| {
            total += size;
            done += if is_done(&blob, digest) { size } else { 0 };
            Ok(())
        })?;
        for (id, (_, layer)) in self.all_trees()? {
            let size = self.size(&layer);
            total += size;
            done += if is_done(&tree, &id) { size } else { 0 };
        }
        self.with(|pass| (pass.done, pass.total) = (done, total));
        self.keep();
        Ok(())
    }

    fn blobs(&mut self) -> Result<(), Failure> {
        let (last, at_trees) = self.with(|pass| (pass.blob.clone(), pass.at_trees));
        if at_trees {
            return Ok(());
        }
        self.unread = self.node.unread_blobs()?;
        self.each_blob(|run, digest, size| match is_done(&last, digest) {
            true => Ok(()),
            false => run.blob(digest, size),
        })?;
        self.with(|pass| pass.at_trees = true);
        Ok(())
    }

    /// Hands out every blob that a record speaks of, in the order of their digests.
    fn each_blob(
        &mut self,
        mut take: impl FnMut(&mut Self, &Digest, u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let node = self.node;
        let mut after = None;
        loop {
            self.go_on()?;
            let read = node
                .meta()
                .read(|view| view.sound_part(&schema::BLOBS, after.as_ref(), PART));
            let ((sound, _), end) = read.map_err(|err: Error| self.failed(&err))?;
            for (digest, record) in sound {
                take(self, &digest, record.size)?;
            }
            match end {
                Some(end) => after = Some(end),
                None => return Ok(()),
            }
        }
    }

    fn blob(&mut self, digest: &Digest, size: u64) -> Result<(), Failure> {
        self.go_on()?;
        let watch = &self.watch;
        let mut read = |bytes| watch.has_read(bytes);
        let content = self.node.content();
        let flaw = content.examine(digest, Caching::Aside, &mut read);
        self.go_on()?;
        match flaw.map_err(|err| self.failed(&err))? {
            Some(flaw) => self.flawed(digest, &flaw)?,
            None if self.unread.contains(digest) => self.check().proven(digest),
            None => {}
        }
        self.with(|pass| {
            pass.blob = Some(digest.clone());
            pass.report.blobs += 1;
            pass.report.bytes += size;
            pass.done += size;
        });
        self.keep_in_time();
        Ok(())
    }

    fn flawed(&mut self, digest: &Digest, flaw: &Flaw) -> Result<(), Failure> {
        let needed = self.needed()?;
        let needed = {
            let mut check = self.check();
            check.needed = needed;
            check.flawed(digest, flaw);
            check.needed
        };
        self.needed = Some(needed);
        let found = self.watch.take();
        let found = found.into_iter().filter(is_wrong);
        self.tell(found.map(|finding| (finding, None)).collect());
        Ok(())
    }

    fn trees(&mut self) -> Result<(), Failure> {
        let last = self.with(|pass| pass.tree);
        for (id, (snapshot, layer)) in self.all_trees()? {
            if is_done(&last, &id) {
                continue;
            }
            self.go_on()?;
            self.tree(id, &snapshot)?;
            let size = self.size(&layer);
            self.with(|pass| {
                pass.tree = Some(id);
                pass.done += size;
            });
            self.keep_in_time();
        }
        Ok(())
    }

    /// All that a blob can prove.
    fn all_trees(&self) -> Result<Trees, Failure> {
        let mut all = BTreeMap::new();
        let mut after = None;
        loop {
            self.go_on()?;
            let read = self
                .node
                .meta()
                .read(|view| view.sound_part(&schema::SNAPSHOTS, after.as_ref(), PART));
            let ((sound, _), end) = read.map_err(|err: Error| self.failed(&err))?;
            for (snapshot, record) in sound {
                if let (SnapshotKind::Committed, Some((blob, _))) =
                    (record.kind, trees::provable(&record))
                {
                    all.entry(record.id)
                        .or_insert_with(|| (snapshot, blob.clone()));
                }
            }
            match end {
                Some(end) => after = Some(end),
                None => return Ok(all),
            }
        }
    }

    fn size(&self, blob: &Digest) -> u64 {
        let size = self.node.content().size_of_any(blob);
        size.ok().flatten().unwrap_or(0)
    }

    /// Compares a tree: first on those below as they are, which is the least work. When something is wrong,
    /// that may be with one of those; then on models of them, with which it is known.
    fn tree(&mut self, id: u64, snapshot: &(Namespace, SnapshotKey)) -> Result<(), Failure> {
        let Some(stack) = self.stack(snapshot)? else {
            return Ok(());
        };
        let order = trees::stack(&stack);
        let Some((one, below)) = order.split_last() else {
            return Ok(());
        };
        // It was removed, and made again.
        if one.record.id != id || one.record.kind != SnapshotKind::Committed {
            return Ok(());
        }
        let snapshots = self.node.snapshots();
        let below = below.iter().rev();
        let below = below.map(|one| snapshots.committed_tree(one.ns, one.key));
        let below: Option<Vec<Dir>> = below.collect::<Result<_, _>>().ok();
        let trees = {
            let mut check = self.check();
            check.snapshots(slice::from_ref(one))?;
            if let Some(below) = below {
                check.tree_on(one, below)?;
            }
            check.report.trees
        };
        let mut found = self.watch.take();
        if found.iter().any(is_wrong) {
            let needed = self.needed()?;
            let needed = {
                let mut check = self.check();
                check.needed = needed;
                check.snapshots(slice::from_ref(one))?;
                check.trees(&order)?;
                check.needed
            };
            self.needed = Some(needed);
            found = self.watch.take();
        }
        self.with(|pass| {
            pass.report.trees += trees;
            pass.report.unproven += u64::from(trees == 0);
        });
        let found = found.into_iter().filter(is_wrong).map(|finding| {
            let named = |((_, key), _): &&Snapshot| key.to_string() == finding.name;
            let tree = stack.iter().find(named).map(|(_, record)| record.id);
            (finding, tree)
        });
        self.tell(found.collect());
        Ok(())
    }

    /// A snapshot and all it stands on, the lowest first; `None` when one of them is gone, or what it stands
    /// on is not known.
    fn stack(&self, top: &(Namespace, SnapshotKey)) -> Result<Option<Vec<Snapshot>>, Failure> {
        let look = |view: &cairn_meta::Reader<'_>| {
            let mut stack: Vec<Snapshot> = Vec::new();
            let mut next = Some(top.clone());
            while let Some(at) = next {
                let record = match view.get(&schema::SNAPSHOTS, &at) {
                    Ok(Some(record)) if stack.len() < STACK_MAX => record,
                    Ok(_) | Err(Error::Corrupt { .. }) => return Ok(None),
                    Err(err) => return Err(err),
                };
                let parent = record.parent.clone();
                next = parent.map(|parent| (at.0.clone(), parent));
                stack.push((at, record));
            }
            stack.reverse();
            Ok::<_, Error>(Some(stack))
        };
        self.node.meta().read(look).map_err(|err| self.failed(&err))
    }

    /// As a check looks at things.
    fn check(&self) -> Check<'_> {
        let request = FsckRequest {
            deep: true,
            repair: false,
            namespace: None,
        };
        let mut check = Check::new(self.node, request, &self.watch);
        check.caching = Caching::Aside;
        check
    }

    /// Who needs what: read when something is found, which is seldom.
    fn needed(&mut self) -> Result<Needed, Failure> {
        if let Some(needed) = self.needed.take() {
            return Ok(needed);
        }
        let mut check = self.check();
        let records = Records::read(&mut check)?;
        check.images(&records)?;
        let needed = check.needed;
        // What images lack is for a check to tell.
        self.watch.take();
        Ok(needed)
    }

    fn tell(&mut self, found: Vec<(Finding, Option<u64>)>) {
        if found.is_empty() {
            return;
        }
        for (finding, _) in &found {
            let Finding {
                kind, name, path, ..
            } = finding;
            let path = path.as_deref().unwrap_or_default();
            tracing::error!(kind, name, path, "the scrub found: {}", finding.detail);
        }
        let node = self.node;
        let found = found
            .into_iter()
            .map(|(finding, tree)| Found::now(node, finding, tree));
        node.inner.scrubbed.keep(found.collect());
        self.found = true;
    }

    fn keep_in_time(&mut self) {
        let after = match self.found {
            true => FOUND_KEPT_AFTER,
            false => KEPT_EVERY,
        };
        if self.kept_at.elapsed() >= after {
            self.keep();
        }
    }

    /// Puts on the disk how far it is. On a full one it is known to this process alone.
    pub(super) fn keep(&mut self) {
        if let Err(err) = self.node.inner.scrubbed.save(&self.node.inner.dir) {
            tracing::debug!("keep how far the scrub is: {err}");
        }
        self.kept_at = Instant::now();
        self.found = false;
    }

    fn end(&self) {
        let scrubbed = &self.node.inner.scrubbed;
        let report = scrubbed.with(|state| {
            let mut report = state.pass.take().unwrap_or_default().report;
            report.ended_at = Timestamp::now().0;
            state.last = Some(report.clone());
            report
        });
        let found = scrubbed.standing(self.node).len();
        let ScrubReport {
            blobs,
            bytes,
            trees,
            unproven,
            ..
        } = report;
        let ms = self.began.elapsed().as_secs_f64() * 1e3;
        tracing::info!(
            blobs,
            trees,
            bytes,
            unproven,
            found,
            ms,
            "scrubbed the store"
        );
    }
}

/// Whether what comes in an order was done already, of which this was the last.
fn is_done<T: Ord>(last: &Option<T>, this: &T) -> bool {
    last.as_ref().is_some_and(|last| this <= last)
}

fn is_wrong(finding: &Finding) -> bool {
    matches!(finding.severity, Severity::Damage | Severity::Loss)
}

/// Keeps the pace, and what is found.
struct Watch<'a> {
    node: &'a Node,
    pace: Pace,
    wanted: &'a (dyn Fn() -> bool + Sync),
    found: Mutex<Vec<Finding>>,
}

impl Watch<'_> {
    /// What was found since the last time.
    fn take(&self) -> Vec<Finding> {
        mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FsckWatcher for Watch<'_> {
    fn found(&self, finding: Finding) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.push(finding);
    }

    fn progress(&self, _: &'static str, _: u64, _: u64) {}

    fn given_up(&self) -> bool {
        !(self.wanted)()
    }

    fn has_read(&self, bytes: u64) -> bool {
        let inner = &self.node.inner;
        inner.scrubbed.bytes.fetch_add(bytes, Ordering::Relaxed);
        let times = match inner.unpacking.is_any() {
            true => BESIDE_OTHERS,
            false => 1,
        };
        let cost = bytes.max(NAME_BYTES).saturating_mul(times);
        let cost = usize::try_from(cost).unwrap_or(usize::MAX);
        self.pace.take_here(cost, &|| (self.wanted)())
    }
}
