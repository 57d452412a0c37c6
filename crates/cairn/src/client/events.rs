//! What happens in the store, as it happens.

use cairn_proto::containerd::{
    events as wire,
    services::{
        events::v1::{SubscribeRequest, events_client::EventsClient},
        images::v1 as images,
    },
    types::Envelope,
};
use cairn_types::ErrorKind;
use prost::Message;
use prost_types::Any;
use serde_json::{Value, json};

use super::{Client, Result, link::client, plain};
use crate::{error::Problem, model};

impl Client {
    /// Tells `each` of every event that a filter lets through. Only a failure ends it, be it that the
    /// server ends.
    pub fn events(&self, filters: Vec<String>, mut each: impl FnMut(model::Event)) -> Result<()> {
        let failed = |err| self.explain("listen to events", ("", ""), err);
        let request = self.link.request(SubscribeRequest { filters });
        let mut events = client!(self.link, EventsClient<_>);
        let answer = self.link.wait(events.subscribe(request)).map_err(failed)?;
        let mut envelopes = answer.into_inner();
        tracing::info!("listen to events");
        while let Some(envelope) = self.link.wait(envelopes.message()).map_err(failed)? {
            each(event(envelope));
        }
        Err(failed(Problem::new(
            ErrorKind::Unavailable,
            "",
            "",
            "the server ended",
        )))
    }
}

fn event(envelope: Envelope) -> model::Event {
    let any = envelope.event.unwrap_or_default();
    model::Event {
        time: plain::time(envelope.timestamp),
        namespace: envelope.namespace,
        topic: envelope.topic,
        event: fields(&any),
        kind: any.type_url,
    }
}

/// An event's fields. One of an unknown kind, which only a client can have published, is the JSON that
/// it holds, or its bytes.
fn fields(any: &Any) -> Value {
    // Names come with and without the host of a type URL.
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    known(name, &any.value).unwrap_or_else(|| match serde_json::from_slice(&any.value) {
        Ok(value @ Value::Object(_)) => value,
        _ => json!({ "bytes": hex(&any.value) }),
    })
}

fn known(name: &str, bytes: &[u8]) -> Option<Value> {
    macro_rules! decode {
        ($message:ty, $($field:ident),*) => {{
            let message = <$message>::decode(bytes).ok()?;
            json!({ $(stringify!($field): message.$field),* })
        }};
    }
    Some(match name {
        "containerd.events.NamespaceCreate" => decode!(wire::NamespaceCreate, name, labels),
        "containerd.events.NamespaceUpdate" => decode!(wire::NamespaceUpdate, name, labels),
        "containerd.events.NamespaceDelete" => decode!(wire::NamespaceDelete, name),
        "containerd.events.ContentCreate" => decode!(wire::ContentCreate, digest, size),
        "containerd.events.ContentDelete" => decode!(wire::ContentDelete, digest),
        "containerd.services.images.v1.ImageCreate" => decode!(images::ImageCreate, name, labels),
        "containerd.services.images.v1.ImageUpdate" => decode!(images::ImageUpdate, name, labels),
        "containerd.services.images.v1.ImageDelete" => decode!(images::ImageDelete, name),
        "containerd.events.SnapshotPrepare" => {
            decode!(wire::SnapshotPrepare, key, parent, snapshotter)
        }
        "containerd.events.SnapshotCommit" => {
            decode!(wire::SnapshotCommit, key, name, snapshotter)
        }
        "containerd.events.SnapshotRemove" => decode!(wire::SnapshotRemove, key, snapshotter),
        "containerd.events.ContainerCreate" => decode!(wire::ContainerCreate, id, image),
        "containerd.events.ContainerUpdate" => {
            decode!(wire::ContainerUpdate, id, image, labels, snapshot_key)
        }
        "containerd.events.ContainerDelete" => decode!(wire::ContainerDelete, id),
        _ => return None,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(type_url: &str, value: &[u8]) -> Any {
        Any {
            type_url: type_url.to_owned(),
            value: value.to_vec(),
        }
    }

    #[test]
    fn fields_by_kind() {
        let prepared = wire::SnapshotPrepare {
            key: "k".to_owned(),
            parent: String::new(),
            snapshotter: "overlayfs".to_owned(),
        };
        for host in ["", "type.googleapis.com/"] {
            let name = format!("{host}containerd.events.SnapshotPrepare");
            assert_eq!(
                fields(&any(&name, &prepared.encode_to_vec())),
                json!({"key": "k", "parent": "", "snapshotter": "overlayfs"})
            );
        }
        assert_eq!(
            fields(&any("example.com/Mine", b"{\"a\": 1}")),
            json!({"a": 1})
        );
        assert_eq!(
            fields(&any("example.com/Mine", b"\x00\xff")),
            json!({"bytes": "00ff"})
        );
        let broken = any("containerd.events.ContentCreate", b"\xff");
        assert_eq!(fields(&broken), json!({"bytes": "ff"}));
    }
}
