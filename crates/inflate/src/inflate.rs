//! DEFLATE (RFC 1951), from whatever pieces its input comes in to whatever pieces are asked for.

use cairn_sys::cpu::with_bit_instructions;

use crate::{
    Error,
    bits::{Bits, low},
    copy::{self, Cell},
    fast,
    table::{
        CODE_BITS, CODE_ENTRIES, CODE_SYMBOLS, Code, DISTANCE_BITS, END, LENGTH_BITS, LINK,
        LITERALS, SPECIAL, Table, Tables, build, linked, value,
    },
};

/// The order in which the lengths of the code-length code come (RFC 1951, 3.2.7).
const CODE_ORDER: [usize; 19] = [
    16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
];
const LENGTHS_MAX: usize = 286;
const DISTANCES_MAX: usize = 30;

/// Why [`Inflate::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    /// All the input is used up.
    Hungry,
    /// All the room is.
    Full,
    /// A block is at its end, and that is where to pause.
    Boundary,
    /// The stream is at its end.
    End,
}

/// Where in the stream the decoder stands.
#[derive(Clone, Copy, Debug)]
enum State {
    Block,
    StoredLength,
    Stored(usize),
    Counts,
    CodeLengths,
    Lengths,
    Symbols,
    Match { length: usize, distance: usize },
    End,
}

/// A stream being decoded.
#[derive(Clone)]
pub(crate) struct Inflate {
    /// [`Inflate::run`] pauses at the first end of a block that it comes to after it has read as much of
    /// its input; never, unless this is set.
    pub(crate) pause_from: usize,
    state: State,
    last: bool,
    bits: Bits,
    tables: Tables,
    codes: Table<CODE_ENTRIES>,
    /// The lengths of a dynamic block's codes: first of literals and lengths, then of distances.
    lengths: [u8; LENGTHS_MAX + DISTANCES_MAX],
    have: usize,
    literals: usize,
    distances: usize,
    code_lengths: usize,
}

impl Inflate {
    pub(crate) fn new() -> Inflate {
        Inflate {
            pause_from: usize::MAX,
            state: State::Block,
            last: false,
            bits: Bits::default(),
            tables: Tables::new(),
            codes: Table::new(),
            lengths: [0; LENGTHS_MAX + DISTANCES_MAX],
            have: 0,
            literals: 0,
            distances: 0,
            code_lengths: 0,
        }
    }

    /// Begins a new stream.
    pub(crate) fn restart(&mut self) {
        self.begin(0, 0);
    }

    /// Begins with a block within a stream. Of `byte`, the input's one before the next to be given, the
    /// `count` highest bits are still to be read.
    pub(crate) fn begin(&mut self, byte: u8, count: u32) {
        self.state = State::Block;
        self.last = false;
        self.bits = Bits {
            word: u64::from(byte) >> (8 - count),
            count,
        };
    }

    /// Whether the block at hand, or the one that has just ended, is the last.
    pub(crate) fn is_last(&self) -> bool {
        self.last
    }

    /// How many bits have been read of the input and not used.
    pub(crate) fn unused(&self) -> u32 {
        self.bits.count
    }

    /// The next byte of those that were read of the input and are not the stream's, at its end. There
    /// are seven at most.
    pub(crate) fn left_over(&mut self) -> Option<u8> {
        self.bits.align();
        self.bits.trim();
        self.bits.byte()
    }

    /// Decodes from `input[*from..]` to `out[*to..]`. What came before is in `out[..*to]` and, before
    /// that, in `history`.
    pub(crate) fn run<C: Cell>(
        &mut self,
        input: &[u8],
        from: &mut usize,
        out: &mut [C],
        to: &mut usize,
        history: &[C],
    ) -> Result<Status, Error> {
        loop {
            let went_on = match self.state {
                State::Block => self.block(input, from)?,
                State::StoredLength => self.stored_length(input, from)?,
                State::Stored(0) => {
                    if let Some(status) = self.end_block(*from) {
                        return Ok(status);
                    }
                    true
                }
                State::Stored(left) => {
                    let done = self.stored(left, input, from, out, to);
                    self.state = State::Stored(left - done);
                    if done < left && *to == out.len() {
                        return Ok(Status::Full);
                    }
                    done > 0
                }
                State::Counts => self.counts(input, from)?,
                State::CodeLengths => self.code_lengths(input, from)?,
                State::Lengths => self.lengths(input, from)?,
                State::Symbols => {
                    if let Some(status) = self.symbols(input, from, out, to, history)? {
                        return Ok(status);
                    }
                    true
                }
                State::Match { length, distance } => {
                    let done = copy::careful(out, *to, distance, length, history)?;
                    *to += done;
                    if done < length {
                        let length = length - done;
                        self.state = State::Match { length, distance };
                        return Ok(Status::Full);
                    }
                    self.state = State::Symbols;
                    true
                }
                State::End => return Ok(Status::End),
            };
            if !went_on {
                return Ok(Status::Hungry);
            }
        }
    }

    /// Begins a block, or ends after the last one. False, as in all that follow, where the input ends
    /// before that.
    fn block(&mut self, input: &[u8], from: &mut usize) -> Result<bool, Error> {
        if self.last {
            self.state = State::End;
            return Ok(true);
        }
        let Some(head) = self.bits.take(3, input, from) else {
            return Ok(false);
        };
        self.last = head & 1 != 0;
        self.state = match head >> 1 {
            0 => {
                self.bits.align();
                State::StoredLength
            }
            1 => {
                self.tables.fixed();
                State::Symbols
            }
            2 => State::Counts,
            _ => return Err(Error::BlockType),
        };
        Ok(true)
    }

    fn stored_length(&mut self, input: &[u8], from: &mut usize) -> Result<bool, Error> {
        let Some(both) = self.bits.take(32, input, from) else {
            return Ok(false);
        };
        if both & 0xffff != !both >> 16 {
            return Err(Error::StoredLength);
        }
        self.bits.trim();
        self.state = State::Stored((both & 0xffff) as usize);
        Ok(true)
    }

    /// How many codes of each kind a dynamic block has.
    fn counts(&mut self, input: &[u8], from: &mut usize) -> Result<bool, Error> {
        let Some(counts) = self.bits.take(14, input, from) else {
            return Ok(false);
        };
        self.literals = (counts & 31) as usize + 257;
        self.distances = (counts >> 5 & 31) as usize + 1;
        self.code_lengths = (counts >> 10) as usize + 4;
        if self.literals > LENGTHS_MAX || self.distances > DISTANCES_MAX {
            return Err(Error::TooManySymbols);
        }
        self.lengths[..CODE_ORDER.len()].fill(0);
        self.have = 0;
        self.state = State::CodeLengths;
        Ok(true)
    }

    /// The lengths of the code that the lengths are in.
    fn code_lengths(&mut self, input: &[u8], from: &mut usize) -> Result<bool, Error> {
        while self.have < self.code_lengths {
            let Some(length) = self.bits.take(3, input, from) else {
                return Ok(false);
            };
            self.lengths[CODE_ORDER[self.have]] = length as u8;
            self.have += 1;
        }
        let lengths = &self.lengths[..CODE_ORDER.len()];
        if build(&mut self.codes, CODE_BITS, lengths, &CODE_SYMBOLS) != Code::Complete {
            return Err(Error::CodeLengths);
        }
        self.have = 0;
        self.state = State::Lengths;
        Ok(true)
    }

    /// The lengths, and the tables made of them.
    fn lengths(&mut self, input: &[u8], from: &mut usize) -> Result<bool, Error> {
        if !self.read_lengths(input, from)? {
            return Ok(false);
        }
        let (lengths, rest) = self.lengths.split_at(self.literals);
        self.tables.dynamic(lengths, &rest[..self.distances])?;
        self.state = State::Symbols;
        Ok(true)
    }

    /// Decodes symbols, as many as may be at once.
    fn symbols<C: Cell>(
        &mut self,
        input: &[u8],
        from: &mut usize,
        out: &mut [C],
        to: &mut usize,
        history: &[C],
    ) -> Result<Option<Status>, Error> {
        if input.len() - *from >= fast::INPUT && out.len() - *to >= fast::OUTPUT {
            let run = fast::Run {
                tables: &self.tables,
                bits: &mut self.bits,
                input,
                from,
                out,
                to,
                history,
            };
            if with_bit_instructions(run)? == fast::Stop::Block {
                return Ok(self.end_block(*from));
            }
        }
        self.symbol(input, from, out, to)
    }

    fn end_block(&mut self, from: usize) -> Option<Status> {
        self.state = State::Block;
        (from >= self.pause_from).then_some(Status::Boundary)
    }

    /// Copies of a stored block what there is and has room.
    fn stored<C: Cell>(
        &mut self,
        left: usize,
        input: &[u8],
        from: &mut usize,
        out: &mut [C],
        to: &mut usize,
    ) -> usize {
        let want = left.min(out.len() - *to);
        let mut done = 0;
        while done < want
            && let Some(byte) = self.bits.byte()
        {
            out[*to + done] = byte.into();
            done += 1;
        }
        let n = (want - done).min(input.len() - *from);
        for (cell, byte) in out[*to + done..][..n].iter_mut().zip(&input[*from..][..n]) {
            *cell = C::from(*byte);
        }
        *from += n;
        *to += done + n;
        done + n
    }

    /// Reads the lengths of a dynamic block's codes. False where the input ends before them.
    fn read_lengths(&mut self, input: &[u8], from: &mut usize) -> Result<bool, Error> {
        let all = self.literals + self.distances;
        while self.have < all {
            if self.bits.count < 14 {
                self.bits.refill(input, from);
            }
            let entry = self.codes.at(low(self.bits.word, CODE_BITS) as usize);
            let bits = entry & 63;
            let symbol = entry >> 16;
            let (extra, base) = match symbol {
                16 => (2, 3),
                17 => (3, 3),
                18 => (7, 11),
                _ => (0, 1),
            };
            if bits + extra > self.bits.count {
                return Ok(false);
            }
            self.bits.drop(bits);
            let times = base + low(self.bits.word, extra) as usize;
            self.bits.drop(extra);
            let length = match symbol {
                0..16 => symbol as u8,
                16 if self.have == 0 => return Err(Error::LengthRepeat),
                16 => self.lengths[self.have - 1],
                _ => 0,
            };
            if times > all - self.have {
                return Err(Error::LengthRepeat);
            }
            self.lengths[self.have..self.have + times].fill(length);
            self.have += times;
        }
        Ok(true)
    }

    /// Decodes one symbol where input or room may end.
    fn symbol<C: Cell>(
        &mut self,
        input: &[u8],
        from: &mut usize,
        out: &mut [C],
        to: &mut usize,
    ) -> Result<Option<Status>, Error> {
        if self.bits.count < 48 {
            self.bits.refill(input, from);
        }
        // Of a copy, since it counts only if all of it is there.
        let mut bits = self.bits;
        let Some((entry, value)) = look(&self.tables.lengths, LENGTH_BITS, &mut bits) else {
            return Ok(Some(Status::Hungry));
        };
        if entry & LITERALS != 0 {
            let Some(place) = out.get_mut(*to) else {
                return Ok(Some(Status::Full));
            };
            *place = C::from((entry >> 8) as u8);
            *to += 1;
        } else if entry & SPECIAL != 0 {
            if entry & END == 0 {
                return Err(Error::LengthCode);
            }
            self.bits = bits;
            return Ok(self.end_block(*from));
        } else {
            let Some((entry, distance)) = look(&self.tables.distances, DISTANCE_BITS, &mut bits)
            else {
                return Ok(Some(Status::Hungry));
            };
            if entry & SPECIAL != 0 {
                return Err(Error::DistanceCode);
            }
            self.state = State::Match {
                length: value,
                distance,
            };
        }
        self.bits = bits;
        Ok(None)
    }
}

/// The next symbol's entry and its value, or nothing where the input ends in it.
fn look<const N: usize>(table: &Table<N>, root: u32, bits: &mut Bits) -> Option<(u32, usize)> {
    let mut entry = table.at(low(bits.word, root) as usize);
    if entry & LITERALS == 0 && entry & LINK != 0 {
        if bits.count < root {
            return None;
        }
        bits.drop(root);
        entry = table.at(linked(entry, bits.word));
    }
    let all = entry & 63;
    if all > bits.count {
        return None;
    }
    let value = value(entry, bits.word);
    bits.drop(all);
    Some((entry, value))
}
