//! Reading a blob, and not believing the disk.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use cairn_sys::raw::{self, Caching};
use cairn_types::{Digest, Hasher};

use crate::{
    check::Doubts,
    proven::{Mark, Proven},
};

/// An open blob. Read from its beginning to its end as [`Read`], its bytes are proven on the way: of
/// a damaged blob the last bytes are not handed out, and the read that should have given them fails
/// with [`io::ErrorKind::InvalidData`].
///
/// It stays readable when the blob is deleted meanwhile.
pub struct Blob {
    file: File,
    digest: Digest,
    size: u64,
    /// What it was when it was opened.
    mark: Mark,
    /// Of everything that was read of it as [`Read`].
    proof: Proof,
    /// Where it is noted if it turns out to be damaged, or whole.
    doubts: Doubts,
    proven: Proven,
    caching: Caching,
}

/// What was read of a blob from its beginning on.
pub struct Proof {
    hasher: Hasher,
    bytes: u64,
}

impl Proof {
    fn new(digest: &Digest) -> Proof {
        Proof {
            hasher: Hasher::new(digest.algorithm()),
            bytes: 0,
        }
    }

    fn take(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.bytes += piece.len() as u64;
    }
}

impl Blob {
    pub(crate) fn new(
        (file, mark): (File, Mark),
        digest: Digest,
        size: u64,
        doubts: Doubts,
        proven: Proven,
    ) -> Blob {
        Blob {
            file,
            mark,
            proof: Proof::new(&digest),
            digest,
            size,
            doubts,
            proven,
            caching: Caching::Kept,
        }
    }

    /// The same, whose bytes as a [`Read`] leave this in memory.
    pub fn caching(self, caching: Caching) -> Blob {
        Blob { caching, ..self }
    }

    /// Bytes in all.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// What it is named by.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Reads at `offset`, without moving and without proof: a part of a blob proves nothing. 0 at
    /// and after its end.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// As [`Blob::read_at`], but only what the kernel has in memory. `None` when it would have to wait
    /// for the disk, or cannot say.
    pub fn read_at_once(&self, buffer: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        raw::read_cached(&self.file, buffer, offset).map_err(|err| io::Error::from(err.errno()))
    }

    /// Whether this process has seen all bytes of it, and the file is the same since. What the disk forgets after
    /// that is found by whoever reads all of it.
    pub fn is_proven(&self) -> bool {
        !self.doubts.has(&self.digest) && self.proven.has(&self.digest, self.mark)
    }

    /// Begins to prove what is read by [`Blob::read_at`] from the first byte to the last.
    pub fn begin_proof(&self) -> Proof {
        Proof::new(&self.digest)
    }

    /// Takes in the next piece, before it is handed out: the last one is not, if all of them are not the blob.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] with the last piece of a damaged one.
    pub fn prove_piece(&self, proof: &mut Proof, piece: &[u8]) -> io::Result<()> {
        proof.take(piece);
        self.judge(proof)
    }

    /// Reads all of it, and does not move. A part of it can be believed after that.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] of a damaged one; what reading has.
    pub fn prove(&self) -> io::Result<()> {
        let mut proof = self.begin_proof();
        read_file(&self.file, Caching::Kept, |piece| {
            proof.take(piece);
            true
        })?;
        if proof.bytes != self.size {
            let text = format!("it has {} bytes instead of {}", proof.bytes, self.size);
            return Err(self.damaged(&text));
        }
        self.judge(&proof)
    }

    /// Whether what was read is the blob, once that is all of it.
    fn judge(&self, proof: &Proof) -> io::Result<()> {
        if proof.bytes < self.size {
            return Ok(());
        }
        let actual = proof.hasher.clone().finish();
        if actual != self.digest {
            return Err(self.damaged(&format!("its bytes hash to {actual}")));
        }
        self.proven.add(&self.digest, self.mark);
        Ok(())
    }

    fn damaged(&self, reason: &str) -> io::Error {
        self.doubts.add(&self.digest);
        let text = format!("blob {} is damaged: {reason}", self.digest);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let got = match self.caching {
            Caching::Kept => self.file.read_at(buffer, self.proof.bytes)?,
            Caching::Aside => raw::read_once(&self.file, buffer, self.proof.bytes, self.caching)
                .map_err(|err| io::Error::from(err.errno()))?,
        };
        let end = self.proof.bytes + got as u64;
        if end > self.size {
            return Err(self.damaged("it is longer than its record says"));
        }
        if got == 0 && end < self.size {
            return Err(self.damaged("it is shorter than its record says"));
        }
        // Proven together with the last bytes; a later read finds the end and the same proof.
        self.proof.take(&buffer[..got]);
        self.judge(&self.proof)?;
        Ok(got)
    }
}

/// The hash of a file's bytes from its beginning, and how many they are.
pub(crate) fn hash_file(file: &File, mut hasher: Hasher) -> io::Result<(Hasher, u64)> {
    let mut bytes = 0;
    read_file(file, Caching::Kept, |piece| {
        hasher.update(piece);
        bytes += piece.len() as u64;
        true
    })?;
    Ok((hasher, bytes))
}

/// Gives `take` a file's bytes from its beginning on, until that says `false`.
pub(crate) fn read_file(
    file: &File,
    caching: Caching,
    take: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    raw::read_through(file, 0..u64::MAX, caching, take).map_err(|err| io::Error::from(err.errno()))
}
