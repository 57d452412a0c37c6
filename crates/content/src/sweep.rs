//! What crashes leave, mended or removed before the store is used.

use std::{collections::HashSet, ffi::OsStr};

use cairn_meta::{IngestRecord, Timestamp, View, schema};
use cairn_sys::Dir;
use cairn_types::{Digest, IngestRef, Namespace};

use crate::{Content, Error, Result, error::sys};

/// An upload that nobody opened or grew for so long is not resumed any more (containerd's expiry of
/// an ingest without lease): 24 hours, in nanoseconds.
const INGEST_NANOS_MAX: i64 = 24 * 60 * 60 * 1_000_000_000;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Files among the blobs without record.
    pub blobs: u64,
    /// Uploads without record, or too old, and unfinished documents.
    pub ingests: u64,
}

impl Content {
    /// Writes small blobs that may not have reached the disk, removes files that no record names, and uploads that were given up.
    ///
    /// For the time between opening the store and first using it: a commit names its file before it
    /// records it, and an upload in between would be swept away.
    pub fn sweep(&self) -> Result<Swept> {
        self.restore()?;
        Ok(Swept {
            blobs: self.sweep_blobs()?,
            ingests: self.sweep_ingests(Timestamp::now())?,
        })
    }

    /// Only writes small blobs that may not have reached the disk: for a store whose records may know of less
    /// than there is.
    pub fn open_unswept(&self) -> Result<()> {
        self.restore()
    }

    fn sweep_blobs(&self) -> Result<u64> {
        let (recorded, damaged) = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan_sound(&schema::BLOBS, &())?))?;
        if told(&damaged) {
            return Ok(0);
        }
        let recorded: HashSet<Digest> = recorded.into_iter().map(|(digest, _)| digest).collect();
        let mut removed = 0;
        for (blobs, algorithm) in self.inner.blobs.iter().zip(cairn_types::Algorithm::ALL) {
            let dir = &blobs.dir;
            for entry in dir.entries().map_err(sys("sweep blobs"))? {
                let text = format!("{}:{}", algorithm.name(), entry.name.to_string_lossy());
                if let Ok(digest) = Digest::parse(&text) {
                    if recorded.contains(&digest) {
                        continue;
                    }
                    if self.is_seen(&digest)? {
                        tracing::error!("{}", crate::unrecorded(&digest));
                        continue;
                    }
                }
                tracing::info!("remove unrecorded blob {text}");
                removed += remove(dir, &entry.name);
            }
        }
        Ok(removed)
    }

    /// Whether a namespace can see a blob although nothing is known of it: its record is lost, and its file
    /// is all there is to make it from again.
    pub(crate) fn is_seen(&self, digest: &Digest) -> Result<bool> {
        self.inner.meta.read(|view| {
            let (namespaces, damaged) = view.scan_sound(&schema::NAMESPACES, &())?;
            let mut keys = namespaces.into_iter().map(|(ns, _)| (ns, digest.clone()));
            let has = |key| !matches!(view.get(&schema::BLOB_LINKS, &key), Ok(None));
            Ok::<_, Error>(!damaged.is_empty() || keys.any(has))
        })
    }

    fn sweep_ingests(&self, now: Timestamp) -> Result<u64> {
        let (records, damaged): (Vec<((Namespace, IngestRef), IngestRecord)>, _) = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan_sound(&schema::INGESTS, &())?))?;
        if told(&damaged) {
            return Ok(0);
        }
        let mut alive = HashSet::new();
        let mut dead = Vec::new();
        for (key, record) in records {
            let id = record.id;
            let info = self.describe(key.1.clone(), record)?;
            if now.0.saturating_sub(info.updated_at.0) > INGEST_NANOS_MAX {
                dead.push(key);
            } else {
                alive.insert(id.to_string());
            }
        }
        if !dead.is_empty() {
            self.inner.meta.write(move |tx| {
                for key in &dead {
                    tx.delete(&schema::INGESTS, key)?;
                }
                Ok::<_, Error>(())
            })?;
        }
        let mut removed = 0;
        let dir = &self.inner.ingests;
        for entry in dir.entries().map_err(sys("sweep ingests"))? {
            if entry.name.to_str().is_some_and(|name| alive.contains(name)) {
                continue;
            }
            removed += remove(dir, &entry.name);
        }
        Ok(removed)
    }
}

/// Says which records are damaged, if any. Then nothing is swept: any file may be the one that such a
/// record speaks of.
fn told(damaged: &[cairn_meta::Error]) -> bool {
    for err in damaged {
        tracing::error!("{err}");
    }
    !damaged.is_empty()
}

/// Removes a leftover and counts it. One that cannot be removed is no reason not to open the store:
/// the next sweep tries again.
fn remove(dir: &Dir, name: &OsStr) -> u64 {
    match dir.remove_tree(name) {
        Ok(()) => 1,
        Err(err) => {
            tracing::warn!("remove what a crash left: {err}");
            0
        }
    }
}
