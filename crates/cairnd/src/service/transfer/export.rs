//! From the store into an archive.

use std::io::Write;

use cairn_node::{Caller, ExportRequest, Silent};
use cairn_proto::containerd::types::{
    self,
    transfer::{ImageExportStream, ImageStore},
};
use cairn_types::{ErrorKind, ImageName, Platform};
use tonic::Status;

use crate::{
    convert,
    service::Service,
    status::{blocking, of_failure, with},
    streams::Sent,
};

/// Bytes that are gathered before they are sent: tar writes headers of 512.
const GATHERED: usize = 32 << 10;

/// Writes the images that `from` names to the stream of `to`.
pub(super) async fn export(
    service: &Service,
    caller: Caller,
    from: ImageStore,
    to: ImageExportStream,
) -> Result<(), Status> {
    if let Some(prefix) = from.extra_references.iter().find(|other| other.is_prefix) {
        let message = format!("export by prefix {:?}", prefix.name);
        return Err(with(ErrorKind::Unimplemented, message));
    }
    let own = Some(&from.name).filter(|name| !name.is_empty());
    let others = from.extra_references.iter().map(|other| &other.name);
    let names = own.into_iter().chain(others);
    let names = names
        .map(|name| convert::known(ImageName::parse(name)))
        .collect::<Result<Vec<_>, _>>()?;
    let platforms = to
        .platforms
        .iter()
        .map(platform)
        .collect::<Result<Vec<_>, _>>()?;
    let pipe = service.streams.take(caller.ns.as_str(), &to.stream)?;
    let node = service.node.clone();
    let sent = Sent::new(pipe);
    blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(GATHERED, sent);
        let request = ExportRequest {
            ns: caller.ns,
            out: &mut out,
            names,
            platforms,
            all_platforms: to.all_platforms,
            skip_manifest_json: to.skip_compatibility_manifest,
            skip_non_distributable: to.skip_non_distributable,
            only_attestations: false,
        };
        node.export(request, &Silent).map_err(of_failure)?;
        out.flush()
            .map_err(|err| with(ErrorKind::Canceled, err.to_string()))
    })
    .await
}

fn platform(wire: &types::Platform) -> Result<Platform, Status> {
    let mut text = format!("{}/{}", wire.os, wire.architecture);
    if !wire.variant.is_empty() {
        text.push('/');
        text.push_str(&wire.variant);
    }
    convert::name(text.parse())
}
