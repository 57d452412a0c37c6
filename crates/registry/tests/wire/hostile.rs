//! Hosts that mean no good: who never come to an end, and who have others asked that we can reach.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cairn_registry::{
    Blob, Cause, Client, Error, Options, Source,
    credentials::{Anonymous, Credential},
    env::Env,
    hosts::{Endpoint, Tls},
};
use cairn_types::{Descriptor, Digest, media};

use crate::{
    common::{
        Everywhere, FakeClock,
        certs::Certs,
        client, client_as, client_with, noise, options, origin,
        registry::Registry,
        server::{Reply, Request, Server},
    },
    read::tag,
};

const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";

fn cause(err: &Error) -> Cause {
    err.last().expect("asked").cause.clone()
}

async fn read(mut blob: Blob) -> Result<Bytes, Error> {
    let mut all = BytesMut::new();
    while let Some(bytes) = blob.chunk().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

/// It moves, and would for days.
#[tokio::test]
async fn a_byte_by_each_connection_is_no_blob() {
    let bytes = noise(5000);
    let layer = Descriptor::new(media::OCI_LAYER, Digest::sha256(&bytes), 5000);
    let server = Server::start(move |request: &Request, _| {
        let from = request.from().unwrap_or(0);
        let mut reply = format!(
            "HTTP/1.1 206 P\r\ncontent-range: bytes {from}-4999/5000\r\ncontent-length: {}\r\n\r\n",
            5000 - from
        )
        .into_bytes();
        reply.push(bytes[from]);
        Reply::Raw(reply)
    })
    .await;
    let clock = FakeClock::new();
    let client = client_with(&[origin(&server.host())], options(&clock));
    let err = read(client.part(&layer, 1, 4999))
        .await
        .expect_err("crumbs");
    assert!(matches!(cause(&err), Cause::Broken { .. }), "{err}");
    assert!(server.lines().len() < 40, "{}", server.lines().len());
}

/// Sends 1000 bytes in chunks of 100 to a registry that answers what it has by `has`.
async fn chunks(has: impl Fn(usize) -> String + Send + Sync + 'static) -> (Server, Error) {
    let server = Server::start(move |request: &Request, number| {
        let reply = Reply::status(202).with("location", "/v2/shop/web/blobs/uploads/1");
        match request.method.as_str() {
            "PATCH" => reply.with("range", has(number)),
            _ => reply,
        }
    })
    .await;
    let options = Options {
        upload_chunk: Some(100),
        ..options(&FakeClock::new())
    };
    let client = client_with(&[origin(&server.host())], options);
    let bytes = noise(1000);
    let descriptor = Descriptor::new(media::OCI_LAYER, Digest::sha256(&bytes), 1000);
    let source: Arc<dyn Source> = Arc::new(Bytes::from(bytes));
    let mut upload = client.upload(&descriptor).await.expect("session");
    let err = upload.send(&source).await.expect_err("takes nothing");
    (server, err)
}

#[tokio::test]
async fn an_upload_of_which_nothing_is_taken_ends() {
    let (server, err) = chunks(|_| "0-0".to_owned()).await;
    assert_eq!(
        cause(&err),
        Cause::Malformed("it was sent bytes 0 to 100 of an upload, and has 0".to_owned())
    );
    assert_eq!(server.lines().len(), 2);
    // A byte of each.
    let (server, err) = chunks(|number| format!("0-{number}")).await;
    assert!(matches!(cause(&err), Cause::Malformed(_)), "{err}");
    assert!(server.lines().len() < 40, "{}", server.lines().len());
}

/// The form of OAuth has the secret in its body, which 307 sends along.
#[tokio::test]
async fn m07_a_secret_is_not_sent_on() {
    let thief = Server::start(|_, _| Reply::json(r#"{"token":"t"}"#)).await;
    let to = thief.url("/token");
    for status in [307, 308] {
        let to = to.clone();
        let tokens =
            Server::start(move |_, _| Reply::status(status).with("location", to.clone())).await;
        let challenge = format!("Bearer realm=\"{}\"", tokens.url("/token"));
        let registry = Server::start(move |_, _| {
            Reply::status(401).with("www-authenticate", challenge.clone())
        })
        .await;
        let credential = Credential::Identity("open sesame".to_owned());
        let only = Arc::new(Everywhere(credential));
        let options = options(&FakeClock::new());
        let client = client_as(&[origin(&registry.host())], options, only);
        let err = client.resolve(&tag()).await.expect_err("sent on");
        assert_eq!(
            cause(&err),
            Cause::Redirect("wants credentials sent on to 127.0.0.1".to_owned())
        );
        assert_eq!(tokens.lines(), ["POST /token"]);
    }
    assert_eq!(thief.lines(), [""; 0]);
}

#[tokio::test]
async fn a_secret_follows_where_it_was_meant_for() {
    let tokens = Server::start(|request: &Request, _| match request.path() {
        "/token" => Reply::status(307).with("location", "/new"),
        _ => Reply::json(r#"{"token":"t"}"#),
    })
    .await;
    let challenge = format!("Bearer realm=\"{}\"", tokens.url("/token"));
    let registry =
        Server::start(move |_, _| Reply::status(401).with("www-authenticate", challenge.clone()))
            .await;
    let only = Arc::new(Everywhere(Credential::Identity("open sesame".to_owned())));
    let options = options(&FakeClock::new());
    let client = client_as(&[origin(&registry.host())], options, only);
    client.resolve(&tag()).await.expect_err("never enough");
    let asked = tokens.asked();
    assert_eq!(asked[1].line(), "POST /new");
    assert_eq!(asked[0].body, asked[1].body);
}

/// The address at which clouds tell machines their secrets.
#[tokio::test]
async fn m07_a_registry_does_not_have_the_wire_asked() {
    let inner = "http://169.254.169.254/latest";
    let refused = "it may not have 169.254.169.254 asked, which is link-local; the registry is not";
    let registry = Server::start(move |request: &Request, _| {
        match request.method.as_str() {
            // An upload.
            "POST" => Reply::status(202).with("location", inner),
            "PUT" => Reply::status(404),
            _ if request.path().contains("/blobs/") => Reply::status(307).with("location", inner),
            _ => Reply::status(401).with("www-authenticate", format!("Bearer realm=\"{inner}\"")),
        }
    })
    .await;
    // Each of them learns nothing from the others.
    let new = || client(&[origin(&registry.host())]);
    let err = new().resolve(&tag()).await.expect_err("realm");
    assert_eq!(cause(&err), Cause::Redirect(refused.to_owned()));
    let bytes = Bytes::from(noise(10));
    let layer = Descriptor::new(media::OCI_LAYER, Digest::sha256(&bytes), 10);
    let err = read(new().blob(&layer, 0)).await.expect_err("redirect");
    assert_eq!(cause(&err), Cause::Redirect(refused.to_owned()));
    let mut upload = new().upload(&layer).await.expect("session");
    let source: Arc<dyn Source> = Arc::new(bytes);
    let err = upload.send(&source).await.expect_err("location");
    assert_eq!(cause(&err), Cause::Redirect(refused.to_owned()));
}

fn layer(urls: Vec<String>) -> Descriptor {
    let mut layer = Descriptor::new(FOREIGN, Digest::sha256(b"foreign"), 7);
    layer.urls = urls;
    layer
}

#[tokio::test]
async fn few_addresses_of_an_image_are_asked_and_each_once() {
    let maker = Server::start(|_, _| Reply::status(404)).await;
    let registry = Server::start(|_, _| Reply::status(404)).await;
    let mut urls = vec!["ftp://127.0.0.1/x".to_owned(), "no address".to_owned()];
    for number in 0..1000 {
        urls.push(maker.url(&format!("/{}", number / 2)));
    }
    let client = client(&[origin(&registry.host())]);
    let err = read(client.blob(&layer(urls), 0))
        .await
        .expect_err("nowhere");
    assert_eq!(maker.lines(), ["GET /0", "GET /1", "GET /2", "GET /3"]);
    assert_eq!(err.details().failed.len(), 5);
}

/// An image of a registry that is elsewhere has nothing asked that is here, by whatever name.
#[tokio::test]
async fn m07_an_image_does_not_have_this_machine_asked() {
    let certs = Certs::new();
    certs.own(
        "own",
        "/CN=maker",
        &["-addext", "subjectAltName=IP:127.0.0.1"],
    );
    let (config, _) = certs.server("own");
    let here = Server::secure(config, |_, _| Reply::status(200)).await;
    let plain = Server::start(|_, _| Reply::status(200)).await;
    // What can be reached by it is elsewhere.
    let proxy = Server::start(|_, _| Reply::status(404)).await;
    let env: Env = [("HTTP_PROXY", proxy.url("").as_str())]
        .into_iter()
        .collect();
    let options = Options {
        env,
        ..options(&FakeClock::new())
    };
    let client = client_as(
        &[origin("registry.example.com")],
        options,
        Arc::new(Anonymous),
    );
    let port = here.host().split(':').nth(1).expect("port").to_owned();
    for url in [
        format!("https://{}/x", here.host()),
        format!("https://localhost:{port}/x"),
        format!("https://[::ffff:127.0.0.1]:{port}/x"),
        plain.url("/x"),
    ] {
        let err = read(client.blob(&layer(vec![url]), 0))
            .await
            .expect_err("here");
        let said = format!("{err}");
        assert!(!said.contains("certificate"), "{said}");
    }
    assert_eq!(here.connections() + plain.connections(), 0);
    assert_eq!(proxy.lines().len(), 4);
}

/// Https was there: what fails behind it is no reason to ask in the clear.
#[tokio::test]
async fn m07_a_redirect_does_not_lead_back_to_http() {
    let plain = Registry::start();
    let certs = Certs::new();
    certs.own(
        "own",
        "/CN=registry",
        &["-addext", "subjectAltName=IP:127.0.0.1"],
    );
    let (config, _) = certs.server("own");
    let to = format!("https://{}/x", plain.host());
    let registry = Server::secure(config, move |_, _| {
        Reply::status(307).with("location", to.clone())
    })
    .await;
    let endpoint = Endpoint {
        https_first: true,
        tls: Tls {
            skip_verify: true,
            ..Tls::default()
        },
        ..origin(&registry.host())
    };
    let client: Client = client(&[endpoint]);
    let err = client.resolve(&tag()).await.expect_err("plain");
    assert_eq!(cause(&err), Cause::PlainHttp);
    // By plain http it would have been asked in vain, and been told of as broken.
    assert_eq!(registry.connections(), 1);
}

#[tokio::test]
async fn lists_that_are_too_much_are_refused() {
    // A ring of two pages.
    let ring = Server::start(|request: &Request, _| {
        let next = match request.target.contains("page=1") {
            true => "</v2/shop/web/tags/list?page=2>; rel=next",
            false => "</v2/shop/web/tags/list?page=1>; rel=next",
        };
        Reply::json("{}").with("link", next)
    })
    .await;
    let err = client(&[origin(&ring.host())])
        .tags()
        .await
        .expect_err("ring");
    let endless = Cause::Malformed("its list does not end".to_owned());
    assert_eq!(cause(&err), endless);
    assert!(ring.lines().len() < 5);

    let long = format!(r#"{{"tags":["{}"]}}"#, "x".repeat(129));
    let server = Server::start(move |_, _| Reply::json(&long)).await;
    let err = client(&[origin(&server.host())])
        .tags()
        .await
        .expect_err("long");
    assert_eq!(
        cause(&err),
        Cause::Malformed("a tag of 129 characters is in its list".to_owned())
    );

    // Four megabytes of nothing in each page.
    let padded = format!("{}{{}}", " ".repeat(4_000_000));
    let server = Server::start(move |_, number| {
        let next = format!("</v2/shop/web/tags/list?page={number}>; rel=next");
        Reply::json(&padded).with("link", next)
    })
    .await;
    let err = client(&[origin(&server.host())])
        .tags()
        .await
        .expect_err("large");
    assert_eq!(cause(&err), Cause::TooLarge { limit: 64 << 20 });
    assert!(server.lines().len() < 20);
}
