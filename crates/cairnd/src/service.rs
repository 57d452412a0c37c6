//! The services: one file for each, which parses a request, calls the node and converts the answer.

mod cairn;
mod containers;
mod content;
mod diff;
mod events;
mod images;
mod introspection;
mod leases;
mod linking;
mod namespaces;
mod news;
mod snapshots;
mod streaming;
mod transfer;
mod version;

use cairn_meta::Timestamp;
use cairn_node::{EngineKind, Node};
use cairn_proto::{cairn::v1, containerd::services};
use tokio::sync::watch;
use tonic::Status;

pub(crate) use self::{
    cairn::explain,
    snapshots::{NAME as SNAPSHOTTER, REF},
};
use crate::{
    config::Gc,
    routes::Routes,
    server::NO_LIMIT,
    status::{self, blocking},
    streams::Streams,
    turns,
};

/// What every service has.
#[derive(Clone)]
pub struct Service {
    node: Node,
    uuid: std::sync::Arc<str>,
    started: Timestamp,
    linking: std::sync::Arc<linking::Linking>,
    /// Those that clients have open for other calls.
    streams: Streams,
    /// Whether looking at records waits for no commit.
    prompt: bool,
    /// When garbage is collected; `None` where nobody does it unasked.
    gc: Option<watch::Receiver<Gc>>,
}

impl Service {
    /// One over a store that has this name for itself.
    pub(crate) fn new(node: &Node, uuid: &str) -> Service {
        Service {
            node: node.clone(),
            uuid: uuid.into(),
            started: Timestamp::now(),
            linking: std::sync::Arc::default(),
            streams: Streams::default(),
            // With sled a look waits while a commit syncs, which is long and happens all the time.
            prompt: node.meta().engine() == EngineKind::Redb.name(),
            gc: None,
        }
    }

    /// Looks at a few records: there and then, as a rule.
    ///
    /// They lie in memory nearly always, where finding them takes less than waking another thread to
    /// do it, twice: there and back. When they have to come from the disk this worker of the runtime
    /// stands still until they do. So that the others' calls never do, at most all workers but one may
    /// be at it; when no worker can be spared, or the process that asks has no turn left, it is done
    /// where [`blocking`] does it. `block_in_place` is no way out: it hands over the worker's tasks to
    /// another thread first, wherever the records are.
    async fn look<T, F>(&self, look: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(&Node) -> Result<T, Status> + Send + 'static,
    {
        if self.prompt
            && let Some(_here) = turns::here()
        {
            return status::unpanicked(|| look(&self.node));
        }
        let node = self.node.clone();
        blocking(move || look(&node)).await
    }
}

/// The public socket's services, over a store whose garbage is collected by these rules, if it is.
pub fn public(node: &Node, uuid: &str, gc: Option<watch::Receiver<Gc>>) -> Routes {
    let service = Service {
        gc,
        ..Service::new(node, uuid)
    };
    macro_rules! routes {
        ($($server:path),* $(,)?) => {{
            let mut routes = Routes::default();
            $(routes = {
                use $server as Server;
                let server = Server::new(service.clone())
                    .max_decoding_message_size(NO_LIMIT)
                    .max_encoding_message_size(NO_LIMIT);
                routes.add_service(server)
            };)*
            routes
        }};
    }
    routes![
        services::containers::v1::containers_server::ContainersServer,
        services::content::v1::content_server::ContentServer,
        services::diff::v1::diff_server::DiffServer,
        services::events::v1::events_server::EventsServer,
        services::images::v1::images_server::ImagesServer,
        services::introspection::v1::introspection_server::IntrospectionServer,
        services::leases::v1::leases_server::LeasesServer,
        services::namespaces::v1::namespaces_server::NamespacesServer,
        services::snapshots::v1::snapshots_server::SnapshotsServer,
        services::streaming::v1::streaming_server::StreamingServer,
        services::transfer::v1::transfer_server::TransferServer,
        services::version::v1::version_server::VersionServer,
        v1::bundles_server::BundlesServer,
        v1::images_server::ImagesServer,
        v1::store_server::StoreServer,
    ]
}
