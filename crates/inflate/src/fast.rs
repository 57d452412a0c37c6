//! The loop in which nearly all symbols are decoded: as long as there is input and room for the
//! longest that one turn takes, nothing needs to be asked.
//!
//! One symbol can be looked up only when the one before it is known by its length, and the processor
//! waits for that more than for anything else. So each is looked up as soon as may be, before the bits
//! are refilled and before a match is copied, and what it stands for is made of its entry meanwhile.

use cairn_sys::cpu::Work;

use crate::{
    Error,
    bits::{Bits, low},
    copy::{self, Cell},
    table::{DISTANCE_BITS, END, LENGTH_BITS, LINK, LITERALS, SPECIAL, Tables, linked, value},
};

/// What a turn may read: two refills, of which each looks at eight bytes and takes seven.
pub(crate) const INPUT: usize = 32;
/// What a turn may write: three literals or two and a match.
pub(crate) const OUTPUT: usize = 3 + copy::LONGEST + copy::SLACK;

/// Why the loop ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Input or room are about to end.
    Edge,
    /// The block is at its end.
    Block,
}

/// Decoding from `input[*from..]` to `out[*to..]`, with what came before in `out[..*to]` and, before
/// that, in `history`.
pub(crate) struct Run<'a, C> {
    pub(crate) tables: &'a Tables,
    pub(crate) bits: &'a mut Bits,
    pub(crate) input: &'a [u8],
    pub(crate) from: &'a mut usize,
    pub(crate) out: &'a mut [C],
    pub(crate) to: &'a mut usize,
    pub(crate) history: &'a [C],
}

impl<C: Cell> Work for Run<'_, C> {
    type Output = Result<Stop, Error>;

    #[inline(always)]
    fn run(self) -> Result<Stop, Error> {
        let mut ahead = Ahead {
            word: self.bits.word,
            count: self.bits.count,
            rest: &self.input[*self.from..],
        };
        let mut at = *self.to;
        let stop = decode(self.tables, &mut ahead, self.out, &mut at, self.history);
        *self.from = self.input.len() - ahead.rest.len();
        *self.to = at;
        *self.bits = Bits {
            word: low(ahead.word, ahead.count),
            count: ahead.count & 63,
        };
        stop
    }
}

#[inline(always)]
fn decode<C: Cell>(
    tables: &Tables,
    ahead: &mut Ahead<'_>,
    out: &mut [C],
    at: &mut usize,
    history: &[C],
) -> Result<Stop, Error> {
    ahead.refill();
    let mut entry = ahead.look(tables);
    while ahead.rest.len() >= INPUT && out.len() - *at >= OUTPUT {
        // After a refill there are 56 bits. Two literals take 22 of them, a length 20 with its extra
        // bits; then the distance's own 8 are still there to be looked up by.
        let mut word = ahead.drop(entry);
        if entry & LITERALS != 0 {
            let first = entry;
            entry = ahead.look(tables);
            word = ahead.drop(entry);
            put(out, at, first);
            if entry & LITERALS != 0 {
                let second = entry;
                entry = ahead.look(tables);
                word = ahead.drop(entry);
                put(out, at, second);
                if entry & LITERALS != 0 {
                    put(out, at, entry);
                    entry = ahead.look(tables);
                    ahead.refill();
                    continue;
                }
            }
        }
        if entry & SPECIAL != 0 {
            if entry & LINK != 0 {
                entry = tables.lengths.at(linked(entry, ahead.word));
                word = ahead.drop(entry);
            }
            if entry & LITERALS != 0 {
                put(out, at, entry);
                entry = ahead.look(tables);
                ahead.refill();
                continue;
            }
            if entry & SPECIAL != 0 {
                return if entry & END != 0 {
                    Ok(Stop::Block)
                } else {
                    Err(Error::LengthCode)
                };
            }
        }
        let length = value(entry, word);
        let distance = ahead.distance(tables)?;
        // It took 28 bits at most, so that there are as many left.
        entry = ahead.look(tables);
        ahead.refill();
        if distance <= *at {
            C::repeat(out, *at, distance, length);
        } else {
            copy::careful(out, *at, distance, length, history)?;
        }
        *at += length;
    }
    Ok(Stop::Edge)
}

/// Writes the literal that an entry stands for.
#[inline(always)]
fn put<C: Cell>(out: &mut [C], at: &mut usize, entry: u32) {
    out[*at] = C::from((entry >> 8) as u8);
    *at += 1;
}

/// The input's next bits, as [`Bits`] has them but for `count`, of which only the six lowest bits are
/// meant: whole entries are subtracted from it, since a mask would be one step more.
struct Ahead<'a> {
    word: u64,
    count: u32,
    rest: &'a [u8],
}

impl Ahead<'_> {
    /// Makes it 56 bits or more, if eight bytes are left.
    #[inline(always)]
    fn refill(&mut self) {
        if let Some(bytes) = self.rest.first_chunk::<8>() {
            self.word |= u64::from_le_bytes(*bytes) << (self.count & 63);
            self.rest = &self.rest[(!self.count >> 3 & 7) as usize..];
            self.count |= 56;
        }
    }

    /// The entry of the next literal or length.
    #[inline(always)]
    fn look(&self, tables: &Tables) -> u32 {
        tables.lengths.at(low(self.word, LENGTH_BITS) as usize)
    }

    /// Drops an entry's bits. Gives what was there before.
    #[inline(always)]
    fn drop(&mut self, entry: u32) -> u64 {
        let word = self.word;
        self.word >>= entry & 63;
        self.count = self.count.wrapping_sub(entry);
        word
    }

    #[inline(always)]
    fn distance(&mut self, tables: &Tables) -> Result<usize, Error> {
        let mut entry = tables.distances.at(low(self.word, DISTANCE_BITS) as usize);
        self.refill();
        let mut word = self.drop(entry);
        if entry & SPECIAL != 0 {
            if entry & LINK != 0 {
                entry = tables.distances.at(linked(entry, self.word));
                word = self.drop(entry);
            }
            if entry & SPECIAL != 0 {
                return Err(Error::DistanceCode);
            }
        }
        Ok(value(entry, word))
    }
}
