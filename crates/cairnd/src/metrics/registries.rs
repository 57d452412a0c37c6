//! Figures of requests to registries.
//!
//! Whoever may pull may name any host he likes, and each would be a series for as long as the daemon runs.
//! So only those have a label of their own that the configuration speaks of; the others are one.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use cairn_node::Node;
use cairn_registry::{Exchange, Observer};
use metrics::{Counter, counter, describe_counter, with_local_recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

const REQUESTS: &str = "cairn_registry_requests_total";
const RECEIVED: &str = "cairn_registry_received_bytes_total";
const SENT: &str = "cairn_registry_sent_bytes_total";

/// The label of every host that the configuration does not speak of.
const OTHER: &str = "other";

pub(super) fn describe() {
    describe_counter!(REQUESTS, "Requests to registries, by host and status.");
    describe_counter!(RECEIVED, "Bytes of bodies from registries, by host.");
    describe_counter!(SENT, "Bytes of bodies to registries, by host.");
}

/// The figures of one label, kept at hand: bytes come in many small pieces.
struct Figures {
    host: String,
    received: Counter,
    sent: Counter,
}

/// Counts requests.
pub(super) struct Requests {
    recorder: Arc<PrometheusRecorder>,
    named: RwLock<BTreeMap<String, Figures>>,
    other: Figures,
}

impl Requests {
    /// Those of the label that there always is.
    pub(super) fn new(recorder: Arc<PrometheusRecorder>) -> Requests {
        Requests {
            other: figures(&recorder, OTHER),
            recorder,
            named: RwLock::default(),
        }
    }

    /// Reads again which hosts have a label. Who counts has no time for that.
    pub(super) fn learn(&self, node: &Node) {
        let hosts = node.registry_hosts();
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        named.retain(|host, _| hosts.contains(host));
        for host in hosts {
            let new = || figures(&self.recorder, &host);
            named.entry(host.clone()).or_insert_with(new);
        }
    }

    fn with(&self, host: &str, count: impl FnOnce(&Figures)) {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        count(named.get(host).unwrap_or(&self.other));
    }
}

/// There from the first scrape on, so that rates have something to start from.
fn figures(recorder: &PrometheusRecorder, host: &str) -> Figures {
    let labels = [("host", host.to_owned())];
    with_local_recorder(recorder, || {
        let figures = Figures {
            host: host.to_owned(),
            received: counter!(RECEIVED, &labels),
            sent: counter!(SENT, &labels),
        };
        figures.received.increment(0);
        figures.sent.increment(0);
        figures
    })
}

impl Observer for Requests {
    fn ended(&self, exchange: &Exchange<'_>) {
        let code = match exchange.outcome {
            Ok(status) => status.to_string(),
            Err(_) => "error".to_owned(),
        };
        self.with(exchange.host, |figures| {
            let labels = [("host", figures.host.clone()), ("code", code)];
            with_local_recorder(&*self.recorder, || {
                counter!(REQUESTS, &labels).increment(1);
            });
        });
    }

    fn received(&self, host: &str, bytes: u64) {
        self.with(host, |figures| figures.received.increment(bytes));
    }

    fn sent(&self, host: &str, bytes: u64) {
        self.with(host, |figures| figures.sent.increment(bytes));
    }
}
