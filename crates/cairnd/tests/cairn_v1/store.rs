//! `cairn.v1.Store`: the store as a whole, and its objects as people name them.

use crate::common::{
    Server,
    archive::Archive,
    layer::Layer,
    map,
    own::{failure, refusal},
    snapshots::Snapshots,
};
use cairn_proto::cairn::v1::{
    CollectRequest, GetSnapshotRequest, InfoRequest, ListNamespacesRequest, RemoveBlobRequest,
    RemoveImageRequest, RemoveSnapshotRequest, ResolveRequest, UsageRequest, snapshot::Kind,
};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

const NAME: &str = "docker.io/shop/web:1";

fn web() -> Archive {
    Archive::new(NAME, &[Layer::new().file("motd", "welcome").bytes()])
}

#[tokio::test(flavor = "multi_thread")]
async fn space_is_told_and_freed() {
    let server = Server::start().await;
    let client = server.client("n");
    client.import(&web()).await;
    let usage = async || {
        let rows = client.cairn_store().usage(UsageRequest::default()).await;
        let rows = rows.expect("usage").into_inner().rows;
        let kinds: Vec<&str> = rows.iter().map(|row| &*row.kind).collect();
        assert_eq!(kinds, ["images", "content", "snapshots", "ingests"]);
        let counts = rows.iter().map(|row| (row.total, row.active));
        (
            counts.collect::<Vec<_>>(),
            rows[1].reclaimable,
            rows[2].reclaimable,
        )
    };
    // A layer, a configuration and a manifest.
    assert_eq!(usage().await, (vec![(1, 1), (3, 3), (1, 1), (0, 0)], 0, 0));
    let request = RemoveImageRequest {
        name: NAME.to_owned(),
        ..RemoveImageRequest::default()
    };
    client.cairn_images().remove(request).await.expect("remove");
    let (counts, blobs, snapshots) = usage().await;
    assert_eq!(counts, [(0, 0), (3, 0), (1, 0), (0, 0)]);
    assert!(blobs > 0 && snapshots > 0);
    for dry_run in [true, false] {
        let answer = client
            .cairn_store()
            .collect(CollectRequest { dry_run })
            .await;
        let answer = answer.expect("collect").into_inner();
        assert_eq!(answer.dry_run, dry_run);
        let content = answer.content.expect("content");
        assert_eq!((content.removed, content.freed), (3, blobs));
        let trees = answer.snapshots.expect("snapshots");
        assert_eq!((trees.removed, trees.freed), (1, snapshots));
    }
    assert_eq!(usage().await, (vec![(0, 0); 4], 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn collecting_waits_for_files_of_what_was_removed_before() {
    let server = Server::start().await;
    let snapshots = Snapshots(server.client("n"));
    for key in ["a", "b"] {
        let mounts = snapshots.prepare(key, "").await.expect("prepare");
        for number in 0..3000 {
            let file = std::path::Path::new(&mounts[0].source).join(number.to_string());
            std::fs::write(file, "").expect("write");
        }
        snapshots.remove(key).await.expect("remove");
    }
    let collect = CollectRequest { dry_run: false };
    server
        .nobody()
        .cairn_store()
        .collect(collect)
        .await
        .expect("collect");
    for dir in ["root/snapshots", "root/snapshots/trash"] {
        let entries = std::fs::read_dir(server.path(dir)).expect("list");
        let names = entries.map(|entry| entry.expect("entry").file_name());
        let left: Vec<_> = names.filter(|name| name != "trash").collect();
        assert!(left.is_empty(), "{dir}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_what_it_serves() {
    let server = Server::start().await;
    let client = server.nobody();
    let info = client.cairn_store().info(InfoRequest {}).await;
    let info = info.expect("info").into_inner();
    assert_eq!(info.root, server.path("root").display().to_string());
    assert_eq!((&*info.engine, info.pid), ("redb", std::process::id()));
    let layout = std::fs::read_to_string(server.path("root/layout")).expect("layout");
    let layout: serde_json::Value = serde_json::from_str(&layout).expect("layout");
    assert_eq!(layout["layout"], info.layout);
    let uuid = std::fs::read_to_string(server.path("root/uuid")).expect("uuid");
    assert_eq!(uuid.trim_end(), info.uuid);
    assert!((1..=info.total_bytes).contains(&info.free_bytes));
    assert!(info.started_at.is_some() && !info.version.is_empty());
    assert_eq!((&*info.read_only, &*info.api), ("", "containerd 2.3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_counted() {
    let server = Server::start().await;
    let image = server.client("a").import(&web()).await;
    server.client("b").put("abc", &[]).await;
    let labels = [("kept", "yes")];
    let create = cairn_proto::containerd::services::namespaces::v1::CreateNamespaceRequest {
        namespace: Some(
            cairn_proto::containerd::services::namespaces::v1::Namespace {
                name: "c".to_owned(),
                labels: map(&labels),
            },
        ),
    };
    server
        .nobody()
        .namespaces()
        .create(create)
        .await
        .expect("create");
    let list = server
        .nobody()
        .cairn_store()
        .list_namespaces(ListNamespacesRequest {})
        .await;
    let list = list.expect("list").into_inner().namespaces;
    let told = list
        .iter()
        .map(|ns| (&*ns.name, ns.images, ns.snapshots, ns.size));
    let told: Vec<_> = told.collect();
    let expected = [
        ("a", 1, 1, image.content_size),
        ("b", 0, 0, 3),
        ("c", 0, 0, 0),
    ];
    assert_eq!(told, expected);
    assert_eq!(list[2].labels, map(&labels));
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_are_found_by_their_digits() {
    let server = Server::start().await;
    let client = server.client("n");
    let digest = client.put("abc", &[]).await;
    let resolve = |ns: &str, text: &str| {
        let request = ResolveRequest {
            text: text.to_owned(),
            attempted: "read blob".to_owned(),
        };
        let mut store = server.client(ns).cairn_store();
        async move {
            store
                .resolve_blob(request)
                .await
                .map(|a| a.into_inner().name)
        }
    };
    for text in [&*digest, &digest[7..14], &digest[..20]] {
        assert_eq!(resolve("n", text).await.expect(text), digest);
    }
    let parts = failure(&resolve("other", &digest).await.expect_err("none"));
    assert_eq!(
        (&*parts.attempted, &parts.found_in),
        ("read blob", &vec!["n".to_owned()])
    );
    assert_eq!(
        refusal(resolve("n", "ba7816").await).0,
        Code::InvalidArgument
    );

    let remove = |digest: &str| {
        let digest = digest.to_owned();
        let mut store = client.cairn_store();
        async move { store.remove_blob(RemoveBlobRequest { digest }).await }
    };
    remove(&digest).await.expect("remove");
    assert!(!client.has(&digest).await);
    let (code, object, _) = refusal(remove(&digest).await);
    assert_eq!((code, object), (Code::NotFound, digest));
    assert_eq!(refusal(remove("sha256:abc").await).0, Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_measured() {
    let server = Server::start().await;
    let client = server.client("n");
    let snapshots = Snapshots(client.clone());
    snapshots.stack().await;
    let mounts = snapshots.mounts("active").await.expect("mounts");
    let upper = mounts[0].options.iter();
    let upper = upper
        .filter_map(|option| option.strip_prefix("upperdir="))
        .next();
    let file = std::path::Path::new(upper.expect("upperdir")).join("new");
    std::fs::write(file, vec![7; 100_000]).expect("file");
    let all = client.measured().await;
    let told: Vec<_> = all
        .iter()
        .map(|s| (&*s.key, &*s.parent, s.kind(), s.inodes.expect("measured")))
        .collect();
    assert_eq!(
        told,
        [
            ("active", "middle", Kind::Active, 2),
            ("base", "", Kind::Committed, 1),
            ("middle", "base", Kind::Committed, 1),
            ("view", "middle", Kind::View, 0),
        ]
    );
    assert!(all[0].bytes.expect("measured") >= 100_000);
    let get = |key: &str| {
        let key = key.to_owned();
        let mut store = client.cairn_store();
        async move {
            let answer = store.get_snapshot(GetSnapshotRequest { key }).await;
            answer.map(|a| a.into_inner().snapshot.expect("snapshot"))
        }
    };
    for snapshot in &all {
        assert_eq!(&get(&snapshot.key).await.expect("get"), snapshot);
    }
    let (code, object, _) = refusal(get("none").await);
    assert_eq!((code, &*object), (Code::NotFound, "none"));
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_removed_with_what_stands_on_them() {
    let server = Server::start().await;
    let client = server.client("n");
    Snapshots(client.clone()).stack().await;
    let resolve = |text: &str| {
        let request = ResolveRequest {
            text: text.to_owned(),
            attempted: "remove snapshot".to_owned(),
        };
        let mut store = client.cairn_store();
        async move {
            store
                .resolve_snapshot(request)
                .await
                .map(|a| a.into_inner().name)
        }
    };
    assert_eq!(resolve("base").await.expect("resolve"), "base");
    assert_eq!(refusal(resolve("bas").await).0, Code::NotFound);
    let remove = |key: &str, recursive: bool| {
        let key = key.to_owned();
        let mut store = client.cairn_store();
        async move {
            let request = RemoveSnapshotRequest { key, recursive };
            store
                .remove_snapshot(request)
                .await
                .map(|a| a.into_inner().keys)
        }
    };
    let status = remove("base", false).await.expect_err("a child");
    assert_eq!(status.code(), Code::FailedPrecondition);
    let parts = failure(&status);
    assert_eq!(parts.causes, ["child middle"]);
    assert_eq!(parts.next, ["cairn snapshots rm --recursive base"]);
    assert_eq!(remove("view", false).await.expect("a leaf"), ["view"]);
    let gone = remove("base", true).await.expect("all");
    assert_eq!(gone, ["active", "middle", "base"]);
    assert_eq!(client.measured().await, []);
    assert_eq!(refusal(remove("base", true).await).0, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_are_told_of() {
    let server = Server::start().await;
    let uri = format!("unix://{}", server.path("sock").display());
    let endpoint = Endpoint::from_shared(uri).expect("address");
    let channel = endpoint.connect().await.expect("connection");
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let answers = reflection
        .server_reflection_info(tokio_stream::once(request))
        .await;
    let answer = answers.expect("answers").into_inner().message().await;
    let answer = answer.expect("answer").expect("one").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else {
        panic!("{answer:?}")
    };
    let mut health = HealthClient::new(channel);
    for name in ["cairn.v1.Images", "cairn.v1.Store"] {
        assert!(list.service.iter().any(|service| service.name == name));
        let request = HealthCheckRequest {
            service: name.to_owned(),
        };
        let checked = health.check(request).await.expect("health").into_inner();
        assert_eq!(checked.status(), ServingStatus::Serving, "{name}");
    }
}
