//! A layer as it is stored: compressed, with the digest of what is inside.
//!
//! The same trees give the same bytes: neither format carries a time or a name here, and both
//! compressors run on one thread.

use std::io::{self, BufWriter, Write};

use cairn_sys::Dir;
use cairn_types::{Algorithm, Compression, DiffId, Hasher};

use super::{Error, Options, diff};

/// Headers are small; a compressor and a hash like larger pieces.
const BUFFER_BYTES: usize = 256 << 10;

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// The SHA-256 digest of the uncompressed layer.
    pub diff_id: DiffId,
    /// Bytes of the uncompressed layer.
    pub size: u64,
    /// Entries in it.
    pub entries: u64,
}

/// Writes the layer of [`diff`] compressed to `out`.
pub fn pack<W: Write>(
    left: &[Dir],
    right: &[Dir],
    options: &Options,
    compression: Compression,
    out: W,
) -> Result<Packed, Error> {
    match compression {
        Compression::None => through(left, right, options, out).map(|(packed, _)| packed),
        Compression::Gzip => {
            let level = flate2::Compression::default();
            let packer = flate2::write::GzEncoder::new(out, level);
            let (packed, packer) = through(left, right, options, packer)?;
            packer.finish().map_err(Error::Output)?;
            Ok(packed)
        }
        Compression::Zstd => {
            let level = zstd::DEFAULT_COMPRESSION_LEVEL;
            let packer = zstd::Encoder::new(out, level).map_err(Error::Output)?;
            let (packed, packer) = through(left, right, options, packer)?;
            packer.finish().map_err(Error::Output)?;
            Ok(packed)
        }
    }
}

fn through<W: Write>(
    left: &[Dir],
    right: &[Dir],
    options: &Options,
    out: W,
) -> Result<(Packed, W), Error> {
    let hashed = Hashed {
        out,
        hasher: Hasher::new(Algorithm::Sha256),
        size: 0,
    };
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, hashed);
    let entries = diff(left, right, options, &mut buffered)?;
    let hashed = buffered
        .into_inner()
        .map_err(|err| Error::Output(err.into_error()))?;
    let packed = Packed {
        diff_id: DiffId::new(hashed.hasher.finish()),
        size: hashed.size,
        entries,
    };
    Ok((packed, hashed.out))
}

/// Hashes what passes.
struct Hashed<W> {
    out: W,
    hasher: Hasher,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.hasher.update(&bytes[..taken]);
        self.size += taken as u64;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
