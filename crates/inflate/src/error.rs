//! What can be wrong with a stream.

use std::io;

/// Why bytes are no gzip stream, or not all of one. After any of these the decoder is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input ends before the stream does.
    #[error("unexpected end of the compressed data")]
    Truncated,
    /// Not the two bytes that gzip begins with (RFC 1952, 2.3.1).
    #[error("not gzip: no magic number")]
    Magic,
    /// A compression method other than DEFLATE.
    #[error("gzip header: unknown compression method {0}")]
    Method(u8),
    /// Flags that RFC 1952 reserves, whose fields nobody knows how to skip.
    #[error("gzip header: reserved flags {0:#04x}")]
    Flags(u8),
    /// The header's own checksum is another.
    #[error("gzip header: incorrect checksum")]
    HeaderChecksum,
    /// Block type 3.
    #[error("invalid block type")]
    BlockType,
    /// The length of a stored block is not the complement of its complement.
    #[error("invalid stored block lengths")]
    StoredLength,
    /// A dynamic block announces more codes than there are symbols for.
    #[error("too many length or distance symbols")]
    TooManySymbols,
    /// The code of a dynamic block's code lengths is over-subscribed or incomplete.
    #[error("invalid code lengths set")]
    CodeLengths,
    /// A repetition of code lengths without a first, or past the last.
    #[error("invalid bit length repeat")]
    LengthRepeat,
    /// A dynamic block that could never end.
    #[error("invalid code: missing end-of-block")]
    NoEndOfBlock,
    /// The code of literals and lengths is over-subscribed or incomplete.
    #[error("invalid literal/lengths set")]
    LiteralLengths,
    /// The code of distances is over-subscribed or incomplete.
    #[error("invalid distances set")]
    Distances,
    /// A code that stands for no literal and no length.
    #[error("invalid literal/length code")]
    LengthCode,
    /// A code that stands for no distance.
    #[error("invalid distance code")]
    DistanceCode,
    /// A match that begins before the stream does.
    #[error("invalid distance too far back")]
    TooFarBack,
    /// The CRC-32 of what came out is not the one of the trailer.
    #[error("incorrect data check")]
    Checksum,
    /// The length of what came out, modulo 2^32, is not the one of the trailer.
    #[error("incorrect length check")]
    Length,
}

impl From<Error> for io::Error {
    fn from(error: Error) -> io::Error {
        let kind = match error {
            Error::Truncated => io::ErrorKind::UnexpectedEof,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
