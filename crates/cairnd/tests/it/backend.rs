//! What containerd's metadata store asks of the backend and what no released containerd can be made
//! to ask here: calls without a namespace, leases of somebody else's, `rebase`, and the differ.

use std::{fs, path::Path};

use cairn_node::{EngineKind, Node, NodeOptions};
use cairn_proto::cairn::v1::{InfoRequest as StoreInfoRequest, store_client::StoreClient};
use cairn_proto::containerd::{
    services::{
        content::v1::{
            DeleteContentRequest, InfoRequest, ListContentRequest, WriteAction,
            WriteContentRequest, content_client::ContentClient,
        },
        diff::v1::{ApplyRequest, DiffRequest, diff_client::DiffClient},
        images::v1::{ListImagesRequest, images_client::ImagesClient},
        snapshots::v1::{
            CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest,
            PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
            UpdateSnapshotRequest, snapshots_client::SnapshotsClient,
        },
        version::v1::version_client::VersionClient,
    },
    types::{Descriptor, Mount},
};
use cairn_types::Digest;
use prost_types::FieldMask;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::common::{Served, layer::Layer, map, told};

const REF: &str = "containerd.io/snapshot.ref";
const PARENT_REF: &str = "containerd.io/snapshot/parent-chain-id";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

struct Backend {
    work: TempDir,
    node: Option<Node>,
    channel: Channel,
    stop: Option<oneshot::Sender<()>>,
    name: &'static str,
}

type Labels<'l> = &'l [(&'l str, &'l str)];

impl Backend {
    async fn start() -> Backend {
        Backend::at(TempDir::new().expect("temporary directory")).await
    }

    async fn at(work: TempDir) -> Backend {
        let root = cairnd::backend::root(&work.path().join("root"));
        let socket = work.path().join("sock");
        let options = NodeOptions::new(root, EngineKind::Redb);
        let served = Served::start(options, &socket, |node, listener, stopped| async move {
            cairnd::backend::serve(&node, listener, told(stopped)).await
        });
        let served = served.await;
        Backend {
            work,
            node: Some(served.node),
            channel: served.channel,
            stop: Some(served.stop),
            name: "anything",
        }
    }

    /// Another life over the same root.
    async fn again(mut self) -> Backend {
        let node = self.node.take().expect("open");
        let root = node.root().to_owned();
        drop((node, self.stop.take()));
        let work = self.work;
        drop(self.channel);
        // The server lets go of the lock when its connections have ended.
        for _ in 0..100 {
            let options = NodeOptions::new(root.clone(), EngineKind::Redb);
            if Node::open(options).is_ok() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Backend::at(work).await
    }

    fn snapshots(&self) -> SnapshotsClient<Channel> {
        SnapshotsClient::new(self.channel.clone())
    }

    fn content(&self) -> ContentClient<Channel> {
        ContentClient::new(self.channel.clone())
    }

    async fn prepare(
        &self,
        key: &str,
        parent: &str,
        with: Labels<'_>,
    ) -> Result<Vec<Mount>, Status> {
        let request = PrepareSnapshotRequest {
            snapshotter: self.name.to_owned(),
            key: key.to_owned(),
            parent: parent.to_owned(),
            labels: map(with),
        };
        let answer = self.snapshots().prepare(request).await?;
        Ok(answer.into_inner().mounts)
    }

    async fn commit(
        &self,
        (name, key): (&str, &str),
        parent: &str,
        with: Labels<'_>,
    ) -> Result<(), Status> {
        let request = CommitSnapshotRequest {
            snapshotter: self.name.to_owned(),
            name: name.to_owned(),
            key: key.to_owned(),
            labels: map(with),
            parent: parent.to_owned(),
        };
        self.snapshots().commit(request).await.map(drop)
    }

    /// Prepares and commits.
    async fn layer(&self, name: &str, parent: &str, with: Labels<'_>) {
        let key = format!("{name} active");
        self.prepare(&key, parent, &[]).await.expect("prepare");
        let committed = self.commit((name, &key), "", with).await;
        committed.expect("commit");
    }

    async fn remove(&self, key: &str) -> Result<(), Status> {
        let request = RemoveSnapshotRequest {
            snapshotter: self.name.to_owned(),
            key: key.to_owned(),
        };
        self.snapshots().remove(request).await.map(drop)
    }

    async fn list(&self, filters: &[&str]) -> Vec<Info> {
        let request = ListSnapshotsRequest {
            snapshotter: self.name.to_owned(),
            filters: filters.iter().map(|&filter| filter.to_owned()).collect(),
        };
        let mut batches = self.snapshots().list(request).await.expect("list");
        let mut all = Vec::new();
        while let Some(batch) = batches.get_mut().message().await.expect("batch") {
            all.extend(batch.info);
        }
        all
    }

    async fn stat(&self, key: &str) -> Result<Info, Status> {
        let request = StatSnapshotRequest {
            snapshotter: self.name.to_owned(),
            key: key.to_owned(),
        };
        let answer = self.snapshots().stat(request).await?;
        Ok(answer.into_inner().info.expect("info"))
    }

    async fn write(&self, headers: Labels<'static>, bytes: &[u8]) -> Result<String, Status> {
        let message = WriteContentRequest {
            action: WriteAction::Commit as i32,
            r#ref: "ns/1/a ref".to_owned(),
            total: i64::try_from(bytes.len()).expect("size"),
            data: bytes.to_vec().into(),
            ..WriteContentRequest::default()
        };
        let mut request = Request::new(tokio_stream::iter([message]));
        for (name, value) in headers {
            let value = value.parse().expect("header");
            request.metadata_mut().insert(*name, value);
        }
        let mut answers = self.content().write(request).await?;
        let answer = answers.get_mut().message().await?.expect("an answer");
        Ok(answer.digest)
    }

    async fn apply(&self, bytes: &[u8], mounts: Vec<Mount>) -> Result<Descriptor, Status> {
        let request = ApplyRequest {
            diff: Some(Descriptor {
                media_type: LAYER.to_owned(),
                digest: Digest::sha256(bytes).to_string(),
                size: i64::try_from(bytes.len()).expect("size"),
                ..Descriptor::default()
            }),
            mounts,
            ..ApplyRequest::default()
        };
        let mut client = DiffClient::new(self.channel.clone());
        let answer = client.apply(request).await?.into_inner();
        Ok(answer.applied.expect("descriptor"))
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.expect_err("refused").code()
}

/// A tar stream of empty files.
fn tar(names: &[&str]) -> Vec<u8> {
    let files = names
        .iter()
        .fold(Layer::new(), |tar, name| tar.file(name, ""));
    files.bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_containerd_calls_is_served() {
    let backend = Backend::start().await;
    let mut version = VersionClient::new(backend.channel.clone());
    version.version(()).await.expect("version");
    let mut health = HealthClient::new(backend.channel.clone());
    let checked = health.check(HealthCheckRequest::default()).await;
    assert_eq!(checked.expect("health").into_inner().status, 1);
    let mut images = ImagesClient::new(backend.channel.clone());
    let listed = images.list(ListImagesRequest::default()).await;
    assert_eq!(code(listed), Code::Unimplemented);
    let mut store = StoreClient::new(backend.channel.clone());
    let told = store.info(StoreInfoRequest {}).await;
    assert_eq!(code(told), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_lies_in_one_place_whatever_the_headers_say() {
    let backend = Backend::start().await;
    let headers: [Labels<'static>; 4] = [
        &[],
        &[("containerd-namespace", "one")],
        &[
            ("containerd-namespace", "not a namespace!"),
            ("containerd-lease", "of somebody else"),
        ],
        &[("containerd-lease", "of somebody else")],
    ];
    for (number, headers) in headers.into_iter().enumerate() {
        let bytes = number.to_string();
        let digest = backend.write(headers, bytes.as_bytes()).await;
        let digest = digest.expect("written");
        let info = backend.content().info(InfoRequest { digest }).await;
        info.expect("seen without a namespace");
        let again = backend.write(headers, bytes.as_bytes()).await;
        assert_eq!(code(again), Code::AlreadyExists);
    }
    let listed = backend.content().list(ListContentRequest::default()).await;
    let batch = listed.expect("list").get_mut().message().await;
    assert_eq!(batch.expect("batch").expect("batch").info.len(), 4);

    let mut request = Request::new(PrepareSnapshotRequest {
        snapshotter: String::new(),
        key: "k8s.io/17/extract 5 sha256:00".to_owned(),
        ..PrepareSnapshotRequest::default()
    });
    let lease = "of somebody else".parse().expect("header");
    request.metadata_mut().insert("containerd-lease", lease);
    let prepared = backend.snapshots().prepare(request).await;
    prepared.expect("prepared");
    assert_eq!(backend.list(&[]).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_a_blob_twice_is_no_error() {
    let backend = Backend::start().await;
    let digest = backend.write(&[], b"bytes").await.expect("written");
    for _ in 0..2 {
        let digest = digest.clone();
        let mut content = backend.content();
        let deleted = content.delete(DeleteContentRequest { digest }).await;
        deleted.expect("deleted");
    }
    let wrong = DeleteContentRequest {
        digest: "sha256:ff".to_owned(),
    };
    let wrong = backend.content().delete(wrong).await;
    assert_eq!(code(wrong), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_by_reference_and_here_is_not_made_again() {
    let backend = Backend::start().await;
    let asked = [(REF, "sha256:two")];
    backend.layer("a/1/one", "", &[(REF, "sha256:one")]).await;
    backend.layer("a/2/other", "", &[]).await;
    backend.layer("a/3/two", "a/1/one", &asked).await;
    let backend = backend.again().await;
    let prepare = |key, parent| backend.prepare(key, parent, &asked);

    let here = prepare("b/4/extract", "a/1/one").await;
    assert_eq!(code(here), Code::AlreadyExists);
    // As containerd then looks for it (`core/metadata/snapshot.go`).
    let filter = r#"labels."containerd.io/snapshot.ref"=="sha256:two",parent=="a/1/one""#;
    let found = backend.list(&[filter]).await;
    let names: Vec<_> = found.iter().map(|info| &*info.name).collect();
    assert_eq!(names, ["a/3/two"]);
    assert_eq!(backend.list(&[]).await.len(), 3, "nothing was made");

    prepare("b/5/extract", "a/2/other").await.expect("other");
    prepare("b/6/extract", "").await.expect("no parent");
    // What is not committed is not here.
    let active = [(REF, "sha256:three")];
    for key in ["b/7/extract", "b/8/extract"] {
        let made = backend.prepare(key, "a/3/two", &active).await;
        made.expect("both");
    }
    // Updating labels and removing are followed.
    let update = UpdateSnapshotRequest {
        snapshotter: String::new(),
        info: Some(Info {
            name: "a/2/other".to_owned(),
            labels: map(&[(REF, "sha256:late")]),
            ..Info::default()
        }),
        update_mask: Some(FieldMask {
            paths: vec!["labels".to_owned()],
        }),
    };
    backend.snapshots().update(update).await.expect("update");
    let late = backend.prepare("b/9/x", "", &[(REF, "sha256:late")]).await;
    assert_eq!(code(late), Code::AlreadyExists);
    backend.remove("b/7/extract").await.expect("remove");
    backend.remove("b/8/extract").await.expect("remove");
    backend.remove("a/3/two").await.expect("remove");
    prepare("b/4/extract", "a/1/one").await.expect("gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_is_a_collision() {
    let backend = Backend::start().await;
    backend.prepare("k", "", &[]).await.expect("prepare");
    assert_eq!(
        code(backend.prepare("k", "", &[]).await),
        Code::AlreadyExists
    );
    let nowhere = backend.prepare("l", "nowhere", &[]).await;
    assert_eq!(code(nowhere), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_put_on_their_parents_when_they_are_committed() {
    for name in ["cairn", "overlayfs"] {
        let mut backend = Backend::start().await;
        backend.name = name;
        let bottom = tar(&["a", "b"]);
        let top = tar(&[".wh.a", "c"]);
        for layer in [&bottom, &top] {
            backend.write(&[], layer).await.expect("written");
        }
        // Both before either is committed, and the upper one first.
        let labels = [(REF, "two"), (PARENT_REF, "one")];
        let upper = backend.prepare("k two", "", &labels).await.expect("two");
        let lower = backend.prepare("k one", "", &[(REF, "one")]).await;
        let lower = lower.expect("one");
        assert_eq!(lower[0].r#type, "bind");
        assert_eq!(upper[0].r#type, "overlay");
        let [upperdir] = &*upper[0].options else {
            panic!("{upper:?}");
        };
        assert!(upperdir.starts_with("upperdir="), "{upperdir}");
        for (layer, mounts) in [(&top, upper.clone()), (&bottom, lower)] {
            let applied = backend.apply(layer, mounts).await.expect("applied");
            assert_eq!(applied.digest, Digest::sha256(layer).to_string());
        }
        let early = backend.commit(("two", "k two"), "one", &labels).await;
        assert_eq!(code(early), Code::NotFound);
        let one = backend.commit(("one", "k one"), "", &[(REF, "one")]).await;
        one.expect("one");
        let two = backend.commit(("two", "k two"), "one", &labels).await;
        two.expect("two");
        assert_eq!(backend.stat("two").await.expect("two").parent, "one");

        let shown = backend.prepare("run", "two", &[]).await.expect("run");
        assert_eq!(names_of(&backend, &shown[0]), ["b", "c"]);

        // A parent cannot be exchanged, and may be said once more.
        backend.layer("three", "", &[]).await;
        let moved = backend.commit(("four", "run"), "three", &[]).await;
        assert_eq!(code(moved), Code::InvalidArgument);
        let taken = backend.commit(("three", "run"), "three", &[]).await;
        assert_eq!(code(taken), Code::AlreadyExists);
        let same = backend.commit(("four", "run"), "two", &[]).await;
        same.expect("four");
        // Found by what it stands on now.
        let again = backend.prepare("x", "one", &labels).await;
        assert_eq!(code(again), Code::AlreadyExists);
        backend.prepare("y", "", &labels).await.expect("again");
        let request = MountsRequest {
            snapshotter: name.to_owned(),
            key: "y".to_owned(),
        };
        let mounts = backend.snapshots().mounts(request).await.expect("mounts");
        let mounts = mounts.into_inner().mounts;
        assert_eq!(mounts[0].r#type, "bind", "whoever asks later mounts it");
    }
}

/// Mounts it and lists the names in it.
fn names_of(backend: &Backend, mount: &Mount) -> Vec<String> {
    let target = backend.work.path().join("mnt");
    fs::create_dir_all(&target).expect("mount point");
    let run = |program: &str, arguments: &[&str]| {
        let status = std::process::Command::new(program).args(arguments).status();
        assert!(status.expect(program).success(), "{program} {arguments:?}");
    };
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let (target, options) = (text(&target), mount.options.join(","));
    run(
        "mount",
        &["-t", &mount.r#type, "-o", &options, &mount.source, &target],
    );
    let entries = fs::read_dir(&target).expect("entries");
    let name = |entry: std::io::Result<fs::DirEntry>| {
        let name = entry.expect("entry").file_name();
        name.into_string().expect("UTF-8")
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    run("umount", &[&target]);
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_is_another_differs_work() {
    let backend = Backend::start().await;
    let layer = tar(&["a"]);
    let mounts = backend.prepare("k", "", &[]).await.expect("prepare");
    let absent = backend.apply(&layer, mounts).await;
    assert_eq!(code(absent), Code::Unimplemented);
    backend.write(&[], &layer).await.expect("written");
    let elsewhere = Mount {
        r#type: "bind".to_owned(),
        source: "/nowhere/1/fs".to_owned(),
        target: String::new(),
        options: vec!["rw".to_owned()],
    };
    let foreign = backend.apply(&layer, vec![elsewhere]).await;
    assert_eq!(code(foreign), Code::Unimplemented);
    let mut client = DiffClient::new(backend.channel.clone());
    let written = client.diff(DiffRequest::default()).await;
    assert_eq!(code(written), Code::Unimplemented);
}

#[tokio::test(flavor = "multi_thread")]
async fn cleaning_up_removes_what_removals_left() {
    let backend = Backend::start().await;
    backend.prepare("k", "", &[]).await.expect("prepare");
    let snapshots = cairnd::backend::root(&backend.work.path().join("root")).join("snapshots");
    let left = snapshots.join("trash/77");
    fs::create_dir_all(left.join("fs/etc")).expect("left over");
    let request = CleanupRequest {
        snapshotter: "cairn".to_owned(),
    };
    let cleaned = backend.snapshots().cleanup(request.clone()).await;
    cleaned.expect("cleanup");
    assert!(!left.exists());
    assert_eq!(backend.list(&[]).await.len(), 1);
    backend.remove("k").await.expect("remove");
    // Removals go on behind their answers, and cleaning up waits for them.
    backend.snapshots().cleanup(request).await.expect("cleanup");
    let dirs = fs::read_dir(&snapshots).expect("entries").count();
    assert_eq!(dirs, 1, "the trash alone");
    assert_eq!(
        fs::read_dir(snapshots.join("trash"))
            .expect("entries")
            .count(),
        0
    );
}
