//! Spans on their way to a collector. Names are those of OpenTelemetry's conventions for gRPC
//! (semantic conventions 1.38 and later).

use std::{
    fmt::Display,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use cairn_node::Phase;
use cairn_types::Digest;
use http::HeaderMap;
use opentelemetry::{
    KeyValue,
    propagation::{Extractor, TextMapPropagator},
    trace::{SpanKind, Status, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter as Export},
};
use tokio::runtime::Runtime;
use tonic::Code;
use tracing::{Span, Subscriber, info, warn};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};

use crate::config::Config;

/// As every program that sends traces has them, the narrower first; [`Config`] comes before both.
const ENDPOINTS: [&str; 2] = [
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
];
const METHOD: &str = "rpc.method";
/// How long the end of the daemon may wait for the collector, which is beside it as a rule.
const LAST: Duration = Duration::from_secs(1);

/// Spans on their way to a collector.
pub struct Traces {
    provider: SdkTracerProvider,
    /// Of its own, since the log begins before the daemon's, and ends after it.
    runtime: Runtime,
}

impl Traces {
    /// Begins, when an endpoint is named. Nobody waits for the collector.
    ///
    /// # Errors
    /// When it is no endpoint.
    pub fn start(config: &Config) -> Result<Option<Traces>, String> {
        let Some(endpoint) = endpoint(config) else {
            return Ok(None);
        };
        let failed = |err: &dyn Display| format!("cannot send traces to {endpoint}: {err}");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("traces")
            .enable_all()
            .build()
            .map_err(|err| failed(&err))?;
        let exporter = {
            let _inside = runtime.enter();
            let exporter = SpanExporter::builder().with_tonic();
            exporter.with_endpoint(&endpoint).build()
        };
        let exporter = Exporter {
            inner: exporter.map_err(|err| failed(&err))?,
            endpoint,
            failing: AtomicBool::new(false),
        };
        let ratio = Sampler::TraceIdRatioBased(config.tracing.sampling_ratio);
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("cairnd");
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            // Whoever began a trace has decided whether it is kept.
            .with_sampler(Sampler::ParentBased(Box::new(ratio)))
            .with_resource(resource.with_attribute(version).build())
            .build();
        Ok(Some(Traces { provider, runtime }))
    }

    /// What turns spans into traces: ours alone, since the exporter's own would go on without end.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let tracer = self.provider.tracer("cairnd");
        tracing_opentelemetry::layer()
            .with_location(false)
            .with_target(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            // What a line of the log makes an error is for its reader; [`end`] says it of a call.
            .with_error_events_to_status(false)
            .with_tracer(tracer)
            .with_filter(filter_fn(|meta| meta.target().starts_with("cairn")))
    }

    /// Sends what has not been sent, for up to 1 s.
    pub fn end(self) {
        if let Err(err) = self.provider.shutdown_with_timeout(LAST) {
            warn!("some traces were not sent: {err}");
        }
        // To drop it would be to wait for whoever looks the collector's name up.
        self.runtime.shutdown_background();
    }
}

fn endpoint(config: &Config) -> Option<String> {
    let chosen = Some(config.tracing.endpoint.clone());
    let variables = ENDPOINTS.iter().map(|name| std::env::var(name).ok());
    std::iter::once(chosen)
        .chain(variables)
        .flatten()
        .find(|endpoint| !endpoint.is_empty())
}

/// Gives spans the names that a collector looks for, and says when they stop getting there.
#[derive(Debug)]
struct Exporter {
    inner: SpanExporter,
    endpoint: String,
    failing: AtomicBool,
}

impl Export for Exporter {
    async fn export(&self, mut batch: Vec<SpanData>) -> OTelSdkResult {
        batch.iter_mut().for_each(rename);
        let sent = self.inner.export(batch).await;
        match (&sent, self.failing.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(err), false) => warn!("traces do not get to {}: {err}", self.endpoint),
            (Ok(()), true) => info!("traces get to {} again", self.endpoint),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// The span of a call has one name for all in the log, which says the method anyway. To rename it
/// there would be a field, and so a word in every line; and the log's fields have no prefix.
fn rename(span: &mut SpanData) {
    let mut attributes = span.attributes.iter();
    if let Some(method) = attributes.find(|pair| pair.key.as_str() == METHOD) {
        span.name = method.value.to_string().into();
        span.span_kind = SpanKind::Server;
    }
    // As the log has the method; here it is there already.
    span.attributes.retain(|pair| pair.key.as_str() != "rpc");
    for pair in &mut span.attributes {
        if !pair.key.as_str().contains('.') {
            pair.key = format!("cairn.{}", pair.key).into();
        }
    }
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Puts the span of a call into its client's trace.
pub(crate) fn begin(span: &Span, headers: &HeaderMap, path: &str) {
    let parent = TraceContextPropagator::new().extract(&Headers(headers));
    if span.set_parent(parent).is_err() {
        // Nobody listens, or the span is not wanted.
        return;
    }
    span.set_attribute("rpc.system.name", "grpc");
    span.set_attribute(METHOD, path.trim_start_matches('/').to_owned());
}

/// Says how a call ended. Only what is the server's own fault is an error of the span.
pub(crate) fn end(span: &Span, code: Code, message: &str) {
    span.set_attribute("rpc.response.status_code", spelled(code));
    if matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    ) {
        span.set_attribute("error.type", spelled(code));
        span.set_status(Status::error(message.to_owned()));
    }
}

/// As gRPC's own list of codes has it: `NotFound` is `NOT_FOUND`.
fn spelled(code: Code) -> String {
    let mut words = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !words.is_empty() {
            words.push('_');
        }
        words.push(letter.to_ascii_uppercase());
    }
    words
}

/// Says which image the call under way is about.
pub(crate) fn manifest(digest: &dyn Display) {
    Span::current().set_attribute("oci.manifest.digest", digest.to_string());
}

/// Says that a layer of what a call does has come to its next phase.
pub(crate) fn phase(span: &Span, layer: &Digest, phase: Phase) {
    let phase = match phase {
        Phase::Waiting => "waiting",
        Phase::Fetch => "fetch",
        Phase::FetchUnpack => "fetch_unpack",
        Phase::Unpack => "unpack",
        Phase::Sync => "sync",
        Phase::Done => "done",
        Phase::HereAlready => "here_already",
        Phase::Push => "push",
        Phase::Mounted => "mounted",
    };
    let layer = KeyValue::new("cairn.layer", layer.to_string());
    span.add_event("layer", vec![layer, KeyValue::new("cairn.phase", phase)]);
}
