//! What a registry is asked and what it answers, for a client that wants to see it.

use cairn_proto::containerd::types::transfer::{
    AuthType, Data, HttpDebug, OciRegistry, RegistryResolver,
};
use tonic::Code;

use crate::{
    archives::images,
    common::{Client, Server, code},
    registries::{answer, answered, archive, distant, guarded, pull, push, store},
    registry::Registry,
};

/// `u:secret`, as it is shown to a host.
const BASIC: &str = "dTpzZWNyZXQ=";
const HEADER: (&str, &str) = ("x-shop", "hidden-from-view");

/// The image of a registry, of whose requests so much is told on the stream of this id.
fn seen(registry: &Registry, wanted: HttpDebug, logs: &str) -> OciRegistry {
    let plain = distant(registry, "shop/web:1", "");
    OciRegistry {
        resolver: plain.resolver.map(|resolver| RegistryResolver {
            http_debug: wanted.into(),
            logs_stream: logs.to_owned(),
            ..resolver
        }),
        ..plain
    }
}

/// The same for `u`, with a header that nobody is to see.
fn by_user(registry: &Registry, wanted: HttpDebug) -> OciRegistry {
    let plain = seen(registry, wanted, "logs");
    OciRegistry {
        resolver: plain.resolver.map(|resolver| RegistryResolver {
            auth_stream: "auth".to_owned(),
            headers: [(HEADER.0.to_owned(), HEADER.1.to_owned())].into(),
            ..resolver
        }),
        ..plain
    }
}

/// What is told while the image goes to the registry, or comes from there.
async fn told(client: &Client, distant: &OciRegistry, out: bool) -> String {
    let auth = client.stream("auth").await.expect("a stream");
    let logs = client.stream("logs").await.expect("a stream");
    let right = answer(AuthType::Credentials, "u", "secret");
    let to = store("pulled");
    let moved = async {
        match out {
            true => push(client, distant).await.expect("push"),
            false => pull(client, distant, &to).await.expect("pull"),
        }
    };
    let (_, _, bytes) = tokio::join!(moved, answered(auth, right), logs.receive_all());
    let text = String::from_utf8(bytes).expect("text");
    assert!(text.ends_with('\n'), "{text}");
    for line in text.lines() {
        assert!(line.starts_with('#'), "{line}");
    }
    for secret in ["secret", BASIC, HEADER.1] {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
    text
}

#[track_caller]
fn has(text: &str, part: &str) {
    assert!(text.contains(part), "no {part:?} in\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sees_what_its_registry_is_asked() {
    let (_users, registry) = guarded();
    let server = Server::start().await;
    let client = server.client("n");
    let archive = archive();
    client.import(&archive).await;
    let base = format!("http://{}/v2/shop/web", registry.host());
    let sent = told(&client, &by_user(&registry, HttpDebug::Debug), true).await;
    has(&sent, &format!("POST {base}/blobs/uploads/"));
    has(&sent, &format!("PUT {base}/manifests/1"));
    for (wanted, messages) in [
        (HttpDebug::Debug, true),
        (HttpDebug::Trace, false),
        (HttpDebug::Both, true),
    ] {
        let server = Server::start().await;
        let came = told(&server.client("n"), &by_user(&registry, wanted), false).await;
        has(&came, &format!("{base}/manifests/1"));
        for digest in &archive.layers {
            has(&came, &format!("GET {base}/blobs/{digest}"));
        }
        for part in [
            " > authorization: Basic ***",
            " > x-shop: ***",
            " < docker-content-digest: ",
        ] {
            assert_eq!(came.contains(part), messages, "{wanted:?}: {part}\n{came}");
        }
    }
}

/// As with containerd nobody looks for the stream then.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_unless_it_is_asked_for() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&archive()).await;
    let quiet = seen(&registry, HttpDebug::Disabled, "logs");
    push(&client, &quiet).await.expect("push without a stream");
    let mut logs = client.stream("logs").await.expect("a stream");
    pull(&client, &quiet, &store("a")).await.expect("pull");
    assert_eq!(logs.next::<Data>().await, None);
    // But it has to be there for what is asked for.
    let wanted = seen(&registry, HttpDebug::Debug, "logs");
    let refused = pull(&client, &wanted, &store("b")).await;
    assert_eq!(code(refused), Code::NotFound);
    assert_eq!(images(&client).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_client_that_takes_nothing() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&archive()).await;
    let told = seen(&registry, HttpDebug::Both, "logs");
    let mut logs = client.stream("logs").await.expect("a stream");
    push(&client, &told).await.expect("push");
    assert_eq!(logs.next::<Data>().await, None, "nothing was granted");
    let server = Server::start().await;
    let client = server.client("n");
    let mut logs = client.stream("logs").await.expect("a stream");
    pull(&client, &told, &store("a")).await.expect("pull");
    assert_eq!(logs.next::<Data>().await, None, "nothing was granted");
    assert_eq!(images(&client).await.len(), 1);
    // What has ended is free.
    client.stream("logs").await.expect("a stream");
}

/// The stream is over with the call, whatever came of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_told_to_its_end() {
    let registry = Registry::start();
    let server = Server::start().await;
    let client = server.client("n");
    let logs = client.stream("logs").await.expect("a stream");
    let told = seen(&registry, HttpDebug::Trace, "logs");
    let to = store("a");
    let (refused, bytes) = tokio::join!(pull(&client, &told, &to), logs.receive_all());
    assert_eq!(code(refused), Code::NotFound);
    let text = String::from_utf8(bytes).expect("text");
    has(&text, "404");
}
