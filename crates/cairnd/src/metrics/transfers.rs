//! Figures of pulls and pushes.

use std::sync::Arc;

use cairn_node::{Node, Transfer, TransferStep};
use cairn_types::ErrorKind;
use metrics::{
    counter, describe_counter, describe_histogram, gauge, histogram, with_local_recorder,
};
use metrics_exporter_prometheus::PrometheusRecorder;

use super::Socket;

/// How long pulls took.
pub(super) const SECONDS: &str = "cairn_pull_seconds";

/// From an image that is here already to one of many gigabytes.
pub(super) const SECONDS_BOUNDS: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0,
];

/// How such work ends.
const RESULTS: [&str; 3] = ["ok", "error", "canceled"];

pub(super) fn describe() {
    describe_counter!("cairn_pulls_total", "Pulls, by result.");
    describe_counter!("cairn_pushes_total", "Pushes, by result.");
    describe_histogram!(SECONDS, "How long pulls took that came to their end.");
    for result in RESULTS {
        counter!("cairn_pulls_total", "result" => result).absolute(0);
        counter!("cairn_pushes_total", "result" => result).absolute(0);
    }
}

/// Counts those of a store from now on.
pub(super) fn watch(node: &Node, recorder: Arc<PrometheusRecorder>) {
    let running = |kind| {
        let labels = [("kind", kind), ("socket", Socket::Public.label())];
        with_local_recorder(&*recorder, || gauge!("cairn_inflight", &labels))
    };
    let (pulls, pushes) = (running("pull"), running("push"));
    for gauge in [&pulls, &pushes] {
        gauge.set(0.0);
    }
    node.observe_transfers(move |what, step| {
        let (running, total) = match what {
            Transfer::Pull => (&pulls, "cairn_pulls_total"),
            Transfer::Push => (&pushes, "cairn_pushes_total"),
        };
        let TransferStep::Ended { took, failed } = step else {
            running.increment(1.0);
            return;
        };
        running.decrement(1.0);
        let result = match failed {
            None => "ok",
            Some(ErrorKind::Canceled) => "canceled",
            Some(_) => "error",
        };
        with_local_recorder(&*recorder, || {
            counter!(total, "result" => result).increment(1);
            if what == Transfer::Pull && failed.is_none() {
                histogram!(SECONDS).record(took.as_secs_f64());
            }
        });
    });
}
