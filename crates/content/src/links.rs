//! Who may see a blob, with which labels; and the end of a blob.

use cairn_meta::{BlobLink, NamespaceRecord, Timestamp, Tx, View, schema};
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
    if tx.get(&schema::NAMESPACES, ns)?.is_none() {
        let record = NamespaceRecord {
            labels: Labels::new(),
        };
        tx.put(&schema::NAMESPACES, ns, &record)?;
    }
    let now = Timestamp::now();
    let link = BlobLink {
        labels,
        created_at: now,
        updated_at: now,
    };
    Ok(tx.put(&schema::BLOB_LINKS, &key, &link)?)
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
            if tx.get(&schema::BLOB_LINKS, &key)?.is_none() {
                let (ns, digest) = key;
                return Err(Error::NotFound { digest, ns });
            }
            tx.delete(&schema::BLOB_LINKS, &key)?;
            for (other, _) in tx.scan(&schema::NAMESPACES, &())? {
                let other = (other, key.1.clone());
                if tx.get(&schema::BLOB_LINKS, &other)?.is_some() {
                    return Ok(false);
                }
            }
            tx.delete(&schema::BLOBS, &key.1)?;
            Ok(true)
        })?;
        if last {
            let (dir, name) = self.place(digest);
            match dir.unlink(name) {
                Ok(()) => {}
                Err(err) if is_missing(&err) => {}
                // The blob is gone for everybody; the next sweep takes the file.
                Err(err) => tracing::warn!("{:?}", sys(format!("remove blob {digest}"))(err)),
            }
        }
        Ok(last)
    }
}
