//! Streams written bit by bit, and all ways of reading one.

use std::io::{self, BufRead, Read};

use cairn_inflate::{Error, Gunzip};

use crate::plain::{HEADER, member};

/// What a decoder says of a stream: the bytes, and what was wrong after them.
pub(crate) type Said = (Vec<u8>, Option<Error>);

/// Bits in DEFLATE's order.
#[derive(Clone, Default)]
pub(crate) struct BitWriter {
    bytes: Vec<u8>,
    used: u32,
}

impl BitWriter {
    pub(crate) fn new() -> BitWriter {
        BitWriter::default()
    }

    /// Numbers go lowest bit first.
    pub(crate) fn bits(mut self, value: u32, count: u32) -> Self {
        for i in 0..count {
            if self.used == 0 {
                self.bytes.push(0);
            }
            *self.bytes.last_mut().unwrap() |= ((value >> i & 1) as u8) << self.used;
            self.used = (self.used + 1) % 8;
        }
        self
    }

    /// Huffman codes go highest bit first.
    pub(crate) fn code(self, value: u32, count: u32) -> Self {
        (0..count)
            .rev()
            .fold(self, |writer, i| writer.bits(value >> i, 1))
    }

    /// A symbol of the fixed code.
    pub(crate) fn fixed(self, symbol: u32) -> Self {
        match symbol {
            0..144 => self.code(0x30 + symbol, 8),
            144..256 => self.code(0x190 + symbol - 144, 9),
            256..280 => self.code(symbol - 256, 7),
            _ => self.code(0xc0 + symbol - 280, 8),
        }
    }

    pub(crate) fn stored(mut self, last: bool, bytes: &[u8]) -> Self {
        self = self.bits(last.into(), 1).bits(0, 2);
        self.used = 0;
        let length = u16::try_from(bytes.len()).unwrap();
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend((!length).to_le_bytes());
        self.bytes.extend(bytes);
        self
    }

    /// The header of a dynamic block, with a code length each for 257 and more literals and lengths
    /// and for distances. Code lengths are written in five bits each.
    pub(crate) fn dynamic(mut self, last: bool, lengths: &[u8], distances: &[u8]) -> Self {
        self = self
            .bits(last.into(), 1)
            .bits(2, 2)
            .bits(lengths.len() as u32 - 257, 5)
            .bits(distances.len() as u32 - 1, 5)
            .bits(15, 4);
        // 16, 17 and 18 have none, 0 to 15 have four bits: a complete code.
        for symbol in [
            16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15,
        ] {
            self = self.bits(if symbol < 16 { 4 } else { 0 }, 3);
        }
        for length in lengths.iter().chain(distances) {
            self = self.code((*length).into(), 4);
        }
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.bytes
    }
}

/// An input that is served in pieces of a size.
pub(crate) struct Pieces<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(&self.bytes[..self.size.min(self.bytes.len())])
    }

    fn consume(&mut self, n: usize) {
        self.bytes = &self.bytes[n..];
    }
}

/// Decodes a member from pieces of one size to pieces of another.
pub(crate) fn decode_by(bytes: &[u8], input: usize, output: usize) -> Said {
    let mut decoder = Gunzip::new(Pieces { bytes, size: input });
    let mut all = Vec::new();
    let mut piece = vec![0; output];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return (all, None),
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(error) => return (all, Some(cause(&error))),
        }
    }
}

pub(crate) fn cause(error: &io::Error) -> Error {
    *error
        .get_ref()
        .and_then(|error| error.downcast_ref::<Error>())
        .unwrap()
}

/// Decodes a member in many ways, which must all say the same.
#[track_caller]
pub(crate) fn decode(bytes: &[u8]) -> Said {
    let said = decode_by(bytes, usize::MAX, 1 << 20);
    for (input, output) in [
        (1, 1 << 20),
        (usize::MAX, 1),
        (7, 3),
        (33, 100_000),
        (1, 65_536),
    ] {
        let other = decode_by(bytes, input, output);
        assert_eq!(other.1, said.1, "by {input} to {output}");
        assert!(other.0 == said.0, "by {input} to {output}: other bytes");
    }
    said
}

/// Decodes a bare stream to an end that is right, or to what is wrong with it.
#[track_caller]
pub(crate) fn inflate(stream: &[u8]) -> Said {
    let headed = [&HEADER, stream].concat();
    let (plain, error) = decode(&headed);
    match error {
        // Either the stream is cut or only its trailer is missing, which one tells by adding it.
        Some(Error::Truncated) => match decode(&member(stream, &plain)) {
            (all, None) if all == plain => (plain, None),
            _ => (plain, error),
        },
        _ => (plain, error),
    }
}
