//! Namespaces themselves. Their calls name them, so the namespace that this client works in does not
//! matter.

use cairn_proto::{
    cairn::v1::{ListNamespacesRequest, store_client::StoreClient},
    containerd::services::namespaces::v1::{
        CreateNamespaceRequest, DeleteNamespaceRequest, Namespace as Wire, UpdateNamespaceRequest,
        namespaces_client::NamespacesClient,
    },
};
use cairn_types::{ErrorKind, Labels, Namespace};

use super::{Client, Result, labels::mask, link::client, plain::explain};
use crate::{args::LabelChange, error::Problem, model};

impl Client {
    /// All namespaces by name, with what is in them.
    pub fn namespace_list(&self) -> Result<Vec<model::Namespace>> {
        let request = self.link.request(ListNamespacesRequest {});
        let mut store = client!(self.link, StoreClient<_>);
        let answer = self.link.wait(store.list_namespaces(request))?;
        let namespace = |ns: cairn_proto::cairn::v1::Namespace| model::Namespace {
            name: ns.name,
            labels: ns.labels.into_iter().collect(),
            images: ns.images,
            snapshots: ns.snapshots,
            size: ns.size,
        };
        let all = answer.into_inner().namespaces;
        Ok(all.into_iter().map(namespace).collect())
    }

    /// One namespace, with what is in it.
    pub fn namespace_info(&self, name: &Namespace) -> Result<model::Namespace> {
        let all = self.namespace_list()?;
        let found = all.into_iter().find(|ns| ns.name == name.as_str());
        found.ok_or_else(|| missing("inspect namespace", name))
    }

    /// Makes one.
    pub fn namespace_create(&self, name: &Namespace, labels: Labels) -> Result<()> {
        let request = self.link.request(CreateNamespaceRequest {
            namespace: Some(Wire {
                name: name.to_string(),
                labels: labels.into_iter().collect(),
            }),
        });
        let mut namespaces = client!(self.link, NamespacesClient<_>);
        let answer = self.link.wait(namespaces.create(request));
        answer.map_err(|err| {
            let exists = err.kind == ErrorKind::AlreadyExists;
            let problem = explain("create namespace", ("namespace", name.as_str()), err);
            match exists {
                true => problem.next(format!("cairn namespaces label {name} K=V")),
                false => problem,
            }
        })?;
        Ok(())
    }

    /// Changes a namespace's labels. Those it has then come back.
    pub fn label_namespace(&self, name: &Namespace, changes: &[LabelChange]) -> Result<Labels> {
        let attempted = "label namespace";
        // Setting a label would make one that is not there, which a slip of the hand should not.
        if !self
            .namespace_list()?
            .iter()
            .any(|ns| ns.name == name.as_str())
        {
            return Err(missing(attempted, name).next(format!("cairn namespaces create {name}")));
        }
        let request = self.link.request(UpdateNamespaceRequest {
            namespace: Some(Wire {
                name: name.to_string(),
                labels: LabelChange::set(changes).into_iter().collect(),
            }),
            update_mask: Some(mask(changes)),
        });
        let mut namespaces = client!(self.link, NamespacesClient<_>);
        let answer = self.link.wait(namespaces.update(request));
        answer.map_err(|err| explain(attempted, ("namespace", name.as_str()), err))?;
        // The answer is empty, as containerd's is.
        let after = self.namespace_list()?;
        let after = after.into_iter().find(|ns| ns.name == name.as_str());
        Ok(after.map(|ns| ns.labels).unwrap_or_default())
    }

    /// One namespace less; it must be empty.
    pub fn namespace_remove(&self, name: &Namespace) -> Result<()> {
        let attempted = "remove namespace";
        let request = self.link.request(DeleteNamespaceRequest {
            name: name.to_string(),
        });
        let mut namespaces = client!(self.link, NamespacesClient<_>);
        let answer = self.link.wait(namespaces.delete(request));
        answer.map_err(|err| match err.kind {
            ErrorKind::NotFound => missing(attempted, name),
            ErrorKind::FailedPrecondition => {
                let problem = explain(attempted, ("namespace", name.as_str()), err);
                self.how_to_empty(name, problem)
            }
            _ => explain(attempted, ("namespace", name.as_str()), err),
        })?;
        Ok(())
    }

    /// Names first; what they held goes with a collection, and what is left then is held by labels.
    fn how_to_empty(&self, name: &Namespace, problem: Problem) -> Problem {
        let ns = self.namespace_info(name).ok();
        match ns {
            Some(ns) if ns.images == 0 => problem.next("cairn gc").next(format!(
                "cairn -n {name} content ls; cairn -n {name} snapshots ls"
            )),
            _ => problem.next(format!(
                "cairn -n {name} images rm $(cairn -n {name} images ls -q) && cairn gc"
            )),
        }
    }
}

fn missing(attempted: &str, name: &Namespace) -> Problem {
    Problem::new(ErrorKind::NotFound, attempted, name.as_str(), "not found")
        .next("cairn namespaces ls")
}
