//! Records of containers. Nothing here runs one; but clients list them before they prune, and what a
//! container stands on must not be collected.

use cairn_meta::{ContainerRecord, Timestamp, Tx, View, schema};
use cairn_types::{Classified, ErrorKind, Labels, Namespace, validate_label};

use crate::{
    Failure, Node,
    events::{Event, What},
};

impl Node {
    /// All records by id.
    pub fn containers(&self, ns: &Namespace) -> Result<Vec<(String, ContainerRecord)>, Failure> {
        let read = self.meta().read(|view| view.scan(&schema::CONTAINERS, ns));
        let records = read.map_err(|err| Failure::of("list containers", &err).namespace(ns))?;
        Ok(records
            .into_iter()
            .map(|((_, id), record)| (id, record))
            .collect())
    }

    /// One record.
    pub fn container(&self, ns: &Namespace, id: &str) -> Result<ContainerRecord, Failure> {
        let key = (ns.clone(), id.to_owned());
        let read = self.meta().read(|view| view.get(&schema::CONTAINERS, &key));
        read.map_err(|err| failed("get", id, &err))?
            .ok_or_else(|| missing("get", ns, id))
    }

    /// Makes a record; its times are set here.
    pub fn container_create(
        &self,
        ns: &Namespace,
        id: &str,
        mut record: ContainerRecord,
    ) -> Result<ContainerRecord, Failure> {
        check("create", id, &record.labels)?;
        record.labels.retain(|_, value| !value.is_empty());
        record.created_at = Timestamp::now();
        record.updated_at = record.created_at;
        let (key, stored) = ((ns.clone(), id.to_owned()), record.clone());
        let written = self.meta().write(move |tx: &mut Tx| {
            if tx.get(&schema::CONTAINERS, &key)?.is_some() {
                return Ok(false);
            }
            tx.use_namespace(&key.0)?;
            tx.put(&schema::CONTAINERS, &key, &stored)?;
            Ok::<_, cairn_meta::Error>(true)
        });
        match written {
            Ok(true) => {
                let what = What::ContainerCreated {
                    id: id.to_owned(),
                    record: Box::new(record.clone()),
                };
                self.happened(Event::of(ns, what));
                Ok(record)
            }
            Ok(false) => Err(Failure::new(
                ErrorKind::AlreadyExists,
                "create container",
                "already exists",
            )
            .object("container", id)
            .namespace(ns)),
            Err(err) => Err(failed("create", id, &err)),
        }
    }

    /// Replaces a record, all but its time of making.
    pub fn container_update(
        &self,
        ns: &Namespace,
        id: &str,
        mut record: ContainerRecord,
    ) -> Result<ContainerRecord, Failure> {
        check("update", id, &record.labels)?;
        record.labels.retain(|_, value| !value.is_empty());
        record.updated_at = Timestamp::now();
        let key = (ns.clone(), id.to_owned());
        let written = self.meta().write(move |tx: &mut Tx| {
            let Some(known) = tx.get(&schema::CONTAINERS, &key)? else {
                return Ok(None);
            };
            record.created_at = known.created_at;
            tx.put(&schema::CONTAINERS, &key, &record)?;
            Ok::<_, cairn_meta::Error>(Some(record))
        });
        let record = written
            .map_err(|err| failed("update", id, &err))?
            .ok_or_else(|| missing("update", ns, id))?;
        let what = What::ContainerUpdated {
            id: id.to_owned(),
            image: record.image.clone(),
            labels: record.labels.clone(),
            snapshot_key: record.snapshot_key.clone(),
        };
        self.happened(Event::of(ns, what));
        Ok(record)
    }

    /// Removes a record.
    pub fn container_delete(&self, ns: &Namespace, id: &str) -> Result<(), Failure> {
        let key = (ns.clone(), id.to_owned());
        let written = self.meta().write(move |tx: &mut Tx| {
            let known = tx.get(&schema::CONTAINERS, &key)?.is_some();
            tx.delete(&schema::CONTAINERS, &key)?;
            Ok::<_, cairn_meta::Error>(known)
        });
        match written {
            Ok(true) => {
                let id = id.to_owned();
                self.happened(Event::of(ns, What::ContainerDeleted { id }));
                Ok(())
            }
            Ok(false) => Err(missing("delete", ns, id)),
            Err(err) => Err(failed("delete", id, &err)),
        }
    }
}

fn check(verb: &str, id: &str, labels: &Labels) -> Result<(), Failure> {
    for (key, value) in labels {
        validate_label(key, value).map_err(|err| failed(verb, id, &err))?;
    }
    Ok(())
}

fn missing(verb: &str, ns: &Namespace, id: &str) -> Failure {
    Failure::new(
        ErrorKind::NotFound,
        format!("{verb} container"),
        "not found",
    )
    .object("container", id)
    .namespace(ns)
}

fn failed(verb: &str, id: &str, err: &dyn Classified) -> Failure {
    Failure::of(format!("{verb} container"), err).object("container", id)
}
