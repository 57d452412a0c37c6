//! Events in containerd's messages, each with its topic.

use cairn_meta::ContainerRecord;
use cairn_node::events::What;
use cairn_proto::containerd::{
    events::{self as wire, container_create},
    services::{containers::v1::Container, images::v1 as images},
};
use cairn_types::Namespace;
use prost::{Message, Name};
use prost_types::Any;

use super::super::snapshots;
use crate::streams;

/// A message that is sent as an event, under its bare name, since receivers compare it to the letter.
trait Told: Message + Name {
    const TOPIC: &'static str;
}

macro_rules! told {
    ($($topic:literal $message:ty;)*) => {
        $(impl Told for $message {
            const TOPIC: &'static str = $topic;
        })*
    };
}
told! {
    "/namespaces/create" wire::NamespaceCreate;
    "/namespaces/update" wire::NamespaceUpdate;
    "/namespaces/delete" wire::NamespaceDelete;
    "/content/create" wire::ContentCreate;
    "/content/delete" wire::ContentDelete;
    "/images/create" images::ImageCreate;
    "/images/update" images::ImageUpdate;
    "/images/delete" images::ImageDelete;
    "/snapshot/prepare" wire::SnapshotPrepare;
    "/snapshot/commit" wire::SnapshotCommit;
    "/snapshot/remove" wire::SnapshotRemove;
    "/containers/create" wire::ContainerCreate;
    "/containers/update" wire::ContainerUpdate;
    "/containers/delete" wire::ContainerDelete;
}

fn told<M: Told>(message: &M) -> (String, Any) {
    (M::TOPIC.to_owned(), streams::pack(message))
}

/// What its document says of a container's runtime. It was written by this program just now.
pub(super) fn runtime(record: &ContainerRecord) -> Option<container_create::Runtime> {
    let runtime = Container::decode(&*record.document).ok()?.runtime?;
    Some(container_create::Runtime {
        name: runtime.name,
        options: runtime.options,
    })
}

/// Topic and event for the wire.
pub(super) fn pack(ns: &Namespace, what: &What) -> (String, Any) {
    let snapshotter = snapshots::NAME.to_owned();
    match what {
        What::NamespaceCreated(labels) => told(&wire::NamespaceCreate {
            name: ns.to_string(),
            labels: labels.clone(),
        }),
        What::NamespaceUpdated(labels) => told(&wire::NamespaceUpdate {
            name: ns.to_string(),
            labels: labels.clone(),
        }),
        What::NamespaceDeleted => told(&wire::NamespaceDelete {
            name: ns.to_string(),
        }),
        What::ContentCreated { digest, size } => told(&wire::ContentCreate {
            digest: digest.to_string(),
            size: crate::convert::signed(*size),
        }),
        What::ContentDeleted { digest } => told(&wire::ContentDelete {
            digest: digest.to_string(),
        }),
        What::ImageCreated { name, labels } => told(&images::ImageCreate {
            name: name.to_string(),
            labels: labels.clone(),
        }),
        What::ImageUpdated { name, labels } => told(&images::ImageUpdate {
            name: name.to_string(),
            labels: labels.clone(),
        }),
        What::ImageDeleted { name } => told(&images::ImageDelete {
            name: name.to_string(),
        }),
        What::SnapshotPrepared { key, parent } => told(&wire::SnapshotPrepare {
            key: key.to_string(),
            parent: parent.as_ref().map(ToString::to_string).unwrap_or_default(),
            snapshotter,
        }),
        What::SnapshotCommitted { key, name } => told(&wire::SnapshotCommit {
            key: key.to_string(),
            name: name.to_string(),
            snapshotter,
        }),
        What::SnapshotRemoved { key } => told(&wire::SnapshotRemove {
            key: key.to_string(),
            snapshotter,
        }),
        What::ContainerCreated { id, record } => told(&wire::ContainerCreate {
            id: id.clone(),
            image: record.image.clone(),
            runtime: runtime(record),
        }),
        What::ContainerUpdated {
            id,
            image,
            labels,
            snapshot_key,
        } => told(&wire::ContainerUpdate {
            id: id.clone(),
            image: image.clone(),
            labels: labels.clone(),
            snapshot_key: snapshot_key.clone(),
        }),
        What::ContainerDeleted { id } => told(&wire::ContainerDelete { id: id.clone() }),
        // A client's own, as it came.
        What::Published {
            topic,
            type_url,
            value,
        } => {
            let event = Any {
                type_url: type_url.clone(),
                value: value.clone(),
            };
            (topic.clone(), event)
        }
    }
}
