//! `Version`.

use cairn_proto::containerd::services::version::v1::{VersionResponse, version_server::Version};
use tonic::{Request, Response, Status};

use super::Service;

#[tonic::async_trait]
impl Version for Service {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: String::new(),
        }))
    }
}
