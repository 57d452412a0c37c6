//! Figures of this process, of its calls and of the store, in Prometheus' text.
//!
//! They belong to a recorder of their own, not to the process, so that a program that embeds the
//! server keeps its own.

mod process;
mod registries;
mod store;
mod transfers;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use cairn_node::{GcReport, Node};
use cairn_types::LayerTiming;
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram, with_local_recorder};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use tokio::sync::Mutex;
use tonic::Code;
use tracing::error;

use crate::{calls::code_name, config, methods::Method};

/// Go's usual bounds, in seconds, and some below, where most of our calls end.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// The store is counted at most once in so long, however often somebody asks.
const COUNT_EVERY: Duration = Duration::from_secs(5);

/// The bounds of a count of transactions in one commit.
const GROUP: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// Which socket, and so which store, a figure is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    /// That of clients.
    Public,
    /// That of containerd.
    Backend,
}

impl Socket {
    /// The value of its label.
    pub fn label(self) -> &'static str {
        match self {
            Socket::Public => "public",
            Socket::Backend => "backend",
        }
    }
}

/// All figures.
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    options: config::Metrics,
    counted: Mutex<Option<Instant>>,
    requests: Arc<registries::Requests>,
}

/// The figures of one method.
pub struct CallFigures {
    started: Counter,
    /// Messages to the client.
    pub sent: Counter,
    /// Their bytes.
    pub sent_bytes: Counter,
    received: Counter,
    received_bytes: Counter,
    running: Gauge,
    seconds: Histogram,
    by_code: [OnceLock<Counter>; 17],
    recorder: Arc<PrometheusRecorder>,
    labels: Vec<metrics::Label>,
}

impl CallFigures {
    /// A call has begun.
    pub fn begun(&self) {
        self.started.increment(1);
        self.running.increment(1.0);
    }

    /// Messages from the client, and their bytes.
    pub fn received(&self) -> (Counter, Counter) {
        (self.received.clone(), self.received_bytes.clone())
    }

    /// A call has ended.
    pub fn handled(&self, code: Code, took: Duration) {
        let known = &self.by_code[usize::try_from(code as i32).unwrap_or_default()];
        let counter = known.get_or_init(|| {
            let mut labels = self.labels.clone();
            labels.push(metrics::Label::from_static_parts(
                "grpc_code",
                code_name(code),
            ));
            with_local_recorder(&*self.recorder, || {
                counter!("grpc_server_handled_total", labels)
            })
        });
        counter.increment(1);
        self.running.decrement(1.0);
        self.seconds.record(took.as_secs_f64());
    }
}

impl Metrics {
    /// All of them at nought.
    ///
    /// # Errors
    /// None that a configuration can cause.
    pub fn new(options: &config::Metrics) -> Result<Metrics, String> {
        let builder = PrometheusBuilder::new()
            .set_buckets(SECONDS)
            .and_then(|builder| {
                let sizes = Matcher::Full("cairn_commit_group_size".to_owned());
                builder.set_buckets_for_metric(sizes, GROUP)
            })
            .and_then(|builder| {
                let pulls = Matcher::Full(transfers::SECONDS.to_owned());
                builder.set_buckets_for_metric(pulls, transfers::SECONDS_BOUNDS)
            })
            .map_err(|err| err.to_string())?;
        let recorder = Arc::new(builder.build_recorder());
        let handle = recorder.handle();
        let new = Metrics {
            requests: Arc::new(registries::Requests::new(Arc::clone(&recorder))),
            recorder,
            handle,
            options: options.clone(),
            counted: Mutex::new(None),
        };
        with_local_recorder(&*new.recorder, || new.describe());
        Ok(new)
    }

    fn describe(&self) {
        macro_rules! describe {
            ($($kind:ident $name:literal $text:literal;)*) => {
                $(metrics::$kind!($name, $text);)*
            };
        }
        describe! {
            describe_counter "grpc_server_started_total" "Calls begun.";
            describe_counter "grpc_server_handled_total" "Calls ended, by code.";
            describe_counter "grpc_server_msg_received_total" "Messages from clients.";
            describe_counter "grpc_server_msg_sent_total" "Messages to clients.";
            describe_histogram "grpc_server_handling_seconds" "From the begin of a call to its end.";
            describe_counter "cairn_grpc_received_bytes_total" "Bytes of messages from clients.";
            describe_counter "cairn_grpc_sent_bytes_total" "Bytes of messages to clients.";
            describe_histogram "cairn_commit_seconds" "From the begin of a commit of records to its sync.";
            describe_histogram "cairn_commit_group_size" "Transactions that shared a commit.";
            describe_histogram "cairn_layer_phase_seconds" "What the time of unpacking a layer went into.";
            describe_gauge "cairn_store_read_only" "1 when a store takes no changes since a sync failed.";
            describe_gauge "cairn_build_info" "1, with the version of this program.";
            describe_counter "cairn_gc_runs_total" "Garbage collections, by result.";
            describe_histogram "cairn_gc_seconds" "How long collections took, beside other calls.";
            describe_histogram "cairn_gc_pause_seconds" "The longest that a change waited for a collection.";
            describe_counter "cairn_gc_freed_bytes_total" "Bytes on disk that collections freed.";
            describe_counter "cairn_gc_removed_total" "What collections removed, by kind.";
        }
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        gauge!("cairn_build_info", &labels).set(1.0);
        // There from the first scrape on, so that rates have something to start from.
        for result in ["ok", "error"] {
            counter!("cairn_gc_runs_total", "result" => result).absolute(0);
        }
        counter!("cairn_gc_freed_bytes_total").absolute(0);
        if self.options.containerd_names {
            let labels = [("version", env!("CARGO_PKG_VERSION")), ("revision", "")];
            counter!("containerd_build_info_total", &labels).absolute(1);
        }
        store::describe();
        transfers::describe();
        registries::describe();
    }

    /// Those of a method's calls.
    pub fn of_calls(&self, method: &Method, socket: Socket) -> CallFigures {
        let labels = vec![
            metrics::Label::from_static_parts("grpc_type", method.kind.label()),
            metrics::Label::new("grpc_service", method.service.clone()),
            metrics::Label::new("grpc_method", method.name.clone()),
            metrics::Label::from_static_parts("socket", socket.label()),
        ];
        let running = [("kind", "call"), ("socket", socket.label())];
        with_local_recorder(&*self.recorder, || CallFigures {
            started: counter!("grpc_server_started_total", labels.clone()),
            received: counter!("grpc_server_msg_received_total", labels.clone()),
            sent: counter!("grpc_server_msg_sent_total", labels.clone()),
            received_bytes: counter!("cairn_grpc_received_bytes_total", labels.clone()),
            sent_bytes: counter!("cairn_grpc_sent_bytes_total", labels.clone()),
            running: gauge!("cairn_inflight", &running),
            seconds: match self.options.grpc_histogram {
                true => histogram!("grpc_server_handling_seconds", labels.clone()),
                false => Histogram::noop(),
            },
            by_code: Default::default(),
            recorder: self.recorder.clone(),
            labels: labels.clone(),
        })
    }

    /// Counts every commit of a store's records, every layer unpacked there, every pull, every push and every
    /// request to a registry, from now on.
    pub fn watch(&self, node: &Node, socket: Socket) {
        let store = ("store", socket.label());
        let (seconds, sizes) = with_local_recorder(&*self.recorder, || {
            let engine = ("engine", node.meta().engine());
            (
                histogram!("cairn_commit_seconds", &[engine, store]),
                histogram!("cairn_commit_group_size", &[store]),
            )
        });
        node.meta().observe(move |committed| {
            seconds.record(committed.took.as_secs_f64());
            // Never more than a group holds.
            sizes.record(u32::try_from(committed.transactions).map_or(f64::NAN, f64::from));
        });
        let parts = LayerTiming::default().parts();
        let phases = with_local_recorder(&*self.recorder, || {
            parts.map(|(phase, _)| {
                histogram!("cairn_layer_phase_seconds", &[("phase", phase), store])
            })
        });
        node.observe_layers(move |timing| {
            for (phase, (_, took)) in phases.iter().zip(timing.parts()) {
                phase.record(took.as_secs_f64());
            }
        });
        if socket == Socket::Public {
            transfers::watch(node, self.recorder.clone());
            self.requests.learn(node);
            node.observe_registries(Arc::clone(&self.requests) as _);
        }
    }

    /// A collection has ended, with a report when it succeeded.
    pub fn collected(&self, report: Option<&GcReport>, took: Duration) {
        with_local_recorder(&*self.recorder, || {
            let result = if report.is_some() { "ok" } else { "error" };
            counter!("cairn_gc_runs_total", "result" => result).increment(1);
            let took = report.map_or(took, |report| report.took).as_secs_f64();
            let pause = report.map(|report| report.pause).unwrap_or_default();
            histogram!("cairn_gc_seconds").record(took);
            histogram!("cairn_gc_pause_seconds").record(pause.as_secs_f64());
            if self.options.containerd_names {
                let status = if report.is_some() { "success" } else { "fail" };
                counter!("containerd_gc_collections_total", "status" => status).increment(1);
                histogram!("containerd_gc_gc_seconds").record(took);
            }
            let Some(report) = report else { return };
            counter!("cairn_gc_freed_bytes_total").increment(report.freed());
            for (kind, count) in [
                ("images", report.images),
                ("content", report.content),
                ("snapshots", report.snapshots),
                ("ingests", report.ingests),
                ("leases", report.leases),
            ] {
                counter!("cairn_gc_removed_total", "kind" => kind).increment(count.removed);
            }
        });
    }

    /// All figures as they are now, of these stores.
    pub async fn render(&self, stores: &[(Socket, Node)]) -> String {
        let mut counted = self.counted.lock().await;
        if counted.is_none_or(|at| at.elapsed() > COUNT_EVERY) {
            for (socket, node) in stores {
                let (node, requests) = (node.clone(), Arc::clone(&self.requests));
                let learns = *socket == Socket::Public;
                let count = move || {
                    if learns {
                        requests.learn(&node);
                    }
                    store::count(&node)
                };
                let found = tokio::task::spawn_blocking(count).await;
                match found {
                    Ok(Ok(found)) => with_local_recorder(&*self.recorder, || found.set(*socket)),
                    Ok(Err(reason)) => error!("cannot count what is stored: {reason}"),
                    Err(err) => error!("counting what is stored was given up: {err}"),
                }
            }
            *counted = Some(Instant::now());
        }
        drop(counted);
        with_local_recorder(&*self.recorder, || {
            for (socket, node) in stores {
                let broken = u64::from(node.read_only().is_some());
                set(
                    &gauge!("cairn_store_read_only", "store" => socket.label()),
                    broken,
                );
            }
        });
        let mut text = self.handle.render();
        process::write(&mut text);
        text
    }

    /// Folds recorded times into their histograms; without it they pile up until somebody looks.
    pub fn fold(&self) {
        self.handle.run_upkeep();
    }
}

/// Sets a gauge to a count. Those beyond 2^53 lose their last digits.
#[allow(clippy::cast_precision_loss, reason = "figures are floats")]
fn set(gauge: &Gauge, value: u64) {
    gauge.set(value as f64);
}
