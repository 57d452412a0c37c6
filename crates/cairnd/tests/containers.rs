//! `Containers`: records that other programs make, list and rely on.

#![allow(missing_docs)]

mod common;

use cairn_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, GetContainerRequest, UpdateContainerRequest,
    container::Runtime,
};
use common::{Client, Server, code, map, mask};
use prost_types::Any;
use tonic::Code;

fn container() -> Container {
    Container {
        id: "c".to_owned(),
        runtime: Some(Runtime {
            name: "some.runtime".to_owned(),
            options: None,
        }),
        spec: Some(Any {
            type_url: "spec".to_owned(),
            value: b"{}".to_vec(),
        }),
        snapshotter: "overlayfs".to_owned(),
        snapshot_key: "k".to_owned(),
        labels: map(&[("color", "red")]),
        ..Container::default()
    }
}

async fn create(client: &Client, container: Container) -> Code {
    let container = Some(container);
    code(
        client
            .containers()
            .create(CreateContainerRequest { container })
            .await,
    )
}

async fn update(client: &Client, container: Container, paths: &[&str]) -> Code {
    let request = UpdateContainerRequest {
        container: Some(container),
        update_mask: mask(paths),
    };
    code(client.containers().update(request).await)
}

async fn get(client: &Client) -> Container {
    let id = "c".to_owned();
    let got = client.containers().get(GetContainerRequest { id }).await;
    got.expect("get").into_inner().container.expect("container")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_whole() {
    let server = Server::start().await;
    let client = server.client("n");
    let lacking: [fn(&mut Container); 6] = [
        |c| c.id.clear(),
        |c| c.id = "a/b".to_owned(),
        |c| c.runtime = None,
        |c| c.runtime.as_mut().expect("runtime").name.clear(),
        |c| c.spec = None,
        |c| c.snapshotter.clear(),
    ];
    for (n, lack) in lacking.into_iter().enumerate() {
        let mut container = container();
        lack(&mut container);
        assert_eq!(
            create(&client, container).await,
            Code::InvalidArgument,
            "{n}"
        );
    }
    assert_eq!(create(&client, container()).await, Code::Ok);
    assert_eq!(create(&client, container()).await, Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_leaves_runtime_and_snapshotter() {
    let server = Server::start().await;
    let client = server.client("n");
    assert_eq!(create(&client, container()).await, Code::Ok);
    let made = get(&client).await;
    let mut other = Container {
        snapshotter: "native".to_owned(),
        ..container()
    };
    assert_eq!(
        update(&client, other.clone(), &[]).await,
        Code::InvalidArgument
    );
    other.snapshotter = made.snapshotter.clone();
    other.runtime.as_mut().expect("runtime").name.push('x');
    assert_eq!(
        update(&client, other.clone(), &[]).await,
        Code::InvalidArgument
    );
    other.runtime = made.runtime.clone();
    other.spec = None;
    assert_eq!(
        update(&client, other.clone(), &[]).await,
        Code::InvalidArgument
    );
    assert_eq!(
        update(&client, other.clone(), &["spec"]).await,
        Code::InvalidArgument
    );
    assert_eq!(get(&client).await, made);
    // By a mask the rest is not looked at.
    other.snapshotter.clear();
    other.image = "i".to_owned();
    other.labels = map(&[("color", "blue"), ("size", "big")]);
    assert_eq!(
        update(&client, other, &["image", "labels.size"]).await,
        Code::Ok
    );
    let updated = get(&client).await;
    assert_eq!(updated.image, "i");
    assert_eq!(updated.labels, map(&[("color", "red"), ("size", "big")]));
    assert_eq!(updated.spec, made.spec);
}
