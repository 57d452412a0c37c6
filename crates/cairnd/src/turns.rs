//! Turns at the threads that wait for disks. Each process that calls has so many, so that one which
//! asks for a thousand things at once does not keep another's one thing waiting behind them all.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// The turns of one process.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Semaphore>);

tokio::task_local! {
    static TURNS: Turns;
}

impl Turns {
    /// So many at once.
    pub fn new(count: usize) -> Turns {
        Turns(Arc::new(Semaphore::new(count.min(Semaphore::MAX_PERMITS))))
    }
}

/// Runs a call with the turns of its process; without any it never waits.
pub(crate) async fn during<F: Future>(turns: Option<Turns>, call: F) -> F::Output {
    match turns {
        Some(turns) => TURNS.scope(turns, call).await,
        None => call.await,
    }
}

/// Those of the call that this is in.
pub(crate) fn own() -> Option<Turns> {
    TURNS.try_with(Turns::clone).ok()
}

/// Waits for a turn; it lasts until what is returned is dropped.
pub(crate) async fn take() -> Option<OwnedSemaphorePermit> {
    let Turns(turns) = own()?;
    // It is never closed.
    turns.acquire_owned().await.ok()
}

/// Workers that do themselves what may wait for a disk.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// A worker's leave to do so, with a turn, until it is dropped.
pub(crate) struct Here(#[expect(dead_code, reason = "held")] Option<OwnedSemaphorePermit>);

impl Drop for Here {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Leave for this worker to do what may wait for a disk, if there is a turn at once and another worker
/// stays for whatever comes meanwhile.
pub(crate) fn here() -> Option<Here> {
    let workers = Handle::try_current().ok()?.metrics().num_workers();
    let turn = match own() {
        Some(Turns(turns)) => Some(turns.try_acquire_owned().ok()?),
        None => None,
    };
    let one_more = |busy: usize| (busy + 1 < workers).then_some(busy + 1);
    let counted = BUSY.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
    counted.is_ok().then(|| Here(turn))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_of_one_are_no_others() {
        let (one, two) = (Turns::new(1), Turns::new(1));
        let held = during(Some(one.clone()), take()).await;
        assert!(held.is_some());
        let waits = during(Some(one.clone()), take());
        tokio::pin!(waits);
        assert!(futures_ready(&mut waits).await.is_none());
        assert!(during(Some(two), take()).await.is_some());
        assert!(during(None, take()).await.is_none());
        drop(held);
        assert!(waits.await.is_some());
        // As a call whose answer is a stream that outlives it.
        let left = during(Some(one), async { Some(during(own(), take())) }).await;
        assert!(left.expect("a task").await.is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn one_worker_is_always_free() {
        let first = here().expect("there are three");
        let second = here().expect("one is left");
        assert!(here().is_none(), "and stays");
        drop(first);
        let turns = Turns::new(1);
        let none = during(Some(turns.clone()), async {
            let held = take().await;
            assert!(held.is_some());
            here().is_none()
        });
        assert!(none.await, "without a turn");
        let own = during(Some(turns.clone()), async { here() }).await;
        let own = own.expect("with one");
        assert_eq!(turns.0.available_permits(), 0, "which it has");
        drop(second);
        drop(own);
        assert_eq!(turns.0.available_permits(), 1);
        assert_eq!(BUSY.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn the_only_worker_is_never_kept() {
        assert!(here().is_none());
    }

    /// What a future is ready with at once.
    async fn futures_ready<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
                std::task::Poll::Ready(output) => Some(output),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
