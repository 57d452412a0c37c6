//! RFC 1952: headers, trailers, members one after the other.

use std::io::{self, BufRead, Read};

use cairn_inflate::{Error, Gunzip};

use crate::{
    common::{BitWriter, decode, decode_by},
    plain::{HEADER, member, read_on},
};

const PLAIN: &[u8] = b"hello, hello, hello";

fn stream() -> Vec<u8> {
    BitWriter::new().stored(true, PLAIN).done()
}

/// A member with these flags, and these fields behind the fixed ones.
fn headed(flags: u8, fields: &[u8]) -> Vec<u8> {
    let mut packed = member(&stream(), PLAIN);
    packed[3] = flags;
    packed.splice(10..10, fields.iter().copied());
    packed
}

#[track_caller]
fn taken(flags: u8, fields: &[u8]) {
    let packed = headed(flags, fields);
    assert_eq!(decode(&packed), (PLAIN.to_vec(), None));
    for cut in 0..10 + fields.len().min(200) {
        let said = decode_by(&packed[..cut], 3, 10);
        assert_eq!(said, (Vec::new(), Some(Error::Truncated)), "{cut} bytes");
    }
}

#[test]
fn all_fields_of_a_header_are_skipped() {
    taken(0, b"");
    // That it is text, it says.
    taken(1, b"");
    taken(4, b"\0\0");
    taken(4, b"\x05\0extra");
    let longest = [&[0xff; 2][..], &[b'x'; 65_535]].concat();
    taken(4, &longest);
    taken(8, b"name\0");
    taken(8, b"\0");
    taken(16, b"comment\0");
    taken(4 | 8 | 16, b"\x01\0\0name\0comment\0");
    // Longer than any buffer.
    taken(8, &[&[b'n'; 300_000][..], b"\0"].concat());
    for (flags, fields) in [(2, &b""[..]), (31, &b"\x02\0\0\0name\0comment\0"[..])] {
        let mut head = HEADER;
        head[3] = flags;
        let sum = crc32fast::hash(&[&head, fields].concat());
        let [low, high, ..] = sum.to_le_bytes();
        taken(flags, &[fields, &[low, high]].concat());
        let said = decode(&headed(flags, &[fields, &[low ^ 1, high]].concat()));
        assert_eq!(said.1, Some(Error::HeaderChecksum));
    }
}

#[test]
fn what_is_no_header_is_refused() {
    let with = |at: usize, byte: u8| {
        let mut packed = headed(0, b"");
        packed[at] = byte;
        decode(&packed).1
    };
    assert_eq!(with(0, 0x1e), Some(Error::Magic));
    assert_eq!(with(1, 0), Some(Error::Magic));
    assert_eq!(with(2, 7), Some(Error::Method(7)));
    for bit in [0x20, 0x40, 0x80] {
        assert_eq!(with(3, bit), Some(Error::Flags(bit)));
    }
    // Time, extra flags and system may be anything.
    for at in 4..10 {
        assert_eq!(with(at, 0xa5), None);
    }
}

#[test]
fn the_trailer_is_held_against_what_came() {
    let packed = member(&stream(), PLAIN);
    for (at, error) in [
        (0, Error::Checksum),
        (3, Error::Checksum),
        (4, Error::Length),
        (7, Error::Length),
    ] {
        let mut wrong = packed.clone();
        let place = packed.len() - 8 + at;
        wrong[place] ^= 0x10;
        assert_eq!(decode(&wrong), (PLAIN.to_vec(), Some(error)));
    }
}

/// As eStargz has it: hardly anything but members.
#[test]
fn one_member_after_the_other() {
    let fixed = BitWriter::new().bits(1, 1).bits(1, 2).fixed(256).done();
    let far = BitWriter::new()
        .bits(1, 1)
        .bits(1, 2)
        .fixed(257)
        .code(0, 5)
        .done();
    let mut packed = Vec::new();
    for _ in 0..100 {
        packed.extend(member(&fixed, b""));
        packed.extend(member(&stream(), PLAIN));
    }
    packed.extend(member(&far, b""));
    packed.extend(b"rest");
    let mut decoder = Gunzip::new(&packed[..]);
    let mut all = Vec::new();
    for _ in 0..200 {
        decoder.read_to_end(&mut all).unwrap();
        decoder.restart();
    }
    assert!(all == PLAIN.repeat(100));
    // What the last member had is no part of this one.
    let error = decoder.read(&mut [0; 10]).unwrap_err();
    assert_eq!(crate::common::cause(&error), Error::TooFarBack);
}

#[test]
fn what_follows_a_member_is_left_alone() {
    for stream in [
        stream(),
        BitWriter::new().bits(1, 1).bits(1, 2).fixed(256).done(),
    ] {
        let plain = if stream.len() > 5 { PLAIN } else { b"" };
        let packed = [&member(&stream, plain), &[0x55; 100][..]].concat();
        let mut decoder = Gunzip::new(&packed[..]);
        decoder.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(decoder.read(&mut [0; 9]).unwrap(), 0);
        let mut rest = Vec::new();
        decoder.input_mut().read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [0x55; 100]);
    }
}

#[test]
fn an_error_comes_after_the_bytes_before_it_and_stays() {
    let packed = BitWriter::new().stored(false, PLAIN).bits(7, 3).done();
    let packed = [&HEADER, &packed[..]].concat();
    for size in [5, 1 << 20] {
        let mut decoder = Gunzip::new(&packed[..]);
        let mut out = vec![0; size];
        let mut all = Vec::new();
        while all.len() < PLAIN.len() {
            let n = decoder.read(&mut out).unwrap();
            all.extend_from_slice(&out[..n]);
        }
        assert_eq!(all, PLAIN);
        for _ in 0..3 {
            let error = decoder.read(&mut out).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert_eq!(crate::common::cause(&error), Error::BlockType);
        }
    }
}

/// An input that fails before each of its bytes.
struct Failing<'a>(&'a [u8], usize);

impl Read for Failing<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("it is a BufRead")
    }
}

impl BufRead for Failing<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.1 += 1;
        match self.1 % 4 {
            0 => Err(io::ErrorKind::Interrupted.into()),
            1 => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(&self.0[..self.0.len().min(1)]),
        }
    }

    fn consume(&mut self, n: usize) {
        self.0 = &self.0[n..];
    }
}

#[test]
fn an_input_that_recovers_is_read_on() {
    let text = PLAIN.repeat(40);
    let mut stream = BitWriter::new().bits(1, 1).bits(1, 2);
    for byte in &text {
        stream = stream.fixed((*byte).into());
    }
    let packed = member(&stream.fixed(256).done(), &text);
    for size in [4, 100_000] {
        let mut decoder = Gunzip::new(Failing(&packed, 0));
        let (all, failures) = read_on(&mut decoder, size);
        assert!(all == text);
        assert!(failures.len() > 100, "{}", failures.len());
    }
}
