//! A task that is woken in the middle of its own turn.
//!
//! tokio takes that for a task that gives way to others: it goes to the end of the queue, and another worker
//! is woken to take it from there. A connection wakes itself with each answer that is given where the call
//! came in, so every call would wake a worker for nothing, or move its connection to another core.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Turns in a row before the others' come.
const TURNS: usize = 8;

const RESTING: u8 = 0;
const RUNNING: u8 = 1;
/// Running, and woken since it began to.
const WOKEN: u8 = 2;

/// Runs again at once when it was woken while it ran.
pub(super) struct Awake<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Rings for the task, unless it is up.
struct Bell {
    state: AtomicU8,
    task: Mutex<Waker>,
}

impl Bell {
    fn task(&self) -> MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        let up = |state| (state != RESTING).then_some(WOKEN);
        let order = Ordering::SeqCst;
        if self.state.fetch_update(order, order, up).is_err() {
            let task = self.task().clone();
            task.wake();
        }
    }
}

impl<F: Future + Unpin> Awake<F> {
    pub(super) fn new(future: F) -> Awake<F> {
        let bell = Arc::new(Bell {
            state: AtomicU8::new(RESTING),
            task: Mutex::new(Waker::noop().clone()),
        });
        let waker = bell.clone().into();
        Awake {
            future,
            bell,
            waker,
        }
    }
}

impl<F: Future + Unpin> Future for Awake<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let awake = self.get_mut();
        // Before it can rest, so that whoever rings then rings for the right task.
        awake.bell.task().clone_from(context.waker());
        let state = &awake.bell.state;
        let order = Ordering::SeqCst;
        for _ in 0..TURNS {
            // Not a store: what whoever rang has written is seen by this turn.
            state.swap(RUNNING, order);
            let polled = Pin::new(&mut awake.future).poll(&mut Context::from_waker(&awake.waker));
            if polled.is_ready() {
                state.store(RESTING, order);
                return polled;
            }
            if state
                .compare_exchange(RUNNING, RESTING, order, order)
                .is_ok()
            {
                return Poll::Pending;
            }
        }
        state.swap(RESTING, order);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize};

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Count>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn rung(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// Wakes itself so many times before it is done.
    fn restless(mut left: usize) -> impl Future<Output = ()> + Unpin {
        poll_fn(move |context| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            context.waker().wake_by_ref();
            Poll::Pending
        })
    }

    #[test]
    fn who_wakes_itself_goes_on() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut task = Awake::new(restless(TURNS - 1));
        let polled = Pin::new(&mut task).poll(&mut Context::from_waker(&waker));
        assert_eq!(polled, Poll::Ready(()));
        assert_eq!(count.rung(), 0);
    }

    #[test]
    fn the_others_come_between() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut task = Awake::new(restless(TURNS));
        let mut context = Context::from_waker(&waker);
        assert_eq!(Pin::new(&mut task).poll(&mut context), Poll::Pending);
        assert_eq!(count.rung(), 1, "or nobody would come back to it");
        assert_eq!(Pin::new(&mut task).poll(&mut context), Poll::Ready(()));
    }

    #[test]
    fn who_rests_is_woken_by_the_task_that_it_is_in_now() {
        let inner = Arc::new(Mutex::new(None::<Waker>));
        let kept = inner.clone();
        let mut task = Awake::new(poll_fn(move |context| {
            *kept.lock().expect("alone") = Some(context.waker().clone());
            Poll::<()>::Pending
        }));
        let (before, now) = (Arc::new(Count::default()), Arc::new(Count::default()));
        for count in [&before, &now] {
            let waker = Waker::from(count.clone());
            let polled = Pin::new(&mut task).poll(&mut Context::from_waker(&waker));
            assert_eq!(polled, Poll::Pending);
        }
        let bell = inner.lock().expect("alone").take().expect("polled");
        bell.wake();
        assert_eq!((before.rung(), now.rung()), (0, 1));
    }
}
