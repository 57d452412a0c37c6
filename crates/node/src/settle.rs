//! Layers become durable behind the user's back: some time after they were unpacked, when the kernel
//! has written their pages anyway, so that nobody waits for a disk.
//!
//! Until then they carry the boot they were unpacked under, and a power cut drops them, to be
//! unpacked again from their blobs. Small blobs stand in the records until then.

use std::time::Duration;

use cairn_meta::Timestamp;

use crate::{Failure, Node};

/// A machine that never stops writing must not put the sync off for ever: after so many times the
/// wanted age it is made all the same.
const PATIENCE: u32 = 10;

impl Node {
    /// Puts unpacked layers and small blobs on the disk and records that they are, if there are any that
    /// have waited for `min_age` or longer. Whether it did.
    ///
    /// For the time after an answer was given. It is put off while the machine has much to write,
    /// since `syncfs` waits for what others wrote, too.
    pub fn settle(&self, min_age: Duration) -> Result<bool, Failure> {
        let waiting = [
            self.snapshots().pending_since(),
            self.content().pending_since(),
        ];
        let due = |since| is_due(since, min_age);
        if !waiting.into_iter().flatten().any(due) {
            return Ok(false);
        }
        // Both: the sync of the one is half of the other's.
        let flushed = self.snapshots().flush();
        flushed.map_err(|err| Failure::of("put unpacked layers on the disk", &err))?;
        let flushed = self.content().flush();
        flushed.map_err(|err| Failure::of("put small blobs on the disk", &err))?;
        Ok(true)
    }
}

fn is_due(since: Timestamp, min_age: Duration) -> bool {
    let age = age(since, Timestamp::now());
    age >= min_age && (age >= min_age * PATIENCE || !cairn_sys::is_crowded(0))
}

/// A clock that was set back makes nothing older.
fn age(since: Timestamp, now: Timestamp) -> Duration {
    let nanos = now.0.saturating_sub(since.0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let at = |nanos| Timestamp(nanos);
        assert_eq!(age(at(1), at(4)), Duration::from_nanos(3));
        assert_eq!(age(at(4), at(1)), Duration::ZERO);
        assert_eq!(age(at(i64::MIN), at(i64::MAX)).as_nanos(), i64::MAX as u128);
    }
}
