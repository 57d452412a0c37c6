//! What stands before a registry: it remembers what was asked, answers some of it by itself, and stops in
//! the middle of others.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};

use crate::registry::Registry;

/// Only a test that fails waits to the end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and target.
    pub(crate) line: String,
    /// By their names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What to do with a request.
pub(crate) enum Do {
    /// The registry answers.
    Pass,
    /// It does, but of its answer only so many bytes come until the client leaves.
    Stop(u64),
    /// The answer is this, with these lines in its head.
    Answer(u16, String, String),
}

/// Each request has a connection of its own.
pub(crate) struct Front {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    now: watch::Sender<Now>,
}

/// How many connections there are.
#[derive(Clone, Copy, Debug, Default)]
struct Now {
    open: usize,
    stopped: usize,
}

type Rule = dyn Fn(&Asked) -> Do + Send + Sync;

impl Front {
    /// Before `registry`, for as long as the test's runtime runs.
    pub(crate) async fn before(
        registry: &Registry,
        rule: impl Fn(&Asked) -> Do + Send + Sync + 'static,
    ) -> Front {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("bind");
        let front = Front {
            address: listener.local_addr().expect("address"),
            asked: Arc::default(),
            now: watch::Sender::default(),
        };
        let rule: Arc<Rule> = Arc::new(rule);
        let (upstream, asked, now) = (registry.host(), front.asked.clone(), front.now.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                now.send_modify(|now| now.open += 1);
                let (upstream, asked, now) = (upstream.clone(), asked.clone(), now.clone());
                let rule = rule.clone();
                tokio::spawn(async move {
                    // A client that leaves is what some tests are about.
                    let _ = serve(client, &upstream, &*rule, &asked, &now).await;
                    now.send_modify(|now| now.open -= 1);
                });
            }
        });
        front
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("requests").clone()
    }

    /// Waits until an answer was stopped.
    pub(crate) async fn stopped(&self) {
        self.until(|now| now.stopped > 0).await;
    }

    /// Waits until there is no connection left.
    pub(crate) async fn left(&self) {
        self.until(|now| now.open == 0).await;
    }

    async fn until(&self, which: impl FnMut(&Now) -> bool) {
        let mut now = self.now.subscribe();
        let seen = timeout(PATIENCE, now.wait_for(which)).await;
        assert!(seen.is_ok(), "{:?}", *self.now.borrow());
    }
}

async fn serve(
    mut client: TcpStream,
    upstream: &str,
    rule: &Rule,
    all: &Mutex<Vec<Asked>>,
    now: &watch::Sender<Now>,
) -> io::Result<()> {
    let asked = read(&mut client).await?;
    all.lock().expect("requests").push(asked.clone());
    match rule(&asked) {
        Do::Pass => {
            let mut server = pass(&asked, upstream).await?;
            tokio::io::copy(&mut server, &mut client).await?;
        }
        Do::Stop(bytes) => {
            let server = pass(&asked, upstream).await?;
            tokio::io::copy(&mut server.take(bytes), &mut client).await?;
            now.send_modify(|now| now.stopped += 1);
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await?;
        }
        Do::Answer(status, head, body) => {
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status} so\r\nconnection: close\r\ncontent-length: {length}\r\n{head}\r\n{body}"
            );
            client.write_all(answer.as_bytes()).await?;
        }
    }
    client.shutdown().await
}

/// Asks the registry the same.
async fn pass(asked: &Asked, upstream: &str) -> io::Result<TcpStream> {
    let mut server = TcpStream::connect(upstream).await?;
    let mut head = format!("{} HTTP/1.1\r\nconnection: close\r\n", asked.line);
    for (name, value) in &asked.headers {
        if name != "connection" {
            head += &format!("{name}: {value}\r\n");
        }
    }
    server.write_all(format!("{head}\r\n").as_bytes()).await?;
    server.write_all(&asked.body).await?;
    Ok(server)
}

async fn read(client: &mut TcpStream) -> io::Result<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head).expect("head");
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let line = first.trim_end_matches(" HTTP/1.1").to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let mut asked = Asked {
        line,
        headers,
        body: Vec::new(),
    };
    assert_eq!(asked.header("transfer-encoding"), "", "{asked:?}");
    let length = asked.header("content-length").parse().unwrap_or(0);
    asked.body.resize(length, 0);
    client.read_exact(&mut asked.body).await?;
    Ok(asked)
}
