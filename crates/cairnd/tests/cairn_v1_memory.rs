//! What archives take of memory on their way: the same, however large they are. One test, since all
//! of a process share its memory.

#![allow(missing_docs)]

mod common;

use std::{fs, time::Duration};

use cairn_proto::cairn::v1::{ExportRequest, ImportOptions, export_response};
use cairn_types::{Algorithm, Hasher};
use common::{
    Server,
    archive::{Parts, header, path},
    own::{chunk, end, in_chunks},
};

const NAME: &str = "docker.io/shop/web:1";
const MIB: usize = 1 << 20;
const LAYER_MIB: usize = 192;
/// Far more than what is on its way at a time, with what allocators keep of it; and far less than all.
const MUCH: usize = LAYER_MIB * MIB / 2;

/// A figure of this process, in bytes.
fn memory(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.expect(name).trim_matches([':', ' ', '\t', 'k', 'B']);
    figure.parse::<usize>().expect("a number") << 10
}

/// Forgets the peak so far; what is taken now.
fn forget_peak() -> usize {
    fs::write("/proc/self/clear_refs", "5").expect("root");
    memory("VmRSS")
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_pass_by_in_little_memory() {
    let server = Server::start().await;
    let client = server.client("n");
    let zeros = vec![0; MIB];
    let mut hasher = Hasher::new(Algorithm::Sha256);
    (0..LAYER_MIB).for_each(|_| hasher.update(&zeros));
    let digest = hasher.finish().to_string();
    let size = LAYER_MIB * MIB;
    let parts = Parts::new(NAME, &[(digest.clone(), size)]);

    // An import that cannot go on: nothing can be recorded, and so no upload begin.
    let (unblock, blocked) = std::sync::mpsc::channel::<()>();
    let records = server.node.meta().clone();
    let blocker = std::thread::spawn(move || {
        records.write(move |_: &mut cairn_meta::Tx<'_>| {
            let _ = blocked.recv();
            Ok::<_, cairn_meta::Error>(())
        })
    });
    let before = forget_peak();
    let with = ImportOptions {
        unpack: false,
        ..in_chunks("large")
    };
    let import = client.begin_import(with).await;
    let first = header(&path(&digest), size);
    import
        .send
        .send(chunk(first.as_bytes()))
        .await
        .expect("room");
    let mut sent = 0;
    while sent < LAYER_MIB {
        // On a machine that stands still for so long less is sent, which is no less right.
        let send = import.send.send(chunk(&zeros));
        match tokio::time::timeout(Duration::from_secs(1), send).await {
            Ok(sent) => sent.expect("the import waits"),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!(sent <= 24, "{sent} MiB were taken, and nobody read them");
    unblock.send(()).expect("the blocker waits");
    blocker.join().expect("thread").expect("nothing written");

    let rest = import.send;
    let reading = tokio::spawn(end(import.answers));
    for _ in sent..LAYER_MIB {
        rest.send(chunk(&zeros)).await.expect("the import goes on");
    }
    for (name, bytes) in &parts.files {
        rest.send(chunk(header(name, bytes.len()).as_bytes()))
            .await
            .expect("room");
        let mut bytes = bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        rest.send(chunk(&bytes)).await.expect("room");
    }
    rest.send(chunk(&[0; 1024])).await.expect("room");
    drop(rest);
    let (_, images) = reading.await.expect("task").expect("import");
    assert_eq!(images.len(), 1);
    let took = memory("VmHWM").saturating_sub(before);
    assert!(took < MUCH, "the import took {took} bytes");

    let before = forget_peak();
    let request = ExportRequest {
        names: vec![NAME.to_owned()],
        ..ExportRequest::default()
    };
    let answers = client.cairn_images().export(request).await;
    let (mut answers, mut length) = (answers.expect("answers").into_inner(), 0);
    while let Some(answer) = answers.message().await.expect("answer") {
        if let Some(export_response::Part::Chunk(chunk)) = answer.part {
            length += chunk.len();
            // Slower than anybody reads a disk.
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    assert!(length > size);
    let took = memory("VmHWM").saturating_sub(before);
    assert!(took < MUCH, "the export took {took} bytes");
}
