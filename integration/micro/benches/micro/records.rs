//! Transactions of both engines, each of which is answered when it is on the disk.

use std::{
    cell::LazyCell,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use cairn_meta::{EngineKind, Error, ImageRecord, Store, Timestamp, View, schema::IMAGES};
use cairn_sys::Dir;
use cairn_types::{Descriptor, Digest, ImageName, Labels, Namespace};
use criterion::{BenchmarkId, Criterion, Throughput};

/// Names that are written again and again, so that a longer run is not one of a larger store.
const NAMES: usize = 10_000;
const WRITERS: usize = 16;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("records");
    for engine in EngineKind::ALL {
        let records = LazyCell::new(|| Records::new(engine));
        let id = |what| BenchmarkId::new(what, engine.name());
        group.throughput(Throughput::Elements(1));
        group.bench_function(id("get"), |bencher| bencher.iter(|| records.get()));
        group.bench_function(id("put"), |bencher| bencher.iter(|| records.put()));
        // What they write at the same time becomes one commit.
        group.throughput(Throughput::Elements(WRITERS as u64));
        group.bench_function(id("put, 16 writers"), |bencher| {
            bencher.iter_custom(|each| records.put_at_once(each));
        });
    }
    group.finish();
}

struct Records {
    store: Store,
    next: AtomicUsize,
    names: Vec<(Namespace, ImageName)>,
    record: ImageRecord,
    _root: tempfile::TempDir,
}

impl Records {
    /// All names written once.
    fn new(engine: EngineKind) -> Records {
        let root = tempfile::tempdir().expect("a directory for records");
        let dir = Dir::open(root.path()).expect("a directory for records");
        let store = Store::open(&dir, engine).expect("new records");
        let ns = Namespace::parse("default").expect("a namespace");
        let name = |number| format!("registry.example.com/shop/web:{number}");
        let name = |number| ImageName::parse(&name(number)).expect("an image's name");
        let names: Vec<_> = (0..NAMES)
            .map(|number| (ns.clone(), name(number)))
            .collect();
        let record = record();
        let (all, every) = (names.clone(), record.clone());
        let filled = store.write(move |tx| {
            let mut puts = all.iter().map(|key| tx.put(&IMAGES, key, &every));
            puts.try_for_each(|put| put)
        });
        filled.unwrap_or_else(|err: Error| panic!("fill the records: {err}"));
        Records {
            store,
            next: AtomicUsize::new(0),
            names,
            record,
            _root: root,
        }
    }

    fn next(&self) -> &(Namespace, ImageName) {
        // A step that has no divisor in common with their number, so that neighbours are not written
        // one after the other.
        let number = self.next.fetch_add(7919, Ordering::Relaxed);
        &self.names[number % NAMES]
    }

    fn get(&self) -> Option<ImageRecord> {
        let look = self.store.read(|view| view.get(&IMAGES, self.next()));
        look.unwrap_or_else(|err: Error| panic!("get a record: {err}"))
    }

    fn put(&self) {
        let (key, record) = (self.next().clone(), self.record.clone());
        let change = self.store.write(move |tx| tx.put(&IMAGES, &key, &record));
        change.unwrap_or_else(|err: Error| panic!("put a record: {err}"));
    }

    /// Sixteen threads write so many each.
    fn put_at_once(&self, each: u64) -> Duration {
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| (0..each).for_each(|_| self.put()));
            }
        });
        began.elapsed()
    }
}

fn record() -> ImageRecord {
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let now = Timestamp::now();
    ImageRecord {
        target: Descriptor::new(media_type, Digest::sha256(b"a manifest"), 1234),
        labels: Labels::new(),
        created_at: now,
        updated_at: now,
    }
}
