//! Namespaces: separate views of one store. One exists as soon as anything is in it; a record is
//! needed for its labels only.

use std::collections::{BTreeMap, HashMap};

use cairn_meta::{NamespaceRecord, Tx, View, schema};
use cairn_types::{ErrorKind, Labels, Namespace, merge_labels, validate_label};

use crate::{
    Failure, Node,
    events::{Event, What},
};

/// A namespace, with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceInfo {
    /// Its name.
    pub name: Namespace,
    /// Of its record; none when it has none.
    pub labels: Labels,
    /// Images.
    pub images: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Bytes of the blobs that it sees, which others may see, too.
    pub size: u64,
}

impl Node {
    /// All namespaces that hold anything or have a record, by name.
    pub fn namespace_list(&self) -> Result<Vec<NamespaceInfo>, Failure> {
        let attempted = "list namespaces";
        let none = |name: Namespace| NamespaceInfo {
            name,
            labels: Labels::new(),
            images: 0,
            snapshots: 0,
            size: 0,
        };
        let all = self.namespaces()?.into_iter();
        let mut all: BTreeMap<Namespace, NamespaceInfo> =
            all.map(|name| (name.clone(), none(name))).collect();
        let read = self.meta().read(|view| {
            // What came meanwhile is in the next list.
            for (ns, record) in view.scan(&schema::NAMESPACES, &())? {
                if let Some(info) = all.get_mut(&ns) {
                    info.labels = record.labels;
                }
            }
            for ((ns, _), _) in view.scan(&schema::IMAGES, &())? {
                if let Some(info) = all.get_mut(&ns) {
                    info.images += 1;
                }
            }
            for ((ns, _), _) in view.scan(&schema::SNAPSHOTS, &())? {
                if let Some(info) = all.get_mut(&ns) {
                    info.snapshots += 1;
                }
            }
            let blobs = view.scan(&schema::BLOBS, &())?.into_iter();
            let sizes: HashMap<_, _> = blobs.map(|(digest, blob)| (digest, blob.size)).collect();
            for ((ns, digest), _) in view.scan(&schema::BLOB_LINKS, &())? {
                if let Some(info) = all.get_mut(&ns) {
                    info.size += sizes.get(&digest).copied().unwrap_or_default();
                }
            }
            Ok::<_, cairn_meta::Error>(())
        });
        read.map_err(|err| Failure::of(attempted, &err))?;
        Ok(all.into_values().collect())
    }

    /// The labels of a namespace; none of one that does not exist, as containerd answers.
    pub fn namespace_labels(&self, ns: &Namespace) -> Result<Labels, Failure> {
        let read = self.meta().read(|view| view.get(&schema::NAMESPACES, ns));
        let record = read.map_err(|err| failed("get", ns, &err))?;
        Ok(record.unwrap_or_default().labels)
    }

    /// Makes a namespace with labels.
    ///
    /// # Errors
    /// `AlreadyExists`, also when something made it exist; `InvalidArgument` for a label's length.
    pub fn namespace_create(&self, ns: &Namespace, labels: Labels) -> Result<(), Failure> {
        check(ns, "create", &labels)?;
        if self.namespaces()?.contains(ns) {
            return Err(Failure::new(
                ErrorKind::AlreadyExists,
                "create namespace",
                "already exists",
            )
            .object("namespace", ns));
        }
        let record = NamespaceRecord {
            labels: without_empty(labels),
        };
        let (key, stored) = (ns.clone(), record.clone());
        let written = self
            .meta()
            .write(move |tx: &mut Tx| tx.put(&schema::NAMESPACES, &key, &stored));
        written.map_err(|err| failed("create", ns, &err))?;
        self.happened(Event::of(ns, What::NamespaceCreated(record.labels)));
        Ok(())
    }

    /// Sets labels (an empty value removes one), or replaces all; the labels after. A namespace that
    /// does not exist comes to exist when a label is left.
    pub fn namespace_update(
        &self,
        ns: &Namespace,
        labels: Labels,
        replace_all: bool,
    ) -> Result<Labels, Failure> {
        check(ns, "update", &labels)?;
        let key = ns.clone();
        let written = self.meta().write(move |tx: &mut Tx| {
            let known = tx.get(&schema::NAMESPACES, &key)?;
            let is_new = known.is_none();
            let mut record = known.unwrap_or_default();
            if replace_all {
                record.labels.clear();
            }
            let mut changes = labels.clone();
            merge_labels(&mut record.labels, labels);
            changes.retain(|_, value| !value.is_empty());
            if !is_new || !record.labels.is_empty() {
                tx.put(&schema::NAMESPACES, &key, &record)?;
            }
            Ok::<_, cairn_meta::Error>((record.labels, changes))
        });
        let (labels, changes) = written.map_err(|err| failed("update", ns, &err))?;
        // Listeners hear what was asked for.
        self.happened(Event::of(ns, What::NamespaceUpdated(changes)));
        Ok(labels)
    }

    /// Removes an empty namespace. Its leases and uploads go with it.
    ///
    /// # Errors
    /// `FailedPrecondition` while it holds images, blobs or snapshots, saying how many.
    pub fn namespace_delete(&self, ns: &Namespace) -> Result<(), Failure> {
        if !self.namespaces()?.contains(ns) {
            return Err(
                Failure::new(ErrorKind::NotFound, "remove namespace", "not found")
                    .object("namespace", ns),
            );
        }
        let key = ns.clone();
        let written = self.meta().write(move |tx: &mut Tx| {
            let images = tx.scan(&schema::IMAGES, &key)?.len();
            let blobs = tx.scan(&schema::BLOB_LINKS, &key)?.len();
            let snapshots = tx.scan(&schema::SNAPSHOTS, &key)?.len();
            let containers = tx.scan(&schema::CONTAINERS, &key)?.len();
            if images + blobs + snapshots + containers > 0 {
                return Ok(Err((images, blobs, snapshots, containers)));
            }
            // Only now: one that stays keeps what came of them.
            let mut ended = Vec::new();
            for (ingest, record) in tx.scan(&schema::INGESTS, &key)? {
                tx.delete(&schema::INGESTS, &ingest)?;
                ended.push(record.id);
            }
            for (resource, ()) in tx.scan(&schema::LEASE_RESOURCES, &key)? {
                tx.delete(&schema::LEASE_RESOURCES, &resource)?;
            }
            for (lease, _) in tx.scan(&schema::LEASES, &key)? {
                tx.delete(&schema::LEASES, &lease)?;
            }
            tx.delete(&schema::NAMESPACES, &key)?;
            Ok::<_, cairn_meta::Error>(Ok(ended))
        });
        match written.map_err(|err| failed("remove", ns, &err))? {
            Ok(ended) => {
                self.content().mark_ending(ended.iter().copied());
                for ingest in ended {
                    self.content().remove_ingest(ingest);
                }
                self.happened(Event::of(ns, What::NamespaceDeleted));
                Ok(())
            }
            Err((images, blobs, snapshots, containers)) => {
                let mut holds = Vec::new();
                for (count, what) in [
                    (images, "image"),
                    (blobs, "blob"),
                    (snapshots, "snapshot"),
                    (containers, "container"),
                ] {
                    match count {
                        0 => {}
                        1 => holds.push(format!("1 {what}")),
                        many => holds.push(format!("{many} {what}s")),
                    }
                }
                let reason = format!("it holds {}", holds.join(", "));
                Err(
                    Failure::new(ErrorKind::FailedPrecondition, "remove namespace", reason)
                        .object("namespace", ns)
                        .next(format!(
                            "cairn -n {ns} images rm $(cairn -n {ns} images ls -q) && cairn gc"
                        )),
                )
            }
        }
    }
}

fn without_empty(mut labels: Labels) -> Labels {
    labels.retain(|_, value| !value.is_empty());
    labels
}

fn check(ns: &Namespace, verb: &str, labels: &Labels) -> Result<(), Failure> {
    for (key, value) in labels {
        validate_label(key, value).map_err(|err| failed(verb, ns, &err))?;
    }
    Ok(())
}

fn failed(verb: &str, ns: &Namespace, err: &dyn cairn_types::Classified) -> Failure {
    Failure::of(format!("{verb} namespace"), err).object("namespace", ns)
}
