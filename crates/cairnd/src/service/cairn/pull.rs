//! `Images.Pull`: an image of a registry, whose hosts are shown what the client has for them.

use std::sync::Arc;

use cairn_node::{Caller, Node, PullRequest as Pull};
use cairn_proto::cairn::v1::{
    self, PullOptions, PullRequest, PullResponse, pull_request::Part, pull_response,
};
use cairn_types::ImageName;
use tonic::{Status, Streaming};

use super::{
    Answers,
    credentials::{self, Asked},
    parsed,
    progress::{self, Sender, Teller},
    refused, registry, wire,
};
use crate::{details, transfers};

const ATTEMPTED: &str = "pull image";

/// The answers to a stream that brings options, and after them credentials as they are asked for.
pub(super) fn answers(
    node: Node,
    caller: Caller,
    messages: Streaming<PullRequest>,
) -> Answers<PullResponse> {
    progress::converse(|send| run(node, caller, messages, send))
}

async fn run(
    node: Node,
    caller: Caller,
    mut messages: Streaming<PullRequest>,
    send: Sender<PullResponse>,
) -> Result<(), Status> {
    let first = messages.message().await?.and_then(|message| message.part);
    let Some(Part::Options(options)) = first else {
        return Err(refused(ATTEMPTED, "the first message must have options"));
    };
    let answer = |part| PullResponse { part: Some(part) };
    let asked = Asked::new(send, |question| PullResponse {
        part: Some(pull_response::Part::Question(question)),
    });
    let request = request(caller, options, &asked)?;
    let work = move |teller: &Teller<PullResponse>| {
        let pulled = pull(&node, request, teller)?;
        Ok(answer(pull_response::Part::Pulled(pulled)))
    };
    let wrap = |event| PullResponse {
        part: Some(pull_response::Part::Progress(event)),
    };
    let credential = |message: PullRequest| match message.part {
        Some(Part::Credential(answer)) => Some(answer),
        _ => None,
    };
    credentials::run(&asked, messages, credential, wrap, work).await
}

fn request(
    caller: Caller,
    options: PullOptions,
    asked: &Arc<Asked<PullResponse>>,
) -> Result<Pull, Status> {
    let name = ImageName::parse(&options.name);
    let name = parsed(name, ATTEMPTED, "image", &options.name)?;
    let mut request = Pull::new(caller, name);
    request.remote = registry::remote(options.remote, Arc::clone(asked) as _, ATTEMPTED)?;
    request.platforms = registry::platforms(&options.platforms, ATTEMPTED)?;
    request.all_platforms = options.all_platforms;
    request.unpack = options.unpack;
    request.missing_only = options.missing_only;
    request.sync = options.sync_layers;
    request.labels = options.labels;
    Ok(request)
}

fn pull(node: &Node, request: Pull, teller: &Teller<PullResponse>) -> Result<v1::Pulled, Status> {
    let ns = request.caller.ns.clone();
    let pulled = transfers::pull(node, request, teller).map_err(details::of)?;
    let first = pulled.images.first();
    let image = first.map(|image| node.image(&ns, &image.name).map(wire::image));
    let platform = first.and_then(|image| image.platform.as_ref());
    Ok(v1::Pulled {
        image: image.transpose().map_err(details::of)?,
        platform: platform.map(ToString::to_string).unwrap_or_default(),
        fetched_bytes: pulled.fetched_bytes,
        reused_bytes: pulled.reused_bytes,
        layers: wire::transferred(pulled.layers),
    })
}
