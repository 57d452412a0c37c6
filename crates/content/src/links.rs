//! Who may see a blob, with which labels; and the end of a blob.

use std::{
    collections::HashSet,
    sync::{MutexGuard, PoisonError},
};

use cairn_meta::{BlobLink, Timestamp, Tx, View, schema};
use cairn_types::{Digest, Labels, Namespace, merge_labels, validate_label};

use crate::{BlobInfo, Content, Error, Result, error::sys, is_missing};

/// Checks labels before anything is done.
pub(crate) fn check(labels: &Labels) -> Result<()> {
    for (key, value) in labels {
        validate_label(key, value)?;
    }
    Ok(())
}

/// Links a recorded blob into a namespace.
///
/// The namespace gets a record of its own with its first link: [`Content::delete`] goes through those
/// to find out who else has a blob.
pub(crate) fn link(tx: &mut Tx<'_>, ns: &Namespace, digest: &Digest, labels: Labels) -> Result<()> {
    let key = (ns.clone(), digest.clone());
    if tx.get(&schema::BLOB_LINKS, &key)?.is_some() {
        let (ns, digest) = key;
        return Err(Error::Exists { digest, ns });
    }
    tx.use_namespace(ns)?;
    let now = Timestamp::now();
    let link = BlobLink {
        labels,
        created_at: now,
        updated_at: now,
    };
    Ok(tx.put(&schema::BLOB_LINKS, &key, &link)?)
}

/// The same, or adds labels to a link that is there: the blob was damaged and is brought again. A link
/// that does not prove itself is made anew.
pub(crate) fn link_again(
    tx: &mut Tx<'_>,
    ns: &Namespace,
    digest: &Digest,
    labels: Labels,
) -> Result<()> {
    let key = (ns.clone(), digest.clone());
    let known = match tx.get(&schema::BLOB_LINKS, &key) {
        Ok(known) => known,
        Err(cairn_meta::Error::Corrupt { .. }) => {
            tx.delete(&schema::BLOB_LINKS, &key)?;
            None
        }
        Err(err) => return Err(err.into()),
    };
    let Some(mut known) = known else {
        return link(tx, ns, digest, labels);
    };
    merge_labels(&mut known.labels, labels);
    known.updated_at = Timestamp::now();
    Ok(tx.put(&schema::BLOB_LINKS, &key, &known)?)
}

impl Content {
    /// Makes a blob that another namespace has visible in `ns`, without any bytes being sent.
    ///
    /// # Errors
    /// [`Error::Exists`] when `ns` has it, [`Error::NotFound`] when nobody has.
    pub fn link(&self, ns: &Namespace, digest: &Digest, labels: Labels) -> Result<()> {
        check(&labels)?;
        self.check_writable()?;
        let _changing = self.inner.changing.lock(digest);
        let (ns, digest) = (ns.clone(), digest.clone());
        self.inner.meta.write(move |tx| {
            if tx.get(&schema::BLOBS, &digest)?.is_none() {
                return Err(Error::NotFound { digest, ns });
            }
            link(tx, &ns, &digest, labels)
        })
    }

    /// Replaces all labels.
    pub fn set_labels(&self, ns: &Namespace, digest: &Digest, labels: Labels) -> Result<BlobInfo> {
        check(&labels)?;
        self.change_labels(ns, digest, move |known| *known = labels)
    }

    /// Sets the given labels and leaves the others; an empty value removes its label.
    pub fn update_labels(
        &self,
        ns: &Namespace,
        digest: &Digest,
        labels: &Labels,
    ) -> Result<BlobInfo> {
        check(labels)?;
        let labels = labels.clone();
        self.change_labels(ns, digest, move |known| merge_labels(known, labels))
    }

    fn change_labels(
        &self,
        ns: &Namespace,
        digest: &Digest,
        change: impl FnOnce(&mut Labels) + Send + 'static,
    ) -> Result<BlobInfo> {
        let key = (ns.clone(), digest.clone());
        self.inner.meta.write(move |tx| {
            let Some(mut link) = tx.get(&schema::BLOB_LINKS, &key)? else {
                let (ns, digest) = key;
                return Err(Error::NotFound { digest, ns });
            };
            let Some(blob) = tx.get(&schema::BLOBS, &key.1)? else {
                return Err(crate::unrecorded(&key.1));
            };
            change(&mut link.labels);
            link.updated_at = Timestamp::now();
            tx.put(&schema::BLOB_LINKS, &key, &link)?;
            Ok(BlobInfo {
                digest: key.1,
                size: blob.size,
                labels: link.labels,
                created_at: link.created_at,
                updated_at: link.updated_at,
            })
        })
    }

    /// Removes a blob from a namespace, and its bytes when no other namespace has it. Says whether
    /// the bytes went.
    pub fn delete(&self, ns: &Namespace, digest: &Digest) -> Result<bool> {
        let _changing = self.inner.changing.lock(digest);
        let key = (ns.clone(), digest.clone());
        let last = self.inner.meta.write(move |tx| {
            let namespaces = tx.scan(&schema::NAMESPACES, &())?;
            let namespaces: Vec<Namespace> = namespaces.into_iter().map(|(ns, _)| ns).collect();
            match Content::unlink(tx, &key, &namespaces)? {
                Some(last) => Ok(last),
                None => {
                    let (ns, digest) = key;
                    Err(Error::NotFound { digest, ns })
                }
            }
        })?;
        if last {
            self.remove_file(digest);
        }
        Ok(last)
    }

    /// Removes a blob from a namespace as part of a transaction; `namespaces` are all that may have it.
    /// Says whether no other does: then it is recorded no longer, and [`Content::remove_unrecorded`] is to
    /// be called after the commit. `None` when the namespace has no such blob.
    pub fn unlink(
        tx: &mut Tx<'_>,
        key: &(Namespace, Digest),
        namespaces: &[Namespace],
    ) -> Result<Option<bool>> {
        if tx.get(&schema::BLOB_LINKS, key)?.is_none() {
            return Ok(None);
        }
        tx.delete(&schema::BLOB_LINKS, key)?;
        for other in namespaces {
            let other = (other.clone(), key.1.clone());
            if tx.get(&schema::BLOB_LINKS, &other)?.is_some() {
                return Ok(Some(false));
            }
        }
        tx.delete(&schema::BLOBS, &key.1)?;
        tx.delete(&schema::BLOB_BYTES, &key.1)?;
        Ok(Some(true))
    }

    /// Removes the file of a blob that was recorded no longer a moment ago, unless somebody has made
    /// the same blob since, or is at it: whoever publishes one holds its name, and believes a file that
    /// is there. In that case [`Content::remove_left`] tries again.
    pub fn remove_unrecorded(&self, digest: &Digest) {
        self.mark_left([digest]);
        self.remove_left();
    }

    /// Says of blobs whose records went in one transaction that their files are to go as well, however long
    /// each has to wait for [`Content::remove_unrecorded`].
    pub fn mark_left<'d>(&self, digests: impl IntoIterator<Item = &'d Digest>) {
        self.left().extend(digests.into_iter().cloned());
    }

    /// Removes files of blobs that are recorded no longer and were in somebody's hands when they were
    /// to go. What cannot go now either stays for the next call, or for the next opening's sweep.
    pub fn remove_left(&self) {
        let left: Vec<Digest> = self.left().iter().cloned().collect();
        for digest in left {
            let Some(_changing) = self.inner.changing.try_lock(&digest) else {
                continue;
            };
            // Before the look: one that is to go once more from here on has been noted once more.
            self.left().remove(&digest);
            match self.size_of_any(&digest) {
                Ok(None) => self.remove_file(&digest),
                Ok(Some(_)) => {}
                Err(err) => tracing::warn!("remove blob {digest}: {err}"),
            }
        }
    }

    /// Whether its file is to go.
    pub(crate) fn is_left(&self, digest: &Digest) -> bool {
        self.left().contains(digest)
    }

    fn left(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.inner
            .left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller holds the digest's name.
    fn remove_file(&self, digest: &Digest) {
        let (dir, name) = self.place(digest);
        match dir.unlink(name) {
            Ok(()) => {}
            Err(err) if is_missing(&err) => {}
            // The blob is gone for everybody; the next sweep takes the file.
            Err(err) => tracing::warn!("{:?}", sys(format!("remove blob {digest}"))(err)),
        }
    }
}
