//! Ten thousand small files unpacked into a directory of `TMPDIR`, and what their commit adds to that.

use std::{
    cell::LazyCell,
    time::{Duration, Instant},
};

use cairn_layer::{Options, Unpacked, unpack};
use cairn_meta::{EngineKind, Store};
use cairn_snapshot::{Snapshots, StagedLayer};
use cairn_sys::Dir;
use cairn_types::{Labels, LayerType, Namespace, SnapshotKey};
use criterion::{Criterion, SamplingMode, Throughput};

use crate::layers;

const FILES: usize = 10_000;

pub(crate) fn bench(criterion: &mut Criterion) {
    let tar = LazyCell::new(|| layers::small_files(FILES, false));
    let store = LazyCell::new(Trees::new);
    let mut group = criterion.benchmark_group("apply");
    group
        .throughput(Throughput::Elements(FILES as u64))
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat);
    group.bench_function("files", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| files(&tar)).sum());
    });
    // As an import does it; the files are synced some time later.
    group.bench_function("files, recorded", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| store.commit(&tar, false)).sum());
    });
    group.bench_function("files, recorded and synced", |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| store.commit(&tar, true)).sum());
    });
    group.finish();
}

/// Files and nothing else.
fn files(tar: &[u8]) -> Duration {
    let root = tempfile::tempdir().expect("a directory for files");
    let dir = Dir::open(root.path()).expect("a directory for files");
    let began = Instant::now();
    unpacked(tar, &dir);
    began.elapsed()
}

fn unpacked(tar: &[u8], dir: &Dir) -> Unpacked {
    let layer = LayerType::parse("application/vnd.oci.image.layer.v1.tar").expect("a layer's type");
    unpack(tar, layer, dir, &Options::default(), &|_| ()).expect("a layer that unpacks")
}

/// A store of snapshots.
struct Trees {
    snapshots: Snapshots,
    ns: Namespace,
    _root: tempfile::TempDir,
}

impl Trees {
    fn new() -> Trees {
        let root = tempfile::tempdir().expect("a directory for a store");
        let dir = Dir::open(root.path()).expect("a directory for a store");
        let inside = |name| {
            dir.create_dir_all_open(name, 0o700)
                .expect("a directory of a store")
        };
        let meta = Store::open(&inside("meta"), EngineKind::default()).expect("new records");
        let options = cairn_snapshot::Options::default();
        let opened = Snapshots::open(&inside("snapshots"), meta, "this".to_owned(), options);
        let snapshots = opened.expect("new snapshots");
        snapshots.recover().expect("new snapshots");
        Trees {
            snapshots,
            ns: Namespace::parse("default").expect("a namespace"),
            _root: root,
        }
    }

    /// The layer unpacked and committed; it is removed again, and that is not counted.
    fn commit(&self, tar: &[u8], synced: bool) -> Duration {
        let began = Instant::now();
        let staged = self.snapshots.stage().expect("a tree for a layer");
        let unpacked = unpacked(tar, staged.dir());
        let key = SnapshotKey::parse(&unpacked.diff_id.to_string()).expect("a snapshot's key");
        let stack = vec![StagedLayer {
            staged,
            key: key.clone(),
            parent: None,
            usage: unpacked.applied.usage,
            diff_id: Some(unpacked.diff_id),
            blob: None,
            timing: None,
            labels: Labels::new(),
        }];
        let committed = match synced {
            true => self.snapshots.commit_stack_synced(&self.ns, stack),
            false => self.snapshots.commit_stack(&self.ns, stack),
        };
        committed.expect("a commit");
        let took = began.elapsed();
        self.snapshots.remove(&self.ns, &key).expect("a removal");
        self.snapshots.wait_removed();
        took
    }
}
