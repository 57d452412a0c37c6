//! The places and the pace of a blob on its way.
//!
//! A place of all pulls is for a connection that brings something. While its pull holds itself back, or its
//! server sends next to nothing, the connection stays and its place is for others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_registry::{Blob, Error};

use crate::registries::{Pace, Place, Share};

/// For so long a connection is waited for before it counts as slow.
const WATCHED: Duration = Duration::from_secs(10);
/// Bytes that one has to bring in that time for its place to count.
const WATCHED_BYTES_MIN: u64 = 640 << 10;

/// What limits a blob's way here.
#[derive(Clone)]
pub(super) struct Limits {
    /// Connections of the whole daemon, and of this pull.
    pub(super) places: [Arc<Share>; 2],
    /// Bytes a second of both.
    pub(super) paces: [Pace; 2],
}

impl Limits {
    pub(super) async fn place(&self) -> Taken {
        let [all, own] = &self.places;
        // Its own first: who waits for that must not hold what others could use.
        let own = own.take().await;
        Taken::new(all.take().await, own)
    }

    pub(super) fn try_place(&self) -> Option<Taken> {
        let [all, own] = &self.places;
        let own = own.try_take()?;
        Some(Taken::new(all.try_take()?, own))
    }

    /// Waits until so many bytes may be had.
    pub(super) async fn pace(&self, bytes: usize, taken: &Taken) {
        let [all, own] = &self.paces;
        all.take(bytes).await;
        if let Some(until) = own.due(bytes) {
            taken.all.rest(true);
            tokio::time::sleep_until(until).await;
            taken.all.rest(false);
        }
    }
}

/// The places of one connection.
pub(super) struct Taken {
    all: Place,
    _own: Place,
}

impl Taken {
    fn new(all: Place, own: Place) -> Taken {
        Taken { all, _own: own }
    }
}

/// What one connection brings, and how long it was waited for.
#[derive(Default)]
pub(super) struct Meter {
    bytes: u64,
    waited: Duration,
}

impl Meter {
    /// The next piece of a blob.
    pub(super) async fn chunk(
        &mut self,
        blob: &mut Blob,
        taken: &Taken,
    ) -> Result<Option<Bytes>, Error> {
        let next = blob.chunk();
        tokio::pin!(next);
        loop {
            let began = Instant::now();
            let left = WATCHED.saturating_sub(self.waited);
            let piece = tokio::time::timeout(left, &mut next).await;
            let bytes = match &piece {
                Ok(Ok(Some(piece))) => piece.len() as u64,
                _ => 0,
            };
            if let Some(slow) = self.passed(began.elapsed(), bytes) {
                taken.all.rest(slow);
            }
            if let Ok(piece) = piece {
                return piece;
            }
        }
    }

    /// So many bytes came after so long. Says when it is time whether that was slow.
    fn passed(&mut self, waited: Duration, bytes: u64) -> Option<bool> {
        self.waited += waited;
        self.bytes += bytes;
        if self.waited < WATCHED && self.bytes < WATCHED_BYTES_MIN {
            return None;
        }
        let slow = self.bytes < WATCHED_BYTES_MIN;
        *self = Meter::default();
        Some(slow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_slow_after_a_while_and_quick_at_once() {
        let mut meter = Meter::default();
        let second = Duration::from_secs(1);
        for _ in 0..9 {
            assert_eq!(meter.passed(second, 20 << 10), None);
        }
        assert_eq!(meter.passed(second, 20 << 10), Some(true));
        // It has found its way.
        assert_eq!(meter.passed(second, 300 << 10), None);
        assert_eq!(meter.passed(second, 340 << 10), Some(false));
        assert_eq!(meter.passed(WATCHED, 0), Some(true));
    }
}
