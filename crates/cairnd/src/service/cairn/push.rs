//! `Images.Push`: an image to a registry, which is shown what the client has for it.

use std::sync::Arc;

use cairn_node::{Node, PushRequest as Push};
use cairn_proto::cairn::v1::{
    self, PushOptions, PushRequest, PushResponse, push_request::Part, push_response,
};
use cairn_types::{ImageName, Namespace};
use tonic::{Status, Streaming};

use super::{
    Answers,
    credentials::{self, Asked},
    parsed,
    progress::{self, Sender, Teller},
    refused, registry, wire,
};
use crate::{convert, details, transfers};

const ATTEMPTED: &str = "push image";

/// The answers to a stream that brings options, and after them credentials as they are asked for.
pub(super) fn answers(
    node: Node,
    ns: Namespace,
    messages: Streaming<PushRequest>,
) -> Answers<PushResponse> {
    progress::converse(|send| run(node, ns, messages, send))
}

async fn run(
    node: Node,
    ns: Namespace,
    mut messages: Streaming<PushRequest>,
    send: Sender<PushResponse>,
) -> Result<(), Status> {
    let first = messages.message().await?.and_then(|message| message.part);
    let Some(Part::Options(options)) = first else {
        return Err(refused(ATTEMPTED, "the first message must have options"));
    };
    let asked = Asked::new(send, |question| PushResponse {
        part: Some(push_response::Part::Question(question)),
    });
    let request = request(ns, options, &asked)?;
    let work = move |teller: &Teller<PushResponse>| {
        let pushed = push(&node, request, teller)?;
        Ok(PushResponse {
            part: Some(push_response::Part::Pushed(pushed)),
        })
    };
    let wrap = |event| PushResponse {
        part: Some(push_response::Part::Progress(event)),
    };
    let credential = |message: PushRequest| match message.part {
        Some(Part::Credential(answer)) => Some(answer),
        _ => None,
    };
    credentials::run(&asked, messages, credential, wrap, work).await
}

fn request(
    ns: Namespace,
    options: PushOptions,
    asked: &Arc<Asked<PushResponse>>,
) -> Result<Push, Status> {
    let image = |text: &str| parsed(ImageName::parse(text), ATTEMPTED, "image", text);
    let digest = |text: &str| parsed(text.parse(), ATTEMPTED, "manifest", text);
    let mut remote = registry::remote(options.remote, Arc::clone(asked) as _, ATTEMPTED)?;
    remote.max_concurrent = usize::try_from(options.max_concurrent_uploads).unwrap_or(usize::MAX);
    Ok(Push {
        ns,
        name: image(&options.name)?,
        manifest: match &*options.manifest {
            "" => None,
            text => Some(digest(text)?),
        },
        remote_name: image(&options.remote_name)?,
        remote,
        platforms: registry::platforms(&options.platforms, ATTEMPTED)?,
        allow_non_distributable: options.allow_non_distributable,
    })
}

fn push(node: &Node, request: Push, teller: &Teller<PushResponse>) -> Result<v1::Pushed, Status> {
    let (ns, name) = (request.ns.clone(), request.name.clone());
    let pushed = transfers::push(node, request, teller).map_err(details::of)?;
    let image = node.image(&ns, &name).map_err(details::of)?;
    Ok(v1::Pushed {
        image: Some(wire::image(image)),
        target: Some(convert::to_descriptor(&pushed.target)),
        only_platform: pushed.only_platform.unwrap_or_default(),
        sent_bytes: pushed.sent_bytes,
        reused_bytes: pushed.reused_bytes,
        layers: wire::transferred(pushed.layers),
    })
}
