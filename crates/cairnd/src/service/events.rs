//! `Events`: what happens in the store, and what clients tell one another through it.

mod pack;

use std::{
    borrow::Cow,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use cairn_meta::Timestamp;
use cairn_node::events::{Event, Listener, What};
use cairn_proto::containerd::{
    services::events::v1::{
        ForwardRequest, PublishRequest, SubscribeRequest, events_server::Events,
    },
    types::Envelope,
};
use cairn_types::{
    ErrorKind, Namespace,
    filter::{self, Fields, Filters},
};
use tokio::sync::mpsc;
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status};

use self::pack::pack;
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
        _ => of_container(&event.what, path),
    }
}

/// As [`inside`], of a container. What it does not have is no field of it.
fn of_container<'e>(what: &'e What, path: &[String]) -> Option<Cow<'e, str>> {
    let some = |text: &'e str| (!text.is_empty()).then_some(Cow::Borrowed(text));
    match (what, path.first().map(String::as_str)?) {
        (
            What::ContainerCreated { id, .. }
            | What::ContainerUpdated { id, .. }
            | What::ContainerDeleted { id },
            "id",
        ) => some(id),
        (What::ContainerCreated { record, .. }, "image") => some(&record.image),
        (What::ContainerCreated { record, .. }, "runtime") => {
            let runtime = pack::runtime(record)?;
            (path.get(1)? == "name").then_some(Cow::Owned(runtime.name))
        }
        (What::ContainerUpdated { image, .. }, "image") => some(image),
        (What::ContainerUpdated { labels, .. }, "labels") => filter::label(labels, &path[1..]),
        (What::ContainerUpdated { snapshot_key, .. }, "snapshot_key") => some(snapshot_key),
        _ => None,
    }
}

/// Events kept for a subscriber who does not take them. Nobody waits for one, so one that is stopped
/// would otherwise fill the memory of the daemon.
const AHEAD: usize = 8192;

/// A subscription: what passes its filters is sent on.
struct Subscriber {
    filters: Filters,
    /// None when it fell behind.
    send: Mutex<Option<mpsc::Sender<Envelope>>>,
}

impl Listener for Subscriber {
    fn hear(&self, event: &Arc<Event>) -> bool {
        let mut send = self.send.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(sender) = &*send else { return false };
        let (topic, packed) = pack(&event.ns, &event.what);
        if !self.filters.pass(&Filtered(event, &topic)) {
            return !sender.is_closed();
        }
        let envelope = Envelope {
            timestamp: Some(convert::time(event.at)),
            namespace: event.ns.to_string(),
            topic,
            event: Some(packed),
        };
        let sent = sender.try_send(envelope).is_ok();
        if !sent {
            *send = None;
        }
        sent
    }
}

/// The stream, which keeps its subscriber alive.
struct Subscription {
    events: ReceiverStream<Envelope>,
    _subscriber: Arc<dyn Listener>,
    ended: bool,
}

impl Stream for Subscription {
    type Item = Result<Envelope, Status>;
    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        let event = std::task::ready!(Pin::new(&mut self.events).poll_next(context));
        // It ends when the subscriber gave up, and not before.
        let lost = event.is_none() && !std::mem::replace(&mut self.ended, true);
        std::task::Poll::Ready(match (event, lost) {
            (Some(envelope), _) => Some(Ok(envelope)),
            (None, true) => {
                let text = format!("the subscriber is more than {AHEAD} events behind");
                Some(Err(with(ErrorKind::ResourceExhausted, text)))
            }
            (None, false) => None,
        })
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
        let (send, receive) = mpsc::channel(AHEAD);
        let send = Mutex::new(Some(send));
        let subscriber: Arc<dyn Listener> = Arc::new(Subscriber { filters, send });
        self.node.listen(&subscriber);
        Ok(Response::new(Box::pin(Subscription {
            events: ReceiverStream::new(receive),
            _subscriber: subscriber,
            ended: false,
        })))
    }
}
