//! Packings, damaged ones, and whose fault an error is.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    io::{self, Read, Write},
    sync::atomic::{AtomicU64, Ordering},
};

use cairn_layer::{Error, Options, Unpacked, inflate::InflateError, unpack};
use cairn_types::{Algorithm, Classified, Compression, Digest, ErrorKind, LayerType, media};

use crate::common::{THREADS, chain, gzip, layer, place, show, unpack_by};

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(bytes, 3).unwrap()
}

/// By so many threads that a stage more or less would show, all of which must come to the same.
#[track_caller]
fn run(media_type: &str, packed: &[u8]) -> Result<(Unpacked, Vec<String>), Error> {
    let [first, others @ ..] = THREADS.map(|threads| run_by(threads, media_type, packed));
    for (other, threads) in others.iter().zip(&THREADS[1..]) {
        match (&first, other) {
            (Ok((unpacked, tree)), Ok((again, shown))) => {
                assert_eq!(again.diff_id, unpacked.diff_id, "by {threads} threads");
                assert_eq!(again.size, unpacked.size, "by {threads} threads");
                assert_eq!(again.compression, unpacked.compression);
                let (applied, before) = (&again.applied, &unpacked.applied);
                assert_eq!(format!("{applied:?}"), format!("{before:?}"));
                assert!(shown == tree, "the tree differs by {threads} threads");
            }
            (Err(err), Err(again)) => {
                assert_eq!(chain(again), chain(err), "by {threads} threads");
                assert_eq!(again.kind(), err.kind(), "by {threads} threads");
            }
            (one, other) => panic!("{one:?}, and by {threads} threads {other:?}"),
        }
    }
    first
}

fn run_by(
    threads: usize,
    media_type: &str,
    packed: &[u8],
) -> Result<(Unpacked, Vec<String>), Error> {
    let place = place();
    let kind = LayerType::parse(media_type).unwrap();
    let seen = AtomicU64::new(0);
    let options = Options {
        threads,
        ..Options::default()
    };
    let progress = |n| seen.store(n, Ordering::Relaxed);
    let unpacked = unpack(packed, kind, &place.upper("fs"), &options, &progress)?;
    let timing = &unpacked.timing;
    assert_eq!(timing.parts().sum(), timing.total, "{timing:?}");
    assert!(timing.read <= timing.inflate, "{timing:?}");
    assert!(timing.behind <= timing.starved, "{timing:?}");
    assert!(threads > 2 || timing.behind.is_zero(), "{timing:?}");
    assert_eq!(
        seen.into_inner(),
        packed.len() as u64,
        "the source is read to its end"
    );
    Ok((unpacked, show(&place.path("fs"))))
}

/// A layer of some buffers' length, so that all the hand-overs happen.
fn sample() -> (Vec<u8>, Vec<String>) {
    let mut sample = layer().dir("a");
    let mut tree = vec!["a/".to_owned()];
    for i in 0..30u32 {
        let text: String = (0..20_000u32)
            .map(|n| (n.wrapping_mul(i + 7) % 977).to_string())
            .collect();
        sample = sample.file(&format!("a/{i:02}"), &text);
        tree.push(format!("a/{i:02} = {text}"));
    }
    (sample.build(), tree)
}

#[track_caller]
fn check(media_type: &str, packed: &[u8], compression: Compression) {
    let (tar, tree) = sample();
    let (unpacked, shown) = run(media_type, packed).unwrap();
    assert_eq!(unpacked.diff_id.digest(), &Digest::sha256(&tar));
    assert_eq!(unpacked.size, tar.len() as u64);
    assert_eq!(unpacked.compression, compression);
    assert_eq!(unpacked.applied.entries, 31);
    assert!(shown == tree, "the tree differs");
}

#[test]
fn every_packing_gives_the_same_tree() {
    let (tar, _) = sample();
    check(media::OCI_LAYER, &tar, Compression::None);
    check(media::OCI_LAYER_GZIP, &gzip(&tar), Compression::Gzip);
    check(media::OCI_LAYER_ZSTD, &zstd(&tar), Compression::Zstd);
    // What the type promises is not what decides.
    check(media::OCI_LAYER_GZIP, &tar, Compression::None);
    check(media::OCI_LAYER_GZIP, &zstd(&tar), Compression::Zstd);
    check(media::DOCKER_LAYER, &gzip(&tar), Compression::Gzip);
}

#[test]
fn gzip_of_many_members() {
    let (tar, _) = sample();
    let members: Vec<u8> = tar.chunks(65_280).flat_map(gzip).collect();
    check(media::OCI_LAYER_GZIP, &members, Compression::Gzip);
    // bgzf ends in an empty member.
    check(
        media::OCI_LAYER_GZIP,
        &[members.clone(), gzip(b"")].concat(),
        Compression::Gzip,
    );
    check(
        media::OCI_LAYER_GZIP,
        &[members, vec![0; 300_000]].concat(),
        Compression::Gzip,
    );
}

#[test]
fn zstd_of_many_frames() {
    let (tar, _) = sample();
    let skippable = [&[0x5a, 0x2a, 0x4d, 0x18, 4, 0, 0, 0][..], b"toc!"].concat();
    let mut frames = skippable.clone();
    for part in tar.chunks(1 << 20) {
        frames.extend(zstd(part));
        frames.extend(&skippable);
    }
    check(media::OCI_LAYER_ZSTD, &frames, Compression::Zstd);
    let (empty, _) = run(media::OCI_LAYER_ZSTD, &skippable).unwrap();
    assert_eq!(empty.size, 0);
}

#[test]
fn h13_trailing_bytes_of_the_tar_belong_to_the_diff_id() {
    let mut tar = layer().file("a", "1").build();
    tar.extend_from_slice(&[7; 100_000]);
    let (unpacked, tree) = run(media::OCI_LAYER_GZIP, &gzip(&tar)).unwrap();
    assert_eq!(unpacked.diff_id.digest(), &Digest::sha256(&tar));
    assert_eq!(tree, ["a = 1"]);
}

#[test]
fn an_empty_stream_is_an_empty_layer() {
    for packed in [vec![], gzip(b""), zstd(b"")] {
        let (unpacked, tree) = run(media::OCI_LAYER_GZIP, &packed).unwrap();
        assert_eq!((unpacked.size, unpacked.applied.entries), (0, 0));
        assert_eq!(unpacked.applied.invented, [b""]);
        assert!(tree.is_empty());
    }
}

#[track_caller]
fn refused(media_type: &str, packed: &[u8], reason: &str) {
    let err = run(media_type, packed).expect_err("must be refused");
    let text = chain(&err);
    assert!(text.contains(reason), "{text}");
    assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{text}");
}

#[test]
fn damaged_packings_are_refused() {
    let (tar, _) = sample();
    let good = gzip(&tar);
    let gz = media::OCI_LAYER_GZIP;
    for cut in [good.len() - 1, good.len() - 8, good.len() / 2, 12, 3] {
        refused(gz, &good[..cut], "decompress gzip layer");
    }
    refused(gz, &[&good[..], b"garbage"].concat(), "garbage after");
    refused(gz, &[&good[..], &[0, 0, 1]].concat(), "garbage after");
    refused(
        gz,
        &[&good[..], &good[..9]].concat(),
        "decompress gzip layer",
    );
    let mut flipped = good.clone();
    let crc = flipped.len() - 6;
    flipped[crc] ^= 1;
    refused(gz, &flipped, "decompress gzip layer");
    let frame = zstd(&tar);
    refused(gz, &frame[..frame.len() - 1], "decompress zstd layer");
    refused(gz, &frame[..frame.len() / 2], "decompress zstd layer");
    refused(
        gz,
        &[&frame[..], b"garbage"].concat(),
        "decompress zstd layer",
    );
}

#[test]
fn windows_beyond_the_limit_are_refused() {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.long_distance_matching(true).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&[0; 4096]).unwrap();
    refused(
        media::OCI_LAYER_ZSTD,
        &encoder.finish().unwrap(),
        "decompress zstd layer",
    );
}

#[test]
fn z05_other_packings_are_named() {
    for (head, name) in [
        (&b"\xfd7zXZ\0\0\x04"[..], "xz"),
        (b"BZh91AY&SY\x01\x02", "bzip2"),
        (b"\x04\x22\x4d\x18abcdef", "lz4"),
    ] {
        refused(
            media::OCI_LAYER_GZIP,
            head,
            &format!("not tar: the layer is {name}"),
        );
    }
    // An OCI plain tar is never unpacked; at least the error says what it was.
    refused(
        media::OCI_LAYER,
        &gzip(&sample().0),
        "not tar: the layer is gzip",
    );
    refused(
        media::OCI_LAYER,
        b"\xfd7zXZ\0\0\x04",
        "not tar: the layer is xz",
    );
}

#[test]
fn a_budget_bounds_what_comes_out() {
    let place = place();
    let kind = LayerType::parse(media::OCI_LAYER_GZIP).unwrap();
    let (tar, _) = sample();
    for threads in THREADS {
        let run = |max_bytes| {
            let options = Options {
                max_bytes,
                threads,
                ..Options::default()
            };
            let upper = place.upper(&format!("{threads}-{max_bytes}"));
            unpack(&gzip(&tar)[..], kind, &upper, &options, &|_| {})
        };
        run(tar.len() as u64).expect("the limit itself");
        let err = run(tar.len() as u64 - 1).expect_err("one byte more");
        assert!(matches!(err, Error::TooLarge { .. }), "{err}");
        assert_eq!(err.kind(), ErrorKind::ResourceExhausted);
    }
}

#[test]
fn the_diff_id_comes_in_other_algorithms() {
    let place = place();
    let kind = LayerType::parse(media::OCI_LAYER).unwrap();
    let (tar, _) = sample();
    for threads in THREADS {
        let options = Options {
            diff_algorithm: Algorithm::Sha512,
            threads,
            ..Options::default()
        };
        let upper = place.upper(&threads.to_string());
        let unpacked = unpack(&tar[..], kind, &upper, &options, &|_| {}).unwrap();
        assert_eq!(
            unpacked.diff_id.digest(),
            &Digest::of(Algorithm::Sha512, &tar)
        );
    }
}

/// Breaks off after so many bytes.
struct Broken<'b>(&'b [u8]);

impl Read for Broken<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the cable was cut",
            )),
            n => Ok(n),
        }
    }
}

/// Gives a few bytes at a time, as a connection does, and is interrupted in between.
struct Dripping<R> {
    source: R,
    reads: usize,
}

impl<R: Read> Read for Dripping<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.reads.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = buffer.len().min(1 + self.reads % 1460);
        self.source.read(&mut buffer[..n])
    }
}

fn packings() -> [(&'static str, Vec<u8>); 3] {
    let (tar, _) = sample();
    let (gzip, zstd) = (gzip(&tar), zstd(&tar));
    [
        (media::OCI_LAYER, tar),
        (media::OCI_LAYER_GZIP, gzip),
        (media::OCI_LAYER_ZSTD, zstd),
    ]
}

#[test]
fn a_source_that_fails_is_the_cause() {
    for (media_type, packed) in packings() {
        for cut in [0, 5, packed.len() / 2, packed.len()] {
            for threads in THREADS {
                let source = Broken(&packed[..cut]);
                let err =
                    unpack_by(threads, source, media_type, &place()).expect_err("the source fails");
                assert!(
                    matches!(err, Error::Inflate(InflateError::Source(_))),
                    "{err:?} at {cut} by {threads} threads"
                );
                assert!(chain(&err).contains("cable"), "{}", chain(&err));
            }
        }
    }
}

#[test]
fn a_source_that_gives_little_at_a_time_gives_the_same() {
    let (tar, tree) = sample();
    for (media_type, packed) in packings() {
        for threads in THREADS {
            let place = place();
            let source = Dripping {
                source: &packed[..],
                reads: 0,
            };
            let unpacked = unpack_by(threads, source, media_type, &place).unwrap();
            assert_eq!(unpacked.diff_id.digest(), &Digest::sha256(&tar));
            assert!(show(&place.path("fs")) == tree, "by {threads} threads");
        }
    }
}

#[test]
fn an_entry_that_is_refused_comes_before_a_source_that_fails_later() {
    let mut tar = layer().file("../x", "1").build();
    tar.extend(sample().0);
    for threads in THREADS {
        let source = Broken(&tar);
        let err = unpack_by(threads, source, media::OCI_LAYER, &place()).expect_err("refused");
        assert!(matches!(err, Error::Refused { .. }), "{err:?}");
    }
}
