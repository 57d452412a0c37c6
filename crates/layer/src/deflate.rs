//! Packing a layer that came plain.

use std::io::{self, BufWriter, Read, Write};

/// A compressor likes larger pieces than it gives.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes everything that `source` has to `out` as one gzip member. The same bytes give the same
/// bytes: there is neither a time nor a name in it, and one thread packs them.
///
/// # Errors
/// Those of `source` and of `out`, which only they can tell apart.
pub fn gzip(mut source: impl Read, out: impl Write) -> io::Result<()> {
    let buffered = BufWriter::with_capacity(BUFFER_BYTES, out);
    let mut packer = flate2::write::GzEncoder::new(buffered, flate2::Compression::default());
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => packer.write_all(&buffer[..got])?,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => {}
            Err(err) => return Err(err),
        }
    }
    packer.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_comes_out_and_packs_the_same() {
        let plain: Vec<u8> = (0..1_000_000_u32)
            .flat_map(|n| (n / 7).to_le_bytes())
            .collect();
        let pack = || {
            let mut packed = Vec::new();
            gzip(&*plain, &mut packed).expect("pack");
            packed
        };
        let packed = pack();
        assert!(packed.len() < plain.len() / 2, "{}", packed.len());
        assert_eq!(pack(), packed);
        let mut again = Vec::new();
        flate2::bufread::MultiGzDecoder::new(&*packed)
            .read_to_end(&mut again)
            .expect("inflate");
        assert_eq!(again, plain);
    }
}
