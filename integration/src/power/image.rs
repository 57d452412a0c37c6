//! The bytes of a disk, block by block; blocks of zeros are not kept.

use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt};

/// Bytes that a disk writes whole or not at all. Smaller parts of a write are never torn: ext4 keeps its
/// own blocks whole by this and would not mount.
pub(super) const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// Most bytes of one write to a file.
const RUN_BYTES_MAX: usize = 1 << 20;

/// A disk's contents.
#[derive(Clone)]
pub(super) struct Image {
    size: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl Image {
    /// An empty disk.
    pub(super) fn new(size: u64) -> Image {
        Image {
            size,
            blocks: BTreeMap::new(),
        }
    }

    /// What a file has.
    pub(super) fn read(file: &File) -> io::Result<Image> {
        let mut image = Image::new(file.metadata()?.len());
        let mut buffer = vec![0; RUN_BYTES_MAX];
        let mut at = 0;
        while at < image.size {
            let n = file.read_at(&mut buffer, at)?;
            if n == 0 {
                break;
            }
            image.write(at, &buffer[..n]);
            at += n as u64;
        }
        Ok(image)
    }

    /// How many bytes the disk has.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes from `at` on.
    pub(super) fn fill(&self, at: u64, buffer: &mut [u8]) {
        for (at, part) in parts(at, buffer.len()) {
            let (block, within) = place(at);
            let part = &mut buffer[part];
            match self.blocks.get(&block) {
                Some(bytes) => part.copy_from_slice(&bytes[within..within + part.len()]),
                None => part.fill(0),
            }
        }
    }

    /// Changes bytes from `at` on.
    pub(super) fn write(&mut self, at: u64, bytes: &[u8]) {
        for (at, part) in parts(at, bytes.len()) {
            let (block, within) = place(at);
            let part = &bytes[part];
            let zeros = *part == ZEROS[..part.len()];
            if zeros && (part.len() == BLOCK || !self.blocks.contains_key(&block)) {
                self.blocks.remove(&block);
                continue;
            }
            let kept = self.blocks.entry(block);
            let kept = kept.or_insert_with(|| vec![0; BLOCK].into_boxed_slice());
            kept[within..within + part.len()].copy_from_slice(part);
        }
    }

    /// Writes all of it to an empty file.
    pub(super) fn write_to(&self, file: &File) -> io::Result<()> {
        file.set_len(self.size)?;
        let mut run = Vec::with_capacity(RUN_BYTES_MAX);
        let mut begin = 0;
        for (block, bytes) in &self.blocks {
            let at = block * BLOCK as u64;
            if at != begin + run.len() as u64 || run.len() == RUN_BYTES_MAX {
                file.write_all_at(&run, begin)?;
                run.clear();
                begin = at;
            }
            run.extend_from_slice(bytes);
        }
        file.write_all_at(&run, begin)
    }

    /// All of it in few bytes.
    pub(super) fn packed(&self) -> io::Result<Vec<u8>> {
        let mut bytes = self.size.to_le_bytes().to_vec();
        for (block, content) in &self.blocks {
            bytes.extend_from_slice(&block.to_le_bytes());
            bytes.extend_from_slice(content);
        }
        zstd::bulk::compress(&bytes, 3)
    }

    /// What [`Image::packed`] gave.
    pub(super) fn unpacked(bytes: &[u8]) -> io::Result<Image> {
        let bytes = zstd::stream::decode_all(bytes)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "no image of a disk");
        let (size, mut rest) = bytes.split_first_chunk().ok_or_else(wrong)?;
        let mut image = Image::new(u64::from_le_bytes(*size));
        while let Some((block, content)) = rest.split_first_chunk() {
            let content = content.split_at_checked(BLOCK).ok_or_else(wrong)?;
            image.write(u64::from_le_bytes(*block) * BLOCK as u64, content.0);
            rest = content.1;
        }
        Ok(image)
    }
}

/// The block of an offset, and where in it.
fn place(at: u64) -> (u64, usize) {
    let within = usize::try_from(at % BLOCK as u64).expect("within a block");
    (at / BLOCK as u64, within)
}

/// Cuts bytes from `at` on at the borders of blocks: where each part is on the disk, and in the bytes.
pub(super) fn parts(at: u64, length: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut from = 0;
    std::iter::from_fn(move || {
        if from == length {
            return None;
        }
        let here = at + from as u64;
        let to = length.min(from + BLOCK - place(here).1);
        let part = from..to;
        from = to;
        Some((here, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_packed() {
        let mut image = Image::new(1 << 20);
        image.write(4000, &[7; 200]);
        image.write(8192, &[1; 4096]);
        image.write(8192, &[0; 4096]);
        image.write(512 << 10, &[2; 3 * 4096]);
        assert_eq!(image.blocks.len(), 5);
        let file = tempfile::tempfile().expect("a file");
        image.write_to(&file).expect("written");
        let again = Image::unpacked(&image.packed().expect("packed")).expect("unpacked");
        for other in [Image::read(&file).expect("read"), again] {
            assert_eq!((other.size, &other.blocks), (image.size, &image.blocks));
        }
        let mut buffer = [9; 300];
        image.fill(3950, &mut buffer);
        let expected = [[0; 50].as_slice(), &[7; 200], &[0; 50]].concat();
        assert_eq!(buffer[..], expected[..]);
    }
}
