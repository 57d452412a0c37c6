//! `Containers`: records that other programs make, list and rely on.

use cairn_proto::containerd::{
    events::{ContainerCreate, ContainerDelete, ContainerUpdate, container_create},
    services::containers::v1::{
        Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
        UpdateContainerRequest, container::Runtime,
    },
};
use prost::Message;
use prost_types::Any;
use tonic::Code;

use crate::common::{
    Client, Server, code,
    events::{Subscription, event},
    map, mask,
};

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

/// One from its record's making to its end; what is refused meanwhile is not told of.
async fn from_making_to_end(client: &Client) {
    let mut of = container();
    of.image = "i".to_owned();
    of.runtime.as_mut().expect("runtime").options = event();
    of.snapshot_key.clear();
    assert_eq!(create(client, of.clone()).await, Code::Ok);
    assert_eq!(create(client, of.clone()).await, Code::AlreadyExists);
    of.labels = map(&[("size", "big")]);
    assert_eq!(update(client, of, &["labels.size"]).await, Code::Ok);
    let id = || "c".to_owned();
    let delete = || DeleteContainerRequest { id: id() };
    let deleted = client.containers().delete(delete()).await;
    deleted.expect("delete");
    let again = client.containers().delete(delete()).await;
    assert_eq!(code(again), Code::NotFound);
}

const CONTAINERS: [&str; 3] = [
    "/containers/create",
    "/containers/update",
    "/containers/delete",
];

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_told_of_with_what_they_are() {
    let server = Server::start().await;
    let client = server.client("n");
    let subscription = Subscription::start(&client, &[""]).await;
    from_making_to_end(&client).await;
    let all = subscription.end().await;
    let topics: Vec<&str> = all.iter().map(|e| &*e.topic).collect();
    assert_eq!(topics, CONTAINERS);
    assert!(all.iter().all(|e| e.namespace == "n"));
    let payload = |n: usize, name: &str| {
        let event: &Any = all[n].event.as_ref().expect("event");
        assert_eq!(event.type_url, format!("containerd.events.{name}"));
        &*event.value
    };
    let created = ContainerCreate {
        id: "c".to_owned(),
        image: "i".to_owned(),
        runtime: Some(container_create::Runtime {
            name: "some.runtime".to_owned(),
            options: event(),
        }),
    };
    let create = ContainerCreate::decode(payload(0, "ContainerCreate"));
    assert_eq!(create.expect("create"), created);
    let updated = ContainerUpdate {
        id: "c".to_owned(),
        image: "i".to_owned(),
        labels: map(&[("color", "red"), ("size", "big")]),
        snapshot_key: String::new(),
    };
    let update = ContainerUpdate::decode(payload(1, "ContainerUpdate"));
    assert_eq!(update.expect("update"), updated);
    let deleted = ContainerDelete { id: "c".to_owned() };
    let delete = ContainerDelete::decode(payload(2, "ContainerDelete"));
    assert_eq!(delete.expect("delete"), deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_choose_by_fields_of_containers() {
    let server = Server::start().await;
    let client = server.client("n");
    let [created, updated, _] = CONTAINERS;
    for (filter, expected) in [
        ("topic~=/containers/", CONTAINERS.to_vec()),
        ("event.id==c", CONTAINERS.to_vec()),
        ("event.image==i", vec![created, updated]),
        ("event.runtime.name==some.runtime", vec![created]),
        (
            "event.runtime.name!=some.runtime",
            vec![updated, "/containers/delete"],
        ),
        ("event.labels.color==red", vec![updated]),
        // It has none, and what is empty is not there.
        ("event.snapshot_key", vec![]),
        ("event.id==d", vec![]),
    ] {
        let subscription = Subscription::start(&client, &[filter]).await;
        from_making_to_end(&client).await;
        assert_eq!(subscription.topics().await, expected, "{filter}");
    }
}
