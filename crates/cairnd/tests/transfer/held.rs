//! What holds an image that was pulled.

use cairn_proto::containerd::{
    services::{
        images::v1::DeleteImageRequest,
        leases::v1::{CreateRequest, DeleteRequest},
    },
    types::transfer::UnpackConfiguration,
};

use crate::{
    common::{Client, Server, archive::Archive, map},
    registries::{NAME, archive, distant, pull, push, store},
    registry::Registry,
};

/// How many of its blobs are here, and how many layers are unpacked.
async fn here(client: &Client, archive: &Archive) -> (usize, usize) {
    let mut blobs = 0;
    let documents = [&archive.manifest, &archive.config];
    for digest in documents.into_iter().chain(&archive.layers) {
        blobs += usize::from(client.has(digest).await);
    }
    (blobs, client.measured().await.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_holds_what_was_pulled_under_it() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive();
    client.import(&archive).await;
    let distant = distant(&registry, "shop/web:1", "");
    push(&client, &distant).await.expect("push");
    for (ns, leased) in [("leased", true), ("free", false)] {
        // A store of its own: what another namespace has would not be fetched.
        let server = Server::start().await;
        let client = server.client(ns);
        let puller = match leased {
            true => client.leased("l").await,
            false => client.clone(),
        };
        let mut to = store("a");
        to.unpacks = vec![UnpackConfiguration::default()];
        pull(&puller, &distant, &to).await.expect("pull");
        client.collect().await;
        assert_eq!(here(&client, &archive).await, (4, 2), "{ns}: named");
        let delete = DeleteImageRequest {
            name: "a".to_owned(),
            sync: true,
            target: None,
        };
        client.images().delete(delete).await.expect("delete");
        client.collect().await;
        let held = if leased { (4, 2) } else { (0, 0) };
        assert_eq!(here(&client, &archive).await, held, "{ns}: without a name");
        if leased {
            let delete = DeleteRequest {
                id: "l".to_owned(),
                sync: true,
            };
            client.leases().delete(delete).await.expect("delete");
            client.collect().await;
            assert_eq!(here(&client, &archive).await, (0, 0), "without a lease");
        }
    }
}

/// Another's name held it, and may go before the puller comes to use what it was given.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_holds_what_was_here_before_the_pull() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive();
    let distant = distant(&registry, "shop/web:1", "");
    client.import(&archive).await;
    push(&client, &distant).await.expect("push");
    for flat in ["", "1"] {
        client.import(&archive).await;
        let lease = CreateRequest {
            id: "l".to_owned(),
            labels: map(&[("containerd.io/gc.flat", flat)]),
        };
        client.leases().create(lease).await.expect("lease");
        let mut to = store("a");
        to.unpacks = vec![UnpackConfiguration::default()];
        let puller = client.under("l");
        pull(&puller, &distant, &to).await.expect("pull");
        for name in [NAME, "a"] {
            let delete = DeleteImageRequest {
                name: name.to_owned(),
                sync: true,
                target: None,
            };
            client.images().delete(delete).await.expect("delete");
        }
        client.collect().await;
        assert_eq!(here(&client, &archive).await, (4, 2), "flat: {flat:?}");
        let delete = DeleteRequest {
            id: "l".to_owned(),
            sync: true,
        };
        client.leases().delete(delete).await.expect("delete");
        client.collect().await;
        assert_eq!(here(&client, &archive).await, (0, 0), "without a lease");
    }
}
