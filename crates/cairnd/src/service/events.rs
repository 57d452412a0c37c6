//! `Events`: what happens in the store, and what clients tell one another through it.

use std::{borrow::Cow, pin::Pin, sync::Arc};

use cairn_meta::Timestamp;
use cairn_node::events::{Event, Listener, What};
use cairn_proto::containerd::{
    events as wire,
    services::{
        events::v1::{ForwardRequest, PublishRequest, SubscribeRequest, events_server::Events},
        images::v1 as images,
    },
    types::Envelope,
};
use cairn_types::{
    ErrorKind, Namespace,
    filter::{self, Fields, Filters},
};
use prost::Message;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::UnboundedReceiverStream};
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller, convert,
    status::{missing, of, with},
};

/// An event with the fields that filters can ask for.
struct Filtered<'e>(&'e Event, &'e str);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match &*path[0] {
            "namespace" => Some(Cow::Borrowed(self.0.ns.as_str())),
            "topic" => Some(Cow::Borrowed(self.1)),
            "event" => inside(self.0, &path[1..]),
            _ => None,
        }
    }
}

/// As containerd's own events have fields; of a client's the fields are not known.
fn inside<'e>(event: &'e Event, path: &[String]) -> Option<Cow<'e, str>> {
    let field = path.first().map(String::as_str)?;
    let text = |text: String| Some(Cow::Owned(text));
    match (&event.what, field) {
        (What::ContentCreated { digest, .. } | What::ContentDeleted { digest }, "digest") => {
            text(digest.to_string())
        }
        (
            What::ImageCreated { name, .. }
            | What::ImageUpdated { name, .. }
            | What::ImageDeleted { name },
            "name",
        ) => text(name.to_string()),
        (
            What::ImageCreated { labels, .. }
            | What::ImageUpdated { labels, .. }
            | What::NamespaceCreated(labels)
            | What::NamespaceUpdated(labels),
            "labels",
        ) => filter::label(labels, &path[1..]),
        (
            What::SnapshotPrepared { key, .. }
            | What::SnapshotCommitted { key, .. }
            | What::SnapshotRemoved { key },
            "key",
        ) => text(key.to_string()),
        (What::SnapshotPrepared { parent, .. }, "parent") => text(parent.as_ref()?.to_string()),
        (What::SnapshotCommitted { name, .. }, "name") => text(name.to_string()),
        (
            What::NamespaceCreated(_) | What::NamespaceUpdated(_) | What::NamespaceDeleted,
            "name",
        ) => Some(Cow::Borrowed(event.ns.as_str())),
        (
            What::SnapshotPrepared { .. }
            | What::SnapshotCommitted { .. }
            | What::SnapshotRemoved { .. },
            "snapshotter",
        ) => Some(Cow::Borrowed(super::snapshots::NAME)),
        _ => None,
    }
}

/// Topic and event for the wire.
fn pack(ns: &Namespace, what: &What) -> (String, Any) {
    // Type URLs are bare names: receivers compare them to the letter.
    let any = |name: &str, message: Vec<u8>| Any {
        type_url: name.to_owned(),
        value: message,
    };
    let namespace = ns.to_string();
    let snapshotter = super::snapshots::NAME.to_owned();
    let (topic, event) = match what {
        What::NamespaceCreated(labels) => {
            let event = wire::NamespaceCreate {
                name: namespace,
                labels: labels.clone(),
            };
            (
                "/namespaces/create",
                any("containerd.events.NamespaceCreate", event.encode_to_vec()),
            )
        }
        What::NamespaceUpdated(labels) => {
            let event = wire::NamespaceUpdate {
                name: namespace,
                labels: labels.clone(),
            };
            (
                "/namespaces/update",
                any("containerd.events.NamespaceUpdate", event.encode_to_vec()),
            )
        }
        What::NamespaceDeleted => {
            let event = wire::NamespaceDelete { name: namespace };
            (
                "/namespaces/delete",
                any("containerd.events.NamespaceDelete", event.encode_to_vec()),
            )
        }
        What::ContentCreated { digest, size } => {
            let event = wire::ContentCreate {
                digest: digest.to_string(),
                size: convert::signed(*size),
            };
            (
                "/content/create",
                any("containerd.events.ContentCreate", event.encode_to_vec()),
            )
        }
        What::ContentDeleted { digest } => {
            let event = wire::ContentDelete {
                digest: digest.to_string(),
            };
            (
                "/content/delete",
                any("containerd.events.ContentDelete", event.encode_to_vec()),
            )
        }
        What::ImageCreated { name, labels } => {
            let event = images::ImageCreate {
                name: name.to_string(),
                labels: labels.clone(),
            };
            let kind = "containerd.services.images.v1.ImageCreate";
            ("/images/create", any(kind, event.encode_to_vec()))
        }
        What::ImageUpdated { name, labels } => {
            let event = images::ImageUpdate {
                name: name.to_string(),
                labels: labels.clone(),
            };
            let kind = "containerd.services.images.v1.ImageUpdate";
            ("/images/update", any(kind, event.encode_to_vec()))
        }
        What::ImageDeleted { name } => {
            let event = images::ImageDelete {
                name: name.to_string(),
            };
            let kind = "containerd.services.images.v1.ImageDelete";
            ("/images/delete", any(kind, event.encode_to_vec()))
        }
        What::SnapshotPrepared { key, parent } => {
            let event = wire::SnapshotPrepare {
                key: key.to_string(),
                parent: parent.as_ref().map(ToString::to_string).unwrap_or_default(),
                snapshotter,
            };
            (
                "/snapshot/prepare",
                any("containerd.events.SnapshotPrepare", event.encode_to_vec()),
            )
        }
        What::SnapshotCommitted { key, name } => {
            let (key, name) = (key.to_string(), name.to_string());
            let event = wire::SnapshotCommit {
                key,
                name,
                snapshotter,
            };
            (
                "/snapshot/commit",
                any("containerd.events.SnapshotCommit", event.encode_to_vec()),
            )
        }
        What::SnapshotRemoved { key } => {
            let event = wire::SnapshotRemove {
                key: key.to_string(),
                snapshotter,
            };
            (
                "/snapshot/remove",
                any("containerd.events.SnapshotRemove", event.encode_to_vec()),
            )
        }
        What::Published {
            topic,
            type_url,
            value,
        } => {
            return (topic.clone(), any(type_url, value.clone()));
        }
    };
    (topic.to_owned(), event)
}

/// A subscription: what passes its filters is sent on.
struct Subscriber {
    filters: Filters,
    send: mpsc::UnboundedSender<Result<Envelope, Status>>,
}

impl Listener for Subscriber {
    fn hear(&self, event: &Arc<Event>) -> bool {
        let (topic, packed) = pack(&event.ns, &event.what);
        if !self.filters.pass(&Filtered(event, &topic)) {
            return !self.send.is_closed();
        }
        let envelope = Envelope {
            timestamp: Some(convert::time(event.at)),
            namespace: event.ns.to_string(),
            topic,
            event: Some(packed),
        };
        self.send.send(Ok(envelope)).is_ok()
    }
}

/// The stream, which keeps its subscriber alive.
struct Subscription {
    events: UnboundedReceiverStream<Result<Envelope, Status>>,
    _subscriber: Arc<dyn Listener>,
}

impl Stream for Subscription {
    type Item = Result<Envelope, Status>;
    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        Pin::new(&mut self.events).poll_next(context)
    }
}

/// A topic is components that could be namespaces, each behind a slash (`core/events/exchange`).
fn check_topic(topic: &str) -> Result<(), Status> {
    let invalid = |reason: &str| {
        Err(with(
            ErrorKind::InvalidArgument,
            format!("topic {topic:?} {reason}"),
        ))
    };
    let Some(rest) = topic.strip_prefix('/') else {
        return invalid("must start with '/'");
    };
    match rest.split('/').all(|part| Namespace::parse(part).is_ok()) {
        true => Ok(()),
        false => invalid("has a component that is no identifier"),
    }
}

#[tonic::async_trait]
impl Events for Service {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Envelope, Status>> + Send>>;

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let ns = caller::of(&request)?.ns;
        let request = request.into_inner();
        check_topic(&request.topic)?;
        let event = request.event.unwrap_or_default();
        let published = What::Published {
            topic: request.topic,
            type_url: event.type_url,
            value: event.value,
        };
        self.node.happened(Event::of(&ns, published));
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = request
            .into_inner()
            .envelope
            .ok_or_else(|| missing("envelope"))?;
        let ns = convert::name(Namespace::parse(&envelope.namespace))?;
        check_topic(&envelope.topic)?;
        let at = match envelope.timestamp {
            None => Timestamp(0),
            time => convert::moment(time).ok_or_else(|| missing("timestamp"))?,
        };
        let event = envelope.event.unwrap_or_default();
        let what = What::Published {
            topic: envelope.topic,
            type_url: event.type_url,
            value: event.value,
        };
        self.node.happened(Event { ns, at, what });
        Ok(Response::new(()))
    }

    /// Every namespace's, whatever the header says; filters choose.
    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let filters = Filters::parse(&request.into_inner().filters).map_err(|err| of(&err))?;
        let (send, receive) = mpsc::unbounded_channel();
        let subscriber: Arc<dyn Listener> = Arc::new(Subscriber { filters, send });
        self.node.listen(&subscriber);
        let events = UnboundedReceiverStream::new(receive);
        Ok(Response::new(Box::pin(Subscription {
            events,
            _subscriber: subscriber,
        })))
    }
}
