//! Whoever packed it, with the help of other threads the same comes out, and where it ends is the same.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    thread,
};

use cairn_inflate::Gunzip;

use crate::{
    common::{BitWriter, cause},
    plain::{Random, member},
};

/// Enough for several threads, however well it is packed.
const BYTES: usize = 10 << 20;

/// Words, numbers and noise in turns, as the files of a layer have them.
fn sample() -> Vec<u8> {
    let mut random = Random(0x5eed);
    let words: Vec<Vec<u8>> = (0..2_000)
        .map(|_| {
            (0..3 + random.below(9))
                .map(|_| b'a' + random.below(26) as u8)
                .collect()
        })
        .collect();
    let mut bytes = Vec::with_capacity(BYTES + 70_000);
    while bytes.len() < BYTES {
        let end = bytes.len() + 1 + random.below(60_000);
        match random.below(6) {
            0 => bytes.extend((bytes.len()..end).map(|_| random.next() as u8)),
            1 => {
                while bytes.len() < end {
                    bytes.extend((bytes.len() as u64).to_le_bytes());
                    bytes.extend((random.next() % 4_096).to_le_bytes());
                }
            }
            _ => {
                while bytes.len() < end {
                    bytes.extend(&words[random.below(2_000).min(random.below(2_000))]);
                }
            }
        }
    }
    bytes.truncate(BYTES);
    bytes
}

/// What a program makes of its input.
fn filter(program: &str, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("run {program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).unwrap());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {args:?}");
    output.stdout
}

#[track_caller]
fn gives(packed: &[u8], plain: &[u8], name: &str) {
    let packed = [packed, b"what follows"].concat();
    for threads in [2, 4] {
        let mut decoder = Gunzip::with_threads(&packed[..], threads);
        let mut all = Vec::with_capacity(plain.len() + 1);
        let mut out = vec![0; 512 << 10];
        loop {
            match decoder
                .read(&mut out)
                .unwrap_or_else(|e| panic!("{name}: {e}"))
            {
                0 => break,
                n => all.extend_from_slice(&out[..n]),
            }
        }
        assert!(all == plain, "{name}: other bytes");
        let mut rest = Vec::new();
        decoder.input_mut().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"what follows", "{name}");
    }
}

#[test]
fn what_programs_pack_comes_out() {
    let plain = sample();
    for (program, args) in [
        ("gzip", &["-1"][..]),
        ("gzip", &["-9"]),
        ("pigz", &["-p", "2"]),
        ("pigz", &["-p", "2", "-i", "-b", "64"]),
        (
            "python3",
            &[
                "-c",
                "import gzip,sys; sys.stdout.buffer.write(gzip.compress(sys.stdin.buffer.read(), 4))",
            ],
        ),
    ] {
        let packed = filter(program, args, &plain);
        gives(&packed, &plain, &format!("{program} {args:?}"));
    }
}

/// The trailer of a stream that others helped with is held against what came.
#[test]
fn a_wrong_trailer_is_noticed() {
    let plain = sample();
    let packed = filter("gzip", &["-6"], &plain);
    let mut errors = Vec::new();
    for place in [8, 4] {
        for threads in [1, 3] {
            let mut wrong = packed.clone();
            let at = wrong.len() - place;
            wrong[at] ^= 1;
            let mut decoder = Gunzip::with_threads(&wrong[..], threads);
            let mut all = Vec::new();
            let error = decoder.read_to_end(&mut all).unwrap_err();
            assert!(all == plain);
            errors.push(cause(&error));
        }
    }
    use cairn_inflate::Error::{Checksum, Length};
    assert_eq!(errors, [Checksum, Checksum, Length, Length]);
}

/// One block for all of it: nobody can begin in its middle.
#[test]
fn one_huge_block() {
    let plain: Vec<u8> = sample()[..3 << 20].iter().map(|byte| byte % 144).collect();
    let writer = BitWriter::new().bits(1, 1).bits(1, 2);
    let writer = plain
        .iter()
        .fold(writer, |writer, byte| writer.fixed((*byte).into()));
    let packed = member(&writer.fixed(256).done(), &plain);
    gives(&packed, &plain, "one block");
}
