//! The backend socket: what containerd calls through its `proxy_plugins` of type snapshot, content and
//! diff.
//!
//! The services are those of clients with another contract. containerd keeps namespaces, leases,
//! labels and references itself, and hands down names that have all of that in them
//! (`namespace/sequence/key`). It sends headers along at times, and none when it collects garbage. So
//! here everything lies in one namespace of our own, whatever the headers say, a lease is none of
//! ours, and nothing is collected: containerd lists what is here and removes what it does not know.
//! For the same reason the store is one of its own, which nobody else may use.

mod content;
mod diff;
mod refs;
mod snapshots;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use cairn_node::Node;
use cairn_proto::containerd::services;
use cairn_types::Namespace;
use tokio::{net::UnixListener, sync::watch, task::JoinHandle};
use tonic::{Request, Status, metadata::MetadataValue, service::interceptor::InterceptedService};

use self::refs::Refs;
use crate::{
    caller,
    calls::Calls,
    listen::{Listening, SocketFile},
    routes::Routes,
    server::{self, Health, NO_LIMIT},
    service::Service,
    status::of,
};

/// Where the store is, below that of clients.
const ROOT: &str = "backend";

/// Holds everything. Nobody sees it.
const FLAT: &str = "backend";

static NAMESPACE: LazyLock<Namespace> =
    LazyLock::new(|| Namespace::parse(FLAT).expect("a well-formed name"));

/// The root of the backend's store, for a daemon with this one.
pub fn root(root: &Path) -> PathBuf {
    root.join(ROOT)
}

/// What its services have: those of clients, and what is different here.
#[derive(Clone)]
struct Backend {
    node: Node,
    service: Service,
    refs: Arc<Refs>,
}

/// Puts a request where everything is, and takes it out of a lease that we do not have.
#[allow(clippy::result_large_err, reason = "tonic's own type")]
fn flat(mut request: Request<()>) -> Result<Request<()>, Status> {
    let headers = request.metadata_mut();
    headers.insert(caller::NAMESPACE, MetadataValue::from_static(FLAT));
    headers.remove(caller::LEASE);
    Ok(request)
}

/// Everything that containerd may call.
///
/// # Errors
/// When the store's snapshots cannot be listed.
pub async fn routes(node: &Node) -> io::Result<(Routes, Health)> {
    let known = node.clone();
    let refs = tokio::task::spawn_blocking(move || Refs::read(&known, &NAMESPACE));
    let refs = refs.await.map_err(io::Error::other)?;
    let backend = Backend {
        node: node.clone(),
        service: Service::new(node, ""),
        refs: Arc::new(refs.map_err(|err| io::Error::other(of(&err).message().to_owned()))?),
    };
    let (health, health_service) = server::health().await;
    let mut routes = Routes::default().add_service(health_service);
    macro_rules! serve {
        ($($server:path => $service:expr),* $(,)?) => {$({
            use $server as Server;
            let server = Server::new($service)
                .max_decoding_message_size(NO_LIMIT)
                .max_encoding_message_size(NO_LIMIT);
            routes = routes.add_service(InterceptedService::new(server, flat));
        })*};
    }
    serve![
        services::content::v1::content_server::ContentServer => backend.clone(),
        services::diff::v1::diff_server::DiffServer => backend.clone(),
        services::snapshots::v1::snapshots_server::SnapshotsServer => backend.clone(),
        services::version::v1::version_server::VersionServer => backend.service.clone(),
    ];
    Ok((routes, health))
}

/// Serves containerd until `stop`, and then lets what is under way come to its end.
pub async fn serve(
    node: &Node,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (routes, _) = routes(node).await?;
    server::serve_routes(routes, Calls::default(), listener, stop).await
}

/// A backend that is being served.
pub struct Serving {
    server: JoinHandle<io::Result<()>>,
    calls: Calls,
    health: Health,
    file: Option<SocketFile>,
}

impl Serving {
    /// Begins to serve, until `draining` turns true.
    pub async fn start(
        node: &Node,
        listening: Listening,
        calls: Calls,
        mut draining: watch::Receiver<bool>,
    ) -> io::Result<Serving> {
        let (routes, health) = routes(node).await?;
        let stop = async move {
            let _ = draining.wait_for(|draining| *draining).await;
        };
        let served = server::serve_routes(routes, calls.clone(), listening.listener, stop);
        Ok(Serving {
            server: tokio::spawn(served),
            calls,
            health,
            file: listening.file,
        })
    }

    /// What is under way.
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// What it says of itself.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// From now on nobody should come.
    pub async fn stopping(&mut self) {
        self.health.unwell().await;
        self.file = None;
    }

    /// Waits for the end of the server.
    pub async fn ended(&mut self) -> io::Result<()> {
        let ended = (&mut self.server).await;
        ended.unwrap_or_else(|err| Err(io::Error::other(err)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.server.abort();
    }
}
