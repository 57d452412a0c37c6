//! The image store as the place to which a transfer goes: what images are called there, and with which
//! labels (containerd `core/transfer/image`).

use cairn_meta::ImageRecord;
use cairn_node::{Caller, Node, Reference, References};
use cairn_proto::containerd::types::transfer::{ImageReference, ImageStore};
use cairn_types::{Descriptor, Digest, ErrorKind, ImageName, Labels};
use tonic::Status;

use crate::{
    convert,
    status::{of_failure, with},
};

/// Names and labels of a store.
#[derive(Clone, Debug)]
pub(super) struct Naming {
    pub(super) references: References,
    labels: Labels,
}

impl Naming {
    /// As a request has them.
    pub(super) fn of(store: &ImageStore) -> Naming {
        let reference = |wire: &ImageReference| Reference {
            name: wire.name.clone(),
            is_prefix: wire.is_prefix,
            allow_overwrite: wire.allow_overwrite,
            add_digest: wire.add_digest,
            skip_named_digest: wire.skip_named_digest,
        };
        Naming {
            references: References {
                name: Some(store.name.clone()).filter(|name| !name.is_empty()),
                more: store.extra_references.iter().map(reference).collect(),
            },
            labels: store.labels.clone(),
        }
    }

    /// The names of what comes as a whole.
    ///
    /// # Errors
    /// `NotFound` when it gets none.
    pub(super) fn whole(&self, digest: &Digest) -> Result<Vec<ImageName>, Status> {
        let names = convert::name(self.references.whole(digest))?;
        match names.is_empty() {
            true => Err(with(ErrorKind::NotFound, "no image name found")),
            false => Ok(names),
        }
    }

    /// The labels of one of the names.
    pub(super) fn labels(&self, name: &ImageName) -> Labels {
        let mut labels = self.labels.clone();
        labels.extend(self.references.labels(name, jiff::Timestamp::now()));
        labels.retain(|_, value| !value.is_empty());
        labels
    }

    /// Makes an image, or gives one that is there this target and its labels. What others changed of
    /// it meanwhile is replaced, as with containerd.
    pub(super) fn put(
        &self,
        node: &Node,
        caller: &Caller,
        name: &ImageName,
        target: &Descriptor,
    ) -> Result<(), Status> {
        let labels = self.labels(name);
        loop {
            match node.image_create(caller, name, target.clone(), labels.clone(), None) {
                Ok(_) => return Ok(()),
                Err(failure) if failure.kind == ErrorKind::AlreadyExists => {}
                Err(failure) => return Err(of_failure(failure)),
            }
            let (target, labels) = (target.clone(), labels.clone());
            let change = move |record: &mut ImageRecord| {
                record.target = target;
                record.labels = labels;
            };
            match node.image_update(caller, name, Box::new(change)) {
                Ok(_) => return Ok(()),
                // Removed since.
                Err(failure) if failure.kind == ErrorKind::NotFound => {}
                Err(failure) => return Err(of_failure(failure)),
            }
        }
    }
}
