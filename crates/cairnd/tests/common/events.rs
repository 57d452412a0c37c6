//! A subscription to events, from its start to a topic that ends it.

use std::time::Duration;

use cairn_proto::containerd::{
    services::events::v1::{PublishRequest, SubscribeRequest},
    types::Envelope,
};
use prost_types::Any;
use tonic::{Code, Streaming};

use super::{Client, code};

/// Ends a collection of events.
const LAST: &str = "/test/last";

pub struct Subscription {
    client: Client,
    events: Streaming<Envelope>,
}

impl Subscription {
    /// A subscription by filters, and by the topic that ends it.
    pub async fn start(client: &Client, filters: &[&str]) -> Subscription {
        let last = format!("topic==\"{LAST}\"");
        let mut filters: Vec<String> = filters.iter().map(|f| (*f).to_owned()).collect();
        filters.push(last);
        let request = SubscribeRequest { filters };
        let events = client.events().subscribe(request).await.expect("subscribe");
        Subscription {
            client: client.clone(),
            events: events.into_inner(),
        }
    }

    /// What came until now.
    pub async fn end(mut self) -> Vec<Envelope> {
        assert_eq!(publish(&self.client, LAST).await, Code::Ok);
        let mut all = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(10), self.events.message());
            let envelope = next.await.expect("in time").expect("no error");
            let envelope = envelope.expect("no end");
            if envelope.topic == LAST {
                return all;
            }
            all.push(envelope);
        }
    }

    pub async fn topics(self) -> Vec<String> {
        let all = self.end().await;
        all.into_iter().map(|envelope| envelope.topic).collect()
    }
}

pub fn event() -> Option<Any> {
    Some(Any {
        type_url: "test.Event".to_owned(),
        value: vec![1, 2, 3],
    })
}

pub async fn publish(client: &Client, topic: &str) -> Code {
    let request = PublishRequest {
        topic: topic.to_owned(),
        event: event(),
    };
    code(client.events().publish(request).await)
}
