//! Names: listing, resolving, tags, removal.

use cairn_proto::cairn::v1::{self, images_client::ImagesClient};
use cairn_types::ImageName;

use super::{Client, Result, link::client, plain};
use crate::model;

impl Client {
    /// All images by name.
    pub fn images(&self) -> Result<Vec<model::Image>> {
        let mut images = client!(self.link, ImagesClient<_>);
        let answer = images.list(self.link.request(v1::ListImagesRequest {}));
        let listed = self.link.all(answer)?.into_iter();
        Ok(listed.flat_map(|part| part.images).map(image).collect())
    }

    /// One image by its full name.
    pub fn image(&self, name: &ImageName) -> Result<model::Image> {
        let mut images = client!(self.link, ImagesClient<_>);
        let name = name.to_string();
        let answer = images.get(self.link.request(v1::GetImageRequest { name }));
        let found = self.link.wait(answer)?.into_inner();
        Ok(image(found.image.unwrap_or_default()))
    }

    /// The full name a person means.
    pub fn resolve(&self, text: &str, attempted: &str) -> Result<ImageName> {
        let mut images = client!(self.link, ImagesClient<_>);
        let answer = images.resolve(self.link.request(v1::ResolveImageRequest {
            text: text.to_owned(),
            attempted: attempted.to_owned(),
        }));
        let name = self.link.wait(answer)?.into_inner().name;
        if name != text {
            tracing::info!("{text} means {name}");
        }
        Ok(ImageName::parse(&name)?)
    }

    /// One more name.
    pub fn tag(&self, source: &ImageName, target: &ImageName, force: bool) -> Result<()> {
        let mut images = client!(self.link, ImagesClient<_>);
        let answer = images.tag(self.link.request(v1::TagRequest {
            source: source.to_string(),
            target: target.to_string(),
            force,
        }));
        self.link.wait(answer).map(|_| ())
    }

    /// One name less. The directories of bundles that were made from it, and keep their files.
    pub fn remove_image(&self, name: &ImageName, force: bool) -> Result<Vec<String>> {
        let mut images = client!(self.link, ImagesClient<_>);
        let answer = images.remove(self.link.request(v1::RemoveImageRequest {
            name: name.to_string(),
            force,
            sync: false,
        }));
        Ok(self.link.wait(answer)?.into_inner().bundles)
    }
}

pub(super) fn image(image: v1::Image) -> model::Image {
    let target = image.target.unwrap_or_default();
    model::Image {
        name: image.name,
        namespace: image.namespace,
        target: model::Target {
            media_type: target.media_type,
            digest: target.digest,
            size: plain::count(target.size),
        },
        platforms: image.platforms,
        content_size: image.content_size,
        unpacked_size: image.unpacked_size,
        complete: image.complete,
        missing: image.missing,
        labels: image.labels,
        created_at: plain::time(image.created_at),
        updated_at: plain::time(image.updated_at),
    }
}
