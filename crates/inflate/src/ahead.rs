//! The input, read ahead in pieces that other threads can look at too.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read},
    sync::Arc,
};

/// What is read at a time, several times what is decoded meanwhile.
const READ_BYTES: usize = 512 << 10;
/// So many pieces behind those that are to be decoded, since a block may be that long.
pub(crate) const BEHIND: usize = 4;

/// The input of a [`Gunzip`](crate::Gunzip): what has been read ahead of it, and behind that what is
/// still in `R`.
///
/// An error of `R` that is met while reading ahead is told when all bytes before it are consumed.
pub struct ReadAhead<R> {
    input: R,
    /// Whole pieces, of which the first is being consumed; behind the input's end one that is shorter.
    pieces: VecDeque<Arc<Vec<u8>>>,
    /// The next piece, as much as is there of it.
    filling: Vec<u8>,
    piece_bytes: usize,
    /// Where in the input the first of all these bytes is, and where the next one to be consumed is.
    base: u64,
    at: u64,
    ended: bool,
    failed: Option<io::Error>,
}

/// Some pieces to be decoded, and those behind them, into which their last block reaches.
pub(crate) struct Task {
    /// Where in the input the first begins, and where that which is to be decoded ends, in bytes.
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) pieces: Vec<Arc<Vec<u8>>>,
    /// How many are to be decoded.
    pub(crate) count: usize,
}

impl<R: BufRead> ReadAhead<R> {
    pub(crate) fn new(input: R, piece_bytes: usize) -> ReadAhead<R> {
        ReadAhead {
            input,
            pieces: VecDeque::new(),
            filling: Vec::new(),
            piece_bytes,
            base: 0,
            at: 0,
            ended: false,
            failed: None,
        }
    }

    /// How many bytes have been consumed.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Reads until `pieces` whole ones are there, but only so much at a time: an input that is slow is
    /// not to keep back what could be decoded meanwhile.
    pub(crate) fn read_ahead(&mut self, pieces: usize) {
        self.drop_consumed();
        let mut left = READ_BYTES;
        while self.pieces.len() < pieces && left > 0 && !self.ended && self.failed.is_none() {
            let bytes = match buffered(&mut self.input) {
                Ok(bytes) => bytes,
                Err(error) => {
                    self.failed = Some(error);
                    return;
                }
            };
            self.ended = bytes.is_empty();
            let n = bytes.len().min(self.piece_bytes - self.filling.len());
            left = left.saturating_sub(n);
            if self.filling.capacity() == 0 {
                self.filling.reserve_exact(self.piece_bytes);
            }
            self.filling.extend_from_slice(&bytes[..n]);
            self.input.consume(n);
            if self.filling.len() == self.piece_bytes || self.ended && !self.filling.is_empty() {
                let piece = std::mem::take(&mut self.filling);
                self.pieces.push_back(Arc::new(piece));
            }
        }
    }

    /// The first `count` pieces that begin at `from` or behind and are not being consumed, if so many are
    /// there and [`BEHIND`], or the input ends before that.
    pub(crate) fn task(&self, from: u64, count: usize) -> Option<Task> {
        let mut begin = self.base;
        let mut first = 0;
        while begin < from || begin <= self.at {
            begin += self.pieces.get(first)?.len() as u64;
            first += 1;
        }
        let all = self.pieces.len() - first;
        if all < count + BEHIND && !self.ended {
            return None;
        }
        let count = count.min(all);
        let pieces: Vec<_> = self
            .pieces
            .range(first..first + all.min(count + BEHIND))
            .cloned()
            .collect();
        let length: usize = pieces[..count].iter().map(|piece| piece.len()).sum();
        (count > 0).then_some(Task {
            begin,
            end: begin + length as u64,
            pieces,
            count,
        })
    }

    /// Goes on at the byte `to`, which has been read ahead or is the one behind.
    pub(crate) fn skip_to(&mut self, to: u64) {
        debug_assert!(to >= self.at, "input cannot be read again");
        self.at = to;
        self.drop_consumed();
    }

    fn drop_consumed(&mut self) {
        while let Some(piece) = self.pieces.front()
            && self.at >= self.base + piece.len() as u64
        {
            self.base += piece.len() as u64;
            self.pieces.pop_front();
        }
        if self.pieces.is_empty() && self.at >= self.base + self.filling.len() as u64 {
            self.filling.clear();
            self.base = self.at;
        }
    }
}

impl<R: BufRead> Read for ReadAhead<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl<R: BufRead> BufRead for ReadAhead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.drop_consumed();
        if self.at == self.base && self.pieces.is_empty() && self.filling.is_empty() {
            return match self.failed.take() {
                Some(error) => Err(error),
                None => self.input.fill_buf(),
            };
        }
        let bytes = self.pieces.front().map_or(&self.filling, |piece| piece);
        Ok(&bytes[(self.at - self.base) as usize..])
    }

    fn consume(&mut self, n: usize) {
        if self.pieces.is_empty() && self.filling.is_empty() {
            self.input.consume(n);
            self.base += n as u64;
        }
        self.at += n as u64;
    }
}

/// What is next of `input`, asked for again for as long as that is interrupted, and never beyond its end.
///
/// # Errors
/// Those of the input but for [`Interrupted`](io::ErrorKind::Interrupted).
pub fn buffered<R: BufRead>(input: &mut R) -> io::Result<&[u8]> {
    let ended = loop {
        match input.fill_buf() {
            Ok(bytes) => break bytes.is_empty(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    // Asked once more because of what the borrow checker makes of a loop: it is buffered now. An end is
    // not, and a terminal's would have to be typed twice.
    match ended {
        true => Ok(&[]),
        false => input.fill_buf(),
    }
}
