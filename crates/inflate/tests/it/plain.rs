//! What tests of the decoder need inside of the crate as well as outside, and so names nothing of it.

use std::io::{self, Read};

pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// A member of a stream, with the checks of what it is said to give.
pub(crate) fn member(stream: &[u8], plain: &[u8]) -> Vec<u8> {
    let sum = crc32fast::hash(plain).to_le_bytes();
    let length = (plain.len() as u32).to_le_bytes();
    [&HEADER, stream, &sum, &length].concat()
}

/// Reads `size` bytes at a time, on and on where the input is not ready: all that came, and how much of
/// it had when it was not.
pub(crate) fn read_on(input: &mut impl Read, size: usize) -> (Vec<u8>, Vec<usize>) {
    let (mut all, mut failures) = (Vec::new(), Vec::new());
    let mut out = vec![0; size];
    loop {
        match input.read(&mut out) {
            Ok(0) => return (all, failures),
            Ok(n) => all.extend_from_slice(&out[..n]),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                failures.push(all.len());
            }
        }
    }
}

/// A generator of numbers that are the same in every run (xorshift64*).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() >> 33) as usize % end
    }
}
