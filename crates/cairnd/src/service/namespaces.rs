//! `Namespaces`. These calls name their namespace themselves and need no header.

use cairn_proto::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, CreateNamespaceResponse, DeleteNamespaceRequest, GetNamespaceRequest,
    GetNamespaceResponse, ListNamespacesRequest, ListNamespacesResponse, Namespace as Wire,
    UpdateNamespaceRequest, UpdateNamespaceResponse, namespaces_server::Namespaces,
};
use cairn_types::{Labels, Namespace};
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    convert::{self, Change},
    status::{blocking, missing, of_failure},
};

#[tonic::async_trait]
impl Namespaces for Service {
    /// One that does not exist has no labels, whatever its name.
    async fn get(
        &self,
        request: Request<GetNamespaceRequest>,
    ) -> Result<Response<GetNamespaceResponse>, Status> {
        let (node, name) = (self.node.clone(), request.into_inner().name);
        let labels = match Namespace::parse(&name) {
            Ok(ns) => blocking(move || node.namespace_labels(&ns).map_err(of_failure)).await?,
            Err(_) => Labels::new(),
        };
        Ok(Response::new(GetNamespaceResponse {
            namespace: Some(Wire { name, labels }),
        }))
    }

    async fn list(
        &self,
        _: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        let node = self.node.clone();
        let namespaces = blocking(move || {
            let all = node.namespaces().map_err(of_failure)?;
            let with_labels = all.into_iter().map(|ns| {
                let labels = node.namespace_labels(&ns).map_err(of_failure)?;
                Ok(Wire {
                    name: ns.to_string(),
                    labels,
                })
            });
            with_labels.collect::<Result<Vec<_>, Status>>()
        });
        Ok(Response::new(ListNamespacesResponse {
            namespaces: namespaces.await?,
        }))
    }

    async fn create(
        &self,
        request: Request<CreateNamespaceRequest>,
    ) -> Result<Response<CreateNamespaceResponse>, Status> {
        let node = self.node.clone();
        let wire = request
            .into_inner()
            .namespace
            .ok_or_else(|| missing("namespace"))?;
        let ns = convert::name(Namespace::parse(&wire.name))?;
        let labels = wire.labels.clone();
        blocking(move || node.namespace_create(&ns, labels).map_err(of_failure)).await?;
        Ok(Response::new(CreateNamespaceResponse {
            namespace: Some(wire),
        }))
    }

    /// The answer has no namespace in it; containerd's has none, either.
    async fn update(
        &self,
        request: Request<UpdateNamespaceRequest>,
    ) -> Result<Response<UpdateNamespaceResponse>, Status> {
        let node = self.node.clone();
        let request = request.into_inner();
        let wire = request.namespace.ok_or_else(|| missing("namespace"))?;
        let ns = convert::name(Namespace::parse(&wire.name))?;
        let change = convert::mask(request.update_mask, &[], &["labels"])?;
        let (labels, replace_all) = match change {
            Change::All => (wire.labels, true),
            Change::Paths { keys, .. } => {
                let value = |key: &String| wire.labels.get(key).cloned().unwrap_or_default();
                let named = keys.into_iter().map(|(_, key)| (value(&key), key));
                (named.map(|(value, key)| (key, value)).collect(), false)
            }
        };
        blocking(move || {
            node.namespace_update(&ns, labels, replace_all)
                .map_err(of_failure)
        })
        .await?;
        Ok(Response::new(UpdateNamespaceResponse { namespace: None }))
    }

    async fn delete(
        &self,
        request: Request<DeleteNamespaceRequest>,
    ) -> Result<Response<()>, Status> {
        let node = self.node.clone();
        let ns = convert::name(Namespace::parse(&request.into_inner().name))?;
        blocking(move || node.namespace_delete(&ns).map_err(of_failure)).await?;
        Ok(Response::new(()))
    }
}
