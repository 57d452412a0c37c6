//! The uncompressed bytes hashed by a thread of their own, while others apply them.

use std::{
    sync::{Arc, mpsc::Receiver},
    thread::{Builder, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use cairn_types::{Digest, Hasher};

use super::buffers::Lent;
use crate::Error;

/// What came of it.
pub(super) struct Hashed {
    pub(super) digest: Digest,
    /// Without the waiting for bytes.
    pub(super) busy: Duration,
}

/// Starts hashing what comes by `buffers`, until nobody can send any more.
pub(super) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut hasher: Hasher,
    buffers: Receiver<Arc<Lent>>,
) -> Result<ScopedJoinHandle<'scope, Hashed>, Error> {
    let hash = move || {
        let mut busy = Duration::ZERO;
        for buffer in buffers {
            let began = Instant::now();
            hasher.update(&buffer);
            busy += began.elapsed();
        }
        let digest = hasher.finish();
        Hashed { digest, busy }
    };
    let thread = Builder::new().name("layer-hash".to_owned());
    let thread = thread.spawn_scoped(scope, hash);
    thread.map_err(|err| Error::Thread(err.to_string()))
}
