//! Uploads that belong to one process: the parts of an import and the
//! layers of a diff, which nobody can resume.
//!
//! A process that dies leaves them, and content keeps every upload for a day, since a client may come
//! back for its own. Nobody comes back for these: whoever holds the lock on the root knows that the
//! process is gone, so opening the store throws them away.

use std::sync::atomic::{AtomicU64, Ordering};

use cairn_meta::{View, schema};
use cairn_types::{IngestRef, NameError, Namespace};

use crate::{Failure, Node};

/// What only names of this kind begin with.
const PREFIX: &str = "cairn.import-";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A name that no other upload has.
pub(crate) fn name() -> Result<IngestRef, NameError> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    IngestRef::parse(&format!("{PREFIX}{}-{number}", std::process::id()))
}

impl Node {
    /// Throws away what processes that are gone were importing. For the time between opening and
    /// first use.
    ///
    /// On a full disk, where even that cannot be written down, the store is opened all the same: it
    /// can be read, and the next opening tries again.
    pub(crate) fn sweep_uploads(&self) -> Result<(), Failure> {
        let read = self
            .meta()
            .read(|view| view.scan_sound(&schema::INGESTS, &()));
        let left: Vec<(Namespace, IngestRef)> = read
            .map_err(|err| Failure::of("open", &err).object("store", self.root().display()))?
            .0
            .into_iter()
            .map(|(key, _)| key)
            .filter(|(_, reference)| reference.as_str().starts_with(PREFIX))
            .collect();
        for (ns, reference) in left {
            if let Err(err) = self.content().abort(&ns, &reference) {
                tracing::warn!("throw away upload {reference} of {ns}: {err}");
            }
        }
        Ok(())
    }
}
