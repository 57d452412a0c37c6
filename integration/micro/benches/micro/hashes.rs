//! Digests of streams as they come by, and of documents.

use std::{cell::LazyCell, hint::black_box};

use cairn_types::{Algorithm, Digest, Hasher};
use criterion::{Criterion, Throughput};

use crate::layers;

const STREAM_BYTES: usize = 32 << 20;
/// As much at a time as unpacking hands on.
const PIECE_BYTES: usize = 512 << 10;
/// About a manifest's.
const DOCUMENT_BYTES: usize = 1 << 10;

pub(crate) fn bench(criterion: &mut Criterion) {
    let bytes = LazyCell::new(|| layers::contents(STREAM_BYTES));
    let mut group = criterion.benchmark_group("hash");
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let name = algorithm.name();
        group
            .throughput(Throughput::Bytes(STREAM_BYTES as u64))
            .sample_size(20);
        group.bench_function(format!("{name}, a stream"), |bencher| {
            bencher.iter(|| {
                let mut hasher = Hasher::new(algorithm);
                for piece in bytes.chunks(PIECE_BYTES) {
                    hasher.update(piece);
                }
                hasher.finish()
            });
        });
        group
            .throughput(Throughput::Bytes(DOCUMENT_BYTES as u64))
            .sample_size(100);
        group.bench_function(format!("{name}, 1 KiB"), |bencher| {
            let document = &bytes[..DOCUMENT_BYTES];
            bencher.iter(|| Digest::of(algorithm, black_box(document)));
        });
    }
    group.finish();
}
