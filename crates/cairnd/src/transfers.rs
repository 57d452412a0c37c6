//! Pulls and pushes, by whichever API they are asked for: done, counted, and told to the log once they
//! are through. How one failed is told by whoever answers its call.

use std::time::Instant;

use cairn_node::{Failure, Node, Progress, PullRequest, Pulled, PushRequest, Pushed, Transfer};
use tracing::info;

use crate::{calls::about, traces};

/// Fetches an image.
pub(crate) fn pull(
    node: &Node,
    request: PullRequest,
    progress: &dyn Progress,
) -> Result<Pulled, Failure> {
    let name = request.name.clone();
    about("image", &name);
    let began = Instant::now();
    let pulled = node.transfer(Transfer::Pull, |node| node.pull(request, progress))?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let digest = pulled.images.first().map(|image| &image.target.digest);
    if let Some(digest) = digest {
        about("digest", digest);
        traces::manifest(digest);
    }
    info!(
        image = %name,
        digest = digest.map(display),
        bytes = pulled.fetched_bytes,
        ms,
        "pulled"
    );
    Ok(pulled)
}

/// Sends an image.
pub(crate) fn push(
    node: &Node,
    request: PushRequest,
    progress: &dyn Progress,
) -> Result<Pushed, Failure> {
    let name = request.remote_name.clone();
    about("image", &name);
    let began = Instant::now();
    let pushed = node.transfer(Transfer::Push, |node| node.push(request, progress))?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    let digest = &pushed.target.digest;
    about("digest", digest);
    traces::manifest(digest);
    let only_platform = pushed.only_platform.as_deref();
    info!(image = %name, %digest, only_platform, bytes = pushed.sent_bytes, ms, "pushed");
    Ok(pushed)
}
