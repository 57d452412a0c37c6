//! Uploads whose bytes are in a file beside the store: nothing is copied where the file system can have
//! both share the blocks.
//!
//! The upload's file is then whole before a byte of it is proven. So nothing is believed of it by its
//! length: bytes come, are hashed and counted, as they are read from this file, which nobody else can
//! write to, and never from the source, which may be another by then. Whoever resumes an upload hashes
//! all of its file, as ever.

use std::{fs::File, io, os::unix::fs::FileExt};

use cairn_sys::raw;

use super::Ingest;
use crate::{Result, small::SMALL_BYTES_MAX};

impl Ingest {
    /// Takes all bytes of `source`, which should be `size`, without copying them, and says whether it did.
    /// They come by [`Ingest::read_shared`]. If it did not, nothing has changed, and they have to be
    /// written.
    ///
    /// It does not for whatever reason the kernel has. A file system without room for what counts the
    /// owners of a block may have room for another block, and a source that cannot be put on the disk can
    /// be read from memory; if it is really full or broken, writing will say so.
    ///
    /// # Errors
    /// Of the upload's own file only.
    pub fn share(&mut self, source: &File, size: u64) -> Result<bool> {
        // What is small stands in its record, and is read again for that.
        if self.offset > 0 || size <= SMALL_BYTES_MAX as u64 {
            return Ok(false);
        }
        let is_whole = |file: &File| raw::length(file).map(|length| length == size);
        // The clone's length decides, since the source may be longer by then, and what has lost its place
        // on the disk half-way is no error to all file systems.
        let shared = match is_whole(source) {
            Ok(true) => raw::clone_file(&self.file, source).and_then(|()| is_whole(&self.file)),
            other => other,
        };
        match shared {
            Ok(true) => {
                self.shared = size;
                // The source may be in memory; of the clone nothing is.
                raw::read_in_order(&self.file);
            }
            Ok(false) => self.truncate()?,
            Err(err) => {
                tracing::debug!("ingest {} gets a copy: {err}", self.reference);
                self.truncate()?;
            }
        }
        Ok(self.shared > 0)
    }

    /// Whether its bytes come by [`Ingest::read_shared`].
    pub fn is_shared(&self) -> bool {
        self.shared > 0
    }

    /// Reads on in what it shares, and counts it as come; 0 at the end.
    pub fn read_shared(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.shared.saturating_sub(self.offset);
        let wanted = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let got = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        if got == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.came(&buffer[..got]);
        Ok(got)
    }
}
