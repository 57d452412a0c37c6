//! Threads that a layer can do without.

use std::{
    io,
    sync::mpsc::{RecvError, channel},
    thread::{Builder, Scope, ScopedJoinHandle},
};

use crate::Error;

/// What each has for its stack, as is usual.
pub(super) const STACK_BYTES: usize = 2 << 20;

/// A thread, which may not even have got its work.
pub(super) type Thread<'scope, T> = ScopedJoinHandle<'scope, Result<T, RecvError>>;

/// Starts a thread that does `work` with `what`. Where none can be started `what` comes back, for somebody
/// else to do it: it is handed over only when there is a thread.
pub(super) fn start<'scope, W: Send + 'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    (name, stack_bytes): (&str, usize),
    what: W,
    work: impl FnOnce(W) -> T + Send + 'scope,
) -> Result<Thread<'scope, T>, (io::Error, W)> {
    let (give, given) = channel();
    let thread = Builder::new()
        .name(name.to_owned())
        .stack_size(stack_bytes)
        .spawn_scoped(scope, move || given.recv().map(work));
    match thread {
        Ok(thread) => {
            // It waits for nothing else.
            let _ = give.send(what);
            Ok(thread)
        }
        Err(err) => Err((err, what)),
    }
}

/// Waits for a thread. That it broke off is the cause of whatever else failed.
pub(super) fn joined<T>(thread: Thread<'_, T>) -> Result<T, Error> {
    let done = thread.join().ok().and_then(Result::ok);
    done.ok_or_else(|| Error::Thread("the reader broke off".into()))
}
