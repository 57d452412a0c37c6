//! From the store to the store: another name for an image.

use cairn_meta::ImageRecord;
use cairn_node::{Caller, Node};
use cairn_proto::containerd::types::transfer::{ImageReference, ImageStore};
use cairn_types::{Descriptor, Digest, ErrorKind, ImageName, Labels};
use tonic::Status;

use crate::{
    calls::about,
    convert,
    service::Service,
    status::{blocking, of_failure, with},
};

/// Names the image that `from` says as `to` says, with the labels of `to`.
pub(super) async fn tag(
    service: &Service,
    caller: Caller,
    from: ImageStore,
    to: ImageStore,
) -> Result<(), Status> {
    let name = convert::known(ImageName::parse(&from.name))?;
    about("image", &name);
    let node = service.node.clone();
    blocking(move || {
        let known = node.image_get(&caller.ns, &name).map_err(of_failure)?;
        for name in names(&to, &known.target.digest)? {
            store(&node, &caller, &name, &known.target, &to.labels)?;
        }
        Ok(())
    })
    .await
}

/// What an image is to be called; prefixes are for what an archive says.
fn names(store: &ImageStore, digest: &Digest) -> Result<Vec<ImageName>, Status> {
    let whole = |reference: &&ImageReference| !reference.is_prefix;
    let others = store.extra_references.iter().filter(whole);
    let others = others.map(|reference| match reference.add_digest {
        true => format!("{}@{digest}", reference.name),
        false => reference.name.clone(),
    });
    let own = Some(store.name.clone()).filter(|name| !name.is_empty());
    let names = own.into_iter().chain(others);
    let names: Vec<ImageName> = names
        .map(|name| convert::name(ImageName::parse(&name)))
        .collect::<Result<_, _>>()?;
    if names.is_empty() {
        return Err(with(ErrorKind::NotFound, "no image name found"));
    }
    Ok(names)
}

/// Makes an image, or gives one that is there this target and these labels.
fn store(
    node: &Node,
    caller: &Caller,
    name: &ImageName,
    target: &Descriptor,
    labels: &Labels,
) -> Result<(), Status> {
    loop {
        match node.image_create(caller, name, target.clone(), labels.clone(), None) {
            Ok(_) => return Ok(()),
            Err(failure) if failure.kind == ErrorKind::AlreadyExists => {}
            Err(failure) => return Err(of_failure(failure)),
        }
        let (target, labels) = (target.clone(), labels.clone());
        let change = move |record: &mut ImageRecord| {
            record.target = target;
            record.labels = labels;
        };
        match node.image_update(caller, name, Box::new(change)) {
            Ok(_) => return Ok(()),
            // Removed since.
            Err(failure) if failure.kind == ErrorKind::NotFound => {}
            Err(failure) => return Err(of_failure(failure)),
        }
    }
}
