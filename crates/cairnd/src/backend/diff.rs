//! `Diff` for containerd, which asks one differ after the other for as long as they answer
//! `Unimplemented`.

use cairn_proto::containerd::services::diff::v1::{
    ApplyRequest, ApplyResponse, DiffRequest, DiffResponse, diff_server::Diff,
};
use cairn_types::{Digest, ErrorKind};
use tonic::{Request, Response, Status};

use super::{Backend, NAMESPACE};
use crate::{
    convert,
    status::{blocking, of, with},
};

#[tonic::async_trait]
impl Diff for Backend {
    /// A blob that is not here is in containerd's own store, and mounts that are not ours are those
    /// of another snapshotter: either is another differ's work.
    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let asked = request.get_ref();
        let digest = asked.diff.as_ref().map(|diff| diff.digest.clone());
        let mounts = convert::from_mounts(asked.mounts.clone());
        let node = self.node.clone();
        blocking(move || {
            let digest = Digest::parse(&digest.unwrap_or_default()).ok();
            let known = match &digest {
                Some(digest) => node.content().exists(&NAMESPACE, digest),
                None => Ok(false),
            };
            if !known.map_err(|err| of(&err))? {
                return Err(with(ErrorKind::Unimplemented, "the layer is not here"));
            }
            let target = node.snapshots().writable(&NAMESPACE, &mounts);
            match target.map_err(|err| of(&err))? {
                Some(_) => Ok(()),
                None => Err(with(
                    ErrorKind::Unimplemented,
                    "the mounts are not those of an active snapshot here",
                )),
            }
        })
        .await?;
        Diff::apply(&self.service, request).await
    }

    /// The layer would have to be stored through containerd, or containerd would not know of it and
    /// remove it.
    async fn diff(&self, _: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let text = "another differ has to write what containerd stores";
        Err(with(ErrorKind::Unimplemented, text))
    }
}
