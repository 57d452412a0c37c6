//! How much is fetched or sent at once, and how fast: for the whole daemon, and for one pull or push. Both
//! may be changed while bytes come.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Places for connections.
#[derive(Clone)]
pub(crate) struct Places(Arc<Room>);

struct Room {
    state: Mutex<Taken>,
    freed: Notify,
}

struct Taken {
    used: usize,
    limit: usize,
}

/// A place that is taken. Dropped, it is free again.
pub(crate) struct Place(Arc<Room>);

impl Places {
    /// At most `limit` connections, and at least one.
    pub(crate) fn new(limit: usize) -> Places {
        Places(Arc::new(Room {
            state: Mutex::new(Taken {
                used: 0,
                limit: limit.max(1),
            }),
            freed: Notify::new(),
        }))
    }

    /// Changes the limit. Connections that are too many then go on until they end.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.0.state().limit = limit.max(1);
        self.0.freed.notify_waiters();
    }

    /// Waits for a place.
    pub(crate) async fn take(&self) -> Place {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            // From here on a place that gets free is not missed.
            freed.as_mut().enable();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }

    /// A place, if one is free.
    pub(crate) fn try_take(&self) -> Option<Place> {
        let mut taken = self.0.state();
        if taken.used >= taken.limit {
            return None;
        }
        taken.used += 1;
        Some(Place(Arc::clone(&self.0)))
    }
}

impl Room {
    fn state(&self) -> MutexGuard<'_, Taken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.state().used -= 1;
        self.0.freed.notify_waiters();
    }
}

/// So many bytes a second.
#[derive(Clone, Default)]
pub(crate) struct Pace(Arc<Mutex<Paced>>);

#[derive(Default)]
struct Paced {
    /// Bytes a second; 0 for as many as come.
    rate: u64,
    /// When everything has been paid for that was taken.
    paid: Option<Instant>,
}

/// Time that is not used up to this is not saved: a pause earns no burst.
const SAVED_MAX: Duration = Duration::from_millis(100);

impl Pace {
    /// A pace of `rate` bytes a second; 0 for none.
    pub(crate) fn new(rate: u64) -> Pace {
        let pace = Pace::default();
        pace.set_rate(rate);
        pace
    }

    fn state(&self) -> MutexGuard<'_, Paced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the rate, from the next bytes on.
    pub(crate) fn set_rate(&self, rate: u64) {
        let mut paced = self.state();
        paced.rate = rate;
        // What was taken at another rate is forgiven.
        paced.paid = None;
    }

    /// Waits until so many bytes may be had.
    pub(crate) async fn take(&self, bytes: usize) {
        if let Some(until) = self.until(bytes, Instant::now()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// As [`Pace::take`], for threads that may wait.
    pub(crate) fn take_here(&self, bytes: usize) {
        if let Some(until) = self.until(bytes, Instant::now()) {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Bytes to take at a time, at most `most`: some pieces a second, so that a slow one is not a jerky one.
    pub(crate) fn piece(&self, most: usize) -> usize {
        match self.state().rate {
            0 => most,
            rate => usize::try_from(rate / 8).map_or(most, |n| n.clamp(1024.min(most), most)),
        }
    }

    fn until(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let mut paced = self.state();
        if paced.rate == 0 {
            return None;
        }
        let micros = (bytes as u128 * 1_000_000 / u128::from(paced.rate)).min(u128::from(u64::MAX));
        let cost = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        let earliest = now.checked_sub(SAVED_MAX).unwrap_or(now);
        let from = paced.paid.map_or(now, |paid| paid.max(earliest));
        let until = from.checked_add(cost).unwrap_or(from);
        paced.paid = Some(until);
        Some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_follow_their_limit() {
        let places = Places::new(2);
        let (first, second) = (places.take().await, places.take().await);
        assert!(places.try_take().is_none());
        drop(first);
        let third = places.take().await;
        places.set_limit(1);
        drop(second);
        assert!(places.try_take().is_none(), "one of one is taken");
        let waiting = tokio::spawn({
            let places = places.clone();
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        places.set_limit(2);
        let fourth = waiting.await.expect("a place");
        assert!(places.try_take().is_none());
        drop((third, fourth));
        assert!(places.try_take().is_some());
    }

    #[tokio::test]
    async fn a_pace_is_kept_and_changed() {
        let pace = Pace::new(1_000_000);
        let now = Instant::now();
        let after = |bytes| pace.until(bytes, now).map(|until| until - now);
        assert_eq!(after(500_000), Some(Duration::from_millis(500)));
        assert_eq!(after(500_000), Some(Duration::from_millis(1000)));
        let later = now + Duration::from_secs(60);
        let until = pace.until(1_000_000, later).expect("paced");
        assert_eq!(until - later, Duration::from_millis(900), "no burst");
        pace.set_rate(0);
        assert_eq!(after(1), None);
        pace.set_rate(10);
        assert_eq!(after(1), Some(Duration::from_millis(100)));
        assert_eq!(pace.piece(1 << 20), 1024);
        assert_eq!(Pace::new(8 << 20).piece(1 << 20), 1 << 20);
        assert_eq!(Pace::new(0).piece(1 << 20), 1 << 20);
    }
}
