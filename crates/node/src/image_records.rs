//! Image records as the API changes them: names for descriptors, whose blobs nobody looks at.

use cairn_meta::{ImageRecord, Timestamp, Tx, View, schema};
use cairn_types::{
    Classified, Descriptor, Digest, ErrorKind, ImageName, Labels, Namespace, validate_label,
};

use crate::{
    Caller, Failure, Node, Resource,
    caller::no_lease,
    events::{Event, What},
    gc::EXPIRE,
};

/// What an API call wants to do to a record that is there.
pub type ImageChange = Box<dyn FnOnce(&mut ImageRecord) + Send>;

impl Node {
    /// One record.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn image_get(&self, ns: &Namespace, name: &ImageName) -> Result<ImageRecord, Failure> {
        self.image_record(ns, name, "get image")
    }

    /// All records by name.
    pub fn image_list(&self, ns: &Namespace) -> Result<Vec<(ImageName, ImageRecord)>, Failure> {
        self.image_records(ns, "list images")
    }

    /// Makes a record; `at` is its time, now when `None`.
    ///
    /// # Errors
    /// `AlreadyExists`, `InvalidArgument`.
    pub fn image_create(
        &self,
        caller: &Caller,
        name: &ImageName,
        target: Descriptor,
        mut labels: Labels,
        at: Option<Timestamp>,
    ) -> Result<ImageRecord, Failure> {
        let attempted = "create image";
        labels.retain(|_, value| !value.is_empty());
        let at = at.unwrap_or_else(Timestamp::now);
        let record = ImageRecord {
            target,
            labels,
            created_at: at,
            updated_at: at,
        };
        check(attempted, name, &record)?;
        let held = record.labels.contains_key(EXPIRE);
        if held {
            self.hold(caller, &Resource::Image(name.clone()))?;
        }
        let (key, stored) = ((caller.ns.clone(), name.clone()), record.clone());
        let written = self.meta().write(move |tx: &mut Tx| {
            if tx.get(&schema::IMAGES, &key)?.is_some() {
                return Ok(false);
            }
            tx.use_namespace(&key.0)?;
            tx.put(&schema::IMAGES, &key, &stored)?;
            Ok::<_, cairn_meta::Error>(true)
        });
        match written {
            Ok(true) => {}
            Ok(false) => {
                return Err(
                    Failure::new(ErrorKind::AlreadyExists, attempted, "already exists")
                        .object("image", name)
                        .namespace(&caller.ns),
                );
            }
            Err(err) => return Err(failed(attempted, name, &err)),
        }
        let labels = record.labels.clone();
        self.happened(Event::of(
            &caller.ns,
            What::ImageCreated {
                name: name.clone(),
                labels,
            },
        ));
        Ok(record)
    }

    /// Changes a record; what it is after.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` when it would not be valid after the change, and then it is not
    /// changed.
    pub fn image_update(
        &self,
        caller: &Caller,
        name: &ImageName,
        change: ImageChange,
    ) -> Result<ImageRecord, Failure> {
        let attempted = "update image";
        let (key, checked) = ((caller.ns.clone(), name.clone()), name.clone());
        let holder = caller.clone();
        let written = self.meta().write(move |tx: &mut Tx| {
            let Some(mut record) = tx.get(&schema::IMAGES, &key)? else {
                return Ok(Err(None));
            };
            record.updated_at = Timestamp::now();
            change(&mut record);
            record.labels.retain(|_, value| !value.is_empty());
            if let Err(failure) = check(attempted, &checked, &record) {
                return Ok(Err(Some(failure)));
            }
            // With the change, or a collection could come between: it may be no root any more.
            let held = record.labels.contains_key(EXPIRE);
            if held && !holder.hold_in(tx, &Resource::Image(checked))? {
                let lease = holder.lease.as_deref().unwrap_or_default();
                return Ok(Err(Some(no_lease(&holder, lease))));
            }
            tx.put(&schema::IMAGES, &key, &record)?;
            Ok::<_, cairn_meta::Error>(Ok(record))
        });
        let record = match written {
            Ok(Ok(record)) => record,
            Ok(Err(Some(failure))) => return Err(failure),
            Ok(Err(None)) => return Err(self.no_such_image(&caller.ns, name, attempted)),
            Err(err) => return Err(failed(attempted, name, &err)),
        };
        let labels = record.labels.clone();
        self.happened(Event::of(
            &caller.ns,
            What::ImageUpdated {
                name: name.clone(),
                labels,
            },
        ));
        Ok(record)
    }

    /// Removes a record, if `target` is what it points at or `None`.
    ///
    /// # Errors
    /// `NotFound`, also when it points elsewhere.
    pub fn image_delete(
        &self,
        caller: &Caller,
        name: &ImageName,
        target: Option<Digest>,
    ) -> Result<(), Failure> {
        let attempted = "delete image";
        let key = (caller.ns.clone(), name.clone());
        let written = self.meta().write(move |tx: &mut Tx| {
            let known = tx.get(&schema::IMAGES, &key)?;
            let meant =
                |record: &ImageRecord| target.as_ref().is_none_or(|t| *t == record.target.digest);
            if !known.as_ref().is_some_and(meant) {
                return Ok(false);
            }
            tx.delete(&schema::IMAGES, &key)?;
            Ok::<_, cairn_meta::Error>(true)
        });
        match written {
            Ok(true) => {}
            Ok(false) => return Err(self.no_such_image(&caller.ns, name, attempted)),
            Err(err) => return Err(failed(attempted, name, &err)),
        }
        self.let_go(caller, &Resource::Image(name.clone()))?;
        self.happened(Event::of(
            &caller.ns,
            What::ImageDeleted { name: name.clone() },
        ));
        Ok(())
    }
}

fn check(attempted: &'static str, name: &ImageName, record: &ImageRecord) -> Result<(), Failure> {
    let refuse = |reason: &str| {
        Err(Failure::new(ErrorKind::InvalidArgument, attempted, reason).object("image", name))
    };
    if record.target.size == 0 {
        return refuse("its target has no size");
    }
    if record.target.media_type.is_empty() {
        return refuse("its target has no media type");
    }
    for (key, value) in &record.labels {
        validate_label(key, value).map_err(|err| failed(attempted, name, &err))?;
    }
    Ok(())
}

fn failed(attempted: &str, name: &ImageName, err: &dyn Classified) -> Failure {
    Failure::of(attempted, err).object("image", name)
}
