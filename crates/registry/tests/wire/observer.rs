//! What is told of requests while they are made, and what is not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use cairn_registry::{
    Client, Exchange, Observer, Options, Retry, Source, What, credentials::Credential,
};
use cairn_types::{Descriptor, Digest, media};

use crate::{
    common::{
        Everywhere, FakeClock, client_as, client_with, noise, options, origin,
        registry::Registry,
        server::{Reply, Request, Server},
    },
    read::{MANIFEST, descriptor, digest, manifest},
};

const HOST: &str = "registry.example.com";

/// What was asked for, which try the next one is, of how many, after which wait, and why.
type Again = (Option<What>, u32, u32, Duration, String);

/// Remembers what it is told.
#[derive(Default)]
struct Ears {
    /// Method, address without scheme and host, status or cause.
    ended: Mutex<Vec<String>>,
    /// Everything that is a text.
    texts: Mutex<String>,
    received: Mutex<u64>,
    sent: Mutex<u64>,
    retries: Mutex<Vec<Again>>,
}

impl Observer for Ears {
    fn ended(&self, exchange: &Exchange<'_>) {
        assert_eq!(exchange.host, HOST);
        let outcome = match exchange.outcome {
            Ok(status) => status.to_string(),
            Err(cause) => format!("{cause:?}"),
        };
        let path = exchange.url.splitn(4, '/').nth(3).unwrap_or_default();
        let line = format!("{} /{path} {outcome}", exchange.method);
        self.ended.lock().expect("ended").push(line);
        *self.texts.lock().expect("texts") += &format!("{exchange:?}\n");
    }

    fn received(&self, host: &str, bytes: u64) {
        assert_eq!(host, HOST);
        *self.received.lock().expect("received") += bytes;
    }

    fn sent(&self, host: &str, bytes: u64) {
        assert_eq!(host, HOST);
        *self.sent.lock().expect("sent") += bytes;
    }

    fn retry(&self, retry: &Retry<'_>) {
        assert_eq!(retry.failed.host, HOST);
        let one = (
            retry.what.cloned(),
            retry.attempt,
            retry.attempts_max,
            retry.wait,
            retry.reason(),
        );
        self.retries.lock().expect("retries").push(one);
        *self.texts.lock().expect("texts") += &format!("{retry:?}\n");
    }
}

impl Ears {
    fn ended(&self) -> Vec<String> {
        self.ended.lock().expect("ended").clone()
    }

    fn bytes(&self) -> (u64, u64) {
        let received = *self.received.lock().expect("received");
        (received, *self.sent.lock().expect("sent"))
    }
}

fn heard(ears: &Arc<Ears>) -> Options {
    Options {
        observer: Arc::clone(ears) as Arc<dyn Observer>,
        ..options(&FakeClock::new())
    }
}

fn client(server: &Server, ears: &Arc<Ears>) -> Client {
    client_with(&[origin(&server.host())], heard(ears))
}

#[tokio::test]
async fn requests_and_bytes_are_told() {
    let server = Server::start(|_, _| manifest()).await;
    let ears = Arc::default();
    let client = client(&server, &ears);
    client.manifest(&descriptor()).await.expect("manifest");
    let path = format!("/v2/shop/web/manifests/{}", digest());
    assert_eq!(ears.ended(), [format!("GET {path} 200")]);
    assert_eq!(ears.bytes(), (MANIFEST.len() as u64, 0));
}

/// A token's server and signed storage: neither a secret nor a query comes out, and all of it is told under
/// the one name that the user knows.
#[tokio::test]
async fn secrets_and_queries_are_not_told() {
    let bytes = noise(1000);
    let layer = Descriptor::new(media::OCI_LAYER_GZIP, Digest::sha256(&bytes), 1000);
    let server = Server::start(move |request: &Request, _| match request.path() {
        "/token" => Reply::json(r#"{"token":"t0k3n"}"#),
        "/storage" => Reply::Whole(200, Vec::new(), bytes.clone()),
        _ if request.header("authorization") != Some("Bearer t0k3n") => {
            let host = request.header("host").expect("host");
            let realm = format!("Bearer realm=\"http://{host}/token?x=h1dden\",service=\"s\"");
            Reply::status(401).with("www-authenticate", realm)
        }
        _ => Reply::status(307).with("location", "/storage?X-Signature=s1gned"),
    })
    .await;
    let ears = Arc::new(Ears::default());
    let alice = Everywhere(Credential::Basic {
        user: "alice".to_owned(),
        secret: "p4ssword".to_owned(),
    });
    let client = client_as(&[origin(&server.host())], heard(&ears), Arc::new(alice));
    let mut blob = client.blob(&layer, 0);
    while blob.chunk().await.expect("bytes").is_some() {}
    let path = format!("/v2/shop/web/blobs/{}", layer.digest);
    assert_eq!(
        ears.ended(),
        [
            format!("GET {path} 401"),
            "GET /token 200".to_owned(),
            format!("GET {path} 307"),
            "GET /storage 200".to_owned(),
        ]
    );
    // What tells the token's server counts, too.
    assert_eq!(ears.bytes().0, 1000 + r#"{"token":"t0k3n"}"#.len() as u64);
    let texts = ears.texts.lock().expect("texts").clone();
    for secret in ["t0k3n", "h1dden", "s1gned", "alice", "p4ssword", "?"] {
        assert!(!texts.contains(secret), "{secret} in {texts}");
    }
}

#[tokio::test]
async fn retries_are_told_with_what_they_are_about() {
    let server = Server::start(|_, number| match number {
        0 => Reply::status(503),
        1 => Reply::Raw(Vec::new()),
        _ => manifest(),
    })
    .await;
    let ears = Arc::new(Ears::default());
    let client = client(&server, &ears);
    client.manifest(&descriptor()).await.expect("manifest");
    let retries = ears.retries.lock().expect("retries").clone();
    let what = Some(What::Manifest(digest()));
    let [unavailable, broken] = retries.as_slice() else {
        panic!("{retries:?}");
    };
    let half = Duration::from_millis(500);
    let why = "503 service unavailable".to_owned();
    assert_eq!(*unavailable, (what.clone(), 2, 5, half, why));
    assert_eq!((broken.1, broken.2, broken.3), (3, 5, half * 2));
    assert_eq!(broken.0, what);
    assert!(broken.4.starts_with("the connection broke"), "{}", broken.4);
    // The one that had no answer ended, too.
    let ended = ears.ended();
    assert!(ended[0].ends_with(" 503"), "{ended:?}");
    assert!(ended[1].contains("Broken"), "{ended:?}");
    assert!(ended[2].ends_with(" 200"), "{ended:?}");
}

#[tokio::test]
async fn a_body_that_breaks_is_told() {
    let bytes = noise(300_000);
    let layer = Descriptor::new(media::OCI_LAYER_GZIP, Digest::sha256(&bytes), 300_000);
    let server = Server::start(move |request: &Request, _| match request.from() {
        None => {
            let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n".to_vec();
            answer.extend(&bytes[..100_000]);
            Reply::Raw(answer)
        }
        Some(from) => Reply::Whole(206, Vec::new(), bytes[from..].to_vec())
            .with("content-range", format!("bytes {from}-299999/300000")),
    })
    .await;
    let ears = Arc::new(Ears::default());
    let client = client(&server, &ears);
    let mut blob = client.blob(&layer, 0);
    while blob.chunk().await.expect("bytes").is_some() {}
    let retries = ears.retries.lock().expect("retries").clone();
    let [(what, attempt, of, wait, why)] = retries.as_slice() else {
        panic!("{retries:?}");
    };
    assert_eq!(*what, Some(What::Blob(layer.digest.clone())));
    assert_eq!((*attempt, *of, *wait), (2, 5, Duration::ZERO));
    assert!(
        why.starts_with("the connection broke after 100000 bytes"),
        "{why}"
    );
    assert_eq!(ears.bytes(), (300_000, 0));
}

#[tokio::test]
async fn bytes_that_are_sent_are_told() {
    let registry = Registry::start();
    let ears = Arc::new(Ears::default());
    let client = client_with(&[origin(&registry.host())], heard(&ears));
    let bytes = noise(200_000);
    let layer = Descriptor::new(media::OCI_LAYER_GZIP, Digest::sha256(&bytes), 200_000);
    let source: Arc<dyn Source> = Arc::new(Bytes::from(bytes));
    client.push(&layer, &source, &[]).await.expect("pushed");
    assert_eq!(ears.bytes(), (0, 200_000));
    client.push(&layer, &source, &[]).await.expect("there");
    assert_eq!(ears.bytes(), (0, 200_000));
    let methods: Vec<String> = ears
        .ended()
        .iter()
        .map(|line| {
            let (first, last) = (line.split(' ').next(), line.split(' ').next_back());
            format!("{} {}", first.expect("method"), last.expect("status"))
        })
        .collect();
    assert_eq!(methods, ["HEAD 404", "POST 202", "PUT 201", "HEAD 200"]);
}
