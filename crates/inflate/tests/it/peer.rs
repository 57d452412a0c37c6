//! Whatever is given to it, zlib says the same.

use std::io::Write;

use cairn_inflate::Error;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use crate::{
    common::{BitWriter, decode_by},
    plain::{HEADER, Random, member},
};

/// Streams that must be taken or refused as zlib does.
const MUTATIONS: usize = 120_000;

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The stream is whole, and so many bytes of the input are its.
    Whole(usize),
    Truncated,
    Wrong,
}

fn peer(stream: &[u8]) -> (Vec<u8>, Verdict) {
    let mut decoder = Decompress::new(false);
    let mut plain = Vec::new();
    loop {
        plain.reserve(64 << 10);
        let from = decoder.total_in() as usize;
        let before = decoder.total_out();
        match decoder.decompress_vec(&stream[from..], &mut plain, FlushDecompress::None) {
            Ok(Status::StreamEnd) => {
                return (plain, Verdict::Whole(decoder.total_in() as usize));
            }
            Ok(_) if decoder.total_in() as usize == from && decoder.total_out() == before => {
                return (plain, Verdict::Truncated);
            }
            Ok(_) => {}
            Err(_) => return (plain, Verdict::Wrong),
        }
    }
}

/// Asks both; `name` is to find the case again.
#[track_caller]
fn compare(stream: &[u8], (input, output): (usize, usize), name: &dyn Fn() -> String) -> Verdict {
    let (plain, verdict) = peer(stream);
    if let Verdict::Whole(length) = verdict {
        let packed = member(&stream[..length], &plain);
        let (said, error) = decode_by(&packed, input, output);
        assert_eq!(error, None, "{}", name());
        assert!(said == plain, "{}: other bytes", name());
        return verdict;
    }
    let (said, error) = decode_by(&[&HEADER, stream].concat(), input, output);
    let ours = match error {
        Some(Error::Truncated) => Verdict::Truncated,
        Some(Error::Checksum | Error::Length) | None => Verdict::Whole(0),
        Some(_) => Verdict::Wrong,
    };
    assert_eq!(ours, verdict, "{}: {error:?}", name());
    // How far one gets before the end is either's own affair.
    let both = said.len().min(plain.len());
    assert!(said[..both] == plain[..both], "{}: other bytes", name());
    verdict
}

/// Bytes of all kinds: noise, few values, runs, words, what repeats from afar.
fn sample(random: &mut Random, length: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 300);
    let words: Vec<Vec<u8>> = (0..50)
        .map(|_| {
            (0..1 + random.below(12))
                .map(|_| b'a' + random.below(26) as u8)
                .collect()
        })
        .collect();
    let kinds = 1 + random.below(31);
    while bytes.len() < length {
        let n = 1 + random.below(300);
        match random.below(5) {
            0 if kinds & 1 != 0 => bytes.extend((0..n).map(|_| random.next() as u8)),
            1 if kinds & 2 != 0 => bytes.extend((0..n).map(|_| random.below(5) as u8)),
            2 if kinds & 4 != 0 => bytes.extend(vec![random.next() as u8; n]),
            3 if kinds & 8 != 0 => {
                for _ in 0..n / 4 {
                    bytes.extend(&words[random.below(words.len())]);
                }
            }
            4 if kinds & 16 != 0 && !bytes.is_empty() => {
                let from = bytes.len() - 1 - random.below(bytes.len().min(32_768));
                for at in from..from + n {
                    bytes.push(bytes[at]);
                }
            }
            _ => bytes.push(b'-'),
        }
    }
    bytes.truncate(length);
    bytes
}

fn pack(plain: &[u8], level: u32, flush: Option<(usize, FlushCompress)>) -> Vec<u8> {
    let mut encoder = Compress::new(Compression::new(level), false);
    let mut packed = Vec::with_capacity(plain.len() + plain.len() / 4 + 1_000);
    if let Some((every, how)) = flush {
        for piece in plain.chunks(every) {
            packed.reserve(2 * piece.len() + 1_000);
            encoder.compress_vec(piece, &mut packed, how).unwrap();
        }
    }
    let done = encoder.total_in() as usize;
    packed.reserve(plain.len() - done + 1_000);
    encoder
        .compress_vec(&plain[done..], &mut packed, FlushCompress::Finish)
        .unwrap();
    packed
}

#[test]
fn whatever_is_packed_comes_out() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let sizes = [0, 1, 2, 100, 5_000, 40_000, 70_000, 300_000];
    let ways = [
        (usize::MAX, 1 << 20),
        (1_000, 70_000),
        (4_096, 777),
        (61, 100_000),
    ];
    for round in 0..160 {
        let size = sizes[round % sizes.len()];
        let size = size + random.below(1 + size / 3);
        let plain = sample(&mut random, size);
        let level = (round / sizes.len() % 10) as u32;
        let flush = match random.below(4) {
            0 => Some((1 + random.below(3_000), FlushCompress::Sync)),
            1 => Some((1 + random.below(3_000), FlushCompress::Full)),
            _ => None,
        };
        let packed = pack(&plain, level, flush);
        for way in ways {
            let name = || format!("round {round}, level {level}, {way:?}");
            let verdict = compare(&packed, way, &name);
            assert_eq!(verdict, Verdict::Whole(packed.len()), "{}", name());
        }
        let (said, error) = decode_by(&member(&packed, &plain), usize::MAX, 1 << 20);
        assert!(said == plain && error.is_none(), "round {round}");
    }
}

#[test]
fn gzip_as_flate2_writes_it_is_taken() {
    let plain = sample(&mut Random(77), 3_000_000);
    let builder = flate2::GzBuilder::new()
        .filename("a")
        .comment("b")
        .extra(b"c".to_vec());
    let mut encoder = builder.write(Vec::new(), Compression::default());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    for (input, output) in [
        (usize::MAX, 1 << 19),
        (256 << 10, 512 << 10),
        (8_192, 65_536),
    ] {
        assert_eq!(decode_by(&packed, input, output).1, None);
        assert!(decode_by(&packed, input, output).0 == plain);
    }
}

/// A dynamic block with random lengths, most of which make no code.
fn random_codes(random: &mut Random) -> Vec<u8> {
    let mut lengths = vec![0; 257 + random.below(30)];
    let mut distances = vec![0; 1 + random.below(30)];
    for (code, seldom) in [(&mut lengths, 6), (&mut distances, 3)] {
        // Leaves of a random tree, so that some codes are complete.
        let mut leaves = vec![1_u8, 1];
        while random.below(seldom * 3) > 0 && leaves.len() < code.len() {
            let split = random.below(leaves.len());
            if leaves[split] < 15 {
                leaves[split] += 1;
                leaves.push(leaves[split]);
            }
        }
        if random.below(seldom) == 0 {
            leaves.pop();
        }
        let end = code.len() - 1;
        for (i, length) in leaves.into_iter().enumerate() {
            let at = if i == 0 {
                256.min(end)
            } else {
                random.below(end + 1)
            };
            code[at] = length;
        }
    }
    let mut writer = BitWriter::new().dynamic(true, &lengths, &distances);
    for _ in 0..40 {
        writer = writer.bits(random.next() as u32, 32);
    }
    writer.done()
}

#[test]
fn what_is_damaged_is_taken_or_refused_alike() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let seeds: Vec<Vec<u8>> = (0..200)
        .map(|round| {
            let plain = sample(&mut random, [30, 200, 900, 2_500][round % 4]);
            pack(&plain, [1, 6, 9, 0][round / 4 % 4].min(9), None)
        })
        .collect();
    let ways = [
        (usize::MAX, 1 << 20),
        (usize::MAX, 70_000),
        (5, 70_000),
        (usize::MAX, 41),
        (1, 13),
    ];
    let mut counts = [0; 3];
    for case in 0..MUTATIONS {
        let mut stream = if case % 8 == 0 {
            random_codes(&mut random)
        } else {
            seeds[random.below(seeds.len())].clone()
        };
        for _ in 0..random.below(4) {
            // Headers of blocks are where most can go wrong.
            let reach = if random.below(2) == 0 {
                90.min(stream.len())
            } else {
                stream.len()
            };
            let at = random.below(reach);
            match random.below(4) {
                0 => stream[at] = random.next() as u8,
                1 => stream.truncate(at + 1),
                2 => stream.insert(at, random.next() as u8),
                _ => stream[at] ^= 1 << random.below(8),
            }
        }
        let verdict = compare(&stream, ways[case % ways.len()], &|| format!("case {case}"));
        counts[match verdict {
            Verdict::Whole(_) => 0,
            Verdict::Truncated => 1,
            Verdict::Wrong => 2,
        }] += 1;
    }
    // Were one of them rare, little would be compared.
    assert!(counts.iter().all(|n| *n > MUTATIONS / 20), "{counts:?}");
}
