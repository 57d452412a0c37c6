//! All services over one store.

use std::{collections::BTreeSet, future::Future, io};

use cairn_node::Node;
use tokio::{net::UnixListener, sync::watch};
use tonic::transport::Server;
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::HealthReporter,
};
use tower::layer::util::{Identity, Stack};

use crate::{calls::Calls, config::Gc, incoming::Incoming, methods, routes::Routes, service};

/// What services are told of the size of messages: [`Calls`] measure them, for all services alike.
pub(crate) const NO_LIMIT: usize = usize::MAX;

/// What `grpc.health.v1` answers.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    services: BTreeSet<String>,
}

impl Health {
    async fn set(&self, status: ServingStatus) {
        for service in &self.services {
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// From now on nobody should come who has elsewhere to go: the daemon stops, or takes no changes.
    pub async fn unwell(&self) {
        self.set(ServingStatus::NotServing).await;
    }
}

/// The service that says how the others are: well.
pub(crate) async fn health() -> (Health, HealthServer<impl HealthService>) {
    let (reporter, service) = tonic_health::server::health_reporter();
    let services = methods::all().into_values().map(|method| method.service);
    let health = Health {
        reporter,
        services: services.chain([String::new()]).collect(),
    };
    health.set(ServingStatus::Serving).await;
    (health, service)
}

/// The API that is served, and the version whose behaviour is that of these services.
pub const API: &str = "containerd 2.3";

/// Everything that clients of containerd's public socket may call; `gc` are the rules by which the
/// store's garbage is collected unasked, if it is.
pub async fn routes(node: &Node, gc: Option<watch::Receiver<Gc>>) -> io::Result<(Routes, Health)> {
    let uuid = node.uuid().map_err(io::Error::other)?;
    let (health, health_service) = health().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(cairn_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(io::Error::other)?;
    let routes = service::public(node, &uuid, gc)
        .add_service(health_service)
        .add_service(reflection);
    Ok((routes, health))
}

/// Serves whoever can open the socket until `stop`, and then lets what is under way come to its end.
pub async fn serve(
    node: &Node,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (routes, _) = routes(node, None).await?;
    serve_routes(routes, Calls::default(), listener, stop).await
}

/// As [`serve`], with what surrounds the calls.
pub async fn serve_routes(
    routes: Routes,
    calls: Calls,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let incoming = Incoming::new(listener, calls.limits());
    transport(calls)
        .serve_with_incoming_shutdown(routes, incoming, stop)
        .await
        .map_err(io::Error::other)
}

/// HTTP/2 as blobs want it.
pub(crate) fn transport(calls: Calls) -> Server<Stack<Calls, Identity>> {
    let limits = calls.limits();
    let keepalive = (!limits.keepalive.is_zero()).then_some(limits.keepalive);
    Server::builder()
        .max_concurrent_streams(limits.streams)
        .http2_keepalive_interval(keepalive)
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        // Blobs come in large frames; with the defaults of HTTP/2 a sender waits after each 64 KiB.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        .layer(calls)
}
