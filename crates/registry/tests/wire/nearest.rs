//! What may have been meant by a tag that is not there: of Debian's registry, and of servers that have
//! something else to say.

use bytes::Bytes;
use cairn_registry::{Client, Error, Reference};
use cairn_types::media;
use serde_json::json;

use crate::{
    common::{
        client, origin,
        registry::Registry,
        server::{Reply, Request, Server},
    },
    lists::{client_of, named, push_image},
    read::{MANIFEST, digest},
};

async fn missing(client: &Client, tag: &str) -> (Error, Vec<String>) {
    let err = client.resolve(&named(tag)).await.expect_err("missing");
    let near = client.nearest_tags(&err).await;
    (err, near.iter().map(ToString::to_string).collect())
}

#[tokio::test]
async fn the_nearest_tags_of_debians_registry() {
    let registry = Registry::start();
    let client = client_of(&registry);
    push_image(&client).await;
    for number in 0..30 {
        let tag = named(&format!("1.{number}"));
        let manifest = Bytes::from(MANIFEST);
        let stored = client.put(&tag, media::OCI_MANIFEST, manifest).await;
        stored.expect("stored");
    }
    let (_, near) = missing(&client, "1.110").await;
    assert_eq!(near, ["1.11", "1.10"]);
    let (_, near) = missing(&client, "latest").await;
    assert_eq!(near, [""; 0]);
}

/// What a server answers a tag that it does not have.
fn unknown(code: &str) -> Reply {
    let text = json!({ "errors": [{ "code": code, "message": "" }] }).to_string();
    Reply::Whole(404, Vec::new(), text.into()).with("content-type", "application/json")
}

#[tokio::test]
async fn for_the_nearest_tags_one_page_is_asked_for_once() {
    let server = Server::start(|request: &Request, _| match request.path() {
        "/v2/shop/web/tags/list" => Reply::json(r#"{"tags":["1.9","2.0"]}"#)
            .with("link", "</v2/shop/web/tags/list?last=2.0>; rel=next"),
        _ => unknown("MANIFEST_UNKNOWN"),
    })
    .await;
    let (err, near) = missing(&client(&[origin(&server.host())]), "2.1").await;
    assert_eq!(near, ["2.0"]);
    assert_eq!(
        err.to_string(),
        "registry.example.com has no tag 2.1 in shop/web"
    );
    let lists = server
        .lines()
        .into_iter()
        .filter(|line| line.ends_with("/tags/list"));
    assert_eq!(lists.count(), 1);
}

/// Nothing that comes of it, or does not, is worth another word or wait.
#[tokio::test]
async fn without_a_list_there_are_no_nearest_tags() {
    let replies: [fn() -> Reply; 5] = [
        || Reply::status(401),
        || Reply::status(404),
        || Reply::status(503),
        || Reply::json("{"),
        || Reply::Stall(Vec::new()),
    ];
    for (number, reply) in replies.into_iter().enumerate() {
        let server = Server::start(move |request: &Request, _| match request.path() {
            "/v2/shop/web/tags/list" => reply(),
            _ => unknown("MANIFEST_UNKNOWN"),
        })
        .await;
        let client = client(&[origin(&server.host())]);
        let (_, near) = missing(&client, "2.1").await;
        assert_eq!(near, [""; 0], "{number}");
        let lists = server
            .lines()
            .into_iter()
            .filter(|line| line.ends_with("/tags/list"));
        assert_eq!(lists.count(), 1, "{number}");
    }
    // Of what is not there, and of a digest, nobody is asked for a list.
    let server = Server::start(|_, _| unknown("NAME_UNKNOWN")).await;
    let client = client(&[origin(&server.host())]);
    let (_, near) = missing(&client, "2.1").await;
    assert_eq!(near, [""; 0]);
    let err = client.resolve(&Reference::Digest(digest())).await;
    assert_eq!(client.nearest_tags(&err.expect_err("missing")).await, []);
    assert!(!server.lines().iter().any(|line| line.contains("tags")));
}
