//! The only door to the store. Today it is in this process; a socket can come between here, and no
//! other module will notice.
//!
//! Nothing else names the types of the store but through what is re-exported here, and nothing
//! leaves here but documents and problems.

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_node::{Failure, GcReport, Node, NodeOptions};
use cairn_types::{ErrorKind, Namespace};
use jiff::Timestamp;

pub use cairn_node::{BundleRequest, Event, Net, Phase, Progress, Removed, Silent, Source, Tagged};

use crate::{args::Global, error::Problem, model, out::Out};

mod bundle;
mod door;
mod events;
mod images;
mod inspect;
mod labels;
mod layers;
mod leases;
#[allow(dead_code, reason = "verbs move there one by one")]
mod link;
mod namespaces;
mod objects;
mod plain;
mod plugins;
mod status;
mod uploads;

pub use images::{ExportOptions, ImportOptions, NewImage};
pub use inspect::Details;
pub use layers::{DiffOptions, kept};
pub use uploads::{Stored, Upload};

use link::Link;

type Result<T> = std::result::Result<T, Problem>;

/// How long after an import its layers are put on the disk. By then the kernel has written their
/// pages of its own accord (it does so after 30 s), so that there is next to nothing to wait for.
const SETTLE_AGE: Duration = Duration::from_secs(60);

/// The store that this process has open, for [`settle`].
static OPENED: Mutex<Option<Node>> = Mutex::new(None);

fn opened() -> MutexGuard<'static, Option<Node>> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is left to do for the store when the answer has been given. Its failure changes no answer.
pub fn settle(out: &Out) {
    let Some(node) = opened().take() else { return };
    match node.settle(SETTLE_AGE) {
        Ok(false) => {}
        Ok(true) => out.trace("put unpacked layers on the disk"),
        Err(failure) => out.trace(format!("warning: {failure}")),
    }
}

/// An open store, seen from one namespace.
pub struct Client {
    // Before the store, which its server uses.
    #[allow(dead_code, reason = "verbs move there one by one")]
    link: Link,
    node: Node,
    ns: Namespace,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Problem {
        let mut problem = Problem::new(failure.kind, &failure.attempted, "", &*failure.reason);
        problem.object = failure.object.clone();
        // `default (2 images; …)`: no namespace has a blank in its name.
        let named = failure.namespace.as_deref().map(|text| {
            let parts = text
                .strip_suffix(')')
                .and_then(|text| text.split_once(" ("));
            parts.map_or((text, None), |(name, note)| (name, Some(note)))
        });
        problem.namespace = named.map(|(name, _)| name.to_owned());
        problem.namespace_note = named.and_then(|(_, note)| note).map(str::to_owned);
        problem.found_in = failure.found_in.clone();
        problem.causes = failure.causes.clone();
        problem.location = failure.location.clone();
        problem.next = failure.next.clone();
        problem
    }
}
impl Client {
    /// Opens what the global flags point at.
    pub fn open(global: &Global) -> Result<Client> {
        Client::check_address(global)?;
        door::check_root(&global.root)?;
        // One that was opened before holds the lock.
        drop(opened().take());
        let engine = door::engine()?;
        tracing::info!("open store {}, {}", global.root.display(), engine.name());
        let node = Node::open(NodeOptions {
            root: global.root.clone(),
            engine,
        })?;
        *opened() = Some(node.clone());
        let link = Link::inside(&node, global.namespace.clone()).map_err(|err| {
            let reason = "the server inside this process does not start";
            Problem::new(
                ErrorKind::Internal,
                "open",
                &global.root.display().to_string(),
                reason,
            )
            .cause(err.to_string())
        })?;
        Ok(Client {
            link,
            node,
            ns: global.namespace.clone(),
        })
    }

    /// Fails when a daemon was asked for: this program speaks to none yet.
    pub fn check_address(global: &Global) -> Result<()> {
        match &global.address {
            Some(socket) => Err(door::unreachable_daemon(socket, global.connect_timeout)),
            None => Ok(()),
        }
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        self.node.root()
    }

    /// Whose images these are.
    pub fn namespace(&self) -> &Namespace {
        &self.ns
    }

    /// Where the space went.
    pub fn df(&self) -> Result<Vec<model::Usage>> {
        let row = |row: cairn_node::UsageRow| model::Usage {
            kind: row.kind.to_owned(),
            total: row.total,
            active: row.active,
            size: row.size,
            reclaimable: row.reclaimable,
        };
        Ok(self.node.df()?.into_iter().map(row).collect())
    }

    /// Removes what nothing leads to.
    pub fn gc(&self, dry_run: bool) -> Result<model::Gc> {
        Ok(gc(&self.node.gc(dry_run)?))
    }

    /// All namespaces that hold anything.
    pub fn namespaces(&self) -> Result<Vec<Namespace>> {
        Ok(self.node.namespaces()?)
    }
}

fn gc(report: &GcReport) -> model::Gc {
    let pick = |part: fn(&cairn_node::GcCount) -> u64| model::Removed {
        images: part(&report.images),
        content: part(&report.content),
        snapshots: part(&report.snapshots),
        ingests: part(&report.ingests),
        leases: part(&report.leases),
    };
    model::Gc {
        dry_run: report.dry_run,
        removed: pick(|c| c.removed),
        freed_bytes: report.freed(),
        wall_ms: u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        freed: pick(|c| c.freed),
    }
}

/// A moment from its nanoseconds since 1970; one outside of what a calendar holds is its start.
fn moment(nanos: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(Timestamp::UNIX_EPOCH)
}
