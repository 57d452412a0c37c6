//! Push, pull, mount and resume with Debian's registry.

use std::sync::Arc;

use bytes::Bytes;
use cairn_registry::{
    Cause, Client, Mounted, Options, Pushed, Reference, Source, Tag, credentials::Anonymous,
    credentials::Credentials,
};
use cairn_types::{Classified, Descriptor, Digest, ErrorKind, media};

use crate::{
    common::{FakeClock, noise, options, origin, registry::Registry},
    read::{DIGEST, MANIFEST, descriptor},
};

fn client_of(registry: &Registry, repository: &str, chunk: Option<u64>) -> Client {
    let nobody: Arc<dyn Credentials> = Arc::new(Anonymous);
    let options = Options {
        upload_chunk: chunk,
        ..options(&FakeClock::new())
    };
    let endpoints = [origin(&registry.host())];
    Client::new(&registry.host(), repository, &endpoints, &nobody, options).expect("client")
}

fn blob(bytes: Vec<u8>) -> (Descriptor, Arc<dyn Source>) {
    let digest = Digest::sha256(&bytes);
    let descriptor = Descriptor::new(media::OCI_LAYER_GZIP, digest, bytes.len() as u64);
    (descriptor, Arc::new(Bytes::from(bytes)))
}

async fn read(client: &Client, descriptor: &Descriptor, offset: u64) -> Vec<u8> {
    let mut blob = client.blob(descriptor, offset);
    let mut all = Vec::new();
    while let Some(bytes) = blob.chunk().await.expect("bytes") {
        all.extend_from_slice(&bytes);
    }
    all
}

#[tokio::test]
async fn blobs_come_back_as_they_went() {
    let registry = Registry::start();
    for (chunk, len) in [
        (None, 1 << 20),
        (Some(100_000), 1_000_001),
        (Some(10), 10),
        (None, 0),
    ] {
        let client = client_of(&registry, "shop/web", chunk);
        let bytes = noise(len);
        let (descriptor, source) = blob(bytes.clone());
        assert!(!client.exists(&descriptor).await.expect("asked"));
        let pushed = client.push(&descriptor, &source, &[]).await;
        assert_eq!(pushed.expect("pushed"), Pushed::Sent, "{len}");
        assert!(client.exists(&descriptor).await.expect("asked"));
        let pushed = client.push(&descriptor, &source, &[]).await;
        assert_eq!(pushed.expect("pushed"), Pushed::Present);
        assert_eq!(read(&client, &descriptor, 0).await, bytes);
        let half = len / 2;
        assert_eq!(read(&client, &descriptor, half as u64).await, bytes[half..]);
    }
}

#[tokio::test]
async fn an_upload_is_gone_on_with_later() {
    let registry = Registry::start();
    let bytes = noise(500_000);
    let (descriptor, source) = blob(bytes.clone());
    let state = {
        let client = client_of(&registry, "shop/web", None);
        let mut upload = client.upload(&descriptor).await.expect("session");
        upload.send_until(&source, 200_000).await.expect("part");
        assert_eq!(upload.offset(), 200_000);
        upload.state()
    };
    let client = client_of(&registry, "shop/web", Some(100_000));
    let mut upload = client.resume(&descriptor, &state).await.expect("resumed");
    assert_eq!(upload.offset(), 200_000);
    upload.send(&source).await.expect("rest");
    assert_eq!(read(&client, &descriptor, 0).await, bytes);
    let err = client.resume(&descriptor, &state).await.expect_err("over");
    assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
}

#[tokio::test]
async fn an_upload_is_cancelled() {
    let registry = Registry::start();
    let client = client_of(&registry, "shop/web", None);
    let (descriptor, source) = blob(noise(1000));
    let mut upload = client.upload(&descriptor).await.expect("session");
    upload.send_until(&source, 500).await.expect("part");
    let state = upload.state();
    upload.cancel().await.expect("cancelled");
    let err = client.resume(&descriptor, &state).await.expect_err("gone");
    assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_named() {
    let registry = Registry::start();
    let client = client_of(&registry, "shop/web", None);
    let (mut descriptor, source) = blob(noise(1000));
    descriptor.digest = Digest::sha256(b"other");
    let mut upload = client.upload(&descriptor).await.expect("session");
    let err = upload.send(&source).await.expect_err("refused");
    let answer = err.last().and_then(|failed| failed.cause.answer());
    assert!(
        answer.is_some_and(|answer| answer.has("DIGEST_INVALID")),
        "{err:?}"
    );
    assert!(!client.exists(&descriptor).await.expect("asked"));
}

#[tokio::test]
async fn a_blob_is_mounted_from_a_neighbour() {
    let registry = Registry::start();
    let bytes = noise(5000);
    let (descriptor, source) = blob(bytes.clone());
    let base = client_of(&registry, "base/debian", None);
    base.push(&descriptor, &source, &[]).await.expect("pushed");
    let client = client_of(&registry, "shop/web", None);
    let from = ["base/alpine".to_owned(), "base/debian".to_owned()];
    let pushed = client
        .push(&descriptor, &source, &from)
        .await
        .expect("pushed");
    assert_eq!(pushed, Pushed::Mounted("base/debian".to_owned()));
    assert_eq!(read(&client, &descriptor, 0).await, bytes);
    let (other, _) = blob(noise(5001));
    let mounted = client.mount(&other, "base/debian").await.expect("asked");
    let Mounted::No(upload) = mounted else {
        panic!("mounted what is not there");
    };
    upload.cancel().await.expect("cancelled");
}

#[tokio::test]
async fn manifests_by_tag_and_by_digest() {
    let registry = Registry::start();
    let client = client_of(&registry, "shop/web", None);
    let (config, source) = blob(b"{}".to_vec());
    client.push(&config, &source, &[]).await.expect("config");
    let manifest = Bytes::from(MANIFEST);
    let by_digest = Reference::Digest(Digest::parse(DIGEST).expect("digest"));
    let tag = |text| Reference::Tag(Tag::parse(text).expect("tag"));
    for reference in [by_digest.clone(), tag("2.1"), tag("latest")] {
        let stored = client
            .put(&reference, media::OCI_MANIFEST, manifest.clone())
            .await;
        stored.expect("stored");
        assert_eq!(
            client.resolve(&reference).await.expect("resolved"),
            descriptor()
        );
    }
    assert_eq!(
        client.manifest(&descriptor()).await.expect("manifest"),
        MANIFEST
    );
    assert!(client.exists(&descriptor()).await.expect("asked"));
    assert!(client.is_stored(&descriptor()).await.expect("asked"));
    let mut tags = client.tags().await.expect("tags");
    tags.sort();
    assert_eq!(tags, ["2.1", "latest"]);
    let referrers = client.referrers(&descriptor().digest, None).await;
    assert_eq!(referrers.expect("referrers"), []);

    let other = Reference::Digest(Digest::sha256(b"other"));
    let err = client
        .put(&other, media::OCI_MANIFEST, manifest)
        .await
        .expect_err("other");
    assert!(matches!(
        err.last().expect("asked").cause,
        Cause::WrongDigest { .. }
    ));
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let registry = Registry::start();
    let host = registry.host();
    let client = client_of(&registry, "shop/web", None);
    let reference = Reference::Tag(Tag::parse("2.1").expect("tag"));
    let err = client.resolve(&reference).await.expect_err("missing");
    assert_eq!(
        err.to_string(),
        format!("{host} has no tag 2.1 in shop/web")
    );
    assert_eq!(err.kind(), ErrorKind::NotFound);
    let answer = err.last().and_then(|failed| failed.cause.answer());
    assert!(
        answer.is_some_and(|answer| answer.has("MANIFEST_UNKNOWN")),
        "{err:?}"
    );
    let err = client.tags().await.expect_err("missing");
    assert_eq!(
        err.to_string(),
        format!("{host} has no repository shop/web")
    );
}
