//! The only door to the store: a daemon's socket, or the same server inside this process. Which of
//! them it is, no other module can tell.
//!
//! Nothing else names the types of the wire, and nothing leaves here but documents and problems.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_types::{ErrorKind, Namespace};
use cairnd::embedded::Embedded;

use crate::{args::Global, error::Problem, out::Out};

mod archive;
mod bundle;
mod calls;
mod door;
mod events;
mod fsck;
mod images;
mod inspect;
mod labels;
mod layers;
mod leases;
mod link;
mod mounts;
mod namespaces;
mod objects;
mod plain;
mod plugins;
mod progress;
mod registry;
mod status;
mod store;
mod transfer;
mod uploads;

pub use archive::{ExportOptions, ImportOptions, NewImage, Source};
pub use bundle::{BundleRequest, Net};
pub use inspect::Details;
pub use layers::{DiffOptions, kept};
pub use mounts::MountOptions;
pub use progress::{Event, Phase, Progress};
pub use registry::{Remote, Who, explain_host};
pub use transfer::{PullOptions, PushOptions};
pub use uploads::{Stored, Upload};

use door::Door;
use link::Link;

/// What a call comes back with.
pub type Result<T> = std::result::Result<T, Problem>;

/// How long after an import its layers are put on the disk. By then the kernel has written their
/// pages of its own accord (it does so after 30 s), so that there is next to nothing to wait for.
const SETTLE_AGE: Duration = Duration::from_secs(60);

/// The server that this process has inside it, for [`settle`].
static OPENED: Mutex<Option<Embedded>> = Mutex::new(None);

fn opened() -> MutexGuard<'static, Option<Embedded>> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left to do for the store when the answer has been given. Its failure changes no answer. A
/// daemon does it by itself.
pub fn settle(out: &Out) {
    let Some(server) = opened().take() else {
        return;
    };
    match server.settle(SETTLE_AGE) {
        Ok(false) => {}
        Ok(true) => out.trace("put unpacked layers and small blobs on the disk"),
        Err(status) => out.trace(format!("warning: {}", status::problem(&status))),
    }
}

/// A way to a store, seen from one namespace.
pub struct Client {
    link: Link,
    ns: Namespace,
}

impl Client {
    /// Opens what the global flags point at.
    pub fn open(global: &Global) -> Result<Client> {
        let ns = global.namespace.clone();
        // One that was opened before holds the lock.
        drop(opened().take());
        let link = match door::find(global)? {
            Door::Daemon(link) => link,
            Door::Store(root) => inside(&root, ns.clone())?,
        };
        Ok(Client { link, ns })
    }

    /// Whose images these are.
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }
}

/// Starts a server inside this process.
fn inside(root: &Path, ns: Namespace) -> Result<Link> {
    door::check_root(root)?;
    let engine = door::engine()?;
    tracing::info!("open store {}, {}", root.display(), engine.name());
    let server = Embedded::open(root, engine).map_err(|status| status::problem(&status))?;
    *opened() = Some(server.clone());
    Link::inside(&server, ns).map_err(|err| {
        let reason = "the server inside this process does not start";
        let name = root.display().to_string();
        Problem::new(ErrorKind::Internal, "open", &name, reason).cause(err.to_string())
    })
}

/// Absent where the wire has an empty text.
fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
