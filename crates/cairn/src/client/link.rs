//! The connection: to a daemon's socket, or to the same server inside this process.

use std::{future::Future, io, path::Path, sync::Mutex, time::Duration};

use cairn_node::Node;
use cairn_types::Namespace;
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
};
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};
use tower::service_fn;

use super::{Result, status};

/// Most bytes of one message either way, as everywhere in containerd's API.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// The header that says whose objects are meant.
const NAMESPACE: &str = "containerd-namespace";

/// A client of one service over a link: `client!(link, path::of::TheClient)`.
macro_rules! client {
    ($link:expr, $client:ty) => {
        <$client>::new($link.channel())
            .max_decoding_message_size($crate::client::link::MESSAGE_BYTES_MAX)
            .max_encoding_message_size($crate::client::link::MESSAGE_BYTES_MAX)
    };
}
pub(super) use client;

/// A connection, and what drives it.
pub(super) struct Link {
    // Before the runtime, which its tasks run in.
    channel: Channel,
    runtime: Runtime,
    namespace: Namespace,
}

impl Link {
    /// To the daemon that listens at `socket`.
    ///
    /// # Errors
    /// Those of connecting; `TimedOut` after `patience`.
    pub(super) fn to(socket: &Path, patience: Duration, namespace: Namespace) -> io::Result<Link> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let stream = runtime.block_on(async {
            // A listener whose queue is full lets callers wait for ever.
            tokio::time::timeout(patience, UnixStream::connect(socket)).await
        });
        let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Link::over(stream, runtime, namespace)
    }

    /// To a server over `node` inside this process.
    ///
    /// # Errors
    /// When the store cannot be read, or there are no descriptors or threads left.
    pub(super) fn inside(node: &Node, namespace: Namespace) -> io::Result<Link> {
        // One thread for each end; what waits for disks has threads of its own.
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let stream = runtime.block_on(cairnd::embedded::connect(node))?;
        Link::over(stream, runtime, namespace)
    }

    fn over(stream: UnixStream, runtime: Runtime, namespace: Namespace) -> io::Result<Link> {
        // The only connection there will be: if it breaks, so does what was under way.
        let stream = Mutex::new(Some(stream));
        let connector = service_fn(move |_| {
            let stream = stream.lock().ok().and_then(|mut stream| stream.take());
            let gone = || io::Error::from(io::ErrorKind::NotConnected);
            std::future::ready(stream.map(TokioIo::new).ok_or_else(gone))
        });
        let endpoint = Endpoint::from_static("http://cairn")
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20);
        let channel = runtime
            .block_on(endpoint.connect_with_connector(connector))
            .map_err(io::Error::other)?;
        Ok(Link {
            channel,
            runtime,
            namespace,
        })
    }

    /// For a client of one service; see [`client!`].
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A request about the namespace of this link.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        // A namespace is made of letters, digits and `-_.`, which any header may have.
        if let Ok(value) = self.namespace.as_str().parse() {
            request.metadata_mut().insert(NAMESPACE, value);
        }
        request
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// The status, as a problem with all the parts that the server sent.
    pub(super) fn wait<T>(
        &self,
        answer: impl Future<Output = std::result::Result<T, Status>>,
    ) -> Result<T> {
        self.runtime
            .block_on(answer)
            .map_err(|s| status::problem(&s))
    }
}
