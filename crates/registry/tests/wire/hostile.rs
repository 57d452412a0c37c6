//! Hosts that mean no good: who never come to an end, and who have others asked that we can reach.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use cairn_registry::{Blob, Cause, Error, Options, Source};
use cairn_types::{Descriptor, Digest, media};

use crate::common::{
    FakeClock, client_with, noise, options, origin,
    server::{Reply, Request, Server},
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
