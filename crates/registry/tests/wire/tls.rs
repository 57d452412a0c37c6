//! Certificates as people have them, with Debian's registry.

use std::{path::PathBuf, sync::Arc, time::Duration};

use cairn_registry::{
    Cause, Client, Error,
    credentials::{Anonymous, Credential, Credentials},
    hosts::{Endpoint, Tls},
};
use cairn_types::{Classified, Descriptor, Digest, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    common::{
        Everywhere, FakeClock,
        certs::{Certs, Seen},
        client, noise, options, origin,
        registry::Registry,
        server::{Reply, Request, Server},
    },
    read::{descriptor, manifest, tag},
};

fn secure(host: &str, tls: Tls) -> Endpoint {
    Endpoint {
        scheme: "https",
        tls,
        ..origin(host)
    }
}

fn trusting(ca: PathBuf) -> Tls {
    Tls {
        ca: vec![ca],
        ..Tls::default()
    }
}

/// Whether an endpoint can be asked at all.
async fn reach_at(endpoint: Endpoint, credentials: Arc<dyn Credentials>) -> Result<(), Error> {
    let options = options(&FakeClock::new());
    let registry = "registry.example.com";
    let client = Client::new(registry, "shop/web", &[endpoint], &credentials, options)?;
    // Nothing was pushed: what is asked is answered by "not found", which proves that it was asked.
    match client.resolve(&tag()).await {
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
        Ok(found) => panic!("{found:?}"),
    }
}

async fn reach(host: &str, tls: Tls) -> Result<(), Error> {
    reach_at(secure(host, tls), Arc::new(Anonymous)).await
}

#[track_caller]
fn cause(reached: Result<(), Error>) -> Cause {
    reached
        .expect_err("refused")
        .last()
        .expect("asked")
        .cause
        .clone()
}

const LOOPBACK: &str = "subjectAltName=IP:127.0.0.1";

#[tokio::test]
async fn an_authority_of_ones_own() {
    let certs = Certs::new();
    certs.own("ca", "/O=Example/CN=Example Internal CA", &[]);
    certs.signed("server", "ca");
    let registry = Registry::secure(&certs.path("server.crt"), &certs.path("server.key"), None);
    let host = registry.host();
    reach(&host, trusting(certs.path("ca.crt")))
        .await
        .expect("trusted");

    let unknown = reach(&host, Tls::default()).await.expect_err("unknown");
    let issuer = Some("CN=Example Internal CA".to_owned());
    assert_eq!(
        unknown.last().map(|failed| failed.cause.clone()),
        Some(Cause::UnknownAuthority { issuer })
    );
    assert_eq!(
        unknown.to_string(),
        "certificate of registry.example.com is signed by an unknown authority"
    );
    assert_eq!(unknown.kind(), ErrorKind::FailedPrecondition);
    assert!(!unknown.passes());

    let anybody = Tls {
        skip_verify: true,
        ..Tls::default()
    };
    reach(&host, anybody).await.expect("not looked at");
}

/// `openssl req -x509`, as registries' own instructions have it, makes a certificate that is an authority.
#[tokio::test]
async fn a_certificate_that_signs_itself() {
    let certs = Certs::new();
    certs.own("own", "/CN=registry", &["-addext", LOOPBACK]);
    certs.own("other", "/CN=registry", &["-addext", LOOPBACK]);
    certs.own_of_yesterday("old");
    certs.own(
        "elsewhere",
        "/CN=registry",
        &["-addext", "subjectAltName=DNS:example.com"],
    );
    let start = |name: &str| {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        Registry::secure(&certs.path(&certificate), &certs.path(&key), None)
    };
    let registry = start("own");
    reach(&registry.host(), trusting(certs.path("own.crt")))
        .await
        .expect("named");
    for tls in [Tls::default(), trusting(certs.path("other.crt"))] {
        let cause = cause(reach(&registry.host(), tls).await);
        let issuer = Some("CN=registry".to_owned());
        assert_eq!(cause, Cause::UnknownAuthority { issuer });
    }
    // To be named makes it neither young nor another's.
    for name in ["old", "elsewhere"] {
        let registry = start(name);
        let named = trusting(certs.path(&format!("{name}.crt")));
        let cause = cause(reach(&registry.host(), named).await);
        assert!(matches!(cause, Cause::Certificate(_)), "{name}: {cause:?}");
    }
}

#[tokio::test]
async fn clients_have_certificates_too() {
    let certs = Certs::new();
    certs.own("ca", "/CN=Example Internal CA", &[]);
    certs.own("strangers", "/CN=Strangers", &[]);
    certs.signed("server", "ca");
    certs.signed("client", "ca");
    certs.signed("stranger", "strangers");
    let (certificate, key) = (certs.path("server.crt"), certs.path("server.key"));
    let registry = Registry::secure(&certificate, &key, Some(&certs.path("ca.crt")));
    let host = registry.host();
    let pair = |name: &str| {
        let key = certs.path(&format!("{name}.key"));
        (certs.path(&format!("{name}.crt")), Some(key))
    };
    let showing = |client: Vec<(PathBuf, Option<PathBuf>)>| Tls {
        client,
        ..trusting(certs.path("ca.crt"))
    };
    // Of two the one whose authority the server names.
    let both = showing(vec![pair("stranger"), pair("client")]);
    reach(&host, both).await.expect("known");
    let nobody = cause(reach(&host, showing(Vec::new())).await);
    assert!(matches!(nobody, Cause::ClientCertificate), "{nobody:?}");
    let nothing = showing(vec![(certs.path("client.crt"), None)]);
    let cause = cause(reach(&host, nothing).await);
    let Cause::Config(why) = cause else {
        panic!("{cause:?}");
    };
    assert!(why.contains("client.crt"), "{why}");
}

#[tokio::test]
async fn plain_http_is_recognised() {
    let registry = Registry::start();
    let err = reach(&registry.host(), Tls::default())
        .await
        .expect_err("plain");
    assert_eq!(
        err.to_string(),
        "registry.example.com speaks plain http, not https"
    );
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let certs = Certs::new();
    std::fs::write(certs.path("ca.crt"), "hello").expect("file");
    for name in ["ca.crt", "missing.crt"] {
        let cause = cause(reach("127.0.0.1:1", trusting(certs.path(name))).await);
        let Cause::Config(why) = cause else {
            panic!("{cause:?}");
        };
        assert!(why.contains(name), "{why}");
    }
}

#[tokio::test]
async fn m07_credentials_do_not_go_in_the_clear() {
    let certs = Certs::new();
    certs.own("own", "/CN=registry", &["-addext", LOOPBACK]);
    let (certificate, key) = (certs.path("own.crt"), certs.path("own.key"));
    let more = format!(
        "  tls:\n    certificate: {certificate:?}\n    key: {key:?}\n\
         auth:\n  token:\n    realm: http://tokens.invalid/token\n    service: reg\n    issuer: i\n    \
         rootcertbundle: {certificate:?}\n"
    );
    let registry = Registry::configured(&more);
    let alice = Credential::Basic {
        user: "alice".to_owned(),
        secret: "secret".to_owned(),
    };
    let alice = Arc::new(Everywhere(alice));
    let endpoint = secure(&registry.host(), trusting(certificate));
    let refused = reach_at(endpoint, alice).await;
    assert_eq!(
        cause(refused),
        Cause::InsecureRealm("tokens.invalid".to_owned())
    );
}

fn https_first(host: &str, tls: Tls) -> Endpoint {
    Endpoint {
        scheme: "http",
        https_first: true,
        ..secure(host, tls)
    }
}

#[tokio::test]
async fn https_is_tried_first_where_that_is_wanted() {
    let plain = Registry::start();
    let endpoint = https_first(&plain.host(), Tls::default());
    reach_at(endpoint, Arc::new(Anonymous))
        .await
        .expect("by http");

    let certs = Certs::new();
    certs.own("own", "/CN=registry", &["-addext", LOOPBACK]);
    let registry = Registry::secure(&certs.path("own.crt"), &certs.path("own.key"), None);
    let anybody = Tls {
        skip_verify: true,
        ..Tls::default()
    };
    let endpoint = https_first(&registry.host(), anybody);
    reach_at(endpoint, Arc::new(Anonymous))
        .await
        .expect("by https");
    // Who is not believed is not asked in the clear instead.
    let endpoint = https_first(&registry.host(), Tls::default());
    let cause = cause(reach_at(endpoint, Arc::new(Anonymous)).await);
    assert!(matches!(cause, Cause::UnknownAuthority { .. }), "{cause:?}");
}

/// A registry by TLS that sends on to `to`, and an endpoint of it with a client certificate.
async fn sending_on(certs: &Certs, to: String) -> (Server, Endpoint, Arc<Seen>) {
    certs.own("own", "/CN=registry", &["-addext", LOOPBACK]);
    certs.own("client", "/CN=client", &[]);
    let (config, seen) = certs.server("own");
    let server = Server::secure(config, move |_, _| {
        Reply::status(307).with("location", to.clone())
    })
    .await;
    let tls = Tls {
        client: vec![(certs.path("client.crt"), Some(certs.path("client.key")))],
        skip_verify: true,
        ..Tls::default()
    };
    let endpoint = secure(&server.host(), tls);
    (server, endpoint, seen)
}

#[tokio::test]
async fn what_a_tag_means_is_not_asked_in_the_clear() {
    let certs = Certs::new();
    let plain = Server::start(|_, _| manifest()).await;
    let (_server, endpoint, _) = sending_on(&certs, plain.url("/x")).await;
    let client = client(&[endpoint]);
    let err = client.resolve(&tag()).await.expect_err("in the clear");
    assert!(
        matches!(err.last().expect("asked").cause, Cause::Redirect(_)),
        "{err}"
    );
    assert_eq!(plain.lines(), [""; 0]);
    // Bytes that are known by their digest may come from anywhere.
    client.manifest(&descriptor()).await.expect("proven");
    assert_eq!(plain.lines(), ["GET /x"]);
}

#[tokio::test]
async fn a_client_certificate_is_for_its_endpoint() {
    let certs = Certs::new();
    certs.own("storage", "/CN=storage", &["-addext", LOOPBACK]);
    let (config, seen_there) = certs.server("storage");
    let storage = Server::secure(config, |_, _| manifest()).await;
    let to = storage.url("/x").replace("http:", "https:");
    let (_server, endpoint, seen_here) = sending_on(&certs, to).await;
    client(&[endpoint])
        .manifest(&descriptor())
        .await
        .expect("manifest");
    assert_eq!((seen_here.clients(), seen_there.clients()), (1, 0));
    assert_eq!(storage.lines().len(), 1);
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_given_up() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = silent.local_addr().expect("address");
    let limit = Duration::from_millis(200);
    let endpoint = Endpoint {
        dial_timeout: Some(limit),
        ..secure(&address.to_string(), Tls::default())
    };
    let err = client(&[endpoint])
        .resolve(&tag())
        .await
        .expect_err("silence");
    let said = err.last().map(|failed| failed.cause.clone());
    assert_eq!(said, Some(Cause::ConnectTimeout(limit)));
    assert_eq!(
        err.to_string(),
        "registry.example.com: connect timed out after 0.2 s"
    );
}

#[tokio::test]
async fn http_is_no_way_round_a_server_that_hangs() {
    let silent = Server::start(|_, _| manifest()).await;
    let limit = Duration::from_millis(200);
    let endpoint = Endpoint {
        dial_timeout: Some(limit),
        ..https_first(&silent.host(), Tls::default())
    };
    let reached = reach_at(endpoint, Arc::new(Anonymous)).await;
    assert_eq!(cause(reached), Cause::ConnectTimeout(limit));
    assert_eq!(silent.lines(), [""; 0]);
}

/// Carries connections to `to`, and turns a bit of the first one's answer.
async fn turning_a_bit(to: String) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move {
        // Past the handshake, within the body.
        let mut at = Some(150_000);
        while let Ok((near, _)) = listener.accept().await {
            let far = tokio::net::TcpStream::connect(&to).await.expect("connect");
            let (mut from_near, mut to_near) = near.into_split();
            let (mut from_far, mut to_far) = far.into_split();
            tokio::spawn(
                async move { tokio::io::copy(&mut from_near, &mut to_far).await.map(drop) },
            );
            let turned = at.take();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let mut passed = 0;
                while let Ok(read @ 1..) = from_far.read(&mut buffer).await {
                    if let Some(at) = turned.filter(|at| (passed..passed + read).contains(at)) {
                        buffer[at - passed] ^= 1;
                    }
                    passed += read;
                    if to_near.write_all(&buffer[..read]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_bit_that_turned_on_the_way_is_fetched_again() {
    let certs = Certs::new();
    certs.own("own", "/CN=registry", &["-addext", LOOPBACK]);
    let bytes = noise(300_000);
    let served = bytes.clone();
    let (config, _) = certs.server("own");
    let server = Server::secure(config, move |request: &Request, _| {
        let from = request.from().unwrap_or(0);
        let reply = Reply::Whole(
            200 + 6 * u16::from(from > 0),
            Vec::new(),
            served[from..].to_vec(),
        );
        reply.with("content-range", format!("bytes {from}-299999/300000"))
    })
    .await;
    let relay = turning_a_bit(server.host()).await;
    let endpoint = secure(&relay, trusting(certs.path("own.crt")));
    let layer = Descriptor::new("", Digest::sha256(&bytes), 300_000);
    let mut blob = client(&[endpoint]).blob(&layer, 0);
    let mut all = Vec::new();
    while let Some(piece) = blob.chunk().await.expect("bytes") {
        all.extend_from_slice(&piece);
    }
    assert_eq!(all, bytes);
    let starts: Vec<_> = server.asked().iter().map(Request::from).collect();
    let [None, Some(again)] = starts.as_slice() else {
        panic!("{starts:?}");
    };
    assert!((100_000..150_000).contains(again), "{again}");
}
