//! A layer's bytes unpacked: gzip, zstd or plain, told apart by their first bytes.
//!
//! This room knows packing and nothing of tar. It reads its source to the very end, since whoever
//! tees the compressed bytes into a digest needs every one of them, and it tells a source that
//! failed from bytes that are wrong.

use std::io::{self, BufRead, Chain, Cursor, Read};

use cairn_inflate::{Gunzip, buffered};
use cairn_types::{Classified, Compression, ErrorKind, LayerType};

/// The largest zstd window taken: 128 MiB, what `zstd` itself accepts without `--long=28` or more.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Enough for the longest magic, bzip2's with its first block header.
const HEAD_BYTES: usize = 10;

/// Why a layer cannot be unpacked to a tar stream.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    /// The source itself failed: a disk, a connection.
    #[error("read layer")]
    Source(#[source] io::Error),
    /// The bytes are not what their magic says: a wrong checksum, a truncated stream.
    #[error("decompress {} layer", .packing.name())]
    Corrupt {
        /// By its magic.
        packing: Compression,
        /// What the decoder said.
        source: io::Error,
    },
    /// Something other than zeros after the last gzip member.
    #[error("decompress gzip layer: garbage after the compressed data")]
    TrailingGarbage,
    /// A packing that no layer type allows.
    #[error("not tar: the layer is {0}, where gzip, zstd or a plain tar is allowed")]
    Packing(&'static str),
}

impl Classified for InflateError {
    fn kind(&self) -> ErrorKind {
        match self {
            InflateError::Source(_) => ErrorKind::Internal,
            InflateError::Corrupt { .. }
            | InflateError::TrailingGarbage
            | InflateError::Packing(_) => ErrorKind::InvalidArgument,
        }
    }
}

type Input<R> = Chain<Cursor<Vec<u8>>, Source<R>>;

/// The uncompressed bytes of a layer.
pub struct Inflater<R: BufRead> {
    decoder: Decoder<R>,
    packing: Compression,
    looks_packed: Option<&'static str>,
}

enum Decoder<R: BufRead> {
    Plain(Input<R>),
    Gzip(Box<Gunzip<Input<R>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Input<R>>>),
    /// At the end, or after an error; the source is at its end or is given up.
    Done,
}

impl<R: BufRead> Inflater<R> {
    /// Reads the first bytes of `source` and decides. An OCI plain `tar` is never decompressed,
    /// whatever it begins with.
    pub fn new(source: R, layer: LayerType) -> Result<Inflater<R>, InflateError> {
        Inflater::with_threads(source, layer, 1)
    }

    /// The same with as many threads, the caller's included, where others are of use: for gzip.
    pub fn with_threads(
        source: R,
        layer: LayerType,
        threads: usize,
    ) -> Result<Inflater<R>, InflateError> {
        let mut source = Source(source);
        let mut head = Vec::with_capacity(HEAD_BYTES);
        source
            .by_ref()
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head)
            .map_err(|err| blame(err, Compression::None))?;
        let sniffed = Compression::sniff(&head);
        let foreign = foreign_packing(&head);
        if let (false, Some(name)) = (layer.always_plain, foreign) {
            return Err(InflateError::Packing(name));
        }
        let packing = if layer.always_plain {
            Compression::None
        } else {
            sniffed
        };
        let looks_packed = match (packing, sniffed) {
            (Compression::None, Compression::None) => foreign,
            (Compression::None, other) => Some(other.name()),
            _ => None,
        };
        let input = Cursor::new(head).chain(source);
        let decoder = match packing {
            Compression::None => Decoder::Plain(input),
            Compression::Gzip => Decoder::Gzip(Box::new(Gunzip::with_threads(input, threads))),
            Compression::Zstd => Decoder::Zstd(Box::new(zstd_decoder(input)?)),
        };
        Ok(Inflater {
            decoder,
            packing,
            looks_packed,
        })
    }

    /// How the bytes are packed in truth.
    pub fn packing(&self) -> Compression {
        self.packing
    }

    /// The packing that a plain stream begins like, to explain why it does not parse as tar.
    pub fn looks_packed(&self) -> Option<&'static str> {
        self.looks_packed
    }

    /// Fills `buffer` as far as the stream goes; fewer bytes than asked mean its end. At the end
    /// the source has been read to its end too.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, InflateError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some(&mut buffer[filled..])? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> Result<usize, InflateError> {
        loop {
            let packing = self.packing;
            let read = match &mut self.decoder {
                Decoder::Plain(input) => input.read(buffer),
                Decoder::Gzip(member) => member.read(buffer),
                Decoder::Zstd(frames) => frames.read(buffer),
                Decoder::Done => return Ok(0),
            };
            match read {
                Ok(0) => {}
                Ok(n) => return Ok(n),
                Err(err) => {
                    self.decoder = Decoder::Done;
                    return Err(blame(err, packing));
                }
            }
            // A gzip member ended; the others end with their source.
            let more = match &mut self.decoder {
                Decoder::Gzip(member) => next_member(member.input_mut()),
                _ => Ok(false),
            };
            match (&mut self.decoder, more) {
                (Decoder::Gzip(member), Ok(true)) => member.restart(),
                (_, more) => {
                    self.decoder = Decoder::Done;
                    return more.map(|_| 0);
                }
            }
        }
    }
}

/// Whether another gzip member follows one. If not, there may be zeros up to the end, which
/// tape-minded writers pad with and `gzip` ignores.
fn next_member(input: &mut impl BufRead) -> Result<bool, InflateError> {
    let mut padded = false;
    loop {
        let bytes = input
            .fill_buf()
            .map_err(|err| blame(err, Compression::Gzip))?;
        let Some(other) = bytes.iter().position(|b| *b != 0) else {
            let zeros = bytes.len();
            if zeros == 0 {
                return Ok(false);
            }
            padded = true;
            input.consume(zeros);
            continue;
        };
        return if padded || other > 0 || bytes[0] != 0x1f {
            Err(InflateError::TrailingGarbage)
        } else {
            Ok(true)
        };
    }
}

fn zstd_decoder<R: BufRead>(
    input: Input<R>,
) -> Result<zstd::stream::read::Decoder<'static, Input<R>>, InflateError> {
    let corrupt = |source| InflateError::Corrupt {
        packing: Compression::Zstd,
        source,
    };
    let mut decoder = zstd::stream::read::Decoder::with_buffer(input).map_err(corrupt)?;
    decoder
        .window_log_max(ZSTD_WINDOW_LOG_MAX)
        .map_err(corrupt)?;
    Ok(decoder)
}

fn foreign_packing(head: &[u8]) -> Option<&'static str> {
    match head {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("xz"),
        // The digits of pi open every bzip2 block; `BZh` alone could begin a file's name.
        [
            b'B',
            b'Z',
            b'h',
            b'1'..=b'9',
            0x31,
            0x41,
            0x59,
            0x26,
            0x53,
            0x59,
        ] => Some("bzip2"),
        [0x04, 0x22, 0x4d, 0x18, ..] => Some("lz4"),
        _ => None,
    }
}

/// Marks the source's own errors, so that they can be told from a decoder's behind it.
struct Source<R>(R);

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct SourceFailed(io::Error);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
                other => return other.map_err(failed),
            }
        }
    }
}

impl<R: BufRead> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        buffered(&mut self.0).map_err(failed)
    }

    fn consume(&mut self, bytes: usize) {
        self.0.consume(bytes);
    }
}

fn failed(err: io::Error) -> io::Error {
    io::Error::new(err.kind(), SourceFailed(err))
}

fn blame(err: io::Error, packing: Compression) -> InflateError {
    match err.downcast::<SourceFailed>() {
        Ok(SourceFailed(source)) => InflateError::Source(source),
        Err(source) => InflateError::Corrupt { packing, source },
    }
}
