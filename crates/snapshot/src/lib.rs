//! The overlayfs snapshotter: prepare, view, commit, remove, mounts, usage.
//!
//! ```text
//! <root>/snapshots/            0700
//!   <id>/                      0700: no unprivileged user reaches a setuid file below
//!     fs/                      0755, the layer's own tree
//!     work/                    0711, overlay's, of snapshots that are mounted writable
//!   trash/                     removed trees on their way out
//! ```
//!
//! Names never enter paths: a snapshot's directory has a number. Files come first and the record
//! second, on removal the record goes first; so a directory without a record is garbage that
//! [`Snapshots::recover`] removes. Nothing is mounted here, and no tree is written to: whoever
//! unpacks a layer gets an empty directory ([`Snapshots::stage`]) and hands it back filled.
//!
//! Directories to be mounted are not on the disk yet when their record is: they are empty, and a recovery
//! makes them again. A committed layer that can be unpacked again is recorded before its files have reached the disk,
//! and marked so together with the boot: after a power cut exactly those are dropped.
//!
//! Records of several namespaces may stand on one directory ([`Snapshots::share`]). It goes with the last
//! of them.

mod aside;
mod census;
mod check;
mod disk;
mod error;
mod lifecycle;
mod mounts;
mod recover;
mod remover;
mod share;
mod stage;
mod writable;

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use cairn_meta::{ReadOnly, SnapshotRecord, Store, Timestamp, View, schema};
use cairn_sys::{Dir, mount::OVERLAY_LOWER_COUNT_MAX};
use cairn_types::{
    Labels, LayerTiming, Namespace, SnapshotKey, SnapshotKind, Usage, merge_labels, validate_label,
};

pub use self::{
    census::Purpose,
    error::{Error, Result},
    lifecycle::Erased,
    recover::Recovered,
    share::Shared,
    stage::{Staged, StagedLayer},
    writable::{Shown, Writable},
};
use self::{error::sys, remover::Remover};

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Its key, or its name when committed.
    pub key: SnapshotKey,
    /// The number of its directory, which is the same wherever several namespaces share one.
    pub id: u64,
    /// View, active or committed.
    pub kind: SnapshotKind,
    /// What it stands on.
    pub parent: Option<SnapshotKey>,
    /// Set by its users.
    pub labels: Labels,
    /// When it was made, or committed.
    pub created_at: Timestamp,
    /// When its labels were last changed.
    pub updated_at: Timestamp,
    /// Of a committed one: what its own layer takes. Zero for others; see [`Snapshots::usage`].
    pub usage: Usage,
    /// Whether its files are known to be on the disk.
    pub durable: bool,
    /// Of one that was unpacked here: how long that took.
    pub timing: Option<LayerTiming>,
}

/// How snapshots are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What every overlay mount gets besides its directories, as `volatile` or `xino=off`.
    pub mount_options: Vec<String>,
    /// Tell of each snapshot where its own files are, in the label [`UPPERDIR`].
    pub upperdir_label: bool,
}

/// The label by which clients find the files of a snapshot (containerd `plugins/snapshots/overlay`).
pub const UPPERDIR: &str = "containerd.io/snapshot/overlay.upperdir";

/// Options of overlay that say where its layers are, or would leave parts of one in another: the files of
/// such a layer mean nothing without the mount that made them.
const NOT_TO_CHOOSE: [&str; 5] = [
    "lowerdir",
    "upperdir",
    "workdir",
    "redirect_dir",
    "metacopy",
];

impl Options {
    /// The option that snapshots cannot have, if one is among them.
    pub fn refused(&self) -> Option<&str> {
        let key = |option: &&String| option.split('=').next().unwrap_or_default().to_owned();
        let refused = |option: &&String| {
            let key = key(option);
            let layers = key.strip_suffix('+').unwrap_or(&key);
            layers.is_empty() || NOT_TO_CHOOSE.contains(&layers) || option.contains(',')
        };
        self.mount_options.iter().find(refused).map(String::as_str)
    }
}

/// The snapshots. Clones share them; at most one process may have them open.
#[derive(Clone)]
pub struct Snapshots {
    inner: Arc<Inner>,
}

struct Inner {
    meta: Store,
    root: Dir,
    /// Of `root`, absolute: it becomes part of mounts.
    path: PathBuf,
    trash: Dir,
    remover: Remover,
    boot_id: String,
    ids: Mutex<Vec<u64>>,
    /// The lowest number that was taken since the opening.
    first_id: Mutex<Option<u64>>,
    /// Held by who puts a tree in the place of another.
    replacing: Mutex<()>,
    /// Numbers under which trees are kept that others have taken the place of.
    replaced: Mutex<HashSet<u64>>,
    sync: disk::Sync,
    /// Committed, and not known to be on the disk.
    pending: Mutex<HashMap<(Namespace, SnapshotKey), Waiting>>,
    /// The trees, by number, that a recovery found to be unproven and left.
    unproven: Mutex<HashMap<(Namespace, SnapshotKey), u64>>,
    /// Held by who puts a tree in the place of an unproven one, until its record says so.
    renewing: Mutex<()>,
    /// What every overlay mount gets.
    options: Vec<String>,
    upperdir_label: bool,
}

/// A tree that is to be put on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiting {
    /// Its directory's number: the name alone may come to mean another tree.
    tree: u64,
    /// When its record was made.
    since: Timestamp,
}

impl Waiting {
    fn of(record: &SnapshotRecord) -> Waiting {
        Waiting {
            tree: record.id,
            since: record.created_at,
        }
    }
}

type Chain = Vec<(SnapshotKey, SnapshotRecord)>;

impl Snapshots {
    /// Opens the snapshots in `root`. `boot_id` is new with each boot. Call [`Snapshots::recover`]
    /// before first using them.
    pub fn open(root: &Dir, meta: Store, boot_id: String, options: Options) -> Result<Snapshots> {
        let attempted = || format!("open snapshots in {}", root.path().display());
        let path = std::fs::canonicalize(root.path()).map_err(|err| {
            let path = root.path().display().to_string();
            sys(attempted())(cairn_sys::Error::of_io("realpath", path, &err))
        })?;
        let trash = root
            .create_dir_all_open(disk::TRASH, 0o700)
            .map_err(sys(attempted()))?;
        let upperdir_label = options.upperdir_label;
        let mut options = options.mount_options;
        let chosen = |option: &String| option == "index" || option.starts_with("index=");
        if cairn_sys::mount::overlay_supports_index_off() && !options.iter().any(chosen) {
            options.push("index=off".to_owned());
        }
        Ok(Snapshots {
            inner: Arc::new(Inner {
                meta,
                remover: Remover::new(root.clone(), trash.clone()),
                root: root.clone(),
                path,
                trash,
                boot_id,
                ids: Mutex::default(),
                first_id: Mutex::default(),
                replacing: Mutex::default(),
                replaced: Mutex::default(),
                sync: disk::Sync::default(),
                pending: Mutex::default(),
                unproven: Mutex::default(),
                renewing: Mutex::default(),
                options,
                upperdir_label,
            }),
        })
    }

    /// Why no trees are committed any more, if that is so.
    pub fn read_only(&self) -> Option<&ReadOnly> {
        self.inner.sync.broken()
    }

    /// What is known of a snapshot.
    pub fn stat(&self, ns: &Namespace, key: &SnapshotKey) -> Result<SnapshotInfo> {
        let record = self.record(ns, key)?;
        Ok(self.info(key.clone(), record))
    }

    /// All snapshots of a namespace, by key.
    pub fn list(&self, ns: &Namespace) -> Result<Vec<SnapshotInfo>> {
        self.inner.meta.read(|view| {
            let records = view.scan(&schema::SNAPSHOTS, ns)?;
            Ok(records
                .into_iter()
                .map(|((_, key), record)| self.info(key, record))
                .collect())
        })
    }

    /// What a snapshot's own layer takes: measured for an active one, as of its commit for a
    /// committed one, nothing for a view.
    pub fn usage(&self, ns: &Namespace, key: &SnapshotKey) -> Result<Usage> {
        let record = self.record(ns, key)?;
        match record.kind {
            SnapshotKind::View => Ok(Usage::default()),
            SnapshotKind::Committed => Ok(record.usage),
            SnapshotKind::Active => self.measure(key, record.id),
        }
    }

    fn measure(&self, key: &SnapshotKey, id: u64) -> Result<Usage> {
        self.tree(key, id)?
            .usage()
            .map_err(sys(format!("measure snapshot {key}")))
    }

    /// Replaces all labels.
    pub fn set_labels(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        labels: Labels,
    ) -> Result<SnapshotInfo> {
        check_labels(&labels)?;
        self.change_labels(ns, key, move |known| *known = labels)
    }

    /// Sets the given labels and leaves the others; an empty value removes its label.
    pub fn update_labels(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        labels: &Labels,
    ) -> Result<SnapshotInfo> {
        check_labels(labels)?;
        let labels = labels.clone();
        self.change_labels(ns, key, move |known| merge_labels(known, labels))
    }

    fn change_labels(
        &self,
        ns: &Namespace,
        key: &SnapshotKey,
        change: impl FnOnce(&mut Labels) + Send + 'static,
    ) -> Result<SnapshotInfo> {
        let id = (ns.clone(), key.clone());
        let shown = self.inner.upperdir_label;
        let changed = self.inner.meta.write(move |tx| {
            let Some(mut record) = tx.get(&schema::SNAPSHOTS, &id)? else {
                return Err(Error::NotFound { key: id.1 });
            };
            change(&mut record.labels);
            if shown {
                // Some hand back all that they were shown; it is not theirs.
                record.labels.remove(UPPERDIR);
            }
            record.updated_at = Timestamp::now();
            tx.put(&schema::SNAPSHOTS, &id, &record)?;
            Ok((id.1, record))
        });
        changed.map(|(key, record)| self.info(key, record))
    }

    /// The trees of a committed snapshot and those below it, nearest first.
    ///
    /// # Errors
    /// [`Error::Damaged`] when one of them may be torn: whatever is made on top of it takes over owners, modes
    /// and times from there.
    pub fn lowers(&self, ns: &Namespace, key: &SnapshotKey) -> Result<Vec<Dir>> {
        let chain = self.inner.meta.read(|view| chain(view, ns, key))?;
        self.refuse_unproven(&chain)?;
        chain
            .iter()
            .map(|(key, record)| self.tree(key, record.id))
            .collect()
    }

    /// Whether a tree may be torn: it was not known to be on the disk when another boot ended, and something
    /// that cannot be made again stands on it, so that [`Snapshots::recover`] did not drop it.
    pub fn is_unproven(&self, record: &SnapshotRecord) -> bool {
        recover::is_unproven(record, &self.inner.boot_id)
    }

    /// Refuses to have anything stand on a tree that may be torn.
    fn refuse_unproven(&self, below: &Chain) -> Result<()> {
        match below.iter().find(|(_, record)| self.is_unproven(record)) {
            None => Ok(()),
            Some((key, _)) => Err(Error::Damaged {
                key: key.clone(),
                reason:
                    "a power cut came before its files were known to be on the disk, and it could \
                         not be unpacked again"
                        .to_owned(),
            }),
        }
    }

    /// Committed snapshots whose trees are not known to be on the disk yet, and could be unpacked again.
    pub fn waiting(&self) -> Vec<(Namespace, SnapshotKey)> {
        let pending = disk::lock(&self.inner.pending);
        pending.keys().cloned().collect()
    }

    /// Snapshots that the last recovery found to be [unproven](Snapshots::is_unproven), without those that
    /// were renewed since. Some may be gone.
    pub fn unproven(&self) -> Vec<(Namespace, SnapshotKey)> {
        let unproven = disk::lock(&self.inner.unproven);
        unproven.keys().cloned().collect()
    }

    fn info(&self, key: SnapshotKey, record: SnapshotRecord) -> SnapshotInfo {
        let mut labels = record.labels;
        if self.inner.upperdir_label {
            let upper = mounts::place(&self.inner.path, record.id, "fs");
            labels.insert(UPPERDIR.to_owned(), upper.display().to_string());
        }
        SnapshotInfo {
            key,
            id: record.id,
            kind: record.kind,
            parent: record.parent,
            labels,
            created_at: record.created_at,
            updated_at: record.updated_at,
            usage: record.usage,
            durable: record.durable,
            timing: record.timing,
        }
    }

    fn record(&self, ns: &Namespace, key: &SnapshotKey) -> Result<SnapshotRecord> {
        let id = (ns.clone(), key.clone());
        let found = self
            .inner
            .meta
            .read(|view| Ok::<_, Error>(view.get(&schema::SNAPSHOTS, &id)?))?;
        found.ok_or_else(|| Error::NotFound { key: key.clone() })
    }

    /// The directory of a snapshot's things, by path.
    fn has_files(&self, id: u64) -> Result<bool> {
        let name = id.to_string();
        let found = self.inner.root.try_stat(OsStr::new(&name));
        Ok(found
            .map_err(sys(format!("look for directory of snapshot {id}")))?
            .is_some())
    }
}

/// A snapshot and all below it, nearest first. No longer than can be mounted, so damage that made a
/// ring of parents ends here as well.
fn chain(view: &impl View, ns: &Namespace, key: &SnapshotKey) -> Result<Chain> {
    let mut chain: Chain = Vec::new();
    let mut next = Some(key.clone());
    while let Some(key) = next {
        if chain.len() == OVERLAY_LOWER_COUNT_MAX {
            let limit = OVERLAY_LOWER_COUNT_MAX;
            return Err(Error::TooDeep { key, limit });
        }
        let id = (ns.clone(), key);
        let Some(record) = view.get(&schema::SNAPSHOTS, &id)? else {
            return Err(match chain.pop() {
                None => Error::NotFound { key: id.1 },
                Some((child, _)) => Error::Damaged {
                    key: child,
                    reason: format!("its parent {} is missing", id.1),
                },
            });
        };
        next = record.parent.clone();
        chain.push((id.1, record));
    }
    Ok(chain)
}

fn check_labels(labels: &Labels) -> Result<()> {
    for (key, value) in labels {
        validate_label(key, value)?;
    }
    Ok(())
}
