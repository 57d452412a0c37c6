//! From the store into an archive.

use std::sync::Arc;

use cairn_node::ExportRequest;
use cairn_proto::containerd::types::transfer::{ImageExportStream, ImageStore};
use cairn_types::{ErrorKind, ImageName};
use tonic::Status;
use tracing::info;

use super::{Work, platforms::platform};
use crate::{
    calls::about,
    convert,
    status::{blocking, of_failure, with},
    streams::Whole,
};

/// Writes the images that `from` names to the stream of `to`.
pub(super) async fn export(
    work: Arc<Work>,
    from: ImageStore,
    to: ImageExportStream,
) -> Result<(), Status> {
    // It is found before the images are, as with containerd; and it is closed if they are not.
    let sent = work.sent(&to.stream)?;
    let names = names(&from)?;
    if let [one] = &*names {
        about("image", one);
    }
    let platforms = to.platforms.iter().map(platform);
    let platforms = platforms.collect::<Result<_, _>>()?;
    blocking(move || {
        work.teller.say("Exporting");
        let images = names.len();
        let mut out = Whole::new(sent);
        let request = ExportRequest {
            ns: work.caller.ns.clone(),
            out: &mut out,
            names,
            platforms,
            // containerd takes what suits any of them.
            any_platform: true,
            all_platforms: to.all_platforms,
            skip_manifest_json: to.skip_compatibility_manifest,
            skip_non_distributable: to.skip_non_distributable,
            only_attestations: false,
        };
        // Of the blobs of an archive the client hears by its bytes.
        let listener = cairn_node::Silent;
        let bytes = work.node.export(request, &listener).map_err(of_failure)?;
        let ended = out.end();
        ended.map_err(|err| with(ErrorKind::Canceled, err.to_string()))?;
        work.teller.say("Completed export");
        info!(images, bytes, ms = work.ms(), "exported");
        Ok(())
    })
    .await
}

/// The images that a store names.
fn names(store: &ImageStore) -> Result<Vec<ImageName>, Status> {
    let mut more = store.extra_references.iter();
    if let Some(prefix) = more.clone().find(|other| other.is_prefix) {
        let message = format!("export by prefix {:?}", prefix.name);
        return Err(with(ErrorKind::Unimplemented, message));
    }
    let own = Some(&store.name).filter(|name| !name.is_empty());
    let names = own
        .into_iter()
        .chain(more.by_ref().map(|other| &other.name));
    let names = names.map(|name| convert::known(ImageName::parse(name)));
    names.collect()
}
