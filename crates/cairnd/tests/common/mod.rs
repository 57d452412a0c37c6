//! The server in the test's own process, on a socket and a root that go with it, and clients that
//! carry a namespace and a lease.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    reason = "each test file uses a part"
)]

pub mod archive;
pub mod events;
pub mod layer;
pub mod own;
pub mod snapshots;
pub mod transfer;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use cairn_node::{EngineKind, Node, NodeOptions, Sharing};
use cairn_proto::{
    cairn::v1::{images_client::ImagesClient as CairnImagesClient, store_client::StoreClient},
    containerd::{
        services::{
            containers::v1::containers_client::ContainersClient,
            content::v1::{
                InfoRequest, WriteAction, WriteContentRequest, WriteContentResponse,
                content_client::ContentClient,
            },
            diff::v1::diff_client::DiffClient,
            events::v1::events_client::EventsClient,
            images::v1::images_client::ImagesClient,
            introspection::v1::introspection_client::IntrospectionClient,
            leases::v1::{CreateRequest, leases_client::LeasesClient},
            namespaces::v1::namespaces_client::NamespacesClient,
            snapshots::v1::snapshots_client::SnapshotsClient,
            streaming::v1::streaming_client::StreamingClient,
            transfer::v1::transfer_client::TransferClient,
            version::v1::version_client::VersionClient,
        },
        types::Descriptor,
    },
};
use cairn_types::Digest;
use prost_types::FieldMask;
use tempfile::TempDir;
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Response, Status, Streaming,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// As large as containerd's clients take.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A store that is served on a socket.
pub struct Served {
    pub node: Node,
    pub channel: Channel,
    pub stop: oneshot::Sender<()>,
}

impl Served {
    /// Opens the store at `root` and has it served at `socket` until `stop` goes.
    pub async fn start<F>(
        options: NodeOptions,
        socket: &Path,
        serve: impl FnOnce(Node, UnixListener, oneshot::Receiver<()>) -> F,
    ) -> Served
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let node = Node::open(options).expect("store");
        let listener = cairnd::listen::at(socket).await.expect("socket");
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(serve(node.clone(), listener, stopped));
        Served {
            node,
            channel: connect(socket).await,
            stop,
        }
    }
}

async fn connect(socket: &Path) -> Channel {
    let uri = format!("unix://{}", socket.display());
    let endpoint = Endpoint::from_shared(uri).expect("address");
    endpoint.connect().await.expect("connection")
}

/// The end of a server, as it waits for it.
pub async fn told(stopped: oneshot::Receiver<()>) {
    let _ = stopped.await;
}

/// A server and its root.
pub struct Server {
    pub work: TempDir,
    pub node: Node,
    channel: Channel,
    _stop: oneshot::Sender<()>,
}

impl Server {
    /// One over an empty store.
    pub async fn start() -> Server {
        Server::sharing(Sharing::Shared).await
    }

    /// The same, whose namespaces let one another have that much.
    pub async fn sharing(sharing: Sharing) -> Server {
        let work = TempDir::new().expect("temporary directory");
        let (root, socket) = (work.path().join("root"), work.path().join("sock"));
        let options = NodeOptions {
            sharing,
            ..NodeOptions::new(root, EngineKind::Redb)
        };
        let served = Served::start(options, &socket, |node, listener, stopped| async move {
            cairnd::server::serve(&node, listener, told(stopped)).await
        });
        let served = served.await;
        Server {
            work,
            node: served.node,
            channel: served.channel,
            _stop: served.stop,
        }
    }

    pub fn client(&self, ns: &str) -> Client {
        Client {
            channel: self.channel.clone(),
            headers: Headers {
                ns: Some(ns.to_owned()),
                lease: None,
            },
        }
    }

    /// A client with a connection of its own.
    pub async fn apart(&self, ns: &str) -> Client {
        let mut client = self.client(ns);
        client.channel = connect(&self.path("sock")).await;
        client
    }

    /// A client that says no namespace.
    pub fn nobody(&self) -> Client {
        let mut client = self.client("");
        client.headers.ns = None;
        client
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }
}

/// The headers of a client's calls.
#[derive(Clone)]
pub struct Headers {
    ns: Option<String>,
    lease: Option<String>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let headers = [
            ("containerd-namespace", &self.ns),
            ("containerd-lease", &self.lease),
        ];
        for (name, value) in headers {
            if let Some(value) = value {
                // As bytes: not every name is ASCII.
                let value = value.as_bytes().try_into().expect("header");
                request.metadata_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}

pub type Intercepted = InterceptedService<Channel, Headers>;

/// Typed clients of one namespace.
#[derive(Clone)]
pub struct Client {
    channel: Channel,
    headers: Headers,
}

macro_rules! clients {
    ($($name:ident: $client:ident),* $(,)?) => {
        impl Client {
            $(pub fn $name(&self) -> $client<Intercepted> {
                $client::with_interceptor(self.channel.clone(), self.headers.clone())
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(2 * MESSAGE_BYTES_MAX)
            })*
        }
    };
}
clients! {
    cairn_images: CairnImagesClient, cairn_store: StoreClient,
    containers: ContainersClient, content: ContentClient, diff: DiffClient, events: EventsClient, images: ImagesClient,
    introspection: IntrospectionClient, leases: LeasesClient, namespaces: NamespacesClient,
    snapshots: SnapshotsClient, streaming: StreamingClient, transfers: TransferClient, version: VersionClient,
}

impl Client {
    /// The same client under a lease, which need not exist.
    pub fn under(&self, lease: &str) -> Client {
        let mut client = self.clone();
        client.headers.lease = Some(lease.to_owned());
        client
    }

    /// The same client under a lease that is made.
    pub async fn leased(&self, lease: &str) -> Client {
        let request = CreateRequest {
            id: lease.to_owned(),
            labels: BTreeMap::new(),
        };
        self.leases().create(request).await.expect("lease");
        self.under(lease)
    }

    /// Opens a stream of writes with its first message; its answer.
    pub async fn writer(&self, first: WriteContentRequest) -> (Writer, Answer) {
        let (send, receive) = mpsc::channel(8);
        send.send(first).await.expect("message");
        let stream = self.content().write(ReceiverStream::new(receive)).await;
        let mut writer = Writer {
            send: Some(send),
            answers: stream.map(Response::into_inner),
        };
        let answer = writer.answer().await;
        (writer, answer)
    }

    /// Opens a stream, sends one message, and ends it.
    pub async fn write_one(&self, message: WriteContentRequest) -> Answer {
        let (writer, answer) = self.writer(message).await;
        writer.end().await;
        answer
    }

    /// Makes a blob of this text.
    pub async fn put(&self, text: &str, labels: &[(&str, &str)]) -> String {
        self.put_bytes(text.as_bytes(), labels).await
    }

    /// Makes a blob.
    pub async fn put_bytes(&self, bytes: &[u8], labels: &[(&str, &str)]) -> String {
        let digest = sha256(bytes);
        let mut message = commit(&format!("put-{digest}"), 0, bytes);
        message.expected.clone_from(&digest);
        message.labels = map(labels);
        let answer = self.write_one(message).await.expect("put");
        assert_eq!(answer.digest, digest);
        digest
    }

    /// Whether the namespace has a blob.
    pub async fn has(&self, digest: &str) -> bool {
        let request = InfoRequest {
            digest: digest.to_owned(),
        };
        match code(self.content().info(request).await) {
            Code::Ok => true,
            Code::NotFound => false,
            other => panic!("info: {other:?}"),
        }
    }
}

pub type Answer = Result<WriteContentResponse, Code>;

/// A stream of writes that is open.
pub struct Writer {
    send: Option<mpsc::Sender<WriteContentRequest>>,
    answers: Result<Streaming<WriteContentResponse>, Status>,
}

impl Writer {
    pub async fn send(&mut self, message: WriteContentRequest) -> Answer {
        let send = self.send.as_ref().expect("open");
        let _ = send.send(message).await;
        self.answer().await
    }

    async fn answer(&mut self) -> Answer {
        let answers = self.answers.as_mut().map_err(|status| status.code())?;
        match answers.message().await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(Code::Ok),
            Err(status) => Err(status.code()),
        }
    }

    /// Ends the stream and waits until the server has, so that the ref is free.
    pub async fn end(mut self) {
        self.send = None;
        if let Ok(answers) = &mut self.answers {
            while let Ok(Some(_)) = answers.message().await {}
        }
    }
}

fn message(action: WriteAction, reference: &str, offset: i64, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action as i32,
        r#ref: reference.to_owned(),
        offset,
        data: data.to_vec().into(),
        ..WriteContentRequest::default()
    }
}

pub fn stat(reference: &str) -> WriteContentRequest {
    message(WriteAction::Stat, reference, 0, b"")
}

pub fn write(reference: &str, offset: i64, data: &[u8]) -> WriteContentRequest {
    message(WriteAction::Write, reference, offset, data)
}

pub fn commit(reference: &str, offset: i64, data: &[u8]) -> WriteContentRequest {
    message(WriteAction::Commit, reference, offset, data)
}

/// With a digest and a size to expect.
pub fn expecting(
    mut message: WriteContentRequest,
    expected: &str,
    total: i64,
) -> WriteContentRequest {
    expected.clone_into(&mut message.expected);
    message.total = total;
    message
}

/// The code of an answer.
pub fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

pub fn sha256(bytes: &[u8]) -> String {
    Digest::sha256(bytes).to_string()
}

pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    owned.collect()
}

pub fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask {
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    })
}

pub fn descriptor(media_type: &str, digest: &str, size: usize) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_owned(),
        size: i64::try_from(size).expect("small"),
        annotations: BTreeMap::new(),
    }
}

/// A label whose key and value are one byte too long together.
pub fn long_label() -> (String, String) {
    ("k".repeat(97), "v".repeat(4000))
}
