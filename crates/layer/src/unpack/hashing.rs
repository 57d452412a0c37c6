//! The uncompressed bytes hashed by a thread of their own, while others apply them.

use std::{
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    thread::Scope,
    time::{Duration, Instant},
};

use cairn_types::{Digest, Hasher};

use super::{
    buffers::Lent,
    threads::{self, Thread},
};

/// What came of it.
pub(super) struct Hashed {
    pub(super) digest: Digest,
    /// Without the waiting for bytes.
    pub(super) busy: Duration,
}

/// The hasher of who has to do it himself, or the way to a thread that does, and the thread.
pub(super) type Hashes<'scope> = (
    Option<Hasher>,
    Option<Sender<Arc<Lent>>>,
    Option<Thread<'scope, Hashed>>,
);

/// Starts hashing what is sent, until nobody can send any more, if a thread can be started.
pub(super) fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    stack_bytes: usize,
    hasher: Hasher,
) -> Hashes<'scope> {
    let (sender, buffers) = channel::<Arc<Lent>>();
    let hash = move |mut hasher: Hasher| {
        let mut busy = Duration::ZERO;
        for buffer in buffers {
            let began = Instant::now();
            hasher.update(&buffer);
            busy += began.elapsed();
        }
        let digest = hasher.finish();
        Hashed { digest, busy }
    };
    match threads::start(scope, ("layer-hash", stack_bytes), hasher, hash) {
        Ok(thread) => (None, Some(sender), Some(thread)),
        Err((_, hasher)) => (Some(hasher), None, None),
    }
}
