//! Hosts that mean no good: who never come to an end, and who have others asked that we can reach.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cairn_registry::{
    Blob, Cause, Client, Error, Options, Source,
    credentials::Credential,
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
async fn a_secret_is_not_sent_on() {
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

/// Https was there: what fails behind it is no reason to ask in the clear.
#[tokio::test]
async fn a_redirect_does_not_lead_back_to_http() {
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
