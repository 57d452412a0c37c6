//! Debian's containerd with cairnd behind it, as its snapshotter and as its store of content: images
//! come, show the same trees as with containerd's own snapshotter, run, and go without a trace.
//!
//! containerd 1.6 knows proxies of these two types. What later ones add (the differ, layers that are
//! put on their parents when they are committed) is tried in `cairnd`'s own tests.
#![allow(missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use cairn_integration::{
    daemon::Daemon,
    image::{Layer, Layout, Packing},
    peers::{Containerd, run},
    tree::Tree,
};
use cairn_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, PrepareSnapshotRequest, StatSnapshotRequest,
    snapshots_client::SnapshotsClient,
};
use serde_json::json;
use tonic::{Code, Request, Status, transport::Channel};

/// The image, as `ctr` names it.
const IMAGE: &str = "localhost/t:one";
/// The name by which containerd knows the snapshotter.
const SNAPSHOTTER: &str = "cairn";

/// A daemon, and the containerd before it.
struct Pair {
    daemon: Daemon,
    containerd: Containerd,
}

impl Pair {
    fn with_snapshots() -> Pair {
        Pair::start(&[], &[(SNAPSHOTTER, "snapshot")])
    }

    /// containerd takes one store of content, so its own one has to go.
    fn with_content() -> Pair {
        let disabled = ["io.containerd.content.v1.content"];
        let proxies = [(SNAPSHOTTER, "snapshot"), ("cairn-content", "content")];
        Pair::start(&disabled, &proxies)
    }

    fn start(disabled: &[&str], proxies: &[(&str, &str)]) -> Pair {
        let daemon = Daemon::with_backend();
        let socket = daemon.path("backend.sock");
        let tables = proxies.iter().map(|(name, kind)| {
            format!("[proxy_plugins.{name}]\ntype = {kind:?}\naddress = {socket:?}\n")
        });
        let tables: String = tables.collect();
        Pair {
            containerd: Containerd::start_with(disabled, &tables),
            daemon,
        }
    }

    #[track_caller]
    fn import(&self, ns: &str, snapshotter: &str, archive: &Path) {
        let snapshotter = ["--snapshotter", snapshotter, "--base-name", "localhost/t"];
        let before = ["-n", ns, "images", "import"];
        let arguments = [&before[..], &snapshotter, &[text(archive)]].concat();
        self.containerd.ok(&arguments);
    }

    fn ctr_snapshots(&self, snapshotter: &str, arguments: &[&str]) -> Result<String, String> {
        let before = ["snapshots", "--snapshotter", snapshotter];
        self.containerd.attempt(&[&before[..], arguments].concat())
    }

    /// The snapshot on which no other stands.
    fn top(&self, snapshotter: &str) -> String {
        let listed = self.ctr_snapshots(snapshotter, &["ls"]).expect("list");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        let lines: Vec<Vec<String>> = listed.lines().skip(1).map(words).collect();
        let is_top = |key: &str| {
            let parents = lines.iter().filter(|line| line.len() == 3);
            parents.clone().all(|line| line[1] != key)
        };
        let mut keys = lines.iter().map(|line| line[0].clone());
        keys.find(|key| is_top(key)).expect("a snapshot")
    }

    /// The tree that the image shows, which is the only one here; nothing is left of the look.
    /// (`ctr images mount` takes no notice of `--snapshotter`.)
    #[track_caller]
    fn tree(&self, snapshotter: &str) -> Tree {
        let target = self.daemon.path("mnt");
        fs::create_dir_all(&target).expect("mount point");
        let snapshots = |arguments: &[&str]| {
            let done = self.ctr_snapshots(snapshotter, arguments);
            done.unwrap_or_else(|said| panic!("{arguments:?}: {said}"))
        };
        // Not a view: to those `ctr` gives nothing by which the collector would spare them.
        snapshots(&["prepare", "look", &self.top(snapshotter)]);
        run(
            "sh",
            &["-ec", &snapshots(&["mounts", text(&target), "look"])],
        );
        let mut tree = Tree::read(&target);
        run("umount", &[text(&target)]);
        snapshots(&["rm", "look"]);
        // > an entry resolving to the root itself is skipped (containerd `pkg/archive/tar.go`)
        tree.retain(|path, node| {
            if path.as_os_str().is_empty() {
                node.mtime = (0, 0);
            }
            true
        });
        tree
    }

    /// Runs a program in a container of its own.
    #[track_caller]
    fn runs(&self, id: &str) {
        let run = ["run", "--rm", "--snapshotter", SNAPSHOTTER, IMAGE, id];
        let program = [
            "/bin/sh",
            "-c",
            "echo new > /etc/new; cat /etc/new /etc/two",
        ];
        let printed = self.containerd.ok(&[&run[..], &program].concat());
        assert_eq!(printed, "new\ntwo", "what the container printed");
    }

    /// Kills the daemon without a word, starts another, and waits until containerd has found it.
    fn kill_and_restart(&mut self) {
        self.daemon.kill();
        self.daemon.restart();
        let snapshots = |arguments: &[&str]| self.ctr_snapshots(SNAPSHOTTER, arguments);
        let found = || snapshots(&["prepare", "probe"]).is_ok();
        self.daemon.until("containerd to come again", found);
        snapshots(&["rm", "probe"]).expect("removed");
    }

    fn remove(&self, ns: &str) {
        self.containerd
            .ok(&["-n", ns, "images", "rm", "--sync", IMAGE]);
    }

    fn inside(&self, what: &str) -> usize {
        let dir = self.daemon.path("root/backend").join(what);
        fs::read_dir(dir).expect("directory").count()
    }

    /// Snapshots as directories, which is what they cost.
    fn snapshots(&self) -> usize {
        self.inside("snapshots") - 1 + self.inside("snapshots/trash")
    }

    fn blobs(&self) -> usize {
        self.inside("content/blobs/sha256") + self.inside("content/ingest")
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// A program, and layers that change and hide what is below them.
fn archive(work: &Path) -> PathBuf {
    let bottom = Layer::busybox()
        .file("etc/one", b"one")
        .file("etc/gone", b"gone")
        .dir("srv", 0o2775)
        .dir("srv/old", 0o700)
        .file("srv/old/file", b"hidden");
    let middle = Layer::new()
        .dir("etc", 0o755)
        .file("etc/.wh.gone", b"")
        .file("etc/two", b"two")
        .hard_link("etc/second", "etc/two");
    let top = Layer::new()
        .dir("srv", 0o2775)
        .file("srv/.wh..wh..opq", b"")
        .file("srv/shown", b"shown");
    let layers = [
        (bottom.finish(), Packing::Gzip),
        (middle.finish(), Packing::Gzip),
        (top.finish(), Packing::Plain),
    ];
    let layout = work.join("layout");
    Layout::create(&layout).image("one", &layers, &json!({ "Cmd": ["/bin/sh"] }));
    let archive = work.join("image.tar");
    let from = ["-C", text(&layout), "-cf", text(&archive)];
    let names = ["blobs", "index.json", "oci-layout"];
    run("tar", &[&from[..], &names].concat());
    archive
}

#[test]
fn an_image_comes_runs_and_goes() {
    let mut pair = Pair::with_snapshots();
    let archive = archive(&pair.daemon.path(""));
    pair.import("default", "overlayfs", &archive);
    pair.import("default", SNAPSHOTTER, &archive);
    assert!(pair.snapshots() >= 3);
    assert_eq!(pair.blobs(), 0, "containerd keeps these");
    let theirs = pair.tree("overlayfs");
    pair.tree(SNAPSHOTTER)
        .assert_equals(&theirs, "cairn's tree");
    pair.runs("cairn-backend-snapshots");

    pair.kill_and_restart();
    pair.tree(SNAPSHOTTER)
        .assert_equals(&theirs, "after a kill");
    pair.import("other", SNAPSHOTTER, &archive);
    pair.runs("cairn-backend-restarted");

    pair.remove("default");
    pair.kill_and_restart();
    pair.remove("other");
    let daemon = &pair.daemon;
    daemon.until("the collector", || pair.snapshots() == 0);
    let listed = pair.ctr_snapshots(SNAPSHOTTER, &["ls"]).expect("list");
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(daemon.mounts().is_empty(), "{:?}", daemon.mounts());
}

#[test]
fn blobs_lie_in_cairn_as_well() {
    let mut pair = Pair::with_content();
    let archive = archive(&pair.daemon.path(""));
    // An import that is cut off, sooner or later, leaves nothing that is in the way of another.
    for wait in [0, 30, 100] {
        let arguments = ["images", "import", "--snapshotter", SNAPSHOTTER];
        let mut command = pair.containerd.command(&arguments);
        command.args(["--base-name", "localhost/t"]).arg(&archive);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut import = command.spawn().expect("start ctr");
        std::thread::sleep(std::time::Duration::from_millis(wait));
        pair.kill_and_restart();
        import.wait().expect("ctr");
    }
    pair.import("default", SNAPSHOTTER, &archive);
    pair.import("other", SNAPSHOTTER, &archive);
    assert!(pair.blobs() >= 5, "layers, configuration, manifest");
    pair.runs("cairn-backend-content");
    let check = ["images", "check", "--snapshotter", SNAPSHOTTER];
    let checked = pair.containerd.ok(&check);
    assert!(checked.contains("complete (4/4)"), "{checked}");
    let exported = pair.daemon.path("exported.tar");
    let export = ["images", "export", text(&exported), IMAGE];
    pair.containerd.ok(&export);

    pair.remove("default");
    pair.kill_and_restart();
    assert!(pair.blobs() >= 5, "the other namespace has them");
    pair.remove("other");
    let gone = || pair.blobs() == 0 && pair.snapshots() == 0;
    pair.daemon.until("the collector", gone);
}

/// Calls of one namespace to containerd itself.
struct Client {
    snapshots: SnapshotsClient<Channel>,
    ns: &'static str,
}

const REF: &str = "containerd.io/snapshot.ref";
/// Of each namespace, and unknown behind containerd.
const LEASE: &str = "unpacking";

impl Client {
    async fn of(containerd: &Containerd, ns: &'static str) -> Client {
        containerd.ok(&["-n", ns, "leases", "create", "--id", LEASE]);
        let address = format!("unix://{}", text(&containerd.socket()));
        let endpoint = tonic::transport::Endpoint::from_shared(address).expect("address");
        let channel = endpoint.connect().await.expect("connection");
        let snapshots = SnapshotsClient::new(channel);
        Client { snapshots, ns }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let ns = self.ns.parse().expect("header");
        request.metadata_mut().insert("containerd-namespace", ns);
        let lease = LEASE.parse().expect("header");
        request.metadata_mut().insert("containerd-lease", lease);
        request
    }

    /// As containerd's unpacker does.
    async fn prepare(&mut self, target: &str, parent: &str) -> Result<(), Status> {
        let request = self.request(PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: format!("extract {target}"),
            parent: parent.to_owned(),
            labels: [(REF.to_owned(), target.to_owned())].into(),
        });
        self.snapshots.prepare(request).await.map(drop)
    }

    async fn commit(&mut self, target: &str) -> Result<(), Status> {
        let root = "containerd.io/gc.root".to_owned();
        let labels = [(REF.to_owned(), target.to_owned()), (root, "1".to_owned())];
        let request = self.request(CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: target.to_owned(),
            key: format!("extract {target}"),
            labels: labels.into(),
            ..CommitSnapshotRequest::default()
        });
        self.snapshots.commit(request).await.map(drop)
    }

    async fn parent(&mut self, key: &str) -> Result<String, Status> {
        let request = self.request(StatSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.to_owned(),
        });
        let answer = self.snapshots.stat(request).await?;
        Ok(answer.into_inner().info.expect("info").parent)
    }
}

/// What an unpacker does that asks by reference, in two namespaces: `ctr` 1.6 has none that does.
#[test]
fn another_namespace_finds_what_is_unpacked() {
    let mut pair = Pair::with_snapshots();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut one = Client::of(&pair.containerd, "one").await;
        for (target, parent) in [("sha256:a", ""), ("sha256:b", "sha256:a")] {
            one.prepare(target, parent).await.expect("prepare");
            one.commit(target).await.expect("commit");
        }
        pair.kill_and_restart();
        let mut two = Client::of(&pair.containerd, "two").await;
        let nothing = two.parent("sha256:a").await.expect_err("not asked for yet");
        assert_eq!(nothing.code(), Code::NotFound);
        for (target, parent) in [("sha256:a", ""), ("sha256:b", "sha256:a")] {
            let here = two.prepare(target, parent).await.expect_err("here");
            assert_eq!(here.code(), Code::AlreadyExists, "{here}");
            let found = two.parent(target).await.expect("found");
            assert_eq!(found, parent);
        }
        pair.daemon
            .until("the probe to go", || pair.snapshots() == 2);
        two.prepare("sha256:c", "sha256:b").await.expect("not here");
        assert_eq!(pair.snapshots(), 3);
    });
}
