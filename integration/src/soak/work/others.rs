//! Namespaces, events, leases, listings, and what several want at once.

use std::time::Duration;

use cairn_proto::containerd::services::{
    content::v1::{ListContentRequest, ListStatusesRequest},
    events::v1::{PublishRequest, SubscribeRequest},
    images::v1::ListImagesRequest,
    leases::v1::{
        AddResourceRequest, CreateRequest, DeleteRequest, DeleteResourceRequest, ListRequest,
        ListResourcesRequest, Resource,
    },
    namespaces::v1::{
        CreateNamespaceRequest, DeleteNamespaceRequest, ListNamespacesRequest, Namespace,
    },
    snapshots::v1::ListSnapshotsRequest,
};
use prost_types::Any;
use tonic::{Code, Status, Streaming};

use super::{
    super::{
        api::{Verdict, check, good, map, refused, told},
        client::Desk,
    },
    content, images, snapshots,
};

/// Names that several clients use at once.
const RIVALS: usize = 3;
/// Within this an event reaches whoever listens.
const HEARD: Duration = Duration::from_secs(30);

/// Cannot be removed while anything is in it.
pub(super) async fn namespace(desk: &mut Desk) -> Verdict {
    let name = format!("ns-{}", desk.name);
    let api = desk.api.clone();
    let request = || CreateNamespaceRequest {
        namespace: Some(Namespace {
            name: name.clone(),
            labels: map(&[("soak", "1")]),
        }),
    };
    good("create", api.namespaces().create(request()).await)?;
    let again = api.namespaces().create(request()).await;
    refused("create again", again, Code::AlreadyExists)?;
    let inside = api.within(&name);
    let lease = CreateRequest {
        id: "l".to_owned(),
        ..CreateRequest::default()
    };
    good("create lease", inside.leases().create(lease).await)?;
    let bytes = desk.noise(100);
    let outside = std::mem::replace(&mut desk.api, inside.under("l"));
    let put = content::put(desk, &bytes, &[]).await;
    desk.api = outside;
    put?;
    let removal = || DeleteNamespaceRequest { name: name.clone() };
    let full = api.namespaces().delete(removal()).await;
    refused("remove with a blob", full, Code::FailedPrecondition)?;
    let request = DeleteRequest {
        id: "l".to_owned(),
        sync: true,
    };
    good("delete lease", inside.leases().delete(request).await)?;
    good("remove", api.namespaces().delete(removal()).await)?;
    // To get one that is not there is no error in containerd; to remove it is.
    let again = api.namespaces().delete(removal()).await;
    refused("remove again", again, Code::NotFound)
}

/// What is published reaches whoever subscribed before.
pub(super) async fn event(desk: &mut Desk) -> Verdict {
    let topic = format!("/soak/{}", desk.name);
    let request = SubscribeRequest {
        filters: vec![format!("topic=={topic:?}")],
    };
    let mut events = good("subscribe", desk.api.events().subscribe(request).await)?;
    for number in 0..5_u8 {
        let request = PublishRequest {
            topic: topic.clone(),
            event: Some(Any {
                type_url: "soak".to_owned(),
                value: vec![number],
            }),
        };
        good("publish", desk.api.events().publish(request).await)?;
    }
    for number in 0..5_u8 {
        let heard = tokio::time::timeout(HEARD, events.message()).await;
        let heard = heard.map_err(|_| format!("event {number} was not heard"))?;
        let envelope = heard.map_err(|status| told("hear", &status))?;
        let envelope = envelope.ok_or_else(|| "the subscription ended".to_owned())?;
        let value = envelope.event.map(|event| event.value);
        check(
            envelope.topic == topic && value.as_deref() == Some(&[number]),
            || format!("heard {} {value:?}, not {topic} {number}", envelope.topic),
        )?;
        check(envelope.namespace == desk.api.ns(), || {
            format!("an event of {}", envelope.namespace)
        })?;
    }
    Ok(())
}

/// What it holds stays; what it lets go of is collected.
pub(super) async fn lease(desk: &mut Desk) -> Verdict {
    let bytes = desk.noise(300);
    let blob = content::put(desk, &bytes, &[]).await?;
    let api = desk.api.within(desk.api.ns());
    let id = format!("{}-second", desk.name);
    let create = || CreateRequest {
        id: id.clone(),
        labels: map(&[("soak", "1")]),
    };
    good("create", api.leases().create(create()).await)?;
    let again = api.leases().create(create()).await;
    refused("create again", again, Code::AlreadyExists)?;
    let resource = Resource {
        id: blob.clone(),
        r#type: "content".to_owned(),
    };
    let request = AddResourceRequest {
        id: id.clone(),
        resource: Some(resource.clone()),
    };
    good("add", api.leases().add_resource(request).await)?;
    let request = ListResourcesRequest { id: id.clone() };
    let held = good("resources", api.leases().list_resources(request).await)?;
    check(held.resources == [resource.clone()], || {
        format!("it holds {:?}", held.resources)
    })?;
    // Of the two that hold it the first goes.
    let own = DeleteResourceRequest {
        id: format!("lease-{}", desk.name),
        resource: Some(resource),
    };
    good("let go", api.leases().delete_resource(own).await)?;
    check(content::exists(&api, &blob).await?, || {
        "a blob that a lease holds was collected".to_owned()
    })?;
    let request = DeleteRequest { id, sync: true };
    good("delete", api.leases().delete(request).await)?;
    check(!content::exists(&api, &blob).await?, || {
        "a blob that nothing holds outlived a collection".to_owned()
    })
}

/// To the end of a listing; how many messages it had.
async fn drain<T>(what: &str, listed: Result<tonic::Response<Streaming<T>>, Status>) -> Verdict {
    let mut listed = good(what, listed)?;
    while let Some(_batch) = listed
        .message()
        .await
        .map_err(|status| told(what, &status))?
    {}
    Ok(())
}

/// Every listing there is.
pub(super) async fn look(desk: &mut Desk) -> Verdict {
    let api = &desk.api;
    let version = good("version", api.version().version(()).await)?;
    check(!version.version.is_empty(), || "no version".to_owned())?;
    let request = ListContentRequest::default();
    drain("list content", api.content().list(request).await).await?;
    let request = ListSnapshotsRequest {
        snapshotter: "overlayfs".to_owned(),
        ..ListSnapshotsRequest::default()
    };
    drain("list snapshots", api.snapshots().list(request).await).await?;
    let request = ListStatusesRequest::default();
    good("list uploads", api.content().list_statuses(request).await)?;
    let request = ListImagesRequest::default();
    good("list images", api.images().list(request).await)?;
    let request = ListRequest::default();
    let leases = good("list leases", api.leases().list(request).await)?.leases;
    let own = format!("lease-{}", desk.name);
    check(leases.iter().any(|lease| lease.id == own), || {
        "a lease in use is not listed".to_owned()
    })?;
    let request = ListNamespacesRequest::default();
    let spaces = good("list namespaces", api.namespaces().list(request).await)?;
    let found = spaces.namespaces.iter().any(|ns| ns.name == api.ns());
    check(found, || "a namespace in use is not listed".to_owned())
}

/// The same names in several clients' hands at once.
pub(super) async fn rivals(desk: &mut Desk) -> Verdict {
    let number = desk.dice.roll(RIVALS);
    for _ in 0..4 {
        match desk.dice.roll(3) {
            0 => content::contend(desk, &format!("rival-{number}")).await?,
            1 => snapshots::contend(desk, &format!("rival-{number}")).await?,
            _ => images::contend(desk, &format!("soak.test/rival:{number}")).await?,
        }
    }
    Ok(())
}
