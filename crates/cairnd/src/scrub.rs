//! The scrub of the stores: on a thread of its own, which waits for disks and for its turn nearly all of the
//! time.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use cairn_node::Node;
use tracing::error;

use crate::config::Scrub;

/// From one look at whether a pass is due to the next: at least, and at most.
const LOOK: Duration = Duration::from_secs(60);
const LOOK_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// The same after something could not be read at all, or while a store takes no changes, in which nothing can be
/// unpacked for comparison.
const LATER: Duration = Duration::from_secs(60 * 60);

/// The thread. Dropped, it is told to stop, and not waited for.
#[derive(Debug)]
pub struct Scrubber {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// Starts to scrub these stores, one after the other, if that is wanted.
    pub fn start(stores: Vec<Node>, scrub: &Scrub) -> Option<Scrubber> {
        if !scrub.enabled {
            return None;
        }
        let stop = Arc::new(Stop::default());
        let (told, scrub) = (Arc::clone(&stop), scrub.clone());
        let thread = thread::Builder::new().name("scrub".to_owned());
        match thread.spawn(move || run(&stores, &scrub, &told)) {
            Ok(thread) => Some(Scrubber {
                stop,
                thread: Some(thread),
            }),
            Err(err) => {
                error!("nothing is scrubbed: {err}");
                None
            }
        }
    }

    /// Tells it to stop, which it does after the piece that it reads.
    pub fn tell(&self) {
        self.stop.set();
    }

    /// The same, and waits until it has, and how far it came is on the disk.
    pub fn stop(mut self) {
        self.tell();
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            error!("the scrub was given up");
        }
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.tell();
    }
}

fn run(stores: &[Node], scrub: &Scrub, stop: &Stop) {
    let mut next = scrub.startup_delay;
    while stop.wait(next) {
        let due = stores.iter().map(|store| one(store, scrub, stop)).min();
        next = due.unwrap_or(LOOK_MAX).clamp(LOOK, LOOK_MAX);
    }
}

/// Scrubs a store if that is due, and says how long it is until it is again.
fn one(store: &Node, scrub: &Scrub, stop: &Stop) -> Duration {
    let due = store.scrub_due(scrub.every);
    if !due.is_zero() {
        return due;
    }
    let wanted = || !stop.is_set() && store.read_only().is_none();
    if !wanted() {
        return LATER;
    }
    // What it reads is damaged now and then: one that trips over it must not be the last.
    let pass = AssertUnwindSafe(|| store.scrub(scrub.rate, &wanted));
    match panic::catch_unwind(pass) {
        Ok(Ok(_)) => store.scrub_due(scrub.every),
        Ok(Err(failure)) => {
            error!(causes = failure.causes.join(": "), "{failure}");
            LATER
        }
        Err(_) => {
            error!("the scrub of the store was given up, and is tried again later");
            LATER
        }
    }
}

/// Whether it is told to stop.
#[derive(Debug, Default)]
struct Stop {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_set(&self) -> bool {
        *self.lock()
    }

    fn set(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// Waits so long, unless it is told to stop before; whether it is not.
    fn wait(&self, limit: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), limit, |set| !*set);
        let (set, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !*set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrub() -> Scrub {
        Scrub {
            enabled: true,
            startup_delay: Duration::ZERO,
            every: Duration::from_secs(3600),
            rate: 0,
        }
    }

    #[test]
    fn nothing_is_started_that_nobody_wants() {
        let off = Scrub {
            enabled: false,
            ..scrub()
        };
        assert!(Scrubber::start(Vec::new(), &off).is_none());
    }

    /// However long it would wait.
    #[test]
    fn it_stops_when_it_is_told() {
        for startup_delay in [Duration::ZERO, Duration::from_secs(3600), Duration::MAX] {
            let scrub = Scrub {
                startup_delay,
                ..scrub()
            };
            let scrubber = Scrubber::start(Vec::new(), &scrub).expect("a thread");
            assert!(!scrubber.stop.is_set());
            scrubber.stop();
        }
    }
}
