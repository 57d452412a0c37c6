//! Names and archives: listing, import, export, tags, mounts.

use std::{
    io,
    path::{Path, PathBuf},
};

use cairn_node::{ExportRequest, ImageInfo, ImportRequest, Imported, MountRequest};
use cairn_types::{Digest, ImageName, Labels, Platform};

use super::{Client, Progress, Removed, Result, Source, Tagged, moment};
use crate::model;

/// What to import besides the archive itself.
pub struct ImportOptions {
    /// As the flag.
    pub base_name: Option<String>,
    /// As the flag.
    pub index_name: Option<String>,
    /// As the flag.
    pub digests: bool,
    /// As the flag.
    pub platforms: Vec<Platform>,
    /// As the flag.
    pub all_platforms: bool,
    /// Makes the snapshots, too.
    pub unpack: bool,
    /// For the image records.
    pub labels: Labels,
}

/// One image that came in.
pub struct NewImage {
    /// The document.
    pub image: model::Image,
    /// The variant that was taken, or `-`.
    pub platform: String,
}

/// What to export.
pub struct ExportOptions {
    /// Full names.
    pub names: Vec<ImageName>,
    /// As the flag.
    pub platforms: Vec<Platform>,
    /// As the flag.
    pub all_platforms: bool,
    /// As the flag.
    pub skip_manifest_json: bool,
    /// As the flag.
    pub skip_non_distributable: bool,
}

impl Client {
    /// All images by name.
    pub fn images(&self) -> Result<Vec<model::Image>> {
        Ok(self.node.images(&self.ns)?.into_iter().map(image).collect())
    }

    /// One image by its full name.
    pub fn image(&self, name: &ImageName) -> Result<model::Image> {
        Ok(image(self.node.image(&self.ns, name)?))
    }

    /// The full name a person means.
    pub fn resolve(&self, text: &str, attempted: &str) -> Result<ImageName> {
        let name = self.node.resolve(&self.ns, text, attempted)?;
        if name.as_str() != text {
            tracing::info!("{text} means {name}");
        }
        Ok(name)
    }

    /// Takes in every image of an archive.
    pub fn import(
        &self,
        source: Source,
        options: ImportOptions,
        progress: &dyn Progress,
    ) -> Result<Vec<NewImage>> {
        tracing::info!("read {} into namespace {}", source.name(), self.ns);
        let mut request = ImportRequest::new(self.ns.clone(), source);
        request.base_name = options.base_name;
        request.index_name = options.index_name;
        request.digests = options.digests;
        request.platforms = options.platforms;
        request.all_platforms = options.all_platforms;
        request.unpack = options.unpack;
        request.labels = options.labels;
        let imported = self.node.import(request, progress)?;
        imported.iter().map(|i| self.new_image(i)).collect()
    }

    fn new_image(&self, imported: &Imported) -> Result<NewImage> {
        let platform = imported.platform.as_ref();
        Ok(NewImage {
            image: self.image(&imported.name)?,
            platform: platform.map_or_else(|| "-".to_owned(), ToString::to_string),
        })
    }

    /// Writes an archive; its length in bytes comes back.
    pub fn export(
        &self,
        out: &mut dyn io::Write,
        options: ExportOptions,
        progress: &dyn Progress,
    ) -> Result<u64> {
        let request = ExportRequest {
            ns: self.ns.clone(),
            out,
            names: options.names,
            platforms: options.platforms,
            all_platforms: options.all_platforms,
            skip_manifest_json: options.skip_manifest_json,
            skip_non_distributable: options.skip_non_distributable,
        };
        Ok(self.node.export(request, progress)?)
    }

    /// One more name.
    pub fn tag(&self, source: &ImageName, target: &ImageName, force: bool) -> Result<Tagged> {
        Ok(self.node.tag(&self.ns, source, target, force)?)
    }

    /// One name less.
    pub fn remove_image(&self, name: &ImageName, force: bool) -> Result<Removed> {
        Ok(self.node.remove_image(&self.ns, name, force)?)
    }

    /// The files at a directory.
    pub fn mount_image(
        &self,
        name: &ImageName,
        target: &Path,
        rw: bool,
        platform: Option<Platform>,
        progress: &dyn Progress,
    ) -> Result<PathBuf> {
        let (ns, name) = (self.ns.clone(), name.clone());
        let request = MountRequest {
            ns,
            name,
            target: target.to_owned(),
            rw,
            platform,
        };
        Ok(self.node.mount_image_showing(&request, progress)?)
    }

    /// Undoes [`Client::mount_image`].
    pub fn unmount_image(&self, target: &Path, remove: bool) -> Result<()> {
        Ok(self.node.unmount_image(&self.ns, target, remove)?)
    }
}

pub(super) fn image(info: ImageInfo) -> model::Image {
    model::Image {
        name: info.name.to_string(),
        namespace: info.namespace.to_string(),
        target: model::Target {
            media_type: info.target.media_type,
            digest: info.target.digest.to_string(),
            size: info.target.size,
        },
        platforms: info.platforms,
        content_size: info.content_size,
        unpacked_size: info.unpacked_size,
        complete: info.complete,
        missing: info.missing.iter().map(Digest::to_string).collect(),
        labels: info.labels,
        created_at: model::Time(moment(info.created_at)),
        updated_at: model::Time(moment(info.updated_at)),
    }
}
