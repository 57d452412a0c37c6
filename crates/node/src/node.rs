//! An open store: its directories, its lock, and what has to be mended first.
//!
//! ```text
//! <root>/           0711, so that a bundle's files can be reached through it and nothing be listed
//!   lock            held by the one process that has the store open
//!   layout          the version of this tree
//!   meta/           0700, the records
//!   content/        blobs and unfinished uploads
//!   snapshots/      0700, unpacked layers
//!   pushes/         0700, what pushes did not finish; made by the first
//!   lost/           0700, what no record spoke of when some were lost; made then
//!   scrub           0600, how far the scrub is and what it has found; made by the first
//! ```

use std::{
    ffi::OsStr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, RwLock},
};

use cairn_content::Content;
pub use cairn_meta::EngineKind;
use cairn_meta::Store;
pub use cairn_snapshot::Options as SnapshotOptions;
use cairn_snapshot::Snapshots;
use cairn_sys::{
    Dir, durable,
    lock::{LockError, RootLock},
    raw,
};
use cairn_types::ErrorKind;
use serde::{Deserialize, Serialize};

use crate::{Failure, RegistryOptions, Sharing, failure::words, lost::Rooms};

/// The version of the tree that this build writes; older ones it could read, newer ones it refuses.
pub const LAYOUT: u32 = 1;
/// A layout file is one line.
const LAYOUT_BYTES_MAX: u64 = 4096;
const ATTEMPTED: &str = "open";

/// What opening needs.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The root directory; made when absent.
    pub root: PathBuf,
    /// Which engine keeps the records.
    pub engine: EngineKind,
    /// What its namespaces let one another have.
    pub sharing: Sharing,
    /// How its snapshots are shown.
    pub snapshots: SnapshotOptions,
    /// Layers of an image that are unpacked side by side, and threads of one that has no others beside it;
    /// 0 for as many as there are processors.
    pub parallel_layers: usize,
    /// Keep no packed layer of what an import unpacks.
    pub discard_layers: bool,
    /// How registries are reached, until [`Node::set_registry`] changes it.
    pub registry: RegistryOptions,
}

impl NodeOptions {
    /// A store whose namespaces share what they have.
    pub fn new(root: PathBuf, engine: EngineKind) -> NodeOptions {
        NodeOptions {
            root,
            engine,
            sharing: Sharing::Shared,
            snapshots: SnapshotOptions::default(),
            parallel_layers: 0,
            discard_layers: false,
            registry: RegistryOptions::default(),
        }
    }
}

/// An open store. Clones share it; the lock on its root lasts until the last one is gone.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

/// Fields are dropped in order: the lock last.
pub(crate) struct Inner {
    content: Content,
    snapshots: Snapshots,
    meta: Store,
    pub(crate) root: PathBuf,
    pub(crate) dir: Dir,
    /// What calls under way rely on.
    pub(crate) pins: Arc<crate::gc::Registry>,
    /// Whose collection it is.
    pub(crate) turns: crate::gc::Turns,
    /// Who is making what.
    pub(crate) claims: crate::claims::Claims,
    /// What pulls are reading.
    pub(crate) documents: crate::pull::Documents,
    pub(crate) listeners: crate::events::Listeners,
    pub(crate) sharing: Sharing,
    pub(crate) parallel_layers: usize,
    /// What is being unpacked.
    pub(crate) unpacking: crate::unpack::cores::Load,
    pub(crate) discard_layers: bool,
    pub(crate) layers: OnceLock<crate::progress::LayerObserver>,
    pub(crate) transfers: OnceLock<crate::progress::TransferObserver>,
    pub(crate) registry: RwLock<Arc<RegistryOptions>>,
    pub(crate) registry_observer: OnceLock<Arc<dyn cairn_registry::Observer>>,
    pub(crate) threads: crate::registries::Threads,
    /// Connections by which blobs come, over all pulls, and their bytes a second.
    pub(crate) places: crate::registries::Places,
    pub(crate) pace: crate::registries::Pace,
    pub(crate) sending: Arc<crate::push::Sending>,
    pub(crate) scrubbed: crate::fsck::scrub::Scrubbed,
    _lock: RootLock,
}

/// What the `layout` file says.
#[derive(Serialize, Deserialize)]
struct Layout {
    layout: u32,
    written_by: String,
}

impl Node {
    /// Opens the store at `options.root`, making it when absent, and recovers what a crash left.
    pub fn open(options: NodeOptions) -> Result<Node, Failure> {
        Node::open_telling(options, &|| ())
    }

    /// As [`Node::open`]. Tells `gets_on` again and again while layers are unpacked that a power cut may have
    /// torn, which can take minutes.
    pub fn open_telling(
        options: NodeOptions,
        gets_on: &(dyn Fn() + Sync),
    ) -> Result<Node, Failure> {
        let root = options.root;
        let open_failure = |err: &dyn cairn_types::Classified| {
            Failure::of(ATTEMPTED, err).object("store", root.display())
        };
        let (dir, lock) = enter(&root)?;
        let sub = |name: &str, mode| own_dir(&root, &dir, name, mode);
        let boot_id = cairn_sys::boot_id().map_err(|err| open_failure(&err))?;
        let meta = Store::open(&sub("meta", 0o700)?, options.engine).map_err(|err| match err {
            cairn_meta::Error::OtherEngine { engine, other, .. } => {
                let reason = format!("its records were written by {other}, not by {engine}");
                Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason)
                    .object("store", root.display())
                    .next(format!("choose {other} as the engine of its metadata"))
            }
            err => open_failure(&err),
        })?;
        let content = Content::open(&sub("content", 0o711)?, meta.clone())
            .map_err(|err| open_failure(&err))?;
        let snapshots = sub("snapshots", 0o700)?;
        let snapshots = Snapshots::open(&snapshots, meta.clone(), boot_id, options.snapshots)
            .map_err(|err| open_failure(&err))?;
        let rooms = Rooms {
            root: &dir,
            meta: &meta,
            content: &content,
            snapshots: &snapshots,
        };
        let swept = rooms.find_lost();
        let recovered = match swept {
            true => snapshots.recover(),
            false => snapshots.recover_unswept(),
        };
        let recovered = recovered.map_err(|err| open_failure(&err))?;
        match swept {
            true => content.sweep().map(drop),
            false => content.open_unswept(),
        }
        .map_err(|err| open_failure(&err))?;
        let scrubbed = crate::fsck::scrub::Scrubbed::read(&dir, &content);
        let node = Node {
            inner: Arc::new(Inner {
                content,
                snapshots,
                meta,
                root,
                dir,
                pins: Arc::default(),
                turns: crate::gc::Turns::default(),
                claims: crate::claims::Claims::default(),
                documents: crate::pull::Documents::default(),
                listeners: crate::events::Listeners::default(),
                sharing: options.sharing,
                parallel_layers: options.parallel_layers,
                unpacking: crate::unpack::cores::Load::default(),
                discard_layers: options.discard_layers,
                layers: OnceLock::new(),
                transfers: OnceLock::new(),
                places: crate::registries::Places::new(options.registry.max_concurrent_downloads),
                pace: crate::registries::Pace::new(options.registry.limit_rate),
                registry: RwLock::new(Arc::new(options.registry)),
                registry_observer: OnceLock::new(),
                threads: crate::registries::Threads::default(),
                sending: Arc::default(),
                scrubbed,
                _lock: lock,
            }),
        };
        node.sweep_uploads()?;
        if !recovered.unproven.is_empty() {
            node.prove(gets_on);
        }
        Ok(node)
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// The same without links, as the kernel and everybody on this host name it.
    pub fn real_root(&self) -> PathBuf {
        let root = self.root();
        root.canonicalize().unwrap_or_else(|_| root.to_owned())
    }

    /// The blobs.
    pub fn content(&self) -> &Content {
        &self.inner.content
    }

    /// The snapshots.
    pub fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    /// The records.
    pub fn meta(&self) -> &Store {
        &self.inner.meta
    }
}

/// Makes the root when it is absent, locks it, and refuses a tree of a newer version.
pub(crate) fn enter(root: &Path) -> Result<(Dir, RootLock), Failure> {
    let failed = |err: &dyn cairn_types::Classified| {
        Failure::of(ATTEMPTED, err).object("store", root.display())
    };
    make_root(root)?;
    let dir = Dir::open(root).map_err(|err| failed(&err))?;
    let stat = dir.self_stat().map_err(|err| failed(&err))?;
    if cairn_sys::is_root() && (stat.st_uid != 0 || stat.st_mode & 0o022 != 0) {
        return Err(not_private(root, "it"));
    }
    let lock = RootLock::acquire(&dir, OsStr::new("lock")).map_err(|err| locked(root, &err))?;
    check_layout(root, &dir)?;
    Ok((dir, lock))
}

/// Opens a directory of the root's, made when it is absent.
pub(crate) fn own_dir(root: &Path, dir: &Dir, name: &str, mode: u32) -> Result<Dir, Failure> {
    let failed = |err: &dyn cairn_types::Classified| {
        Failure::of(ATTEMPTED, err).object("store", root.display())
    };
    let sub = dir
        .create_dir_all_open(name, mode)
        .map_err(|err| failed(&err))?;
    let stat = sub.self_stat().map_err(|err| failed(&err))?;
    if cairn_sys::is_root() && stat.st_uid != 0 {
        return Err(not_private(root, name));
    }
    if stat.st_mode & 0o7777 != mode {
        raw::fchmod(&sub, mode).map_err(|err| failed(&err))?;
    }
    Ok(sub)
}

/// 0711 whatever the umask is: snapshots' parents are 0700, and mounts of bundles need the way.
fn make_root(root: &Path) -> Result<(), Failure> {
    // Mounts are handed out as text, in which such a name cannot be written.
    if root.to_str().is_none() {
        let reason = "its path is not valid UTF-8";
        return Err(Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason)
            .object("store", root.display()));
    }
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(root);
    made.map_err(|err| {
        let (kind, reason) = match err.kind() {
            std::io::ErrorKind::PermissionDenied => (ErrorKind::PermissionDenied, words(&err)),
            std::io::ErrorKind::StorageFull => (ErrorKind::ResourceExhausted, words(&err)),
            std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotADirectory => {
                let reason = "it is not a directory".to_owned();
                (ErrorKind::FailedPrecondition, reason)
            }
            _ => (ErrorKind::Internal, words(&err)),
        };
        Failure::new(kind, ATTEMPTED, reason)
            .object("store", root.display())
            .next("choose another directory: --root DIR")
    })
}

/// Whoever may rename what is in the store decides what root unpacks and runs.
fn not_private(root: &Path, what: &str) -> Failure {
    let reason = format!("others than root may write to {what}");
    Failure::new(ErrorKind::PermissionDenied, ATTEMPTED, reason)
        .object("store", root.display())
        .next("choose another directory: --root DIR")
}

fn locked(root: &Path, err: &LockError) -> Failure {
    let failure = match err {
        LockError::Held { pid, program } => {
            let by = match pid {
                Some(pid) => format!("locked by {program} (pid {pid})"),
                None => "locked by another process".to_owned(),
            };
            let failure = Failure::new(ErrorKind::Unavailable, ATTEMPTED, by);
            match program.as_str() {
                "cairnd" => failure
                    .next("leave out --root to talk to it")
                    .next("systemctl stop cairnd"),
                _ => failure.next("run the same command again when that has ended"),
            }
        }
        other => Failure::of(ATTEMPTED, other),
    };
    failure.object("store", root.display())
}

/// This program and its version.
pub(crate) fn written_by() -> String {
    format!("cairn {}", env!("CARGO_PKG_VERSION"))
}

/// Refuses a tree that a newer version wrote, and marks a new one as ours.
fn check_layout(root: &Path, dir: &Dir) -> Result<(), Failure> {
    let name = OsStr::new("layout");
    let failed =
        |err: &cairn_sys::Error| Failure::of(ATTEMPTED, err).object("store", root.display());
    if dir.try_stat(name).map_err(|err| failed(&err))?.is_none() {
        let layout = Layout {
            layout: LAYOUT,
            written_by: written_by(),
        };
        let mut bytes = serde_json::to_vec(&layout).expect("a struct of plain fields serialises");
        bytes.push(b'\n');
        return durable::write_file(dir, name, &bytes, 0o644).map_err(|err| failed(&err));
    }
    let bytes = dir
        .read_file(name, LAYOUT_BYTES_MAX)
        .map_err(|err| failed(&err))?;
    let layout: Layout = serde_json::from_slice(&bytes).map_err(|err| {
        Failure::new(ErrorKind::DataLoss, ATTEMPTED, "its layout file is damaged")
            .object("store", root.display())
            .cause(err.to_string())
            .at(root.join("layout").display().to_string())
            .next("restore that file from a backup")
    })?;
    if layout.layout > LAYOUT {
        let reason = format!(
            "store layout {}, this cairnd reads up to {LAYOUT}",
            layout.layout
        );
        let newer = layout.written_by.split(' ').next_back().unwrap_or_default();
        // Layouts do not change between versions that differ only behind the second dot.
        let newer: Vec<&str> = newer.split('.').take(2).collect();
        return Err(
            Failure::new(ErrorKind::FailedPrecondition, ATTEMPTED, reason)
                .object("store", root.display())
                .cause(format!("last written by {}", layout.written_by))
                .next(format!("install cairn >= {}", newer.join(".")))
                .next("go back: man cairnd, DOWNGRADE"),
        );
    }
    Ok(())
}
