//! How it ends, what it leaves, and whom it serves.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use cairn_node::{EngineKind, Node, NodeOptions};
use cairn_proto::{
    cairn::v1::{
        ImportOptions, ImportRequest, images_client::ImagesClient, import_options, import_request,
    },
    containerd::services::{
        content::v1::{
            ListStatusesRequest, WriteAction, WriteContentRequest, content_client::ContentClient,
        },
        events::v1::{SubscribeRequest, events_client::EventsClient},
        streaming::v1::{StreamInit, streaming_client::StreamingClient},
    },
};
use cairn_types::Namespace;
use prost::{Message, Name};
use prost_types::Any;
use rustix::process::Signal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::daemon::{PATIENCE, Place, put, request, run};

fn mounts() -> usize {
    fs::read_to_string("/proc/self/mountinfo")
        .unwrap()
        .lines()
        .count()
}

#[tokio::test]
async fn endless_answers_end_and_nothing_stays() {
    let place = Place::with("[metrics]\naddress = \"metrics.sock\"\n");
    let before = mounts();
    let mut daemon = place.start();
    let mode = fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let mut client = EventsClient::new(place.channel().await);
    let events = client
        .subscribe(request(SubscribeRequest::default()))
        .await
        .unwrap();
    let mut events = events.into_inner();
    put(&place.channel().await, b"blob").await.unwrap();
    daemon.signal(Signal::TERM);
    let end = loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("no status"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert_eq!(end.message(), "the daemon is stopping: unavailable");
    let began = Instant::now();
    drop(client);
    assert!(daemon.ended().success(), "{}", daemon.log());
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(daemon.log().contains("stopped"), "{}", daemon.log());
    let left: Vec<_> = fs::read_dir(place.path("run")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(mounts(), before);
}

/// Nobody can come any more to use it.
#[tokio::test]
async fn a_stream_that_nobody_uses_ends() {
    let place = Place::new();
    let mut daemon = place.start();
    let (sender, receiver) = mpsc::channel(1);
    let init = StreamInit {
        id: "idle".to_owned(),
    };
    let init = Any {
        type_url: StreamInit::full_name(),
        value: init.encode_to_vec(),
    };
    sender.send(init).await.unwrap();
    let mut client = StreamingClient::new(place.channel().await);
    let messages = client.stream(request(ReceiverStream::new(receiver))).await;
    let mut messages = messages.unwrap().into_inner();
    assert!(messages.message().await.unwrap().is_some());
    daemon.signal(Signal::TERM);
    let end = messages.message().await.unwrap_err();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    drop((sender, messages, client));
    assert!(daemon.ended().success());
    assert!(!daemon.log().contains("cut off"), "{}", daemon.log());
}

/// A write that has sent its first part and waits.
async fn unfinished(
    place: &Place,
) -> (
    mpsc::Sender<WriteContentRequest>,
    tonic::Streaming<cairn_proto::containerd::services::content::v1::WriteContentResponse>,
) {
    let (sender, receiver) = mpsc::channel(1);
    let first = WriteContentRequest {
        action: WriteAction::Write.into(),
        r#ref: "unfinished".to_owned(),
        data: b"part".as_slice().into(),
        ..WriteContentRequest::default()
    };
    sender.send(first).await.unwrap();
    let mut client = ContentClient::new(place.channel().await);
    let answers = client
        .write(request(ReceiverStream::new(receiver)))
        .await
        .unwrap();
    let mut answers = answers.into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().offset, 4);
    (sender, answers)
}

#[tokio::test]
async fn calls_under_way_may_come_to_their_end() {
    let place = Place::new();
    let mut daemon = place.start();
    let (sender, mut answers) = unfinished(&place).await;
    daemon.signal(Signal::TERM);
    daemon.logged("stopping");
    let commit = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: "unfinished".to_owned(),
        offset: 4,
        data: b"ial".as_slice().into(),
        ..WriteContentRequest::default()
    };
    sender.send(commit).await.unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert_eq!(answer.offset, 7);
    drop((sender, answers));
    assert!(daemon.ended().success());
    assert!(!daemon.log().contains("cut off"), "{}", daemon.log());
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_off() {
    let place = Place::with("drain_timeout = \"500ms\"\n");
    let mut daemon = place.start();
    let (_sender, mut answers) = unfinished(&place).await;
    let began = Instant::now();
    assert!(daemon.stop().success());
    let took = began.elapsed();
    assert!(
        took > Duration::from_millis(450) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert!(daemon.log().contains("cut off"), "{}", daemon.log());
    assert!(answers.message().await.is_err());
    // What it wrote is there.
    let mut daemon = place.start();
    let mut client = ContentClient::new(place.channel().await);
    let status = cairn_proto::containerd::services::content::v1::StatusRequest {
        r#ref: "unfinished".to_owned(),
    };
    let status = client.status(request(status)).await.unwrap().into_inner();
    assert_eq!(status.status.unwrap().offset, 4);
    drop(client);
    assert!(daemon.stop().success());
}

/// Nobody can go on with it, so of what it was in the middle of nothing stays.
#[tokio::test]
async fn an_import_that_stands_still_is_cut_off() {
    let place = Place::with("drain_timeout = \"500ms\"\n");
    let mut daemon = place.start();
    let mut layer = tar::Header::new_ustar();
    let name = format!("blobs/sha256/{}", "a".repeat(64));
    layer.set_path(name).unwrap();
    layer.set_size(1 << 20);
    layer.set_cksum();
    let options = import_request::Part::Options(ImportOptions {
        source: Some(import_options::Source::Stream("archive".to_owned())),
        ..ImportOptions::default()
    });
    let chunk = |bytes: Vec<u8>| import_request::Part::Chunk(bytes.into());
    let (sender, messages) = mpsc::channel(4);
    let part = vec![7; 300_000];
    for part in [options, chunk(layer.as_bytes().to_vec()), chunk(part)] {
        let message = ImportRequest { part: Some(part) };
        sender.send(message).await.unwrap();
    }
    let channel = place.channel().await;
    let messages = request(ReceiverStream::new(messages));
    let answers = ImagesClient::new(channel.clone()).import(messages).await;
    let mut answers = answers.unwrap().into_inner();
    let began = Instant::now();
    loop {
        let list = request(ListStatusesRequest::default());
        let list = ContentClient::new(channel.clone())
            .list_statuses(list)
            .await;
        if !list.unwrap().into_inner().statuses.is_empty() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "the upload did not begin");
    }
    assert!(daemon.stop().success());
    assert!(answers.message().await.is_err());
    let node = Node::open(NodeOptions::new(place.path("root"), EngineKind::Redb));
    let ns = Namespace::parse("citizens").unwrap();
    let left = node.unwrap().content().ingests(&ns).unwrap();
    assert_eq!(left.len(), 0);
}

#[tokio::test]
async fn told_twice_it_does_not_wait() {
    let place = Place::new();
    let mut daemon = place.start();
    let _call = unfinished(&place).await;
    daemon.signal(Signal::INT);
    daemon.logged("stopping");
    let began = Instant::now();
    daemon.signal(Signal::INT);
    assert!(daemon.ended().success());
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_killed_daemons_socket_is_replaced() {
    let place = Place::new();
    let mut daemon = place.start();
    daemon.signal(Signal::KILL);
    daemon.ended();
    assert!(place.socket().exists());
    let _daemon = place.start();
    assert!(!place.version().await.unwrap().is_empty());
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let place = Place::new();
    fs::create_dir(place.path("run")).unwrap();
    fs::write(place.socket(), "mine").unwrap();
    let (status, _, stderr) = run(&mut place.command());
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("what is there is no socket"), "{stderr}");
    assert_eq!(fs::read_to_string(place.socket()).unwrap(), "mine");
}

/// What a stranger gets on the socket, as the code of gRPC.
fn stranger(place: &Place) -> String {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "curl"]);
    let (stdout, stderr) = place.curl(command);
    let code = stdout
        .lines()
        .find_map(|line| line.strip_prefix("grpc-status: "));
    code.map_or(stderr, |code| code.trim().to_owned())
}

#[test]
fn strangers_are_not_served() {
    fn open(place: &Place) {
        fs::set_permissions(place.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let place = Place::new();
    open(&place);
    let _daemon = place.start();
    let refused = stranger(&place);
    assert!(
        refused.contains("Couldn't connect") || refused.contains("Failed"),
        "{refused}"
    );

    let place = Place::with("[grpc]\nmode = 0o666\n");
    open(&place);
    let daemon = place.start();
    assert_eq!(stranger(&place), "7");
    let line = daemon.logged("user 65534 is not served here");
    assert!(line.contains("WARN"), "{line}");

    let place = Place::with("[grpc]\nmode = 0o666\nallowed_uids = [0, 65534]\n");
    open(&place);
    let _daemon = place.start();
    // The empty body is no message: the method itself was reached.
    assert_ne!(stranger(&place), "7");
}
