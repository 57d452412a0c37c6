//! From a registry into the store.

use std::sync::Arc;

use cairn_node::PullRequest;
use cairn_proto::containerd::types::transfer::{ImageStore, OciRegistry};
use cairn_types::Digest;
use tonic::Status;

use super::{
    Work,
    platforms::{self, Taken},
    progress::Way,
    registry::Distant,
    store::Naming,
};
use crate::{
    status::{blocking, of_failure},
    transfers,
};

/// Fetches an image, and stores it as `to` says.
pub(super) async fn pull(work: Arc<Work>, from: OciRegistry, to: ImageStore) -> Result<(), Status> {
    let reference = from.reference.clone();
    let Distant {
        name,
        remote,
        title,
    } = Distant::of(&work, from)?;
    let Taken {
        platforms,
        all,
        extent,
        unpack,
    } = platforms::taken(&to)?;
    let naming = Naming::of(&to);
    // Before anything is fetched; whether there are any does not depend on the digest.
    naming.whole(&Digest::sha256(b""))?;
    let request = PullRequest {
        references: Some(naming.references),
        remote,
        platforms,
        all_platforms: all,
        extent,
        unpack,
        labels: to.labels,
        ..PullRequest::new(work.caller.clone(), name)
    };
    blocking(move || {
        let Work { node, teller, .. } = &*work;
        teller.say(format!("Resolving from {title}"));
        let listener = teller.listen(Way::Down).named(&reference);
        let listener = listener.doing(format!("Pulling from {title}"));
        let pulled = transfers::pull(node, request, &listener);
        let pulled = pulled.map_err(of_failure)?;
        let images = pulled.images.iter();
        let images = images.map(|image| (&image.name, &image.target));
        // `ctr` draws what has no name with the next that has one, and nothing at the end.
        teller.say(format!("Completed pull from {title}"));
        teller.saved(images);
        Ok(())
    })
    .await
}
