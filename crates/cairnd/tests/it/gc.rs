//! Garbage collection as clients see it: built under a lease, and left to itself when that goes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cairn_proto::containerd::services::{
    content::v1::{ListContentRequest, ListStatusesRequest},
    images::v1::{CreateImageRequest, DeleteImageRequest, Image, ListImagesRequest},
    leases::v1::{AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, Resource},
    snapshots::v1::{CommitSnapshotRequest, ListSnapshotsRequest, PrepareSnapshotRequest},
};
use cairnd::{
    config::Layers,
    maintain::{self, Activity},
};
use tokio::sync::watch;

use crate::common::{Client, Server, descriptor, map, sha256, write};

const ROOT: (&str, &str) = ("containerd.io/gc.root", "1");
const REF: &str = "containerd.io/gc.ref.content";
const REF_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.overlayfs";
const BACK: &str = "containerd.io/gc.bref.content";
const EXPIRE: &str = "containerd.io/gc.expire";
const PAST: &str = "2001-01-01T00:00:00Z";
const FUTURE: &str = "2101-01-01T00:00:00Z";

/// Something to be collected, or not. Blobs are named by their text.
struct Case {
    /// Under the lease that goes.
    client: Client,
    texts: BTreeMap<String, String>,
}

impl Case {
    async fn new(server: &Server, ns: &str) -> Case {
        let client = server.client(ns).leased("hold").await;
        Case {
            client,
            texts: BTreeMap::new(),
        }
    }

    async fn blob(&mut self, text: &str, labels: &[(&str, &str)]) -> String {
        let digest = self.client.put(text, labels).await;
        self.texts.insert(digest.clone(), text.to_owned());
        digest
    }

    async fn prepare(&self, key: &str, parent: &str, labels: &[(&str, &str)]) {
        let request = PrepareSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: map(labels),
        };
        self.client.snapshots().prepare(request).await.expect(key);
    }

    async fn snapshot(&self, name: &str, parent: &str, labels: &[(&str, &str)]) {
        self.prepare("work", parent, &[]).await;
        let request = CommitSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            name: name.to_owned(),
            key: "work".to_owned(),
            labels: map(labels),
            ..CommitSnapshotRequest::default()
        };
        self.client.snapshots().commit(request).await.expect(name);
    }

    async fn image(&self, name: &str, target: &str, labels: &[(&str, &str)]) {
        let request = CreateImageRequest {
            image: Some(Image {
                name: name.to_owned(),
                labels: map(labels),
                target: Some(descriptor("text/plain", target, 1)),
                ..Image::default()
            }),
            source_date_epoch: None,
        };
        self.client.images().create(request).await.expect(name);
    }

    /// Lets go of everything and says what is left: blobs, snapshots, images, uploads, leases.
    async fn collect(&self) -> String {
        let delete = DeleteRequest {
            id: "hold".to_owned(),
            sync: true,
        };
        self.client.leases().delete(delete).await.expect("collect");
        self.left().await
    }

    async fn left(&self) -> String {
        let client = &self.client;
        let mut left = Vec::new();
        let request = ListContentRequest::default();
        let stream = client.content().list(request).await.expect("list");
        let mut stream = stream.into_inner();
        while let Some(batch) = stream.message().await.expect("batch") {
            left.extend(batch.info.iter().map(|i| self.texts[&i.digest].clone()));
        }
        let request = ListSnapshotsRequest {
            snapshotter: "overlayfs".to_owned(),
            filters: vec![],
        };
        let stream = client.snapshots().list(request).await.expect("list");
        let mut stream = stream.into_inner();
        while let Some(batch) = stream.message().await.expect("batch") {
            left.extend(batch.info.into_iter().map(|i| i.name));
        }
        let images = client.images().list(ListImagesRequest::default()).await;
        let images = images.expect("list").into_inner().images;
        left.extend(images.into_iter().map(|i| i.name));
        let request = ListStatusesRequest::default();
        let refs = client.content().list_statuses(request).await;
        let refs = refs.expect("list").into_inner().statuses;
        left.extend(refs.into_iter().map(|s| s.r#ref));
        let leases = client.leases().list(ListRequest::default()).await;
        let leases = leases.expect("list").into_inner().leases;
        left.extend(leases.into_iter().map(|l| l.id));
        left.sort();
        left.join(" ")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nothing_holds_goes_and_roots_stay() {
    let server = Server::start().await;
    let mut case = Case::new(&server, "n").await;
    case.blob("nothing", &[]).await;
    for (text, key, value) in [
        ("plain", "containerd.io/gc.root", "1"),
        ("false", "containerd.io/gc.root", "false"),
        ("dotted", "containerd.io/gc.root.x", "1"),
        ("longer", "containerd.io/gc.rootless", "1"),
        // An empty value is no label at all.
        ("empty", "containerd.io/gc.root", ""),
        ("case", "containerd.io/GC.root", "1"),
        ("other", "gc.root", "1"),
    ] {
        case.blob(text, &[(key, value)]).await;
    }
    case.snapshot("s1", "", &[]).await;
    case.snapshot("s2", "s1", &[ROOT]).await;
    case.snapshot("s3", "s2", &[]).await;
    case.prepare("active", "s1", &[]).await;
    // A root keeps its parents, not its children.
    assert_eq!(case.collect().await, "dotted false longer plain s1 s2");
}

#[tokio::test(flavor = "multi_thread")]
async fn references_are_followed() {
    let server = Server::start().await;
    let mut case = Case::new(&server, "n").await;
    let leaf = case.blob("leaf", &[]).await;
    let two = case.blob("two", &[(REF, &*leaf)]).await;
    let dot = case.blob("dot", &[]).await;
    let slash = case.blob("slash", &[]).await;
    let no = case.blob("no", &[]).await;
    case.snapshot("base", "", &[]).await;
    case.snapshot("chain", "base", &[]).await;
    let labels = [
        ROOT,
        (REF, &*two),
        ("containerd.io/gc.ref.content.l.0", &dot),
        ("containerd.io/gc.ref.content/x", &slash),
        ("containerd.io/gc.ref.contents", &no),
        ("gc.ref.content", &no),
        (REF_SNAPSHOT, "chain"),
    ];
    case.blob("root", &labels).await;
    // Two that refer to each other alone go: the digest of one must be known before it is there.
    let first = sha256(b"first");
    let second = case.blob("second", &[(REF, &*first)]).await;
    case.blob("first", &[(REF, &*second)]).await;
    let missing = sha256(b"missing");
    case.blob("dangling", &[ROOT, (REF, &*missing)]).await;
    let expected = "base chain dangling dot leaf root slash two";
    assert_eq!(case.collect().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn back_references_live_as_long_as_what_they_name() {
    let server = Server::start().await;
    let mut case = Case::new(&server, "n").await;
    let root = case.blob("root", &[ROOT]).await;
    let gone = case.blob("gone", &[]).await;
    let back = case.blob("back", &[(BACK, &*root)]).await;
    case.blob("further", &[(BACK, &*back)]).await;
    case.blob("none", &[(BACK, &*gone)]).await;
    case.snapshot("base", "", &[]).await;
    case.snapshot("s", "base", &[(BACK, &*root)]).await;
    assert_eq!(case.collect().await, "back base further root s");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpacked_image_goes_as_a_whole() {
    let server = Server::start().await;
    let mut case = Case::new(&server, "n").await;
    let layer = case.blob("layer", &[]).await;
    case.snapshot("chain1", "", &[]).await;
    case.snapshot("chain2", "chain1", &[]).await;
    let config = case.blob("config", &[(REF_SNAPSHOT, "chain2")]).await;
    let labels = [
        ("containerd.io/gc.ref.content.config", &*config),
        ("containerd.io/gc.ref.content.l.0", &*layer),
    ];
    let manifest = case.blob("manifest", &labels).await;
    let labels = [("containerd.io/gc.ref.content.m.0", &*manifest)];
    let index = case.blob("index", &labels).await;
    case.image("i", &index, &[]).await;
    case.prepare("container", "chain2", &[ROOT]).await;
    let expected = "chain1 chain2 config container i index layer manifest";
    assert_eq!(case.collect().await, expected);
    let delete = DeleteImageRequest {
        name: "i".to_owned(),
        sync: true,
        target: None,
    };
    case.client.images().delete(delete).await.expect("delete");
    assert_eq!(case.left().await, "chain1 chain2 container");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_goes_and_what_cannot_be_read_stays() {
    let server = Server::start().await;
    let mut case = Case::new(&server, "n").await;
    for (name, time) in [("past", PAST), ("future", FUTURE), ("bad", "tomorrow")] {
        let text = format!("of-{name}");
        let digest = case.blob(&text, &[]).await;
        let request = CreateRequest {
            id: format!("lease-{name}"),
            labels: map(&[(EXPIRE, time)]),
        };
        case.client.leases().create(request).await.expect("lease");
        let request = AddResourceRequest {
            id: format!("lease-{name}"),
            resource: Some(Resource {
                id: digest.clone(),
                r#type: "content".to_owned(),
            }),
        };
        case.client
            .leases()
            .add_resource(request)
            .await
            .expect("add");
        let target = case.blob(&format!("target-{name}"), &[]).await;
        let image = format!("image-{name}");
        case.image(&image, &target, &[(EXPIRE, time)]).await;
        // Neither blobs nor snapshots expire.
        case.blob(&format!("root-{name}"), &[ROOT, (EXPIRE, time)])
            .await;
    }
    let expected = "image-bad image-future lease-bad lease-future of-bad of-future \
                    root-bad root-future root-past target-bad target-future";
    assert_eq!(case.collect().await, expected);
}

/// The scheduler hears of no call at all, as in a night: what it knows is what it finds.
#[tokio::test(flavor = "multi_thread")]
async fn what_expires_goes_though_nobody_calls() {
    let server = Server::start().await;
    let mut case = Case::new(&server, "n").await;
    let digest = case.blob("held", &[]).await;
    let end = jiff::Timestamp::now() + Duration::from_secs(15);
    let request = CreateRequest {
        id: "ends".to_owned(),
        labels: map(&[(EXPIRE, &*end.to_string())]),
    };
    case.client.leases().create(request).await.expect("lease");
    let resource = Resource {
        id: digest.clone(),
        r#type: "content".to_owned(),
    };
    let request = AddResourceRequest {
        id: "ends".to_owned(),
        resource: Some(resource),
    };
    let held = case.client.leases().add_resource(request).await;
    held.expect("add");
    assert_eq!(case.collect().await, "ends held");
    let defaults = Layers::default().config().expect("defaults").gc;
    let (_settings, gc) = watch::channel(defaults);
    let unheard = Arc::new(Activity::default());
    let collecting = tokio::spawn(maintain::collect(server.node.clone(), gc, unheard));
    let hex = digest.strip_prefix("sha256:").expect("sha256");
    let file = server.path(&format!("root/content/blobs/sha256/{hex}"));
    let gone = async {
        while file.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(120), gone).await;
    waited.expect("it is collected");
    collecting.abort();
    assert_eq!(case.left().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_hold_and_flat_ones_nothing_more() {
    let server = Server::start().await;
    let mut case = Case::new(&server, "n").await;
    for (name, flat) in [("deep", ""), ("flat", "1"), ("false", "false")] {
        let leaf = case.blob(&format!("leaf-{name}"), &[]).await;
        let top = case.blob(&format!("top-{name}"), &[(REF, &*leaf)]).await;
        case.snapshot(&format!("base-{name}"), "", &[]).await;
        let snapshot = format!("s-{name}");
        case.snapshot(&snapshot, &format!("base-{name}"), &[]).await;
        let request = CreateRequest {
            id: name.to_owned(),
            labels: map(&[("containerd.io/gc.flat", flat)]),
        };
        case.client.leases().create(request).await.expect("lease");
        for (kind, id) in [("content", top), ("snapshots/overlayfs", snapshot)] {
            let request = AddResourceRequest {
                id: name.to_owned(),
                resource: Some(Resource {
                    id,
                    r#type: kind.to_owned(),
                }),
            };
            case.client
                .leases()
                .add_resource(request)
                .await
                .expect("add");
        }
    }
    // Parents are held in any case; any value but the empty one is flat.
    let expected = "base-deep base-false base-flat deep false flat leaf-deep \
                    s-deep s-false s-flat top-deep top-false top-flat";
    assert_eq!(case.collect().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_stay_for_a_day_or_as_long_as_their_lease() {
    let server = Server::start().await;
    let case = Case::new(&server, "n").await;
    let leased = case.client.write_one(write("leased", 0, b"x")).await;
    leased.expect("write");
    let plain = server.client("n").write_one(write("plain", 0, b"x")).await;
    plain.expect("write");
    assert_eq!(case.collect().await, "plain");
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_directories_are_gone_from_the_disk() {
    let server = Server::start().await;
    let mut case = Case::new(&server, "n").await;
    let digest = case.blob("bytes", &[]).await;
    case.snapshot("s", "", &[]).await;
    let hex = digest.strip_prefix("sha256:").expect("sha256");
    let file = server.path(&format!("root/content/blobs/sha256/{hex}"));
    assert!(file.exists());
    assert_eq!(case.collect().await, "");
    assert!(!file.exists());
    let snapshots = std::fs::read_dir(server.path("root/snapshots")).expect("list");
    let names = snapshots.map(|entry| entry.expect("entry").file_name());
    let numbers: Vec<_> = names
        .filter(|name| name.to_str().is_some_and(|n| n.parse::<u64>().is_ok()))
        .collect();
    assert!(numbers.is_empty(), "{numbers:?}");
}
