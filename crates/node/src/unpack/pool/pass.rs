//! One pass over a blob's bytes: unpacked on the way if it is a layer, and settled at its end.

use std::{io::Read, time::Instant};

use cairn_content::Ingest;
use cairn_layer::Options;
use cairn_snapshot::Staged;
use cairn_types::{Classified, Digest, ErrorKind, SnapshotKey};

use super::{Job, Made, RESUMED, Tree, Weighed, unpacks_to};
use crate::{
    Failure, Phase,
    intake::Origin,
    unpack::{
        Work,
        cores::cores,
        tee::{Broken, Tee, is_full},
    },
};

/// Why a pass gave nothing.
pub(super) enum Unsettled {
    /// All bytes came, and hash to this instead.
    Wrong(Failure, Digest),
    Failed(Failure),
}

impl From<Failure> for Unsettled {
    fn from(failure: Failure) -> Unsettled {
        Unsettled::Failed(failure)
    }
}

/// A layer that broke off. What there is of it stays as long as this does, so that what a full disk
/// has left is told before its removal makes room.
pub(super) struct Torn {
    err: cairn_layer::Error,
    _staged: Staged,
}

impl Torn {
    pub(super) fn failure(&self, work: &Work<'_>, job: &Job) -> Failure {
        work.layer_failure(&job.digest, &self.err)
    }
}

/// What a pass over the bytes gave: nothing to unpack, or a tree, or why there is none.
pub(super) type Passed = Result<Option<Result<Tree, Torn>>, Failure>;

pub(super) fn pass(
    work: &Work<'_>,
    job: &Weighed<'_>,
    tee: &mut Tee<'_>,
    key: Option<&SnapshotKey>,
    phase: Phase,
) -> Passed {
    match key {
        Some(key) => unpack(work, job, tee, key, phase).map(Some),
        None => {
            tee.drain(&|done| work.layer(&job.digest, phase, done, job.size));
            Ok(None)
        }
    }
}

pub(super) fn unpack(
    work: &Work<'_>,
    job: &Weighed<'_>,
    source: impl Read + Send,
    key: &SnapshotKey,
    phase: Phase,
) -> Result<Result<Tree, Torn>, Failure> {
    let Some((diff_id, layer_type)) = &job.layer else {
        let reason = format!("layer {} has no diff ID", job.digest);
        return Err(work.failure(Failure::new(ErrorKind::Internal, work.attempted, reason)));
    };
    let staged = work.node.snapshots().stage();
    let staged = staged.map_err(|err| work.store_failure(&job.digest, &err))?;
    let threads = job.weight.threads(cores(work.node.inner.parallel_layers));
    let options = Options {
        diff_algorithm: diff_id.digest().algorithm(),
        threads: threads.number,
        ..Options::default()
    };
    let progress = |done| work.layer(&job.digest, phase, done, job.size);
    let unpacked = cairn_layer::unpack(source, *layer_type, staged.dir(), &options, &progress);
    drop(threads);
    let unpacked = match unpacked {
        Ok(unpacked) => unpacked,
        Err(err) => {
            let _staged = staged;
            return Ok(Err(Torn { err, _staged }));
        }
    };
    if unpacked.diff_id != *diff_id {
        let reason = format!("layer {} is not what the configuration says", job.digest);
        let failure = Failure::new(ErrorKind::DataLoss, work.attempted, reason)
            .cause(format!("its diff ID should be {diff_id}"))
            .cause(format!(
                "its uncompressed bytes hash to {}",
                unpacked.diff_id
            ));
        let mut failure = work.located(failure, &job.digest);
        failure.next.extend(work.keep_packed());
        return Err(failure);
    }
    for skipped in &unpacked.applied.skipped {
        tracing::info!(layer = %job.digest, "left out: {skipped}");
    }
    Ok(Ok(Tree {
        key: key.clone(),
        staged,
        timing: unpacked.timing.parts(),
        unpacked,
        blob: job.digest.clone(),
    }))
}

/// Ends a pass: proves size and digest, commits the blob, and finds the true cause of a failure. A
/// damaged layer mostly fails as bad gzip or bad tar first; what matters is that its bytes are wrong.
pub(super) fn settle(
    work: &Work<'_>,
    job: &Job,
    mut tee: Tee<'_>,
    passed: Passed,
    made: &mut Made,
) -> Result<Option<Tree>, Unsettled> {
    let unpack_failed = matches!(passed, Err(_) | Ok(Some(Err(_))));
    if unpack_failed {
        tee.drain(&|_| ());
    }
    let Tee {
        ingest,
        failed,
        read,
        ..
    } = tee;
    let abort = |ingest: Option<Ingest>| {
        if let Some(Err(err)) = ingest.map(Ingest::abort) {
            tracing::warn!("abort an upload: {err}");
        }
    };
    if let Some(cause) = failed {
        // What came is not wrong: the next try goes on from there, if it finds it. But nobody knows whether
        // there will be one, and a disk must not be full until then.
        let full = matches!(&cause, Broken::Store(err) if is_full(err));
        let from_store = ingest.is_none() && matches!(cause, Broken::Source(_));
        // Before there is room again.
        let mut failure = cause.failure(work, &job.digest);
        if from_store {
            failure = work.in_store(failure, &job.digest);
        }
        let kept = |ingest: &Ingest| !full && ingest.reference().as_str().starts_with(RESUMED);
        if !ingest.as_ref().is_some_and(kept) {
            abort(ingest);
        }
        return Err(failure.into());
    }
    if let Some(actual) = ingest.as_ref().map(Ingest::digest_so_far)
        && let Some(failure) = mismatch(work, (&job.digest, job.size), (&actual, read))
    {
        abort(ingest);
        return Err(Unsettled::Wrong(failure, actual));
    }
    let mut tree = match passed {
        Err(failure) => {
            abort(ingest);
            return Err(failure.into());
        }
        Ok(Some(Err(torn))) => {
            let failure = torn.failure(work, job);
            match ingest {
                // Its bytes are right; packed it can be had without fetching it once more.
                Some(ingest) if work.is_dear() => commit(work, job, ingest, None, made)?,
                ingest => abort(ingest),
            }
            return Err(failure.into());
        }
        Ok(Some(Ok(tree))) => Some(tree),
        Ok(None) => None,
    };
    if let Some(ingest) = ingest {
        let began = Instant::now();
        commit(work, job, ingest, tree.as_ref(), made)?;
        if let Some(tree) = &mut tree {
            tree.timing.sync = began.elapsed();
        }
    }
    Ok(tree)
}

/// What is wrong with a blob of which so many bytes came with such a digest.
pub(crate) fn mismatch(
    work: &Work<'_>,
    (digest, size): (&Digest, u64),
    (actual, read): (&Digest, u64),
) -> Option<Failure> {
    if actual == digest && read == size {
        return None;
    }
    let mut failure = work.damaged(digest);
    if read > size {
        // Reading ended there, so there is no digest of the whole to tell.
        return Some(failure.cause(format!("it has more than {size} bytes")));
    }
    if read < size {
        failure = failure.cause(format!("it has {read} bytes instead of {size}"));
    }
    if actual != digest {
        failure = failure.cause(format!("its bytes hash to {actual}"));
    }
    Some(failure)
}

fn commit(
    work: &Work<'_>,
    job: &Job,
    ingest: Ingest,
    tree: Option<&Tree>,
    made: &mut Made,
) -> Result<(), Failure> {
    work.layer(&job.digest, Phase::Sync, job.size, job.size);
    let _busy = work.pulse.busy();
    let mut labels = work.origin.map(Origin::labels).unwrap_or_default();
    let unpacked = tree.and_then(Tree::told).or(job.proven.as_ref());
    labels.extend(unpacked.map(unpacks_to));
    match ingest.commit(Some(job.size), Some(&job.digest), labels) {
        Ok(_) => made.stored.push(job.digest.clone()),
        // Another import was faster.
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
        Err(err) => return Err(work.store_failure(&job.digest, &err)),
    }
    Ok(())
}
