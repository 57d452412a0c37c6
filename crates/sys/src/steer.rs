//! Points at which a test can hold a thread, so that others overtake it just there.
//!
//! What goes wrong only when one thread is overtaken at one place is met by chance once in a million
//! runs. In a build with the feature `fault` whoever steers threads has them stop at each point, lets
//! one of them go on to its next, and so goes through the orders that there are. A thread that nobody steers
//! never stops, and without the feature nothing of this is in the program.
//!
//! A thread holds nothing at a point that others wait for, but what they wait for by [`wait`] and it gives
//! back by [`wake`]. So one that is held up holds up nobody unseen.

#[cfg(feature = "fault")]
pub use active::{Steers, point, steered, wait, wake};
#[cfg(not(feature = "fault"))]
pub use inert::{point, wait, wake};

#[cfg(not(feature = "fault"))]
mod inert {
    use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

    /// Where a steered thread stops.
    #[inline]
    pub const fn point(_: &'static str) {}

    /// Waits on `changed` with a guard of `mutex`. What is behind it is whole at every moment.
    #[inline]
    pub fn wait<'m, T>(
        _: &'m Mutex<T>,
        changed: &Condvar,
        guard: MutexGuard<'m, T>,
    ) -> MutexGuard<'m, T> {
        changed.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait on `changed`.
    #[inline]
    pub fn wake(changed: &Condvar) {
        changed.notify_all();
    }
}

#[cfg(feature = "fault")]
mod active {
    use std::{
        cell::RefCell,
        sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    };

    /// Who says when a thread goes on.
    pub trait Steers: Send + Sync {
        /// Whether it still does. Where not, its threads go on by themselves.
        fn steers(&self) -> bool;
        /// The thread has come to a point; returns when it may go on.
        fn stops(&self, at: &'static str);
        /// It waits for what another thread has to do first; returns when that may be done.
        fn waits(&self);
        /// It has done what others may wait for.
        fn wakes(&self);
    }

    thread_local! {
        static STEERED: RefCell<Option<Arc<dyn Steers>>> = const { RefCell::new(None) };
    }

    /// Has this thread steered until `work` is done.
    pub fn steered<T>(by: Arc<dyn Steers>, work: impl FnOnce() -> T) -> T {
        struct Free;
        impl Drop for Free {
            fn drop(&mut self) {
                STEERED.set(None);
            }
        }
        STEERED.set(Some(by));
        let _free = Free;
        work()
    }

    fn steering() -> Option<Arc<dyn Steers>> {
        let by = STEERED.with_borrow(Clone::clone);
        by.filter(|by| by.steers())
    }

    /// Where a steered thread stops.
    pub fn point(at: &'static str) {
        if let Some(by) = steering() {
            by.stops(at);
        }
    }

    /// Waits on `changed` with a guard of `mutex`. What is behind it is whole at every moment.
    pub fn wait<'m, T>(
        mutex: &'m Mutex<T>,
        changed: &Condvar,
        guard: MutexGuard<'m, T>,
    ) -> MutexGuard<'m, T> {
        let Some(by) = steering() else {
            return changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        };
        drop(guard);
        by.waits();
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all who wait on `changed`.
    pub fn wake(changed: &Condvar) {
        changed.notify_all();
        if let Some(by) = steering() {
            by.wakes();
        }
    }
}
