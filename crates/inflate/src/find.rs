//! Where in the middle of a stream a block may begin.
//!
//! Only the headers of dynamic blocks say enough to be told from anything else, and those of a
//! stream's last block are no use, since there is little behind it. What is found here is mostly none:
//! one of some thousand bits, which the decoder refuses by the codes that it finds there.

use cairn_sys::cpu::{Work, with_bit_instructions};

/// Of one look those at which a header may begin: it has its first thirteen bits within eight bytes, and
/// all that is looked at, 74, within sixteen.
const STEP_BYTES: usize = 6;
/// For each four lengths of codes, three bits each: which part of all codes of seven bits they take.
pub(crate) struct Finder {
    taken: [u16; 4096],
}

impl Finder {
    pub(crate) fn new() -> Finder {
        let mut taken = [0; 4096];
        for (lengths, taken) in taken.iter_mut().enumerate() {
            for i in 0..4 {
                let length = lengths >> (3 * i) & 7;
                *taken += if length == 0 { 0 } else { 128 >> length };
            }
        }
        Finder { taken }
    }

    /// The first bit of `from..to` at which the header of a dynamic block that is not the last may
    /// begin. None is found in the last few bytes of `input`.
    pub(crate) fn find(&self, input: &[u8], from: u64, to: u64) -> Option<u64> {
        with_bit_instructions(Search {
            taken: &self.taken,
            input,
            from,
            to,
        })
    }
}

struct Search<'a> {
    taken: &'a [u16; 4096],
    input: &'a [u8],
    from: u64,
    to: u64,
}

impl Work for Search<'_> {
    type Output = Option<u64>;

    #[inline(always)]
    fn run(self) -> Option<u64> {
        let mut at = (self.from / 8) as usize;
        // Of the first step the bits before `from` do not count.
        let mut wanted = u64::MAX << (self.from % 8) & ((1 << (STEP_BYTES * 8)) - 1);
        while let Some(bytes) = self.input.get(at..).and_then(|rest| rest.first_chunk())
            && at as u64 * 8 < self.to
        {
            let bits = u128::from_le_bytes(*bytes);
            let mut starts = starts(bits as u64) & wanted;
            while starts != 0 {
                let start = starts.trailing_zeros();
                if self.lengths_are_a_code((bits >> (start + 13)) as u64) {
                    let bit = at as u64 * 8 + u64::from(start);
                    return (bit < self.to).then_some(bit);
                }
                starts &= starts - 1;
            }
            wanted = (1 << (STEP_BYTES * 8)) - 1;
            at += STEP_BYTES;
        }
        None
    }
}

impl Search<'_> {
    /// Whether the code of the code lengths is complete, as it must be (RFC 1951, 3.2.7): four bits that
    /// say how many there are, and then these.
    #[inline(always)]
    fn lengths_are_a_code(&self, bits: u64) -> bool {
        let count = 4 + (bits & 15) as u32;
        let lengths = bits >> 4 & !(u64::MAX << (3 * count));
        // All five whatever their number is, which no processor foresees.
        let taken = |four: u32| self.taken[(lengths >> (12 * four) & 0xfff) as usize];
        taken(0) + taken(1) + taken(2) + taken(3) + taken(4) == 128
    }
}

/// The bits of `word`, but for the last thirteen, that may be a header's first: of a block that is not
/// the last (0) and dynamic (2, the lower bit first), with at most 286 lengths and 30 distances.
#[inline(always)]
fn starts(word: u64) -> u64 {
    let kind = !word & !(word >> 1) & word >> 2;
    // Five bits each, from the lowest on; 30 and 31 are those with the four highest set.
    let lengths = word >> 4 & word >> 5 & word >> 6 & word >> 7;
    let distances = word >> 9 & word >> 10 & word >> 11 & word >> 12;
    kind & !lengths & !distances
}
