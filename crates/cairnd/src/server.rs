//! All services over one store.

use std::{future::Future, io};

use cairn_node::Node;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::service::Routes;

use crate::service;

/// Most bytes of one message either way (containerd `defaults`).
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Everything that clients of containerd's public socket may call.
pub async fn routes(node: &Node) -> io::Result<Routes> {
    let uuid = node.uuid().map_err(io::Error::other)?;
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(cairn_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(io::Error::other)?;
    Ok(service::public(node, &uuid)
        .add_service(health_service)
        .add_service(reflection))
}

/// Serves until `stop`, and then lets what is under way come to its end.
pub async fn serve(
    node: &Node,
    listener: UnixListener,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let incoming = UnixListenerStream::new(listener);
    tonic::transport::Server::builder()
        // Blobs come in large frames; with the defaults of HTTP/2 a sender waits after each 64 KiB.
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .max_frame_size(1 << 20)
        .add_routes(routes(node).await?)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
        .map_err(io::Error::other)
}
