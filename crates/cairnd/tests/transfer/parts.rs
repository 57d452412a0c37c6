//! Images of several platforms that come and go in parts.

use cairn_proto::containerd::types::{
    Platform,
    transfer::{ImageStore, OciRegistry, Progress, UnpackConfiguration},
};
use tonic::Code;

use crate::{
    archives::{host, images, import, named, platform},
    common::{Client, Server, code},
    platforms::{below, two_platforms},
    registries::{NAME, distant, pull, push_of, store},
    registry::Registry,
};

fn of(platforms: &[Platform]) -> ImageStore {
    ImageStore {
        platforms: platforms.to_vec(),
        ..store(NAME)
    }
}

/// The digest that was pushed.
fn pushed(told: &[Progress]) -> String {
    let pushed = told.iter().find(|told| told.event == "pushed content");
    let desc = pushed.and_then(|told| told.desc.as_ref());
    desc.expect("what was pushed").digest.clone()
}

/// What a registry's name means.
async fn there(distant: &OciRegistry) -> String {
    let server = Server::start().await;
    let client = server.client("n");
    // Of whatever platform it is.
    pull(&client, distant, &store("a")).await.expect("pull");
    digest(&client).await
}

/// What the only image here means.
async fn digest(client: &Client) -> String {
    let [image] = &*images(client).await else {
        panic!("one image")
    };
    image.target.as_ref().expect("a target").digest.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn platforms_come_that_are_named_or_all() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    let (bytes, [ours, other]) = two_platforms();
    import(&client, &bytes, &named()).await.expect("import");
    let index = digest(&client).await;
    let from = distant(&registry, "shop/web:1", "");
    push_of(&client, &of(&[]), &from).await.expect("push");
    let (s390x, riscv) = (platform("linux", "s390x"), platform("linux", "riscv64"));
    for (platforms, has) in [
        (vec![], (true, true)),
        (vec![host()], (true, false)),
        (vec![s390x.clone()], (false, true)),
        (vec![host(), s390x.clone()], (true, true)),
        // As with containerd one of them is enough.
        (vec![riscv.clone(), s390x.clone()], (false, true)),
    ] {
        let server = Server::start().await;
        let client = server.client("n");
        let mut to = of(&platforms);
        to.unpacks = platforms.iter().map(unpacked).collect();
        pull(&client, &from, &to).await.expect("pull");
        client.collect().await;
        assert_eq!(digest(&client).await, index, "{platforms:?}");
        let mut keys = Vec::new();
        for (manifest, has) in [(&ours, has.0), (&other, has.1)] {
            let [config, layer] = below(&bytes, manifest);
            for digest in [manifest, &config, &layer] {
                assert_eq!(client.has(digest).await, has, "{platforms:?}: {digest}");
            }
            keys.extend(has.then_some(layer).filter(|_| !platforms.is_empty()));
        }
        let made = client.measured().await.into_iter();
        let mut made: Vec<String> = made.map(|snapshot| snapshot.key).collect();
        keys.sort();
        made.sort();
        assert_eq!(made, keys, "{platforms:?}");
    }
    let server = Server::start().await;
    let client = server.client("n");
    let none = pull(&client, &from, &of(&[riscv])).await;
    assert_eq!(code(none), Code::NotFound);
    assert_eq!(images(&client).await, []);
}

fn unpacked(platform: &Platform) -> UnpackConfiguration {
    UnpackConfiguration {
        platform: Some(platform.clone()),
        ..UnpackConfiguration::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_platform_goes_by_itself() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    let (bytes, [ours, other]) = two_platforms();
    import(&client, &bytes, &named()).await.expect("import");
    let index = digest(&client).await;
    let s390x = platform("linux", "s390x");
    let to = |rest: &str| distant(&registry, rest, "");
    for (rest, platforms, expected) in [
        ("one:ours", vec![host()], &ours),
        ("one:other", vec![s390x.clone()], &other),
        ("both:1", vec![host(), s390x.clone()], &index),
        ("all:1", vec![], &index),
    ] {
        let told = push_of(&client, &of(&platforms), &to(rest)).await;
        assert_eq!(pushed(&told.expect("push")), *expected, "{rest}");
        assert_eq!(there(&to(rest)).await, *expected, "{rest}");
    }
    let riscv = of(&[platform("linux", "riscv64")]);
    let none = push_of(&client, &riscv, &to("none:1")).await;
    assert_eq!(code(none), Code::NotFound);
    // One of them is all that is here, and the registry has nothing of the others.
    let server = Server::start().await;
    let client = server.client("n");
    pull(&client, &to("all:1"), &of(&[s390x]))
        .await
        .expect("pull");
    assert_eq!(digest(&client).await, index);
    let elsewhere = Registry::start();
    let to = distant(&elsewhere, "one:1", "");
    let told = push_of(&client, &of(&[]), &to).await.expect("push");
    assert_eq!(pushed(&told), other);
    let said = format!("is linux/s390x alone, {other}: no other is here");
    assert!(
        told.iter().any(|told| told.event.ends_with(&said)),
        "{told:?}"
    );
    assert_eq!(there(&to).await, other);
    let absent = push_of(&client, &of(&[host()]), &to).await;
    assert_eq!(code(absent), Code::NotFound);
}
