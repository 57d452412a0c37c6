//! `Bundles`: the store's part of them.

use cairn_meta::Timestamp;
use cairn_node::{BundleInfo, BundleOrder, Failure, Node};
use cairn_proto::cairn::v1::{
    BeginBundleRequest, BeginBundleResponse, BegunBundle, Bundle, CompleteBundleRequest,
    CompleteBundleResponse, DropBundleRequest, DropBundleResponse, GetBundleRequest,
    GetBundleResponse, ListBundlesRequest, ListBundlesResponse, WithdrawBundleRequest,
    WithdrawBundleResponse, begin_bundle_response::Part, bundles_server::Bundles,
};
use cairn_types::{Classified, ErrorKind, HostDir, ImageName, Platform};
use tonic::{Request, Response, Status};

use super::{
    Answers, namespace, parsed,
    progress::{self, Teller},
};
use crate::{calls::about, convert, details, service::Service, status::blocking};

const CREATE: &str = "create bundle";
const REMOVE: &str = "remove bundle";
const LIST: &str = "list bundles";

fn directory(text: &str, attempted: &str) -> Result<HostDir, Status> {
    HostDir::parse(text).map_err(|err| {
        let failure = Failure::new(err.kind(), attempted, err.to_string());
        details::of(failure.object("bundle", text))
    })
}

fn wire(info: BundleInfo) -> Bundle {
    Bundle {
        dir: info.dir,
        namespace: info.namespace.to_string(),
        image: info.image.to_string(),
        manifest: info.manifest.to_string(),
        platform: info.platform,
        snapshot: info.snapshot.to_string(),
        size: info.size,
        created_at: Some(convert::time(Timestamp(info.created_at))),
        made: info.made,
        copied: info.copied,
    }
}

/// Which store's a bundle is, for the marker in its directory.
fn store(node: &Node) -> String {
    node.real_root().display().to_string()
}

impl Service {
    /// A verb of a record, by its directory.
    async fn bundle_verb(
        &self,
        dir: &str,
        attempted: &str,
        verb: impl FnOnce(&Node, &HostDir) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Status> {
        let (node, dir) = (self.node.clone(), directory(dir, attempted)?);
        blocking(move || verb(&node, &dir).map_err(details::of)).await
    }
}

#[tonic::async_trait]
impl Bundles for Service {
    type BeginStream = Answers<BeginBundleResponse>;

    async fn begin(
        &self,
        request: Request<BeginBundleRequest>,
    ) -> Result<Response<Self::BeginStream>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let request = request.into_inner();
        let platform: Option<Platform> = match &*request.platform {
            "" => None,
            text => Some(parsed(text.parse(), CREATE, "platform", text)?),
        };
        let image = ImageName::parse(&request.image);
        let order = BundleOrder {
            ns,
            image: parsed(image, CREATE, "image", &request.image)?,
            dir: directory(&request.dir, CREATE)?,
            platform,
        };
        about("image", &order.image);
        let wrap = |event| BeginBundleResponse {
            part: Some(Part::Progress(event)),
        };
        let work = move |teller: &Teller<BeginBundleResponse>| {
            let begun = node.bundle_begin(&order, teller).map_err(details::of)?;
            Ok(BeginBundleResponse {
                part: Some(Part::Begun(BegunBundle {
                    bundle: Some(wire(begun.bundle)),
                    mounts: convert::to_mounts(begun.mounts),
                    config_bytes: begun.config,
                    store: store(&node),
                })),
            })
        };
        Ok(Response::new(progress::start(wrap, work)))
    }

    async fn complete(
        &self,
        request: Request<CompleteBundleRequest>,
    ) -> Result<Response<CompleteBundleResponse>, Status> {
        let CompleteBundleRequest { dir, copied } = request.into_inner();
        let complete = move |node: &Node, dir: &HostDir| node.bundle_complete(dir, copied);
        self.bundle_verb(&dir, CREATE, complete).await?;
        Ok(Response::new(CompleteBundleResponse {}))
    }

    async fn withdraw(
        &self,
        request: Request<WithdrawBundleRequest>,
    ) -> Result<Response<WithdrawBundleResponse>, Status> {
        let dir = request.into_inner().dir;
        self.bundle_verb(&dir, REMOVE, Node::bundle_withdraw)
            .await?;
        Ok(Response::new(WithdrawBundleResponse {}))
    }

    async fn drop(
        &self,
        request: Request<DropBundleRequest>,
    ) -> Result<Response<DropBundleResponse>, Status> {
        let dir = request.into_inner().dir;
        self.bundle_verb(&dir, REMOVE, Node::bundle_drop).await?;
        Ok(Response::new(DropBundleResponse {}))
    }

    async fn get(
        &self,
        request: Request<GetBundleRequest>,
    ) -> Result<Response<GetBundleResponse>, Status> {
        let node = self.node.clone();
        let dir = directory(&request.into_inner().dir, LIST)?;
        let found = blocking(move || {
            let Some((info, mounts)) = node.bundle(&dir).map_err(details::of)? else {
                let reason = "no bundle was made there";
                let failure = Failure::new(ErrorKind::NotFound, LIST, reason);
                return Err(details::of(failure.object("bundle", dir)));
            };
            Ok(GetBundleResponse {
                bundle: Some(wire(info)),
                mounts: convert::to_mounts(mounts),
                store: store(&node),
            })
        });
        Ok(Response::new(found.await?))
    }

    async fn list(
        &self,
        request: Request<ListBundlesRequest>,
    ) -> Result<Response<ListBundlesResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let unfinished = request.into_inner().unfinished;
        let found = blocking(move || {
            let found = match unfinished {
                true => node.unfinished_bundles(),
                false => node.bundles(&ns),
            };
            found.map_err(details::of)
        });
        Ok(Response::new(ListBundlesResponse {
            bundles: found.await?.into_iter().map(wire).collect(),
        }))
    }
}
