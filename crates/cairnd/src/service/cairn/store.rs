//! `Store`: the store as a whole, and its objects as a person names them.

use cairn_node::{Failure, FsckRequest, Node, SnapshotInfo};
use cairn_proto::cairn::v1::{
    CheckRequest, CheckResponse, CollectRequest, CollectResponse, GetSnapshotRequest,
    GetSnapshotResponse, InfoRequest, InfoResponse, ListNamespacesRequest, ListNamespacesResponse,
    ListSnapshotsRequest, ListSnapshotsResponse, MeasureRequest, MeasureResponse,
    RemoveBlobRequest, RemoveBlobResponse, RemoveSnapshotRequest, RemoveSnapshotResponse,
    ResolveRequest, ResolveResponse, Snapshot, UsageRequest, UsageResponse, WhyRequest,
    WhyResponse, store_server::Store,
};
use cairn_types::{Digest, Namespace, SnapshotKey, SnapshotKind};
use tonic::{Request, Response, Status};

use super::{Answers, check, collect, namespace, parsed, scrub, wire};
use crate::{
    calls::about, convert, details, server::API, service::Service, status::blocking,
    streams::Awaited,
};

/// Snapshots in one message of a listing.
const BATCH: usize = 100;

fn key(text: &str, attempted: &str) -> Result<SnapshotKey, Status> {
    parsed(SnapshotKey::parse(text), attempted, "snapshot", text)
}

/// One that can still change is measured now. When that fails its size is unknown, and a listing goes
/// on.
fn measured(node: &Node, ns: &Namespace, info: SnapshotInfo) -> Snapshot {
    let usage = match info.kind {
        SnapshotKind::Committed => Some(info.usage),
        _ => node.snapshots().usage(ns, &info.key).ok(),
    };
    wire::snapshot(info, usage)
}

#[tonic::async_trait]
impl Store for Service {
    type ListSnapshotsStream = Answers<ListSnapshotsResponse>;
    type CheckStream = Answers<CheckResponse>;

    async fn usage(
        &self,
        request: Request<UsageRequest>,
    ) -> Result<Response<UsageResponse>, Status> {
        let node = self.node.clone();
        let by_image = request.into_inner().by_image;
        let usage = blocking(move || {
            let (images, namespaces) = match by_image {
                true => (
                    node.df_images().map_err(details::of)?,
                    node.df_namespaces().map_err(details::of)?,
                ),
                false => (Vec::new(), Vec::new()),
            };
            Ok((node.df().map_err(details::of)?, images, namespaces))
        });
        let (rows, images, namespaces) = usage.await?;
        Ok(Response::new(UsageResponse {
            rows: rows.into_iter().map(wire::usage_row).collect(),
            images: images.into_iter().map(wire::image_usage).collect(),
            namespaces: namespaces.into_iter().map(wire::namespace_usage).collect(),
        }))
    }

    async fn measure(
        &self,
        _: Request<MeasureRequest>,
    ) -> Result<Response<MeasureResponse>, Status> {
        let node = self.node.clone();
        // A walk through millions of files is of no use to who is gone.
        let (_call, awaited) = Awaited::new();
        let wanted = move || !awaited.is_given_up();
        let measured = blocking(move || node.df_disk(&wanted).map_err(details::of)).await?;
        Ok(Response::new(wire::measured(measured)))
    }

    async fn collect(
        &self,
        request: Request<CollectRequest>,
    ) -> Result<Response<CollectResponse>, Status> {
        let node = self.node.clone();
        let dry_run = request.into_inner().dry_run;
        let report = blocking(move || collect(&node, dry_run)).await?;
        Ok(Response::new(wire::collected(&report)))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let text = request.into_inner().object;
        about("object", &text);
        let kept = blocking(move || node.why(&ns, &text).map_err(details::of));
        Ok(Response::new(WhyResponse {
            objects: kept.await?.into_iter().map(wire::kept).collect(),
        }))
    }

    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        let CheckRequest {
            deep,
            repair,
            namespace,
        } = request.into_inner();
        let namespace = match namespace.as_str() {
            "" => None,
            name => Some(parsed(Namespace::parse(name), "check", "namespace", name)?),
        };
        let request = FsckRequest {
            deep,
            repair,
            namespace,
        };
        Ok(Response::new(check::answers(self.node.clone(), request)))
    }

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let node = self.node.clone();
        let state = blocking(move || {
            let state = node.state().map_err(details::of)?;
            Ok((state, node.scrub_status()))
        });
        let (state, scrubbed) = state.await?;
        Ok(Response::new(InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            root: self.node.root().display().to_string(),
            engine: state.engine.to_owned(),
            layout: state.layout,
            uuid: self.uuid.to_string(),
            pid: std::process::id(),
            started_at: Some(convert::time(self.started)),
            free_bytes: state.free_bytes,
            total_bytes: state.total_bytes,
            read_only: state.read_only.unwrap_or_default(),
            rebuilt: state.rebuilt.unwrap_or_default(),
            api: API.to_owned(),
            scrub: Some(scrub::wire(scrubbed)),
        }))
    }

    async fn list_namespaces(
        &self,
        _: Request<ListNamespacesRequest>,
    ) -> Result<Response<ListNamespacesResponse>, Status> {
        let node = self.node.clone();
        let all = blocking(move || node.namespace_list().map_err(details::of)).await?;
        Ok(Response::new(ListNamespacesResponse {
            namespaces: all.into_iter().map(wire::namespace).collect(),
        }))
    }

    async fn resolve_blob(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let ResolveRequest { text, attempted } = request.into_inner();
        let digest = blocking(move || {
            node.resolve_digest(&ns, &text, &attempted)
                .map_err(details::of)
        });
        Ok(Response::new(ResolveResponse {
            name: digest.await?.to_string(),
        }))
    }

    async fn remove_blob(
        &self,
        request: Request<RemoveBlobRequest>,
    ) -> Result<Response<RemoveBlobResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let text = request.into_inner().digest;
        let digest = parsed(Digest::parse(&text), "remove blob", "blob", &text)?;
        about("digest", &digest);
        blocking(move || node.remove_blob(&ns, &digest).map_err(details::of)).await?;
        Ok(Response::new(RemoveBlobResponse {}))
    }

    async fn list_snapshots(
        &self,
        request: Request<ListSnapshotsRequest>,
    ) -> Result<Response<Self::ListSnapshotsStream>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let all = blocking(move || {
            let listed = node
                .snapshots()
                .list(&ns)
                .map_err(|err| details::of(Failure::of("list snapshots", &err).namespace(&ns)))?;
            let measured = listed.into_iter().map(|info| measured(&node, &ns, info));
            Ok(measured.collect::<Vec<Snapshot>>())
        });
        Ok(Response::new(super::batches(
            all.await?,
            BATCH,
            |snapshots| ListSnapshotsResponse { snapshots },
        )))
    }

    async fn resolve_snapshot(
        &self,
        request: Request<ResolveRequest>,
    ) -> Result<Response<ResolveResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let ResolveRequest { text, attempted } = request.into_inner();
        let key = blocking(move || {
            node.resolve_snapshot(&ns, &text, &attempted)
                .map_err(details::of)
        });
        Ok(Response::new(ResolveResponse {
            name: key.await?.to_string(),
        }))
    }

    async fn get_snapshot(
        &self,
        request: Request<GetSnapshotRequest>,
    ) -> Result<Response<GetSnapshotResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let attempted = "inspect snapshot";
        let key = key(&request.into_inner().key, attempted)?;
        about("key", &key);
        let snapshot = blocking(move || {
            let info = node.snapshots().stat(&ns, &key).map_err(|err| {
                let failure = Failure::of(attempted, &err).object("snapshot", &key);
                details::of(failure.namespace(&ns))
            })?;
            Ok(measured(&node, &ns, info))
        });
        Ok(Response::new(GetSnapshotResponse {
            snapshot: Some(snapshot.await?),
        }))
    }

    async fn remove_snapshot(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<RemoveSnapshotResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let request = request.into_inner();
        let key = key(&request.key, "remove snapshot")?;
        about("key", &key);
        let gone = blocking(move || {
            node.remove_snapshot(&ns, &key, request.recursive)
                .map_err(details::of)
        });
        Ok(Response::new(RemoveSnapshotResponse {
            keys: gone.await?.iter().map(ToString::to_string).collect(),
        }))
    }
}
