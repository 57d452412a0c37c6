//! `Content` for containerd: as for clients, but for the removal of what is not there.

use cairn_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, InfoRequest, InfoResponse, ListContentRequest,
    ListStatusesRequest, ListStatusesResponse, ReadContentRequest, StatusRequest, StatusResponse,
    UpdateRequest, UpdateResponse, WriteContentRequest, content_server::Content,
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::Backend;
use crate::service::Service;

#[tonic::async_trait]
impl Content for Backend {
    type ListStream = <Service as Content>::ListStream;
    type ReadStream = <Service as Content>::ReadStream;
    type WriteStream = <Service as Content>::WriteStream;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Content::info(&self.service, request).await
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        Content::update(&self.service, request).await
    }

    async fn list(
        &self,
        request: Request<ListContentRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        Content::list(&self.service, request).await
    }

    /// containerd's own store succeeds where nothing is to be removed, and its collector, which may
    /// have been here before, ends at the first error.
    async fn delete(&self, request: Request<DeleteContentRequest>) -> Result<Response<()>, Status> {
        match Content::delete(&self.service, request).await {
            Err(status) if status.code() == Code::NotFound => Ok(Response::new(())),
            deleted => deleted,
        }
    }

    async fn read(
        &self,
        request: Request<ReadContentRequest>,
    ) -> Result<Response<Self::ReadStream>, Status> {
        Content::read(&self.service, request).await
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        Content::status(&self.service, request).await
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        Content::list_statuses(&self.service, request).await
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        Content::write(&self.service, request).await
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        Content::abort(&self.service, request).await
    }
}
