//! What images are called that a transfer stores, and what it takes to be tagged.

use cairn_proto::containerd::{
    services::{images::v1::ImageCreate, leases::v1::DeleteRequest},
    types::transfer::{ImageReference, ImageStore},
};
use prost::Message;
use tonic::Code;

use crate::{
    archives::{images, import, oci},
    common::{Client, Server, archive::Archive, code, events::Subscription, layer::Layer, map},
};

const NAME: &str = "registry.test/shop/web:1";

fn store(name: &str, more: &[ImageReference]) -> ImageStore {
    ImageStore {
        name: name.to_owned(),
        extra_references: more.to_vec(),
        ..ImageStore::default()
    }
}

fn complete(name: &str) -> ImageReference {
    ImageReference {
        name: name.to_owned(),
        ..ImageReference::default()
    }
}

fn prefix(name: &str) -> ImageReference {
    ImageReference {
        is_prefix: true,
        ..complete(name)
    }
}

fn archive(name: &str) -> Archive {
    Archive::new(name, &[Layer::new().file("a", name).bytes()])
}

/// Names and, of those that are tied to another image, which that is.
async fn named(client: &Client) -> Vec<(String, Option<String>)> {
    let all = images(client).await.into_iter();
    let tied = |labels: &std::collections::BTreeMap<String, String>| {
        let tie = labels.get("containerd.io/gc.bref.image").cloned();
        assert_eq!(
            tie.is_some(),
            labels.contains_key("containerd.io/gc.expire")
        );
        tie
    };
    all.map(|image| (image.name, tied(&image.labels))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_named_by_its_own_names_and_by_prefixes() {
    let server = Server::start().await;
    let archive = archive(NAME);
    let by_digest = format!("base@{}", archive.manifest);
    let overwriting = ImageReference {
        allow_overwrite: true,
        ..prefix("base")
    };
    let digested = ImageReference {
        add_digest: true,
        ..overwriting.clone()
    };
    let skipping = ImageReference {
        skip_named_digest: true,
        ..digested.clone()
    };
    let rows = [
        ("a", prefix("registry.test/shop"), vec![NAME]),
        ("b", overwriting, vec![NAME]),
        ("c", digested, vec![&*by_digest, NAME]),
        ("d", skipping, vec![NAME]),
    ];
    for (ns, reference, expected) in rows {
        let client = server.client(ns);
        let told = import(&client, &archive.bytes, &store("", &[reference])).await;
        let told = told.expect("import");
        let names: Vec<String> = images(&client).await.into_iter().map(|i| i.name).collect();
        assert_eq!(names, expected, "{ns}");
        let mut saved: Vec<&str> = told
            .iter()
            .filter(|progress| progress.event == "saved")
            .map(|progress| &*progress.name)
            .collect();
        saved.sort_unstable();
        assert_eq!(saved, expected, "{ns}");
    }
    let client = server.client("none");
    let other = import(&client, &archive.bytes, &store("", &[prefix("other")])).await;
    assert_eq!(code(other), Code::NotFound);
    assert_eq!(named(&client).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_stored_to_the_letter() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive("web");
    // It would be a tag of a name that was completed.
    let tag = import(&client, &archive.bytes, &store("", &[prefix("p")])).await;
    assert_eq!(code(tag), Code::NotFound);
    let index = import(&client, &archive.bytes, &store("web", &[])).await;
    index.expect("import");
    assert_eq!(named(&client).await, [("web".to_owned(), None)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_names_go_with_that_of_the_index() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive(NAME);
    let more = [prefix("registry.test/shop"), complete("index:other")];
    let mut wanted = store("index:1", &more);
    wanted.labels = map(&[("mine", "1"), ("none", "")]);
    import(&client, &archive.bytes, &wanted)
        .await
        .expect("import");
    let first = Some("index:1".to_owned());
    let expected = [
        ("index:1".to_owned(), None),
        ("index:other".to_owned(), first.clone()),
        (NAME.to_owned(), first),
    ];
    assert_eq!(named(&client).await, expected);
    let all = images(&client).await;
    assert_eq!(all[0].labels, map(&[("mine", "1")]));
    assert!(all.iter().all(|image| image.labels["mine"] == "1"));
    let target = |n: usize| all[n].target.as_ref().expect("target").digest.clone();
    assert_eq!(target(0), target(1));
    assert_eq!(target(2), archive.manifest);
    assert_eq!(target(0), oci(&archive.bytes)["index.json"].1);
    // Another transfer's labels replace them.
    import(&client, &archive.bytes, &store("index:1", &[]))
        .await
        .expect("import");
    assert_eq!(images(&client).await[0].labels, map(&[]));
}

/// Whoever looks in between, or after a power cut, would find one that stays for ever.
#[tokio::test(flavor = "multi_thread")]
async fn no_image_is_ever_without_its_labels() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive(NAME);
    let mut wanted = store("index:1", &[prefix("registry.test/shop")]);
    wanted.labels = map(&[("mine", "1")]);
    for topic in ["/images/create", "/images/update"] {
        let events = Subscription::start(&client, &["topic~=\"/images/\""]).await;
        import(&client, &archive.bytes, &wanted)
            .await
            .expect("import");
        let told = events.end().await;
        // One for each of the two.
        let topics: Vec<&str> = told.iter().map(|envelope| &*envelope.topic).collect();
        assert_eq!(topics, [topic; 2]);
        for envelope in told {
            let event = envelope.event.expect("event");
            // Both kinds have the same fields.
            let ImageCreate { name, labels } = ImageCreate::decode(&*event.value).expect("event");
            assert_eq!(labels["mine"], "1", "{name}");
            let tie = labels.get("containerd.io/gc.bref.image");
            assert_eq!(tie.is_some(), name == NAME, "{name}: {labels:?}");
        }
    }
}

/// What expires is held by the lease of whoever made it, as with the image service.
#[tokio::test(flavor = "multi_thread")]
async fn what_expires_is_held_by_the_lease() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive(NAME);
    let mut wanted = store("index:1", &[]);
    wanted.labels = map(&[("containerd.io/gc.expire", "2001-01-01T00:00:00Z")]);
    let stream = client.stream("i").await.expect("a stream");
    let (none, under) = (crate::streams::import("i"), client.under("none"));
    let (none, ()) = tokio::join!(
        under.transfer(&none, &wanted, ""),
        stream.send_all(&archive.bytes),
    );
    assert_eq!(code(none), Code::NotFound);
    assert_eq!(images(&client).await, []);
    let leased = client.leased("l").await;
    import(&leased, &archive.bytes, &wanted)
        .await
        .expect("import");
    client.collect().await;
    assert_eq!(images(&client).await.len(), 1);
    let request = DeleteRequest {
        id: "l".to_owned(),
        sync: true,
    };
    client.leases().delete(request).await.expect("delete");
    assert_eq!(images(&client).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_tagged() {
    let server = Server::start().await;
    let client = server.client("n");
    let (one, two) = (archive(NAME), archive("registry.test/two:1"));
    for archive in [&one, &two] {
        client.import(archive).await;
    }
    let from = store(NAME, &[]);
    let digested = ImageReference {
        add_digest: true,
        ..complete("c")
    };
    // A prefix of an archive's names says nothing here.
    let mut to = store("a", &[complete("b"), digested, prefix("d")]);
    to.labels = map(&[("k", "v")]);
    client.transfer(&from, &to, "").await.expect("tag");
    let by_digest = format!("c@{}", one.manifest);
    let all = images(&client).await;
    let names: Vec<&str> = all.iter().map(|image| &*image.name).collect();
    assert_eq!(names, ["a", "b", &by_digest, NAME, "registry.test/two:1"]);
    for image in &all[..3] {
        assert_eq!(image.target.as_ref().expect("target").digest, one.manifest);
        assert_eq!(image.labels["k"], "v");
    }
    // What there was under a name is replaced, labels included.
    let (from, to) = (store("registry.test/two:1", &[]), store("a", &[]));
    client.transfer(&from, &to, "").await.expect("tag");
    let all = images(&client).await;
    assert_eq!(all[0].target.as_ref().expect("target").digest, two.manifest);
    assert_eq!(all[0].labels, map(&[]));
    // They went with the image that they are tied to, had it gone; it has not.
    client.collect().await;
    assert_eq!(images(&client).await.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_tagged_is_refused() {
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&archive(NAME)).await;
    let rows = [
        (store("absent", &[]), store("a", &[]), Code::NotFound),
        (store("", &[]), store("a", &[]), Code::NotFound),
        (store(NAME, &[]), store("", &[]), Code::NotFound),
        (store(NAME, &[]), store("", &[prefix("p")]), Code::NotFound),
        (store(NAME, &[]), store("a\0", &[]), Code::InvalidArgument),
    ];
    for (from, to, expected) in rows {
        let answer = client.transfer(&from, &to, "").await;
        assert_eq!(code(answer), expected, "{from:?} {to:?}");
    }
    assert_eq!(named(&client).await.len(), 1);
}
