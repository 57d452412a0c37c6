//! Labels of images, blobs, snapshots and namespaces.

use cairn_proto::containerd::services::{
    content::v1::{Info as Blob, UpdateRequest, content_client::ContentClient},
    images::v1::{Image, UpdateImageRequest, images_client::ImagesClient},
    snapshots::v1::{Info as Snapshot, UpdateSnapshotRequest, snapshots_client::SnapshotsClient},
};
use cairn_types::{Digest, ImageName, Labels, SnapshotKey};
use prost_types::FieldMask;

use super::{Client, Result, layers::SNAPSHOTTER, link::client};
use crate::args::LabelChange;

impl Client {
    /// Changes an image's labels, or replaces them all. Those it has then come back.
    pub fn label_image(
        &self,
        name: &ImageName,
        changes: &[LabelChange],
        replace: bool,
    ) -> Result<Labels> {
        let image = Image {
            name: name.to_string(),
            labels: LabelChange::set(changes),
            ..Image::default()
        };
        let request = self.link.request(UpdateImageRequest {
            image: Some(image),
            update_mask: Some(match replace {
                true => FieldMask {
                    paths: vec!["labels".to_owned()],
                },
                false => mask(changes),
            }),
            source_date_epoch: None,
        });
        let mut images = client!(self.link, ImagesClient<_>);
        let answer = self.link.wait(images.update(request));
        let answer =
            answer.map_err(|err| self.explain("label image", ("image", name.as_str()), err))?;
        let image = answer.into_inner().image.unwrap_or_default();
        Ok(image.labels.into_iter().collect())
    }

    /// Changes a blob's labels. Those it has then come back.
    pub fn label_blob(&self, digest: &Digest, changes: &[LabelChange]) -> Result<Labels> {
        let info = Blob {
            digest: digest.to_string(),
            labels: LabelChange::set(changes),
            ..Blob::default()
        };
        let request = self.link.request(UpdateRequest {
            info: Some(info),
            update_mask: Some(mask(changes)),
        });
        let mut content = client!(self.link, ContentClient<_>);
        let answer = self.link.wait(content.update(request));
        let answer =
            answer.map_err(|err| self.explain("label blob", ("blob", &digest.to_string()), err))?;
        let info = answer.into_inner().info.unwrap_or_default();
        Ok(info.labels.into_iter().collect())
    }

    /// Changes a snapshot's labels. Those it has then come back.
    pub fn label_snapshot(&self, key: &SnapshotKey, changes: &[LabelChange]) -> Result<Labels> {
        let info = Snapshot {
            name: key.to_string(),
            labels: LabelChange::set(changes),
            ..Snapshot::default()
        };
        let request = self.link.request(UpdateSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            info: Some(info),
            update_mask: Some(mask(changes)),
        });
        let mut snapshots = client!(self.link, SnapshotsClient<_>);
        let answer = self.link.wait(snapshots.update(request));
        let answer = answer
            .map_err(|err| self.explain("label snapshot", ("snapshot", key.as_str()), err))?;
        let info = answer.into_inner().info.unwrap_or_default();
        Ok(info.labels.into_iter().collect())
    }
}

/// Names the labels that change, so that no other does. Paths are free text here: a key may have
/// dots and slashes.
pub(super) fn mask(changes: &[LabelChange]) -> FieldMask {
    let path = |change: &LabelChange| format!("labels.{}", change.key);
    FieldMask {
        paths: changes.iter().map(path).collect(),
    }
}
