//! `Streaming`: streams that other calls use (containerd `plugins/services/streaming`).

use std::time::Duration;

use cairn_node::Node;
use cairn_proto::containerd::services::streaming::v1::{StreamInit, streaming_server::Streaming};
use cairn_types::{ErrorKind, Namespace};
use prost_types::Any;
use tonic::{Request, Response, Status};

use super::Service;
use crate::{
    caller, convert,
    status::{of_failure, with},
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
        let key = (ns.clone(), init?.id);
        let mut messages = self.streams.open(key, lease.clone(), incoming)?;
        if let Some(lease) = lease {
            // Whoever deletes it from now on finds the stream that is to go with it.
            if let Some(left) = self.left(ns, lease).await? {
                messages.end_after(left);
            }
        }
        let idle = messages.idle();
        let mut response = Response::new(messages);
        // A daemon that stops lets what is under way come to its end. This is not, before it is taken.
        response.extensions_mut().insert(idle);
        Ok(response)
    }
}

impl Service {
    /// How long a lease lasts, if it ends by itself.
    ///
    /// # Errors
    /// `NotFound` when there is none of this name.
    async fn left(&self, ns: String, lease: String) -> Result<Option<Duration>, Status> {
        let ns = convert::known(Namespace::parse(&ns))?;
        let look = move |node: &Node| node.lease(&ns, &lease).map_err(of_failure);
        Ok(self.look(look).await?.left())
    }
}
