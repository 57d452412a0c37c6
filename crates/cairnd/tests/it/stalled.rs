//! Clients that ask and do not listen: they take no thread from others, and no memory without end.

use cairn_meta::Timestamp;
use cairn_node::events::{Event, What};
use cairn_proto::containerd::services::{
    content::v1::ReadContentRequest, events::v1::SubscribeRequest,
};
use cairn_types::Namespace;
use tonic::Code;

use crate::common::Server;

/// More than the server's runtime has threads for work that waits.
const READERS: usize = 12;
const THREADS: usize = 4;

#[test]
fn readers_that_stop_reading_hold_nobody_up() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(THREADS)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let server = Server::start().await;
        let client = server.client("ns");
        let bytes = vec![5; 6 << 20];
        let digest = client.put_bytes(&bytes, &[]).await;
        let mut stalled = Vec::new();
        for _ in 0..READERS {
            let client = server.apart("ns").await;
            let request = ReadContentRequest {
                digest: digest.clone(),
                ..ReadContentRequest::default()
            };
            let answers = client.content().read(request).await.expect("read");
            stalled.push(answers.into_inner());
        }
        // Each has its first bytes, and does not take the rest.
        for answers in &mut stalled {
            answers.message().await.expect("bytes").expect("bytes");
        }
        let other = client.put("another", &[]).await;
        assert!(client.has(&other).await);
        // They get what they came for when they go on.
        let mut rest = stalled.pop().expect("a reader");
        let mut read = 0;
        while let Some(answer) = rest.message().await.expect("bytes") {
            read = usize::try_from(answer.offset).expect("offset") + answer.data.len();
        }
        assert_eq!(read, bytes.len());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_falls_behind_is_told_so() {
    let server = Server::start().await;
    let client = server.client("ns");
    let subscribe = || async {
        let request = SubscribeRequest {
            filters: vec!["topic==\"/crowd\"".to_owned()],
        };
        let events = client.events().subscribe(request).await.expect("subscribe");
        events.into_inner()
    };
    let mut slow = subscribe().await;
    let ns = Namespace::parse("ns").expect("namespace");
    let event = |number: usize| Event {
        ns: ns.clone(),
        at: Timestamp::now(),
        what: What::Published {
            topic: "/crowd".to_owned(),
            type_url: "number".to_owned(),
            // So large that what lies in the connection is little beside what has to be kept.
            value: number.to_le_bytes().repeat(100),
        },
    };
    for number in 0..20_000 {
        server.node.happened(event(number));
    }
    let mut heard = 0;
    let end = loop {
        match slow.message().await {
            Ok(Some(envelope)) => {
                let value = envelope.event.expect("event").value;
                assert_eq!(value[..8], usize::to_le_bytes(heard), "in order");
                heard += 1;
            }
            Ok(None) => panic!("it ended without a word after {heard}"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    assert!((8192..20_000).contains(&heard), "{heard}");
    // The next one hears again.
    let mut again = subscribe().await;
    server.node.happened(event(0));
    let envelope = again.message().await.expect("an event");
    assert_eq!(envelope.expect("an event").topic, "/crowd");
}
