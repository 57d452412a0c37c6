//! Unpacked layers, held against the blobs that they came from.
//!
//! Nothing is recorded of the files of a tree, so its layer is read again, and applied as when it was
//! unpacked, only with the hashes of files in the place of their bytes. What that gives is compared with
//! the tree, and removed. It takes the time of unpacking and hardly any room. Those that a layer stands on
//! are its models as well, as far as they can be proven: a damaged directory below must not look like
//! damage above.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_layer::{Aspect, Difference, Options, Sums, Unpacked};
use cairn_meta::SnapshotRecord;
use cairn_snapshot::Staged;
use cairn_sys::Dir;
use cairn_types::{DiffId, Digest, Namespace, SnapshotKey, SnapshotKind};

use super::{Check, Finding, FsckWatcher, Severity, records::Records};
use crate::Failure;

/// What trees are called in what is told of the progress.
const TREES: &str = "unpacked layers";

/// Places of one tree that are told one by one.
const SHOWN_MAX: usize = 100;

/// A snapshot in its turn.
#[derive(Clone, Copy)]
pub(super) struct Ordered<'r> {
    pub(super) ns: &'r Namespace,
    pub(super) key: &'r SnapshotKey,
    pub(super) record: &'r SnapshotRecord,
    /// How many it stands on.
    depth: usize,
    /// What it stands on is known, down to the lowest.
    rooted: bool,
}

/// All snapshots, each before those that stand on it, and those between on it, too: the last ones of
/// lesser depth are what one stands on. Of namespaces that share a tree the first stands for all.
pub(super) fn order(records: &Records) -> Vec<Ordered<'_>> {
    let mut all: BTreeMap<u64, Ordered<'_>> = BTreeMap::new();
    for ((ns, key), record) in &records.snapshots {
        all.entry(record.id).or_insert(Ordered {
            ns,
            key,
            record,
            depth: 0,
            rooted: true,
        });
    }
    let mut above: HashMap<u64, Vec<u64>> = HashMap::new();
    let mut ahead = Vec::new();
    for (id, one) in &mut all {
        let below = one.record.parent.as_ref().map(|parent| {
            let parent = records.snapshots.get(&(one.ns.clone(), parent.clone()));
            parent.map(|parent| parent.id)
        });
        match below {
            Some(Some(parent)) => above.entry(parent).or_default().push(*id),
            Some(None) => {
                one.rooted = false;
                ahead.push((*id, 0, false));
            }
            None => ahead.push((*id, 0, true)),
        }
    }
    // The lowest numbers first.
    ahead.reverse();
    let mut order = Vec::with_capacity(all.len());
    while let Some((id, depth, rooted)) = ahead.pop() {
        let Some(mut one) = all.remove(&id) else {
            continue;
        };
        (one.depth, one.rooted) = (depth, rooted);
        order.push(one);
        for child in above.remove(&id).unwrap_or_default().into_iter().rev() {
            ahead.push((child, depth + 1, rooted));
        }
    }
    // What damage has made stand on itself.
    order.extend(all.into_values().map(|one| Ordered {
        rooted: false,
        ..one
    }));
    order
}

/// Those of an order whose trees have these numbers, and all that they stand on.
pub(super) fn of<'r>(order: &[Ordered<'r>], trees: &HashSet<u64>) -> Vec<Ordered<'r>> {
    let mut wanted: Vec<Ordered<'r>> = Vec::new();
    // What one stands on is before it: the last ones of lesser depth.
    let mut least = 0;
    for one in order.iter().rev() {
        if trees.contains(&one.record.id) || one.depth < least {
            least = one.depth;
            wanted.push(*one);
        }
    }
    wanted.reverse();
    wanted
}

/// A stack of snapshots, the lowest first, each in its turn.
pub(super) fn stack(all: &[((Namespace, SnapshotKey), SnapshotRecord)]) -> Vec<Ordered<'_>> {
    all.iter()
        .enumerate()
        .map(|(depth, ((ns, key), record))| Ordered {
            ns,
            key,
            record,
            depth,
            rooted: true,
        })
        .collect()
}

/// A tree that others stand on.
struct Level {
    /// The model of it, or itself where there is none; `None` when it is missing.
    dir: Option<Dir>,
    /// The model is removed with this.
    _model: Option<Staged>,
}

/// How far the reading of layers is.
struct Way {
    before: AtomicU64,
    total: u64,
}

impl Check<'_> {
    /// Every committed tree that a blob here can prove.
    pub(super) fn trees(&mut self, order: &[Ordered<'_>]) -> Result<(), Failure> {
        let size = |one: &Ordered<'_>| match provable(one.record) {
            Some((blob, _)) => self.node.content().size_of_any(blob).ok().flatten(),
            None => None,
        };
        let way = Way {
            before: AtomicU64::new(0),
            total: order.iter().filter_map(size).sum(),
        };
        if way.total > 0 {
            self.watcher.progress(TREES, 0, way.total);
        }
        let mut levels: Vec<Level> = Vec::new();
        for one in order {
            self.go_on()?;
            if one.record.kind != SnapshotKind::Committed {
                continue;
            }
            levels.truncate(one.depth);
            let level = self.tree(one, &levels, &way)?;
            levels.push(level);
        }
        if way.total > 0 {
            self.watcher.progress(TREES, way.total, way.total);
        }
        Ok(())
    }

    /// One tree, on those `below` as they are, nearest first. What is wrong with them may look like damage to it.
    pub(super) fn tree_on(&mut self, one: &Ordered<'_>, below: Vec<Dir>) -> Result<(), Failure> {
        let as_it_is = |dir| Level {
            dir: Some(dir),
            _model: None,
        };
        let levels: Vec<Level> = below.into_iter().rev().map(as_it_is).collect();
        let way = Way {
            before: AtomicU64::new(0),
            total: 0,
        };
        self.tree(one, &levels, &way).map(drop)
    }

    fn tree(&mut self, one: &Ordered<'_>, levels: &[Level], way: &Way) -> Result<Level, Failure> {
        let itself = |check: &Check<'_>| Level {
            dir: check.node.snapshots().committed_tree(one.ns, one.key).ok(),
            _model: None,
        };
        let Some((blob, diff_id)) = provable(one.record) else {
            let by = "it was not unpacked by this store";
            self.unproven(one, by)?;
            return Ok(itself(self));
        };
        let below: Option<Vec<Dir>> = levels.iter().rev().map(|level| level.dir.clone()).collect();
        let below = below.filter(|below| one.rooted && below.len() == one.depth);
        let Some(below) = below else {
            self.unproven(one, "what it stands on is missing")?;
            return Ok(itself(self));
        };
        let sound = self.node.content().is_sound(blob);
        if !sound.map_err(|err| self.failed(&err))? {
            self.unproven(one, &format!("its layer {blob} is not here"))?;
            return Ok(itself(self));
        }
        let staged = match self.node.snapshots().stage() {
            Ok(staged) => staged,
            // With a full disk, say; the rest of the check can do without.
            Err(err) => {
                self.unproven(
                    one,
                    &format!("its layer cannot be unpacked beside it: {err}"),
                )?;
                return Ok(itself(self));
            }
        };
        let sums = Arc::new(Sums::default());
        let bytes = Some(Arc::clone(&sums));
        let model = self.apply_again((blob, diff_id), &staged, &below, bytes, Some(way));
        self.go_on()?;
        if let Err(reason) = model {
            self.unproven(one, &reason)?;
            return Ok(itself(self));
        }
        self.report.trees += 1;
        self.compare(one, &staged, &sums, &below)?;
        Ok(Level {
            dir: Some(staged.dir().clone()),
            _model: Some(staged),
        })
    }

    /// Compares a tree with its model, and tells of what differs.
    fn compare(
        &mut self,
        one: &Ordered<'_>,
        model: &Staged,
        sums: &Sums,
        below: &[Dir],
    ) -> Result<(), Failure> {
        let mut differences = Vec::new();
        // Once more, if it is still there then: it may be removed while it is read, or be put in the place
        // of another.
        for _ in 0..2 {
            let tree = match self.node.snapshots().committed_tree(one.ns, one.key) {
                Ok(tree) => tree,
                // Told of as missing, or removed since.
                Err(_) => return Ok(()),
            };
            let watcher = self.watcher;
            let mut read = |bytes| watcher.has_read(bytes);
            let compared = cairn_layer::compare(model.dir(), sums, &tree, self.caching, &mut read);
            self.go_on()?;
            if self.kind(one)? != Some(SnapshotKind::Committed) {
                return Ok(());
            }
            differences = match compared {
                Ok(differences) => differences,
                Err(err) => vec![Difference {
                    path: Vec::new(),
                    aspect: Aspect::Content,
                    detail: format!("it cannot be read: {err}"),
                }],
            };
            if differences.is_empty() {
                self.node.inner.scrubbed.is_whole(one.record.id);
                return Ok(());
            }
        }
        let mended = match self.request.repair {
            true => Some(self.rebuild(one, Some(below))),
            false => None,
        };
        let more = differences.len().saturating_sub(SHOWN_MAX);
        for difference in differences.into_iter().take(SHOWN_MAX) {
            let (path, detail) = (shown(&difference.path), difference.detail);
            let kind = kind_of(difference.aspect);
            let finding = Finding::new(Severity::Damage, kind, "snapshot", one.key, detail);
            self.differs(one, finding.at(path), mended.as_ref());
        }
        if more > 0 {
            let detail = format!("{more} more places in it are not what they should be");
            let finding = Finding::new(Severity::Damage, "tree-more", "snapshot", one.key, detail);
            self.differs(one, finding, mended.as_ref());
        }
        Ok(())
    }

    fn differs(
        &mut self,
        one: &Ordered<'_>,
        finding: Finding,
        mended: Option<&Result<(), String>>,
    ) {
        let mut finding = self.about_layer(finding.within(one.ns), one.key);
        // To bring the image again is of no use: what is there is taken for whole.
        finding.next = vec!["cairn fsck --deep --repair".to_owned()];
        let finding = match mended {
            None => finding,
            Some(Ok(())) => finding.mended("unpacked again from its layer"),
            Some(Err(reason)) => finding.left(reason),
        };
        self.found(finding);
    }

    fn unproven(&mut self, one: &Ordered<'_>, reason: &str) -> Result<(), Failure> {
        // Gone meanwhile, and no wonder that something of it is missing.
        if self.kind(one)? != Some(SnapshotKind::Committed) {
            return Ok(());
        }
        let kind = "snapshot-unproven";
        let finding = Finding::new(Severity::Note, kind, "snapshot", one.key, reason)
            .within(one.ns)
            .meaning("whether its files are whole is not known");
        self.found(finding);
        Ok(())
    }

    /// Unpacks a layer as it was unpacked before. The error is the reason.
    pub(super) fn unpack_again(
        &self,
        layer: (&Digest, &DiffId),
        staged: &Staged,
        below: &[Dir],
    ) -> Result<(), String> {
        self.apply_again(layer, staged, below, None, None)
    }

    /// Applies a layer as it was applied before, with `sums` in the place of bytes if they are given.
    fn apply_again(
        &self,
        (blob, diff_id): (&Digest, &DiffId),
        staged: &Staged,
        below: &[Dir],
        sums: Option<Arc<Sums>>,
        way: Option<&Way>,
    ) -> Result<(), String> {
        let said =
            |err: &dyn std::fmt::Display| format!("its layer {blob} cannot be unpacked: {err}");
        let source = self
            .node
            .content()
            .open_any(blob)
            .map_err(|err| said(&err))?;
        let size = source.size();
        let source = Stoppable {
            source: source.caching(self.caching),
            watcher: self.watcher,
        };
        let options = Options {
            diff_algorithm: diff_id.digest().algorithm(),
            sums,
            ..Options::default()
        };
        let before = way.map_or(0, |way| way.before.load(Ordering::Relaxed));
        let progress = |done: u64| {
            if let Some(way) = way {
                let done = (before + done.min(size)).min(way.total);
                self.watcher.progress(TREES, done, way.total);
            }
        };
        let layer_type = self.needed.layer_type(blob, diff_id);
        let unpacked = cairn_layer::unpack(source, layer_type, staged.dir(), &options, &progress);
        if let Some(way) = way {
            way.before
                .store((before + size).min(way.total), Ordering::Relaxed);
        }
        let Unpacked {
            diff_id: actual,
            applied,
            ..
        } = unpacked.map_err(|err| said(&chain(&err)))?;
        if actual != *diff_id {
            return Err(said(&format!(
                "it unpacks to {actual} instead of {diff_id}"
            )));
        }
        let adopted = cairn_layer::adopt(staged.dir(), below, &applied, &options);
        adopted.map(drop).map_err(|err| said(&chain(&err)))
    }
}

/// The blob that a tree was unpacked from, and what that unpacks to.
pub(super) fn provable(record: &SnapshotRecord) -> Option<(&Digest, &DiffId)> {
    record.blob.as_ref().zip(record.diff_id.as_ref())
}

fn kind_of(aspect: Aspect) -> &'static str {
    match aspect {
        Aspect::Missing => "tree-missing",
        Aspect::Extra => "tree-extra",
        Aspect::Kind => "tree-kind",
        Aspect::Content => "tree-content",
        Aspect::Mode => "tree-mode",
        Aspect::Owner => "tree-owner",
        Aspect::Time => "tree-time",
        Aspect::Attribute => "tree-attribute",
        Aspect::Link => "tree-link",
        Aspect::Device => "tree-device",
    }
}

/// From the tree's root, printable.
fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text.push_str(": ");
        text.push_str(&err.to_string());
        source = err.source();
    }
    text
}

/// A layer that is read no further when nobody waits for it.
struct Stoppable<'a, R> {
    source: R,
    watcher: &'a dyn FsckWatcher,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(buffer)?;
        match self.watcher.has_read(got as u64) {
            true => Ok(got),
            false => Err(io::Error::other("it was stopped")),
        }
    }
}
