//! What the bytes of files hash to, in place of the bytes: a layer is applied as ever, and takes next to
//! no room.
//!
//! Whoever wants to know whether a tree is what its layer says has it applied so beside the tree, and
//! compares the two ([`compare`](crate::compare())). Everything that decides on what an entry becomes is
//! the same code then, and no second reader of layers can be of another opinion.
//!
//! A few bytes of a layer can declare a file of terabytes that is nothing but a hole, and a layer can hold
//! millions of those. So a hole costs nothing here, however long it is.

use std::{
    collections::HashMap,
    fs::File,
    io::BufRead,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cairn_sys::raw;
use cairn_types::{Algorithm, Digest, Hasher};

use crate::{
    Error,
    tar::{self, Entry, Segment},
};

/// Hashed at once, or not at all. No more than what a file system takes for a byte that stands alone, or a
/// map of many such bytes would cost more to be summed than to be unpacked.
const PART_BYTES: usize = 4 << 10;
static ZEROS: [u8; PART_BYTES] = [0; PART_BYTES];

/// The sums of the files of one layer, by their inodes.
#[derive(Debug, Default)]
pub struct Sums(Mutex<HashMap<u64, Digest>>);

impl Sums {
    /// That of the file with this inode, as [`Sum::finish`] gives it.
    pub(crate) fn get(&self, inode: u64) -> Option<Digest> {
        self.lock().get(&inode).cloned()
    }

    /// Takes an entry's bytes. The file gets its length, and no bytes. One that comes in the place of
    /// another of the layer may have its inode, and then its sum takes the place of that one's.
    pub(super) fn take<R: BufRead>(
        &self,
        reader: &mut tar::Reader<R>,
        file: &File,
        entry: &Entry,
    ) -> Result<(), Error> {
        let mut sum = Sum::default();
        match &entry.sparse {
            None => stored(&mut sum, reader, u64::MAX)?,
            Some(segments) => {
                for Segment { offset, len } in segments {
                    // The reader refuses maps that go back.
                    sum.zeros(offset.saturating_sub(sum.length()));
                    stored(&mut sum, reader, *len)?;
                }
                sum.zeros(entry.size.saturating_sub(sum.length()));
            }
        }
        let failed = Error::write(&entry.path);
        raw::ftruncate(file, sum.length()).map_err(&failed)?;
        let inode = raw::inode(file).map_err(&failed)?;
        self.lock().insert(inode, sum.finish());
        Ok(())
    }

    /// A panic elsewhere cannot leave the map half changed.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Up to `most` bytes of the entry's data.
fn stored<R: BufRead>(sum: &mut Sum, reader: &mut tar::Reader<R>, most: u64) -> Result<(), Error> {
    let mut left = most;
    while left > 0 {
        let bytes = reader.data()?;
        if bytes.is_empty() {
            break;
        }
        let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        sum.data(&bytes[..n]);
        reader.consume(n);
        left -= n as u64;
    }
    Ok(())
}

/// A file's bytes so far, by which files are compared.
///
/// Which zeros are holes makes no difference: a file system may keep some of them as such that a layer spells
/// out, and spell out some of those around the data of a sparse file. So the hash is of those parts of the
/// file that are not zeros altogether, each after its number, and of the file's length.
pub(crate) struct Sum {
    hasher: Hasher,
    /// The bytes of the part that is not complete.
    part: Vec<u8>,
    /// Complete parts.
    parts: u64,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum {
            hasher: Hasher::new(Algorithm::Sha256),
            part: Vec::new(),
            parts: 0,
        }
    }
}

impl Sum {
    /// Bytes so far.
    pub(crate) fn length(&self) -> u64 {
        self.parts * PART_BYTES as u64 + self.part.len() as u64
    }

    /// The next bytes.
    pub(crate) fn data(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.part.is_empty() && bytes.len() >= PART_BYTES {
                let (part, rest) = bytes.split_at(PART_BYTES);
                self.hash(part);
                self.parts += 1;
                bytes = rest;
                continue;
            }
            let (more, rest) = bytes.split_at(bytes.len().min(PART_BYTES - self.part.len()));
            self.part.extend_from_slice(more);
            bytes = rest;
            self.complete();
        }
    }

    /// So many zeros come next.
    pub(crate) fn zeros(&mut self, count: u64) {
        let lacking = (PART_BYTES - self.part.len()) as u64;
        let left = match self.part.is_empty() {
            true => count,
            false => {
                let more = usize::try_from(count.min(lacking)).unwrap_or(PART_BYTES);
                self.part.extend_from_slice(&ZEROS[..more]);
                self.complete();
                count - more as u64
            }
        };
        if left > 0 {
            self.parts += left / PART_BYTES as u64;
            let rest = usize::try_from(left % PART_BYTES as u64).unwrap_or(0);
            self.part.extend_from_slice(&ZEROS[..rest]);
        }
    }

    /// The sum of them all.
    pub(crate) fn finish(mut self) -> Digest {
        let length = self.length();
        let part = std::mem::take(&mut self.part);
        self.hash(&part);
        self.hasher.update(&length.to_le_bytes());
        self.hasher.finish()
    }

    fn complete(&mut self) {
        if self.part.len() == PART_BYTES {
            let mut part = std::mem::take(&mut self.part);
            self.hash(&part);
            self.parts += 1;
            part.clear();
            self.part = part;
        }
    }

    /// The part after those that are complete.
    fn hash(&mut self, part: &[u8]) {
        if part != &ZEROS[..part.len()] {
            self.hasher.update(&self.parts.to_le_bytes());
            self.hasher.update(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pieces: &[&[u8]]) -> Digest {
        let mut sum = Sum::default();
        for piece in pieces {
            sum.data(piece);
        }
        sum.finish()
    }

    #[test]
    fn holes_are_zeros_wherever_they_are() {
        let mut file = vec![0; 5 * PART_BYTES + 17];
        for at in [0, 7, PART_BYTES - 1, 3 * PART_BYTES, 5 * PART_BYTES + 3] {
            file[at] = 1;
        }
        let whole = of(&[&file]);
        for size in [1, 5, 512, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 9000] {
            let pieces: Vec<&[u8]> = file.chunks(size).collect();
            assert_eq!(of(&pieces), whole, "pieces of {size}");
            // What of them is nothing but zeros is told as a hole, at whatever place it is.
            let mut sum = Sum::default();
            for piece in &pieces {
                match piece.iter().all(|byte| *byte == 0) {
                    true => sum.zeros(piece.len() as u64),
                    false => sum.data(piece),
                }
            }
            assert_eq!(sum.length(), file.len() as u64);
            assert_eq!(sum.finish(), whole, "holes of {size}");
        }
    }

    #[test]
    fn each_byte_its_place_and_the_length_count() {
        let file = |size: usize, at: usize| {
            let mut file = vec![0; size];
            if let Some(byte) = file.get_mut(at) {
                *byte = 1;
            }
            of(&[&file])
        };
        let part = PART_BYTES;
        let sizes = [1, 2, part - 1, part, part + 1, 2 * part, 3 * part];
        let places = [0, 1, part - 1, part, 2 * part - 1, 2 * part, usize::MAX];
        let mut seen = std::collections::HashSet::new();
        for size in sizes {
            // The last one is a file of zeros.
            for at in places
                .into_iter()
                .filter(|at| *at < size || *at == usize::MAX)
            {
                assert!(seen.insert(file(size, at)), "{at} of {size}");
            }
        }
        assert!(seen.insert(of(&[])));
    }
}
