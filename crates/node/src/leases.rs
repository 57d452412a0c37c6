//! Leases: what a client is using now, and must not be collected meanwhile.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cairn_meta::{LeaseRecord, Timestamp, Tx, View, schema};
use cairn_types::{
    Digest, ErrorKind, ImageName, IngestRef, Labels, LeaseId, Namespace, SnapshotKey,
};

use crate::{Failure, Node, gc::expiry};

/// A lease as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its name.
    pub id: LeaseId,
    /// Its labels.
    pub labels: Labels,
    /// When it was made.
    pub created_at: Timestamp,
}

impl LeaseInfo {
    /// How long until it ends by itself: nothing when its time is over, `None` when it has no end.
    pub fn left(&self) -> Option<Duration> {
        let left = expiry(&self.labels)? - i128::from(Timestamp::now().0);
        let left = u64::try_from(left.max(0)).unwrap_or(u64::MAX);
        Some(Duration::from_nanos(left))
    }
}

impl Node {
    /// Makes a lease; without an id one is made up. Its namespace is there from then on, as it is for
    /// whatever else is made in one.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub fn lease_create(
        &self,
        ns: &Namespace,
        id: Option<LeaseId>,
        mut labels: Labels,
    ) -> Result<LeaseInfo, Failure> {
        labels.retain(|_, value| !value.is_empty());
        let id = match id {
            Some(id) => id,
            None => made_up(ns)?,
        };
        let info = LeaseInfo {
            id,
            labels,
            created_at: Timestamp::now(),
        };
        let (key, made) = ((ns.clone(), info.id.clone()), info.clone());
        let written = self.meta().write(move |tx: &mut Tx| {
            if tx.get(&schema::LEASES, &key)?.is_some() {
                return Ok(false);
            }
            tx.use_namespace(&key.0)?;
            let record = LeaseRecord {
                labels: made.labels,
                created_at: made.created_at,
            };
            tx.put(&schema::LEASES, &key, &record)?;
            Ok::<_, cairn_meta::Error>(true)
        });
        match written {
            Ok(true) => Ok(info),
            Ok(false) => {
                Err(
                    Failure::new(ErrorKind::AlreadyExists, "create lease", "already exists")
                        .object("lease", info.id)
                        .namespace(ns),
                )
            }
            Err(err) => Err(Failure::of("create lease", &err).object("lease", info.id)),
        }
    }

    /// Removes a lease; what it alone held is collected at the next run.
    pub fn lease_delete(&self, ns: &Namespace, id: &LeaseId) -> Result<(), Failure> {
        let key = (ns.clone(), id.clone());
        let written = self.meta().write(move |tx: &mut Tx| {
            let known = tx.get(&schema::LEASES, &key)?.is_some();
            for (resource, ()) in tx.scan(&schema::LEASE_RESOURCES, &key)? {
                tx.delete(&schema::LEASE_RESOURCES, &resource)?;
            }
            tx.delete(&schema::LEASES, &key)?;
            Ok::<_, cairn_meta::Error>(known)
        });
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(missing("remove lease", ns, id)),
            Err(err) => Err(Failure::of("remove lease", &err).object("lease", id)),
        }
    }

    /// A lease by its id, as a caller says it.
    ///
    /// # Errors
    /// `NotFound`, also when nothing can have that id.
    pub fn lease(&self, ns: &Namespace, id: &str) -> Result<LeaseInfo, Failure> {
        let attempted = "look up lease";
        let absent = || {
            Failure::new(ErrorKind::NotFound, attempted, "not found")
                .object("lease", id)
                .namespace(ns)
        };
        let parsed = LeaseId::parse(id).map_err(|_| absent())?;
        let key = (ns.clone(), parsed.clone());
        let read = self.meta().read(|view| view.get(&schema::LEASES, &key));
        let record = read
            .map_err(|err: cairn_meta::Error| Failure::of(attempted, &err).object("lease", id))?;
        let record = record.ok_or_else(absent)?;
        Ok(LeaseInfo {
            id: parsed,
            labels: record.labels,
            created_at: record.created_at,
        })
    }

    /// All leases of a namespace by id.
    pub fn leases(&self, ns: &Namespace) -> Result<Vec<LeaseInfo>, Failure> {
        let read = self.meta().read(|view| view.scan(&schema::LEASES, ns));
        let records = read.map_err(|err| Failure::of("list leases", &err).namespace(ns))?;
        let info = |((_, id), record): ((Namespace, LeaseId), LeaseRecord)| LeaseInfo {
            id,
            labels: record.labels,
            created_at: record.created_at,
        };
        Ok(records.into_iter().map(info).collect())
    }

    /// Makes a lease hold (or with `hold` false let go of) something by its type and id. Whether that
    /// exists is not asked.
    pub fn lease_resource(
        &self,
        ns: &Namespace,
        lease: &LeaseId,
        (kind, id): (&str, &str),
        hold: bool,
    ) -> Result<(), Failure> {
        let attempted = if hold {
            "add to lease"
        } else {
            "remove from lease"
        };
        check_resource(kind, id).map_err(|(kind, reason)| {
            Failure::new(kind, attempted, reason).object("lease", lease)
        })?;
        let key = (ns.clone(), lease.clone());
        let resource = (ns.clone(), lease.clone(), kind.to_owned(), id.to_owned());
        let written = self.meta().write(move |tx: &mut Tx| {
            if tx.get(&schema::LEASES, &key)?.is_none() {
                return Ok(false);
            }
            match hold {
                true => tx.put(&schema::LEASE_RESOURCES, &resource, &())?,
                false => tx.delete(&schema::LEASE_RESOURCES, &resource)?,
            }
            Ok::<_, cairn_meta::Error>(true)
        });
        match written {
            Ok(true) => Ok(()),
            Ok(false) => Err(missing(attempted, ns, lease)),
            Err(err) => Err(Failure::of(attempted, &err).object("lease", lease)),
        }
    }

    /// Type and id of what a lease holds: content, images, ingests, snapshots, each by id.
    pub fn lease_resources(
        &self,
        ns: &Namespace,
        lease: &LeaseId,
    ) -> Result<Vec<(String, String)>, Failure> {
        let key = (ns.clone(), lease.clone());
        let read = self.meta().read(|view| {
            if view.get(&schema::LEASES, &key)?.is_none() {
                return Ok(None);
            }
            view.scan(&schema::LEASE_RESOURCES, &key).map(Some)
        });
        let held = read.map_err(|err: cairn_meta::Error| {
            Failure::of("list resources of lease", &err).object("lease", lease)
        })?;
        let held = held.ok_or_else(|| missing("list resources of lease", ns, lease))?;
        Ok(held
            .into_iter()
            .map(|((_, _, kind, id), ())| (kind, id))
            .collect())
    }
}

/// As containerd checks them (`core/metadata/leases.go`).
fn check_resource(kind: &str, id: &str) -> Result<(), (ErrorKind, String)> {
    let invalid = |reason: String| Err((ErrorKind::InvalidArgument, reason));
    let (base, rest) = match kind.split_once('/') {
        Some((base, rest)) => (base, Some(rest)),
        None => (kind, None),
    };
    let named = match (base, rest) {
        ("content", None) => Digest::parse(id).map(drop).map_err(|err| err.to_string()),
        ("ingests", None) => IngestRef::parse(id)
            .map(drop)
            .map_err(|err| err.to_string()),
        ("images", None) => ImageName::parse(id)
            .map(drop)
            .map_err(|err| err.to_string()),
        ("snapshots", Some(snapshotter))
            if !snapshotter.is_empty() && !snapshotter.contains('/') =>
        {
            SnapshotKey::parse(id)
                .map(drop)
                .map_err(|err| err.to_string())
        }
        ("content" | "ingests" | "images" | "snapshots", _) => {
            return invalid(format!("invalid resource type {kind:?}"));
        }
        _ => {
            let reason = format!("resource type {kind:?} is not supported");
            return Err((ErrorKind::Unimplemented, reason));
        }
    };
    named.or_else(invalid)
}

/// As containerd makes ids up: the nanoseconds of the time, and four characters at random.
fn made_up(ns: &Namespace) -> Result<LeaseId, Failure> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let failed =
        |reason: String| Failure::new(ErrorKind::Internal, "create lease", reason).namespace(ns);
    let mut bytes = [0; 4];
    let mut filled = 0;
    while filled < bytes.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)
            .map_err(|err| failed(err.to_string()))?;
    }
    let random: String = bytes
        .iter()
        .map(|b| char::from(ALPHABET[usize::from(b & 63)]))
        .collect();
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let nanos = since.subsec_nanos();
    LeaseId::parse(&format!("{nanos}-{random}")).map_err(|err| failed(err.to_string()))
}

fn missing(attempted: &str, ns: &Namespace, id: &LeaseId) -> Failure {
    Failure::new(ErrorKind::NotFound, attempted, "not found")
        .object("lease", id)
        .namespace(ns)
}
