//! What the daemon does when nobody asks: garbage collection, putting unpacked layers and small blobs on
//! the disk, and saying so when its store has turned read-only.
//!
//! Collections are scheduled by containerd's rules (its plugin `gc.scheduler`): a removal or enough
//! changes make one due, and the time between two is such that no more than a chosen part of all time
//! goes into them. One rule is our own: what ends by time alone makes one due as well, so that a daemon that
//! nobody calls does not keep what a dead client's lease held.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_meta::Timestamp;
use cairn_node::{GcReport, Node};
use tokio::sync::{Notify, watch};
use tracing::{debug, error, info};

use crate::{config::Gc, metrics::Metrics, notify, server::Health};

/// Shorter collections count as this long, or an empty store would be collected without end.
const COLLECTION_MIN: Duration = Duration::from_millis(5);
/// From a collection to the next while the pause threshold is 0.
const INTERVAL: Duration = Duration::from_secs(1);

/// What expires is asked again after this at the latest: a clock may be set meanwhile, and an upload that is
/// open ends without a call.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// How soon after a failed sync the daemon calls itself unwell.
const LOOK: Duration = Duration::from_millis(250);

/// However low the pause threshold is.
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What calls changed since the last collection.
#[derive(Debug, Default)]
pub struct Activity {
    removals: AtomicU64,
    changes: AtomicU64,
    happened: Notify,
}

impl Activity {
    /// A call changed something; `removal` when something may have lost what held it.
    pub fn changed(&self, removal: bool) {
        self.changes.fetch_add(1, Ordering::Relaxed);
        if removal {
            self.removals.fetch_add(1, Ordering::Relaxed);
        }
        self.happened.notify_one();
    }

    fn take(&self) -> (u64, u64) {
        let removals = self.removals.swap(0, Ordering::Relaxed);
        (removals, self.changes.swap(0, Ordering::Relaxed))
    }
}

/// When the next collection is, and what counts towards it.
#[derive(Debug)]
struct Schedule {
    next: Option<Instant>,
    collected: bool,
    removals: u64,
    changes: u64,
    time: Duration,
    collections: u32,
    /// When the last collection began: it has judged what was over then.
    judged: Timestamp,
    /// When to look what ends by time alone; `None` for at once.
    look: Option<Instant>,
    /// Something has ended since.
    ended: bool,
}

impl Schedule {
    fn start(gc: &Gc, now: Instant) -> Schedule {
        Schedule {
            next: (!gc.startup_delay.is_zero()).then(|| now + gc.startup_delay),
            collected: false,
            removals: 0,
            changes: 0,
            time: Duration::ZERO,
            collections: 0,
            judged: Timestamp::default(),
            look: None,
            ended: false,
        }
    }

    fn due(&self, gc: &Gc) -> bool {
        let enough = gc.mutation_threshold > 0 && self.changes >= gc.mutation_threshold;
        !self.collected || self.removals > 0 || enough || self.ended
    }

    /// Whether something may have ended that nobody knows of yet. It costs a look at all leases and images,
    /// so it is asked when a collection could be made, and when records have changed or a time has come.
    fn looks(&self, now: Instant) -> bool {
        self.look.is_none_or(|at| at <= now)
    }

    /// It is so long until the next end, if there is one.
    fn looked(&mut self, left: Option<Duration>, now: Instant) {
        self.ended = left.is_some_and(|left| left.is_zero());
        self.look = Some(now + left.map_or(LOOK_AGAIN, |left| left.min(LOOK_AGAIN)));
    }

    /// Counts, and brings the next collection forward when that makes it urgent.
    fn add(&mut self, gc: &Gc, (removals, changes): (u64, u64), now: Instant) {
        self.removals += removals;
        self.changes += changes;
        if changes > 0 {
            self.look = None;
        }
        let many = gc.deletion_threshold > 0 && self.removals >= gc.deletion_threshold;
        let first = self.next.is_none() && {
            let removed = gc.deletion_threshold == 0 && self.removals > 0;
            let changed = gc.mutation_threshold > 0 && self.changes >= gc.mutation_threshold;
            removed || changed
        };
        let soon = now + gc.schedule_delay;
        if (many || first) && self.next.is_none_or(|next| next > soon) {
            self.next = Some(soon);
        }
    }

    fn collected(&mut self, gc: &Gc, judged: Timestamp, took: Duration, now: Instant) {
        self.collected = true;
        self.judged = judged;
        (self.look, self.ended) = (None, false);
        self.removals = 0;
        self.changes = 0;
        self.time += took.max(COLLECTION_MIN);
        self.collections += 1;
        self.next = Some(now + self.interval(gc));
    }

    /// So long that collections of the usual length take the chosen part of all time.
    fn interval(&self, gc: &Gc) -> Duration {
        if gc.pause_threshold <= 0.0 || self.collections == 0 {
            return INTERVAL;
        }
        let usual = (self.time / self.collections).as_secs_f64();
        Duration::try_from_secs_f64(usual / gc.pause_threshold - usual)
            .map_or(INTERVAL_MAX, |interval| interval.min(INTERVAL_MAX))
    }
}

/// Counts and logs every collection from now on, also those that clients ask for. Of one that fails
/// there is no line here: whoever asked for it says so.
pub fn watch_collections(node: &Node, metrics: Option<Arc<Metrics>>) {
    node.observe_collections(move |report, took| {
        if let Some(metrics) = &metrics {
            metrics.collected(report, took);
        }
        if let Some(report) = report {
            tell(report);
        }
    });
}

/// Collects garbage for as long as it is polled.
pub async fn collect(node: Node, gc: watch::Receiver<Gc>, activity: Arc<Activity>) {
    let mut schedule = Schedule::start(&gc.borrow(), Instant::now());
    loop {
        let wait = async {
            match schedule.next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let woken = tokio::select! {
            () = wait => false,
            () = activity.happened.notified() => true,
        };
        let gc = gc.borrow().clone();
        schedule.add(&gc, activity.take(), Instant::now());
        if woken {
            continue;
        }
        if !schedule.due(&gc) && schedule.looks(Instant::now()) {
            let left = left(&node, schedule.judged).await;
            schedule.looked(left, Instant::now());
        }
        if !schedule.due(&gc) || node.read_only().is_some() {
            schedule.next = Some(Instant::now() + schedule.interval(&gc));
            continue;
        }
        let (began, judged) = (Instant::now(), Timestamp::now());
        let node = node.clone();
        match tokio::task::spawn_blocking(move || node.gc(false)).await {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => error!(causes = failure.causes.join(": "), "{failure}"),
            Err(err) => error!("garbage collection was given up: {err}"),
        }
        schedule.collected(&gc, judged, began.elapsed(), Instant::now());
    }
}

/// How long until the first end after `judged` that no call will tell of.
async fn left(node: &Node, judged: Timestamp) -> Option<Duration> {
    let node = node.clone();
    let looked = tokio::task::spawn_blocking(move || node.next_end(judged)).await;
    let end = match looked {
        Ok(Ok(end)) => end?,
        // A damaged record, which collections fail on and tell of as well.
        Ok(Err(failure)) => {
            debug!(causes = failure.causes.join(": "), "{failure}");
            return None;
        }
        Err(err) => {
            error!("the look for what expires was given up: {err}");
            return None;
        }
    };
    let left = end.0.saturating_sub(Timestamp::now().0);
    Some(Duration::from_nanos(u64::try_from(left).unwrap_or(0)))
}

/// A collection that found nothing is no news.
fn tell(report: &GcReport) {
    let counts = [
        report.images,
        report.content,
        report.snapshots,
        report.ingests,
        report.leases,
    ];
    let [images, blobs, snapshots, ingests, leases] = counts.map(|count| count.removed);
    let (bytes, ms) = (report.freed(), report.took.as_secs_f64() * 1e3);
    if counts.iter().all(|count| count.removed == 0) {
        debug!(ms, "collected no garbage");
    } else {
        info!(
            images,
            blobs, snapshots, ingests, leases, bytes, ms, "collected garbage"
        );
    }
}

/// Waits until the store takes no changes any more, and says so: to whoever asks for health, and to the
/// service manager. What made it so is in the log.
pub async fn guard(node: Node, health: Health) {
    let mut beats = tokio::time::interval(LOOK);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if let Some(failure) = node.read_only() {
            health.unwell().await;
            notify::status(&failure.to_string());
            return;
        }
    }
}

/// Puts layers that were unpacked `delay` ago on the disk, for as long as it is polled.
pub async fn settle(node: Node, delay: Duration) {
    // Twice, and a layer waits for half as long again at most.
    let mut beats = tokio::time::interval((delay / 2).max(Duration::from_millis(100)));
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if node.read_only().is_some() {
            return;
        }
        let node = node.clone();
        match tokio::task::spawn_blocking(move || node.settle(delay)).await {
            Ok(Ok(true)) => debug!("unpacked layers are on the disk"),
            Ok(Ok(false)) => {}
            Ok(Err(failure)) => error!(causes = failure.causes.join(": "), "{failure}"),
            Err(err) => error!("putting layers on the disk was given up: {err}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layers;

    fn gc() -> Gc {
        Layers::default().config().unwrap().gc
    }

    #[test]
    fn the_first_comes_by_itself() {
        let (gc, now) = (gc(), Instant::now());
        let mut schedule = Schedule::start(&gc, now);
        assert_eq!(schedule.next, Some(now + Duration::from_millis(100)));
        assert!(schedule.due(&gc));
        schedule.collected(&gc, Timestamp(1), Duration::ZERO, now);
        // 5 ms are 2 % of 250 ms.
        assert_eq!(schedule.next, Some(now + Duration::from_millis(245)));
        assert!(!schedule.due(&gc));
    }

    #[test]
    fn removals_wait_for_the_interval() {
        let (gc, now) = (gc(), Instant::now());
        let mut schedule = Schedule::start(&gc, now);
        schedule.collected(&gc, Timestamp(1), Duration::from_millis(100), now);
        schedule.add(&gc, (1, 1), now);
        assert_eq!(schedule.next, Some(now + Duration::from_millis(4900)));
        assert!(schedule.due(&gc));
    }

    #[test]
    fn enough_removals_do_not_wait() {
        let gc = Gc {
            deletion_threshold: 2,
            schedule_delay: Duration::from_millis(7),
            ..gc()
        };
        let now = Instant::now();
        let mut schedule = Schedule::start(&gc, now);
        schedule.collected(&gc, Timestamp(1), Duration::from_secs(1), now);
        schedule.add(&gc, (1, 1), now);
        assert!(schedule.next.unwrap() > now + Duration::from_secs(40));
        schedule.add(&gc, (1, 1), now);
        assert_eq!(schedule.next, Some(now + Duration::from_millis(7)));
    }

    #[test]
    fn changes_alone_make_one_due() {
        let (gc, now) = (gc(), Instant::now());
        let mut schedule = Schedule::start(&gc, now);
        schedule.collected(&gc, Timestamp(1), Duration::ZERO, now);
        schedule.add(&gc, (0, 99), now);
        assert!(!schedule.due(&gc));
        schedule.add(&gc, (0, 1), now);
        assert!(schedule.due(&gc));
    }

    #[test]
    fn what_ends_by_itself_makes_one_due() {
        let gc = gc();
        let mut now = Instant::now();
        let mut schedule = Schedule::start(&gc, now);
        schedule.collected(&gc, Timestamp(1), Duration::ZERO, now);
        assert!(schedule.looks(now));
        schedule.looked(Some(Duration::from_secs(60)), now);
        assert!(!schedule.due(&gc) && !schedule.looks(now));
        now += Duration::from_secs(60);
        assert!(!schedule.due(&gc) && schedule.looks(now));
        schedule.looked(Some(Duration::ZERO), now);
        assert!(schedule.due(&gc));
        schedule.collected(&gc, Timestamp(2), Duration::ZERO, now);
        assert_eq!(schedule.judged, Timestamp(2));
        assert!(!schedule.due(&gc));
        // Nothing ends, and it is asked again only when something has changed, or much later.
        schedule.looked(None, now);
        assert!(!schedule.due(&gc) && !schedule.looks(now));
        assert!(schedule.looks(now + LOOK_AGAIN));
        schedule.add(&gc, (0, 1), now);
        assert!(schedule.looks(now) && !schedule.due(&gc));
    }

    #[test]
    fn without_a_first_the_first_removal_starts_it() {
        let gc = Gc {
            startup_delay: Duration::ZERO,
            ..gc()
        };
        let now = Instant::now();
        let mut schedule = Schedule::start(&gc, now);
        assert_eq!(schedule.next, None);
        schedule.add(&gc, (0, 1), now);
        assert_eq!(schedule.next, None);
        schedule.add(&gc, (1, 1), now);
        assert_eq!(schedule.next, Some(now));
    }
}
