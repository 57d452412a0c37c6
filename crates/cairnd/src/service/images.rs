//! `Images`: names for descriptors.

use std::borrow::Cow;

use cairn_meta::ImageRecord;
use cairn_proto::containerd::services::images::v1::{
    CreateImageRequest, CreateImageResponse, DeleteImageRequest, GetImageRequest, GetImageResponse,
    Image, ListImagesRequest, ListImagesResponse, UpdateImageRequest, UpdateImageResponse,
    images_server::Images,
};
use cairn_types::{
    ImageName,
    filter::{self, Fields, Filters},
    validate_label,
};
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller,
    calls::about,
    convert::{self, Change},
    status::{blocking, missing, of, of_failure},
    traces,
};

struct Filtered<'i>(&'i ImageName, &'i ImageRecord);

impl Fields for Filtered<'_> {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        let second = path.get(1).map(String::as_str);
        match (&*path[0], second) {
            ("name", _) => Some(Cow::Borrowed(self.0.as_str())),
            ("target", Some("digest")) => Some(Cow::Owned(self.1.target.digest.to_string())),
            ("target", Some("mediatype")) => Some(Cow::Borrowed(&self.1.target.media_type)),
            ("labels", _) => filter::label(&self.1.labels, &path[1..]),
            ("annotations", _) => filter::label(&self.1.target.annotations, &path[1..]),
            _ => None,
        }
    }
}

fn wire(name: &ImageName, record: ImageRecord) -> Image {
    Image {
        name: name.to_string(),
        target: Some(convert::to_descriptor(&record.target)),
        labels: record.labels,
        created_at: Some(convert::time(record.created_at)),
        updated_at: Some(convert::time(record.updated_at)),
    }
}

/// An answer that is about one image, which the call's log and trace shall name.
fn told(image: Image) -> Image {
    if let Some(target) = &image.target {
        about("digest", &target.digest);
        traces::manifest(&target.digest);
    }
    image
}

#[tonic::async_trait]
impl Images for Service {
    async fn get(
        &self,
        request: Request<GetImageRequest>,
    ) -> Result<Response<GetImageResponse>, Status> {
        let ns = caller::of(&request)?.ns;
        let name = convert::known(ImageName::parse(&request.into_inner().name))?;
        about("image", &name);
        let image = self.look(move |node| {
            let record = node.image_get(&ns, &name).map_err(of_failure)?;
            Ok(wire(&name, record))
        });
        Ok(Response::new(GetImageResponse {
            image: Some(told(image.await?)),
        }))
    }

    async fn list(
        &self,
        request: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let filters = Filters::parse(&request.into_inner().filters).map_err(|err| of(&err))?;
        let all = blocking(move || node.image_list(&ns).map_err(of_failure)).await?;
        let shown = all
            .into_iter()
            .filter(|(name, record)| filters.pass(&Filtered(name, record)));
        let images = shown.map(|(name, record)| wire(&name, record)).collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn create(
        &self,
        request: Request<CreateImageRequest>,
    ) -> Result<Response<CreateImageResponse>, Status> {
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        let request = request.into_inner();
        let image = request.image.ok_or_else(|| missing("image"))?;
        let name = convert::name(ImageName::parse(&image.name))?;
        about("image", &name);
        let target = convert::from_descriptor(image.target.ok_or_else(|| missing("target"))?)?;
        let at = convert::moment(request.source_date_epoch);
        let image = blocking(move || {
            let made = node.image_create(&caller, &name, target, image.labels, at);
            Ok(wire(&name, made.map_err(of_failure)?))
        });
        Ok(Response::new(CreateImageResponse {
            image: Some(told(image.await?)),
        }))
    }

    async fn update(
        &self,
        request: Request<UpdateImageRequest>,
    ) -> Result<Response<UpdateImageResponse>, Status> {
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        let request = request.into_inner();
        let image = request.image.ok_or_else(|| missing("image"))?;
        let name = convert::name(ImageName::parse(&image.name))?;
        about("image", &name);
        let maps = ["labels", "annotations"];
        let change = convert::mask(
            request.update_mask,
            &["labels", "annotations", "target"],
            &maps,
        )?;
        let at = convert::moment(request.source_date_epoch);
        for (key, value) in change.named("labels", &image.labels) {
            validate_label(key, value).map_err(|err| of(&err))?;
        }
        let annotations = image
            .target
            .as_ref()
            .map(|target| target.annotations.clone())
            .unwrap_or_default();
        let target = match change.has("target") {
            true => {
                let target = image.target.ok_or_else(|| missing("target"))?;
                Some(convert::from_descriptor(target)?)
            }
            false => None,
        };
        let updated = blocking(move || {
            let apply = move |record: &mut ImageRecord| {
                if let Some(at) = at {
                    record.updated_at = at;
                }
                if let Some(target) = target {
                    record.target = target;
                }
                if !matches!(change, Change::All) {
                    change.apply("annotations", &mut record.target.annotations, &annotations);
                }
                change.apply("labels", &mut record.labels, &image.labels);
            };
            let record = node
                .image_update(&caller, &name, Box::new(apply))
                .map_err(of_failure)?;
            Ok(wire(&name, record))
        });
        Ok(Response::new(UpdateImageResponse {
            image: Some(told(updated.await?)),
        }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<()>, Status> {
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        let request = request.into_inner();
        let name = convert::name(ImageName::parse(&request.name))?;
        about("image", &name);
        let target = match request.target.filter(|target| !target.digest.is_empty()) {
            Some(target) => Some(convert::digest(&target.digest)?),
            None => None,
        };
        blocking(move || {
            node.image_delete(&caller, &name, target)
                .map_err(of_failure)?;
            if request.sync {
                node.gc(false).map_err(of_failure)?;
            }
            Ok(())
        })
        .await?;
        Ok(Response::new(()))
    }
}
