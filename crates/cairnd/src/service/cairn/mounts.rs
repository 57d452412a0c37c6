//! `Images.PrepareMount` and its fellows: what an image's mount needs of the store.

use cairn_meta::Timestamp;
use cairn_node::{Failure, MountInfo, MountOrder, Node};
use cairn_proto::cairn::v1::{
    GetMountRequest, GetMountResponse, PrepareMountRequest, PrepareMountResponse, PreparedMount,
    ReleaseMountRequest, prepare_mount_response::Part,
};
use cairn_types::{Classified, ErrorKind, HostDir, ImageName, Namespace, Platform};
use tonic::Status;

use super::{
    Answers, parsed,
    progress::{self, Teller},
};
use crate::{calls::about, convert, details};

const MOUNT: &str = "mount image";
const UNMOUNT: &str = "unmount";

/// The progress of unpacking, and then the mounts.
pub(super) fn prepare(
    node: Node,
    ns: Namespace,
    request: PrepareMountRequest,
) -> Result<Answers<PrepareMountResponse>, Status> {
    let platform: Option<Platform> = match &*request.platform {
        "" => None,
        text => Some(parsed(text.parse(), MOUNT, "platform", text)?),
    };
    let order = MountOrder {
        ns,
        name: parsed(
            ImageName::parse(&request.name),
            MOUNT,
            "image",
            &request.name,
        )?,
        target: directory(&request.target, MOUNT).map_err(details::of)?,
        rw: request.rw,
        platform,
        expires: request.expires_at.map(end),
    };
    about("image", &order.name);
    let wrap = |event| PrepareMountResponse {
        part: Some(Part::Progress(event)),
    };
    let work = move |teller: &Teller<PrepareMountResponse>| {
        let prepared = node.prepare_mount(&order, teller).map_err(details::of)?;
        Ok(PrepareMountResponse {
            part: Some(Part::Prepared(PreparedMount {
                key: prepared.key.to_string(),
                mounts: convert::to_mounts(prepared.mounts),
                reused: prepared.reused,
            })),
        })
    };
    Ok(progress::start(wrap, work))
}

/// What our records have no number for is far enough away.
fn end(at: prost_types::Timestamp) -> Timestamp {
    convert::moment(Some(at)).unwrap_or(Timestamp(i64::MAX))
}

/// What stands behind a mount point.
pub(super) fn get(
    node: &Node,
    ns: &Namespace,
    request: GetMountRequest,
) -> Result<GetMountResponse, Failure> {
    let target = directory(&request.target, UNMOUNT)?;
    let Some(MountInfo {
        key,
        writable,
        mounts,
        ..
    }) = node.mount(ns, &target)?
    else {
        let reason = "it was not mounted by cairn in this namespace";
        return Err(Failure::new(ErrorKind::NotFound, UNMOUNT, reason)
            .object("directory", target)
            .namespace(ns));
    };
    Ok(GetMountResponse {
        key: key.to_string(),
        writable,
        mounts: convert::to_mounts(mounts),
    })
}

/// Lets go of it.
pub(super) fn release(
    node: &Node,
    ns: &Namespace,
    request: ReleaseMountRequest,
) -> Result<(), Failure> {
    let target = directory(&request.target, UNMOUNT)?;
    node.release_mount(ns, &target, request.remove)
}

fn directory(text: &str, attempted: &str) -> Result<HostDir, Failure> {
    HostDir::parse(text).map_err(|err| {
        Failure::new(err.kind(), attempted, err.to_string()).object("directory", text)
    })
}
