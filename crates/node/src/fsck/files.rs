//! Files: of blobs, of snapshots, and of nobody.

use std::{collections::HashSet, thread, time::Duration};

use cairn_content::Flaw;
use cairn_meta::{Error, View, schema};
use cairn_types::{Digest, SnapshotKind};

use super::{Check, Finding, Severity, images::flag, records::Records, trees::Ordered};
use crate::{Failure, objects::word};

/// A file without record is looked at so many times, with so much time between: what is on its way in or
/// out has somebody at work on it, who needs a moment.
pub(crate) const LOOKS: u32 = 10;
pub(crate) const BETWEEN: Duration = Duration::from_millis(50);

/// What blobs are called in what is told of the progress.
const BLOBS: &str = "blobs";

impl Check<'_> {
    /// Every recorded blob's file: there, as long as it should be, and with `deep` its bytes.
    pub(super) fn blobs(&mut self, records: &Records) -> Result<(), Failure> {
        let deep = self.request.deep;
        let total = records.blobs.values().sum();
        let mut before = 0;
        let unread = self.node.unread_blobs()?;
        if deep {
            self.watcher.progress(BLOBS, 0, total);
        }
        for (digest, size) in &records.blobs {
            self.go_on()?;
            // Of documents that could not be read before it is not known why, and who else has met wrong bytes
            // is worth to be asked after.
            let suspect =
                self.needed.suspects.contains(digest) || self.node.content().is_doubted(digest);
            let flaw = match deep || suspect {
                true => {
                    let mut done = 0;
                    let watcher = self.watcher;
                    let content = self.node.content();
                    let flaw = content.examine(digest, self.caching, &mut |read| {
                        done += read;
                        if deep {
                            watcher.progress(BLOBS, before + done.min(*size), total);
                        }
                        watcher.has_read(read)
                    });
                    self.report.bytes += done;
                    flaw
                }
                false => self.node.content().glance(digest),
            };
            self.go_on()?;
            match flaw.map_err(|err| self.failed(&err))? {
                Some(flaw) => self.flawed(digest, &flaw),
                None if (deep || suspect) && unread.contains(digest) => self.proven(digest),
                None => {}
            }
            before += size;
            if deep {
                self.watcher.progress(BLOBS, before, total);
            }
        }
        Ok(())
    }

    /// One whose record was lost is as good as any other from here on.
    pub(super) fn proven(&self, digest: &Digest) {
        if let Err(failure) = self.node.has_read(digest) {
            tracing::warn!("note that blob {digest} was read: {failure}");
        }
    }

    pub(super) fn flawed(&mut self, digest: &Digest, flaw: &Flaw) {
        let (severity, kind) = match flaw {
            Flaw::Missing => (Severity::Loss, "blob-missing"),
            Flaw::NotAFile => (Severity::Damage, "blob-no-file"),
            Flaw::Length { .. } => (Severity::Damage, "blob-length"),
            Flaw::Bytes(_) => (Severity::Damage, "blob-bytes"),
            Flaw::Unreadable(_) => (Severity::Damage, "blob-unreadable"),
        };
        let finding = Finding::new(severity, kind, "blob", digest, flaw.to_string());
        let finding = finding.at(format!("content/blobs/{}", file_of(digest)));
        let finding = self.about_blob(finding, digest);
        let finding = match self.request.repair {
            true => self.mend_blob(finding, digest),
            // As long as it lies there, only who has read it knows that its bytes are to be brought again.
            false if matches!(flaw, Flaw::Bytes(_)) => finding.first("cairn fsck --deep --repair"),
            false => finding,
        };
        self.found(finding);
    }

    /// Whether every snapshot's directories are there.
    pub(super) fn snapshots(&mut self, order: &[Ordered<'_>]) -> Result<(), Failure> {
        for one in order {
            self.go_on()?;
            let Some((kind, missing)) = self.lacking(one)? else {
                if self.node.snapshots().is_unproven(one.record) && self.kind(one)?.is_some() {
                    self.torn(one);
                }
                continue;
            };
            let (ns, key) = (one.ns, one.key);
            let detail = format!("its directory {missing} is missing");
            let remove = format!("cairn{} snapshots rm {}", flag(ns), word(key.as_str()));
            let finding = Finding::new(Severity::Loss, "snapshot-missing", "snapshot", key, detail)
                .within(ns)
                .at(format!("snapshots/{missing}"));
            let finding = match kind {
                SnapshotKind::Committed => self.about_layer(finding, key),
                SnapshotKind::Active => finding
                    .meaning("what was written in it is lost")
                    .next(remove),
                SnapshotKind::View => finding
                    .meaning("it cannot be mounted; nothing of it is lost")
                    .next(remove),
            };
            let finding = match (self.request.repair, kind) {
                (true, SnapshotKind::Committed) => match self.rebuild(one, None) {
                    Ok(()) => finding.mended("unpacked again from its layer"),
                    Err(reason) => finding.left(reason),
                },
                _ => finding,
            };
            self.found(finding);
        }
        Ok(())
    }

    /// What a snapshot is, and which of its directories is missing.
    fn lacking(&self, one: &Ordered<'_>) -> Result<Option<(SnapshotKind, String)>, Failure> {
        let id = one.record.id;
        let lacks = |kind| {
            let lacks = self.node.snapshots().lacks(id, kind);
            lacks.map_err(|err| self.failed(&err))
        };
        if lacks(one.record.kind)?.is_none() {
            return Ok(None);
        }
        // Its files go after its record: one that is still there has them, unless it went between the two
        // looks.
        let Some(kind) = self.kind(one)? else {
            return Ok(None);
        };
        let Some(missing) = lacks(kind)? else {
            return Ok(None);
        };
        Ok(self.kind(one)?.map(|kind| (kind, missing)))
    }

    /// What a snapshot is now; `None` when it is gone, or another.
    pub(super) fn kind(&self, one: &Ordered<'_>) -> Result<Option<SnapshotKind>, Failure> {
        let key = (one.ns.clone(), one.key.clone());
        let look = |view: &cairn_meta::Reader<'_>| view.get(&schema::SNAPSHOTS, &key);
        let read = self.node.meta().read(look);
        let known = read.map_err(|err: Error| self.failed(&err))?;
        let known = known.filter(|known| known.id == one.record.id);
        Ok(known.map(|known| known.kind))
    }

    /// Files that no record speaks of, nor is about to.
    pub(super) fn strays(&mut self, records: &Records) -> Result<(), Failure> {
        // What nobody's record speaks of is of no namespace.
        if self.doubtful || self.request.namespace.is_some() {
            return Ok(());
        }
        // It may be what lost records spoke of: the next opening records it, or puts it by.
        if self.node.meta().is_unsettled() {
            return Ok(());
        }
        let content = self.node.content().clone();
        let mut files = content.strays().map_err(|err| self.failed(&err))?;
        // Of those the record is lost, and not the use.
        let seen: HashSet<String> = records.links.keys().map(file_of).collect();
        files.retain(|file| !seen.contains(file));
        let snapshots = self.node.snapshots().clone();
        let mut directories = snapshots.strays().map_err(|err| self.failed(&err))?;
        for _ in 1..LOOKS {
            if files.is_empty() && directories.is_empty() {
                return Ok(());
            }
            self.go_on()?;
            thread::sleep(BETWEEN);
            let mut still = Vec::new();
            for file in files {
                if content.is_stray(&file).map_err(|err| self.failed(&err))? {
                    still.push(file);
                }
            }
            files = still;
            if !directories.is_empty() {
                let again = snapshots.strays().map_err(|err| self.failed(&err))?;
                directories.retain(|name| again.contains(name));
            }
        }
        for file in files {
            let finding = stray("file-unrecorded", "file", format!("content/blobs/{file}"));
            let finding = match self.request.repair {
                false => finding,
                true => match content.remove_stray(&file) {
                    Ok(true) => finding.mended("removed"),
                    Ok(false) => continue,
                    Err(err) => finding.left(err.to_string()),
                },
            };
            self.found(finding);
        }
        for name in directories {
            let finding = stray(
                "directory-unrecorded",
                "directory",
                format!("snapshots/{name}"),
            );
            let finding = match self.request.repair {
                false => finding,
                true => match snapshots.remove_stray(&name) {
                    Ok(()) => finding.mended("removed"),
                    Err(err) => finding.left(err.to_string()),
                },
            };
            self.found(finding);
        }
        Ok(())
    }
}

/// Where a blob is below `content/blobs`.
fn file_of(digest: &Digest) -> String {
    format!("{}/{}", digest.algorithm().name(), digest.hex())
}

fn stray(kind: &'static str, object: &'static str, path: String) -> Finding {
    Finding::new(
        Severity::Litter,
        kind,
        object,
        &path,
        "no record speaks of it",
    )
    .at(path)
    .meaning("it takes room; the next start of the server removes it")
    .next("cairn fsck --repair")
}
