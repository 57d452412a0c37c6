//! RFC 1951, its edges.

use cairn_inflate::Error;

use crate::{
    common::{BitWriter, decode_by, inflate},
    plain::member,
};

fn fixed() -> BitWriter {
    BitWriter::new().bits(1, 1).bits(1, 2)
}

#[track_caller]
fn gives(writer: BitWriter, plain: &[u8]) {
    let (said, error) = inflate(&writer.done());
    assert_eq!(error, None);
    assert!(said == plain, "{} bytes, not {}", said.len(), plain.len());
}

#[track_caller]
fn refused(writer: BitWriter, error: Error) {
    // What follows is not looked at, so that it need not be there.
    let stream = [writer.done(), vec![0; 40]].concat();
    assert_eq!(inflate(&stream).1, Some(error));
}

#[test]
fn stored_blocks() {
    let long: Vec<u8> = (0..65_535_u32).map(|n| ((n * n) >> 5) as u8).collect();
    gives(BitWriter::new().stored(true, b""), b"");
    gives(BitWriter::new().stored(true, &long), &long);
    let some = BitWriter::new().stored(false, b"").stored(false, &long);
    gives(
        some.stored(false, b"").stored(true, &long[..3]),
        &[&long, &long[..3]].concat(),
    );
    // The length is to be followed by its complement.
    let wrong = BitWriter::new().bits(1, 8).bits(5, 16);
    refused(wrong.clone().bits(5, 16), Error::StoredLength);
    refused(wrong.bits(0xffff, 16), Error::StoredLength);
}

#[test]
fn blocks_of_different_kinds_share_one_window() {
    let text = b"a window is for all blocks; ";
    let stream = BitWriter::new().stored(false, text).bits(0, 1).bits(1, 2);
    // Distance 28: code 9, base 25, three extra bits; length 28: code 271, base 27, two.
    let stream = stream
        .fixed(271)
        .bits(1, 2)
        .code(9, 5)
        .bits(3, 3)
        .fixed(256);
    gives(stream.stored(true, text), &text.repeat(3));
}

#[test]
fn fixed_codes() {
    gives(fixed().fixed(256), b"");
    let all: Vec<u8> = (0..=255).collect();
    let writer = all
        .iter()
        .fold(fixed(), |writer, byte| writer.fixed((*byte).into()));
    gives(writer.fixed(256), &all);
    // Empty blocks before the last one, which may be empty as well.
    let empty = BitWriter::new().bits(0, 1).bits(1, 2).fixed(256);
    gives(
        empty.stored(false, b"").bits(1, 1).bits(1, 2).fixed(256),
        b"",
    );
}

/// Every length and distance that has a code, at its first and its last value.
#[test]
fn lengths_and_distances() {
    let long: Vec<u8> = (0..40_000_u32).map(|n| ((n * n) >> 3) as u8).collect();
    let ranges = |codes: u32, first: u32, step: u32, plain: u32| {
        let mut base = first;
        (0..codes)
            .flat_map(move |code| {
                let extra = (code / step).saturating_sub(plain);
                let range = (code, extra, base);
                base += 1 << extra;
                [(range, 0), (range, (1 << extra) - 1)]
            })
            .collect::<Vec<_>>()
    };
    let mut lengths = ranges(28, 3, 4, 1);
    lengths.push(((28, 0, 258), 0));
    for ((code, extra, base), more) in lengths {
        for distance in 1..=40_usize {
            let writer = BitWriter::new()
                .stored(false, &long[..100])
                .bits(1, 1)
                .bits(1, 2);
            let writer = writer.fixed(257 + code).bits(more, extra);
            let writer = far(writer, distance).fixed(256);
            gives(
                writer,
                &repeated(&long[..100], distance, (base + more) as usize),
            );
        }
    }
    for ((code, extra, base), more) in ranges(30, 1, 2, 1) {
        let writer = BitWriter::new().stored(false, &long).bits(1, 1).bits(1, 2);
        let writer = writer.fixed(285).code(code, 5).bits(more, extra).fixed(256);
        gives(writer, &repeated(&long, (base + more) as usize, 258));
    }
}

fn repeated(before: &[u8], distance: usize, length: usize) -> Vec<u8> {
    let mut all = before.to_vec();
    for _ in 0..length {
        all.push(all[all.len() - distance]);
    }
    all
}

/// A distance up to 48 in the fixed code.
fn far(writer: BitWriter, distance: usize) -> BitWriter {
    let bases = [1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49];
    let code = bases.iter().rposition(|base| *base <= distance).unwrap();
    let extra = (bases[code + 1] - bases[code]).ilog2();
    writer
        .code(code as u32, 5)
        .bits((distance - bases[code]) as u32, extra)
}

#[test]
fn codes_without_meaning_are_refused() {
    refused(fixed().fixed(286), Error::LengthCode);
    refused(fixed().fixed(b'a'.into()).fixed(287), Error::LengthCode);
    for code in [30, 31] {
        let writer = fixed().fixed(b'a'.into()).fixed(257).code(code, 5);
        refused(writer, Error::DistanceCode);
    }
    refused(BitWriter::new().bits(1, 1).bits(3, 2), Error::BlockType);
}

#[test]
fn nothing_is_taken_from_before_the_stream() {
    refused(fixed().fixed(257).code(0, 5), Error::TooFarBack);
    refused(
        fixed().fixed(b'a'.into()).fixed(257).code(1, 5),
        Error::TooFarBack,
    );
    // In the middle of much input and room too.
    for (plain, wrong) in [(300_usize, 301_usize), (20_000, 20_001), (32_767, 32_768)] {
        let writer = BitWriter::new()
            .stored(false, &vec![7; plain])
            .bits(1, 1)
            .bits(1, 2);
        let code = |distance: usize, writer: BitWriter| {
            let extra = (distance - 1).ilog2() - 1;
            let half = (distance - 1) >> extra & 1;
            let rest = (distance - 1) & ((1 << extra) - 1);
            writer
                .fixed(257)
                .code(2 * extra + 2 + half as u32, 5)
                .bits(rest as u32, extra)
        };
        gives(code(plain, writer.clone()).fixed(256), &vec![7; plain + 3]);
        refused(code(wrong, writer), Error::TooFarBack);
    }
}

/// Lengths of a code for `a` and the end, one bit each.
fn short() -> Vec<u8> {
    let mut lengths = vec![0; 257];
    lengths[97] = 1;
    lengths[256] = 1;
    lengths
}

#[test]
fn dynamic_codes() {
    let writer = BitWriter::new().dynamic(true, &short(), &[0]);
    gives(writer.clone().code(0, 1).code(0, 1).code(1, 1), b"aa");
    // A code of the end alone has one bit, of which the other value means nothing.
    let mut end = vec![0; 257];
    end[256] = 1;
    let writer = BitWriter::new().dynamic(true, &end, &[0]);
    gives(writer.clone().code(0, 1), b"");
    refused(writer.code(1, 1), Error::LengthCode);
    // One distance code of one bit is no complete code and taken; the other bit is not.
    let mut lengths = vec![0; 258];
    lengths[97] = 1;
    lengths[256] = 2;
    lengths[257] = 2;
    let writer = BitWriter::new().dynamic(true, &lengths, &[1]);
    let writer = writer.code(0, 1).code(3, 2);
    gives(writer.clone().code(0, 1).code(2, 2), b"aaaa");
    refused(writer.code(1, 1), Error::DistanceCode);
    // None at all is taken too, as long as nobody asks for one.
    let writer = BitWriter::new().dynamic(true, &lengths, &[0]);
    gives(writer.clone().code(0, 1).code(2, 2), b"a");
    refused(writer.code(0, 1).code(3, 2).code(0, 1), Error::DistanceCode);
}

/// Codes of 1, 2, 3 … 14, 15 and 15 bits, as deep as they come.
#[test]
fn the_longest_codes() {
    let mut lengths = vec![0; 286];
    let symbols: [usize; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 285, 284, 256];
    for (bits, symbol) in (1..).zip(symbols) {
        lengths[symbol] = bits.min(15);
    }
    let mut distances = vec![0; 30];
    for (bits, code) in (1..).zip([3, 2, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0, 29]) {
        distances[code] = bits.min(15);
    }
    let code = |bits: u32| ((1 << bits) - 2, bits);
    let mut writer = BitWriter::new().dynamic(true, &lengths, &distances);
    let mut plain = Vec::new();
    for round in 0..400_u32 {
        for bits in 1..=13 {
            let (value, count) = code((bits + round) % 13 + 1);
            writer = writer.code(value, count);
            plain.push(count as u8 - 1);
        }
        // Of the symbols of 15 bits the lower one is the end, so the match is 285 of 14.
        let (value, count) = code(14);
        // Distance 1 has the lower one of the codes of 15 bits.
        writer = writer.code(value, count).code(0x7ffe, 15);
        plain = repeated(&plain, 1, 258);
    }
    gives(writer.code(0x7ffe, 15), &plain);
}

#[test]
fn codes_that_are_none_are_refused() {
    let with = |set: &[(usize, u8)]| {
        let mut lengths = short();
        lengths.resize(286, 0);
        for (symbol, length) in set {
            lengths[*symbol] = *length;
        }
        lengths
    };
    let lengths = |set: &[(usize, u8)]| BitWriter::new().dynamic(true, &with(set), &[1, 1]);
    refused(lengths(&[(256, 0)]), Error::NoEndOfBlock);
    refused(lengths(&[(5, 1)]), Error::LiteralLengths);
    refused(lengths(&[(97, 2)]), Error::LiteralLengths);
    refused(lengths(&[(97, 0), (256, 2)]), Error::LiteralLengths);
    let distances = |set: &[u8]| BitWriter::new().dynamic(true, &short(), set);
    refused(distances(&[1, 1, 1]), Error::Distances);
    refused(distances(&[1, 2]), Error::Distances);
    refused(distances(&[2]), Error::Distances);
    let counts = |literals: u32, distances: u32| {
        let writer = BitWriter::new().bits(1, 1).bits(2, 2);
        writer.bits(literals - 257, 5).bits(distances - 1, 5)
    };
    for (literals, distances) in [(287, 1), (288, 1), (257, 31), (257, 32)] {
        let writer = counts(literals, distances).bits(15, 4);
        refused(writer, Error::TooManySymbols);
    }
    // The code of code lengths: 16, 17, 18 and 0 are the first four.
    let codes = |lengths: [u32; 4]| {
        let writer = counts(257, 1).bits(0, 4);
        lengths
            .iter()
            .fold(writer, |writer, bits| writer.bits(*bits, 3))
    };
    refused(codes([1, 1, 1, 0]), Error::CodeLengths);
    refused(codes([1, 0, 0, 0]), Error::CodeLengths);
    refused(codes([2, 2, 2, 0]), Error::CodeLengths);
    // 16 repeats what came before, of which there is nothing yet; then more than there are symbols.
    refused(codes([1, 0, 0, 1]).code(1, 1), Error::LengthRepeat);
    let zeros = codes([0, 0, 1, 1]).code(1, 1).bits(127, 7).code(1, 1);
    refused(zeros.bits(127, 7), Error::LengthRepeat);
}

/// A repetition may run from the lengths of literals into those of distances.
#[test]
fn repetitions_cross_the_codes() {
    let writer = BitWriter::new().bits(1, 1).bits(2, 2).bits(0, 5).bits(1, 5);
    // 18, 1, 16 and 0 with two bits each; the order is 16 17 18 0 8 7 9 6 10 5 11 4 12 3 13 2 14 1.
    let mut writer = writer.bits(14, 4);
    for bits in [2, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2] {
        writer = writer.bits(bits, 3);
    }
    // So 0 is 00, 1 is 01, 16 is 10, 18 is 11. There are 255 zeros, a one, and the same thrice more.
    let zeros = |writer: BitWriter, n: u32| writer.code(3, 2).bits(n - 11, 7);
    let writer = zeros(writer, 138);
    let writer = zeros(writer, 117).code(1, 2).code(2, 2).bits(0, 2);
    // Lengths: 255 and 256 have one bit, and both distances.
    let writer = writer.code(0, 1).code(0, 1).code(1, 1);
    gives(writer, &[255, 255]);
}

#[test]
fn cut_at_every_byte_it_is_truncated() {
    let plain: Vec<u8> = (0..3_000_u32).map(|n| ((n * n) >> 9) as u8).collect();
    let writer = BitWriter::new().stored(false, &plain[..50]);
    let writer = writer.dynamic(false, &short(), &[0]).code(0, 1).code(1, 1);
    let writer = writer.bits(1, 1).bits(1, 2).fixed(285).code(0, 5);
    let stream = writer.fixed(b'z'.into()).fixed(256).done();
    let whole = [&plain[..50], &b"a".repeat(259), b"z"].concat();
    let packed = member(&stream, &whole);
    for cut in 0..packed.len() {
        for (input, output) in [(usize::MAX, 1 << 20), (1, 1 << 20), (3, 5), (usize::MAX, 2)] {
            let (said, error) = decode_by(&packed[..cut], input, output);
            assert_eq!(error, Some(Error::Truncated), "{cut} bytes");
            assert!(whole.starts_with(&said), "{cut} bytes");
        }
    }
    for output in 1..600 {
        assert_eq!(
            decode_by(&packed, usize::MAX, output),
            (whole.clone(), None)
        );
        assert_eq!(decode_by(&packed, output, output), (whole.clone(), None));
    }
}
