//! Cairn's own services, `cairn.v1`, for its command line: what containerd's API has no words for.
//!
//! Their errors carry all that is known of a failure; see [`crate::details`].

mod bundles;
mod check;
mod credentials;
mod export;
mod images;
mod import;
mod mounts;
mod progress;
mod pull;
mod push;
mod registry;
mod scrub;
mod store;
mod wire;

use std::pin::Pin;

use cairn_node::{Caller, Failure, GcReport, Node};
use cairn_types::{Classified, ErrorKind, Namespace};
use tokio_stream::Stream;
use tonic::{Request, Status};

pub(crate) use self::registry::explain;
use crate::{caller, details};

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Whose objects a request is about.
fn namespace<T>(request: &Request<T>) -> Result<Namespace, Status> {
    let Caller { ns, .. } = caller::of(request)?;
    Ok(ns)
}

/// Something in a request that must parse; `kind` says what it names.
fn parsed<T, E: Classified>(
    parsed: Result<T, E>,
    attempted: &str,
    kind: &str,
    text: &str,
) -> Result<T, Status> {
    parsed.map_err(|err| details::of(Failure::of(attempted, &err).object(kind, text)))
}

/// A request that makes no sense.
fn refused(attempted: &str, reason: &str) -> Status {
    let kind = ErrorKind::InvalidArgument;
    details::of(Failure::new(kind, attempted, reason))
}

/// Collects garbage for somebody who wants the room, also that of what was removed by name.
fn collect(node: &Node, dry_run: bool) -> Result<GcReport, Status> {
    let report = node.gc(dry_run).map_err(details::of)?;
    if !dry_run {
        node.snapshots().wait_removed();
    }
    Ok(report)
}

/// A listing in messages of `size` objects, so that none grows with the store.
fn batches<T, M>(all: Vec<T>, size: usize, message: fn(Vec<T>) -> M) -> Answers<M>
where
    T: Send + 'static,
    M: Send + 'static,
{
    let mut all = all.into_iter();
    let batches = std::iter::from_fn(move || {
        let batch: Vec<T> = all.by_ref().take(size).collect();
        (!batch.is_empty()).then(|| Ok(message(batch)))
    });
    Box::pin(tokio_stream::iter(batches))
}
