//! More clients, connections, calls and bytes than there should be: whoever asks for too much is
//! refused, and the others are answered.

use std::{
    io::{ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    process::Command,
};

use cairn_proto::containerd::services::{
    content::v1::{WriteAction, WriteContentRequest, content_client::ContentClient},
    events::v1::{SubscribeRequest, events_client::EventsClient},
    images::v1::{CreateImageRequest, Image, ListImagesRequest, images_client::ImagesClient},
};
use tonic::Code;

use crate::daemon::{PATIENCE, Place, put, quiet, request, wait_for};

/// A place whose daemon is told this of its socket.
fn place(grpc: &str) -> Place {
    Place::with(&format!("[grpc]\n{grpc}\n"))
}

#[test]
fn want_of_descriptors_passes() {
    let place = Place::new();
    let plain = place.command();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=48").arg(plain.get_program());
    command.args(plain.get_args());
    quiet(&mut command);
    let daemon = place.start_as(command);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(place.version()).unwrap();
    let crowd: Vec<_> = (0..64)
        .map(|_| UnixStream::connect(place.socket()).unwrap())
        .collect();
    daemon.logged("cannot accept a connection");
    std::thread::sleep(std::time::Duration::from_millis(500));
    // However long it lasts, nobody needs to read it ten times a second.
    let complaints = daemon.log().matches("cannot accept").count();
    assert_eq!(complaints, 1, "{}", daemon.log());
    drop(crowd);
    wait_for("an answer", || runtime.block_on(place.version()).ok());
}

#[test]
fn a_soft_limit_of_descriptors_is_raised() {
    let place = Place::new();
    let plain = place.command();
    let mut command = Command::new("prlimit");
    command.arg("--nofile=64:256").arg(plain.get_program());
    command.args(plain.get_args());
    quiet(&mut command);
    let daemon = place.start_as(command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<&str> = line.unwrap().split_whitespace().collect();
    assert_eq!(words[3..5], ["256", "256"]);
}

/// Whether somebody else gets an answer.
fn another_is_served(place: &Place) -> bool {
    let (stdout, _) = place.curl(Command::new("curl"));
    stdout.contains("grpc-status: ")
}

/// Waits for the end of a connection on which nothing more comes.
fn closed(stream: &mut UnixStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(err) if err.kind() == ErrorKind::ConnectionReset => {}
        Err(err) => panic!("it is not closed: {err}"),
    }
}

#[test]
fn one_process_has_so_many_connections() {
    let place = place("max_connections_per_process = 8");
    let daemon = place.start();
    let connect = || UnixStream::connect(place.socket()).unwrap();
    let crowd: Vec<_> = (0..8).map(|_| connect()).collect();
    for _ in 0..20 {
        closed(&mut connect());
    }
    daemon.logged("connections are refused");
    let text = format!("process {} has 8", std::process::id());
    assert!(daemon.log().contains(&text), "{}", daemon.log());
    assert!(another_is_served(&place));
    drop(crowd);
    // The daemon has still to hear of their end.
    wait_for("a place", || {
        let mut stream = connect();
        stream.write_all(PREFACE).ok()?;
        stream.write_all(&SETTINGS).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut [0; 9]).ok()
    });
}

#[test]
fn all_together_have_so_many() {
    let place = place("max_connections = 3");
    let daemon = place.start();
    let connect = || UnixStream::connect(place.socket()).unwrap();
    let crowd: Vec<_> = (0..3).map(|_| connect()).collect();
    closed(&mut connect());
    daemon.logged("there are 3 (grpc.max_connections)");
    assert!(!another_is_served(&place));
    drop(crowd);
    wait_for("an answer", || another_is_served(&place).then_some(()));
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty frame of settings: length, type, flags, stream.
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];

#[test]
fn who_does_not_speak_is_not_waited_for() {
    let place = place("handshake_timeout = \"300ms\"");
    let _daemon = place.start();
    let mut silent = UnixStream::connect(place.socket()).unwrap();
    let mut halting = UnixStream::connect(place.socket()).unwrap();
    for byte in &PREFACE[..PREFACE.len() - 1] {
        if halting.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    closed(&mut silent);
    closed(&mut halting);
}

// Two threads: the idle client has to answer pings while this one waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_answers_no_more_is_let_go() {
    let place = place("keepalive_interval = \"200ms\"\nkeepalive_timeout = \"3s\"");
    let _daemon = place.start();
    let idle = place.channel().await;
    // As a process that was stopped in the middle: it is connected, and takes nothing.
    let mut frozen = UnixStream::connect(place.socket()).unwrap();
    frozen.write_all(PREFACE).unwrap();
    frozen.write_all(&SETTINGS).unwrap();
    closed(&mut frozen);
    // Who is only idle answers when asked, and stays connected.
    put(&idle, b"still here").await.unwrap();
}

#[test]
fn a_connection_has_so_many_calls() {
    let place = place("max_concurrent_streams = 7");
    let _daemon = place.start();
    let mut stream = UnixStream::connect(place.socket()).unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&SETTINGS).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "the first frame has the settings");
    let mut settings = vec![0; usize::from(head[2])];
    stream.read_exact(&mut settings).unwrap();
    // SETTINGS_MAX_CONCURRENT_STREAMS (RFC 9113, 6.5.2).
    let streams = settings.chunks(6).find(|setting| setting[..2] == [0, 3]);
    assert_eq!(streams.unwrap()[2..], [0, 0, 0, 7]);
}

#[tokio::test]
async fn messages_have_a_size() {
    let place = place("max_recv_message_size = 2097152\nmax_send_message_size = 2097152");
    let _daemon = place.start();
    let channel = place.channel().await;
    put(&channel, &vec![7; 2_000_000]).await.unwrap();
    let large = put(&channel, &vec![7; 2_100_000]).await.unwrap_err();
    assert_eq!(large.code(), Code::ResourceExhausted, "{large}");
    let mut client = ImagesClient::new(channel.clone()).max_encoding_message_size(64 << 20);
    let image = |name: &str, labels: usize| Image {
        name: name.to_owned(),
        target: Some(cairn_proto::containerd::types::Descriptor {
            media_type: "application/octet-stream".to_owned(),
            digest: cairn_types::Digest::sha256(b"").to_string(),
            size: 1,
            ..Default::default()
        }),
        labels: (0..labels)
            .map(|number| (format!("label{number}"), "x".repeat(4000)))
            .collect(),
        ..Image::default()
    };
    let create = |image| CreateImageRequest {
        image: Some(image),
        ..CreateImageRequest::default()
    };
    let large = client.create(request(create(image("large", 600)))).await;
    let large = large.unwrap_err();
    assert_eq!(large.code(), Code::ResourceExhausted, "{large}");
    assert!(large.message().contains("more than 2097152"), "{large}");
    // Each can be sent, all together cannot.
    for number in 0..40 {
        let created = client.create(request(create(image(&format!("i{number}"), 16))));
        created.await.unwrap();
    }
    let all = client.list(request(ListImagesRequest::default())).await;
    let all = all.unwrap_err();
    assert_eq!(all.code(), Code::ResourceExhausted, "{all}");
    let one = ListImagesRequest {
        filters: vec!["name==i7".to_owned()],
    };
    let one = client.list(request(one)).await.unwrap();
    assert_eq!(one.into_inner().images.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_for_their_turn_come_to_it() {
    let place = place("max_working_calls = 1");
    let _daemon = place.start();
    let channel = place.channel().await;
    // It waits between its messages, and not at the expense of others.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let first = WriteContentRequest {
        action: WriteAction::Write.into(),
        r#ref: "slow".to_owned(),
        data: b"part".as_slice().into(),
        ..WriteContentRequest::default()
    };
    sender.send(first).await.unwrap();
    let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let slow = ContentClient::new(channel.clone())
        .write(request(receiver))
        .await;
    let mut slow = slow.unwrap().into_inner();
    slow.message().await.unwrap().unwrap();
    let events = EventsClient::new(channel.clone())
        .subscribe(request(SubscribeRequest::default()))
        .await
        .unwrap();
    let puts: Vec<_> = (0..100_u8)
        .map(|number| {
            let channel = channel.clone();
            tokio::spawn(async move { put(&channel, &[number; 10]).await })
        })
        .collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    drop((events, sender));
    assert!(slow.message().await.unwrap().is_none());
}
