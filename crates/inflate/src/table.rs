//! Huffman codes as tables: what the next bits mean is looked up by them.
//!
//! An entry is one word, so that a symbol costs one load:
//!
//! ```text
//! bits   literal           length or distance     link to a subtable    end, invalid
//! 0-5    bits to drop      those of code, extra   those of the root     those of the code
//! 6-7    1                 0                      0                     0
//! 8-11   the byte (8-15)   bits of the code       bits of the subtable
//! 14-15                    0                      SPECIAL, LINK         SPECIAL
//! 16-31                    the base               where it begins       END or not
//! ```

use crate::{Error, bits::low};

pub(crate) const LITERAL: u32 = 1 << 6;
pub(crate) const LITERALS: u32 = 3 << 6;
pub(crate) const SPECIAL: u32 = 1 << 15;
pub(crate) const LINK: u32 = 1 << 14;
pub(crate) const END: u32 = 1 << 16;

pub(crate) const LENGTH_BITS: u32 = 11;
pub(crate) const DISTANCE_BITS: u32 = 8;
pub(crate) const CODE_BITS: u32 = 7;

/// Root and subtables: with 288 symbols of at most 15 bits no more than 2342 entries are ever used,
/// with 32 no more than 402. Powers of two, for indices that a mask keeps inside.
pub(crate) const LENGTH_ENTRIES: usize = 4096;
pub(crate) const DISTANCE_ENTRIES: usize = 512;
pub(crate) const CODE_ENTRIES: usize = 128;

pub(crate) const MAX_BITS: usize = 15;

/// One code's table, `N` a power of two.
#[derive(Clone)]
pub(crate) struct Table<const N: usize> {
    pub(crate) entries: [u32; N],
}

impl<const N: usize> Table<N> {
    pub(crate) const fn new() -> Table<N> {
        Table {
            entries: [SPECIAL; N],
        }
    }

    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> u32 {
        self.entries[index & (N - 1)]
    }
}

/// What is wrong with the lengths of a code.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Complete,
    /// No symbol at all, or one of one bit: the rest is invalid, and an error only if it is used.
    Sparse,
    Wrong,
}

/// Builds the table of the canonical code with these lengths (RFC 1951, 3.2.2). `symbols` has the
/// entry of each without its bits.
pub(crate) fn build<const N: usize>(
    table: &mut Table<N>,
    root: u32,
    lengths: &[u8],
    symbols: &[u32],
) -> Code {
    let mut counts = [0u16; MAX_BITS + 1];
    for &length in lengths {
        counts[usize::from(length & 15)] += 1;
    }
    // Where the symbols of each length begin, if sorted by it; and whether the code is complete.
    let mut starts = [0u16; MAX_BITS + 2];
    let mut left = 1i32;
    for bits in 1..=MAX_BITS {
        left = (left << 1) - i32::from(counts[bits]);
        if left < 0 {
            return Code::Wrong;
        }
        starts[bits + 1] = starts[bits] + counts[bits];
    }
    let used = usize::from(starts[MAX_BITS + 1]);
    let mut sorted = [0u16; 512];
    for (symbol, &length) in (0u16..).zip(lengths) {
        // Those without a code go where nobody looks.
        let start = &mut starts[usize::from(length & 15)];
        let to = if length == 0 { 511 } else { *start };
        sorted[usize::from(to) & 511] = symbol;
        *start += u16::from(length != 0);
    }
    if left > 0 {
        if used > 1 || (used == 1 && counts[1] == 0) {
            return Code::Wrong;
        }
        table.entries[..1 << root].fill(SPECIAL | 1);
        if used == 1 {
            let entry = with_bits(symbols[usize::from(sorted[0])], 1);
            for slot in table.entries[..1 << root].iter_mut().step_by(2) {
                *slot = entry;
            }
        }
        return Code::Sparse;
    }
    fill(table, root, &mut counts, &sorted, symbols);
    Code::Complete
}

#[inline(always)]
fn with_bits(symbol: u32, bits: u32) -> u32 {
    symbol
        + if symbol & LITERALS == 0 {
            bits * 257
        } else {
            bits
        }
}

/// The table of a complete code.
#[inline(always)]
fn fill<const N: usize>(
    table: &mut Table<N>,
    root: u32,
    counts: &mut [u16; MAX_BITS + 1],
    sorted: &[u16; 512],
    symbols: &[u32],
) {
    let entries = &mut table.entries;
    let mut next = 0;
    // The code, its first bit lowest, as the input has it.
    let mut code = 0usize;
    let mut size = 1usize;
    for bits in 1..=root {
        // What is there stands for shorter codes, whatever bit follows them.
        entries.copy_within(0..size, size);
        size <<= 1;
        for _ in 0..counts[bits as usize] {
            let symbol = usize::from(sorted[next & 511]);
            entries[code & (N - 1)] = with_bits(symbols[symbol], bits);
            next += 1;
            code = successor(code, size);
        }
    }
    // What is left are codes longer than the root.
    let mut at = size;
    let mut prefix = usize::MAX;
    let mut start = 0;
    let mut sub = 0;
    for bits in root + 1..=MAX_BITS as u32 {
        let step = 1usize << (bits - root);
        while counts[bits as usize] > 0 {
            if code & (size - 1) != prefix {
                prefix = code & (size - 1);
                start = at;
                sub = bits - root;
                let mut room = (1i32 << sub) - i32::from(counts[bits as usize]);
                while room > 0 && ((sub + root) as usize) < MAX_BITS {
                    sub += 1;
                    room = (room << 1) - i32::from(counts[(sub + root) as usize]);
                }
                at += 1 << sub;
                debug_assert!(at <= N, "a table has no room for its code");
                entries[prefix] = SPECIAL | LINK | (start as u32) << 16 | sub << 8 | root;
            }
            let symbol = usize::from(sorted[next & 511]);
            let entry = with_bits(symbols[symbol], bits - root);
            let mut slot = code >> root;
            while slot < 1 << sub {
                entries[(start + slot) & (N - 1)] = entry;
                slot += step;
            }
            next += 1;
            counts[bits as usize] -= 1;
            code = successor(code, 1 << bits);
        }
    }
}

/// The next code of the same length, of `size` in all, first bit lowest.
#[inline(always)]
fn successor(code: usize, size: usize) -> usize {
    let zeros = !code & (size - 1);
    if zeros == 0 {
        return 0;
    }
    let bit = 1usize << (usize::BITS - 1 - zeros.leading_zeros());
    (code & (bit - 1)) | bit
}

/// The base of an entry with the extra bits, which in `word` are behind the code.
#[inline(always)]
pub(crate) fn value(entry: u32, word: u64) -> usize {
    (entry >> 16) as usize + (low(word, entry) >> (entry >> 8 & 15)) as usize
}

/// Where in its subtable the entry is that a link and the bits behind the root lead to.
#[inline(always)]
pub(crate) fn linked(link: u32, word: u64) -> usize {
    (link >> 16) as usize + low(word, link >> 8 & 15) as usize
}

const fn range(base: u32, extra: u32) -> u32 {
    base << 16 | extra
}

/// Sets the symbols `from..to` to ranges that follow one another from `base` on. So many at a time, `each`,
/// have as many extra bits: twice none, and then one more each time.
const fn ranges<const N: usize>(
    mut symbols: [u32; N],
    from: usize,
    to: usize,
    mut base: u32,
    each: usize,
) -> [u32; N] {
    let mut symbol = from;
    while symbol < to {
        let extra = ((symbol - from) / each).saturating_sub(1) as u32;
        symbols[symbol] = range(base, extra);
        base += 1 << extra;
        symbol += 1;
    }
    symbols
}

/// The symbols of literals and lengths (RFC 1951, 3.2.5). The last two have codes and no meaning.
pub(crate) const LENGTH_SYMBOLS: [u32; 288] = {
    let mut symbols = [SPECIAL; 288];
    let mut literal = 0;
    while literal < 256 {
        symbols[literal as usize] = LITERAL | literal << 8;
        literal += 1;
    }
    symbols[256] = SPECIAL | END;
    symbols = ranges(symbols, 257, 285, 3, 4);
    symbols[285] = range(258, 0);
    symbols
};

/// The symbols of distances. The last two have codes and no meaning.
pub(crate) const DISTANCE_SYMBOLS: [u32; 32] = ranges([SPECIAL; 32], 0, 30, 1, 2);

/// The symbols of the code that code lengths are in.
pub(crate) const CODE_SYMBOLS: [u32; 19] = {
    let mut symbols = [0; 19];
    let mut symbol = 0;
    while symbol < 19 {
        symbols[symbol] = range(symbol as u32, 0);
        symbol += 1;
    }
    symbols
};

/// The tables of the block at hand.
#[derive(Clone)]
pub(crate) struct Tables {
    pub(crate) lengths: Table<LENGTH_ENTRIES>,
    pub(crate) distances: Table<DISTANCE_ENTRIES>,
}

impl Tables {
    pub(crate) const fn new() -> Tables {
        Tables {
            lengths: Table::new(),
            distances: Table::new(),
        }
    }

    /// Those of a block with fixed codes.
    pub(crate) fn fixed(&mut self) {
        let mut lengths = [8; 288];
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        build(&mut self.lengths, LENGTH_BITS, &lengths, &LENGTH_SYMBOLS);
        build(
            &mut self.distances,
            DISTANCE_BITS,
            &[5; 32],
            &DISTANCE_SYMBOLS,
        );
    }

    /// Those of a block that brings its own.
    pub(crate) fn dynamic(&mut self, lengths: &[u8], distances: &[u8]) -> Result<(), Error> {
        if lengths[256] == 0 {
            return Err(Error::NoEndOfBlock);
        }
        if build(&mut self.lengths, LENGTH_BITS, lengths, &LENGTH_SYMBOLS) == Code::Wrong {
            return Err(Error::LiteralLengths);
        }
        if build(
            &mut self.distances,
            DISTANCE_BITS,
            distances,
            &DISTANCE_SYMBOLS,
        ) == Code::Wrong
        {
            return Err(Error::Distances);
        }
        Ok(())
    }
}
