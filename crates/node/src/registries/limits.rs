//! How much is fetched or sent at once, and how fast: for the whole daemon, and for one pull or push. Both
//! may be changed while bytes come.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// Places for connections, of which everybody who wants some gets his share.
///
/// Whoever has none gets one after [`STARVED`] whatever the limit, and one that gets free goes to who has
/// the fewest: a few slow registries could keep all of them for hours.
#[derive(Clone)]
pub(crate) struct Places(Arc<Room>);

/// Who has had to wait for so long for the first of his places gets one beside the limit.
const STARVED: Duration = Duration::from_secs(5);

struct Room {
    state: Mutex<Taken>,
    freed: Notify,
    /// As [`STARVED`].
    starved: Duration,
}

struct Taken {
    /// Those that count.
    used: usize,
    limit: usize,
    shares: HashMap<u64, Had>,
    next: u64,
}

/// What one has.
#[derive(Default)]
struct Had {
    places: usize,
    /// How often he waits for another one.
    waiting: usize,
}

/// One who takes places.
pub(crate) struct Share {
    room: Arc<Room>,
    number: u64,
}

/// A place that is taken. Dropped, it is free again.
pub(crate) struct Place {
    share: Arc<Share>,
    resting: AtomicBool,
}

impl Places {
    /// At most `limit` connections, and at least one.
    pub(crate) fn new(limit: usize) -> Places {
        Places::starving(limit, STARVED)
    }

    fn starving(limit: usize, starved: Duration) -> Places {
        Places(Arc::new(Room {
            starved,
            state: Mutex::new(Taken {
                used: 0,
                limit: limit.max(1),
                shares: HashMap::new(),
                next: 0,
            }),
            freed: Notify::new(),
        }))
    }

    /// Changes the limit. Connections that are too many then go on until they end.
    pub(crate) fn set_limit(&self, limit: usize) {
        self.0.state().limit = limit.max(1);
        self.0.freed.notify_waiters();
    }

    /// For one that is going to take places.
    pub(crate) fn share(&self) -> Arc<Share> {
        let mut taken = self.0.state();
        let number = taken.next;
        taken.next += 1;
        taken.shares.insert(number, Had::default());
        Arc::new(Share {
            room: Arc::clone(&self.0),
            number,
        })
    }
}

impl Share {
    /// Waits for a place.
    pub(crate) async fn take(self: &Arc<Share>) -> Place {
        let _waiting = Waiting::new(self);
        let starved = Instant::now() + self.room.starved;
        loop {
            let freed = self.room.freed.notified();
            tokio::pin!(freed);
            // From here on a place that gets free is not missed.
            freed.as_mut().enable();
            let now = Instant::now();
            if self.get(|taken| {
                taken.is_for(self.number) || taken.starves(self.number, now >= starved)
            }) {
                return self.place();
            }
            if now < starved {
                let _ = tokio::time::timeout_at(starved, freed).await;
            } else {
                freed.await;
            }
        }
    }

    /// A place, if one is free that nobody waits for.
    pub(crate) fn try_take(self: &Arc<Share>) -> Option<Place> {
        self.get(|taken| taken.is_free() && taken.shares.values().all(|had| had.waiting == 0))
            .then(|| self.place())
    }

    fn get(&self, may: impl FnOnce(&Taken) -> bool) -> bool {
        let mut taken = self.room.state();
        if !may(&taken) {
            return false;
        }
        taken.used += 1;
        taken.had(self.number).places += 1;
        true
    }

    fn place(self: &Arc<Share>) -> Place {
        Place {
            share: Arc::clone(self),
            resting: AtomicBool::new(false),
        }
    }
}

impl Taken {
    fn had(&mut self, number: u64) -> &mut Had {
        self.shares.entry(number).or_default()
    }

    fn is_free(&self) -> bool {
        self.used < self.limit
    }

    /// Whether there is a place, and nobody who has fewer waits for it.
    fn is_for(&self, number: u64) -> bool {
        let own = self.shares.get(&number).map_or(0, |had| had.places);
        let before = |had: &Had| had.waiting > 0 && had.places < own;
        self.is_free() && !self.shares.values().any(before)
    }

    fn starves(&self, number: u64, long: bool) -> bool {
        long && self.shares.get(&number).is_none_or(|had| had.places == 0)
    }
}

impl Room {
    fn state(&self) -> MutexGuard<'_, Taken> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.state().shares.remove(&self.number);
    }
}

/// One that waits for a place.
struct Waiting<'a>(&'a Share);

impl<'a> Waiting<'a> {
    fn new(share: &'a Share) -> Waiting<'a> {
        share.room.state().had(share.number).waiting += 1;
        Waiting(share)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.room.state().had(self.0.number).waiting -= 1;
        // Those who left it the place that it did not need, or left it the first of two.
        self.0.room.freed.notify_waiters();
    }
}

impl Place {
    /// A place at which hardly anything comes does not count, until something does.
    pub(crate) fn rest(&self, resting: bool) {
        if self.resting.swap(resting, Ordering::Relaxed) == resting {
            return;
        }
        let room = &self.share.room;
        match resting {
            true => room.state().used -= 1,
            // There may be one too many for a while.
            false => room.state().used += 1,
        }
        if resting {
            room.freed.notify_waiters();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.share.room.state();
        taken.had(self.share.number).places -= 1;
        if !*self.resting.get_mut() {
            taken.used -= 1;
        }
        drop(taken);
        self.share.room.freed.notify_waiters();
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

/// How long a thread that waits does not look whether it is still wanted.
const BEAT: Duration = Duration::from_millis(100);

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
        if let Some(until) = self.due(bytes) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Takes so many bytes; the time from which on they may be had, unless they may at once.
    pub(crate) fn due(&self, bytes: usize) -> Option<Instant> {
        let now = Instant::now();
        self.until(bytes, now).filter(|until| *until > now)
    }

    /// As [`Pace::take`], for threads that may wait; `false` once it is not `wanted` any more, which may be
    /// long before.
    pub(crate) fn take_here(&self, bytes: usize, wanted: &dyn Fn() -> bool) -> bool {
        let Some(until) = self.due(bytes) else {
            return wanted();
        };
        while wanted() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(BEAT));
        }
        false
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
        let share = places.share();
        let (first, second) = (share.take().await, share.take().await);
        assert!(share.try_take().is_none());
        drop(first);
        let third = share.take().await;
        places.set_limit(1);
        drop(second);
        assert!(share.try_take().is_none(), "one of one is taken");
        let waiting = tokio::spawn({
            let share = Arc::clone(&share);
            async move { share.take().await }
        });
        tokio::task::yield_now().await;
        places.set_limit(2);
        let fourth = waiting.await.expect("a place");
        assert!(share.try_take().is_none());
        drop((third, fourth));
        assert!(share.try_take().is_some());
    }

    fn waiting(share: &Arc<Share>) -> tokio::task::JoinHandle<Place> {
        let share = Arc::clone(share);
        tokio::spawn(async move { share.take().await })
    }

    #[tokio::test]
    async fn a_place_that_gets_free_is_for_who_has_fewest() {
        let places = Places::starving(4, Duration::from_secs(3600));
        let (many, few) = (places.share(), places.share());
        let mut taken = Vec::new();
        for _ in 0..4 {
            taken.push(many.take().await);
        }
        let more = waiting(&many);
        tokio::task::yield_now().await;
        let first = waiting(&few);
        tokio::task::yield_now().await;
        assert!(many.try_take().is_none() && few.try_take().is_none());
        taken.pop();
        let first = first.await.expect("a place");
        assert!(!more.is_finished());
        let second = waiting(&few);
        tokio::task::yield_now().await;
        taken.pop();
        let second = second.await.expect("a place");
        // Now both have two, and nobody else waits.
        drop(first);
        let more = more.await.expect("a place");
        drop((second, more, taken));
        assert!(few.try_take().is_some());
    }

    #[tokio::test]
    async fn who_has_none_gets_one_in_the_end() {
        let starved = Duration::from_millis(10);
        let places = Places::starving(2, starved);
        let (slow, other) = (places.share(), places.share());
        let taken = (slow.take().await, slow.take().await);
        let first = other.take().await;
        let second = waiting(&other);
        tokio::time::sleep(starved * 10).await;
        assert!(
            !second.is_finished(),
            "only the first comes beside the limit"
        );
        drop(taken);
        drop((first, second.await.expect("a place")));
        assert!(other.try_take().is_some());
    }

    #[tokio::test]
    async fn a_resting_place_is_for_others() {
        let places = Places::new(1);
        let share = places.share();
        let slow = share.take().await;
        assert!(share.try_take().is_none());
        slow.rest(true);
        slow.rest(true);
        let other = share.try_take().expect("a place");
        slow.rest(false);
        drop(other);
        assert!(share.try_take().is_none(), "it counts again");
        slow.rest(true);
        drop(slow);
        let _place = share.try_take().expect("a place");
        assert!(share.try_take().is_none());
    }

    /// At this rate it would be for eleven days.
    #[test]
    fn nobody_sleeps_for_what_is_not_wanted() {
        let pace = Pace::new(1);
        let looks = std::cell::Cell::new(0);
        let wanted = || {
            looks.set(looks.get() + 1);
            looks.get() < 3
        };
        assert!(!pace.take_here(1_000_000, &wanted));
        assert!(Pace::new(0).take_here(1_000_000, &|| true));
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
