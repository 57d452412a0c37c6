//! `Diff`: layers into snapshots, and snapshots into layers.

use cairn_node::DiffOptions;
use cairn_proto::containerd::services::diff::v1::{
    ApplyRequest, ApplyResponse, DiffRequest, DiffResponse, diff_server::Diff,
};
use cairn_types::{Descriptor, ErrorKind, IngestRef, media};
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller,
    calls::about,
    convert,
    status::{blocking, missing, of_failure, with},
};

#[tonic::async_trait]
impl Diff for Service {
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let (node, ns) = (self.node.clone(), caller::of(&request)?.ns);
        let request = request.into_inner();
        let diff = request.diff.ok_or_else(|| missing("diff"))?;
        // containerd answers so, since it looks for the blob first.
        let layer = convert::from_descriptor(diff)
            .map_err(|status| with(ErrorKind::NotFound, status.message()))?;
        about("digest", &layer.digest);
        let mounts = convert::from_mounts(request.mounts);
        let applied = blocking(move || {
            node.apply(&ns, &layer, &mounts, request.sync_fs)
                .map_err(of_failure)
        });
        let applied = applied.await?;
        let descriptor = Descriptor::new(media::OCI_LAYER, applied.digest, applied.size);
        Ok(Response::new(ApplyResponse {
            applied: Some(convert::to_descriptor(&descriptor)),
        }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let (node, caller) = (self.node.clone(), caller::of(&request)?);
        let request = request.into_inner();
        let reference = match &*request.r#ref {
            "" => None,
            text => Some(convert::name(IngestRef::parse(text))?),
        };
        let mut labels = request.labels;
        labels.retain(|_, value| !value.is_empty());
        let options = DiffOptions {
            media_type: request.media_type,
            reference,
            labels,
            source_date_epoch: convert::moment(request.source_date_epoch),
        };
        let left = convert::from_mounts(request.left);
        let right = convert::from_mounts(request.right);
        let written = blocking(move || {
            node.diff(&caller, &left, &right, options)
                .map_err(of_failure)
        });
        let written = written.await?;
        about("digest", &written.digest);
        Ok(Response::new(DiffResponse {
            diff: Some(convert::to_descriptor(&written)),
        }))
    }
}
