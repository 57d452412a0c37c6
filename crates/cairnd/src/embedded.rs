//! The same server inside another program: one connection to it, and no file that leads there.

use std::io;

use cairn_node::Node;
use tokio::net::UnixStream;
use tokio_stream::StreamExt;

use crate::{calls::Calls, server};

/// Starts a server over `node` on the runtime that this runs in, and gives the other end of the only
/// connection that it will have. It ends with the runtime.
///
/// # Errors
/// When the store cannot say its name, or there is no descriptor left.
pub async fn connect(node: &Node) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    let (routes, _) = server::routes(node).await?;
    // The stream never ends, since the server would: for it no connection means no more work.
    let incoming = tokio_stream::once(Ok::<_, io::Error>(theirs)).chain(tokio_stream::pending());
    tokio::spawn(async move {
        let served = server::transport(Calls::default())
            .add_routes(routes)
            .serve_with_incoming(incoming)
            .await;
        if let Err(err) = served {
            tracing::error!("the server inside this process ended: {err}");
        }
    });
    Ok(ours)
}
