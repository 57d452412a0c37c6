//! How verified bytes become a blob: sync, name, sync, record; and what is small by its record alone.

use std::{ffi::OsStr, fs::File};

use cairn_meta::{BlobRecord, ReadOnly, Timestamp, Tx, View, schema};
use cairn_sys::{Dir, OFlags, durable, raw};
use cairn_types::{Classified, Digest, ErrorKind, Hasher, Labels, Namespace};

use crate::{
    Blobs, Content, Error, Result,
    blob::hash_file,
    error::{io, sys},
    links,
    locks::Held,
    proven::Mark,
    small::SMALL_BYTES_MAX,
};

/// Nobody writes to a blob again, by whatever name.
pub(crate) const MODE: u32 = 0o444;

/// A written file that is to become a blob.
pub(crate) struct Written<'a> {
    pub(crate) file: &'a File,
    pub(crate) dir: &'a Dir,
    pub(crate) name: &'a OsStr,
    pub(crate) size: u64,
}

/// A blob that has its name and no record yet.
pub(crate) struct Published {
    digest: Digest,
    size: u64,
    /// To stand in the record until the file is on the disk.
    bytes: Option<Vec<u8>>,
    /// The written file has the blob's name now, and its own no more.
    pub(crate) moved: bool,
}

impl Content {
    /// Stores a small document whole. One that is there and damaged is replaced.
    ///
    /// # Errors
    /// [`Error::Exists`] when the namespace has it; [`Error::Digest`] when it is not `expected`.
    pub fn put(
        &self,
        ns: &Namespace,
        bytes: &[u8],
        expected: Option<&Digest>,
        labels: Labels,
    ) -> Result<Digest> {
        links::check(&labels)?;
        self.check_writable()?;
        let digest = match expected {
            Some(expected) => Digest::of(expected.algorithm(), bytes),
            None => Digest::sha256(bytes),
        };
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(Error::Digest {
                what: "document".to_owned(),
                expected: expected.clone(),
                actual: digest,
            });
        }
        let changing = self.inner.changing.lock(&digest);
        // Documents are small, and whoever brings one can be believed at once.
        if self.is_whole(ns, &digest)? && self.verified(&digest, bytes.len() as u64)?.is_some() {
            let ns = ns.clone();
            return Err(Error::Exists { digest, ns });
        }
        let name = self.put_name();
        let name = OsStr::new(&name);
        let dir = &self.inner.ingests;
        let attempted = || format!("store document {digest}");
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC;
        let file = dir
            .open_file(name, flags, 0o600)
            .map_err(sys(attempted()))?;
        let written = Written {
            file: &file,
            dir,
            name,
            size: bytes.len() as u64,
        };
        let kept = (bytes.len() <= SMALL_BYTES_MAX).then(|| bytes.to_vec());
        let published = raw::write_all(&file, bytes)
            .map_err(sys(attempted()))
            .and_then(|()| self.publish(&digest, &written, kept, &changing));
        // Still there on failure, and when the bytes were in the store already.
        if !published.as_ref().is_ok_and(|published| published.moved) {
            let _ = dir.unlink(name);
        }
        let published = published?;
        self.record(ns, published, labels, |_| Ok(()))?;
        Ok(digest)
    }

    /// Gives a written file its name among the blobs, and makes both last, or has its record keep its
    /// `bytes` until they do. A file that is there already is believed only when its bytes are right;
    /// otherwise it is replaced.
    pub(crate) fn publish(
        &self,
        digest: &Digest,
        written: &Written<'_>,
        bytes: Option<Vec<u8>>,
        _changing: &Held<Digest>,
    ) -> Result<Published> {
        let failed = |err: cairn_sys::Error| self.failed(format!("publish blob {digest}"), err);
        raw::fchmod(written.file, MODE).map_err(failed)?;
        let moved = self.name(digest, written, bytes.is_none())?;
        Ok(Published {
            digest: digest.clone(),
            size: written.size,
            bytes,
            moved,
        })
    }

    /// The bytes of a file that are few enough for its record.
    pub(crate) fn small(&self, digest: &Digest, written: &Written<'_>) -> Result<Option<Vec<u8>>> {
        if written.size > SMALL_BYTES_MAX as u64 {
            return Ok(None);
        }
        // One more, so that a file that is longer than was counted shows itself.
        let bytes = raw::read_at(written.file, SMALL_BYTES_MAX + 1, 0);
        let bytes = bytes.map_err(sys(format!("read blob {digest}")))?;
        Ok((bytes.len() as u64 == written.size).then_some(bytes))
    }

    /// Moves a written file to its name among the blobs, unless the blob is there; whether it was moved. When
    /// it is to be `lasting`, bytes and name are on the disk when this returns.
    fn name(&self, digest: &Digest, written: &Written<'_>, lasting: bool) -> Result<bool> {
        let Blobs { dir: blobs, syncs } = self.blobs_of(digest);
        let name = OsStr::new(digest.hex());
        let failed = |err: cairn_sys::Error| self.failed(format!("publish blob {digest}"), err);
        let sync_name = || match lasting {
            true => syncs.run(|| blobs.fsync()).map_err(failed),
            false => Ok(()),
        };
        let named = match lasting {
            true => durable::publish(
                written.file,
                (written.dir, written.name),
                (blobs, name),
                syncs,
            ),
            false => written.dir.rename_noreplace(written.name, blobs, name),
        };
        match named {
            Ok(()) => {
                self.believe(digest, written.file);
                return Ok(true);
            }
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
            Err(err) => return Err(failed(err)),
        }
        if let Some(known) = self.verified(digest, written.size)? {
            if lasting {
                // Whoever named it may not have come to syncing the name, or even the bytes.
                durable::sync_file(&known).map_err(failed)?;
            }
            sync_name()?;
            self.believe(digest, &known);
            return Ok(false);
        }
        tracing::warn!("blob {digest} was damaged and is replaced");
        // Here the bytes come first: a record may speak of the name already, and no longer have them.
        durable::sync_file(written.file).map_err(failed)?;
        let renamed = written.dir.rename(written.name, blobs, name);
        renamed.map_err(failed)?;
        sync_name()?;
        self.believe(digest, written.file);
        Ok(true)
    }

    /// All bytes of this file were seen, and they are the blob's.
    fn believe(&self, digest: &Digest, file: &File) {
        self.inner.doubts.remove(digest);
        if let Ok(stat) = raw::stat(file) {
            self.inner.proven.add(digest, Mark::of(&stat));
        }
    }

    /// The file of a blob, if its bytes are right.
    fn verified(&self, digest: &Digest, size: u64) -> Result<Option<File>> {
        if self.flaw_at_a_glance(digest, size)?.is_some() {
            return Ok(None);
        }
        let Ok(file) = self.try_open(digest)? else {
            return Ok(None);
        };
        let attempted = || format!("verify blob {digest}");
        // Bytes that cannot be read are damage like any other.
        match hash_file(&file, Hasher::new(digest.algorithm())) {
            Ok((hasher, _)) => Ok((hasher.finish() == *digest).then_some(file)),
            Err(err) => {
                tracing::warn!("{:?}", io(attempted(), "read")(err));
                Ok(None)
            }
        }
    }

    /// Records a published blob and links it into a namespace; `also` is part of the transaction.
    pub(crate) fn record(
        &self,
        ns: &Namespace,
        published: Published,
        labels: Labels,
        also: impl FnOnce(&mut Tx<'_>) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let Published {
            digest,
            size,
            bytes,
            moved: _,
        } = published;
        if bytes.is_some() {
            self.begin(&digest, Timestamp::now());
        }
        let ns = ns.clone();
        self.inner.meta.write(move |tx| {
            match tx.get(&schema::BLOBS, &digest) {
                Ok(Some(known)) if known.size == size => {}
                // What is damaged is made anew: the file is what it should be.
                Ok(_) | Err(cairn_meta::Error::Corrupt { .. }) => {
                    let created_at = Timestamp::now();
                    tx.put(&schema::BLOBS, &digest, &BlobRecord { size, created_at })?;
                }
                Err(err) => return Err(err.into()),
            }
            if let Some(bytes) = &bytes {
                tx.put(&schema::BLOB_BYTES, &digest, bytes)?;
            }
            links::link_again(tx, &ns, &digest, labels)?;
            also(tx)
        })
    }

    /// Names a failed system call, and closes the store for writing when it was a sync: the kernel
    /// reports such a failure once and then counts the lost pages as clean. A full disk is no reason,
    /// since the upload that met it is thrown away, and what was acknowledged before is in the records.
    pub(crate) fn failed(&self, attempted: String, err: cairn_sys::Error) -> Error {
        let reason = err.words();
        let err = sys(attempted)(err);
        if is_sync(&err) && err.kind() != ErrorKind::ResourceExhausted {
            let broken = ReadOnly::now(format!("sync failed: {reason}"));
            tracing::error!("{broken}: {err:?}");
            let _ = self.inner.broken.set(broken);
        }
        err
    }
}

/// Whether an error is of a sync, after which the written bytes cannot be trusted to be on the disk.
pub(crate) fn is_sync(err: &Error) -> bool {
    matches!(err, Error::Sys { source, .. } if matches!(source.op(), "fdatasync" | "fsync" | "syncfs"))
}
