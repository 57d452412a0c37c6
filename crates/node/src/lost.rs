//! What is on the disk of a store that has lost records.
//!
//! ```text
//! <root>/lost/<when>/blobs/       files among the blobs that are no blobs
//!                    ingest/      uploads that no record speaks of
//!                    snapshots/   directories of snapshots that no record speaks of
//! ```
//!
//! A file without a record is litter in a store that has all its records. In one that has lost some it may be
//! what they spoke of, and all that is left of it. So before anything is swept, blobs get records again, in a
//! namespace of their own, and what cannot be known is put by, for whoever knows it. Nothing is removed.

use std::{collections::HashSet, ffi::OsStr};

use cairn_content::Content;
use cairn_meta::{Rebuilt, Store};
use cairn_snapshot::Snapshots;
use cairn_sys::Dir;
use cairn_types::{Classified, Digest, Labels, Namespace};

use crate::{Failure, Node, failure::size};

/// Where what cannot be known is put by.
pub(crate) const LOST: &str = "lost";
/// The namespace that sees the blobs whose records were lost.
const RECOVERED: &str = "recovered";
/// What it holds is not collected (containerd `core/metadata`).
const ROOT: &str = "containerd.io/gc.root";

/// The rooms of a store that is being opened.
pub(crate) struct Rooms<'r> {
    pub(crate) root: &'r Dir,
    pub(crate) meta: &'r Store,
    pub(crate) content: &'r Content,
    pub(crate) snapshots: &'r Snapshots,
}

impl Rooms<'_> {
    /// Looks for what the records may not know of, if there may be anything. Whether what no record speaks of
    /// is litter from here on; where that cannot be found out the store is opened all the same, and the next
    /// opening looks again.
    pub(crate) fn find_lost(&self) -> bool {
        let found = self.doubt().and_then(|()| match self.meta.is_unsettled() {
            true => self.find(),
            false => Ok(()),
        });
        match found {
            Ok(()) => true,
            Err(failure) => {
                tracing::error!(causes = failure.causes.join(": "), "{failure}");
                !self.meta.is_unsettled()
            }
        }
    }

    fn doubt(&self) -> Result<(), Failure> {
        let doubted = self.content.doubt_unread(&recovered()?);
        doubted.map_err(|err| failed(&err))
    }

    fn find(&self) -> Result<(), Failure> {
        let now = jiff::Timestamp::now();
        let place = format!("{LOST}/{}", now.strftime("%Y%m%dT%H%M%SZ"));
        let make = |room: &str| {
            let whole = format!("{place}/{room}");
            self.root.create_dir_all_open(&whole, 0o700)
        };
        // The other one is tried as well where one fails: both begin with numbers that nobody may be given.
        let snapshots = self.snapshots.put_aside(&mut || make("snapshots"));
        let labels = Labels::from([(ROOT.to_owned(), now.to_string())]);
        let adopted = self
            .content
            .adopt(&recovered()?, &labels, &mut |room| make(room));
        let snapshots = snapshots.map_err(|err| failed(&err))?;
        let adopted = adopted.map_err(|err| failed(&err))?;
        let mut found = Vec::new();
        if adopted.blobs > 0 {
            let (blobs, are) = counted(adopted.blobs, "blob", "blobs");
            let bytes = size(adopted.bytes);
            found.push(format!(
                "{blobs} of {bytes} {are} in the namespace {RECOVERED}"
            ));
        }
        for (count, one, many) in [
            (
                snapshots,
                "directory of a snapshot",
                "directories of snapshots",
            ),
            (adopted.ingests, "upload", "uploads"),
            (
                adopted.others,
                "file that is no blob",
                "files that are no blobs",
            ),
        ] {
            if count > 0 {
                let (what, are) = counted(count, one, many);
                found.push(format!("{what} {are} in {place}"));
            }
        }
        for line in &found {
            tracing::error!("records were lost: {line}");
        }
        self.meta.settle(found).map_err(|err| failed(&err))
    }
}

/// `1 blob` and `is`, `2 blobs` and `are`.
fn counted(count: u64, one: &str, many: &str) -> (String, &'static str) {
    match count {
        1 => (format!("1 {one}"), "is"),
        _ => (format!("{count} {many}"), "are"),
    }
}

fn failed(err: &dyn Classified) -> Failure {
    Failure::of("look for what the lost records spoke of", err)
}

fn recovered() -> Result<Namespace, Failure> {
    Namespace::parse(RECOVERED).map_err(|err| failed(&err))
}

impl Node {
    /// What became of records that were destroyed, for as long as anything is there that was put by then.
    pub fn rebuilt(&self) -> Option<Rebuilt> {
        let rebuilt = self.meta().rebuilt()?;
        let kept = !rebuilt.aside.is_empty() || self.has_lost() || self.has_recovered();
        kept.then_some(rebuilt)
    }

    fn has_lost(&self) -> bool {
        let lost = self.inner.dir.open_dir(OsStr::new(LOST));
        let entries = lost.and_then(|dir| dir.entries());
        entries.is_ok_and(|entries| !entries.is_empty())
    }

    fn has_recovered(&self) -> bool {
        let Ok(ns) = recovered() else {
            return false;
        };
        let blobs = self.content().list(&ns);
        blobs.is_ok_and(|blobs| !blobs.is_empty())
    }

    /// The blobs that nobody has read since their records were lost.
    pub(crate) fn unread_blobs(&self) -> Result<HashSet<Digest>, Failure> {
        let unread = self.content().unread(&recovered()?);
        unread.map_err(|err| failed(&err))
    }

    /// One of them was read.
    pub(crate) fn has_read(&self, digest: &Digest) -> Result<(), Failure> {
        let noted = self.content().has_read(&recovered()?, digest);
        noted.map_err(|err| failed(&err))
    }
}

/// What became of records, in one sentence.
pub(crate) fn told(rebuilt: &Rebuilt) -> String {
    let at = jiff::Timestamp::from_nanosecond(i128::from(rebuilt.at)).unwrap_or_default();
    let lost = match rebuilt.lost.is_empty() {
        true => "nothing is lost".to_owned(),
        false => format!("lost: {}", rebuilt.lost.join(", ")),
    };
    let mut text = format!(
        "{} records were made anew at {} ({}); {lost}",
        rebuilt.records,
        at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        rebuilt.reason
    );
    if !rebuilt.found.is_empty() {
        text += "; found: ";
        text += &rebuilt.found.join(", ");
    }
    if !rebuilt.aside.is_empty() {
        text += "; the damaged ones are in ";
        let places = rebuilt.aside.iter().map(|name| format!("meta/{name}"));
        text += &places.collect::<Vec<_>>().join(", ");
    }
    text
}
