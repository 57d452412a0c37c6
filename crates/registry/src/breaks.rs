//! Whether a body that breaks again and again still comes to something.
//!
//! Each connection is held to a rate, and what moves is gone on with as often as it breaks. Without an account
//! over all of them a host could send one byte by each for ever.

use std::time::Duration;

use crate::options::Options;

/// Breaks that are nothing to wonder at, however little came.
const FEW: u64 = 32;

/// Bytes that go with each further break.
const STEP_BYTES: u64 = 64 << 10;

/// What the making of a connection may take before its bytes are held against the time.
const GRACE: Duration = Duration::from_secs(1);

/// The breaks of one body at one host.
#[derive(Debug)]
pub(crate) struct Breaks {
    min_rate: u64,
    /// In a row, without enough in between.
    row: u32,
    all: u64,
    moved: u64,
    /// Bytes since the last break, and the time that was waited for them.
    since: u64,
    waited: Duration,
}

impl Breaks {
    pub(crate) fn new(options: &Options) -> Breaks {
        Breaks {
            min_rate: options.min_rate,
            row: 0,
            all: 0,
            moved: 0,
            since: 0,
            waited: Duration::ZERO,
        }
    }

    /// So many bytes came, or went, that had not before.
    pub(crate) fn moved(&mut self, bytes: u64) {
        self.moved = self.moved.saturating_add(bytes);
        self.since = self.since.saturating_add(bytes);
    }

    /// The host took so long: to answer, or for bytes. What is waited by ourselves does not count.
    pub(crate) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// It broke. A body that came too slowly in the end has not come well.
    pub(crate) fn broke(&mut self, too_slow: bool) {
        if !too_slow && self.is_enough(self.since, self.waited) {
            self.row = 0;
        }
        self.row = self.row.saturating_add(1);
        self.all += 1;
        if self.all > FEW + self.moved / STEP_BYTES {
            self.row = u32::MAX;
        }
        self.since = 0;
        self.waited = Duration::ZERO;
    }

    /// So many bytes had moved in so long before it broke last, as turned out afterwards.
    pub(crate) fn gained(&mut self, bytes: u64, waited: Duration) {
        self.moved = self.moved.saturating_add(bytes);
        if self.is_enough(bytes, waited) {
            self.row = 0;
        }
    }

    fn is_enough(&self, bytes: u64, waited: Duration) -> bool {
        let held = waited.saturating_sub(GRACE).as_millis();
        let least = u128::from(self.min_rate) * held / 1000;
        bytes > 0 && u128::from(bytes) >= least
    }

    /// How often in a row without enough in between; more than anybody tries, when it was too often in all.
    pub(crate) fn in_row(&self) -> u32 {
        self.row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After these breaks, each with bytes and seconds before it.
    fn rows(each: &[(u64, u64)]) -> Vec<u32> {
        let mut breaks = Breaks::new(&Options::default());
        let rows = each.iter().map(|(bytes, seconds)| {
            breaks.moved(*bytes);
            breaks.waited(Duration::from_secs(*seconds));
            breaks.broke(false);
            breaks.in_row()
        });
        rows.collect()
    }

    #[test]
    fn what_comes_fast_enough_begins_anew() {
        assert_eq!(rows(&[(100_000, 2); 40])[..], [1; 40]);
        assert_eq!(rows(&[(1, 0), (1, 1)]), [1, 1]);
        // Many gigabytes by a bad line.
        assert_eq!(rows(&[(1 << 20, 60); 20_000])[19_999], 1);
    }

    #[test]
    fn what_comes_too_slowly_does_not() {
        assert_eq!(rows(&[(1, 29); 5]), [1, 2, 3, 4, 5]);
        assert_eq!(rows(&[(0, 0); 3]), [1, 2, 3]);
        let slow = [(1, 29), (1, 29), (400_000, 29), (1, 29)];
        assert_eq!(rows(&slow), [1, 2, 1, 2]);
        let mut breaks = Breaks::new(&Options::default());
        for row in 1..4 {
            breaks.moved(1 << 30);
            breaks.broke(true);
            assert_eq!(breaks.in_row(), row);
        }
    }

    #[test]
    fn what_is_known_later_counts_as_well() {
        let mut breaks = Breaks::new(&Options::default());
        let mut row = |bytes, seconds| {
            breaks.broke(false);
            let row = breaks.in_row();
            breaks.gained(bytes, Duration::from_secs(seconds));
            row
        };
        assert_eq!(
            [row(1, 29), row(1, 29), row(1 << 20, 29), row(1, 0)],
            [1, 2, 3, 1]
        );
    }

    #[test]
    fn crumbs_end() {
        let rows = rows(&[(1000, 0); 40]);
        let last = rows.iter().position(|row| *row == u32::MAX);
        assert_eq!(last, Some(32));
    }
}
