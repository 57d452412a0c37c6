//! A store of snapshots, and what is done with them.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod spaces;

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn_meta::{EngineKind, Store};
use cairn_snapshot::{Error, Options, Recovered, Snapshots, StagedLayer};
use cairn_sys::{Dir, mount};
use cairn_types::{Classified, ErrorKind, Labels, Mount, Namespace, SnapshotKey, SnapshotKind};

pub(crate) struct Fixture {
    pub(crate) root: tempfile::TempDir,
    pub(crate) meta: Store,
    pub(crate) snapshots: Snapshots,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::of(EngineKind::default())
    }

    pub(crate) fn of(engine: EngineKind) -> Fixture {
        let root = tempfile::tempdir().expect("tempdir");
        let dir = Dir::open(root.path()).expect("root");
        let records = dir.create_dir_all_open("meta", 0o700).expect("meta dir");
        drop(Store::open(&records, engine).expect("records"));
        Fixture::at(root, "boot-1").0
    }

    pub(crate) fn at(root: tempfile::TempDir, boot: &str) -> (Fixture, Recovered) {
        Fixture::with(root, boot, Options::default())
    }

    pub(crate) fn with(
        root: tempfile::TempDir,
        boot: &str,
        options: Options,
    ) -> (Fixture, Recovered) {
        let dir = Dir::open(root.path()).expect("root");
        let records = dir.create_dir_all_open("meta", 0o700).expect("meta dir");
        let engine = Store::kept(&records).expect("an engine");
        let meta = Store::open(&records, engine.unwrap_or_default()).expect("records");
        let place = dir.create_dir_all_open("snapshots", 0o700).expect("dir");
        let opened = Snapshots::open(&place, meta.clone(), boot.to_owned(), options);
        let snapshots = opened.expect("open");
        let recovered = snapshots.recover().expect("recover");
        let fixture = Fixture {
            root,
            meta,
            snapshots,
        };
        (fixture, recovered)
    }

    /// As after the process has ended and begun again, perhaps under another boot.
    pub(crate) fn reopen(self, boot: &str) -> (Fixture, Recovered) {
        let Fixture {
            root,
            meta,
            snapshots,
        } = self;
        drop((meta, snapshots));
        Fixture::at(root, boot)
    }

    /// Directories of snapshots on disk.
    pub(crate) fn directories(&self) -> usize {
        self.snapshots.wait_removed();
        let dir = self.root.path().join("snapshots");
        let trash = fs::read_dir(dir.join("trash")).expect("trash").count();
        fs::read_dir(dir).expect("dir").count() - 1 + trash
    }

    pub(crate) fn prepare(&self, name: &str, parent: Option<&str>) -> Vec<Mount> {
        let parent = parent.map(key);
        self.snapshots
            .prepare(&ns(), &key(name), parent.as_ref(), Labels::new())
            .expect("prepare")
    }

    pub(crate) fn view(&self, name: &str, parent: Option<&str>) -> Vec<Mount> {
        let parent = parent.map(key);
        self.snapshots
            .view(&ns(), &key(name), parent.as_ref(), Labels::new())
            .expect("view")
    }

    pub(crate) fn commit(&self, name: &str, from: &str) {
        self.snapshots
            .commit(&ns(), &key(name), &key(from), Labels::new())
            .expect("commit");
    }

    /// A committed snapshot, written through its mounts as any client does.
    pub(crate) fn layer(&self, name: &str, parent: Option<&str>, write: impl FnOnce(&Path)) {
        let mounts = self.prepare("layer-in-the-making", parent);
        let mounted = Mounted::new(&mounts);
        write(mounted.path());
        drop(mounted);
        self.commit(name, "layer-in-the-making");
    }

    pub(crate) fn staged(&self, name: &str, parent: Option<&str>) -> StagedLayer {
        StagedLayer {
            diff_id: None,
            blob: None,
            timing: None,
            labels: Labels::new(),
            ..spaces::layer(&self.snapshots, name, parent)
        }
    }

    pub(crate) fn kind(&self, name: &str) -> Option<SnapshotKind> {
        match self.snapshots.stat(&ns(), &key(name)) {
            Ok(info) => Some(info.kind),
            Err(err) => {
                assert_eq!(err.kind(), ErrorKind::NotFound, "{err}");
                None
            }
        }
    }

    pub(crate) fn durable(&self, name: &str) -> bool {
        let info = self.snapshots.stat(&ns(), &key(name));
        info.expect("stat").durable
    }

    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        self.snapshots.remove(&ns(), &key(name))
    }
}

/// A mount that goes with its value.
pub(crate) struct Mounted(tempfile::TempDir);

impl Mounted {
    pub(crate) fn new(mounts: &[Mount]) -> Mounted {
        let target = tempfile::tempdir().expect("target");
        mount::perform(mounts, target.path()).expect("mount");
        Mounted(target)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        mount::unmount(self.0.path()).expect("unmount");
    }
}

pub(crate) fn ns() -> Namespace {
    Namespace::parse("default").expect("namespace")
}

pub(crate) fn key(name: &str) -> SnapshotKey {
    SnapshotKey::parse(name).expect("key")
}

pub(crate) fn option<'a>(mounts: &'a [Mount], name: &str) -> Option<&'a str> {
    let mut options = mounts.iter().flat_map(|m| &m.options);
    options.find_map(|o| o.strip_prefix(name))
}

#[track_caller]
pub(crate) fn refused<T>(result: Result<T, Error>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => panic!("expected {kind:?}"),
        Err(err) => {
            assert_eq!(err.kind(), kind, "{err}");
            err
        }
    }
}

pub(crate) fn read(path: PathBuf) -> String {
    fs::read_to_string(path).expect("read")
}
