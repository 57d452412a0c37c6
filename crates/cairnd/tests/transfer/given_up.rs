//! A pull whose client has had enough in the middle of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cairn_proto::containerd::{
    services::content::v1::ListStatusesRequest,
    types::transfer::{
        AuthRequest, AuthType, Data, HttpDebug, ImageStore, OciRegistry, RegistryResolver,
        UnpackConfiguration, WindowUpdate,
    },
};
use tokio::task::JoinHandle;
use tonic::Status;

use crate::{
    archives::images,
    common::{Client, Server, archive::Archive, layer::Layer},
    front::{Asked, Do, Front},
    registries::{NAME, answer, answered, at, distant, guarded, pull, push, store},
    registry::Registry,
};

/// Waits until an upload has so many bytes; only a test that fails waits to the end.
async fn kept(client: &Client, bytes: i64) {
    for _ in 0..6000 {
        let request = ListStatusesRequest::default();
        let list = client.content().list_statuses(request).await;
        let uploads = list.expect("uploads").into_inner().statuses;
        if uploads.iter().any(|upload| upload.offset >= bytes) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("no upload got so far");
}

/// Where a request for a part begins.
fn beginning(asked: &Asked) -> Option<usize> {
    let range = asked.header("range").strip_prefix("bytes=")?;
    range.split('-').next()?.parse().ok()
}

/// An image in a registry, behind a front that stops in the middle of its last layer until it is told
/// not to.
struct Stopping {
    _registry: Registry,
    archive: Archive,
    front: Front,
    open: Arc<AtomicBool>,
}

impl Stopping {
    async fn start() -> Stopping {
        let registry = Registry::start();
        let server = Server::start().await;
        let client = server.client("n");
        let layers = ["a", "b"].map(|text| Layer::new().file(text, &text.repeat(1 << 20)).bytes());
        let archive = Archive::new(NAME, &layers);
        client.import(&archive).await;
        push(&client, &distant(&registry, "shop/web:1", ""))
            .await
            .expect("push");
        let open = Arc::new(AtomicBool::new(false));
        let (gate, layer) = (open.clone(), format!("/blobs/{}", archive.layers[1]));
        let rule = move |asked: &Asked| match asked.line.ends_with(&layer)
            && !gate.load(Ordering::SeqCst)
        {
            true => Do::Stop(300 << 10),
            false => Do::Pass,
        };
        Stopping {
            front: Front::before(&registry, rule).await,
            _registry: registry,
            archive,
            open,
        }
    }

    fn image(&self) -> OciRegistry {
        at(&self.front.host(), "shop/web:1", "")
    }
}

/// A pull that goes on until it is given up.
fn begin(client: &Client, from: &OciRegistry, to: &ImageStore) -> JoinHandle<Result<(), Status>> {
    let (client, from, to) = (client.clone(), from.clone(), to.clone());
    tokio::spawn(async move { client.transfer(&from, &to, "").await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_is_given_up_leaves_room_for_the_next() {
    let there = Stopping::start().await;
    let (archive, front) = (&there.archive, &there.front);
    let server = Server::start().await;
    let client = server.client("n");
    let from = there.image();
    let mut to = store("a");
    to.unpacks = vec![UnpackConfiguration::default()];
    let pulling = begin(&client, &from, &to);
    front.stopped().await;
    kept(&client, 256 << 10).await;
    pulling.abort();
    front.left().await;
    assert_eq!(images(&client).await, []);
    assert!(!client.has(&archive.layers[1]).await);
    // Nobody has it to himself any more, and what came need not come again.
    there.open.store(true, Ordering::SeqCst);
    pull(&client, &from, &to).await.expect("pull");
    let begins: Vec<usize> = front.asked().iter().filter_map(beginning).collect();
    assert!(begins.iter().any(|at| *at >= 256 << 10), "{begins:?}");
    let other = server.client("m");
    pull(&other, &from, &to).await.expect("pull elsewhere");
    for client in [&client, &other] {
        let names = images(client).await.into_iter().map(|image| image.name);
        assert_eq!(names.collect::<Vec<_>>(), ["a"]);
        for digest in &archive.layers {
            assert!(client.has(digest).await);
        }
        assert_eq!(client.measured().await.len(), 2);
    }
}

/// Whether its client grants anything or not.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_told_of_requests_ends_with_the_call() {
    let there = Stopping::start().await;
    let plain = there.image();
    let from = OciRegistry {
        resolver: plain.resolver.map(|resolver| RegistryResolver {
            http_debug: HttpDebug::Trace.into(),
            logs_stream: "logs".to_owned(),
            ..resolver
        }),
        ..plain
    };
    let server = Server::start().await;
    let client = server.client("n");
    for window in [0, 1 << 20] {
        let mut logs = client.stream("logs").await.expect("a stream");
        logs.send(&WindowUpdate { update: window }).await;
        let pulling = begin(&client, &from, &store("a"));
        there.front.stopped().await;
        if window > 0 {
            assert!(logs.next::<Data>().await.is_some());
        }
        pulling.abort();
        logs.closed().await;
        there.front.left().await;
    }
    assert_eq!(images(&client).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_not_answered_ends_with_the_call() {
    let (_users, registry) = guarded();
    let server = Server::start().await;
    let client = server.client("n");
    let from = distant(&registry, "shop/web:1", "auth");
    let right = answer(AuthType::Credentials, "u", "secret");
    client
        .import(&Archive::new(NAME, &[Layer::new().file("a", "").bytes()]))
        .await;
    let stream = client.stream("auth").await.expect("a stream");
    let (pushed, _) = tokio::join!(push(&client, &from), answered(stream, right.clone()));
    pushed.expect("push");
    let mut stream = client.stream("auth").await.expect("a stream");
    let to = store("a");
    let pulling = begin(&client, &from, &to);
    let question = stream.next::<AuthRequest>().await.expect("a question");
    assert_eq!(question.host, registry.host());
    pulling.abort();
    stream.closed().await;
    let stream = client.stream("auth").await.expect("the id is free");
    let (pulled, _) = tokio::join!(pull(&client, &from, &to), answered(stream, right));
    pulled.expect("pull");
}
