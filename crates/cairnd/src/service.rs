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
mod snapshots;
mod version;

use cairn_meta::Timestamp;
use cairn_node::Node;
use cairn_proto::{cairn::v1, containerd::services};

pub(crate) use self::snapshots::{NAME as SNAPSHOTTER, REF};
use crate::{routes::Routes, server::NO_LIMIT};

/// What every service has.
#[derive(Clone)]
pub struct Service {
    node: Node,
    uuid: std::sync::Arc<str>,
    started: Timestamp,
    linking: std::sync::Arc<linking::Linking>,
}

impl Service {
    /// One over a store that has this name for itself.
    pub(crate) fn new(node: &Node, uuid: &str) -> Service {
        Service {
            node: node.clone(),
            uuid: uuid.into(),
            started: Timestamp::now(),
            linking: std::sync::Arc::default(),
        }
    }
}

/// The public socket's services.
pub fn public(node: &Node, uuid: &str) -> Routes {
    let service = Service::new(node, uuid);
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
        services::version::v1::version_server::VersionServer,
        v1::bundles_server::BundlesServer,
        v1::images_server::ImagesServer,
        v1::store_server::StoreServer,
    ]
}
