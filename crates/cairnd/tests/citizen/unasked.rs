//! What happens without a call.

use std::fs;

use cairn_node::{EngineKind, ImportRequest, Node, NodeOptions, Silent, Source};
use cairn_proto::{
    cairn::v1::{self, store_client::StoreClient},
    containerd::services::{
        content::v1::{InfoRequest, content_client::ContentClient},
        introspection::v1::{PluginsRequest, introspection_client::IntrospectionClient},
    },
};
use cairn_types::{Digest, Namespace};
use serde_json::json;
use tonic::{Code, transport::Channel};

use crate::daemon::{PATIENCE, Place, get, put, request};

async fn exists(channel: &Channel, digest: &str) -> bool {
    let info = InfoRequest {
        digest: digest.to_owned(),
    };
    match ContentClient::new(channel.clone())
        .info(request(info))
        .await
    {
        Ok(_) => true,
        Err(status) if status.code() == Code::NotFound => false,
        Err(status) => panic!("{status}"),
    }
}

async fn gone(channel: &Channel, digest: &str) {
    let began = std::time::Instant::now();
    while exists(channel, digest).await {
        assert!(began.elapsed() < PATIENCE, "{digest} was not collected");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn enough_changes_bring_the_collector() {
    let place = Place::with("[gc]\nmutation_threshold = 3\n");
    let daemon = place.start();
    let channel = place.channel().await;
    // The first collection comes by itself.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let first = put(&channel, b"first").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert!(exists(&channel, &first).await);
    put(&channel, b"second").await.unwrap();
    put(&channel, b"third").await.unwrap();
    gone(&channel, &first).await;
    let line = daemon.logged("collected garbage");
    assert!(line.contains("blobs="), "{line}");
}

#[tokio::test]
async fn a_removal_brings_the_collector() {
    let place = Place::with("[gc]\nmutation_threshold = 0\n");
    let _daemon = place.start();
    let channel = place.channel().await;
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let stays = put(&channel, b"first").await.unwrap();
    let removed = put(&channel, b"second").await.unwrap();
    let delete =
        cairn_proto::containerd::services::content::v1::DeleteContentRequest { digest: removed };
    ContentClient::new(channel.clone())
        .delete(request(delete))
        .await
        .unwrap();
    gone(&channel, &stays).await;
}

#[tokio::test]
async fn the_start_brings_the_collector() {
    let place = Place::new();
    let mut daemon = place.start();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let blob = put(&place.channel().await, b"blob").await.unwrap();
    assert!(daemon.stop().success());
    let _daemon = place.start();
    gone(&place.channel().await, &blob).await;
}

/// Imports an image as the command line does, and ends before its layer is on the disk.
fn import(place: &Place) {
    drop(imported(place));
}

/// The store with that image in it.
fn imported(place: &Place) -> Node {
    let mut layer = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(4);
    header.set_mode(0o644);
    layer
        .append_data(&mut header, "file", &b"text"[..])
        .unwrap();
    let layer = layer.into_inner().unwrap();
    let layout = place.path("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let host = cairn_types::Platform::host();
    let config = json!({
        "os": host.os,
        "architecture": host.architecture,
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(&layer).to_string()]},
    });
    let manifest = json!({
        "schemaVersion": 2,
        "config": blob("config.v1+json", config.to_string().as_bytes()),
        "layers": [blob("layer.v1.tar", &layer)],
    });
    let mut listed = blob("manifest.v1+json", manifest.to_string().as_bytes());
    listed["annotations"] = json!({"org.opencontainers.image.ref.name": "localhost/t:one"});
    let index = json!({"schemaVersion": 2, "manifests": [listed]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )
    .unwrap();
    let options = NodeOptions::new(place.path("root"), EngineKind::Redb);
    let node = Node::open(options).unwrap();
    let ns = Namespace::parse("citizens").unwrap();
    let request = ImportRequest::new(ns, Source::Path(layout));
    node.import(request, &Silent).unwrap();
    node
}

/// Whether there is a snapshot, and whether a power cut would take it.
fn snapshots(place: &Place) -> (bool, bool) {
    let (_, text) = get(&place.path("run/metrics.sock"), "/metrics");
    let one = |series: &str| text.lines().any(|line| line == format!("{series} 1"));
    (
        one("cairn_snapshots{kind=\"committed\",store=\"public\"}"),
        one("cairn_snapshots_not_durable{store=\"public\"}"),
    )
}

const NO_GC: &str = "[gc]\nstartup_delay = \"0\"\nmutation_threshold = 0\n\
                     [metrics]\naddress = \"metrics.sock\"\n";

#[test]
fn layers_are_put_on_the_disk() {
    let place = Place::with(&format!("{NO_GC}[unpack]\nsettle_delay = \"300ms\"\n"));
    import(&place);
    let mut command = place.command();
    command.args(["--log-level", "debug"]);
    let daemon = place.start_as(command);
    daemon.logged("unpacked layers are on the disk");
    assert_eq!(snapshots(&place), (true, false));
}

#[test]
fn layers_are_put_on_the_disk_in_the_end() {
    let place = Place::with(&format!("{NO_GC}[unpack]\nsettle_delay = \"1h\"\n"));
    import(&place);
    let mut daemon = place.start();
    assert_eq!(snapshots(&place), (true, true));
    assert!(daemon.stop().success());
    let _daemon = place.start();
    assert_eq!(snapshots(&place), (true, false));
}

#[tokio::test]
async fn clients_are_told_when_garbage_is_collected() {
    let place = Place::with("[gc]\nschedule_delay = \"90s\"\nmutation_threshold = 7\n");
    let daemon = place.start();
    let mut client = IntrospectionClient::new(place.channel().await);
    let mut exports = async || {
        let filters = vec!["type==io.containerd.gc.v1, id==scheduler".to_owned()];
        let answer = client.plugins(request(PluginsRequest { filters })).await;
        let mut plugins = answer.unwrap().into_inner().plugins;
        assert_eq!(plugins.len(), 1);
        plugins.remove(0).exports
    };
    let told = exports().await;
    for (name, value) in [
        ("PauseThreshold", "0.02"),
        ("DeletionThreshold", "0"),
        ("MutationThreshold", "7"),
        ("ScheduleDelay", "1m30s"),
        ("StartupDelay", "100ms"),
    ] {
        assert_eq!(told.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(told.len(), 5);
    // Read again, it is as it is read.
    std::fs::write(place.path("config.toml"), "[gc]\nmutation_threshold = 8\n").unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    daemon.logged("read the configuration again");
    let told = exports().await;
    assert_eq!(told["MutationThreshold"], "8");
    assert_eq!(told["ScheduleDelay"], "0s");
}

/// What the store's scrub has come to.
async fn scrubbed(place: &Place) -> v1::Scrub {
    let mut store = StoreClient::new(place.channel().await);
    let info = store.info(request(v1::InfoRequest {})).await.unwrap();
    info.into_inner().scrub.unwrap()
}

#[tokio::test]
async fn damage_is_found_before_anybody_needs_what_is_damaged() {
    let scrub = "[scrub]\nstartup_delay = \"0s\"\nevery = \"1h\"\nrate = \"\"\n";
    let place = Place::with(&format!("{NO_GC}{scrub}"));
    // The records have the bytes of small blobs until these are on the disk.
    let node = imported(&place);
    node.settle(std::time::Duration::ZERO).unwrap();
    drop(node);
    let blobs = fs::read_dir(place.path("root/content/blobs/sha256")).unwrap();
    let mut blobs = blobs.map(|entry| entry.unwrap().path());
    let layer = blobs.find(|path| fs::read(path).unwrap().starts_with(b"file\0"));
    let layer = layer.unwrap();
    let mut bytes = fs::read(&layer).unwrap();
    bytes[0] ^= 1;
    fs::remove_file(&layer).unwrap();
    fs::write(&layer, bytes).unwrap();
    let mut daemon = place.start();
    let name = format!("sha256:{}", layer.file_name().unwrap().to_string_lossy());
    let line = daemon.logged("the scrub found: its bytes hash to sha256:");
    assert!(line.contains(&name), "{line}");
    let line = daemon.logged("scrubbed the store");
    assert!(line.contains("blobs=3"), "{line}");
    // How far it is goes to the disk after that.
    let began = std::time::Instant::now();
    let mut found = scrubbed(&place).await;
    while found.running {
        assert!(began.elapsed() < PATIENCE, "{found:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        found = scrubbed(&place).await;
    }
    assert!(found.began_at.is_none() && found.ended_at.is_some());
    assert_eq!((found.blobs, found.trees, found.unproven), (3, 0, 1));
    let [finding] = found.findings.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!((&*finding.kind, &*finding.name), ("blob-bytes", &*name));
    assert_eq!(finding.severity(), v1::finding::Severity::Damage);
    assert_eq!(finding.meaning, "needed by localhost/t:one");
    let (_, text) = get(&place.path("run/metrics.sock"), "/metrics");
    let figures = |text: &str| {
        let one = |series: &str| text.lines().any(|line| line == format!("{series} 1"));
        one("cairn_scrub_findings{store=\"public\"}")
            && text.contains("cairn_scrub_ended_timestamp_seconds{store=\"public\"} 1")
    };
    assert!(figures(&text), "{text}");
    // The next daemon knows it, and begins no other pass within the hour.
    assert!(daemon.stop().success());
    let _daemon = place.start();
    assert_eq!(scrubbed(&place).await, found);
}

/// By default nothing is read for as long as a machine takes to start; and a stop waits for no reading.
#[tokio::test]
async fn a_scrub_waits_and_stops() {
    let place = Place::with(NO_GC);
    let mut daemon = place.start();
    assert_eq!(scrubbed(&place).await, v1::Scrub::default());
    let blob = vec![7; 3 << 20];
    put(&place.channel().await, &blob).await.unwrap();
    assert!(daemon.stop().success());
    // For more than a day.
    let scrub = "[scrub]\nstartup_delay = \"0s\"\nrate = \"32\"\n";
    fs::write(place.path("config.toml"), format!("{NO_GC}{scrub}")).unwrap();
    let mut daemon = place.start();
    let began = std::time::Instant::now();
    let mut at_work = scrubbed(&place).await;
    while !at_work.running || at_work.total == 0 {
        assert!(began.elapsed() < PATIENCE, "{at_work:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        at_work = scrubbed(&place).await;
    }
    assert_eq!((at_work.done, at_work.total), (0, 3 << 20));
    assert!(daemon.stop().success());
    let _daemon = place.start();
    assert_eq!(scrubbed(&place).await.began_at, at_work.began_at);
}
