//! How long a request is waited for.
//!
//! Whoever claims is not known to be honest, nor quick: an image may name the layers of any other, and
//! its registry may send them drop by drop. So a claim is waited for as long as it gets on, and no
//! longer. Who fetches from the same repository as quickly as the one that waits is waited for if it gets
//! on at all: to ask the same server once more would help nobody. Of everybody else it is the wanted thing
//! itself that must come, and soon.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_types::Digest;

use super::{Awaiting, Claimed};

/// For so long nobody is judged.
const WINDOW: Duration = Duration::from_secs(10);
/// Bytes that one like ourselves has to get in that time, for all that it fetches: a connection that
/// brings less counts as broken.
const LIKE_US_BYTES_MIN: u64 = 100 << 10;
/// Bytes of the wanted thing that anybody else has to get in that time.
const OTHERS_BYTES_MIN: u64 = 5 << 19;
/// In so many such times it must come to its end at the rate of the last one.
const OTHERS_WINDOWS_MAX: u64 = 12;

/// How far a request is.
#[derive(Default)]
pub(crate) struct Pulse {
    /// From where, and at which rate of its own; those who have the same are alike.
    like: String,
    /// Bytes of each blob that were read, whether they came or were here.
    blobs: Mutex<HashMap<Digest, u64>>,
    all: AtomicU64,
    /// Parts of it that wait for nobody but this machine.
    busy: AtomicUsize,
}

impl Pulse {
    /// Of a request that fetches from there.
    pub(crate) fn new(like: String) -> Pulse {
        Pulse {
            like,
            ..Pulse::default()
        }
    }

    fn blobs(&self) -> MutexGuard<'_, HashMap<Digest, u64>> {
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many bytes of a blob were read.
    pub(crate) fn came(&self, digest: &Digest, bytes: u64) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        let mut blobs = self.blobs();
        match blobs.get_mut(digest) {
            Some(known) => *known += bytes,
            None => drop(blobs.insert(digest.clone(), bytes)),
        }
    }

    /// Until it is dropped the request waits for this machine alone.
    pub(crate) fn busy(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy(self)
    }

    /// From now on it does.
    pub(crate) fn stay_busy(&self) {
        std::mem::forget(self.busy());
    }

    fn of(&self, digest: &Digest) -> u64 {
        self.blobs().get(digest).copied().unwrap_or(0)
    }
}

/// A request that waits for nobody but this machine.
pub(crate) struct Busy<'a>(&'a Pulse);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How far something was, and when.
struct Seen {
    at: Instant,
    bytes: u64,
}

/// What one that waits has seen of those it waits for.
pub(super) struct Patience<'a> {
    own: &'a Pulse,
    seen: HashMap<Claimed, Seen>,
}

impl<'a> Patience<'a> {
    pub(super) fn new(own: &'a Pulse) -> Patience<'a> {
        Patience {
            own,
            seen: HashMap::new(),
        }
    }

    /// Whether whoever is at it does not get on.
    pub(super) fn is_over(&mut self, one: &Awaiting, holder: &Pulse, now: Instant) -> bool {
        let alike = holder.like == self.own.like;
        let of_it = holder.of(&one.blob);
        let bytes = match alike {
            true => holder.all.load(Ordering::Relaxed),
            false => of_it,
        };
        let seen = self.seen.entry(one.what.clone());
        let seen = seen.or_insert(Seen { at: now, bytes });
        let busy = holder.busy.load(Ordering::Relaxed) > 0;
        if !busy && now.saturating_duration_since(seen.at) < WINDOW {
            return false;
        }
        let gained = bytes.saturating_sub(seen.bytes);
        let left = one.size.saturating_sub(of_it);
        let enough = match alike {
            true => LIKE_US_BYTES_MIN,
            false => (left / OTHERS_WINDOWS_MAX).max(OTHERS_BYTES_MIN),
        };
        if !busy && gained < enough {
            return true;
        }
        *seen = Seen { at: now, bytes };
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What becomes of waiting for a blob of so many bytes of which so many come in each window.
    fn check(holder: &str, size: u64, windows: &[u64], over: bool) {
        let own = Pulse::new("here".to_owned());
        let pulse = Pulse::new(holder.to_owned());
        let blob = Digest::sha256(b"blob");
        let one = Awaiting {
            what: Claimed::Blob(None, blob.clone()),
            blob: blob.clone(),
            size,
        };
        let mut patience = Patience::new(&own);
        let mut now = Instant::now();
        assert!(!patience.is_over(&one, &pulse, now));
        let (last, before) = windows.split_last().expect("a window");
        for bytes in before {
            pulse.came(&blob, *bytes);
            now += WINDOW;
            assert!(
                !patience.is_over(&one, &pulse, now),
                "{bytes} of {windows:?}"
            );
        }
        pulse.came(&blob, *last);
        assert!(!patience.is_over(&one, &pulse, now + WINDOW / 2));
        let judged = patience.is_over(&one, &pulse, now + WINDOW);
        assert_eq!(judged, over, "{holder}: {windows:?}");
    }

    #[test]
    fn who_gets_on_is_waited_for() {
        check("here", 100 * MIB, &[MIB, LIKE_US_BYTES_MIN], false);
        check("here", 100 * MIB, &[MIB, LIKE_US_BYTES_MIN - 1], true);
        // At ten kilobytes a second, which no client takes for a broken connection.
        check("there", 30 * MIB, &[LIKE_US_BYTES_MIN], true);
        check(
            "there",
            30 * MIB,
            &[OTHERS_BYTES_MIN, OTHERS_BYTES_MIN],
            false,
        );
        // In an hour it would be there.
        check("there", 1024 * MIB, &[OTHERS_BYTES_MIN], true);
        check("there", 1024 * MIB, &[200 * MIB, 200 * MIB], false);
        // All of it came, and the request is at something else.
        check("there", MIB, &[MIB], true);
        check("there", 100 * MIB, &[50 * MIB, 50 * MIB, 0], true);
    }

    #[test]
    fn what_another_blob_gets_is_nothing_to_strangers() {
        let own = Pulse::new("here".to_owned());
        let now = Instant::now();
        for (like, over) in [("here", false), ("there", true)] {
            let pulse = Pulse::new(like.to_owned());
            let mut patience = Patience::new(&own);
            let blob = Digest::sha256(b"blob");
            let one = Awaiting {
                what: Claimed::Blob(None, blob.clone()),
                blob,
                size: MIB,
            };
            assert!(!patience.is_over(&one, &pulse, now));
            pulse.came(&Digest::sha256(b"other"), 1024 * MIB);
            assert_eq!(patience.is_over(&one, &pulse, now + WINDOW), over, "{like}");
        }
    }

    #[test]
    fn work_of_this_machine_takes_as_long_as_it_takes() {
        let own = Pulse::default();
        let pulse = Pulse::new("there".to_owned());
        let blob = Digest::sha256(b"blob");
        let one = Awaiting {
            what: Claimed::Blob(None, blob.clone()),
            blob,
            size: MIB,
        };
        let mut patience = Patience::new(&own);
        let mut now = Instant::now();
        assert!(!patience.is_over(&one, &pulse, now));
        let busy = pulse.busy();
        for _ in 0..10 {
            now += WINDOW;
            assert!(!patience.is_over(&one, &pulse, now));
        }
        drop(busy);
        assert!(!patience.is_over(&one, &pulse, now + WINDOW / 2));
        assert!(patience.is_over(&one, &pulse, now + WINDOW));
    }
}
