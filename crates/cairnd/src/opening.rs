//! Opening a store, of which the service manager hears while it takes long.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use cairn_node::{Failure, Node, NodeOptions};

use crate::notify;

/// How long it may be until it gets on again. Of a file it is at most the time of its sync, which waits for
/// whatever anybody has written.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// How often the manager is told.
const EVERY: Duration = Duration::from_secs(5);

/// Opens a store. After a power cut layers may have to be unpacked again before anybody sees them: a manager that
/// ended the daemon for that would have it begin anew, for ever.
///
/// # Errors
/// Those of [`Node::open`].
pub(crate) fn open(options: NodeOptions) -> Result<Node, Failure> {
    let told: Mutex<Option<Instant>> = Mutex::new(None);
    Node::open_telling(options, &|| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= EVERY) {
            *told = Some(Instant::now());
            notify::later("unpacking layers again after a power cut", PATIENCE);
        }
    })
}
