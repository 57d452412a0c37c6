//! Blobs whose records are lost, recorded again by their files.
//!
//! A file says by its name what it should be. To read them all first could take hours, and a record must not
//! vouch for what nobody has read. So each is recorded with the length that it has, and counts as doubted until
//! somebody has read all of it: readers prove what they read anyhow, and whoever has its bytes is let bring them.

use std::{collections::HashSet, ffi::OsStr};

use cairn_meta::{BlobRecord, Timestamp, View, number_of, schema};
use cairn_sys::{Dir, FileType};
use cairn_types::{Algorithm, Digest, Labels, Namespace};

use crate::{Content, Error, Result, error::sys, links};

/// The label of a blob that was recorded by its file, and of which nobody has read every byte since.
pub const UNREAD: &str = "cairn/unread";
/// Blobs in one transaction.
const BATCH: usize = 256;

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Blobs that have a record again.
    pub blobs: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Files among the blobs that have no blob's name, or are none.
    pub others: u64,
    /// Uploads that no record speaks of.
    pub ingests: u64,
}

/// Gives the directory in which something is put by that no record speaks of: `blobs` or `ingest`. It is made
/// when something is.
pub type PutBy<'p> = dyn FnMut(&'static str) -> cairn_sys::Result<Dir> + 'p;

impl Content {
    /// Records every blob of which there is only the file, for `ns` to see with these labels and [`UNREAD`], and
    /// puts everything else by that no record speaks of. Removes nothing.
    ///
    /// For the time between opening and first use, instead of what [`Content::sweep`] would do. It may be cut
    /// short and begun again.
    pub fn adopt(
        &self,
        ns: &Namespace,
        labels: &Labels,
        put_by: &mut PutBy<'_>,
    ) -> Result<Adopted> {
        let mut adopted = Adopted::default();
        // Whatever becomes of the one, the other is tried.
        let uploads = self.put_uploads_by(&mut adopted, put_by);
        let mut batch = Vec::new();
        for (blobs, algorithm) in self.inner.blobs.iter().zip(Algorithm::ALL) {
            for entry in blobs.dir.entries().map_err(sys("look for blobs"))? {
                let text = format!("{}:{}", algorithm.name(), entry.name.to_string_lossy());
                let stat = blobs.dir.try_stat(&entry.name);
                let Some(stat) = stat.map_err(sys("look for blobs"))? else {
                    continue;
                };
                let is_file = FileType::from_raw_mode(stat.st_mode).is_file();
                match Digest::parse(&text).ok().filter(|_| is_file) {
                    Some(digest) => batch.push((digest, stat.st_size.unsigned_abs())),
                    None => {
                        adopted.others += 1;
                        let to = put_by("blobs").map_err(sys("put files by"))?;
                        move_aside(&blobs.dir, &entry.name, &to)?;
                    }
                }
                if batch.len() == BATCH {
                    self.record_unread(ns, labels, std::mem::take(&mut batch), &mut adopted)?;
                }
            }
        }
        self.record_unread(ns, labels, batch, &mut adopted)?;
        uploads.map(|()| adopted)
    }

    fn record_unread(
        &self,
        ns: &Namespace,
        labels: &Labels,
        files: Vec<(Digest, u64)>,
        adopted: &mut Adopted,
    ) -> Result<()> {
        let mut labels = labels.clone();
        labels.insert(UNREAD.to_owned(), "yes".to_owned());
        let ns = ns.clone();
        let recorded = self.inner.meta.write(move |tx| {
            let mut recorded = Vec::new();
            for (digest, size) in files {
                // What is damaged may say more than the file does.
                if !matches!(tx.get(&schema::BLOBS, &digest), Ok(None)) {
                    continue;
                }
                let created_at = Timestamp::now();
                tx.put(&schema::BLOBS, &digest, &BlobRecord { size, created_at })?;
                links::link_again(tx, &ns, &digest, labels.clone())?;
                recorded.push((digest, size));
            }
            Ok::<_, Error>(recorded)
        })?;
        for (digest, size) in recorded {
            adopted.blobs += 1;
            adopted.bytes += size;
            self.inner.doubts.add(&digest);
        }
        Ok(())
    }

    fn put_uploads_by(&self, adopted: &mut Adopted, put_by: &mut PutBy<'_>) -> Result<()> {
        let (records, damaged) = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan_sound(&schema::INGESTS, &())?))?;
        let dir = &self.inner.ingests;
        let entries = dir.entries().map_err(sys("look for uploads"))?;
        let named = entries
            .iter()
            .map(|it| number_of(&it.name.to_string_lossy()));
        let highest = named.chain(records.iter().map(|(_, it)| it.id)).max();
        let highest = highest.unwrap_or(0);
        // First of all: whoever was given the number of one would go on with its bytes.
        self.inner
            .meta
            .write(move |tx| Ok::<_, Error>(tx.skip_ids("ingest", highest)?))?;
        // Any may be the one that a damaged record speaks of. Until none is, what is lost is not known.
        if let Some(err) = damaged.into_iter().next() {
            return Err(err.into());
        }
        let known: HashSet<String> = records.iter().map(|(_, it)| it.id.to_string()).collect();
        for entry in entries {
            let name = entry.name.to_string_lossy();
            if known.contains(&*name) {
                continue;
            }
            adopted.ingests += 1;
            let to = put_by("ingest").map_err(sys("put uploads by"))?;
            move_aside(dir, &entry.name, &to)?;
        }
        Ok(())
    }

    /// The blobs of a namespace that nobody has read since they were recorded by their files.
    pub fn unread(&self, ns: &Namespace) -> Result<HashSet<Digest>> {
        let (links, damaged) = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.scan_sound(&schema::BLOB_LINKS, ns)?))?;
        for err in &damaged {
            tracing::error!("{err}");
        }
        let unread = links
            .into_iter()
            .filter(|(_, link)| link.labels.contains_key(UNREAD));
        Ok(unread.map(|((_, digest), _)| digest).collect())
    }

    /// Has these doubted as they were when the store was last used.
    pub fn doubt_unread(&self, ns: &Namespace) -> Result<()> {
        for digest in self.unread(ns)? {
            self.inner.doubts.add(&digest);
        }
        Ok(())
    }

    /// Somebody has read every byte of a blob, and they are right.
    pub fn has_read(&self, ns: &Namespace, digest: &Digest) -> Result<()> {
        let none = Labels::from([(UNREAD.to_owned(), String::new())]);
        self.update_labels(ns, digest, &none).map(drop)
    }
}

/// Moves something to where things are put by, durably.
fn move_aside(from: &Dir, name: &OsStr, to: &Dir) -> Result<()> {
    let moved = from
        .rename_noreplace(name, to, name)
        .and_then(|()| to.fsync())
        .and_then(|()| from.fsync());
    moved.map_err(sys(format!("put {} by", name.to_string_lossy())))
}
