//! A server of HTTP/1.1 that answers as a test says, down to the byte, and remembers what it was asked.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) target: String,
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// `GET /v2/…`, without the query.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path())
    }

    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The decoded pairs of the query.
    pub(crate) fn query(&self) -> Vec<(String, String)> {
        let (_, query) = self.target.split_once('?').unwrap_or_default();
        pairs(query.as_bytes())
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        pairs(&self.body)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Where a `Range: bytes=N-` begins.
    pub(crate) fn from(&self) -> Option<usize> {
        let range = self.header("range")?.strip_prefix("bytes=")?;
        range.split('-').next()?.parse().ok()
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

/// How to answer.
pub(crate) enum Reply {
    /// In full; the length is added.
    Whole(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Exactly these bytes, then the end of the connection.
    Raw(Vec<u8>),
    /// Exactly these bytes, then silence.
    Stall(Vec<u8>),
}

impl Reply {
    pub(crate) fn status(status: u16) -> Reply {
        Reply::Whole(status, Vec::new(), Vec::new())
    }

    pub(crate) fn json(text: &str) -> Reply {
        Reply::Whole(
            200,
            vec![("content-type", "application/json".to_owned())],
            text.into(),
        )
    }

    pub(crate) fn with(self, name: &'static str, value: impl Into<String>) -> Reply {
        match self {
            Reply::Whole(status, mut headers, body) => {
                headers.push((name, value.into()));
                Reply::Whole(status, headers, body)
            }
            raw => raw,
        }
    }

    fn bytes(self, head: bool) -> (Vec<u8>, After) {
        match self {
            Reply::Raw(bytes) => (bytes, After::Close),
            Reply::Stall(bytes) => (bytes, After::Silence),
            Reply::Whole(status, headers, body) => {
                let mut text = format!("HTTP/1.1 {status} so\r\n");
                for (name, value) in &headers {
                    text += &format!("{name}: {value}\r\n");
                }
                if !headers.iter().any(|(name, _)| *name == "content-length") && status != 204 {
                    text += &format!("content-length: {}\r\n", body.len());
                }
                text += "\r\n";
                let mut bytes = text.into_bytes();
                if !head {
                    bytes.extend(body);
                }
                (bytes, After::More)
            }
        }
    }
}

enum After {
    More,
    Close,
    Silence,
}

/// A body that has more bytes is never read.
pub(crate) const DEAF: usize = 16 << 20;

type Script = dyn Fn(&Request, usize) -> Reply + Send + Sync;

/// A server on the loopback address, for as long as the test's runtime runs.
pub(crate) struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    log: Arc<Mutex<Vec<Request>>>,
    /// Told when a client has left a connection that was silent.
    pub(crate) left: Arc<Notify>,
}

impl Server {
    /// Answers by a script, which is told the request and how many there were before it.
    pub(crate) async fn start(
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Server {
        Server::listen(None, Arc::new(script)).await
    }

    /// The same by TLS. Clients are asked for certificates, and need not have one.
    pub(crate) async fn secure(
        config: ServerConfig,
        script: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Server::listen(Some(acceptor), Arc::new(script)).await
    }

    async fn listen(acceptor: Option<TlsAcceptor>, script: Arc<Script>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let server = Server {
            address: listener.local_addr().expect("address"),
            connections: Arc::default(),
            log: Arc::default(),
            left: Arc::default(),
        };
        let (log, left) = (Arc::clone(&server.log), Arc::clone(&server.left));
        let connections = Arc::clone(&server.connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (log, left) = (Arc::clone(&log), Arc::clone(&left));
                let (script, acceptor) = (Arc::clone(&script), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, &*script, &log, &left).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, &*script, &log, &left).await;
                            }
                        }
                    }
                });
            }
        });
        server
    }

    /// How many there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn asked(&self) -> Vec<Request> {
        self.log.lock().expect("log").clone()
    }

    /// `GET /v2/…` of each request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Request::line).collect()
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: &Script,
    log: &Mutex<Vec<Request>>,
    left: &Notify,
) {
    while let Some(request) = read(&mut stream).await {
        let head = request.method == "HEAD";
        let number = {
            let mut log = log.lock().expect("log");
            log.push(request.clone());
            log.len() - 1
        };
        let (bytes, after) = script(&request, number).bytes(head);
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
        match after {
            After::More => {}
            After::Close => {
                let _ = stream.shutdown().await;
                return;
            }
            After::Silence => {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                left.notify_one();
                return;
            }
        }
    }
}

/// The next request, or nothing when the client has gone or its body breaks.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(head).expect("head");
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |n| n.parse().expect("length"));
    if length > DEAF {
        std::future::pending::<()>().await;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request {
        method,
        target,
        headers,
        body,
    })
}
