//! Sparse maps built by hand: the four dialects, their limits and their lies.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

use cairn_layer::tar::{Limits, Segment};

use crate::tarball::{Header, Read, Tar, chain, contents, gnu, header, read_with, tar};

#[track_caller]
fn read(tar: &Tar) -> Vec<Read> {
    crate::tarball::read(&tar.0).unwrap_or_else(|err| panic!("{}", chain(&err)))
}

#[track_caller]
fn refused(tar: &Tar, reason: &str) {
    refused_with(tar, Limits::default(), reason);
}

#[track_caller]
fn refused_with(tar: &Tar, limits: Limits, reason: &str) {
    let err = read_with(&tar.0, limits).expect_err("must be refused");
    let text = chain(&err);
    assert!(text.contains(reason), "{text}");
}

/// Paths and sizes, as in `a=3 d/=0`.
fn names(seen: &[Read]) -> String {
    let show = |(entry, _): &Read| format!("{}={}", entry.path.escape_ascii(), entry.size);
    seen.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// GNU's `S` with up to four regions in the header.
fn old(regions: &[(u64, u64)], real: u64, stored: u64) -> Header {
    let mut head = gnu(b'S', "s", stored);
    for (at, (offset, len)) in regions.iter().take(4).enumerate() {
        head = head.with(
            386 + at * 24,
            format!("{offset:011o}\0{len:011o}\0").as_bytes(),
        );
    }
    head = head.with(483, format!("{real:011o}\0").as_bytes());
    if regions.len() > 4 {
        head.with(482, &[1])
    } else {
        head
    }
}

/// The blocks that continue a map.
fn continued(mut bytes: Tar, regions: &[(u64, u64)]) -> Tar {
    let rest = regions.get(4..).unwrap_or(&[]);
    let blocks = rest.chunks(21).count();
    for (at, chunk) in rest.chunks(21).enumerate() {
        let mut block = [0u8; 512];
        for (place, (offset, len)) in chunk.iter().enumerate() {
            let text = format!("{offset:011o}\0{len:011o}\0");
            block[place * 24..][..24].copy_from_slice(text.as_bytes());
        }
        block[504] = u8::from(at + 1 < blocks);
        bytes.0.extend_from_slice(&block);
    }
    bytes
}

fn bytes_of<'r>(records: &[(&'r str, &'r str)]) -> Vec<(&'r str, &'r [u8])> {
    records
        .iter()
        .map(|(key, value)| (*key, value.as_bytes()))
        .collect()
}

fn old_tar(regions: &[(u64, u64)], real: u64, data: &[u8]) -> Tar {
    let head = tar().head(old(regions, real, data.len() as u64));
    let mut bytes = continued(head, regions);
    bytes.0.extend_from_slice(data);
    bytes.0.resize(bytes.0.len().next_multiple_of(512), 0);
    bytes.file("after", b"x").end()
}

fn version_1(map: &str, real: &str, data: &[u8]) -> Tar {
    let mut body = map.as_bytes().to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body.extend_from_slice(data);
    tar()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"s"),
            ("GNU.sparse.realsize", real.as_bytes()),
        ])
        .file("GNUSparseFile.0/s", &body)
        .file("after", b"x")
        .end()
}

fn version_0(records: &[(&str, &str)], data: &[u8]) -> Tar {
    tar()
        .pax(&bytes_of(records))
        .file("s", data)
        .file("after", b"x")
        .end()
}

#[track_caller]
fn check(bytes: &Tar, size: usize, regions: &[(usize, &[u8])]) {
    let seen = read(bytes);
    assert_eq!(names(&seen), format!("s={size} after=1"));
    let mut file = vec![0; size];
    for (at, data) in regions {
        file[*at..*at + data.len()].copy_from_slice(data);
    }
    assert_eq!(contents(&seen[0]), file);
    let segments = seen[0].0.sparse.as_ref().expect("a map");
    assert_eq!(segments.len(), regions.len());
}

#[test]
fn every_dialect_makes_the_same_file() {
    let parts: [(usize, &[u8]); 2] = [(1000, b"abc"), (5000, b"de")];
    check(
        &old_tar(&[(1000, 3), (5000, 2), (9000, 0)], 9000, b"abcde"),
        9000,
        &parts,
    );
    check(
        &version_1("3\n1000\n3\n5000\n2\n9000\n0\n", "9000", b"abcde"),
        9000,
        &parts,
    );
    let map = [
        ("GNU.sparse.size", "9000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.name", "s"),
        ("GNU.sparse.map", "1000,3,5000,2"),
    ];
    check(&version_0(&map, b"abcde"), 9000, &parts);
    let pairs = [
        ("GNU.sparse.size", "9000"),
        ("GNU.sparse.numblocks", "2"),
        ("GNU.sparse.offset", "1000"),
        ("GNU.sparse.numbytes", "3"),
        ("GNU.sparse.offset", "5000"),
        ("GNU.sparse.numbytes", "2"),
    ];
    check(&version_0(&pairs, b"abcde"), 9000, &parts);
}

#[test]
fn files_of_holes_alone_store_nothing() {
    check(&old_tar(&[(9000, 0)], 9000, b""), 9000, &[]);
    check(&old_tar(&[], 9000, b""), 9000, &[]);
    check(&version_1("0\n", "9000", b""), 9000, &[]);
    let none = [("GNU.sparse.size", "9000"), ("GNU.sparse.numblocks", "0")];
    check(&version_0(&none, b""), 9000, &[]);
}

#[test]
fn maps_continue_over_blocks() {
    for count in [4, 5, 25, 26, 1000] {
        let regions: Vec<_> = (0..count).map(|n| (n * 10, 1)).collect();
        let data = vec![7; count as usize];
        let seen = read(&old_tar(&regions, count * 10, &data));
        assert_eq!(names(&seen), format!("s={} after=1", count * 10));
        let segments = seen[0].0.sparse.clone().unwrap();
        let last = (count - 1) * 10;
        assert_eq!(segments.len(), count as usize);
        assert_eq!(
            segments[count as usize - 1],
            Segment {
                offset: last,
                len: 1
            }
        );

        let lines: String = regions
            .iter()
            .map(|(at, len)| format!("{at}\n{len}\n"))
            .collect();
        let real = (count * 10).to_string();
        let same = read(&version_1(&format!("{count}\n{lines}"), &real, &data));
        assert_eq!(same[0].0.sparse, Some(segments));
    }
}

#[test]
fn pax_size_wins_for_the_stored_size_too() {
    let mut bytes = tar()
        .pax(&[("size", b"3")])
        .head(old(&[(10, 3)], 20, 0))
        .data(b"abc");
    bytes = bytes.file("after", b"x");
    assert_eq!(names(&read(&bytes.end())), "s=20 after=1");
}

#[test]
fn h09_maps_that_contradict_themselves_are_refused() {
    let both = |regions: &[(u64, u64)], real: u64, data: &[u8], reason: &str| {
        refused(&old_tar(regions, real, data), reason);
        let lines: String = regions
            .iter()
            .map(|(at, len)| format!("{at}\n{len}\n"))
            .collect();
        let map = format!("{}\n{lines}", regions.len());
        refused(&version_1(&map, &real.to_string(), data), reason);
    };
    both(&[(0, 3), (2, 2)], 10, b"abcde", "overlap or descend");
    both(&[(5, 1), (0, 1)], 10, b"ab", "overlap or descend");
    both(&[(8, 3)], 10, b"abc", "ends beyond the file");
    both(&[(11, 0)], 10, b"", "ends beyond the file");
    both(&[(0, 3)], 10, b"ab", "differ in size");
    both(&[(0, 3)], 10, b"abcd", "differ in size");
    both(&[], 10, b"abcd", "differ in size");
    let huge = u64::MAX.to_string();
    refused(
        &version_1(&format!("1\n{huge}\n1\n"), "10", b"a"),
        "beyond the file",
    );
    refused(
        &version_1(&format!("1\n1\n{huge}\n"), "10", b"a"),
        "beyond the file",
    );
}

#[test]
fn h09_holes_count_as_bytes_of_the_file() {
    let limit = 64u64 << 30;
    let real = limit.to_string();
    assert_eq!(read(&version_1("0\n", &real, b""))[0].0.size, limit);
    let over = (limit + 1).to_string();
    refused(
        &version_1("0\n", &over, b""),
        "bytes of one file above the limit",
    );
    refused(
        &version_1("0\n", "9223372036854775807", b""),
        "bytes of one file above",
    );
}

#[test]
fn h09_regions_have_a_limit() {
    let limits = Limits {
        sparse_regions: 30,
        ..Limits::default()
    };
    let reason = "regions of a sparse file above the limit of 30";
    let regions: Vec<_> = (0..31).map(|n| (n * 10, 1)).collect();
    refused_with(&old_tar(&regions, 400, &[7; 31]), limits.clone(), reason);
    let lines: String = regions
        .iter()
        .map(|(at, len)| format!("{at}\n{len}\n"))
        .collect();
    let map = format!("31\n{lines}");
    refused_with(&version_1(&map, "400", &[7; 31]), limits.clone(), reason);
    // Empty ones count: a map of nothing else would be endless.
    let empty: String = "0\n0\n".repeat(40);
    refused_with(
        &version_1(&format!("40\n{empty}"), "400", b""),
        limits,
        reason,
    );
    // The claim alone costs nothing.
    refused(
        &version_1("9999999999\n0\n0\n", "400", b""),
        "a line is no number",
    );
}

#[test]
fn h09_maps_that_are_no_maps_are_refused() {
    for map in [
        "x\n",
        "-1\n",
        "\n",
        "1\n0\n",
        "1 \n0\n0\n",
        "100000000000000000000000000\n",
    ] {
        refused(&version_1(map, "10", b""), "sparse map");
    }
    refused(&version_1("", "10", b""), "sparse map");
    let pairs = |records: &[(&str, &str)], reason: &str| {
        refused(&version_0(records, b"abcde"), reason);
    };
    let size = ("GNU.sparse.size", "9");
    pairs(&[size], "no map");
    pairs(&[("GNU.sparse.name", "s")], "size is missing");
    pairs(&[("GNU.sparse.map", "0,5")], "size is missing");
    pairs(&[size, ("GNU.sparse.realsize", "8")], "two sizes");
    pairs(&[size, ("GNU.sparse.map", "0,5,6")], "number of regions");
    pairs(&[size, ("GNU.sparse.map", "0,5,")], "invalid value");
    pairs(&[size, ("GNU.sparse.map", "0,+5")], "invalid value");
    pairs(
        &[
            size,
            ("GNU.sparse.map", "0,5"),
            ("GNU.sparse.numblocks", "2"),
        ],
        "number of regions",
    );
    pairs(
        &[size, ("GNU.sparse.numbytes", "5")],
        "an offset without a length",
    );
    pairs(
        &[size, ("GNU.sparse.offset", "0"), ("GNU.sparse.offset", "0")],
        "an offset without a length",
    );
    pairs(&[size, ("GNU.sparse.offset", "0")], "number of regions");
    let offset = ("GNU.sparse.offset", "0");
    let bytes = ("GNU.sparse.numbytes", "5");
    pairs(
        &[size, offset, bytes, ("GNU.sparse.map", "0,5")],
        "two maps",
    );
    pairs(
        &[size, ("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")],
        "unknown version",
    );
    pairs(&[size, ("GNU.sparse.major", "1")], "unknown version");
    let one = ("GNU.sparse.major", "1");
    pairs(
        &[
            size,
            one,
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.map", "0,5"),
        ],
        "two maps",
    );
}

#[test]
fn h06_sparse_records_of_what_is_no_file_are_refused() {
    let records = [("GNU.sparse.size", "9"), ("GNU.sparse.map", "0,5")];
    for flag in [b'1', b'2', b'5'] {
        let bytes = tar()
            .pax(&bytes_of(&records))
            .head(header(flag, "a", 0).with(157, b"b"))
            .end();
        refused(&bytes, "only files can be sparse");
    }
    let bytes = tar()
        .pax(&bytes_of(&records))
        .head(old(&[(0, 5)], 9, 5))
        .data(b"abcde")
        .end();
    refused(&bytes, "two maps");
    let bytes = tar().pax(&[("GNU.sparse.name", b"a")]).ext(b'L', b"b\0");
    refused(&bytes.file("c", b"").end(), "a GNU long name");
}

/// GNU tar stops reading the map at the first empty place, Go only at the last block.
#[test]
fn h09_a_map_with_a_gap_is_refused() {
    let gap = old(&[(0, 3)], 10, 3).with(482, &[1]);
    let bytes = continued(tar().head(gap), &[(0, 0); 5]).end();
    refused(&bytes, "where the sparse map ends");
    let half = old(&[], 10, 0).with(386, b"00000000001\0");
    refused(&tar().head(half).end(), "where the sparse map ends");
    let cut = tar().head(old(&[(0, 1); 5], 10, 5));
    refused(&cut, "overlap or descend");
    let cut = tar().head(old(&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], 10, 5));
    refused(&cut, "ends inside its sparse map");
    let bad = old(&[(0, 1)], 10, 1).with(386, b"0000000000x\0");
    refused(&tar().head(bad).data(b"a").end(), "the sparse offset field");
}

#[test]
fn base_256_maps_are_read() {
    let mut head = old(&[(0, 3)], 0, 3);
    let wide = |n: u64| [&[0x80, 0, 0, 0][..], &n.to_be_bytes()].concat();
    head = head
        .with(386, &wide(1 << 34))
        .with(398, &wide(3))
        .with(483, &wide(1 << 35));
    let (entry, _) = read(&tar().head(head).data(b"abc").end()).remove(0);
    assert_eq!(entry.size, 1 << 35);
    assert_eq!(
        entry.sparse,
        Some(vec![Segment {
            offset: 1 << 34,
            len: 3
        }])
    );
}
