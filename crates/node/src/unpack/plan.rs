//! What is missing of some stacks and blobs, who makes it, and making it.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use cairn_layer::Options;
use cairn_meta::{SnapshotRecord, View, schema};
use cairn_snapshot::StagedLayer;
use cairn_sys::Dir;
use cairn_types::{
    Classified, Descriptor, DiffId, Digest, ErrorKind, Labels, LayerTiming, SnapshotKey, Usage,
};

use super::{
    Ready, Stack, Work,
    pool::{self, Job, Made, Tree as Unpacked, unpacks_to},
};
use crate::{
    Failure, Phase,
    claims::{Awaiting, Claim, Claimed, Doubts, Waited},
    events::{self, What},
};

/// A snapshot that is to exist.
struct Planned {
    key: SnapshotKey,
    parent: Option<SnapshotKey>,
    diff_id: DiffId,
}

/// Makes `stacks` and `blobs` exist: of the stacks the snapshots, of the blobs themselves. Nothing of
/// the snapshots is visible before [`Ready::commit`]. On failure the blobs that were stored stay listed in
/// `stored`.
pub(crate) fn make(
    work: &Work<'_>,
    stacks: &[Stack],
    blobs: &[Descriptor],
    stored: &mut Vec<Digest>,
) -> Result<Ready, Failure> {
    let mut doubts = Doubts::new();
    loop {
        let plan = Plan::new(work, stacks, blobs, &doubts)?;
        match plan.run(work, stored)? {
            Ran::Ready(ready) => return Ok(ready),
            // All of it is looked at anew.
            Ran::InVain => {}
            Ran::Doubted(more) => doubts.extend(more),
        }
    }
}

/// How a plan went.
enum Ran {
    Ready(Ready),
    /// Who was at a part of it has failed.
    InVain,
    /// Who is at a part of it does not get on.
    Doubted(Doubts),
}

/// What is to be done for some stacks and blobs.
struct Plan {
    jobs: Vec<Job>,
    /// Those of whose blobs others are at.
    later: Vec<Job>,
    /// Parents before children.
    snapshots: Vec<Planned>,
    /// Blobs of the stacks for which there is nothing to do.
    here: Vec<Job>,
    claim: Claim,
    /// What others are making.
    awaited: Awaited,
}

/// What is waited for.
#[derive(Default)]
struct Awaited {
    all: Vec<Awaiting>,
    blobs: Vec<Descriptor>,
    layers: Vec<SnapshotKey>,
    /// In which those layers are.
    stacks: Vec<Stack>,
}

impl Plan {
    /// Finds out what is missing. A blob that a stack needs unpacked and that is in no `blobs` is read
    /// from the store.
    fn new(
        work: &Work<'_>,
        stacks: &[Stack],
        blobs: &[Descriptor],
        doubts: &Doubts,
    ) -> Result<Plan, Failure> {
        let mut planning = Planning::new(work, stacks, blobs, doubts);
        for stack in stacks {
            share(work, stack, &mut planning.proven)?;
        }
        for blob in blobs {
            planning.blob(blob)?;
        }
        for stack in stacks {
            planning.stack(stack)?;
        }
        Ok(planning.done())
    }

    /// Does it, unless somebody else does not do his part.
    fn run(mut self, work: &Work<'_>, stored: &mut Vec<Digest>) -> Result<Ran, Failure> {
        for job in &self.here {
            if let Some(diff_id) = &job.proven {
                pool::tell(work, &job.digest, diff_id)?;
            }
            work.layer(&job.digest, Phase::HereAlready, job.size, job.size);
        }
        for blob in &self.awaited.blobs {
            work.layer(&blob.digest, Phase::Waiting, 0, blob.size);
        }
        let mut made = Made::default();
        let mut done = pool::run(work, self.jobs, &mut made);
        let mut alone = None;
        if done.is_ok() {
            match self.awaited.wait(work, &self.claim) {
                Ok(None) => done = pool::run(work, self.later, &mut made),
                Ok(left) => alone = left,
                Err(failure) => done = Err(failure),
            }
        }
        stored.append(&mut made.stored);
        done?;
        if let Some(left_alone) = alone {
            return Ok(left_alone);
        }
        // What is left to do is up to this machine.
        work.pulse.stay_busy();
        let mut trees: HashMap<SnapshotKey, Unpacked> = made
            .trees
            .into_iter()
            .map(|tree| (tree.key.clone(), tree))
            .collect();
        let usages = adopt_all(work, &self.snapshots, &trees)?;
        let mut layers = Vec::new();
        for (planned, (usage, commit)) in self.snapshots.drain(..).zip(usages) {
            let Some(tree) = trees.remove(&planned.key) else {
                continue;
            };
            layers.push(StagedLayer {
                staged: tree.staged,
                key: planned.key,
                parent: planned.parent,
                usage,
                diff_id: Some(planned.diff_id),
                blob: Some(tree.blob),
                timing: Some(LayerTiming {
                    commit,
                    ..tree.timing
                }),
                labels: Labels::new(),
            });
        }
        Ok(Ran::Ready(Ready {
            layers,
            _claim: self.claim,
        }))
    }
}

impl Awaited {
    /// Waits for the others; `None` when they did what was expected of them.
    fn wait(&self, work: &Work<'_>, claim: &Claim) -> Result<Option<Ran>, Failure> {
        if self.all.is_empty() {
            return Ok(None);
        }
        match claim.wait(&self.all, &|| work.progress.given_up()) {
            Waited::Over => {}
            Waited::Doubted(doubts) => return Ok(Some(Ran::Doubted(doubts))),
            Waited::GivenUp => {
                let failure = Failure::new(ErrorKind::Canceled, work.attempted, "it was stopped");
                return Err(work.failure(failure));
            }
        }
        // They may have made it for another namespace.
        let mut proven = HashMap::new();
        for stack in &self.stacks {
            share(work, stack, &mut proven)?;
        }
        for blob in &self.blobs {
            if !has_blob(work, blob, proven.get(&blob.digest))? {
                return Ok(Some(Ran::InVain));
            }
            work.layer(&blob.digest, Phase::HereAlready, blob.size, blob.size);
        }
        for key in &self.layers {
            if !work.node.has_snapshot(work.ns, key)? {
                return Ok(Some(Ran::InVain));
            }
        }
        // Of those that were here packed nobody knew it when they were told of.
        for (digest, diff_id) in &proven {
            pool::tell(work, digest, diff_id)?;
        }
        Ok(None)
    }

    fn add(&mut self, what: Claimed, blob: &Descriptor) {
        self.all.push(Awaiting {
            what,
            blob: blob.digest.clone(),
            size: blob.size,
        });
    }
}

/// A plan that is being made.
struct Planning<'w, 'a> {
    work: &'w Work<'a>,
    claim: Claim,
    needed: HashSet<Claimed>,
    jobs: HashMap<Digest, Job>,
    /// Blobs that others are at.
    others: HashSet<Digest>,
    snapshots: Vec<Planned>,
    /// What packed layers unpack to, as far as that was seen here.
    proven: HashMap<Digest, DiffId>,
    seen: HashSet<SnapshotKey>,
    awaited: Awaited,
}

impl<'w, 'a> Planning<'w, 'a> {
    /// Claims everything before anything is looked for: what is missing then is missing for good, or
    /// somebody else is at it.
    fn new(work: &'w Work<'a>, stacks: &[Stack], blobs: &[Descriptor], doubts: &Doubts) -> Self {
        let mut wanted = Vec::new();
        if work.is_dear() {
            wanted.extend(blobs.iter().map(|blob| claimed_blob(work, &blob.digest)));
            let chains = stacks.iter().flat_map(Stack::chains);
            wanted.extend(chains.map(|chain| claimed_layer(work, &SnapshotKey::from(&chain))));
        }
        Planning {
            work,
            claim: work.node.inner.claims.claim(wanted, &work.pulse, doubts),
            needed: HashSet::new(),
            jobs: HashMap::new(),
            others: HashSet::new(),
            snapshots: Vec::new(),
            proven: HashMap::new(),
            seen: HashSet::new(),
            awaited: Awaited::default(),
        }
    }

    /// One that is to be in the store.
    fn blob(&mut self, blob: &Descriptor) -> Result<(), Failure> {
        let work = self.work;
        if self.jobs.contains_key(&blob.digest) || self.others.contains(&blob.digest) {
            return Ok(());
        }
        work.pins.blob(work.ns, &blob.digest);
        let stored = has_blob(work, blob, self.proven.get(&blob.digest))?;
        let claimed = claimed_blob(work, &blob.digest);
        if !stored && self.claim.is_others(&claimed) {
            self.others.insert(blob.digest.clone());
            self.awaited.blobs.push(blob.clone());
            self.awaited.add(claimed, blob);
        } else if !stored {
            self.needed.insert(claimed);
        }
        self.job(blob).store = !stored;
        Ok(())
    }

    fn job(&mut self, blob: &Descriptor) -> &mut Job {
        let job = self.jobs.entry(blob.digest.clone());
        job.or_insert_with(|| Job {
            digest: blob.digest.clone(),
            size: blob.size,
            store: false,
            proven: self.proven.get(&blob.digest).cloned(),
            layer: None,
            trees: Vec::new(),
        })
    }

    /// One that is to be unpacked.
    fn stack(&mut self, stack: &Stack) -> Result<(), Failure> {
        let work = self.work;
        let chains = stack.chains();
        let mut parent = None;
        for ((layer, layer_type, diff_id), chain) in stack.layers.iter().zip(&chains) {
            let key = SnapshotKey::from(chain);
            if !self.jobs.contains_key(&layer.digest) {
                work.pins.blob(work.ns, &layer.digest);
                check_stored(work, layer)?;
            }
            let job = self.job(layer);
            // One blob has one diff ID, or one of two chains would get the other's tree.
            if job
                .layer
                .as_ref()
                .is_some_and(|(known, _)| known != diff_id)
            {
                let reason = format!("layer {} is given two diff IDs", layer.digest);
                let failure = Failure::new(ErrorKind::InvalidArgument, work.attempted, reason);
                return Err(work.failure(failure));
            }
            job.layer = Some((diff_id.clone(), *layer_type));
            work.pins.snapshot(work.ns, &key);
            if self.seen.insert(key.clone()) && !work.node.has_snapshot(work.ns, &key)? {
                self.missing(layer, key.clone(), parent, diff_id);
            }
            parent = Some(key);
        }
        if !self.awaited.layers.is_empty() {
            self.awaited.stacks.push(stack.clone());
        }
        Ok(())
    }

    fn missing(
        &mut self,
        layer: &Descriptor,
        key: SnapshotKey,
        parent: Option<SnapshotKey>,
        diff_id: &DiffId,
    ) {
        let claimed = claimed_layer(self.work, &key);
        if self.claim.is_others(&claimed) {
            self.awaited.layers.push(key);
            self.awaited.add(claimed, layer);
            return;
        }
        self.needed.insert(claimed);
        self.job(layer).trees.push(key.clone());
        self.snapshots.push(Planned {
            key,
            parent,
            diff_id: diff_id.clone(),
        });
    }

    fn done(mut self) -> Plan {
        self.claim.keep_only(&self.needed);
        let (mut jobs, mut later, mut here) = (Vec::new(), Vec::new(), Vec::new());
        for mut job in self.jobs.into_values() {
            if self.others.contains(&job.digest) {
                job.store = false;
                if !job.trees.is_empty() {
                    later.push(job);
                }
            } else if job.store || !job.trees.is_empty() {
                jobs.push(job);
            } else {
                here.push(job);
            }
        }
        Plan {
            jobs,
            later,
            snapshots: self.snapshots,
            here,
            claim: self.claim,
            awaited: self.awaited,
        }
    }
}

fn claimed_blob(work: &Work<'_>, digest: &Digest) -> Claimed {
    Claimed::Blob(work.node.sharers(work.ns), digest.clone())
}

fn claimed_layer(work: &Work<'_>, key: &SnapshotKey) -> Claimed {
    Claimed::Layer(work.node.sharers(work.ns), key.clone())
}

/// Takes what others have unpacked of a stack, and what of its packed layers is known by that.
fn share(
    work: &Work<'_>,
    stack: &Stack,
    proven: &mut HashMap<Digest, DiffId>,
) -> Result<(), Failure> {
    let chains = stack.chains();
    work.node.share_chain(work.ns, &chains, work.pins)?;
    for ((layer, _, diff_id), chain) in stack.layers.iter().zip(&chains) {
        let key = (work.ns.clone(), SnapshotKey::from(chain));
        let read = work
            .node
            .meta()
            .read(|view| view.get(&schema::SNAPSHOTS, &key));
        let record = read.map_err(|err| work.store_failure(&layer.digest, &err))?;
        let proves = |record: SnapshotRecord| {
            record.blob.as_ref() == Some(&layer.digest) && record.diff_id.as_ref() == Some(diff_id)
        };
        // A plain layer's own name says it.
        if layer.digest != *diff_id.digest() && record.is_some_and(proves) {
            proven.insert(layer.digest.clone(), diff_id.clone());
        }
    }
    Ok(())
}

/// Whether the namespace has a blob, or has it now, since another one shares what it has.
fn has_blob(work: &Work<'_>, blob: &Descriptor, proven: Option<&DiffId>) -> Result<bool, Failure> {
    if check_stored(work, blob)? {
        return Ok(true);
    }
    if !work.is_dear() || work.node.shared_size(work.pins, &blob.digest)? != Some(blob.size) {
        return Ok(false);
    }
    let labels = proven.map(unpacks_to).into_iter().collect();
    let linked = work.node.content().link(work.ns, &blob.digest, labels);
    match linked {
        Ok(()) => {
            let (digest, size) = (blob.digest.clone(), blob.size);
            let what = What::ContentCreated { digest, size };
            work.node.happened(events::Event::of(work.ns, what));
            Ok(true)
        }
        Err(err) if err.kind() == ErrorKind::AlreadyExists => Ok(true),
        // Deleted since.
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
        Err(err) => Err(work.store_failure(&blob.digest, &err)),
    }
}

/// Whether the store has a blob, not known to be damaged; one whose length is not what the manifest says is refused, as it is
/// where the bytes pass by.
fn check_stored(work: &Work<'_>, blob: &Descriptor) -> Result<bool, Failure> {
    match work.node.content().info(work.ns, &blob.digest) {
        Ok(info) if info.size == blob.size => {
            let sound = work.node.content().is_sound(&blob.digest);
            sound.map_err(|err| work.store_failure(&blob.digest, &err))
        }
        Ok(info) => {
            let cause = format!("it has {} bytes instead of {}", info.size, blob.size);
            Err(work.damaged(&blob.digest).cause(cause))
        }
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
        Err(err) => Err(work.store_failure(&blob.digest, &err)),
    }
}

/// Completes every new layer from those below it, lowest first; what each takes, and how long that was.
fn adopt_all(
    work: &Work<'_>,
    planned: &[Planned],
    trees: &HashMap<SnapshotKey, Unpacked>,
) -> Result<Vec<(Usage, Duration)>, Failure> {
    let parents_of: HashMap<&SnapshotKey, Option<&SnapshotKey>> = planned
        .iter()
        .map(|p| (&p.key, p.parent.as_ref()))
        .collect();
    let mut usages = Vec::with_capacity(planned.len());
    for planned in planned {
        let Some(tree) = trees.get(&planned.key) else {
            usages.push(Default::default());
            continue;
        };
        let began = Instant::now();
        let mut below: Vec<Dir> = Vec::new();
        let mut parent = planned.parent.as_ref();
        while let Some(key) = parent {
            match trees.get(key) {
                Some(tree) => {
                    below.push(tree.staged.dir().clone());
                    parent = parents_of.get(key).copied().flatten();
                }
                None => {
                    let lowers = work.node.snapshots().lowers(work.ns, key);
                    below.extend(lowers.map_err(|err| work.store_failure(&tree.blob, &err))?);
                    break;
                }
            }
        }
        let applied = &tree.unpacked.applied;
        let usage = cairn_layer::adopt(tree.staged.dir(), &below, applied, &Options::default())
            .map_err(|err| work.layer_failure(&tree.blob, &err))?;
        usages.push((usage, began.elapsed()));
    }
    Ok(usages)
}
