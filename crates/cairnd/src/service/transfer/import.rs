//! From an archive into the store.

use std::sync::Arc;

use cairn_node::{ImportRequest, Imported, Source};
use cairn_proto::containerd::types::transfer::{ImageImportStream, ImageStore};
use tonic::Status;
use tracing::{field::display, info};

use super::{
    Work,
    platforms::{self, Taken},
    progress::Way,
    store::Naming,
};
use crate::{
    calls::about,
    status::{blocking, of_failure},
    traces,
};

/// What messages call the archive; its stream has a random name.
const ARCHIVE: &str = "import stream";

/// Stores the images of an archive as `to` says.
///
/// Whether the archive is packed is seen by its bytes. `from` has a media type only to say that it is
/// not, which nobody has to be told.
pub(super) async fn import(
    work: Arc<Work>,
    from: ImageImportStream,
    to: ImageStore,
) -> Result<(), Status> {
    let received = work.received(&from.stream)?;
    let Taken {
        platforms,
        all,
        extent,
        unpack,
    } = platforms::taken(&to)?;
    let source = Source::Stream {
        name: ARCHIVE.to_owned(),
        reader: Box::new(received),
    };
    let request = ImportRequest {
        lease: work.caller.lease.clone(),
        references: Some(Naming::of(&to).references),
        platforms,
        all_platforms: all,
        extent,
        unpack,
        compress: from.force_compress,
        labels: to.labels,
        ..ImportRequest::new(work.caller.ns.clone(), source)
    };
    blocking(move || {
        let Work { node, teller, .. } = &*work;
        teller.say("Importing");
        let imported = node.import(request, &teller.listen(Way::In));
        let imported = imported.map_err(of_failure)?;
        let images = imported.iter().map(|image| (&image.name, &image.target));
        teller.saved(images);
        teller.say("Completed import");
        log(&imported, work.ms());
        Ok(())
    })
    .await
}

fn log(imported: &[Imported], ms: f64) {
    let bytes: u64 = imported.iter().map(|image| image.content_size).sum();
    // A line has room for one, and so has a span.
    let one = match imported {
        [one] => Some(one),
        _ => None,
    };
    let digest = one.map(|one| display(&one.target.digest));
    info!(
        archive = ARCHIVE,
        images = imported.len(),
        digest,
        bytes,
        ms,
        "imported"
    );
    if let Some(one) = one {
        about("image", &one.name);
        about("digest", &one.target.digest);
        traces::manifest(&one.target.digest);
    }
}
