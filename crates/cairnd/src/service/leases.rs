//! `Leases`.

use std::borrow::Cow;

use cairn_node::LeaseInfo;
use cairn_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResourceRequest, Lease,
    ListRequest, ListResourcesRequest, ListResourcesResponse, ListResponse, Resource,
    leases_server::Leases,
};
use cairn_types::{
    LeaseId,
    filter::{self, Fields, Filters},
};
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller, convert,
    status::{blocking, missing, of, of_failure},
};

struct Filtered<'l>(&'l LeaseInfo);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match &*path[0] {
            "id" => Some(Cow::Borrowed(self.0.id.as_str())),
            "labels" => filter::label(&self.0.labels, &path[1..]),
            _ => None,
        }
    }
}

fn wire(info: LeaseInfo) -> Lease {
    Lease {
        id: info.id.to_string(),
        created_at: Some(convert::time(info.created_at)),
        labels: info.labels,
    }
}

#[tonic::async_trait]
impl Leases for Service {
    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let request = request.into_inner();
        let id = match request.id.is_empty() {
            true => None,
            false => Some(convert::name(LeaseId::parse(&request.id))?),
        };
        let made = blocking(move || {
            node.lease_create(&ns, id, request.labels)
                .map_err(of_failure)
        });
        Ok(Response::new(CreateResponse {
            lease: Some(wire(made.await?)),
        }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<()>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let request = request.into_inner();
        let id = convert::name(LeaseId::parse(&request.id))?;
        let streams = self.streams.clone();
        blocking(move || {
            node.lease_delete(&ns, &id).map_err(of_failure)?;
            streams.let_go(ns.as_str(), id.as_str());
            if request.sync {
                node.gc(false).map_err(of_failure)?;
            }
            Ok(())
        })
        .await?;
        Ok(Response::new(()))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let filters = Filters::parse(&request.into_inner().filters).map_err(|err| of(&err))?;
        let leases = blocking(move || node.leases(&ns).map_err(of_failure)).await?;
        let shown = leases
            .into_iter()
            .filter(|info| filters.pass(&Filtered(info)));
        Ok(Response::new(ListResponse {
            leases: shown.map(wire).collect(),
        }))
    }

    async fn add_resource(
        &self,
        request: Request<AddResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = caller::of(&request)?.ns;
        let request = request.into_inner();
        self.resource(ns, request.id, request.resource, true).await
    }

    async fn delete_resource(
        &self,
        request: Request<DeleteResourceRequest>,
    ) -> Result<Response<()>, Status> {
        let ns = caller::of(&request)?.ns;
        let request = request.into_inner();
        self.resource(ns, request.id, request.resource, false).await
    }

    async fn list_resources(
        &self,
        request: Request<ListResourcesRequest>,
    ) -> Result<Response<ListResourcesResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let id = convert::known(LeaseId::parse(&request.into_inner().id))?;
        let held = blocking(move || node.lease_resources(&ns, &id).map_err(of_failure)).await?;
        let resources = held.into_iter().map(|(r#type, id)| Resource { id, r#type });
        Ok(Response::new(ListResourcesResponse {
            resources: resources.collect(),
        }))
    }
}

impl Service {
    async fn resource(
        &self,
        ns: cairn_types::Namespace,
        lease: String,
        resource: Option<Resource>,
        hold: bool,
    ) -> Result<Response<()>, Status> {
        let node = self.node.clone();
        let resource = resource.ok_or_else(|| missing("resource"))?;
        let lease = convert::name(LeaseId::parse(&lease))?;
        blocking(move || {
            let named = (&*resource.r#type, &*resource.id);
            node.lease_resource(&ns, &lease, named, hold)
                .map_err(of_failure)
        })
        .await?;
        Ok(Response::new(()))
    }
}
