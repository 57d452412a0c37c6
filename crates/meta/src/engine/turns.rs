//! Whose turn it is in an engine without read transactions: many readers, or the one commit.
//!
//! The standard library's lock would do, but for one thing: a reader that looks a second time
//! inside its first look must not queue behind a commit that waits for that first look to end.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

thread_local! {
    /// Looks this thread has open. Counted over all stores: that can only cost a commit its place
    /// in the queue, never let a look and a commit overlap.
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

#[derive(Default)]
struct State {
    readers: usize,
    commit_waits: bool,
    commit_runs: bool,
}

/// The turnstile of one engine.
#[derive(Default)]
pub(super) struct Turns {
    state: Mutex<State>,
    changed: Condvar,
}

/// Holds commits off while it lives. It stays on its thread, which counts its looks.
pub(super) struct Look<'a> {
    turns: &'a Turns,
    _thread: PhantomData<*const ()>,
}

/// Holds readers off while it lives.
pub(super) struct Commit<'a>(&'a Turns);

impl Turns {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is three plain values, whole at every moment; no panic can leave it halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        not_yet: impl Fn(&State) -> bool,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_while(state, |state| not_yet(state))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a running commit, and lets a waiting one go first unless this thread looks already.
    pub(super) fn look(&self) -> Look<'_> {
        let nested = LOOKS.get() > 0;
        let mut state = self.wait(self.lock(), |s| {
            s.commit_runs || (s.commit_waits && !nested)
        });
        state.readers += 1;
        LOOKS.set(LOOKS.get() + 1);
        Look {
            turns: self,
            _thread: PhantomData,
        }
    }

    /// Waits until nobody looks.
    pub(super) fn commit(&self) -> Commit<'_> {
        let mut state = self.lock();
        state.commit_waits = true;
        let mut state = self.wait(state, |s| s.readers > 0 || s.commit_runs);
        state.commit_waits = false;
        state.commit_runs = true;
        Commit(self)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        LOOKS.set(LOOKS.get() - 1);
        self.turns.lock().readers -= 1;
        self.turns.changed.notify_all();
    }
}

impl Drop for Commit<'_> {
    fn drop(&mut self) {
        self.0.lock().commit_runs = false;
        self.0.changed.notify_all();
    }
}
