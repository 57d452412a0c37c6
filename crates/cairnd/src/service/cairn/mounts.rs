//! `Images.PrepareMount` and its fellows: what an image's mount needs of the store.

use cairn_node::{Failure, Node};
use cairn_proto::cairn::v1::{
    GetMountRequest, GetMountResponse, PrepareMountRequest, PrepareMountResponse,
    ReleaseMountRequest,
};
use cairn_types::{ErrorKind, Namespace};
use tonic::Status;

use super::Answers;
use crate::details;

pub(super) fn prepare(
    _: Node,
    _: Namespace,
    _: PrepareMountRequest,
) -> Result<Answers<PrepareMountResponse>, Status> {
    Err(details::of(unserved("mount image")))
}

pub(super) fn get(
    _: &Node,
    _: &Namespace,
    _: GetMountRequest,
) -> Result<GetMountResponse, Failure> {
    Err(unserved("find mount"))
}

pub(super) fn release(_: &Node, _: &Namespace, _: ReleaseMountRequest) -> Result<(), Failure> {
    Err(unserved("unmount"))
}

fn unserved(attempted: &str) -> Failure {
    let reason = "this server does not serve mounts";
    Failure::new(ErrorKind::Unimplemented, attempted, reason)
}
