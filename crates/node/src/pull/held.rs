//! What a pull that breaks off leaves to the next one.
//!
//! Blobs that came are held by nothing before the image is recorded but by the pull's pins, which end with
//! it, and with the process. So a lease holds them, for a day, as containerd's clients have one for their
//! pulls; it goes when the image is there.

use std::{collections::HashSet, time::Duration};

use cairn_meta::{LeaseRecord, Timestamp, Tx, View, schema};
use cairn_types::{Digest, ErrorKind, ImageName, Labels, LeaseId, Namespace};

use super::ATTEMPTED;
use crate::{Caller, Failure, Node, Resource, gc::EXPIRE};

/// How long it is worth to wait for another try.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

impl Node {
    /// Holds what of `digests` the namespace does not have yet, by the caller's lease, or by one of the
    /// pull's own, which is returned. They need not be there: what is held cannot be collected between its
    /// coming and its being held.
    pub(super) fn hold_pull(
        &self,
        caller: &Caller,
        name: &ImageName,
        digests: &HashSet<Digest>,
    ) -> Result<Option<LeaseId>, Failure> {
        let mut missing = Vec::new();
        for digest in digests {
            if !self.has_blob(&caller.ns, digest)? {
                missing.push(Resource::Content(digest.clone()));
            }
        }
        if missing.is_empty() {
            return Ok(None);
        }
        let own = match caller.lease {
            Some(_) => None,
            None => Some(self.pull_lease(&caller.ns, name)?),
        };
        let holder = Caller {
            ns: caller.ns.clone(),
            lease: own
                .as_ref()
                .map(LeaseId::to_string)
                .or_else(|| caller.lease.clone()),
        };
        for resource in &missing {
            self.hold(&holder, resource)?;
        }
        Ok(own)
    }

    /// Makes the lease of the pulls of an image, or has the one that is there last longer.
    fn pull_lease(&self, ns: &Namespace, name: &ImageName) -> Result<LeaseId, Failure> {
        let hash = Digest::sha256(name.as_str().as_bytes());
        let id = LeaseId::parse(&format!("cairn.pull-{}", &hash.hex()[..16]));
        let id = id.map_err(|err| Failure::of(ATTEMPTED, &err).object("image", name))?;
        // Beyond the end of the calendar no pull is begun.
        let until = jiff::Timestamp::now().checked_add(KEPT);
        let until = until.unwrap_or(jiff::Timestamp::MAX);
        let labels = Labels::from([(EXPIRE.to_owned(), until.to_string())]);
        let key = (ns.clone(), id.clone());
        let written = self.meta().note(move |tx: &mut Tx| {
            let known = tx.get(&schema::LEASES, &key)?;
            let record = LeaseRecord {
                labels,
                created_at: known.map_or_else(Timestamp::now, |known| known.created_at),
            };
            tx.put(&schema::LEASES, &key, &record)
        });
        written.map_err(|err| Failure::of(ATTEMPTED, &err).object("image", name))?;
        Ok(id)
    }

    /// Lets go of what the image holds by now.
    pub(super) fn release_pull(&self, ns: &Namespace, lease: &LeaseId) {
        match self.lease_delete(ns, lease) {
            Ok(()) => {}
            // Another pull of the image was faster.
            Err(failure) if failure.kind == ErrorKind::NotFound => {}
            // It ends by itself.
            Err(failure) => tracing::warn!("{failure}"),
        }
    }
}
