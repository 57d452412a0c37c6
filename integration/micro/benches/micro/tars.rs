//! Entries read from a tar in memory, their data with them.

use std::{cell::LazyCell, hint::black_box};

use cairn_layer::tar::{Limits, Reader};
use criterion::{Criterion, Throughput};

use crate::layers;

const FILES: usize = 10_000;
/// And a directory for each hundred.
const ENTRIES: usize = FILES + FILES / 100;

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tar");
    group
        .throughput(Throughput::Elements(ENTRIES as u64))
        .sample_size(50);
    for (name, pax) in [("ustar", false), ("pax", true)] {
        let tar = LazyCell::new(|| layers::small_files(FILES, pax));
        group.bench_function(name, |bencher| bencher.iter(|| read(&tar)));
    }
    group.finish();
}

fn read(tar: &[u8]) {
    let mut reader = Reader::new(tar, Limits::default());
    let mut entries = 0;
    while let Some(entry) = reader.next().expect("a whole tar") {
        black_box(entry);
        entries += 1;
        loop {
            let n = black_box(reader.data().expect("a whole entry")).len();
            if n == 0 {
                break;
            }
            reader.consume(n);
        }
    }
    assert_eq!(entries, ENTRIES);
}
