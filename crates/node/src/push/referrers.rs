//! Whoever refers to another manifest (`subject`) is listed for it: by the registry, or, where that does not
//! do so, in an index under a tag of the subject's digest (distribution-spec, "Pushing Manifests with
//! Subject", "Referrers Tag Schema").

use bytes::Bytes;
use cairn_registry::{Cause, Client, Error, Reference, Tag, referrers_tag};
use cairn_types::{Descriptor, Digest, media};
use serde_json::{Value, json};

use crate::documents::{self, Document};

/// What a document refers to, and how it is to be listed there.
pub(super) struct Referrer {
    pub(super) subject: Digest,
    entry: Descriptor,
}

/// Why a list was not kept.
pub(super) enum Unlisted {
    Registry(Error),
    /// Something else is under the tag.
    NoIndex(Tag),
}

impl From<Error> for Unlisted {
    fn from(err: Error) -> Unlisted {
        Unlisted::Registry(err)
    }
}

impl Referrer {
    /// `None` for a document without a subject.
    pub(super) fn of(descriptor: &Descriptor, bytes: &[u8]) -> Option<Referrer> {
        let document = documents::document(bytes, &descriptor.media_type).ok()?;
        let (subject, kind, annotations) = match document {
            Document::Index(index) => (index.subject, index.artifact_type, index.annotations),
            Document::Manifest(manifest) => {
                let kind = manifest.artifact_type;
                let kind = kind.or(Some(manifest.config.media_type));
                (manifest.subject, kind, manifest.annotations)
            }
        };
        let mut entry = Descriptor::new(
            &descriptor.media_type,
            descriptor.digest.clone(),
            descriptor.size,
        );
        entry.artifact_type = kind.filter(|kind| !kind.is_empty());
        entry.annotations = annotations;
        Some(Referrer {
            subject: subject?.digest,
            entry,
        })
    }

    /// Sees to it that it is in the list under the tag. Two who do so at the same moment may undo one
    /// another; the specification knows no remedy.
    pub(super) async fn list(&self, client: &Client) -> Result<(), Unlisted> {
        let Some(tag) = referrers_tag(&self.subject) else {
            return Ok(());
        };
        let reference = Reference::Tag(tag.clone());
        let known = match client.resolve(&reference).await {
            Ok(descriptor) => Some(client.manifest(&descriptor).await?),
            Err(err) if is_missing(&err) => None,
            Err(err) => return Err(err.into()),
        };
        let Some(index) = self.added(known.as_deref()).ok_or(Unlisted::NoIndex(tag))? else {
            return Ok(());
        };
        client
            .put(&reference, media::OCI_INDEX, Bytes::from(index))
            .await?;
        Ok(())
    }

    /// The list with the entry in it. `None` for what is no list, a list of `None` for one that has it.
    fn added(&self, known: Option<&[u8]>) -> Option<Option<Vec<u8>>> {
        let mut index = match known {
            Some(bytes) => serde_json::from_slice(bytes).ok()?,
            None => json!({"schemaVersion": 2, "mediaType": media::OCI_INDEX, "manifests": []}),
        };
        // What others wrote into it stays as it is.
        let entries = index.get_mut("manifests").and_then(Value::as_array_mut)?;
        let own = self.entry.digest.to_string();
        if entries
            .iter()
            .any(|entry| entry.get("digest").and_then(Value::as_str) == Some(&own))
        {
            return Some(None);
        }
        entries.push(serde_json::to_value(&self.entry).ok()?);
        Some(Some(serde_json::to_vec(&index).ok()?))
    }
}

fn is_missing(err: &Error) -> bool {
    let cause = err.last().map(|failed| &failed.cause);
    matches!(cause, Some(Cause::NotFound { .. }))
}
