//! What the bytes of files hash to, in place of the bytes: a layer is applied as ever, and takes next to
//! no room.
//!
//! Whoever wants to know whether a tree is what its layer says has it applied so beside the tree, and
//! compares the two ([`compare`](crate::compare())). Everything that decides on what an entry becomes is
//! the same code then, and no second reader of layers can be of another opinion.

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

/// Hashed at once of what a file has no bytes for.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The hashes of the files of one layer, by their inodes.
#[derive(Debug, Default)]
pub struct Sums(Mutex<HashMap<u64, Digest>>);

impl Sums {
    /// What the bytes of the file with this inode hash to.
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
            None => sum.data(reader, u64::MAX)?,
            Some(segments) => {
                for Segment { offset, len } in segments {
                    // The reader refuses maps that go back.
                    sum.zeros(offset.saturating_sub(sum.length));
                    sum.data(reader, *len)?;
                }
                sum.zeros(entry.size.saturating_sub(sum.length));
            }
        }
        let failed = Error::write(&entry.path);
        raw::ftruncate(file, sum.length).map_err(&failed)?;
        let inode = raw::inode(file).map_err(&failed)?;
        self.lock().insert(inode, sum.hasher.finish());
        Ok(())
    }

    /// A panic elsewhere cannot leave the map half changed.
    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Digest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file's bytes so far.
struct Sum {
    hasher: Hasher,
    length: u64,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum {
            hasher: hasher(),
            length: 0,
        }
    }
}

/// By which files are compared.
pub(crate) fn hasher() -> Hasher {
    Hasher::new(Algorithm::Sha256)
}

impl Sum {
    /// Up to `most` bytes of the entry's data.
    fn data<R: BufRead>(&mut self, reader: &mut tar::Reader<R>, most: u64) -> Result<(), Error> {
        let mut left = most;
        while left > 0 {
            let bytes = reader.data()?;
            if bytes.is_empty() {
                break;
            }
            let n = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.hasher.update(&bytes[..n]);
            reader.consume(n);
            self.length += n as u64;
            left -= n as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, mut left: u64) {
        self.length += left;
        while left > 0 {
            let n = ZEROS.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.hasher.update(&ZEROS[..n]);
            left -= n as u64;
        }
    }
}
