//! All services over one store.

use std::{collections::BTreeSet, future::Future, io, pin::pin};

use cairn_node::Node;
use tokio::{net::UnixListener, sync::watch};
use tonic_health::{
    ServingStatus,
    pb::health_server::{Health as HealthService, HealthServer},
    server::HealthReporter,
};

use crate::{
    calls::Calls, config::Gc, connection, incoming::Incoming, methods, routes::Routes, service,
};

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
    let mut incoming = Incoming::new(listener, calls.limits());
    let (close, closing) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            connection = incoming.accept() => {
                let peer = connection.peer().clone();
                let served = connection::serve(connection, Some(peer), &routes, &calls, closing.clone());
                tokio::spawn(served);
            }
        }
    }
    // Who comes now is refused at once, instead of waiting for an answer.
    drop(incoming);
    drop(closing);
    let _ = close.send(());
    close.closed().await;
    Ok(())
}
