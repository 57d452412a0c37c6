//! Uploads to a registry that loses connections, answers and sessions.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use cairn_registry::{Cause, Client, Mounted, Options, Policy, Pushed, Source};
use cairn_types::{Descriptor, Digest, media};

use crate::common::{
    Everywhere, FakeClock, client, client_as, client_with, noise, options, origin,
    server::{DEAF, Reply, Request, Server},
};

const LEN: u64 = 1000;

fn blob() -> (Descriptor, Arc<dyn Source>) {
    let bytes = noise(1000);
    let descriptor = Descriptor::new(media::OCI_LAYER_GZIP, Digest::sha256(&bytes), LEN);
    (descriptor, Arc::new(Bytes::from(bytes)))
}

fn started() -> Reply {
    // As relative as it can be, and with a state of its own.
    Reply::status(202).with("location", "1234?_state=a%2Fb")
}

fn has(bytes: u64, state: &str) -> Reply {
    let session = format!("/v2/shop/web/blobs/uploads/1234?_state={state}");
    Reply::status(202)
        .with("location", session)
        .with("range", format!("0-{}", bytes - 1))
}

fn created(digest: &Digest) -> Reply {
    Reply::status(201).with("docker-content-digest", digest.to_string())
}

/// Method and state of each request.
fn trace(server: &Server) -> Vec<String> {
    let shown = |asked: &Request| {
        let query = asked.query();
        let state = query.iter().find(|(name, _)| name == "_state");
        let state = state.map_or("", |(_, state)| state);
        format!("{} {state}", asked.method).trim().to_owned()
    };
    server.asked().iter().map(shown).collect()
}

async fn sent(server: &Server, chunk: Option<u64>) -> Result<(), cairn_registry::Error> {
    let options = Options {
        upload_chunk: chunk,
        ..options(&FakeClock::new())
    };
    let client = client_with(&[origin(&server.host())], options);
    let (descriptor, source) = blob();
    let mut upload = client.upload(&descriptor).await.expect("session");
    upload.send(&source).await
}

#[tokio::test]
async fn in_one_request() {
    let digest = blob().0.digest;
    let said = digest.clone();
    let server = Server::start(move |request: &Request, _| match request.method.as_str() {
        "POST" => started(),
        _ => created(&said),
    })
    .await;
    sent(&server, None).await.expect("sent");
    assert_eq!(trace(&server), ["POST", "PUT a/b"]);
    let asked = server.asked();
    assert_eq!(asked[0].path(), "/v2/shop/web/blobs/uploads/");
    assert_eq!(asked[0].header("content-length"), Some("0"));
    assert_eq!(asked[1].path(), "/v2/shop/web/blobs/uploads/1234");
    let pairs = [("_state", "a/b".to_owned()), ("digest", digest.to_string())];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(asked[1].query(), pairs);
    assert_eq!(
        asked[1].header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(asked[1].header("content-length"), Some("1000"));
    assert_eq!(asked[1].header("content-range"), None);
    assert_eq!(asked[1].body, noise(1000));
}

#[tokio::test]
async fn in_chunks() {
    let digest = blob().0.digest;
    let server = Server::start(
        move |request: &Request, number| match request.method.as_str() {
            "POST" => started().with("oci-chunk-min-length", "400"),
            "PATCH" => has(400 * number as u64, &number.to_string()),
            _ => created(&digest),
        },
    )
    .await;
    sent(&server, Some(100)).await.expect("sent");
    assert_eq!(trace(&server), ["POST", "PATCH a/b", "PATCH 1", "PUT 2"]);
    let asked = server.asked();
    let ranges: Vec<_> = asked
        .iter()
        .filter_map(|asked| asked.header("content-range"))
        .collect();
    assert_eq!(ranges, ["0-399", "400-799", "800-999"]);
    let bodies: Vec<u8> = asked.iter().flat_map(|asked| asked.body.clone()).collect();
    assert_eq!(bodies, noise(1000));
}

/// A registry behind a front that takes bodies up to `limit` bytes.
async fn narrow(limit: usize, chunk_min: &'static str) -> Server {
    let stored = Mutex::new(0);
    Server::start(move |request: &Request, _| {
        let mut stored = stored.lock().expect("stored");
        let bytes = request.body.len();
        match request.method.as_str() {
            "PATCH" | "PUT" if bytes > limit => Reply::status(413),
            "POST" => {
                *stored = 0;
                started().with("oci-chunk-min-length", chunk_min)
            }
            "PATCH" => {
                *stored += bytes as u64;
                has(*stored, &stored.to_string())
            }
            "GET" if *stored == 0 => Reply::status(204).with("range", "0-0"),
            "GET" => has(*stored, &stored.to_string()),
            _ => Reply::status(201),
        }
    })
    .await
}

const MIB: usize = 1 << 20;

/// Sends a blob of so many bytes by a client that has sent one before, or has not.
async fn send_large(client: &Client, len: usize) -> Result<(), cairn_registry::Error> {
    let bytes = noise(len);
    let descriptor = Descriptor::new(
        media::OCI_LAYER_GZIP,
        Digest::sha256(&bytes),
        bytes.len() as u64,
    );
    let source: Arc<dyn Source> = Arc::new(Bytes::from(bytes));
    let mut upload = client.upload(&descriptor).await.expect("session");
    upload.send(&source).await
}

/// Method and bytes of each request with a body, of those since `from`.
fn bodies(server: &Server, from: usize) -> Vec<(String, usize)> {
    let asked = server.asked();
    let asked = asked[from..].iter().filter(|asked| !asked.body.is_empty());
    asked
        .map(|asked| (asked.method.clone(), asked.body.len()))
        .collect()
}

fn sizes(all: &[(&str, usize)]) -> Vec<(String, usize)> {
    let owned = |&(method, bytes): &(&str, usize)| (method.to_owned(), bytes);
    all.iter().map(owned).collect()
}

#[tokio::test]
async fn what_is_too_large_goes_in_chunks() {
    let server = narrow(MIB, "0").await;
    let clock = FakeClock::new();
    let client = client_with(&[origin(&server.host())], options(&clock));
    send_large(&client, 3 * MIB).await.expect("sent");
    let expected = [
        ("PUT", 3 * MIB),
        ("PATCH", 2 * MIB),
        ("PATCH", MIB),
        ("PATCH", MIB),
        ("PUT", MIB),
    ];
    assert_eq!(bodies(&server, 0), sizes(&expected));
    // Nothing is waited for, and the next blob is not tried in one.
    assert_eq!(clock.waits(), [0.0; 0]);
    let before = server.asked().len();
    send_large(&client, 2 * MIB + 1).await.expect("sent");
    let expected = [("PATCH", MIB), ("PATCH", MIB), ("PUT", 1)];
    assert_eq!(bodies(&server, before), sizes(&expected));
    let ranges = server.asked();
    let ranges: Vec<_> = ranges[before..]
        .iter()
        .filter_map(|asked| asked.header("content-range"))
        .collect();
    assert_eq!(ranges, ["0-1048575", "1048576-2097151", "2097152-2097152"]);
}

#[tokio::test]
async fn chunks_are_no_smaller_than_the_registry_wants() {
    let server = narrow(MIB * 3 / 2, "1500000").await;
    let client = client(&[origin(&server.host())]);
    send_large(&client, 3 * MIB).await.expect("sent");
    let expected = [
        ("PUT", 3 * MIB),
        ("PATCH", 2 * MIB),
        ("PATCH", 1_500_000),
        ("PATCH", 1_500_000),
        ("PUT", 3 * MIB - 3_000_000),
    ];
    assert_eq!(bodies(&server, 0), sizes(&expected));
}

#[tokio::test]
async fn what_is_always_too_large_is_given_up() {
    for (limit, chunk_min, tried) in [(MIB, "2000000", 3), (1000, "0", 5)] {
        let server = narrow(limit, chunk_min).await;
        let client = client(&[origin(&server.host())]);
        let err = send_large(&client, 3 * MIB).await.expect_err("too large");
        let cause = &err.last().expect("asked").cause;
        assert!(matches!(cause, Cause::Status { status: 413, .. }), "{err}");
        assert_eq!(bodies(&server, 0).len(), tried, "{limit}");
    }
}

#[tokio::test]
async fn what_arrived_is_not_sent_again() {
    let digest = blob().0.digest;
    let server = Server::start(
        move |request: &Request, number| match request.method.as_str() {
            "POST" => started(),
            "PUT" if number == 1 => Reply::Raw(Vec::new()),
            "GET" => has(300, "later"),
            _ => created(&digest),
        },
    )
    .await;
    sent(&server, None).await.expect("sent");
    assert_eq!(trace(&server), ["POST", "PUT a/b", "GET a/b", "PUT later"]);
    let last = server.asked().pop().expect("asked");
    assert_eq!(last.header("content-range"), Some("300-999"));
    assert_eq!(last.body, noise(1000)[300..]);
}

#[tokio::test]
async fn a_session_that_is_gone_is_begun_again() {
    let digest = blob().0.digest;
    let server = Server::start(
        move |request: &Request, number| match request.method.as_str() {
            "POST" => started(),
            "PUT" if number == 1 => Reply::status(503),
            "GET" | "HEAD" => Reply::status(404),
            _ => created(&digest),
        },
    )
    .await;
    sent(&server, None).await.expect("sent");
    assert_eq!(
        trace(&server),
        ["POST", "PUT a/b", "GET a/b", "HEAD", "POST", "PUT a/b"]
    );
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found() {
    let server = Server::start(|request: &Request, _| match request.method.as_str() {
        "POST" => started(),
        "PUT" => Reply::Raw(Vec::new()),
        "GET" => Reply::status(404),
        _ => Reply::status(200),
    })
    .await;
    sent(&server, None).await.expect("there");
    assert_eq!(trace(&server), ["POST", "PUT a/b", "GET a/b", "HEAD"]);
}

#[tokio::test]
async fn a_registry_that_never_takes_it_is_given_up() {
    let server = Server::start(|request: &Request, _| match request.method.as_str() {
        "POST" => started(),
        "PUT" => Reply::Raw(Vec::new()),
        _ => Reply::status(404),
    })
    .await;
    let err = sent(&server, None).await.expect_err("never");
    assert!(
        matches!(err.last().expect("asked").cause, Cause::Broken { .. }),
        "{err}"
    );
    let puts = trace(&server)
        .iter()
        .filter(|line| line.starts_with("PUT"))
        .count();
    assert_eq!(puts, 5);
}

#[tokio::test]
async fn a_registry_that_takes_no_more_is_given_up() {
    let server = Server::start(|request: &Request, _| match request.method.as_str() {
        "POST" => started(),
        _ => Reply::status(404),
    })
    .await;
    let options = Options {
        min_rate: 100_000,
        min_rate_window: Duration::from_millis(500),
        retry: Policy {
            tries: 2,
            ..Policy::default()
        },
        ..options(&FakeClock::new())
    };
    let client = client_with(&[origin(&server.host())], options);
    let bytes = Bytes::from(vec![0; DEAF * 2]);
    let size = bytes.len() as u64;
    let descriptor = Descriptor::new(media::OCI_LAYER, Digest::sha256(b"any"), size);
    let source: Arc<dyn Source> = Arc::new(bytes);
    let mut upload = client.upload(&descriptor).await.expect("session");
    let err = upload.send(&source).await.expect_err("deaf");
    let cause = &err.last().expect("asked").cause;
    assert!(matches!(cause, Cause::TooSlow { .. }), "{err}");
    // What is sent is not heard, so what is left are the attempts to go on.
    assert_eq!(trace(&server), ["POST", "GET a/b", "HEAD", "POST"]);
}

#[tokio::test]
async fn what_was_made_of_it_is_compared() {
    let other = Digest::sha256(b"other");
    let said = other.clone();
    let server = Server::start(move |request: &Request, _| match request.method.as_str() {
        "POST" => started(),
        _ => created(&said),
    })
    .await;
    let err = sent(&server, None).await.expect_err("other");
    let expected = Cause::WrongDigest {
        expected: blob().0.digest,
        actual: other,
    };
    assert_eq!(
        err.last().map(|failed| failed.cause.clone()),
        Some(expected)
    );
}

/// A source that ends early, or breaks.
struct Bad(Option<std::io::ErrorKind>);

impl Source for Bad {
    fn read(&self, _: u64) -> cairn_registry::ByteStream {
        let kind = self.0;
        let first = futures_util::stream::iter([Ok(Bytes::from_static(b"some"))]);
        let rest = futures_util::stream::iter(kind.map(|kind| Err(kind.into())));
        Box::pin(futures_util::StreamExt::chain(first, rest))
    }
}

#[tokio::test]
async fn a_source_that_fails_is_named() {
    for kind in [None, Some(std::io::ErrorKind::PermissionDenied)] {
        let server = Server::start(|_, _| started()).await;
        let client = client(&[origin(&server.host())]);
        let mut upload = client.upload(&blob().0).await.expect("session");
        let source: Arc<dyn Source> = Arc::new(Bad(kind));
        let err = upload.send(&source).await.expect_err("unreadable");
        let Cause::Source(why) = &err.last().expect("asked").cause else {
            panic!("{err}");
        };
        let expected = match kind {
            None => "it ended 996 bytes early",
            Some(_) => "permission denied",
        };
        assert_eq!(why, expected);
    }
}

#[tokio::test]
async fn uploads_to_another_host_show_it_nothing() {
    let digest = blob().0.digest;
    let storage = Server::start(move |_, _| created(&digest)).await;
    let session = storage.url("/up?sig=1");
    let server = Server::start(
        move |request: &Request, _| match request.header("authorization") {
            Some(_) => Reply::status(202).with("location", session.clone()),
            None => Reply::status(401).with("www-authenticate", "Basic realm=x"),
        },
    )
    .await;
    let credential = cairn_registry::credentials::Credential::Basic {
        user: "a".to_owned(),
        secret: "b".to_owned(),
    };
    let only = Arc::new(Everywhere(credential));
    let client = client_as(&[origin(&server.host())], options(&FakeClock::new()), only);
    let (descriptor, source) = blob();
    let mut upload = client.upload(&descriptor).await.expect("session");
    upload.send(&source).await.expect("sent");
    let asked = storage.asked();
    assert_eq!(asked[0].header("authorization"), None);
    assert_eq!(asked[0].query()[0], ("sig".to_owned(), "1".to_owned()));
}

#[tokio::test]
async fn a_registry_that_is_busy_is_waited_for() {
    let digest = blob().0.digest;
    let server = Server::start(
        move |request: &Request, number| match request.method.as_str() {
            "POST" => started(),
            "PUT" if number == 1 => Reply::status(429).with("retry-after", "9"),
            "GET" => has(300, "later"),
            _ => created(&digest),
        },
    )
    .await;
    let clock = FakeClock::new();
    let client = client_with(&[origin(&server.host())], options(&clock));
    let (descriptor, source) = blob();
    let mut upload = client.upload(&descriptor).await.expect("session");
    upload.send(&source).await.expect("sent");
    assert_eq!(clock.waits(), [9.0]);
}

/// Tasks of a server's runtime move from thread to thread.
#[test]
fn futures_may_move() {
    fn sends<T: Send>(_: &T) {}
    let client = client(&[]);
    let (descriptor, source) = blob();
    sends(&client.push(&descriptor, &source, &[]));
    sends(&client.blob(&descriptor, 0).into_stream());
    sends(&client.referrers(&descriptor.digest, None));
}

async fn mounting(server: &Server) -> Pushed {
    let client: Client = client(&[origin(&server.host())]);
    let (descriptor, source) = blob();
    let from = ["base/debian".to_owned()];
    client
        .push(&descriptor, &source, &from)
        .await
        .expect("pushed")
}

#[tokio::test]
async fn a_blob_of_another_repository_is_mounted() {
    let digest = blob().0.digest;
    let said = digest.clone();
    let server = Server::start(move |request: &Request, _| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        _ => created(&said),
    })
    .await;
    assert_eq!(
        mounting(&server).await,
        Pushed::Mounted("base/debian".to_owned())
    );
    let pairs = [
        ("mount", digest.to_string()),
        ("from", "base/debian".to_owned()),
    ];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(server.asked()[1].query(), pairs);
}

#[tokio::test]
async fn what_cannot_be_mounted_is_sent() {
    let digest = blob().0.digest;
    let server = Server::start(move |request: &Request, _| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => started(),
        _ => created(&digest),
    })
    .await;
    assert_eq!(mounting(&server).await, Pushed::Sent);
    // The session that came instead of the mount is used.
    assert_eq!(trace(&server), ["HEAD", "POST", "PUT a/b"]);
}

#[tokio::test]
async fn what_may_not_be_mounted_is_sent() {
    let digest = blob().0.digest;
    let server = Server::start(move |request: &Request, _| {
        match (request.method.as_str(), request.query().first()) {
            ("HEAD", _) => Reply::status(404),
            ("POST", Some(_)) => Reply::status(403),
            ("POST", None) => started(),
            _ => created(&digest),
        }
    })
    .await;
    assert_eq!(mounting(&server).await, Pushed::Sent);
    assert_eq!(trace(&server), ["HEAD", "POST", "POST", "PUT a/b"]);
}

#[tokio::test]
async fn leave_is_asked_for_both_repositories() {
    let tokens = Server::start(|_, _| Reply::json(r#"{"token":"t"}"#)).await;
    let realm = tokens.url("/token");
    let digest = blob().0.digest;
    let server = Server::start(
        move |request: &Request, _| match request.header("authorization") {
            Some("Bearer t") => created(&digest),
            _ => Reply::status(401).with("www-authenticate", format!("Bearer realm=\"{realm}\"")),
        },
    )
    .await;
    let client = client(&[origin(&server.host())]);
    let mounted = client
        .mount(&blob().0, "base/debian")
        .await
        .expect("mounted");
    assert!(matches!(mounted, Mounted::Yes));
    let scopes = [
        "repository:base/debian:pull",
        "repository:shop/web:pull,push",
    ];
    let scopes = scopes.map(|scope| ("scope".to_owned(), scope.to_owned()));
    assert_eq!(tokens.asked()[0].query(), scopes);
}
