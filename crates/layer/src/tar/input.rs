//! The stream under the reader, every byte of it counted.

use std::io::BufRead;

use super::{
    Problem,
    header::{BLOCK_BYTES, Block},
};

/// A stream and how far it has been read.
#[derive(Debug)]
pub(super) struct Input<R> {
    source: R,
    total: u64,
}

impl<R: BufRead> Input<R> {
    pub(super) fn new(source: R) -> Input<R> {
        Input { source, total: 0 }
    }

    /// Bytes consumed so far.
    pub(super) fn offset(&self) -> u64 {
        self.total
    }

    /// How many bytes are at hand; zero only at the end.
    pub(super) fn buffered(&mut self) -> Result<usize, Problem> {
        let bytes = cairn_inflate::buffered(&mut self.source).map_err(Problem::Io)?;
        Ok(bytes.len())
    }

    /// The bytes at hand, no more than `most`.
    pub(super) fn bytes(&mut self, most: u64) -> Result<&[u8], Problem> {
        let bytes = self.source.fill_buf().map_err(Problem::Io)?;
        Ok(&bytes[..at_most(bytes.len(), most)])
    }

    /// Consumes bytes that are at hand.
    pub(super) fn take(&mut self, n: usize) {
        self.source.consume(n);
        self.total += n as u64;
    }

    /// Fills a block as far as the stream goes and says how far that was.
    pub(super) fn fill(&mut self, block: &mut Block) -> Result<usize, Problem> {
        let mut filled = 0;
        while filled < BLOCK_BYTES && self.buffered()? > 0 {
            let bytes = self.bytes((BLOCK_BYTES - filled) as u64)?;
            let n = bytes.len();
            block[filled..filled + n].copy_from_slice(bytes);
            filled += n;
            self.take(n);
        }
        Ok(filled)
    }

    /// A whole block; `of` names what the stream must not end in.
    pub(super) fn block(&mut self, of: &'static str) -> Result<Block, Problem> {
        let mut block = [0; BLOCK_BYTES];
        match self.fill(&mut block)? {
            BLOCK_BYTES => Ok(block),
            _ => Err(Problem::Truncated(of)),
        }
    }

    /// `size` bytes and their padding. The caller has checked `size` against a limit; memory grows
    /// only with what really comes.
    pub(super) fn body(&mut self, size: u64, of: &'static str) -> Result<Vec<u8>, Problem> {
        let mut body = Vec::new();
        let mut left = size;
        while left > 0 {
            if self.buffered()? == 0 {
                return Err(Problem::Truncated(of));
            }
            let bytes = self.bytes(left)?;
            let n = bytes.len();
            body.extend_from_slice(bytes);
            left -= n as u64;
            self.take(n);
        }
        self.skip(padding(size), of)?;
        Ok(body)
    }

    pub(super) fn skip(&mut self, left: u64, of: &'static str) -> Result<(), Problem> {
        match self.skip_to(left)? {
            0 => Ok(()),
            _ => Err(Problem::Truncated(of)),
        }
    }

    /// Skips so many bytes, or to the end of the stream; how many there were not.
    pub(super) fn skip_to(&mut self, mut left: u64) -> Result<u64, Problem> {
        while left > 0 {
            match self.buffered()? {
                0 => break,
                n => {
                    let n = at_most(n, left);
                    left -= n as u64;
                    self.take(n);
                }
            }
        }
        Ok(left)
    }
}

/// What fills the last block after `size` bytes.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK_BYTES as u64
}

/// `n`, but no more than `left`.
pub(super) fn at_most(n: usize, left: u64) -> usize {
    usize::try_from(left).map_or(n, |left| n.min(left))
}
