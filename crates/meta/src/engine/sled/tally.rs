//! What sled should have: the number of all pairs, and a sum over them.
//!
//! sled passes over an entry of its log that does not prove itself, and then has an older value, or none,
//! without a word. So every commit writes with it what there is after it, and an opening counts.

use crate::record;

/// Under it stands the tally of all other pairs. No table has this tag.
pub(super) const TALLY: &[u8] = b"\0tally\0";

/// Of pairs, in whatever order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    count: u64,
    sum: u64,
}

impl Tally {
    pub(super) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(key, value));
    }

    pub(super) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(key, value));
    }

    /// As it is kept, together with the `place` in the journal that the engine had by then: a version that
    /// knows of no tallies leaves an old one behind, which says nothing.
    pub(super) fn seal(self, place: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(24);
        bytes.extend(self.count.to_le_bytes());
        bytes.extend(self.sum.to_le_bytes());
        bytes.extend(hash(TALLY, place.unwrap_or_default()).to_le_bytes());
        record::seal(TALLY, &bytes)
    }

    /// The tally that was kept, if it is of this `place`; the error is the reason.
    pub(super) fn open(kept: &[u8], place: Option<&[u8]>) -> Result<Option<Tally>, String> {
        let bytes: Vec<u8> = record::open(TALLY, kept).map_err(|err| err.to_string())?;
        let word = |at: usize| {
            let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
            word.map(u64::from_le_bytes).ok_or("a tally is too short")
        };
        let (count, sum, of) = (word(0)?, word(8)?, word(16)?);
        let current = of == hash(TALLY, place.unwrap_or_default());
        Ok(current.then_some(Tally { count, sum }))
    }
}

fn hash(key: &[u8], value: &[u8]) -> u64 {
    let of_key = crc32c::crc32c(key);
    u64::from(of_key) << 32 | u64::from(crc32c::crc32c_append(of_key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_old_shows() {
        let mut tally = Tally::default();
        tally.add(b"a", b"1");
        tally.add(b"b", b"2");
        let (mut missing, mut old, mut same) = (tally, tally, tally);
        missing.remove(b"a", b"1");
        old.remove(b"a", b"1");
        old.add(b"a", b"0");
        same.remove(b"b", b"2");
        same.add(b"b", b"2");
        assert_ne!(missing, tally);
        assert_ne!(old, tally);
        assert_eq!(same, tally);
    }

    #[test]
    fn one_of_another_place_says_nothing() {
        let mut tally = Tally::default();
        tally.add(b"a", b"1");
        let kept = tally.seal(Some(b"7"));
        assert_eq!(Tally::open(&kept, Some(b"7")), Ok(Some(tally)));
        assert_eq!(Tally::open(&kept, Some(b"8")), Ok(None));
        assert_eq!(Tally::open(&kept, None), Ok(None));
        Tally::open(&kept[1..], Some(b"7")).expect_err("cut");
    }
}
