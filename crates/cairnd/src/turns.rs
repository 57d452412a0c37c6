//! Turns at the threads that wait for disks. Each process that calls has so many, so that one which
//! asks for a thousand things at once does not keep another's one thing waiting behind them all.

use std::{future::Future, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// Runs what a call leaves to a task of its own with the same turns.
pub(crate) fn carried<F: Future>(task: F) -> impl Future<Output = F::Output> {
    let turns = TURNS.try_with(Turns::clone).ok();
    during(turns, task)
}

/// Waits for a turn; it lasts until what is returned is dropped.
pub(crate) async fn take() -> Option<OwnedSemaphorePermit> {
    let Turns(turns) = TURNS.try_with(Turns::clone).ok()?;
    // It is never closed.
    turns.acquire_owned().await.ok()
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
        // As a call that leaves a task behind and ends.
        let left = during(Some(one), async { Some(carried(take())) }).await;
        assert!(left.expect("a task").await.is_some());
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
