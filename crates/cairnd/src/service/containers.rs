//! `Containers`: records only. What clients describe is kept as they sent it.

use std::{borrow::Cow, pin::Pin};

use cairn_meta::ContainerRecord;
use cairn_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, CreateContainerResponse, DeleteContainerRequest,
    GetContainerRequest, GetContainerResponse, ListContainerMessage, ListContainersRequest,
    ListContainersResponse, UpdateContainerRequest, UpdateContainerResponse,
    containers_server::Containers,
};
use cairn_types::{
    ErrorKind, Namespace,
    filter::{self, Fields, Filters},
};
use prost::Message;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller,
    calls::about,
    convert::{self, Change},
    status::{blocking, missing, of, of_failure, with},
};

struct Filtered<'c>(&'c Container);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match &*path[0] {
            "id" => Some(Cow::Borrowed(&self.0.id)),
            "image" => Some(Cow::Borrowed(&self.0.image)),
            "runtime" => {
                let runtime = self.0.runtime.as_ref()?;
                (path.get(1)? == "name").then(|| Cow::Borrowed(&*runtime.name))
            }
            "labels" => filter::label(&self.0.labels, &path[1..]),
            _ => None,
        }
    }
}

fn wire(id: String, record: ContainerRecord) -> Result<Container, Status> {
    let document = Container::decode(&*record.document);
    let container = document.map_err(|err| {
        with(
            ErrorKind::DataLoss,
            format!("record of container {id}: {err}"),
        )
    })?;
    Ok(Container {
        id,
        labels: record.labels,
        created_at: Some(convert::time(record.created_at)),
        updated_at: Some(convert::time(record.updated_at)),
        ..container
    })
}

fn record(container: Container) -> ContainerRecord {
    ContainerRecord {
        labels: container.labels.clone(),
        snapshotter: container.snapshotter.clone(),
        snapshot_key: container.snapshot_key.clone(),
        image: container.image.clone(),
        document: container.encode_to_vec(),
        ..ContainerRecord::default()
    }
}

/// What a record must have, though nothing here runs it: other programs rely on what containerd keeps
/// (`core/metadata/containers.go`).
fn check(container: &Container) -> Result<(), Status> {
    let runtime = container.runtime.as_ref();
    let lacks = if runtime.is_none_or(|runtime| runtime.name.is_empty()) {
        "a runtime"
    } else if container.spec.is_none() {
        "a spec"
    } else if !container.snapshot_key.is_empty() && container.snapshotter.is_empty() {
        "the snapshotter of its snapshot"
    } else if container.extensions.contains_key("") {
        "the name of an extension"
    } else {
        return Ok(());
    };
    let id = &container.id;
    Err(with(
        ErrorKind::InvalidArgument,
        format!("container {id} lacks {lacks}"),
    ))
}

/// Who replaces everything may not replace what is for good.
fn check_kept(known: &Container, wanted: &Container) -> Result<(), Status> {
    let runtime = |container: &Container| {
        let runtime = container.runtime.as_ref();
        runtime.map(|runtime| runtime.name.clone())
    };
    let changed = if known.snapshotter != wanted.snapshotter {
        "snapshotter"
    } else if runtime(known).unwrap_or_default() != runtime(wanted).unwrap_or_default() {
        "runtime"
    } else {
        return Ok(());
    };
    let id = &known.id;
    Err(with(
        ErrorKind::InvalidArgument,
        format!("the {changed} of container {id} cannot be changed"),
    ))
}

impl Service {
    async fn listed(&self, ns: Namespace, filters: Vec<String>) -> Result<Vec<Container>, Status> {
        let node = self.node.clone();
        let filters = Filters::parse(&filters).map_err(|err| of(&err))?;
        let all = blocking(move || node.containers(&ns).map_err(of_failure)).await?;
        let mut shown = Vec::new();
        for (id, record) in all {
            let container = wire(id, record)?;
            if filters.pass(&Filtered(&container)) {
                shown.push(container);
            }
        }
        Ok(shown)
    }
}

#[tonic::async_trait]
impl Containers for Service {
    type ListStreamStream =
        Pin<Box<dyn Stream<Item = Result<ListContainerMessage, Status>> + Send>>;

    async fn get(
        &self,
        request: Request<GetContainerRequest>,
    ) -> Result<Response<GetContainerResponse>, Status> {
        let ns = caller::of(&request)?.ns;
        let id = request.into_inner().id;
        about("container", &id);
        let container = self.look(move |node| {
            let record = node.container(&ns, &id).map_err(of_failure)?;
            wire(id, record)
        });
        Ok(Response::new(GetContainerResponse {
            container: Some(container.await?),
        }))
    }

    async fn list(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let ns = caller::of(&request)?.ns;
        let containers = self.listed(ns, request.into_inner().filters).await?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn list_stream(
        &self,
        request: Request<ListContainersRequest>,
    ) -> Result<Response<Self::ListStreamStream>, Status> {
        let ns = caller::of(&request)?.ns;
        let containers = self.listed(ns, request.into_inner().filters).await?;
        let messages = containers.into_iter().map(|container| {
            Ok(ListContainerMessage {
                container: Some(container),
            })
        });
        let messages: Vec<_> = messages.collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn create(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<CreateContainerResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let container = request
            .into_inner()
            .container
            .ok_or_else(|| missing("container"))?;
        let id = container.id.clone();
        about("container", &id);
        // Ids obey the rule of namespaces (containerd `pkg/identifiers`).
        convert::name(Namespace::parse(&id))?;
        check(&container)?;
        let made = blocking(move || {
            let record = node
                .container_create(&ns, &id, record(container))
                .map_err(of_failure)?;
            wire(id, record)
        });
        Ok(Response::new(CreateContainerResponse {
            container: Some(made.await?),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateContainerRequest>,
    ) -> Result<Response<UpdateContainerResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let request = request.into_inner();
        let wanted = request.container.ok_or_else(|| missing("container"))?;
        let fields = [
            "labels",
            "spec",
            "extensions",
            "image",
            "snapshot_key",
            "snapshotkey",
        ];
        let change = convert::mask(request.update_mask, &fields, &["labels", "extensions"])?;
        let id = wanted.id.clone();
        about("container", &id);
        let updated = blocking(move || {
            let known = node.container(&ns, &id).map_err(of_failure)?;
            let known = wire(id.clone(), known)?;
            if change == Change::All {
                check_kept(&known, &wanted)?;
            }
            let changed = changed(known, wanted, &change);
            check(&changed)?;
            let record = node
                .container_update(&ns, &id, record(changed))
                .map_err(of_failure)?;
            wire(id, record)
        });
        Ok(Response::new(UpdateContainerResponse {
            container: Some(updated.await?),
        }))
    }

    async fn delete(
        &self,
        request: Request<DeleteContainerRequest>,
    ) -> Result<Response<()>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let id = request.into_inner().id;
        about("container", &id);
        blocking(move || node.container_delete(&ns, &id).map_err(of_failure)).await?;
        Ok(Response::new(()))
    }
}

fn changed(mut known: Container, wanted: Container, change: &Change) -> Container {
    change.apply("labels", &mut known.labels, &wanted.labels);
    if change.has("spec") {
        known.spec = wanted.spec;
    }
    if change.has("image") {
        known.image = wanted.image;
    }
    if change.has("snapshot_key") || change.has("snapshotkey") {
        known.snapshot_key = wanted.snapshot_key;
    }
    if change.has("extensions") {
        known.extensions.clone_from(&wanted.extensions);
    }
    if let Change::Paths { keys, .. } = change {
        for (_, key) in keys.iter().filter(|(map, _)| map == "extensions") {
            match wanted.extensions.get(key) {
                Some(value) => known.extensions.insert(key.clone(), value.clone()),
                None => known.extensions.remove(key),
            };
        }
    }
    known
}
