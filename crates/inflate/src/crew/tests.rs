//! With others' help it says what it says without, to the byte, whatever it is given. Chunks are small
//! here, so that little input has many.

#[path = "../../tests/it/plain.rs"]
mod plain;

use std::io::{self, BufRead, Read};

use flate2::{Compress, Compression, FlushCompress};

use super::Plan;
use crate::{
    Error, Gunzip, WINDOW_BYTES,
    inflate::Inflate,
    part::{PART_BYTES, PARTS_MAX},
};
use plain::{Random, member, read_on};

fn patient(piece_bytes: usize) -> Plan {
    Plan {
        piece_bytes,
        // Mostly one or two of them.
        span_bytes: 5 * piece_bytes as u64,
        start_bytes: 0,
        patient: true,
        ..Plan::USUAL
    }
}

fn impatient(piece_bytes: usize) -> Plan {
    Plan {
        patient: false,
        ..patient(piece_bytes)
    }
}

/// Words, numbers, noise and what comes again from afar; what is to come again seldom ends with one
/// window.
fn sample(random: &mut Random, length: usize) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..400)
        .map(|_| {
            (0..3 + random.below(9))
                .map(|_| b'a' + random.below(26) as u8)
                .collect()
        })
        .collect();
    let mut bytes = Vec::with_capacity(length + 500);
    while bytes.len() < length {
        match random.below(12) {
            0 => bytes.extend((0..random.below(200)).map(|_| random.next() as u8)),
            1 => bytes.extend(vec![random.next() as u8; random.below(400)]),
            2 if bytes.len() > 40_000 => {
                let from = bytes.len() - 1 - random.below(32_000);
                let n = 200.min(bytes.len() - from);
                bytes.extend_from_within(from..from + n);
            }
            _ => {
                for _ in 0..30 {
                    bytes.extend(&words[random.below(400).min(random.below(400))]);
                }
            }
        }
    }
    bytes.truncate(length);
    bytes
}

/// A bare stream, with an end of a block every so many bytes if that is asked for.
fn deflate(plain: &[u8], level: u32, flush: Option<(usize, FlushCompress)>) -> Vec<u8> {
    let mut encoder = Compress::new(Compression::new(level), false);
    let mut packed = Vec::with_capacity(2 * plain.len() + 10_000);
    if let Some((every, how)) = flush {
        for piece in plain.chunks(every) {
            packed.reserve(2 * piece.len() + 1_000);
            encoder.compress_vec(piece, &mut packed, how).unwrap();
        }
    }
    let done = encoder.total_in() as usize;
    packed.reserve(plain.len() - done + 10_000);
    encoder
        .compress_vec(&plain[done..], &mut packed, FlushCompress::Finish)
        .unwrap();
    packed
}

fn gzip(plain: &[u8], level: u32, every: Option<usize>) -> Vec<u8> {
    let flush = every.map(|every| (every, FlushCompress::Sync));
    member(&deflate(plain, level, flush), plain)
}

/// All that a reader learns: bytes, members, what was wrong and what is left.
#[derive(PartialEq, Eq)]
struct Said {
    plain: Vec<u8>,
    ends: Vec<usize>,
    error: Option<Error>,
    rest: Vec<u8>,
}

/// Reads member after member as long as they begin like one. Gives how much others made, too.
fn read(mut decoder: Gunzip<&[u8]>, out: usize) -> (Said, u64) {
    let mut said = Said {
        plain: Vec::new(),
        ends: Vec::new(),
        error: None,
        rest: Vec::new(),
    };
    let mut piece = vec![0; out];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => said.ends.push(said.plain.len()),
            Ok(n) => {
                said.plain.extend_from_slice(&piece[..n]);
                continue;
            }
            Err(error) => {
                said.error = error.get_ref().and_then(|e| e.downcast_ref()).copied();
                assert_eq!(decoder.crew.held().0, 0, "a thread is left");
                break;
            }
        }
        if decoder.input_mut().fill_buf().unwrap().first() == Some(&0x1f) {
            decoder.restart();
        } else {
            decoder.input_mut().read_to_end(&mut said.rest).unwrap();
            break;
        }
    }
    (said, decoder.foreseen())
}

/// Reads with and without others' help. Gives what is said, and how much of it others have made.
#[track_caller]
fn compare(packed: &[u8], threads: usize, plan: Plan, out: usize) -> (Said, u64) {
    let (alone, none) = read(Gunzip::new(packed), out);
    assert_eq!(none, 0);
    let (helped, foreseen) = read(Gunzip::planned(packed, threads, plan), out);
    assert_eq!(helped.error, alone.error, "{threads}, {plan:?}");
    assert_eq!(helped.ends, alone.ends, "{threads}, {plan:?}");
    assert!(
        helped.plain == alone.plain,
        "{threads}, {plan:?}: other bytes"
    );
    assert!(helped.rest == alone.rest, "{threads}, {plan:?}: elsewhere");
    (alone, foreseen)
}

#[test]
fn streams_of_all_kinds() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let plain = sample(&mut random, 3_000_000);
    for level in [2, 4, 6, 9] {
        // Blocks as zlib makes them are longer than those of flushes.
        for (every, chunk) in [
            (None, 64 << 10),
            (Some(20_000), 16 << 10),
            (Some(9_000), 5_000),
        ] {
            let packed = gzip(&plain, level, every);
            for (threads, out) in [(2, 1 << 19), (3, 1 << 20), (5, 100_000), (4, 1_000)] {
                let (said, foreseen) = compare(&packed, threads, patient(chunk), out);
                assert!(said.plain == plain && said.error.is_none());
                assert!(foreseen > 1_500_000, "level {level}, {every:?}: {foreseen}");
                compare(&packed, threads, impatient(chunk), out);
            }
        }
    }
}

/// What refers to nothing before itself, and what does so for ever.
#[test]
fn windows_known_soon_and_never() {
    let mut random = Random(77);
    let plain = sample(&mut random, 2_000_000);
    let full = member(
        &deflate(&plain, 6, Some((9_000, FlushCompress::Full))),
        &plain,
    );
    let (_, foreseen) = compare(&full, 3, patient(16 << 10), 1 << 19);
    assert!(foreseen > 1_000_000, "{foreseen}");
    // 30000 bytes that come again and again, with something new in between.
    let mut again = sample(&mut random, 30_000);
    while again.len() < 3_000_000 {
        let from = again.len() - 30_000;
        again.extend_from_within(from..);
        again.extend((0..600).map(|_| random.next() as u8));
    }
    let (_, foreseen) = compare(&gzip(&again, 6, Some(20_000)), 3, patient(5_000), 1 << 19);
    assert!(foreseen > 1_000_000, "{foreseen}");
}

/// Nothing is to be had of these, and nothing goes wrong.
#[test]
fn streams_without_a_beginning() {
    let mut random = Random(3);
    let noise: Vec<u8> = (0..500_000).map(|_| random.next() as u8).collect();
    let stored = gzip(&noise, 0, None);
    assert_eq!(compare(&stored, 3, patient(10_000), 1 << 19).1, 0);
    compare(&stored, 3, impatient(10_000), 1 << 19);
    // Fixed blocks: short flushes make them.
    let fixed = gzip(&noise[..300], 9, Some(8)).len();
    let text = b"some words ".repeat(30);
    let small = gzip(&text.repeat(200), 9, Some(12));
    assert!(fixed > 300 && small.len() > 40_000);
    compare(&small, 3, patient(3_000), 1 << 19);
    compare(&small, 3, impatient(3_000), 1 << 19);
}

/// The bytes of stored blocks are whole streams, whose blocks are found and are none.
#[test]
fn blocks_that_are_none() {
    let mut random = Random(5);
    let inner = sample(&mut random, 400_000);
    let inner = deflate(&inner, 6, Some((15_000, FlushCompress::Full)));
    let mut stream = Vec::new();
    let mut plain = Vec::new();
    for bytes in inner.chunks(40_000).cycle().take(12) {
        let length = bytes.len() as u16;
        stream.push(0);
        stream.extend(length.to_le_bytes());
        stream.extend((!length).to_le_bytes());
        stream.extend(bytes);
        plain.extend_from_slice(bytes);
    }
    let text = sample(&mut random, 300_000);
    stream.extend(deflate(&text, 6, None));
    plain.extend(&text);
    let packed = member(&stream, &plain);
    for chunk in [5_000, 16 << 10, 33_333] {
        for plan in [patient(chunk), impatient(chunk)] {
            let (said, _) = compare(&packed, 3, plan, 1 << 19);
            assert!(said.plain == plain && said.error.is_none());
        }
    }
}

#[test]
fn members_and_what_follows_them() {
    let mut random = Random(9);
    let plain = sample(&mut random, 900_000);
    let empty = gzip(b"", 6, None);
    let long = gzip(&plain, 6, Some(9_000));
    let short: Vec<u8> = plain
        .chunks(20_000)
        .flat_map(|piece| gzip(piece, 6, None))
        .collect();
    for packed in [
        [&long[..], &long, &empty, &long].concat(),
        [&empty[..], &short, &long, &[0; 3_000]].concat(),
        [&long[..], &short, b"garbage"].concat(),
        [&short[..], &long, &long[..400_000.min(long.len() / 2)]].concat(),
    ] {
        for chunk in [5_000, 16 << 10] {
            let (_, foreseen) = compare(&packed, 3, patient(chunk), 1 << 19);
            assert!(foreseen > 200_000, "{foreseen}");
            compare(&packed, 4, impatient(chunk), 70_000);
        }
    }
    // In the first 32 KiB of a member nothing may refer to what is before it.
    let far = deflate(&plain[..100_000], 9, Some((2_000, FlushCompress::Sync)));
    let cut = member(&far[700..], &plain[..100_000]);
    compare(&[&long[..], &cut].concat(), 3, patient(5_000), 1 << 19);
}

#[test]
fn damage_of_all_kinds() {
    let mut random = Random(0x0123_4567_89ab_cdef);
    let plain = sample(&mut random, 250_000);
    let seeds = [
        gzip(&plain, 6, Some(9_000)),
        gzip(&plain, 1, Some(4_000)),
        gzip(&plain, 9, None),
        plain
            .chunks(60_000)
            .flat_map(|piece| gzip(piece, 6, Some(7_000)))
            .collect(),
    ];
    let mut counts = [0; 3];
    for case in 0..800 {
        let mut packed = seeds[case % seeds.len()].clone();
        for _ in 0..random.below(3) {
            let at = random.below(packed.len());
            match random.below(4) {
                0 => packed[at] = random.next() as u8,
                1 => packed.truncate(at + 1),
                2 => packed.insert(at, random.next() as u8),
                _ => packed[at] ^= 1 << random.below(8),
            }
        }
        let chunk = [1_500, 4_000, 9_000, 25_000][case / 4 % 4];
        let (said, foreseen) = if case % 3 == 0 {
            compare(&packed, 2 + case % 4, impatient(chunk), 1 << 19)
        } else {
            compare(
                &packed,
                2 + case % 3,
                patient(chunk),
                [1 << 19, 66_000, 900][case % 3],
            )
        };
        counts[usize::from(said.error.is_some())] += 1;
        counts[2] += usize::from(foreseen > 0);
    }
    // Were one of them rare, little would be compared.
    assert!(counts.iter().all(|n| *n > 100), "{counts:?}");
}

#[test]
fn cut_anywhere_near_the_end() {
    let mut random = Random(21);
    let plain = sample(&mut random, 120_000);
    let packed = gzip(&plain, 6, Some(9_000));
    let length = packed.len();
    for cut in (length - 120..length).chain((0..60).map(|_| random.below(length))) {
        let (said, _) = compare(&packed[..cut], 3, patient(4_000), 1 << 19);
        assert_eq!(said.error, Some(Error::Truncated), "{cut} bytes");
    }
}

/// However much comes of little, it is kept within bounds.
#[test]
fn bombs() {
    let zeros = vec![0; 60_000_000];
    let packed = gzip(&zeros, 9, Some(1_000_000));
    assert!(packed.len() < 100_000);
    for threads in [2, 3, 5] {
        for plan in [patient(2_000), impatient(2_000)] {
            let mut decoder = Gunzip::planned(&packed[..], threads, plan);
            let mut out = vec![0; 1 << 19];
            let (mut total, mut most) = (0, 0);
            loop {
                let n = decoder.read(&mut out).unwrap();
                if n == 0 {
                    break;
                }
                total += n;
                assert!(out[..n].iter().all(|byte| *byte == 0));
                most = most.max(decoder.crew.held().1);
            }
            assert_eq!(total, zeros.len());
            if plan.patient {
                assert!(decoder.foreseen() > 0);
            }
            decoder.crew.dismiss();
            let (threads_left, bytes) = decoder.crew.held();
            assert_eq!(threads_left, 0);
            // All are back, and there are never more than so many, with a window before each.
            let parts = (2 * (threads - 1) + 1) * PARTS_MAX;
            let each = 3 * PART_BYTES + 2 * WINDOW_BYTES + size_of::<Inflate>();
            assert!(bytes.max(most) <= parts * each, "{bytes}");
            assert!(bytes > PARTS_MAX * PART_BYTES || !plan.patient, "{bytes}");
        }
    }
}

#[test]
fn whoever_gains_nothing_stops_guessing() {
    // Blocks of fixed codes, which nobody can tell from anything else.
    let plain = sample(&mut Random(8), 4_000_000);
    let packed = gzip(&plain, 1, Some(2_000));
    let mut decoder = Gunzip::planned(&packed[..], 3, impatient(4_000));
    let mut out = vec![0; 1 << 16];
    let mut given = 0;
    loop {
        if decoder.read(&mut out).unwrap() == 0 {
            break;
        }
        given = given.max(decoder.crew.next);
    }
    // It began, and rests for sixteen mebibytes now.
    assert!(packed.len() > 1_000_000);
    assert!((20_000..500_000).contains(&given), "{given}");
    assert!(decoder.crew.bets.is_empty());
}

/// What others make without the window before it is of no use in a member that has not come so far.
#[test]
fn members_smaller_than_a_window_are_no_gain() {
    let mut random = Random(9);
    let mut packed = Vec::new();
    for _ in 0..100 {
        packed.extend(gzip(&sample(&mut random, 25_000), 6, Some(2_500)));
    }
    let mut decoder = Gunzip::planned(&packed[..], 3, patient(2_000));
    for _ in 0..100 {
        std::io::copy(&mut decoder, &mut io::sink()).unwrap();
        decoder.restart();
    }
    assert_eq!(decoder.foreseen(), 0);
    let tasks = packed.len() / 10_000;
    let misses = decoder.crew.misses as usize;
    assert!(misses + 10 > tasks, "{misses} of {tasks}");
}

/// Copying is faster than anything that could be done beside it.
#[test]
fn nobody_is_asked_about_what_is_stored() {
    let mut random = Random(88);
    let noise: Vec<u8> = (0..2_000_000).map(|_| random.next() as u8).collect();
    let packed = gzip(&noise, 0, None);
    compare(&packed, 3, impatient(4_000), 1 << 16);
    let mut decoder = Gunzip::planned(&packed[..], 3, impatient(4_000));
    decoder.read_to_end(&mut Vec::new()).unwrap();
    assert!(decoder.crew.threads.is_empty());
}

#[test]
fn without_threads_it_goes_on_alone() {
    let plain = sample(&mut Random(4), 600_000);
    let packed = gzip(&plain, 6, Some(9_000));
    let plan = Plan {
        // More than there are addresses.
        stack_bytes: 1 << 60,
        ..impatient(5_000)
    };
    let (said, foreseen) = compare(&packed, 4, plan, 1 << 19);
    assert!(said.plain == plain);
    assert_eq!(foreseen, 0);
}

#[test]
fn threads_end_with_their_reader() {
    let plain = sample(&mut Random(6), 2_000_000);
    let packed = gzip(&plain, 6, Some(9_000));
    for plan in [patient(9_000), impatient(9_000)] {
        let mut decoder = Gunzip::planned(&packed[..], 4, plan);
        let mut out = vec![0; 300_000];
        decoder.read_exact(&mut out).unwrap();
        let parts = std::sync::Arc::downgrade(&decoder.crew.parts);
        assert!(decoder.crew.threads.len() == 3 && parts.strong_count() > 1);
        drop(decoder);
        assert_eq!(parts.strong_count(), 0);
    }
}

/// An input that fails once at each of these places.
struct Failing<'a> {
    bytes: &'a [u8],
    at: usize,
    places: Vec<usize>,
}

impl Read for Failing<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(out)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Failing<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let next = self.places.first().copied();
        if next == Some(self.at) {
            self.places.remove(0);
            return Err(if self.at.is_multiple_of(2) {
                io::ErrorKind::WouldBlock.into()
            } else {
                io::ErrorKind::Interrupted.into()
            });
        }
        let end = next.unwrap_or(self.bytes.len()).min(self.at + 3_000);
        Ok(&self.bytes[self.at..end])
    }

    fn consume(&mut self, n: usize) {
        self.at += n;
    }
}

#[test]
fn an_input_that_fails_does_so_behind_its_bytes() {
    let mut random = Random(13);
    let plain = sample(&mut random, 900_000);
    let packed = gzip(&plain, 6, Some(9_000));
    let mut places: Vec<usize> = (0..20).map(|_| random.below(packed.len())).collect();
    places.sort_unstable();
    places.dedup();
    let failures = |threads, plan| {
        let input = Failing {
            bytes: &packed,
            at: 0,
            places: places.clone(),
        };
        let mut decoder = Gunzip::planned(input, threads, plan);
        let (all, failures) = read_on(&mut decoder, 1 << 17);
        assert!(all == plain);
        (failures, decoder.foreseen())
    };
    let (alone, _) = failures(1, Plan::USUAL);
    assert!(alone.len() > 4);
    let (helped, foreseen) = failures(3, patient(5_000));
    assert_eq!(helped, alone);
    assert!(foreseen > 0);
    assert_eq!(failures(3, impatient(5_000)).0, alone);
}
