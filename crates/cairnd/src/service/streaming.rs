//! `Streaming`: streams that other calls use (containerd `plugins/services/streaming`).

use cairn_proto::containerd::services::streaming::v1::{StreamInit, streaming_server::Streaming};
use cairn_types::ErrorKind;
use prost_types::Any;
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller,
    status::with,
    streams::{Messages, unpack},
};

#[tonic::async_trait]
impl Streaming for Service {
    type StreamStream = Messages;

    async fn stream(
        &self,
        request: Request<tonic::Streaming<Any>>,
    ) -> Result<Response<Messages>, Status> {
        let (ns, lease) = (
            caller::any(request.metadata()),
            caller::lease(request.metadata()),
        );
        let mut incoming = request.into_inner();
        let begun = |what: &str| with(ErrorKind::InvalidArgument, what);
        let Some(first) = incoming.message().await? else {
            return Err(begun("a stream begins with its id"));
        };
        let Some(init) = unpack::<StreamInit>(&first) else {
            let message = format!("a stream begins with its id, not with {}", first.type_url);
            return Err(begun(&message));
        };
        let messages = self.streams.open((ns, init?.id), lease, incoming)?;
        let idle = messages.idle();
        let mut response = Response::new(messages);
        // A daemon that stops lets what is under way come to its end. This is not, before it is taken.
        response.extensions_mut().insert(idle);
        Ok(response)
    }
}
