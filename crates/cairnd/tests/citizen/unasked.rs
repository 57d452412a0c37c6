//! What happens without a call.

use cairn_proto::containerd::services::content::v1::{InfoRequest, content_client::ContentClient};
use tonic::{Code, transport::Channel};

use crate::daemon::{PATIENCE, Place, put, request};

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
