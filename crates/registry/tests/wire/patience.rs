//! How long is waited for whom, and when it is enough.

use std::{sync::Arc, time::Duration};

use cairn_registry::{Cause, Clock, Options, Policy};
use cairn_types::{Classified, ErrorKind};

use crate::{
    common::{
        FakeClock, client_with, mirror, options, origin,
        server::{Reply, Server},
    },
    read::{MANIFEST, descriptor, manifest, tag},
};

/// What was waited, in seconds, when a server answers so often so before it does what it should.
async fn waited(
    times: usize,
    refuse: fn() -> Reply,
) -> (Vec<f64>, Result<(), cairn_registry::Error>) {
    let server = Server::start(move |_, number| match number < times {
        true => refuse(),
        false => manifest(),
    })
    .await;
    let clock = FakeClock::new();
    let client = client_with(&[origin(&server.host())], options(&clock));
    let got = client.manifest(&descriptor()).await;
    assert_eq!(server.lines().len(), clock.waits().len() + 1);
    (clock.waits(), got.map(|bytes| assert_eq!(bytes, MANIFEST)))
}

#[tokio::test]
async fn a_server_says_how_long() {
    let seconds = || Reply::status(429).with("retry-after", "7");
    let (waits, got) = waited(2, seconds).await;
    got.expect("in the end");
    assert_eq!(waits, [7.0, 7.0]);
    // Ten seconds after the clock's beginning.
    let date = || Reply::status(503).with("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT");
    let (waits, got) = waited(2, date).await;
    got.expect("in the end");
    assert_eq!(waits, [10.0, 0.0]);
}

#[tokio::test]
async fn who_does_not_say_is_asked_ever_later() {
    for refuse in [
        (|| Reply::status(503)) as fn() -> Reply,
        || Reply::status(500),
        || Reply::status(408),
        || Reply::Raw(Vec::new()),
    ] {
        let (waits, got) = waited(4, refuse).await;
        got.expect("in the end");
        assert_eq!(waits, [0.5, 1.0, 2.0, 4.0]);
    }
}

#[tokio::test]
async fn at_some_time_it_is_enough() {
    let (waits, got) = waited(9, || Reply::status(429).with("retry-after", "15")).await;
    let err = got.expect_err("enough");
    assert_eq!(waits, [15.0; 4]);
    assert_eq!(
        err.to_string(),
        "registry.example.com allows no more pulls now (429), gave up after 5 tries in 60 s"
    );
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted);
    assert!(err.passes());
}

#[tokio::test]
async fn who_asks_for_too_long_is_not_waited_for() {
    let (waits, got) = waited(9, || Reply::status(503).with("retry-after", "3600")).await;
    assert_eq!(waits, [0.0; 0]);
    assert_eq!(got.expect_err("too long").kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn what_will_not_change_is_not_asked_again() {
    for refuse in [
        (|| Reply::status(403)) as fn() -> Reply,
        || Reply::status(404),
        || Reply::status(501),
    ] {
        let (waits, got) = waited(1, refuse).await;
        assert_eq!(waits, [0.0; 0]);
        assert!(!got.expect_err("refused").passes());
    }
}

fn impatient() -> Options {
    Options {
        connect_timeout: Duration::from_millis(200),
        header_timeout: Duration::from_millis(200),
        retry: Policy {
            tries: 2,
            ..Policy::default()
        },
        ..options(&FakeClock::new())
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let silent = Server::start(|_, _| Reply::Stall(Vec::new())).await;
    let client = client_with(&[origin(&silent.host())], impatient());
    let err = client.resolve(&tag()).await.expect_err("silence");
    let after = Duration::from_millis(200);
    let cause = err.last().map(|failed| failed.cause.clone());
    assert_eq!(cause, Some(Cause::AnswerTimeout(after)));
    assert_eq!(silent.lines().len(), 2);
    assert_eq!(err.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_silent_mirror_is_passed_by() {
    let silent = Server::start(|_, _| Reply::Stall(Vec::new())).await;
    let origin_server = Server::start(|_, _| manifest()).await;
    let endpoints = [mirror(&silent.host()), origin(&origin_server.host())];
    let client = client_with(&endpoints, impatient());
    assert_eq!(
        client.manifest(&descriptor()).await.expect("manifest"),
        MANIFEST
    );
    assert_eq!(silent.lines().len(), 1);
}

#[tokio::test]
async fn a_mirror_that_is_down_is_not_waited_for_again() {
    let silent = Server::start(|_, _| Reply::Stall(Vec::new())).await;
    let origin_server = Server::start(|_, _| manifest()).await;
    let endpoints = [mirror(&silent.host()), origin(&origin_server.host())];
    let clock = FakeClock::new();
    let options = Options {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        ..impatient()
    };
    let client = client_with(&endpoints, options);
    for _ in 0..3 {
        client.manifest(&descriptor()).await.expect("manifest");
    }
    assert_eq!(silent.lines().len(), 1);
    clock.pass(Duration::from_secs(30));
    client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(silent.lines().len(), 2);
    assert_eq!(origin_server.lines().len(), 4);
}

#[tokio::test]
async fn nobody_listening_is_said() {
    // A name that can be none, by RFC 6761.
    let endpoints = [mirror("mirror.invalid"), origin("127.0.0.1:1")];
    let client = client_with(&endpoints, impatient());
    let err = client.manifest(&descriptor()).await.expect_err("nobody");
    let last = err.last().expect("asked");
    assert_eq!(last.to_string(), "registry.example.com: connection refused");
    assert!(last.cause.passes());
    let first = &err.details().failed[0];
    assert_eq!(first.host, "mirror.invalid");
    // Without a name server that answers, it is that which is named.
    assert!(
        matches!(
            first.cause,
            Cause::NoSuchHost | Cause::Connect(_) | Cause::ConnectTimeout(_)
        ),
        "{first}"
    );
}

#[tokio::test]
async fn who_is_dropped_hangs_up() {
    let silent = Arc::new(Server::start(|_, _| Reply::Stall(Vec::new())).await);
    let client = client_with(&[origin(&silent.host())], options(&FakeClock::new()));
    let asking = tokio::spawn(async move { client.resolve(&tag()).await.map(drop) });
    while silent.lines().is_empty() {
        tokio::task::yield_now().await;
    }
    asking.abort();
    // Were the connection kept, this would wait for ever.
    silent.left.notified().await;
}
