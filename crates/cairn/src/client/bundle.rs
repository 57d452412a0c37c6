//! Bundles, through the door.

use std::path::{Path, PathBuf};

use cairn_node::{BundleInfo, BundleRequest, Bundled};

use super::{
    Client, Progress, Result,
    before::{Heard, nanos},
};
use crate::model;

impl Client {
    /// Makes one, or mounts it again.
    pub fn bundle_create(
        &self,
        request: &BundleRequest,
        progress: &dyn Progress,
    ) -> Result<Bundled> {
        Ok(self.node()?.bundle_create(request, &Heard(progress))?)
    }

    /// Unmounts and deletes one; its directory as it was listed.
    pub fn bundle_remove(&self, dir: &Path) -> Result<PathBuf> {
        Ok(self.node()?.bundle_remove(dir)?)
    }

    /// Those of this namespace, by directory.
    pub fn bundles(&self) -> Result<Vec<model::Bundle>> {
        Ok(self
            .node()?
            .bundles(&self.ns)?
            .into_iter()
            .map(bundle)
            .collect())
    }
}

fn bundle(info: BundleInfo) -> model::Bundle {
    model::Bundle {
        dir: info.dir.display().to_string(),
        image: info.image.to_string(),
        digest: info.manifest.to_string(),
        platform: info.platform,
        snapshot: info.snapshot.to_string(),
        namespace: info.namespace.to_string(),
        mounted: info.mounted,
        size: Some(info.size),
        created_at: nanos(info.created_at),
    }
}
