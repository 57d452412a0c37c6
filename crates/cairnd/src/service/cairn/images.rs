//! `Images`: as people ask for them.

use cairn_proto::cairn::v1::{
    ExplainHostRequest, ExplainHostResponse, ExportRequest, ExportResponse, GetImageRequest,
    GetImageResponse, GetMountRequest, GetMountResponse, ImportRequest, ImportResponse,
    InspectRequest, InspectResponse, ListImagesRequest, ListImagesResponse, PrepareMountRequest,
    PrepareMountResponse, PullRequest, PullResponse, PushRequest, PushResponse,
    ReleaseMountRequest, ReleaseMountResponse, RemoveImageRequest, RemoveImageResponse,
    ResolveImageRequest, ResolveImageResponse, TagRequest, TagResponse, images_server::Images,
};
use cairn_types::{ImageName, Platform};
use tonic::{Request, Response, Status, Streaming};

use super::{
    Answers, collect, export, import, mounts, namespace, parsed, pull, push, registry, wire,
};
use crate::{caller, calls::about, details, service::Service, status::blocking};

/// Images in one message of a listing.
const BATCH: usize = 100;

fn image(text: &str, attempted: &str) -> Result<ImageName, Status> {
    parsed(ImageName::parse(text), attempted, "image", text)
}

#[tonic::async_trait]
impl Images for Service {
    type ListStream = Answers<ListImagesResponse>;
    type ImportStream = Answers<ImportResponse>;
    type ExportStream = Answers<ExportResponse>;
    type PullStream = Answers<PullResponse>;
    type PushStream = Answers<PushResponse>;
    type PrepareMountStream = Answers<PrepareMountResponse>;

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let all = blocking(move || node.images(&ns).map_err(details::of)).await?;
        let all: Vec<_> = all.into_iter().map(wire::image).collect();
        Ok(Response::new(super::batches(all, BATCH, |images| {
            ListImagesResponse { images }
        })))
    }

    async fn get(
        &self,
        request: Request<GetImageRequest>,
    ) -> Result<Response<GetImageResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let name = image(&request.into_inner().name, "inspect image")?;
        about("image", &name);
        let found = blocking(move || node.image(&ns, &name).map_err(details::of)).await?;
        Ok(Response::new(GetImageResponse {
            image: Some(wire::image(found)),
        }))
    }

    async fn resolve(
        &self,
        request: Request<ResolveImageRequest>,
    ) -> Result<Response<ResolveImageResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let ResolveImageRequest { text, attempted } = request.into_inner();
        let name = blocking(move || node.resolve(&ns, &text, &attempted).map_err(details::of));
        Ok(Response::new(ResolveImageResponse {
            name: name.await?.to_string(),
        }))
    }

    async fn import(
        &self,
        request: Request<Streaming<ImportRequest>>,
    ) -> Result<Response<Self::ImportStream>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let answers = import::answers(node, ns, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn pull(
        &self,
        request: Request<Streaming<PullRequest>>,
    ) -> Result<Response<Self::PullStream>, Status> {
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        let answers = pull::answers(node, caller, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn push(
        &self,
        request: Request<Streaming<PushRequest>>,
    ) -> Result<Response<Self::PushStream>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let answers = push::answers(node, ns, request.into_inner());
        Ok(Response::new(answers))
    }

    async fn explain_host(
        &self,
        request: Request<ExplainHostRequest>,
    ) -> Result<Response<ExplainHostResponse>, Status> {
        let (node, request) = (self.node.clone(), request.into_inner());
        let dirs = move || node.registry_options().hosts_dirs.clone();
        let explained = blocking(move || registry::explain(&dirs(), request));
        Ok(Response::new(explained.await?))
    }

    async fn export(
        &self,
        request: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let answers = export::answers(node, ns, request.into_inner())?;
        Ok(Response::new(answers))
    }

    async fn tag(&self, request: Request<TagRequest>) -> Result<Response<TagResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let request = request.into_inner();
        let source = image(&request.source, "tag image")?;
        about("image", &source);
        let target = image(&request.target, "tag")?;
        let tagged = blocking(move || {
            node.tag(&ns, &source, &target, request.force)
                .map_err(details::of)
        });
        Ok(Response::new(TagResponse {
            outcome: wire::tagged(tagged.await?).into(),
        }))
    }

    async fn remove(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let request = request.into_inner();
        let name = image(&request.name, "remove image")?;
        about("image", &name);
        let removed = blocking(move || {
            let removed = node.remove_image(&ns, &name, request.force);
            let removed = removed.map_err(details::of)?;
            if request.sync {
                collect(&node, false)?;
            }
            Ok(removed)
        });
        let removed = removed.await?;
        let bundles = removed.bundles.iter().map(|dir| dir.display().to_string());
        Ok(Response::new(RemoveImageResponse {
            name: removed.name.to_string(),
            bundles: bundles.collect(),
        }))
    }

    async fn inspect(
        &self,
        request: Request<InspectRequest>,
    ) -> Result<Response<InspectResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let request = request.into_inner();
        let attempted = "inspect image";
        let name = image(&request.name, attempted)?;
        about("image", &name);
        let platform: Option<Platform> = match &*request.platform {
            "" => None,
            text => Some(parsed(text.parse(), attempted, "platform", text)?),
        };
        let found = blocking(move || {
            node.inspect(&ns, &name, platform.as_ref())
                .map_err(details::of)
        });
        Ok(Response::new(wire::inspect(found.await?)))
    }

    async fn prepare_mount(
        &self,
        request: Request<PrepareMountRequest>,
    ) -> Result<Response<Self::PrepareMountStream>, Status> {
        let ns = namespace(&request)?;
        let answers = mounts::prepare(self.node.clone(), ns, request.into_inner())?;
        Ok(Response::new(answers))
    }

    async fn get_mount(
        &self,
        request: Request<GetMountRequest>,
    ) -> Result<Response<GetMountResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let request = request.into_inner();
        let found = blocking(move || mounts::get(&node, &ns, request).map_err(details::of));
        Ok(Response::new(found.await?))
    }

    async fn release_mount(
        &self,
        request: Request<ReleaseMountRequest>,
    ) -> Result<Response<ReleaseMountResponse>, Status> {
        let (node, ns) = (self.node.clone(), namespace(&request)?);
        let request = request.into_inner();
        blocking(move || mounts::release(&node, &ns, request).map_err(details::of)).await?;
        Ok(Response::new(ReleaseMountResponse {}))
    }
}
