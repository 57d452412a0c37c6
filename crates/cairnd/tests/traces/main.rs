//! Traces, as a collector receives them.

#![allow(missing_docs)]

#[path = "../citizen/daemon.rs"]
#[allow(dead_code, reason = "a part is enough")]
mod daemon;

#[path = "../common/mod.rs"]
mod common;

mod collector;

use cairn_proto::{
    cairn::v1::images_client::ImagesClient,
    containerd::services::{
        content::v1::{InfoRequest, content_client::ContentClient},
        images::v1::{GetImageRequest, images_client::ImagesClient as TheirImages},
        namespaces::v1::{ListNamespacesRequest, namespaces_client::NamespacesClient},
    },
};
use tonic::{Code, Request};

use collector::{Collector, text};
use common::{archive::Archive, layer::Layer, own};
use daemon::{Place, put, request, run, wait_for};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A request in a trace that its client keeps, or does not.
fn traced<T>(message: T, kept: bool) -> Request<T> {
    let mut request = request(message);
    let flags = if kept { "01" } else { "00" };
    let header = format!("00-{TRACE}-{PARENT}-{flags}");
    let header = header.parse().unwrap();
    request.metadata_mut().insert("traceparent", header);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_part_of_its_clients_trace() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let place = Place::with(&format!("[tracing]\nendpoint = {endpoint:?}\n"));
    let mut daemon = place.start();
    let channel = place.channel().await;
    // Of no trace, and of one that is not kept.
    put(&channel, b"blob").await.unwrap();
    let mut namespaces = NamespacesClient::new(channel.clone());
    let list = || ListNamespacesRequest::default();
    namespaces.list(traced(list(), false)).await.unwrap();
    // Kept.
    namespaces.list(traced(list(), true)).await.unwrap();
    let digest = cairn_types::Digest::sha256(b"missing").to_string();
    let request = InfoRequest {
        digest: digest.clone(),
    };
    let mut content = ContentClient::new(channel.clone());
    let missing = content.info(traced(request, true)).await;
    assert_eq!(missing.unwrap_err().code(), Code::NotFound);
    drop(channel);
    // It sends what it has before it ends.
    assert!(daemon.stop().success(), "{}", daemon.log());
    let mut spans = wait_for("two spans", || {
        let spans = collector.spans();
        (spans.len() >= 2).then_some(spans)
    });
    spans.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    let (info, list) = (
        "containerd.services.content.v1.Content/Info",
        "containerd.services.namespaces.v1.Namespaces/List",
    );
    assert_eq!(names, [info, list]);
    for (span, code) in spans.iter().zip(["NOT_FOUND", "OK"]) {
        assert_eq!(hex(&span.trace_id), TRACE);
        assert_eq!(hex(&span.parent_span_id), PARENT);
        assert_eq!(span.kind, 2, "a server's");
        // What a client asks for in vain is no error of the server.
        assert_eq!(span.status.as_ref().map_or(0, |status| status.code), 0);
        for (key, value) in [
            ("rpc.system.name", "grpc"),
            ("rpc.method", &*span.name),
            ("rpc.response.status_code", code),
            ("cairn.namespace", "citizens"),
        ] {
            assert_eq!(
                text(&span.attributes, key).as_deref(),
                Some(value),
                "{span:?}"
            );
        }
    }
    // What a call is about, though calls are not logged.
    assert_eq!(text(&spans[0].attributes, "cairn.digest"), Some(digest));
    assert_eq!(text(&spans[1].attributes, "cairn.digest"), None);
    let sender = vec![Some("cairnd".to_owned())];
    assert_eq!(collector.senders("service.name"), sender);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_others_begins_a_trace() {
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let place = Place::with("[tracing]\nsampling_ratio = 1.0\n");
    let mut command = place.command();
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint);
    let mut daemon = place.start_as(command);
    let channel = place.channel().await;
    put(&channel, b"blob").await.unwrap();
    drop(channel);
    assert!(daemon.stop().success(), "{}", daemon.log());
    let span = wait_for("a span", || collector.spans().pop());
    assert_eq!(span.name, "containerd.services.content.v1.Content/Write");
    assert!(span.parent_span_id.is_empty());
}

/// Which image it was, and when each of its layers came to its phases.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_tells_of_its_image_and_its_layers() {
    const NAME: &str = "docker.io/shop/web:1";
    let collector = Collector::default();
    let endpoint = collector.start().await;
    let place = Place::with(&format!(
        "[tracing]\nendpoint = {endpoint:?}\nsampling_ratio = 1.0\n"
    ));
    let mut daemon = place.start();
    let channel = place.channel().await;
    let archive = Archive::new(NAME, &[Layer::new().file("file", "").bytes()]);
    let file = place.path("web.tar");
    std::fs::write(&file, &archive.bytes).unwrap();
    let order = request(tokio_stream::iter([own::options(own::by_path(&file))]));
    let answers = ImagesClient::new(channel.clone()).import(order).await;
    let mut answers = answers.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let get = request(GetImageRequest {
        name: NAME.to_owned(),
    });
    TheirImages::new(channel.clone()).get(get).await.unwrap();
    drop((answers, channel));
    assert!(daemon.stop().success(), "{}", daemon.log());
    let spans = wait_for("two spans", || {
        let spans = collector.spans();
        (spans.len() >= 2).then_some(spans)
    });
    for name in [
        "cairn.v1.Images/Import",
        "containerd.services.images.v1.Images/Get",
    ] {
        let span = spans.iter().find(|span| span.name == name).unwrap();
        let manifest = text(&span.attributes, "oci.manifest.digest");
        assert_eq!(manifest.as_ref(), Some(&archive.manifest), "{span:?}");
    }
    let import = spans.iter().find(|span| span.name.ends_with("Import"));
    let events = import.unwrap().events.iter();
    let layer = events.filter(|event| {
        event.name == "layer"
            && text(&event.attributes, "cairn.layer").as_ref() == archive.layers.first()
    });
    let phases: Vec<_> = layer
        .filter_map(|event| text(&event.attributes, "cairn.phase"))
        .collect();
    assert_eq!(phases, ["waiting", "fetch_unpack", "sync", "done"]);
}

/// It takes connections and never says anything.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_mute_holds_nobody_up() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    let place = Place::with(&format!(
        "[tracing]\nendpoint = \"http://{address}\"\nsampling_ratio = 1.0\n"
    ));
    let mut command = place.command();
    // Longer than the test has patience.
    command.env("OTEL_EXPORTER_OTLP_TIMEOUT", "600000");
    command.env("OTEL_BSP_SCHEDULE_DELAY", "10");
    command.env("OTEL_BSP_MAX_QUEUE_SIZE", "1");
    let mut daemon = place.start_as(command);
    let channel = place.channel().await;
    put(&channel, b"first").await.unwrap();
    // It is being told of the first one; these wait, or are dropped.
    let (connection, _) = mute.accept().unwrap();
    for number in 0..10 {
        put(&channel, format!("{number}").as_bytes()).await.unwrap();
    }
    drop(channel);
    assert!(daemon.stop().success(), "{}", daemon.log());
    daemon.logged("some traces were not sent");
    drop(connection);
}

/// Nobody waits for a collector; when it is back it gets what comes then.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_is_no_matter() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let place = Place::with(&format!(
        "[tracing]\nendpoint = \"http://{address}\"\nsampling_ratio = 1.0\n"
    ));
    let mut command = place.command();
    command.env("OTEL_BSP_SCHEDULE_DELAY", "50");
    let daemon = place.start_as(command);
    let channel = place.channel().await;
    put(&channel, b"blob").await.unwrap();
    daemon.logged(&format!("traces do not get to http://{address}"));
    let collector = Collector::default();
    collector.start_at(&address).await;
    wait_for("a span", || {
        let version = tokio::runtime::Handle::current();
        let version = tokio::task::block_in_place(|| version.block_on(place.version()));
        assert!(!version.unwrap().is_empty());
        collector.spans().pop()
    });
    daemon.logged("again");
    let log = daemon.log();
    assert_eq!(log.matches("traces do not get to").count(), 1, "{log}");
    // The log has no words for collectors.
    assert!(!log.contains("rpc.system"), "{log}");
}

#[test]
fn what_is_no_endpoint_is_said_at_once() {
    for (table, reason) in [
        (
            "endpoint = \"https://127.0.0.1:1\"",
            "cannot send traces to https://127.0.0.1:1",
        ),
        (
            "endpoint = \"no endpoint\"",
            "cannot send traces to no endpoint",
        ),
        ("sampling_ratio = 1.5", "1.5 is not between 0 and 1"),
    ] {
        let place = Place::with(&format!("[tracing]\n{table}\n"));
        let (status, _, stderr) = run(&mut place.command());
        assert_eq!(status.code(), Some(1), "{table}");
        assert!(stderr.contains(reason), "{stderr}");
    }
}
