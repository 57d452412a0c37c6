//! Figures and health, as Prometheus and probes read them.

use cairn_proto::{
    cairn::v1::{
        CollectRequest, PullOptions, PullRequest, RemoveImageRequest,
        images_client::ImagesClient as CairnImagesClient, pull_request::Part,
        store_client::StoreClient,
    },
    containerd::{
        services::{
            diff::v1::{ApplyRequest, diff_client::DiffClient},
            images::v1::{
                CreateImageRequest, DeleteImageRequest, Image, images_client::ImagesClient,
            },
            leases::v1::{CreateRequest, DeleteRequest, leases_client::LeasesClient},
            snapshots::v1::{PrepareSnapshotRequest, snapshots_client::SnapshotsClient},
        },
        types::Descriptor,
    },
};
use cairn_types::Digest;
use serde_json::Value;
use tonic::transport::Channel;

use crate::daemon::{Place, get, put, request, wait_for};

fn value(text: &str, series: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
        .map(|value| value.parse().expect("a number"))
}

#[tokio::test]
async fn figures_of_calls_store_and_process() {
    let place = Place::with(
        "[metrics]\naddress = \"metrics.sock\"\ncontainerd_names = true\n\
         [gc]\nstartup_delay = \"0\"\n[registry]\nretries = 0\n",
    );
    let daemon = place.start();
    let channel = place.channel().await;
    put(&channel, b"seven b").await.unwrap();
    assert_eq!(pull_from_nobody(&channel).await, tonic::Code::Unavailable);
    place.version().await.unwrap();
    let mut unknown = tonic::client::Grpc::new(channel.clone());
    unknown.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/no.Such/Method");
    let codec = tonic_health_codec();
    let err = unknown
        .unary(tonic::Request::new(()), path, codec)
        .await
        .unwrap_err();
    assert_eq!(err.code(), tonic::Code::Unimplemented);

    let socket = place.path("run/metrics.sock");
    let (status, text) = wait_for("the figures of the calls", || {
        let (status, text) = get(&socket, "/metrics");
        text.contains("grpc_code=\"Unimplemented\"")
            .then_some((status, text))
    });
    assert_eq!(status, "HTTP/1.1 200 OK");
    let call = "grpc_type=\"bidi_stream\",grpc_service=\"containerd.services.content.v1.Content\",\
                grpc_method=\"Write\",socket=\"public\"";
    exact(&text, call);
    above_zero(&text, call);
    // Rates are of counters alone.
    let counter = "# TYPE process_cpu_seconds_total counter\n";
    assert_eq!(text.matches(counter).count(), 1, "{text}");
    // What a client calls by a name of its own is no label.
    assert!(!text.contains("no.Such"), "{text}");
    let (_, same) = get(&socket, "/v1/metrics");
    assert!(same.contains("cairn_build_info"));
    assert_eq!(
        get(&socket, "/healthz"),
        ("HTTP/1.1 200 OK".to_owned(), "ok\n".to_owned())
    );
    assert_eq!(get(&socket, "/").0, "HTTP/1.1 404 Not Found");
    drop(daemon);
}

/// What is known to the last digit, after one `call` of one message that stored a blob.
fn exact(text: &str, call: &str) {
    for (series, expected) in [
        (format!("grpc_server_started_total{{{call}}}"), 1.0),
        (
            format!("grpc_server_handled_total{{{call},grpc_code=\"OK\"}}"),
            1.0,
        ),
        (format!("grpc_server_msg_received_total{{{call}}}"), 1.0),
        (format!("grpc_server_handling_seconds_count{{{call}}}"), 1.0),
        (
            format!("grpc_server_handling_seconds_bucket{{{call},le=\"+Inf\"}}"),
            1.0,
        ),
        ("cairn_content_blobs{store=\"public\"}".to_owned(), 1.0),
        ("cairn_content_bytes{store=\"public\"}".to_owned(), 7.0),
        (
            "cairn_snapshots{kind=\"committed\",store=\"public\"}".to_owned(),
            0.0,
        ),
        ("cairn_images{store=\"public\"}".to_owned(), 0.0),
        ("cairn_leases{store=\"public\"}".to_owned(), 0.0),
        (
            "cairn_inflight{kind=\"call\",socket=\"public\"}".to_owned(),
            0.0,
        ),
        (
            "cairn_inflight{kind=\"ingest\",socket=\"public\"}".to_owned(),
            0.0,
        ),
        (
            "cairn_inflight{kind=\"pull\",socket=\"public\"}".to_owned(),
            0.0,
        ),
        ("cairn_pulls_total{result=\"error\"}".to_owned(), 1.0),
        ("cairn_pulls_total{result=\"ok\"}".to_owned(), 0.0),
        ("cairn_pushes_total{result=\"ok\"}".to_owned(), 0.0),
        ("cairn_store_read_only{store=\"public\"}".to_owned(), 0.0),
        ("cairn_gc_runs_total{result=\"ok\"}".to_owned(), 0.0),
        ("cairn_build_info{version=\"0.1.0\"}".to_owned(), 1.0),
        (
            "containerd_build_info_total{version=\"0.1.0\",revision=\"\"}".to_owned(),
            1.0,
        ),
    ] {
        assert_eq!(value(text, &series), Some(expected), "{series} in\n{text}");
    }
}

/// What is there in any number.
fn above_zero(text: &str, call: &str) {
    for series in [
        &*format!("cairn_grpc_received_bytes_total{{{call}}}"),
        &*format!("cairn_grpc_sent_bytes_total{{{call}}}"),
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_max_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "cairn_disk_free_bytes{store=\"public\"}",
        "cairn_commit_seconds_count{engine=\"redb\",store=\"public\"}",
        "cairn_commit_group_size_sum{store=\"public\"}",
    ] {
        assert!(
            value(text, series).unwrap_or_default() > 0.0,
            "{series} in\n{text}"
        );
    }
}

/// Asks for an image where no registry listens.
async fn pull_from_nobody(channel: &Channel) -> tonic::Code {
    let options = PullOptions {
        name: "127.0.0.1:1/a:1".to_owned(),
        ..PullOptions::default()
    };
    let first = PullRequest {
        part: Some(Part::Options(options)),
    };
    let mut images = CairnImagesClient::new(channel.clone());
    let answers = images.pull(request(tokio_stream::iter([first]))).await;
    let mut answers = answers.expect("answers").into_inner();
    loop {
        match answers.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return tonic::Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

/// A codec of messages without fields.
fn tonic_health_codec() -> impl tonic::codec::Codec<Encode = (), Decode = ()> {
    tonic_prost::ProstCodec::<(), ()>::default()
}

/// Unpacks a layer of no files, which nothing holds.
pub(crate) async fn unpack(channel: &Channel) {
    // The end of an archive, and nothing before it.
    let layer = [0; 1024];
    put(channel, &layer).await.unwrap();
    let mounts = SnapshotsClient::new(channel.clone())
        .prepare(request(PrepareSnapshotRequest {
            snapshotter: "overlayfs".to_owned(),
            key: "active".to_owned(),
            ..PrepareSnapshotRequest::default()
        }))
        .await
        .unwrap()
        .into_inner()
        .mounts;
    DiffClient::new(channel.clone())
        .apply(request(ApplyRequest {
            diff: Some(Descriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
                digest: Digest::sha256(&layer).to_string(),
                size: 1024,
                ..Descriptor::default()
            }),
            mounts,
            ..ApplyRequest::default()
        }))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_the_time_of_a_layer_went_into() {
    // A collection would take the layer, which nothing holds.
    let place = Place::with("[metrics]\naddress = \"metrics.sock\"\n[gc]\nstartup_delay = \"0\"\n");
    let _daemon = place.start();
    let channel = place.channel().await;
    let socket = place.path("run/metrics.sock");
    let count = |phase: &str| {
        let labels = format!("{{phase=\"{phase}\",store=\"public\"}}");
        let (_, text) = get(&socket, "/metrics");
        value(&text, &format!("cairn_layer_phase_seconds_count{labels}"))
    };
    assert_eq!(count("untar").unwrap_or(0.0), 0.0);
    unpack(&channel).await;
    for phase in ["fetch", "inflate", "untar", "sync", "commit"] {
        assert_eq!(count(phase), Some(1.0), "{phase}");
    }
}

/// An image of something that is stored.
pub(crate) async fn image(channel: &Channel, name: &str, bytes: &[u8]) {
    let digest = put(channel, bytes).await.unwrap();
    let target = Descriptor {
        media_type: "text/plain".to_owned(),
        digest,
        size: i64::try_from(bytes.len()).unwrap(),
        ..Descriptor::default()
    };
    let image = Image {
        name: name.to_owned(),
        target: Some(target),
        ..Image::default()
    };
    let create = CreateImageRequest {
        image: Some(image),
        source_date_epoch: None,
    };
    let mut images = ImagesClient::new(channel.clone());
    images.create(request(create)).await.unwrap();
}

/// Asks for a collection in each way that there is.
async fn collect_in_each_way(channel: &Channel) {
    image(channel, "docker.io/library/one:1", b"one").await;
    let delete = DeleteImageRequest {
        name: "docker.io/library/one:1".to_owned(),
        sync: true,
        ..DeleteImageRequest::default()
    };
    let mut images = ImagesClient::new(channel.clone());
    images.delete(request(delete)).await.unwrap();
    image(channel, "docker.io/library/two:1", b"two").await;
    let remove = RemoveImageRequest {
        name: "docker.io/library/two:1".to_owned(),
        sync: true,
        ..RemoveImageRequest::default()
    };
    let mut images = CairnImagesClient::new(channel.clone());
    images.remove(request(remove)).await.unwrap();
    let mut leases = LeasesClient::new(channel.clone());
    let id = || "l".to_owned();
    let create = CreateRequest {
        id: id(),
        ..CreateRequest::default()
    };
    leases.create(request(create)).await.unwrap();
    put(channel, b"three").await.unwrap();
    let delete = DeleteRequest {
        id: id(),
        sync: true,
    };
    leases.delete(request(delete)).await.unwrap();
    put(channel, b"four").await.unwrap();
    let mut store = StoreClient::new(channel.clone());
    for dry_run in [true, false] {
        let collect = CollectRequest { dry_run };
        store.collect(request(collect)).await.unwrap();
    }
}

#[tokio::test]
async fn collections_that_clients_ask_for_count() {
    // None comes by itself.
    let place = Place::with(
        "[metrics]\naddress = \"metrics.sock\"\ncontainerd_names = true\n\
         [gc]\nstartup_delay = \"0\"\ndeletion_threshold = 1000\nmutation_threshold = 0\n\
         [log]\nformat = \"json\"\n",
    );
    let daemon = place.start();
    let channel = place.channel().await;
    collect_in_each_way(&channel).await;
    let (_, text) = get(&place.path("run/metrics.sock"), "/metrics");
    for (series, expected) in [
        ("cairn_gc_runs_total{result=\"ok\"}", 4.0),
        ("cairn_gc_runs_total{result=\"error\"}", 0.0),
        ("cairn_gc_seconds_count", 4.0),
        ("cairn_gc_pause_seconds_count", 4.0),
        ("cairn_gc_removed_total{kind=\"content\"}", 4.0),
        ("cairn_gc_freed_bytes_total", 15.0),
        ("containerd_gc_collections_total{status=\"success\"}", 4.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series} in\n{text}");
    }
    let log = daemon.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("collected garbage"));
    let asked: Vec<String> = lines
        .map(|line| {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(
                (&line["level"], &line["blobs"]),
                (&"INFO".into(), &1.into())
            );
            line["span"]["rpc"].as_str().unwrap_or_default().to_owned()
        })
        .collect();
    let expected = [
        "/containerd.services.images.v1.Images/Delete",
        "/cairn.v1.Images/Remove",
        "/containerd.services.leases.v1.Leases/Delete",
        "/cairn.v1.Store/Collect",
    ];
    assert_eq!(asked, expected, "{log}");
}

#[test]
fn a_port_of_this_machine_will_do() {
    let place = Place::new();
    let mut command = place.command();
    command.args(["--metrics-address", "127.0.0.1:0"]);
    let daemon = place.start_as(command);
    let line = daemon.logged("serving metrics at ");
    let (_, address) = line.rsplit_once(' ').unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    use std::io::{Read, Write};
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[test]
fn there_are_none_unless_wanted() {
    let place = Place::new();
    let _daemon = place.start();
    assert!(!place.path("run/metrics.sock").exists());
}
