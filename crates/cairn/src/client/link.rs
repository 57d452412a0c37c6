//! The connection: to a daemon's socket, or to the same server inside this process.

use std::{
    error::Error as _,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::{Pin, pin},
    sync::Mutex,
    time::Duration,
};

use cairn_proto::containerd::services::version::v1::version_client::VersionClient;
use cairn_types::{ErrorKind, Namespace};
use cairnd::embedded::Embedded;
use hyper_util::rt::TokioIo;
use tokio::{
    net::UnixStream,
    runtime::{Builder, Runtime},
};
use tonic::{Request, Response, Status, Streaming, transport::Endpoint};
use tower::service_fn;

use super::{Result, calls::Told, status};
use crate::error::Problem;

/// Most bytes of one message either way, as everywhere in containerd's API.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Most bytes of what comes around the messages. A failure stands there with all its parts, and there
/// may be names of files among them.
const HEADERS_BYTES_MAX: u32 = 1 << 20;

/// The header that says whose objects are meant.
const NAMESPACE: &str = "containerd-namespace";

/// A client of one service over a link: `client!(link, path::of::TheClient<_>)`.
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
    channel: Told,
    runtime: Runtime,
    namespace: Namespace,
    /// Where the daemon listens; `None` inside this process.
    address: Option<PathBuf>,
}

/// Why a daemon was not reached.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The kernel says so.
    Io(io::Error),
    /// Nothing came in time.
    Late,
    /// The daemon says so.
    Said(Status),
}

impl From<io::Error> for Refusal {
    fn from(err: io::Error) -> Refusal {
        Refusal::Io(err)
    }
}

impl Link {
    /// To the daemon that listens at `socket`, once it has answered.
    ///
    /// # Errors
    /// Those of connecting, and of the first call; `Late` after `patience`.
    pub(super) fn to(
        socket: &Path,
        patience: Duration,
        namespace: Namespace,
    ) -> std::result::Result<Link, Refusal> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let opening = async {
            let stream = UnixStream::connect(socket).await?;
            let channel = Told(over(stream).await?);
            // A listener takes connections though nobody accepts them: only an answer is one.
            let mut version = VersionClient::new(channel.clone());
            version.version(()).await.map_err(Refusal::Said)?;
            Ok::<_, Refusal>(channel)
        };
        let opened = runtime.block_on(async { tokio::time::timeout(patience, opening).await });
        let channel = opened.map_err(|_| Refusal::Late)??;
        Ok(Link {
            channel,
            runtime,
            namespace,
            address: Some(socket.to_owned()),
        })
    }

    /// To a server inside this process.
    ///
    /// # Errors
    /// When the store cannot be read, or there are no descriptors or threads left.
    pub(super) fn inside(server: &Embedded, namespace: Namespace) -> io::Result<Link> {
        // One thread for each end; what waits for disks has threads of its own.
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let opened = runtime.block_on(async { over(server.connect().await?).await });
        Ok(Link {
            channel: Told(opened?),
            runtime,
            namespace,
            address: None,
        })
    }

    /// Where the daemon listens; `None` inside this process.
    pub(super) fn address(&self) -> Option<&Path> {
        self.address.as_deref()
    }

    /// For a client of one service; see [`client!`].
    pub(super) fn channel(&self) -> Told {
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
        self.run(async { answer.await.map_err(|status| self.problem(&status)) })
    }

    /// Waits for all the messages of an answer.
    ///
    /// # Errors
    /// As [`Link::wait`].
    pub(super) fn all<T>(
        &self,
        answer: impl Future<Output = std::result::Result<Response<Streaming<T>>, Status>>,
    ) -> Result<Vec<T>> {
        self.wait(async {
            let mut messages = answer.await?.into_inner();
            let mut all = Vec::new();
            while let Some(message) = messages.message().await? {
                all.push(message);
            }
            Ok(all)
        })
    }

    /// Waits for work that is made of several answers.
    pub(super) fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut result = None;
        self.drive(pin!(async { result = Some(work.await) }));
        result.unwrap_or_else(|| unreachable!("what was driven to its end has a result"))
    }

    /// Of no type, unlike the work itself: the machinery of a runtime is compiled once.
    fn drive(&self, work: Pin<&mut dyn Future<Output = ()>>) {
        self.runtime.block_on(work);
    }

    /// A status as a problem, for the parts of [`Link::run`].
    pub(super) fn problem(&self, status: &Status) -> Problem {
        // What a server says has no source; a connection that broke has.
        let Some(source) = status.source() else {
            return status::problem(status);
        };
        let cause = innermost(source);
        match &self.address {
            None => {
                let reason = "the server inside this process broke off";
                Problem::new(ErrorKind::Internal, "", "", reason).cause(cause)
            }
            Some(socket) => status::unreachable(
                socket,
                ErrorKind::Unavailable,
                "it went away before it had answered",
            )
            .cause(cause)
            .next("systemctl status cairnd"),
        }
    }
}

/// The errors above only say that something broke.
fn innermost(err: &(dyn std::error::Error + 'static)) -> String {
    let mut err = err;
    while let Some(source) = err.source() {
        err = source;
    }
    err.to_string()
}

async fn over(stream: UnixStream) -> io::Result<tonic::transport::Channel> {
    // The only connection there will be: if it breaks, so does what was under way.
    let stream = Mutex::new(Some(stream));
    let connector = service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        std::future::ready(stream.map(TokioIo::new).ok_or_else(gone))
    });
    Endpoint::from_static("http://cairn")
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(16 << 20)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .connect_with_connector(connector)
        .await
        .map_err(io::Error::other)
}
