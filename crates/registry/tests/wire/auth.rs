//! Who is shown what: challenges, tokens, redirects.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cairn_registry::{
    Cause, Client, Error, Shown,
    credentials::{Anonymous, Credential, Credentials, Found},
    hosts::Endpoint,
};
use cairn_types::{Classified, ErrorKind};

use crate::{
    common::{
        Everywhere, FakeClock, client_as, mirror, options, origin,
        server::{Reply, Request, Server},
    },
    read::{DIGEST, MANIFEST, descriptor, manifest, tag},
};

const SECRET: &str = "open sesame";

fn aladdin() -> Arc<dyn Credentials> {
    Arc::new(Everywhere(Credential::Basic {
        user: "Aladdin".to_owned(),
        secret: SECRET.to_owned(),
    }))
}

/// RFC 7617's example.
const BASIC: &str = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";

fn anonymous() -> Arc<dyn Credentials> {
    Arc::new(Anonymous)
}

fn new(server: &Server, credentials: Arc<dyn Credentials>) -> Client {
    with_clock(server, credentials, &FakeClock::new())
}

fn with_clock(
    server: &Server,
    credentials: Arc<dyn Credentials>,
    clock: &Arc<FakeClock>,
) -> Client {
    client_as(&[origin(&server.host())], options(clock), credentials)
}

/// A registry, and the server of its tokens: they are called `token-0`, `token-1` and so on.
struct Guarded {
    registry: Server,
    tokens: Server,
    /// The number of the one that is good.
    good: Arc<AtomicUsize>,
}

impl Guarded {
    async fn start() -> Guarded {
        Guarded::issuing(|number| {
            Reply::json(&format!(r#"{{"token":"token-{number}","expires_in":60}}"#))
        })
        .await
    }

    async fn issuing(issue: fn(usize) -> Reply) -> Guarded {
        let tokens = Server::start(move |_, number| issue(number)).await;
        let good = Arc::new(AtomicUsize::new(0));
        let (realm, valid) = (tokens.url("/token"), Arc::clone(&good));
        let registry = Server::start(move |request: &Request, _| {
            let expected = format!("Bearer token-{}", valid.load(Ordering::SeqCst));
            if request.header("authorization") == Some(&expected) {
                return manifest();
            }
            let challenge = format!(
                r#"Negotiate, Bearer realm="{realm}",service="reg",scope="repository:shop/web:pull""#
            );
            Reply::status(401).with("www-authenticate", challenge)
        })
        .await;
        Guarded {
            registry,
            tokens,
            good,
        }
    }
}

fn cause(err: &Error) -> Cause {
    err.last().expect("asked").cause.clone()
}

#[tokio::test]
async fn basic_is_shown_when_it_is_asked_for() {
    let server = Server::start(|request: &Request, _| {
        if request.header("authorization") == Some(BASIC) {
            return manifest();
        }
        Reply::status(401).with("www-authenticate", "Basic realm=\"x\"")
    })
    .await;
    let client = new(&server, aladdin());
    client.resolve(&tag()).await.expect("resolve");
    client.manifest(&descriptor()).await.expect("manifest");
    let shown: Vec<_> = server
        .asked()
        .iter()
        .map(|asked| asked.header("authorization").map(str::to_owned))
        .collect();
    assert_eq!(
        shown,
        [None, Some(BASIC.to_owned()), Some(BASIC.to_owned())]
    );

    let err = new(&server, anonymous())
        .resolve(&tag())
        .await
        .expect_err("nobody");
    let Cause::Unauthorized { shown: None, .. } = cause(&err) else {
        panic!("{err}");
    };
    assert_eq!(err.kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn anybody_gets_a_token_and_keeps_it() {
    let guarded = Guarded::start().await;
    let client = new(&guarded.registry, anonymous());
    client.resolve(&tag()).await.expect("resolve");
    client.manifest(&descriptor()).await.expect("manifest");
    let asked = guarded.tokens.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].line(), "GET /token");
    assert_eq!(asked[0].header("authorization"), None);
    let pairs = [("service", "reg"), ("scope", "repository:shop/web:pull")];
    let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked[0].query(), pairs);
    assert_eq!(guarded.registry.lines().len(), 3);
}

#[tokio::test]
async fn one_token_serves_many_that_wait() {
    let guarded = Guarded::start().await;
    let client = new(&guarded.registry, anonymous());
    let asking: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.manifest(&descriptor()).await })
        })
        .collect();
    for asking in asking {
        let bytes = asking.await.expect("task").expect("manifest");
        assert_eq!(bytes, MANIFEST);
    }
    assert_eq!(guarded.tokens.lines().len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end() {
    let guarded = Guarded::start().await;
    let clock = FakeClock::new();
    let client = with_clock(&guarded.registry, anonymous(), &clock);
    client.manifest(&descriptor()).await.expect("manifest");
    clock.pass(Duration::from_secs(50));
    client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(guarded.tokens.lines().len(), 1);
    clock.pass(Duration::from_secs(5));
    guarded.good.store(1, Ordering::SeqCst);
    client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(guarded.tokens.lines().len(), 2);
    // Refused once, when nothing was known yet.
    assert_eq!(guarded.registry.lines().len(), 4);
}

#[tokio::test]
async fn a_token_that_is_refused_is_renewed_once() {
    let guarded = Guarded::start().await;
    let client = new(&guarded.registry, anonymous());
    client.manifest(&descriptor()).await.expect("manifest");
    guarded.good.store(1, Ordering::SeqCst);
    client.manifest(&descriptor()).await.expect("renewed");
    assert_eq!(guarded.tokens.lines().len(), 2);
    assert_eq!(guarded.registry.lines().len(), 4);
    guarded.good.store(99, Ordering::SeqCst);
    let err = client.manifest(&descriptor()).await.expect_err("refused");
    assert!(matches!(
        cause(&err),
        Cause::Unauthorized { shown: None, .. }
    ));
    assert_eq!(guarded.registry.lines().len(), 6);
}

#[tokio::test]
async fn a_name_is_shown_to_the_token_server_only() {
    let guarded = Guarded::start().await;
    let client = new(&guarded.registry, aladdin());
    client.manifest(&descriptor()).await.expect("manifest");
    let asked = guarded.tokens.asked();
    assert_eq!(asked[0].header("authorization"), Some(BASIC));
    for asked in guarded.registry.asked() {
        assert_ne!(asked.header("authorization"), Some(BASIC));
    }
}

#[tokio::test]
async fn an_identity_token_is_posted() {
    let guarded = Guarded::issuing(|_| Reply::json(r#"{"access_token":"token-0"}"#)).await;
    let identity = Credential::Identity("refresh me".to_owned());
    let client = new(&guarded.registry, Arc::new(Everywhere(identity)));
    client.manifest(&descriptor()).await.expect("manifest");
    let asked = guarded.tokens.asked();
    assert_eq!(asked[0].line(), "POST /token");
    assert_eq!(
        asked[0].header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "refresh me"),
        ("service", "reg"),
        ("client_id", "cairn"),
        ("scope", "repository:shop/web:pull"),
    ];
    let form = form.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked[0].form(), form);
}

#[tokio::test]
async fn a_password_is_posted_where_get_is_not_allowed() {
    let guarded = Guarded::issuing(|number| match number {
        0 => Reply::status(405),
        _ => Reply::json(r#"{"access_token":"token-0"}"#),
    })
    .await;
    let client = new(&guarded.registry, aladdin());
    client.manifest(&descriptor()).await.expect("manifest");
    let form = guarded.tokens.asked()[1].form();
    for (name, value) in [
        ("grant_type", "password"),
        ("username", "Aladdin"),
        ("password", SECRET),
    ] {
        assert!(
            form.contains(&(name.to_owned(), value.to_owned())),
            "{form:?}"
        );
    }
}

#[tokio::test]
async fn a_bearers_token_is_shown_as_it_is() {
    let guarded = Guarded::start().await;
    let token = Credential::Bearer("token-0".to_owned());
    let client = new(&guarded.registry, Arc::new(Everywhere(token)));
    client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(guarded.tokens.lines(), [""; 0]);
}

#[tokio::test]
async fn who_is_refused_is_named_and_their_secret_is_not() {
    let guarded = Guarded::issuing(|_| Reply::status(401)).await;
    let client = new(&guarded.registry, aladdin());
    let err = client.manifest(&descriptor()).await.expect_err("refused");
    let shown = Shown {
        who: "user Aladdin".to_owned(),
        source: "a test".to_owned(),
    };
    let Cause::Unauthorized { shown: said, .. } = cause(&err) else {
        panic!("{err}");
    };
    assert_eq!(said, Some(shown));
    let failure = err.failure("pull image", "W", "cairn images pull");
    assert_eq!(failure.causes, ["user Aladdin (from a test) was refused"]);
    for text in [
        format!("{err:?}"),
        err.to_string(),
        format!("{failure:?}"),
        format!("{client:?}"),
    ] {
        assert!(!text.contains(SECRET) && !text.contains("QWxhZ"), "{text}");
    }
}

#[tokio::test]
async fn what_a_token_server_says_is_not_repeated() {
    let guarded = Guarded::issuing(|_| Reply::json(r#"{"token":7,"hidden":"token-0"}"#)).await;
    let client = new(&guarded.registry, aladdin());
    let err = client.manifest(&descriptor()).await.expect_err("no token");
    assert!(
        matches!(cause(&err), Cause::Token { passes: false, .. }),
        "{err}"
    );
    assert!(!format!("{err:?} {err}").contains("token-0"), "{err:?}");
}

#[tokio::test]
async fn a_token_server_that_is_busy_is_waited_for() {
    let guarded = Guarded::issuing(|number| match number {
        0 => Reply::status(503),
        _ => Reply::json(r#"{"token":"token-0"}"#),
    })
    .await;
    let clock = FakeClock::new();
    let client = with_clock(&guarded.registry, anonymous(), &clock);
    client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(clock.waits(), [0.5]);
}

fn with_header(server: &Server) -> Endpoint {
    let name = http::HeaderName::from_static("x-endpoint");
    Endpoint {
        headers: vec![(name, http::HeaderValue::from_static("own"))],
        ..origin(&server.host())
    }
}

/// A registry that asks for Basic and then redirects to an address.
async fn redirecting(to: String) -> Server {
    Server::start(move |request: &Request, _| {
        if request.path().ends_with("/moved") {
            return manifest();
        }
        match request.header("authorization") {
            Some(BASIC) => Reply::status(307).with("location", to.clone()),
            _ => Reply::status(401).with("www-authenticate", "Basic realm=x"),
        }
    })
    .await
}

#[tokio::test]
async fn m07_another_host_is_shown_nothing() {
    let storage = Server::start(|_, _| manifest()).await;
    let server = redirecting(storage.url("/signed?key=1")).await;
    let options = options(&FakeClock::new());
    let client = client_as(&[with_header(&server)], options, aladdin());
    let bytes = client.manifest(&descriptor()).await.expect("manifest");
    assert_eq!(bytes, MANIFEST);
    assert_eq!(server.asked()[1].header("x-endpoint"), Some("own"));
    let asked = storage.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].target, "/signed?key=1");
    assert_eq!(asked[0].header("authorization"), None);
    assert_eq!(asked[0].header("x-endpoint"), None);
}

#[tokio::test]
async fn the_same_host_is_shown_the_same() {
    let server = redirecting("/v2/moved".to_owned()).await;
    let options = options(&FakeClock::new());
    let client = client_as(&[with_header(&server)], options, aladdin());
    client.manifest(&descriptor()).await.expect("manifest");
    let asked = server.asked();
    let last = asked.last().expect("asked");
    assert_eq!(last.path(), "/v2/moved");
    assert_eq!(last.header("authorization"), Some(BASIC));
    assert_eq!(last.header("x-endpoint"), Some("own"));
}

/// CVE-2020-15157 was credentials for whoever asked for them.
#[tokio::test]
async fn m07_storage_that_asks_for_credentials_gets_none() {
    let thief = Server::start(|request: &Request, _| {
        let host = request.header("host").unwrap_or_default();
        let bearer = format!("Bearer realm=\"http://{host}/token\"");
        Reply::status(401).with("www-authenticate", bearer)
    })
    .await;
    let server = redirecting(thief.url("/")).await;
    let client = new(&server, aladdin());
    // The second time, the registry's own way is known, and not to be given up for another's.
    for _ in 0..2 {
        let err = client.manifest(&descriptor()).await.expect_err("refused");
        assert!(matches!(cause(&err), Cause::Unauthorized { .. }), "{err}");
    }
    assert_eq!(thief.lines(), ["GET /"; 2]);
    for asked in thief.asked() {
        assert_eq!(asked.header("authorization"), None);
    }
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|request: &Request, _| {
        Reply::status(302).with("location", format!("{}x", request.target))
    })
    .await;
    let err = new(&server, anonymous())
        .manifest(&descriptor())
        .await
        .expect_err("endless");
    assert!(matches!(cause(&err), Cause::Redirect(_)), "{err}");
    assert_eq!(server.lines().len(), 11);
    assert!(server.lines()[0].ends_with(DIGEST));
}

/// Knows nothing, and remembers whom it was asked for.
#[derive(Default)]
struct Asked(std::sync::Mutex<Vec<String>>);

impl Credentials for Asked {
    fn find(&self, host: &str) -> Result<Option<Found>, String> {
        self.0.lock().expect("asked").push(host.to_owned());
        Ok(None)
    }

    fn looked_in(&self, _: &str) -> Vec<String> {
        vec!["a.json".to_owned(), "b.json".to_owned()]
    }
}

#[tokio::test]
async fn credentials_are_looked_for_once_for_each_host() {
    let guarded = Guarded::start().await;
    let closed =
        Server::start(|_, _| Reply::status(401).with("www-authenticate", "Basic realm=x")).await;
    let asked = Arc::new(Asked::default());
    let endpoints = [mirror(&closed.host()), origin(&guarded.registry.host())];
    let options = options(&FakeClock::new());
    let client = client_as(
        &endpoints,
        options,
        Arc::clone(&asked) as Arc<dyn Credentials>,
    );
    for _ in 0..3 {
        client.manifest(&descriptor()).await.expect("manifest");
    }
    let hosts = asked.0.lock().expect("asked").clone();
    assert_eq!(hosts, [closed.host(), guarded.registry.host()]);

    let client = new(&closed, asked);
    let err = client.resolve(&tag()).await.expect_err("refused");
    let failure = err.failure("pull image", "W", "cairn images pull");
    let looked = "no credentials sent; looked in a.json, b.json";
    assert_eq!(failure.causes, [looked]);
}
