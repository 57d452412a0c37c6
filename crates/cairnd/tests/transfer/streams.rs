//! Streams by themselves, and bytes that go through them.

use std::time::Duration;

use cairn_proto::containerd::{
    services::{
        leases::v1::{CreateRequest, DeleteRequest},
        streaming::v1::StreamInit,
        transfer::v1::TransferRequest,
    },
    types::transfer::{
        Data, ImageExportStream, ImageImportStream, ImageStore, OciRegistry, WindowUpdate,
    },
};
use tonic::Code;

use crate::common::{
    Client, Server, code, map,
    transfer::{Stream, pack},
};

/// Opens a stream as soon as its id is free; only a test that fails waits to the end.
async fn reopened(client: &Client, id: &str) -> Stream {
    for _ in 0..6000 {
        match client.stream(id).await {
            Ok(stream) => return stream,
            Err(status) => assert_eq!(status.code(), Code::AlreadyExists),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} never came free");
}

pub(crate) fn import(stream: &str) -> ImageImportStream {
    ImageImportStream {
        stream: stream.to_owned(),
        ..ImageImportStream::default()
    }
}

pub(crate) fn export(stream: &str) -> ImageExportStream {
    ImageExportStream {
        stream: stream.to_owned(),
        ..ImageExportStream::default()
    }
}

/// The code with which a transfer is refused.
async fn refused(client: &Client, from: &str, to: &str) -> Code {
    code(client.transfer(&import(from), &export(to), "").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_is_one_streams_within_its_namespace() {
    let server = Server::start().await;
    let client = server.client("n");
    let first = client.stream("s").await.expect("a stream");
    assert_eq!(code(client.stream("s").await), Code::AlreadyExists);
    // Also for one that is in no namespace.
    let other = server.client("m").stream("s").await;
    let nowhere = server.nobody().stream("s").await;
    assert!(other.is_ok() && nowhere.is_ok());
    drop(first);
    reopened(&client, "s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_its_id() {
    let server = Server::start().await;
    let client = server.client("n");
    let wrong = pack(&Data { data: vec![1] });
    let mut damaged = pack(&StreamInit::default());
    damaged.value = vec![0xff];
    for messages in [vec![], vec![wrong], vec![damaged]] {
        let refusal = client.stream_with(messages).await;
        assert_eq!(code(refusal), Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_finds_its_streams_by_their_ids() {
    let server = Server::start().await;
    let client = server.client("n");
    assert_eq!(refused(&client, "i", "e").await, Code::NotFound);
    let _import = client.stream("i").await.expect("a stream");
    assert_eq!(refused(&client, "i", "e").await, Code::NotFound);
    // It was the transfer's, and ended with it.
    let _import = reopened(&client, "i").await;
    let _export = client.stream("e").await.expect("a stream");
    assert_eq!(refused(&server.client("m"), "i", "e").await, Code::NotFound);
    let untold = client.transfer(&import("i"), &export("e"), "p").await;
    assert_eq!(code(untold), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_transfer_is_for_is_not_implemented() {
    let server = Server::start().await;
    let client = server.client("n");
    let (store, registry) = (ImageStore::default(), OciRegistry::default());
    let answers = [
        client.transfer(&registry, &registry, "").await,
        client.transfer(&registry, &export("e"), "").await,
        client.transfer(&import("i"), &registry, "").await,
        client.transfer(&export("e"), &store, "").await,
        client.transfer(&WindowUpdate::default(), &store, "").await,
    ];
    for answer in answers {
        assert_eq!(code(answer), Code::Unimplemented);
    }
    let answer = client
        .transfers()
        .transfer(TransferRequest::default())
        .await;
    assert_eq!(code(answer), Code::InvalidArgument, "neither end");
    let nobody = server.nobody().transfer(&store, &store, "").await;
    assert_eq!(code(nobody), Code::FailedPrecondition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_lease() {
    let server = Server::start().await;
    let client = server.client("n");
    let leased = client.leased("l").await;
    let mut held = leased.stream("held").await.expect("a stream");
    let other = client.leased("m").await.stream("other").await;
    let free = client.stream("free").await;
    assert!(other.is_ok() && free.is_ok());
    let request = DeleteRequest {
        id: "l".to_owned(),
        sync: true,
    };
    client.leases().delete(request).await.expect("delete");
    assert_eq!(held.next::<Data>().await, None);
    assert!(client.stream("held").await.is_ok());
    for id in ["other", "free"] {
        assert_eq!(code(client.stream(id).await), Code::AlreadyExists, "{id}");
    }
}

/// Makes a lease that ends then, and a client under it.
async fn expiring(client: &Client, lease: &str, end: jiff::Timestamp) -> Client {
    let request = CreateRequest {
        id: lease.to_owned(),
        labels: map(&[("containerd.io/gc.expire", &end.to_string())]),
    };
    client.leases().create(request).await.expect("lease");
    client.under(lease)
}

/// Nobody asks for a collection here, and none is due.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_when_its_lease_expires() {
    let server = Server::start().await;
    let client = server.client("n");
    let end = jiff::Timestamp::now() + Duration::from_secs(2);
    let later = end + Duration::from_secs(3600);
    let (soon, late) = (
        expiring(&client, "soon", end).await,
        expiring(&client, "late", later).await,
    );
    let _late = late.stream("late").await.expect("a stream");
    let mut first = soon.stream("first").await.expect("a stream");
    // What a transfer has taken by then is that transfer's.
    let mut send = soon.stream("i").await.expect("a stream");
    let receive = soon.stream("e").await.expect("a stream");
    let echo = tokio::spawn({
        let client = client.clone();
        async move { client.transfer(&import("i"), &export("e"), "").await }
    });
    assert!(send.next::<WindowUpdate>().await.is_some());
    assert_eq!(first.next::<Data>().await, None);
    reopened(&client, "first").await;
    assert_eq!(code(client.stream("late").await), Code::AlreadyExists);
    let data = b"bytes".to_vec();
    send.send(&Data { data }).await;
    send.send = None;
    assert_eq!(receive.receive_all().await, b"bytes");
    echo.await.expect("task").expect("transfer");
    // One whose time is over ends at once, and none is opened under a lease that is not there.
    let mut over = soon.stream("over").await.expect("a stream");
    assert_eq!(over.next::<Data>().await, None);
    assert_eq!(code(client.under("none").stream("s").await), Code::NotFound);
    client.stream("s").await.expect("it is free");
}

/// As containerd's own test of it (`TestTransferEcho`).
#[tokio::test(flavor = "multi_thread")]
async fn bytes_come_back_as_they_went() {
    let server = Server::start().await;
    let client = server.client("n");
    let large = b"somecontent".repeat(200 << 10);
    for bytes in [&large[..], &large[..17 * 11 * 1024], b"somecontent", b""] {
        let send = client.stream("i").await.expect("a stream");
        let receive = client.stream("e").await.expect("a stream");
        let (from, to) = (import("i"), export("e"));
        let (done, (), received) = tokio::join!(
            client.transfer(&from, &to, ""),
            send.send_all(bytes),
            receive.receive_all(),
        );
        done.expect("transfer");
        assert!(received == bytes, "{} bytes", bytes.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_sent_than_was_granted() {
    let server = Server::start().await;
    let client = server.client("n");
    let send = client.stream("i").await.expect("a stream");
    let mut receive = client.stream("e").await.expect("a stream");
    let receiving = async {
        let mut all = Vec::new();
        for window in [1_usize, 40_000, 7, 100_000] {
            let update = i32::try_from(window).expect("small");
            receive.send(&WindowUpdate { update }).await;
            let mut left = window;
            while left > 0 {
                let Data { data } = receive.next().await.expect("data");
                assert!(data.len() <= left, "{} of {left}", data.len());
                left -= data.len();
                all.extend(data);
            }
        }
        // What takes room away gives none.
        receive.send(&WindowUpdate { update: -5 }).await;
        receive.send(&WindowUpdate { update: 10 }).await;
        let Data { data } = receive.next().await.expect("data");
        assert!(data.len() <= 10);
        drop(receive);
        all
    };
    let bytes = vec![7; 1 << 20];
    let (from, to) = (import("i"), export("e"));
    let (done, (), received) = tokio::join!(
        client.transfer(&from, &to, ""),
        send.send_all(&bytes),
        receiving,
    );
    assert_eq!(received.len(), 140_008);
    assert_eq!(code(done), Code::Cancelled, "nobody takes the rest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_given_up_lets_go_of_its_streams() {
    let server = Server::start().await;
    let client = server.client("n");
    let mut send = client.stream("i").await.expect("a stream");
    let mut receive = client.stream("e").await.expect("a stream");
    let other = client.clone();
    let transfer = tokio::spawn(async move {
        let (from, to) = (import("i"), export("e"));
        other.transfer(&from, &to, "").await
    });
    // It is under way: this is what it grants.
    assert!(send.next::<WindowUpdate>().await.is_some());
    send.send(&Data { data: vec![1; 9] }).await;
    transfer.abort();
    receive.closed().await;
    send.closed().await;
    reopened(&client, "i").await;
    reopened(&client, "e").await;
}
