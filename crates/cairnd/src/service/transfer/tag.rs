//! From the store to the store: another name for an image.

use std::sync::Arc;

use cairn_proto::containerd::types::transfer::ImageStore;
use cairn_types::ImageName;
use tonic::Status;
use tracing::info;

use super::{Work, store::Naming};
use crate::{
    calls::about,
    convert,
    status::{blocking, of_failure},
};

/// Names the image that `from` says as `to` says, with the labels of `to`.
pub(super) async fn tag(work: Arc<Work>, from: ImageStore, to: ImageStore) -> Result<(), Status> {
    let name = convert::known(ImageName::parse(&from.name))?;
    about("image", &name);
    blocking(move || {
        let Work { node, caller, .. } = &*work;
        let known = node.image_get(&caller.ns, &name).map_err(of_failure)?;
        let naming = Naming::of(&to);
        let names = naming.whole(&known.target.digest)?;
        for to in &names {
            naming.put(node, caller, to, &known.target)?;
        }
        let (digest, ms) = (&known.target.digest, work.ms());
        info!(%name, names = names.len(), %digest, ms, "tagged");
        Ok(())
    })
    .await
}
