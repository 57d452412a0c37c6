//! The streams of `cairn.v1.Images` with clients that go away or do not read.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use crate::common::{
    Client, Server,
    archive::{Archive, Parts, header, path},
    code,
    layer::Layer,
    own::{by_path, chunk, end, in_chunks, options},
    sha256,
};
use cairn_proto::{
    cairn::v1::{
        ExportRequest, ImportOptions, Phase, export_response, images_client::ImagesClient,
        import_response, progress::Event,
    },
    containerd::services::content::v1::ListStatusesRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, transport::Endpoint};

const NAME: &str = "docker.io/shop/web:1";

/// Looks again and again; only a test that fails waits to the end.
macro_rules! until {
    ($what:literal, $is:expr) => {{
        let mut tries = 0;
        while !$is {
            tries += 1;
            assert!(tries < 6000, "it never came true: {}", $what);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }};
}

/// Bytes of the uploads under way.
async fn uploads(client: &Client) -> Vec<i64> {
    let request = ListStatusesRequest { filters: vec![] };
    let answer = client.content().list_statuses(request).await;
    let statuses = answer.expect("statuses").into_inner().statuses;
    statuses.into_iter().map(|status| status.offset).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_is_given_up_keeps_what_is_whole() {
    let server = Server::start().await;
    let client = server.client("n");
    let small = Layer::new().file("small", "").bytes();
    let large = Layer::new().file("large", &"x".repeat(4 << 20)).bytes();
    let archive = Archive::new(NAME, &[small, large]);
    let import = client.begin_import(in_chunks("web")).await;
    let part = &archive.bytes[..archive.ends[0] + (2 << 20)];
    for bytes in part.chunks(100_000) {
        import
            .send
            .send(chunk(bytes))
            .await
            .expect("the import goes on");
    }
    until!(
        "the small layer is here",
        client.has(&archive.layers[0]).await
    );
    until!(
        "the large layer is under way",
        !uploads(&client).await.is_empty()
    );
    drop(import);
    until!("the upload ended", uploads(&client).await.is_empty());
    assert!(client.has(&archive.layers[0]).await);
    assert!(!client.has(&archive.layers[1]).await);
    assert_eq!(code(client.image(NAME).await), Code::NotFound);
    // When nobody works on it any more, nobody needs that layer.
    until!("the layer is garbage", client.collect().await == 1);
    let image = client.import(&archive).await;
    assert_eq!(image.target.expect("target").digest, archive.manifest);
}

/// The layer is four gigabytes of nothing, and its digest that of something else; nobody is to find
/// that out.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_a_file_ends_with_its_client() {
    const SIZE: usize = 4 << 30;
    let server = Server::start().await;
    let client = server.client("n");
    let digest = sha256(b"something else");
    let file = server.path("sparse.tar");
    let mut tar = File::create(&file).expect("file");
    let mut add = |name: &str, size: usize, bytes: &[u8]| {
        tar.write_all(header(name, size).as_bytes())
            .expect("header");
        tar.write_all(bytes).expect("data");
        let rest = size.next_multiple_of(512) - bytes.len();
        let rest = i64::try_from(rest).expect("small");
        tar.seek(SeekFrom::Current(rest)).expect("seek")
    };
    add(&path(&digest), SIZE, b"");
    let mut length = 0;
    for (name, bytes) in Parts::new(NAME, &[(digest, SIZE)]).files {
        length = add(&name, bytes.len(), &bytes);
    }
    tar.set_len(length + 1024).expect("the end of the archive");
    let with = ImportOptions {
        unpack: false,
        ..by_path(&file)
    };
    let mut import = client.begin_import(with).await;
    let is_fetching = |part: Option<import_response::Part>| match part {
        Some(import_response::Part::Progress(progress)) => matches!(
            progress.event,
            Some(Event::Layer(layer)) if layer.phase() == Phase::Fetch
        ),
        part => panic!("{part:?}"),
    };
    while !is_fetching(
        import
            .answers
            .message()
            .await
            .expect("answer")
            .expect("one")
            .part,
    ) {}
    drop(import);
    let mut stored = 0;
    until!("the upload ended", {
        let now = uploads(&client).await;
        stored = now.first().copied().unwrap_or(stored);
        now.is_empty()
    });
    assert!(stored < 1 << 30, "it went on to {stored} bytes");
}

/// A client that sends an archive and reads nothing.
#[tokio::test(flavor = "multi_thread")]
async fn work_does_not_wait_for_its_reader() {
    let server = Server::start().await;
    let client = server.client("n");
    let layer = |number| Layer::new().file(&format!("f{number}"), "").bytes();
    let layers: Vec<_> = (0..300).map(layer).collect();
    let archive = Archive::new(NAME, &layers);
    // As little room on the way as HTTP/2 allows, which the events do not fit in.
    let uri = format!("unix://{}", server.path("sock").display());
    let endpoint = Endpoint::from_shared(uri).expect("address");
    let endpoint = endpoint.initial_stream_window_size(65_535);
    let channel = endpoint.connect().await.expect("connection");
    let (send, receive) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(receive));
    let headers = request.metadata_mut();
    headers.insert("containerd-namespace", "n".parse().expect("header"));
    let mut images = ImagesClient::new(channel);
    let import = tokio::spawn(async move { images.import(request).await });
    send.send(options(in_chunks("web"))).await.expect("room");
    let answers = import.await.expect("task").expect("answers").into_inner();
    for bytes in archive.bytes.chunks(1 << 18) {
        send.send(chunk(bytes)).await.expect("the import goes on");
    }
    drop(send);
    until!("the image is here", client.image(NAME).await.is_ok());
    let (events, images) = end(answers).await.expect("import");
    assert_eq!(images.len(), 1);
    let mut done = Vec::new();
    for event in &events {
        match event {
            Event::Layer(layer) if layer.phase() == Phase::Done => done.push(&layer.digest),
            _ => {}
        }
    }
    done.sort();
    let mut expected: Vec<&String> = archive.layers.iter().collect();
    expected.sort();
    assert_eq!(done, expected);
    assert!(matches!(events.last(), Some(Event::Done(_))));
}

/// Whether this process has a file below `dir` open.
fn is_open(dir: &Path) -> bool {
    let mut all = fs::read_dir("/proc/self/fd").expect("files").flatten();
    all.any(|fd| {
        let target = fs::read_link(fd.path());
        // A file of another test may be closed in between.
        target.is_ok_and(|target| target.starts_with(dir))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_ends_with_its_reader() {
    let server = Server::start().await;
    let client = server.client("n");
    let archive = Archive::new(NAME, &[vec![7; 32 << 20]]);
    let with = ImportOptions {
        unpack: false,
        ..in_chunks("web")
    };
    let imported = client.import_chunks(with, &archive.bytes, 1 << 20).await;
    imported.expect("import");
    let layer = archive.layers[0].trim_start_matches("sha256:");
    let blob = server.path("root/content/blobs/sha256").join(layer);
    assert!(blob.exists());
    let request = ExportRequest {
        names: vec![NAME.to_owned()],
        ..ExportRequest::default()
    };
    let answers = client.cairn_images().export(request).await;
    let mut answers = answers.expect("answers").into_inner();
    loop {
        let answer = answers.message().await.expect("answer").expect("one");
        if let Some(export_response::Part::Chunk(_)) = answer.part {
            break;
        }
    }
    // Far more is left than all that is on its way, so it stops there.
    until!("the layer is read", is_open(&blob));
    drop(answers);
    until!("nobody reads any more", !is_open(&blob));
}
