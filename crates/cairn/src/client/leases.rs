//! Leases: what must not be collected yet.

use std::time::{Duration, SystemTime};

use cairn_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, Lease, ListRequest, ListResourcesRequest,
    Resource, leases_client::LeasesClient,
};
use cairn_types::{ErrorKind, Labels};
use jiff::Timestamp;

use super::{Client, Result, link::client, plain};
use crate::{error::Problem, model, size};

/// Until when a lease holds (containerd `core/leases`).
const EXPIRE: &str = "containerd.io/gc.expire";

impl Client {
    /// All leases by id.
    pub fn leases(&self) -> Result<Vec<model::Lease>> {
        let request = self.link.request(ListRequest::default());
        let mut leases = client!(self.link, LeasesClient<_>);
        let answer = self.link.wait(leases.list(request));
        let answer = answer.map_err(|err| self.explain("list leases", ("", ""), err))?;
        Ok(answer.into_inner().leases.into_iter().map(lease).collect())
    }

    /// Makes a lease, for `life` or for ever.
    pub fn lease_create(
        &self,
        id: Option<&str>,
        life: Option<Duration>,
        mut labels: Labels,
    ) -> Result<model::Lease> {
        let id = id.unwrap_or_default();
        if let Some(life) = life {
            let end = SystemTime::now().checked_add(life);
            let end = end.and_then(|end| Timestamp::try_from(end).ok());
            let end = end.ok_or_else(|| {
                Problem::usage("no calendar has the day on which it would expire")
                    .next("cairn leases create -x 0")
            })?;
            labels.insert(EXPIRE.to_owned(), size::time(end));
        }
        let request = self.link.request(CreateRequest {
            id: id.to_owned(),
            labels: labels.into_iter().collect(),
        });
        let mut leases = client!(self.link, LeasesClient<_>);
        let answer = self.link.wait(leases.create(request));
        let answer = answer.map_err(|err| {
            let exists = err.kind == ErrorKind::AlreadyExists;
            let problem = self.explain("create lease", ("lease", id), err);
            match exists {
                true => problem.next("cairn leases ls"),
                false => problem,
            }
        })?;
        Ok(lease(answer.into_inner().lease.unwrap_or_default()))
    }

    /// One lease less; with `sync` what it held is gone on return.
    pub fn lease_remove(&self, id: &str, sync: bool) -> Result<()> {
        let request = self.link.request(DeleteRequest {
            id: id.to_owned(),
            sync,
        });
        let mut leases = client!(self.link, LeasesClient<_>);
        let answer = self.link.wait(leases.delete(request));
        answer.map_err(|err| self.no_lease("remove lease", id, err))?;
        Ok(())
    }

    /// Has a lease hold something, whether that exists or not.
    pub fn lease_add(&self, id: &str, resource: &model::Resource) -> Result<()> {
        let request = self.link.request(AddResourceRequest {
            id: id.to_owned(),
            resource: Some(Resource {
                id: resource.id.clone(),
                r#type: resource.kind.clone(),
            }),
        });
        let mut leases = client!(self.link, LeasesClient<_>);
        let answer = self.link.wait(leases.add_resource(request));
        answer.map_err(|err| self.no_lease("add to lease", id, err))?;
        Ok(())
    }

    /// What a lease holds, by type and id.
    pub fn lease_resources(&self, id: &str) -> Result<Vec<model::Resource>> {
        let request = self
            .link
            .request(ListResourcesRequest { id: id.to_owned() });
        let mut leases = client!(self.link, LeasesClient<_>);
        let answer = self.link.wait(leases.list_resources(request));
        let answer = answer.map_err(|err| self.no_lease("inspect lease", id, err))?;
        let resource = |resource: Resource| model::Resource {
            kind: resource.r#type,
            id: resource.id,
        };
        let resources = answer.into_inner().resources;
        Ok(resources.into_iter().map(resource).collect())
    }

    /// The problem of a call that names a lease, which may be the one that is not there.
    pub(super) fn no_lease(&self, attempted: &str, id: &str, err: Problem) -> Problem {
        let missing = err.kind == ErrorKind::NotFound;
        let problem = self.explain(attempted, ("lease", id), err);
        match missing {
            true => problem.next("cairn leases ls"),
            false => problem,
        }
    }
}

fn lease(lease: Lease) -> model::Lease {
    let labels: Labels = lease.labels.into_iter().collect();
    // What does not parse is ignored by collections, too: the lease stays.
    let expires_at = labels.get(EXPIRE).and_then(|text| text.parse().ok());
    model::Lease {
        id: lease.id,
        created_at: plain::time(lease.created_at),
        expires_at: expires_at.map(model::Time),
        labels,
        resources: None,
    }
}
