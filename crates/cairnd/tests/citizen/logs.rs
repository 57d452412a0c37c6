//! What is logged of a call, and where to.

use std::{
    fs,
    os::{linux::fs::MetadataExt, unix::net::UnixDatagram},
    process::{Command, Stdio},
};

use cairn_proto::{
    cairn::v1::images_client::ImagesClient,
    containerd::{
        services::{
            content::v1::{InfoRequest, content_client::ContentClient},
            events::v1::{SubscribeRequest, events_client::EventsClient},
            snapshots::v1::{PrepareSnapshotRequest, snapshots_client::SnapshotsClient},
            transfer::v1::{TransferRequest, transfer_client::TransferClient},
        },
        types::transfer::{HttpDebug, ImageStore, OciRegistry, RegistryResolver},
    },
};
use serde_json::Value;
use tonic::Code;

use crate::{
    common::{archive::Archive, layer::Layer, own, transfer::pack},
    daemon::{Daemon, PATIENCE, Place, put, quiet, request, wait_for},
    registries::Registry,
};

#[tokio::test]
async fn a_call_says_who_what_and_how_long() {
    let place = Place::new();
    let mut command = place.command();
    command.args(["--log-format", "json", "--log-level", "info,cairnd=debug"]);
    let daemon = place.start_as(command);
    place.version().await.unwrap();
    let line = daemon.logged("answered");
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line}"));
    assert_eq!(line["level"], "DEBUG");
    assert_eq!(line["code"], "OK");
    assert!(line["ms"].as_f64().unwrap() > 0.0, "{line}");
    let call = &line["span"];
    assert_eq!(
        call["rpc"],
        "/containerd.services.version.v1.Version/Version"
    );
    assert_eq!(call["namespace"], "citizens");
    assert_eq!(call["peer_uid"], 0);
    assert_eq!(call["peer_pid"], std::process::id());
    assert_eq!(call["request"], 1);
}

/// The last answer to this method, as it was logged.
fn answer(daemon: &Daemon, rpc: &str) -> Value {
    wait_for(rpc, || {
        let log = daemon.log();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let mut answers = lines.filter(|line: &Value| line["message"] == "answered");
        answers.find(|line| line["span"]["rpc"] == rpc)
    })
}

#[tokio::test]
async fn a_call_says_what_it_is_about() {
    // A collection would take the blob, which nothing holds.
    let place =
        Place::with("[log]\nformat = \"json\"\nlevel = \"debug\"\n[gc]\nstartup_delay = \"0\"\n");
    let daemon = place.start();
    let channel = place.channel().await;
    let digest = put(&channel, b"blob").await.unwrap();
    let info = InfoRequest {
        digest: digest.clone(),
    };
    let mut content = ContentClient::new(channel.clone());
    content.info(request(info)).await.unwrap();
    let prepare = PrepareSnapshotRequest {
        snapshotter: "overlayfs".to_owned(),
        // Chosen by a client, who may try to write lines of its own.
        key: "a \"key\"\nof={mine}".to_owned(),
        ..PrepareSnapshotRequest::default()
    };
    let key = prepare.key.clone();
    let mut snapshots = SnapshotsClient::new(channel);
    snapshots.prepare(request(prepare)).await.unwrap();
    let write = answer(&daemon, "/containerd.services.content.v1.Content/Write");
    let call = &write["span"];
    assert_eq!(call["ingest"], format!("ref-{digest}"), "{write}");
    assert_eq!(call["digest"], digest, "{write}");
    let read = answer(&daemon, "/containerd.services.content.v1.Content/Info");
    assert_eq!(read["span"]["digest"], digest, "{read}");
    assert_eq!(read["span"]["namespace"], "citizens");
    // What it is not about is no field.
    assert!(read["span"].get("key").is_none(), "{read}");
    let method = "/containerd.services.snapshots.v1.Snapshots/Prepare";
    let prepared = answer(&daemon, method);
    assert_eq!(prepared["span"]["key"], key, "{prepared}");
    assert!(prepared["span"]["request"].as_u64() > call["request"].as_u64());
}

#[tokio::test]
async fn an_import_says_what_came_and_how_long_it_took() {
    let place = Place::with("[log]\nformat = \"json\"\n");
    let daemon = place.start();
    let archive = Archive::new(
        "docker.io/shop/web:1",
        &[Layer::new().file("f", "").bytes()],
    );
    let file = place.path("web.tar");
    std::fs::write(&file, &archive.bytes).unwrap();
    let order = request(tokio_stream::iter([own::options(own::by_path(&file))]));
    let mut images = ImagesClient::new(place.channel().await);
    let mut answers = images.import(order).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let line = daemon.logged("\"imported\"");
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line}"));
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["images"], 1);
    assert_eq!(line["digest"], archive.manifest);
    assert!(line["bytes"].as_u64() > Some(0), "{line}");
    assert!(line["ms"].as_f64() > Some(0.0), "{line}");
    assert_eq!(line["span"]["rpc"], "/cairn.v1.Images/Import");
    // Where calls are no news, what they are about is not written into their spans.
    assert!(line["span"].get("image").is_none(), "{line}");
}

/// Without a stream for it, as containerd has it: messages for information, connections for debugging.
#[tokio::test]
async fn requests_to_registries_are_logged_if_a_transfer_says_so() {
    let place = Place::with("[log]\nformat = \"json\"\nlevel = \"debug\"\n");
    let daemon = place.start();
    let registry = Registry::start();
    let mut transfers = TransferClient::new(place.channel().await);
    for (name, wanted) in [
        ("quiet", HttpDebug::Disabled),
        ("messages", HttpDebug::Debug),
        ("course", HttpDebug::Trace),
    ] {
        let from = OciRegistry {
            reference: format!("{}/{name}:1", registry.host),
            resolver: Some(RegistryResolver {
                default_scheme: "http".to_owned(),
                http_debug: wanted.into(),
                ..RegistryResolver::default()
            }),
        };
        let to = ImageStore {
            name: name.to_owned(),
            ..ImageStore::default()
        };
        let transfer = TransferRequest {
            source: Some(pack(&from)),
            destination: Some(pack(&to)),
            options: None,
        };
        let refused = transfers.transfer(request(transfer)).await;
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    }
    let about = |name: &str| {
        let target = format!("http://{}/v2/{name}/manifests/1", registry.host);
        let log = daemon.log();
        let lines = log.lines().filter(|line| line.contains(&target));
        let lines = lines.map(|line| serde_json::from_str(line).unwrap());
        lines.collect::<Vec<Value>>()
    };
    for (name, level) in [("messages", "INFO"), ("course", "DEBUG")] {
        let told = wait_for(name, || about(name).into_iter().next());
        assert_eq!(told["level"], level, "{told}");
        assert_eq!(told["message"], "http", "{told}");
        let rpc = "/containerd.services.transfer.v1.Transfer/Transfer";
        assert_eq!(told["span"]["rpc"], rpc, "{told}");
    }
    assert_eq!(about("quiet"), Vec::<Value>::new());
}

#[tokio::test]
async fn calls_are_no_news_by_default() {
    let place = Place::new();
    let daemon = place.start();
    place.version().await.unwrap();
    assert!(!daemon.log().contains("answered"), "{}", daemon.log());
}

#[test]
fn the_journal_gets_fields() {
    let place = Place::new();
    let journal = place.path("journal");
    fs::create_dir(&journal).unwrap();
    let socket = UnixDatagram::bind(journal.join("socket")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let stderr = fs::File::create(place.path("stderr")).unwrap();
    let stat = stderr.metadata().unwrap();
    // The journal's socket has one address only, so the daemon sees another /run.
    let script = "mount -t tmpfs none /run && mkdir -p /run/systemd/journal \
                  && mount --bind \"$1\" /run/systemd/journal && shift && exec \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(&journal);
    let plain = place.command();
    command.arg(plain.get_program()).args(plain.get_args());
    quiet(&mut command);
    command.env(
        "JOURNAL_STREAM",
        format!("{}:{}", stat.st_dev(), stat.st_ino()),
    );
    let mut child = command.stderr(Stdio::from(stderr)).spawn().unwrap();
    let mut entry = vec![0; 64 << 10];
    let told = loop {
        let len = socket.recv(&mut entry).expect("an entry");
        let text = String::from_utf8_lossy(&entry[..len]).into_owned();
        if text.contains("serving at") {
            break text;
        }
    };
    child.kill().unwrap();
    child.wait().unwrap();
    for field in [
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "CAIRN_ROOT",
        "CAIRN_MS",
        "MESSAGE",
    ] {
        assert!(
            told.lines().any(|line| line.starts_with(field)),
            "no {field} in\n{told}"
        );
    }
    assert_eq!(fs::read_to_string(place.path("stderr")).unwrap(), "");
}

#[test]
fn a_descriptor_that_is_not_the_journals_gets_text() {
    let place = Place::new();
    let mut command = place.command();
    command.env("JOURNAL_STREAM", "1:1");
    place.start_as(command);
}

#[test]
fn hangup_reads_the_level_again() {
    let place = Place::new();
    let daemon = place.start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut client = EventsClient::new(runtime.block_on(place.channel()));
    let events = client.subscribe(request(SubscribeRequest::default()));
    let events = runtime.block_on(events).unwrap();
    let debug = "[log]\nlevel = \"debug\"\nformat = \"json\"\n";
    fs::write(place.path("config.toml"), debug).unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    daemon.logged("read the configuration again");
    daemon.logged("has to wait for the next start");
    runtime.block_on(place.version()).unwrap();
    daemon.logged("answered");
    assert!(!daemon.log().contains("h2::"), "{}", daemon.log());
    fs::write(place.path("config.toml"), "[log]\nlevle = \"error\"\n").unwrap();
    daemon.signal(rustix::process::Signal::HUP);
    let line = daemon.logged("the configuration stays as it is");
    assert!(line.contains("ERROR"), "{line}");
    let before = daemon.log().matches("answered").count();
    runtime.block_on(place.version()).unwrap();
    // A call that began before ends as ever.
    drop((events, client));
    daemon.logged("the client gave it up");
    wait_for("a line at debug", || {
        (daemon.log().matches("answered").count() > before).then_some(())
    });
}
