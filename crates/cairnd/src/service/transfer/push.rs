//! From the store to a registry.

use std::sync::Arc;

use cairn_node::PushRequest;
use cairn_proto::containerd::types::transfer::{ImageStore, OciRegistry};
use cairn_types::ImageName;
use tonic::Status;

use super::{Work, platforms::platform, progress::Way, registry::Distant};
use crate::{
    convert,
    status::{blocking, of_failure},
    transfers,
};

/// Sends the image that `from` names.
pub(super) async fn push(work: Arc<Work>, from: ImageStore, to: OciRegistry) -> Result<(), Status> {
    let Distant {
        name: remote_name,
        remote,
        title,
    } = Distant::of(&work, to)?;
    let name = convert::known(ImageName::parse(&from.name))?;
    let platforms = from.platforms.iter().map(platform);
    let platforms = platforms.collect::<Result<_, _>>()?;
    blocking(move || {
        let Work {
            node,
            caller,
            teller,
            ..
        } = &*work;
        let known = node.image_get(&caller.ns, &name).map_err(of_failure)?;
        teller.say(format!("Pushing to {title}"));
        teller.image("pushing content", name.as_str(), &known.target);
        let request = PushRequest {
            ns: caller.ns.clone(),
            name: name.clone(),
            manifest: None,
            remote_name,
            remote,
            platforms,
            allow_non_distributable: false,
        };
        let listener = teller.listen(Way::Up).named(name.as_str());
        let pushed = transfers::push(node, request, &listener);
        let pushed = pushed.map_err(of_failure)?;
        // As of a pull the named ones come last, and what is worth reading just before them.
        teller.done(format!("Completed push to {title}"), &pushed.target);
        if let Some(platform) = &pushed.only_platform {
            let digest = &pushed.target.digest;
            teller.say(format!(
                "{title} is {platform} alone, {digest}: no other is here"
            ));
        }
        teller.image("pushed content", name.as_str(), &pushed.target);
        Ok(())
    })
    .await
}
