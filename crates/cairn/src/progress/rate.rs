//! How fast something moves, as a mean of the last moments.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Marks per second at most: events come far more often than anything is drawn.
const HERTZ: u64 = 10;

/// Rates are means of this much time.
const RATE_WINDOW: Duration = Duration::from_secs(3);

/// Bytes per second over the last moments.
#[derive(Default)]
pub(super) struct Rate {
    marks: VecDeque<(Instant, u64)>,
}

impl Rate {
    /// `done` bytes are through at `now`.
    pub(super) fn mark(&mut self, now: Instant, done: u64) {
        // A mark per redraw is enough; events come far more often.
        let step = Duration::from_millis(1000 / HERTZ);
        if self.marks.len() > 1
            && self
                .marks
                .back()
                .is_some_and(|(then, _)| now.duration_since(*then) < step)
        {
            return;
        }
        self.marks.push_back((now, done));
        while self
            .marks
            .front()
            .is_some_and(|(then, _)| now.duration_since(*then) > RATE_WINDOW)
        {
            self.marks.pop_front();
        }
    }

    /// `None` when it is too early to tell, or when nothing moves.
    pub(super) fn per_second(&self) -> Option<u64> {
        let ((from, before), (to, after)) = (self.marks.front()?, self.marks.back()?);
        let ms = to.duration_since(*from).as_millis();
        let bytes = u128::from(after.checked_sub(*before)?);
        (ms > 0 && bytes > 0).then(|| u64::try_from(bytes * 1000 / ms).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_means_of_the_last_three_seconds() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rate = Rate::default();
        assert_eq!(rate.per_second(), None);
        for second in 0..10 {
            rate.mark(at(second * 1000), second * 500);
        }
        assert_eq!(rate.per_second(), Some(500));
        for second in 10..14 {
            rate.mark(at(second * 1000), 4500);
        }
        assert_eq!(rate.per_second(), None, "stalled");
    }
}
