//! Who asks: the namespace, and the lease that is to hold what the call makes.

use cairn_meta::{Tx, View, schema};
use cairn_types::{Digest, ErrorKind, ImageName, IngestRef, LeaseId, Namespace, SnapshotKey};

use crate::{Failure, Node};

/// What a call of the API carries beside its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Whose objects.
    pub ns: Namespace,
    /// The lease's name as it was sent: one that cannot exist is missed when it is needed, not before.
    pub lease: Option<String>,
}

/// Something that a lease can hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// A blob.
    Content(Digest),
    /// An upload.
    Ingest(IngestRef),
    /// An image.
    Image(ImageName),
    /// A snapshot of ours.
    Snapshot(SnapshotKey),
}

impl Resource {
    /// Type and id, as the API has them.
    pub fn parts(&self) -> (&'static str, String) {
        match self {
            Resource::Content(digest) => ("content", digest.to_string()),
            Resource::Ingest(reference) => ("ingests", reference.to_string()),
            Resource::Image(name) => ("images", name.to_string()),
            Resource::Snapshot(key) => ("snapshots/overlayfs", key.to_string()),
        }
    }
}

impl Caller {
    /// A caller without a lease.
    pub fn of(ns: Namespace) -> Caller {
        Caller { ns, lease: None }
    }

    /// Makes the caller's lease, if any, hold `resource` as part of a transaction; `false` when there
    /// is no such lease.
    pub(crate) fn hold_in(
        &self,
        tx: &mut Tx<'_>,
        resource: &Resource,
    ) -> Result<bool, cairn_meta::Error> {
        let Some(lease) = &self.lease else {
            return Ok(true);
        };
        let Ok(id) = LeaseId::parse(lease) else {
            return Ok(false);
        };
        let lease = (self.ns.clone(), id);
        if tx.get(&schema::LEASES, &lease)?.is_none() {
            return Ok(false);
        }
        let (kind, name) = resource.parts();
        let held = (lease.0, lease.1, kind.to_owned(), name);
        if tx.get(&schema::LEASE_RESOURCES, &held)?.is_none() {
            tx.put(&schema::LEASE_RESOURCES, &held, &())?;
        }
        Ok(true)
    }
}

impl Node {
    /// Makes the caller's lease hold `resource`, which need not be there yet: so a thing is held from
    /// the moment it exists. Nothing without a lease. A power cut can undo it only with all changes
    /// after it, so what is made afterwards and is on the disk is held there, too.
    ///
    /// # Errors
    /// `NotFound` when the lease does not exist.
    pub fn hold(&self, caller: &Caller, resource: &Resource) -> Result<(), Failure> {
        let Some(lease) = &caller.lease else {
            return Ok(());
        };
        let (holder, wanted) = (caller.clone(), resource.clone());
        let held = self
            .meta()
            .note(move |tx: &mut Tx| holder.hold_in(tx, &wanted));
        match held {
            Ok(true) => Ok(()),
            Ok(false) => Err(no_lease(caller, lease)),
            Err(err) => Err(Failure::of("hold", &err).object("lease", lease)),
        }
    }

    /// Whether `resource` is there; if so the caller's lease holds it. Both in
    /// one transaction, so that no collection comes between.
    ///
    /// # Errors
    /// `NotFound` when it is there and the lease does not exist.
    pub fn hold_if_there(&self, caller: &Caller, resource: &Resource) -> Result<bool, Failure> {
        let failed = |err: &cairn_meta::Error| Failure::of("hold", err).namespace(&caller.ns);
        let (ns, wanted) = (caller.ns.clone(), resource.clone());
        let Some(lease) = &caller.lease else {
            let there = self.meta().read(|view| is_there(view, ns, wanted));
            return there.map_err(|err| failed(&err));
        };
        let holder = caller.clone();
        let held = self.meta().write(move |tx: &mut Tx| {
            if !is_there(tx, ns, wanted.clone())? {
                return Ok(Some(false));
            }
            Ok::<_, cairn_meta::Error>(holder.hold_in(tx, &wanted)?.then_some(true))
        });
        match held {
            Ok(Some(there)) => Ok(there),
            Ok(None) => Err(no_lease(caller, lease)),
            Err(err) => Err(failed(&err).object("lease", lease)),
        }
    }

    /// Makes the caller's lease let go of `resource`, which is gone already: a lease that a power cut
    /// makes hold it again holds nothing. A lease or resource that is not there is none to let go of.
    pub fn let_go(&self, caller: &Caller, resource: &Resource) -> Result<(), Failure> {
        let Some(id) = caller
            .lease
            .as_ref()
            .and_then(|lease| LeaseId::parse(lease).ok())
        else {
            return Ok(());
        };
        let (kind, name) = resource.parts();
        let key = (caller.ns.clone(), id, kind.to_owned(), name);
        let written = self
            .meta()
            .note(move |tx: &mut Tx| tx.delete(&schema::LEASE_RESOURCES, &key));
        written.map_err(|err| Failure::of("let go", &err).namespace(&caller.ns))
    }
}

pub(crate) fn no_lease(caller: &Caller, lease: &str) -> Failure {
    Failure::new(ErrorKind::NotFound, "hold", "lease does not exist")
        .object("lease", lease)
        .namespace(&caller.ns)
}

fn is_there(
    view: &impl View,
    ns: Namespace,
    resource: Resource,
) -> Result<bool, cairn_meta::Error> {
    Ok(match resource {
        Resource::Content(digest) => view.get(&schema::BLOB_LINKS, &(ns, digest))?.is_some(),
        Resource::Snapshot(key) => view.get(&schema::SNAPSHOTS, &(ns, key))?.is_some(),
        Resource::Image(name) => view.get(&schema::IMAGES, &(ns, name))?.is_some(),
        Resource::Ingest(reference) => view.get(&schema::INGESTS, &(ns, reference))?.is_some(),
    })
}
