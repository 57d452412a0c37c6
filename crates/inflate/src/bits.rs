//! The bits of the input that are next.

/// Up to 63 bits, the next one lowest. What is above `count` is either zero or what the input really
/// has there, so that it may be looked at and ORed once more.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bits {
    pub(crate) word: u64,
    pub(crate) count: u32,
}

impl Bits {
    /// Takes as many bytes of `input` from `*at` on as there are and fit in. Afterwards there are 56
    /// bits or more, or the input is at its end.
    #[inline]
    pub(crate) fn refill(&mut self, input: &[u8], at: &mut usize) {
        if let Some(bytes) = input[*at..].first_chunk::<8>() {
            self.word |= u64::from_le_bytes(*bytes) << self.count;
            *at += ((63 - self.count) >> 3) as usize;
            self.count |= 56;
            return;
        }
        while self.count < 56
            && let Some(byte) = input.get(*at)
        {
            self.word |= u64::from(*byte) << self.count;
            self.count += 8;
            *at += 1;
        }
    }

    /// The next `n` bits, or nothing where the input ends before them. At most 32.
    #[inline]
    pub(crate) fn take(&mut self, n: u32, input: &[u8], at: &mut usize) -> Option<u32> {
        if self.count < n {
            self.refill(input, at);
            if self.count < n {
                return None;
            }
        }
        let value = low(self.word, n) as u32;
        self.drop(n);
        Some(value)
    }

    #[inline]
    pub(crate) fn drop(&mut self, n: u32) {
        self.word >>= n;
        self.count -= n;
    }

    /// Forgets what was seen ahead, for bytes that are to be counted.
    pub(crate) fn trim(&mut self) {
        self.word = low(self.word, self.count);
    }

    /// Drops what is left of a byte begun.
    pub(crate) fn align(&mut self) {
        self.drop(self.count & 7);
    }

    /// The next byte, of an aligned and trimmed buffer.
    pub(crate) fn byte(&mut self) -> Option<u8> {
        (self.count >= 8).then(|| {
            let byte = self.word as u8;
            self.drop(8);
            byte
        })
    }
}

/// The `n` lowest bits, of at most 63.
#[inline(always)]
pub(crate) fn low(word: u64, n: u32) -> u64 {
    word & !(u64::MAX << (n & 63))
}
