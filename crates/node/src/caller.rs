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
}

impl Node {
    /// Makes the caller's lease hold `resource`, which need not be there yet: so a thing is held from
    /// the moment it exists. Nothing without a lease.
    ///
    /// # Errors
    /// `NotFound` when the lease does not exist.
    pub fn hold(&self, caller: &Caller, resource: &Resource) -> Result<(), Failure> {
        let Some(lease) = &caller.lease else {
            return Ok(());
        };
        let missing = || {
            Failure::new(ErrorKind::NotFound, "hold", "lease does not exist")
                .object("lease", lease)
                .namespace(&caller.ns)
        };
        let id = LeaseId::parse(lease).map_err(|_| missing())?;
        let ns = caller.ns.clone();
        let (kind, name) = resource.parts();
        let held = self.meta().write(move |tx: &mut Tx| {
            if tx
                .get(&schema::LEASES, &(ns.clone(), id.clone()))?
                .is_none()
            {
                return Ok(false);
            }
            tx.put(
                &schema::LEASE_RESOURCES,
                &(ns, id, kind.to_owned(), name),
                &(),
            )?;
            Ok::<_, cairn_meta::Error>(true)
        });
        match held {
            Ok(true) => Ok(()),
            Ok(false) => Err(missing()),
            Err(err) => Err(Failure::of("hold", &err).object("lease", lease)),
        }
    }

    /// Makes the caller's lease let go of `resource`. A lease or resource that is not there is none
    /// to let go of.
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
            .write(move |tx: &mut Tx| tx.delete(&schema::LEASE_RESOURCES, &key));
        written.map_err(|err| Failure::of("let go", &err).namespace(&caller.ns))
    }
}
