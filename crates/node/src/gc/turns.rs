//! One collection for all who wait for one: whoever comes while one runs needs the next, since what
//! they let go of may have been marked by this one; and all of those share it.

use std::{
    sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use cairn_sys::steer;
use cairn_types::ErrorKind;

use super::{ATTEMPTED, GcReport};
use crate::Failure;

type Outcome = Result<GcReport, Failure>;

/// Hears of every collection: its report when it succeeded, and how long it took.
pub(super) type Observer = Box<dyn Fn(Option<&GcReport>, Duration) + Send + Sync>;

/// Collections, one after the other.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<Runs>,
    ended: Condvar,
    pub(super) observer: OnceLock<Observer>,
}

#[derive(Default)]
struct Runs {
    begun: u64,
    done: u64,
    last: Option<Outcome>,
}

impl Turns {
    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a collection gave that began after this call did. It is made by `run`, here or by another
    /// caller.
    pub(super) fn share(&self, run: impl FnOnce() -> Outcome) -> Outcome {
        let mut runs = self.lock();
        let mine = runs.begun + 1;
        loop {
            if runs.done >= mine
                && let Some(outcome) = &runs.last
            {
                return outcome.clone();
            }
            if runs.begun == runs.done {
                runs.begun += 1;
                break;
            }
            runs = steer::wait(&self.state, &self.ended, runs);
        }
        drop(runs);
        // Also when it panics: others wait.
        let mut end = End {
            turns: self,
            began: Instant::now(),
            outcome: None,
        };
        let outcome = run();
        end.outcome = Some(outcome.clone());
        outcome
    }
}

struct End<'a> {
    turns: &'a Turns,
    began: Instant,
    outcome: Option<Outcome>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            let reason = "the collection broke off";
            Err(Failure::new(ErrorKind::Internal, ATTEMPTED, reason))
        });
        // Before anybody knows the outcome, so that whoever does finds it counted.
        if let Some(observer) = self.turns.observer.get() {
            observer(outcome.as_ref().ok(), self.began.elapsed());
        }
        let mut runs = self.turns.lock();
        runs.done = runs.begun;
        runs.last = Some(outcome);
        steer::wake(&self.turns.ended);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            atomic::{AtomicU32, Ordering},
            mpsc,
        },
        thread,
    };

    use super::*;

    #[test]
    fn who_comes_during_one_shares_the_next() {
        let (turns, begun) = (Turns::default(), AtomicU32::new(0));
        let observed = observed(&turns);
        let (first_began, began) = mpsc::channel();
        let (go_on, wait) = mpsc::channel::<()>();
        thread::scope(|scope| {
            let (turns, begun) = (&turns, &begun);
            scope.spawn(move || {
                turns.share(|| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    first_began.send(()).expect("began");
                    wait.recv().expect("go on");
                    Ok(GcReport::default())
                })
            });
            began.recv().expect("began");
            let waiting: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(move || {
                        turns.share(|| {
                            begun.fetch_add(1, Ordering::SeqCst);
                            // Whoever comes after this began needs one more; nobody does.
                            Ok(GcReport::default())
                        })
                    })
                })
                .collect();
            // Until all of them have said that they want one there is nothing to see; a slow one
            // makes one run more, never one less.
            go_on.send(()).expect("go on");
            for waiter in waiting {
                waiter.join().expect("no panic").expect("collected");
            }
        });
        let begun = begun.load(Ordering::SeqCst);
        assert!((2..=9).contains(&begun));
        // However many share one, it is one.
        assert_eq!(observed.try_iter().count(), begun as usize);
    }

    /// Whether each collection of `turns` succeeded.
    fn observed(turns: &Turns) -> mpsc::Receiver<bool> {
        let (tell, observed) = mpsc::channel();
        let observer: Observer = Box::new(move |report, _| {
            let _ = tell.send(report.is_some());
        });
        assert!(turns.observer.set(observer).is_ok());
        observed
    }

    #[test]
    fn a_collection_that_breaks_off_leaves_nobody_waiting() {
        let turns = Turns::default();
        let observed = observed(&turns);
        thread::scope(|scope| {
            let broken = scope.spawn(|| turns.share(|| panic!("on purpose")));
            assert!(broken.join().is_err());
        });
        turns.share(|| Ok(GcReport::default())).expect("the next");
        assert_eq!(observed.try_iter().collect::<Vec<_>>(), [false, true]);
    }
}
