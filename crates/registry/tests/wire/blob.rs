//! One stream, whatever happens to the connections it comes by.

use std::{sync::Arc, time::Duration};

use bytes::BytesMut;
use cairn_registry::{Blob, Cause, Client, Error, Options};
use cairn_types::{Classified, Descriptor, Digest, ErrorKind, media};
use futures_util::{StreamExt, pin_mut};

use crate::common::{
    Everywhere, FakeClock, client, client_as, client_with, mirror, noise, options, origin,
    server::{Reply, Request, Server},
};

const LEN: usize = 300_000;

fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::new(
        media::OCI_LAYER_GZIP,
        Digest::sha256(bytes),
        bytes.len() as u64,
    )
}

async fn read(mut blob: Blob) -> Result<Vec<u8>, Error> {
    let mut all = BytesMut::new();
    while let Some(bytes) = blob.chunk().await? {
        all.extend_from_slice(&bytes);
        assert_ne!(bytes.len(), 0);
    }
    Ok(all.to_vec())
}

/// Head of an answer with what a request asked for, from `bytes`.
fn head(request: &Request, bytes: &[u8]) -> (Vec<u8>, usize) {
    let len = bytes.len();
    let head = match request.from() {
        None => format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n"),
        Some(from) => format!(
            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{len}\r\n\
             content-length: {}\r\n\r\n",
            len - 1,
            len - from
        ),
    };
    (head.into_bytes(), request.from().unwrap_or(0))
}

/// The answer, ended after `most` bytes of the body.
fn cut(request: &Request, bytes: &[u8], most: usize) -> Reply {
    let (mut head, from) = head(request, bytes);
    head.extend(bytes[from..].iter().take(most));
    Reply::Raw(head)
}

/// Whether each request begins where the bytes of the one before ended.
fn follow_on(server: &Server, sent: usize) {
    let starts: Vec<usize> = server
        .asked()
        .iter()
        .map(|asked| asked.from().unwrap_or(0))
        .collect();
    let expected: Vec<usize> = (0..starts.len()).map(|i| i * sent).collect();
    assert_eq!(starts, expected);
}

#[tokio::test]
async fn a_blob_comes_whole_and_from_an_offset() {
    let bytes = noise(LEN);
    let layer = layer(&bytes);
    let (served, path) = (
        bytes.clone(),
        format!("GET /v2/shop/web/blobs/{}", layer.digest),
    );
    let server = Server::start(move |request, _| cut(request, &served, LEN)).await;
    let client = client(&[origin(&server.host())]);
    assert_eq!(read(client.blob(&layer, 0)).await.expect("whole"), bytes);
    let rest = read(client.blob(&layer, 1000)).await.expect("rest");
    assert_eq!(rest, bytes[1000..]);
    assert_eq!(server.lines(), [path.clone(), path]);
    let ranges: Vec<_> = server.asked().iter().map(Request::from).collect();
    assert_eq!(ranges, [None, Some(1000)]);
    for asked in server.asked() {
        assert_eq!(asked.header("accept-encoding"), Some("identity"));
    }
    // Of nothing, nothing is asked.
    let end = read(client.blob(&layer, LEN as u64)).await.expect("end");
    assert!(end.is_empty());
    assert_eq!(server.lines().len(), 2);
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let server = Server::start(move |_, _| Reply::Whole(200, Vec::new(), served.clone())).await;
    let client = client(&[origin(&server.host())]);
    for _ in 0..3 {
        assert_eq!(
            read(client.blob(&layer(&bytes), 0)).await.expect("whole"),
            bytes
        );
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_twenty_times_is_one_stream() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let server = Server::start(move |request, _| cut(request, &served, LEN / 20)).await;
    let clock = FakeClock::new();
    let client = client_with(&[origin(&server.host())], options(&clock));
    let stream = client.blob(&layer(&bytes), 0).into_stream();
    pin_mut!(stream);
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece.expect("piece"));
    }
    assert_eq!(all, bytes);
    assert_eq!(server.lines().len(), 20);
    follow_on(&server, LEN / 20);
    // What moves is not waited for.
    assert_eq!(clock.waits(), [0.0; 0]);
}

#[tokio::test]
async fn a_server_without_ranges_sends_no_byte_twice() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let server = Server::start(move |request: &Request, number| {
        let mut whole = request.clone();
        whole.headers.remove("range");
        cut(&whole, &served, LEN / 3 * (number + 1))
    })
    .await;
    let client = client(&[origin(&server.host())]);
    assert_eq!(
        read(client.blob(&layer(&bytes), 0)).await.expect("whole"),
        bytes
    );
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn a_server_that_dislikes_a_range_is_asked_without() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let server = Server::start(move |request: &Request, _| match request.from() {
        Some(_) => Reply::status(416),
        None => cut(request, &served, LEN),
    })
    .await;
    let client = client(&[origin(&server.host())]);
    let rest = read(client.blob(&layer(&bytes), 5)).await.expect("rest");
    assert_eq!(rest, bytes[5..]);
    assert_eq!(server.lines().len(), 2);
}

/// What comes of a blob of which a server says these things, and of the same with a host behind it.
async fn refused(head: &'static str) -> Cause {
    let bytes = noise(100);
    let layer = layer(&bytes);
    let served = bytes.clone();
    let liar = Server::start(move |_, _| {
        let mut reply = head.as_bytes().to_vec();
        reply.extend(&served);
        Reply::Raw(reply)
    })
    .await;
    let served = bytes.clone();
    let honest = Server::start(move |request, _| cut(request, &served, LEN)).await;
    let client = client(&[mirror(&liar.host()), origin(&honest.host())]);
    assert_eq!(
        read(client.blob(&layer, 10)).await.expect("rest"),
        bytes[10..]
    );
    let client = self::client(&[origin(&liar.host())]);
    let err = read(client.blob(&layer, 10)).await.expect_err("wrong");
    err.last().expect("asked").cause.clone()
}

#[tokio::test]
async fn wrong_lengths_and_ranges_are_noticed_before_a_byte() {
    let (expected, actual) = (100, 101);
    let longer = Cause::WrongLength { expected, actual };
    let whole = "HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n";
    assert_eq!(refused(whole).await, longer);
    let part = "HTTP/1.1 206 P\r\ncontent-range: bytes 10-100/101\r\ncontent-length: 91\r\n\r\n";
    assert_eq!(refused(part).await, longer);
    let part = "HTTP/1.1 206 P\r\ncontent-range: bytes 10-99/100\r\ncontent-length: 91\r\n\r\n";
    assert_eq!(refused(part).await, longer);
    for wrong in [
        "HTTP/1.1 206 P\r\ncontent-range: bytes 9-99/100\r\ncontent-length: 91\r\n\r\n",
        "HTTP/1.1 206 P\r\ncontent-range: bytes 10-100/*\r\ncontent-length: 91\r\n\r\n",
        "HTTP/1.1 206 P\r\ncontent-range: bytes 10-9/100\r\ncontent-length: 90\r\n\r\n",
        "HTTP/1.1 206 P\r\ncontent-length: 90\r\n\r\n",
        "HTTP/1.1 203 N\r\ncontent-length: 90\r\n\r\n",
    ] {
        let cause = refused(wrong).await;
        assert!(matches!(cause, Cause::Malformed(_)), "{wrong}: {cause:?}");
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_where_the_blob_does() {
    let bytes = noise(100);
    let layer = layer(&bytes);
    let chunked = |bytes: &[u8]| {
        let mut body = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n",
            bytes.len()
        )
        .into_bytes();
        body.extend(bytes);
        body.extend(b"\r\n0\r\n\r\n");
        Reply::Raw(body)
    };
    let served = bytes.clone();
    let server = Server::start(move |_, number| match number {
        0 => chunked(&served[..60]),
        1 => chunked(&served),
        _ => chunked(&[&served[..], b"more"].concat()),
    })
    .await;
    let client = client(&[origin(&server.host())]);
    assert_eq!(read(client.blob(&layer, 0)).await.expect("whole"), bytes);
    assert_eq!(server.lines().len(), 2);
    let err = read(client.blob(&layer, 0)).await.expect_err("longer");
    let (expected, actual) = (100, 104);
    let cause = err.last().map(|failed| failed.cause.clone());
    assert_eq!(cause, Some(Cause::WrongLength { expected, actual }));
    assert_eq!(err.kind(), ErrorKind::DataLoss);
}

fn hasty(clock: &Arc<FakeClock>) -> Options {
    Options {
        min_rate: 100_000,
        min_rate_window: Duration::from_millis(500),
        ..options(clock)
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_fetched_anew() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let server = Server::start(move |request: &Request, number| {
        let Reply::Raw(half) = cut(request, &served, LEN / 2) else {
            return Reply::status(500);
        };
        match number {
            0 => Reply::Stall(half),
            _ => cut(request, &served, LEN),
        }
    })
    .await;
    let client = client_with(&[origin(&server.host())], hasty(&FakeClock::new()));
    assert_eq!(
        read(client.blob(&layer(&bytes), 0)).await.expect("whole"),
        bytes
    );
    let second = server.asked()[1].from();
    assert_eq!(second, Some(LEN / 2));
}

#[tokio::test]
async fn a_trickle_is_no_progress() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let server = Server::start(move |request: &Request, number| {
        // Who never gives up is to find out.
        if number > 9 {
            return cut(request, &served, LEN);
        }
        let Reply::Raw(little) = cut(request, &served, 10) else {
            return Reply::status(500);
        };
        Reply::Stall(little)
    })
    .await;
    let clock = FakeClock::new();
    let client = client_with(&[origin(&server.host())], hasty(&clock));
    let err = read(client.blob(&layer(&bytes), 0))
        .await
        .expect_err("slow");
    let (bytes, window) = (10, Duration::from_millis(500));
    let cause = err.last().map(|failed| failed.cause.clone());
    assert_eq!(cause, Some(Cause::TooSlow { bytes, window }));
    assert!(err.passes());
    // Each try went on where the one before had come to.
    assert_eq!(server.lines().len(), 5);
    follow_on(&server, 10);
    assert_eq!(clock.waits(), [1.0, 2.0, 4.0]);
}

#[tokio::test]
async fn a_body_that_never_moves_is_given_up() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let server = Server::start(move |request, number| match number {
        0 => cut(request, &served, 1000),
        _ => cut(request, &served, 0),
    })
    .await;
    let clock = FakeClock::new();
    let client = client_with(&[origin(&server.host())], options(&clock));
    let err = read(client.blob(&layer(&bytes), 0))
        .await
        .expect_err("broken");
    let Cause::Broken { at: 1000, .. } = err.last().expect("asked").cause else {
        panic!("{err}");
    };
    assert_eq!(server.lines().len(), 5);
    assert_eq!(clock.waits(), [1.0, 2.0, 4.0]);
}

#[tokio::test]
async fn the_next_host_goes_on_where_a_mirror_stopped() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let dying = Server::start(move |request, number| match number {
        0 => cut(request, &served, LEN / 3),
        _ => Reply::Raw(Vec::new()),
    })
    .await;
    let served = bytes.clone();
    let steady = Server::start(move |request, _| cut(request, &served, LEN)).await;
    let clock = FakeClock::new();
    let endpoints = [mirror(&dying.host()), origin(&steady.host())];
    let client = client_with(&endpoints, options(&clock));
    assert_eq!(
        read(client.blob(&layer(&bytes), 0)).await.expect("whole"),
        bytes
    );
    assert_eq!(dying.lines().len(), 2);
    let asked = steady.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].from(), Some(LEN / 3));
    assert_eq!(clock.waits(), [0.0; 0]);
}

/// Digests are found wrong by whoever keeps the bytes, who says so.
#[tokio::test]
async fn who_had_a_blob_wrong_is_asked_last() {
    let bytes = noise(100);
    let serve = |bytes: Vec<u8>| Server::start(move |request, _| cut(request, &bytes, LEN));
    let (first, second) = (serve(bytes.clone()).await, serve(bytes.clone()).await);
    let layer = layer(&bytes);
    let other = Digest::sha256(b"other");
    let client = client(&[mirror(&first.host()), origin(&second.host())]);
    let asked = || (first.lines().len(), second.lines().len());
    let from = async || read(client.blob(&layer, 0)).await.map(|_| asked());
    assert_eq!(from().await.expect("whole"), (1, 0));
    let again = client.distrust(&layer.digest, &first.host(), other.clone());
    again.expect("there is another host");
    assert_eq!(from().await.expect("whole"), (1, 1));
    // Of another blob nothing is known.
    let neighbour = Descriptor {
        digest: other.clone(),
        ..layer.clone()
    };
    read(client.blob(&neighbour, 0)).await.expect("whole");
    assert_eq!(asked(), (2, 1));
    let origin = "registry.example.com";
    let err = client.distrust(&layer.digest, origin, other.clone());
    let err = err.expect_err("all were wrong");
    assert_eq!(
        err.to_string(),
        format!(
            "all 2 hosts failed: {first} sent bytes of {other}, not of {digest}; \
             {origin} sent bytes of {other}, not of {digest}",
            first = first.host(),
            digest = layer.digest,
        )
    );
    assert_eq!(err.kind(), ErrorKind::DataLoss);
}

#[tokio::test]
async fn the_only_host_has_a_second_try() {
    let bytes = noise(100);
    let layer = layer(&bytes);
    let server = Server::start(move |request, _| cut(request, &bytes, LEN)).await;
    let client = client(&[origin(&server.host())]);
    let origin = "registry.example.com";
    let other = Digest::sha256(b"other");
    let wrong = || client.distrust(&layer.digest, origin, other.clone());
    wrong().expect("once more");
    read(client.blob(&layer, 0)).await.expect("whole");
    let err = wrong().expect_err("again");
    let digest = &layer.digest;
    assert_eq!(
        err.to_string(),
        format!("{origin} sent bytes of {other}, not of {digest}")
    );
}

#[tokio::test]
async fn parts_are_parts() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let server = Server::start(move |request: &Request, _| {
        assert_eq!(request.header("range"), Some("bytes=100-199"));
        let mut reply = format!(
            "HTTP/1.1 206 P\r\ncontent-range: bytes 100-199/{LEN}\r\ncontent-length: 100\r\n\r\n"
        )
        .into_bytes();
        reply.extend(&served[100..200]);
        Reply::Raw(reply)
    })
    .await;
    let client = client(&[origin(&server.host())]);
    let part = read(client.part(&layer(&bytes), 100, 200))
        .await
        .expect("part");
    assert_eq!(part, bytes[100..200]);

    let served = bytes.clone();
    let whole = Server::start(move |request: &Request, _| {
        let mut whole = request.clone();
        whole.headers.remove("range");
        cut(&whole, &served, LEN)
    })
    .await;
    let client = self::client(&[origin(&whole.host())]);
    let err = read(client.part(&layer(&bytes), 100, 200))
        .await
        .expect_err("whole");
    let cause = err.last().map(|failed| failed.cause.clone());
    assert_eq!(cause, Some(Cause::NoRanges));
}

fn foreign(bytes: &[u8], server: &Server, media_type: &str) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        urls: vec![
            "file:///etc/passwd".to_owned(),
            server.url("/layer?signed=1"),
        ],
        ..layer(bytes)
    }
}

fn shopper(registry: &Server) -> Client {
    let token = cairn_registry::credentials::Credential::Bearer("mine".to_owned());
    let only = Arc::new(Everywhere(token));
    client_as(
        &[origin(&registry.host())],
        options(&FakeClock::new()),
        only,
    )
}

#[tokio::test]
async fn m07_foreign_layers_come_from_where_they_say() {
    let bytes = noise(LEN);
    let served = bytes.clone();
    let maker = Server::start(move |request, _| cut(request, &served, LEN / 2)).await;
    let registry = Server::start(|_, _| Reply::status(404)).await;
    let nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let layer = foreign(&bytes, &maker, nondistributable);
    let client = shopper(&registry);
    assert_eq!(read(client.blob(&layer, 0)).await.expect("whole"), bytes);
    assert_eq!(registry.lines().len(), 1);
    for asked in maker.asked() {
        assert_eq!(asked.target, "/layer?signed=1");
        assert_eq!(asked.header("authorization"), None);
    }
    assert_eq!(maker.lines().len(), 2);
}

#[tokio::test]
async fn m07_an_image_does_not_send_us_anywhere() {
    let bytes = noise(100);
    let inner = Server::start(|_, _| Reply::status(200)).await;
    let registry = Server::start(|_, _| Reply::status(404)).await;
    let layer = foreign(&bytes, &inner, media::OCI_LAYER_GZIP);
    let err = read(shopper(&registry).blob(&layer, 0))
        .await
        .expect_err("not there");
    assert_eq!(err.kind(), ErrorKind::NotFound);
    assert_eq!(
        err.to_string(),
        format!(
            "registry.example.com has no blob {} in shop/web",
            layer.digest
        )
    );
    assert_eq!(inner.lines(), [""; 0]);
}
