//! A layer's bytes unpacked, from memory.

use std::{
    cell::LazyCell,
    hint::black_box,
    io::{BufRead, Write},
};

use cairn_layer::inflate::Inflater;
use cairn_types::LayerType;
use criterion::{Criterion, Throughput};
use flate2::{Compression, write::GzEncoder};

use crate::layers;

const BYTES: usize = 32 << 20;
/// As much at a time as unpacking asks for.
const BUFFER_BYTES: usize = 512 << 10;

type Pack = fn(&[u8]) -> Vec<u8>;

pub(crate) fn bench(criterion: &mut Criterion) {
    let plain = LazyCell::new(|| layers::contents(BYTES));
    let mut group = criterion.benchmark_group("inflate");
    group
        .throughput(Throughput::Bytes(BYTES as u64))
        .sample_size(20);
    let cases: [(&str, &str, Pack, usize); 4] = [
        ("gzip", "+gzip", gzip, 1),
        ("gzip by two threads", "+gzip", gzip, 2),
        ("zstd", "+zstd", zstd, 1),
        ("plain", "", <[u8]>::to_vec, 1),
    ];
    for (name, suffix, pack, threads) in cases {
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
        let layer = LayerType::parse(&media_type).expect("a layer's type");
        let packed = LazyCell::new(|| pack(&plain));
        group.bench_function(name, |bencher| {
            let mut buffer = vec![0; BUFFER_BYTES];
            bencher.iter(|| {
                let inflater = Inflater::with_threads(packed.as_slice(), layer, threads);
                drain(inflater.expect("a whole head"), &mut buffer);
            });
        });
    }
    group.finish();
}

fn drain(mut inflater: Inflater<impl BufRead>, buffer: &mut [u8]) {
    let mut total = 0;
    loop {
        match inflater.fill(buffer).expect("a whole stream") {
            0 => break,
            filled => total += black_box(&buffer[..filled]).len(),
        }
    }
    assert_eq!(total, BYTES);
}

/// At the level that `gzip` and Docker have by default.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).expect("packed in memory");
    encoder.finish().expect("packed in memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, zstd::DEFAULT_COMPRESSION_LEVEL).expect("packed in memory")
}
