//! Layers side by side: each is read once, and on the way stored, hashed, inflated, hashed again
//! and written.
//!
//! As many workers as cores, or as are wanted, the largest layer first, so that no long layer begins last; where
//! that leaves cores without work, a layer gets several. A layer is
//! unpacked before the ones below it are known to be right; nothing of it is visible until all are.

mod pass;

use std::{
    io::{self, Read},
    ops::Deref,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use cairn_content::Ingest;
use cairn_layer::Unpacked;
use cairn_snapshot::Staged;
use cairn_types::{
    Classified, Compression, DiffId, Digest, ErrorKind, IngestRef, Labels, LayerTiming, LayerType,
    SnapshotKey,
};

pub(crate) use self::pass::mismatch;
use self::pass::{Unsettled, pass, settle, unpack};
use super::{
    Reading, Work,
    cores::{Weight, cores},
    tee::{Felt, Tee},
};
use crate::{Event, Failure, Phase, intake::Origin, uploads};

/// What its threads are called.
const WORKER: &str = "cairn-layer";

/// The label that tells a packed layer's diff ID (containerd `core/images/labels.go`).
pub(crate) const UNCOMPRESSED: &str = "containerd.io/uncompressed";

/// One blob, and what is to become of it.
pub(crate) struct Job {
    /// Its name.
    pub(crate) digest: Digest,
    /// Its bytes.
    pub(crate) size: u64,
    /// Put it into the store; otherwise it is there.
    pub(crate) store: bool,
    /// What it unpacks to, if it was unpacked here before, for whatever namespace.
    pub(crate) proven: Option<DiffId>,
    /// The diff ID it must have and how it may be packed; `None` when it is no layer to unpack.
    pub(crate) layer: Option<(DiffId, LayerType)>,
    /// The stacks that need it unpacked. More than one when images have it above different layers.
    pub(crate) trees: Vec<SnapshotKey>,
}

/// A job that waits or is under way, with what it counts for in sharing out the cores.
struct Weighed<'w> {
    job: Job,
    weight: Weight<'w>,
}

impl<'w> Weighed<'w> {
    fn new(work: &Work<'w>, job: Job) -> Weighed<'w> {
        let bytes = match job.trees.as_slice() {
            // Only stored.
            [] => 0,
            _ => job.size,
        };
        let weight = work.node.inner.unpacking.add(bytes);
        Weighed { job, weight }
    }
}

impl Deref for Weighed<'_> {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

/// A layer unpacked for one stack, and not yet visible.
pub(crate) struct Tree {
    pub(crate) key: SnapshotKey,
    pub(crate) staged: Staged,
    pub(crate) unpacked: Unpacked,
    pub(crate) blob: Digest,
    pub(crate) timing: LayerTiming,
}

impl Tree {
    /// What is told of the blob; nothing of one that is not packed.
    fn told(&self) -> Option<&DiffId> {
        let packed = self.unpacked.compression != Compression::None;
        packed.then_some(&self.unpacked.diff_id)
    }
}

/// The label of a packed layer that unpacks to this.
pub(crate) fn unpacks_to(diff_id: &DiffId) -> (String, String) {
    (UNCOMPRESSED.to_owned(), diff_id.to_string())
}

/// What the workers made.
#[derive(Default)]
pub(crate) struct Made {
    /// Unpacked layers, in no order.
    pub(crate) trees: Vec<Tree>,
    /// Blobs that were not in the namespace before.
    pub(crate) stored: Vec<Digest>,
}

/// Does all jobs. After a failure what was stored is still listed in `made`, for cleaning up.
///
/// Nothing is begun when what is to be stored does not fit: it would only be found out at the end, with the
/// disk full until then.
pub(crate) fn run(work: &Work<'_>, mut jobs: Vec<Job>, made: &mut Made) -> Result<(), Failure> {
    for job in &jobs {
        work.layer(&job.digest, Phase::Waiting, 0, job.size);
    }
    let missing = jobs.iter().filter(|job| job.store).map(|job| job.size);
    // What a manifest says may be anything.
    let missing = missing.fold(0, u64::saturating_add);
    work.missing.store(missing, Ordering::Relaxed);
    let here = jobs.iter().filter(|job| job.store);
    let here = here.fold(0, |sum: u64, job| sum.saturating_add(here_of(work, job)));
    if let Err(kept) = work.node.has_room(missing.saturating_sub(here)) {
        work.missing.fetch_sub(here.min(missing), Ordering::Relaxed);
        return Err(work.too_large(kept));
    }
    let workers = workers(work, jobs.len());
    // The queue is taken from its end.
    jobs.sort_by_key(|job| job.size);
    // What weighs is there before the first begins.
    let jobs = jobs.into_iter().map(|job| Weighed::new(work, job));
    let queue = Mutex::new(jobs.collect::<Vec<_>>());
    let results = Mutex::new((std::mem::take(made), None::<Failure>));
    let stop = AtomicBool::new(false);
    let worker = || {
        while !stop.load(Ordering::Relaxed) {
            let next = lock(&queue).pop();
            let Some(job) = next else { break };
            let mut own = Made::default();
            let done = one(work, &job, &stop, &mut own);
            drop(job);
            let mut results = lock(&results);
            results.0.trees.append(&mut own.trees);
            results.0.stored.append(&mut own.stored);
            if let Err(failure) = done {
                stop.store(true, Ordering::Relaxed);
                // Those that were only stopped are not the cause.
                let keep = results
                    .1
                    .as_ref()
                    .is_none_or(|f| f.kind == ErrorKind::Canceled);
                if keep {
                    results.1 = Some(failure);
                }
            }
        }
    };
    thread::scope(|scope| {
        for number in 0..workers {
            let thread = thread::Builder::new().name(WORKER.to_owned());
            let Err(err) = thread.spawn_scoped(scope, worker) else {
                continue;
            };
            // Fewer do it as well.
            if number == 0 {
                lock(&results).1 = Some(no_thread(work, &err));
            }
            break;
        }
    });
    let (all, failure) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    *made = all;
    failure.map_or(Ok(()), Err)
}

fn no_thread(work: &Work<'_>, err: &io::Error) -> Failure {
    let reason = "no thread can be started";
    let failure = Failure::new(ErrorKind::ResourceExhausted, work.attempted, reason);
    work.failure(failure.cause(err.to_string()))
}

/// How many threads work on so many layers.
pub(crate) fn workers(work: &Work<'_>, layers: usize) -> usize {
    let workers = cores(work.node.inner.parallel_layers);
    let at_once = work.origin.and_then(Origin::at_once).unwrap_or(0);
    workers.max(at_once).min(layers)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One blob from its source to where it belongs.
fn one(
    work: &Work<'_>,
    job: &Weighed<'_>,
    stop: &AtomicBool,
    made: &mut Made,
) -> Result<(), Failure> {
    let mut trees = job.trees.iter();
    let first = trees.next();
    let mut way = Way {
        store: job.store,
        go_on: true,
    };
    loop {
        match begin(work, job, stop, (first, way), made) {
            Ok(Begun::Done) => break,
            Ok(Begun::Anew) => way.go_on = false,
            // What is here is damaged, and where it comes from it may be whole.
            Err(_) if !way.store && is_to_be_mended(work, &job.digest) => {
                tracing::warn!("blob {} is damaged and is brought again", job.digest);
                work.missing.fetch_add(job.size, Ordering::Relaxed);
                way.store = true;
            }
            Err(failure) => return Err(failure),
        }
    }
    for key in trees {
        let source = work.open(&job.digest, Reading::Store)?;
        let tree = unpack(work, job, source, key, Phase::Unpack)?;
        made.trees
            .push(tree.map_err(|torn| torn.failure(work, job))?);
    }
    if !way.store
        && let Some(diff_id) = made.trees.first().and_then(Tree::told)
    {
        tell(work, &job.digest, diff_id)?;
    }
    work.layer(&job.digest, Phase::Done, job.size, job.size);
    Ok(())
}

/// Labels a blob that was here before anybody knew what it unpacks to.
pub(crate) fn tell(work: &Work<'_>, digest: &Digest, diff_id: &DiffId) -> Result<(), Failure> {
    let (key, value) = unpacks_to(diff_id);
    let known = work.node.content().info(work.ns, digest);
    // One that was not kept packed has nothing to be labelled.
    if known.is_ok_and(|info| info.labels.get(&key) != Some(&value)) {
        let labels = Labels::from([(key, value)]);
        match work.node.add_labels(work.ns, digest, labels) {
            // Deleted since.
            Err(failure) if failure.kind == ErrorKind::NotFound => {}
            labelled => labelled?,
        }
    }
    Ok(())
}

/// Whether a blob was found to be damaged in the store, and can be had elsewhere.
fn is_to_be_mended(work: &Work<'_>, digest: &Digest) -> bool {
    let damaged = work.node.content().is_sound(digest);
    let elsewhere = |origin: &dyn Origin| origin.has(digest).unwrap_or(false);
    damaged.is_ok_and(|sound| !sound) && work.origin.is_some_and(elsewhere)
}

/// How a blob is begun with.
#[derive(Clone, Copy)]
struct Way {
    /// It is brought into the store; otherwise it is read from there.
    store: bool,
    /// What an upload has already is believed.
    go_on: bool,
}

/// How the pass that stores a blob ended.
enum Begun {
    Done,
    /// What came is not the blob, and is gone again; it is worth to begin anew.
    Anew,
}

/// Stores a blob where that is wanted, and unpacks it for the first stack that needs it.
fn begin(
    work: &Work<'_>,
    job: &Weighed<'_>,
    stop: &AtomicBool,
    (key, Way { store, go_on }): (Option<&SnapshotKey>, Way),
    made: &mut Made,
) -> Result<Begun, Failure> {
    let mut ingest = match store {
        true => open_ingest(work, job, go_on)?,
        false => None,
    };
    let stores = ingest.is_some();
    let here = ingest.as_ref().map_or(0, Ingest::offset);
    let mut source = match &mut ingest {
        Some(ingest) => match share(work, job, ingest)? {
            true => Box::new(io::empty()),
            false => work.open(&job.digest, Reading::Source { from: here })?,
        },
        None => work.open(&job.digest, Reading::Store)?,
    };
    if here > 0
        && let Some(ingest) = &ingest
    {
        let before = ingest.written();
        let before = before.map_err(|err| work.store_failure(&job.digest, &err))?;
        source = Box::new(before.chain(source));
        let digest = job.digest.clone();
        work.progress.event(Event::Resumed { digest, at: here });
    }
    if work.is_dear() {
        source = Box::new(Felt::new(source, work, &job.digest));
    }
    let mut tee = Tee::new(work, (source, job.size), ingest, stop);
    let phase = match (stores, key) {
        (true, None) => Phase::Fetch,
        (true, Some(_)) => Phase::FetchUnpack,
        (false, _) => Phase::Unpack,
    };
    let passed = pass(work, job, &mut tee, key, phase);
    match settle(work, job, tee, passed, made) {
        Ok(tree) => made.trees.extend(tree),
        Err(Unsettled::Failed(failure)) => return Err(failure),
        Err(Unsettled::Wrong(mut failure, actual)) => {
            // Of what was here before nobody knows which bytes are wrong.
            if here == 0
                && let Some(origin) = work.origin
                && let Err(causes) = origin.distrust(&job.digest, &actual)
            {
                if !causes.is_empty() {
                    failure.causes = causes;
                }
                return Err(failure);
            }
            work.missing.fetch_add(job.size, Ordering::Relaxed);
            return Ok(Begun::Anew);
        }
    }
    Ok(Begun::Done)
}

/// Whether an upload has all bytes now without a copy, which are to be read from it then.
fn share(work: &Work<'_>, job: &Job, ingest: &mut Ingest) -> Result<bool, Failure> {
    let Some(origin) = work.origin else {
        return Ok(false);
    };
    let Some(file) = origin.file(&job.digest)? else {
        return Ok(false);
    };
    let shared = ingest.share(&file, job.size);
    shared.map_err(|err| work.store_failure(&job.digest, &err))
}

/// What only uploads that can be gone on with begin with; the rest is the digest.
const RESUMED: &str = "cairn.pull-";

/// Bytes of a blob that an upload has already.
fn here_of(work: &Work<'_>, job: &Job) -> u64 {
    let Ok(name) = IngestRef::parse(&format!("{RESUMED}{}", job.digest)) else {
        return 0;
    };
    let status = work
        .is_dear()
        .then(|| work.node.content().status(work.ns, &name));
    let here = status.and_then(Result::ok).map_or(0, |info| info.offset);
    here.min(job.size)
}

fn open_ingest(work: &Work<'_>, job: &Job, go_on: bool) -> Result<Option<Ingest>, Failure> {
    let name = match work.is_dear() {
        true => IngestRef::parse(&format!("{RESUMED}{}", job.digest)),
        false => uploads::name(),
    };
    let reference = name.map_err(|err| work.failure(Failure::of(work.attempted, &err)))?;
    let open = |reference: &IngestRef| {
        let content = work.node.content();
        content.writer(work.ns, reference, Some(&job.digest), job.size)
    };
    let mut opened = open(&reference);
    if opened.as_ref().is_err_and(is_taken) && work.is_dear() {
        // By one that was waited for in vain, and is at it still.
        let own = uploads::name().map_err(|err| work.failure(Failure::of(work.attempted, &err)))?;
        opened = open(&own);
    }
    let mut ingest = match opened {
        Ok(ingest) => ingest,
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {
            work.missing.fetch_sub(job.size, Ordering::Relaxed);
            return Ok(None);
        }
        Err(err) => return Err(work.store_failure(&job.digest, &err)),
    };
    if ingest.offset() > job.size || !go_on {
        let truncated = ingest.truncate();
        truncated.map_err(|err| work.store_failure(&job.digest, &err))?;
    }
    work.missing.fetch_sub(ingest.offset(), Ordering::Relaxed);
    Ok(Some(ingest))
}

fn is_taken(err: &cairn_content::Error) -> bool {
    err.kind() == ErrorKind::Unavailable
}
