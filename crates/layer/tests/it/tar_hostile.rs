//! Archives that readers have disagreed about, broken off or fallen over: each is read one way or
//! refused by name.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

use cairn_layer::tar::{Limits, Segment, Time};
use cairn_types::{Classified, ErrorKind};

use crate::tarball::{
    Header, chain, check, gnu, header, over_limit, pax_body, read, read_with, refused, tar,
};

#[test]
fn h01_h02_pax_size_wins_over_the_header() {
    let inner = tar().file("evil", b"x").0;
    let size = inner.len().to_string();
    for said in [0, 5, 512, 8192] {
        let outer = tar()
            .pax(&[("size", size.as_bytes())])
            .head(header(b'0', "outer", said))
            .data(&inner)
            .file("after", b"2")
            .end();
        let entries = read(&outer.0).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].1, inner);
        assert_eq!(entries[1].0.path, b"after");
    }
}

#[test]
fn h03_pax_size_means_the_file_and_not_the_long_name() {
    let name = "n".repeat(150);
    let data = [b'd'; 2048];
    let mixed = tar()
        .pax(&[("size", b"2048")])
        .ext(b'L', format!("{name}\0").as_bytes())
        .head(gnu(b'0', "short", 0))
        .data(&data)
        .file("after", b"2")
        .end();
    check(&mixed, &[&format!("{name}=dddddddd"), "after=2"]);
}

#[test]
fn h04_nothing_is_left_for_the_next_entry() {
    let records: &[(&str, &[u8])] = &[
        ("path", b"one"),
        ("size", b"1"),
        ("uid", b"7"),
        ("mtime", b"5.5"),
        ("atime", b"6"),
        ("SCHILY.xattr.user.a", b"b"),
    ];
    let tar = tar()
        .pax(records)
        .head(header(b'0', "x", 0))
        .data(b"1")
        .file("two", b"22")
        .ext(b'L', b"three\0")
        .ext(b'K', b"target\0")
        .head(gnu(b'2', "x", 0))
        .head(gnu(b'2', "four", 0).with(157, b"own"))
        .pax(&[
            ("GNU.sparse.map", b"0,1"),
            ("GNU.sparse.size", b"9"),
            ("GNU.sparse.name", b"five"),
        ])
        .file("x", b"5")
        .file("six", b"6")
        .end();
    let entries = read(&tar.0).unwrap();
    let names: Vec<_> = entries.iter().map(|(e, _)| e.path.as_slice()).collect();
    assert_eq!(
        names,
        [&b"one"[..], b"two", b"three", b"four", b"five", b"six"]
    );
    assert_eq!(entries[0].0.uid, 7);
    assert_eq!(entries[0].0.xattrs, [(b"user.a".to_vec(), b"b".to_vec())]);
    let two = &entries[1].0;
    assert_eq!(
        (two.uid, two.mtime, two.atime),
        (0, Time { secs: 0, nanos: 0 }, None)
    );
    assert!(two.xattrs.is_empty() && two.size == 2);
    assert_eq!(entries[2].0.link, b"target");
    assert_eq!(entries[3].0.link, b"own");
    assert_eq!(entries[4].0.size, 9);
    assert_eq!(entries[5].0.sparse, None);
    assert_eq!(entries[1].0.offset, 4 * 512);
}

#[test]
fn h05_malformed_records_are_refused() {
    for body in [
        &b"8 path=x\n"[..],
        b"12 path=xy\n",
        b"11 path=xy ",
        b"+9 path=x\n",
        b" 9 path=x\n",
        b"-1 path=xy\n",
        b"path=xy\n",
        b"9 pathxy\n",
        b"6 =xy\n",
        b"8 path=\n",
        b"8 size=\n",
        b"11 size=-1\n",
        b"11 size=+1\n",
        b"11 size=1 \n",
        b"12 size=0x1\n",
        b"11 \xff\xfeth=xy\n",
        b"11 path=x\0\n",
        b"11 path=xy\n\0\0",
        b"99999999999999999999999999 path=x\n",
        b"18446744073709551616 path=x\n",
    ] {
        let tar = tar().ext(b'x', body).file("f", b"1").end();
        let err = read(&tar.0).expect_err(&body.escape_ascii().to_string());
        assert_eq!(err.kind(), ErrorKind::InvalidArgument);
        assert!(chain(&err).contains("PAX record"), "{err}");
    }
    // Names are bytes.
    let bytes = tar().pax(&[("path", b"\xff\xfe/")]).file("f", b"").end();
    check(&bytes, &["\\xff\\xfe/="]);
}

#[test]
fn h06_mixed_and_dangling_headers_are_refused() {
    let pax_and_gnu = tar().pax(&[("path", b"a")]).ext(b'L', b"b\0");
    refused(&pax_and_gnu.file("f", b"").end(), "PAX");
    let links = tar().ext(b'K', b"b\0").pax(&[("linkpath", b"a")]);
    refused(&links.head(header(b'2', "f", 0)).end(), "PAX");
    for dangling in [
        tar().pax(&[("path", b"a")]),
        tar().ext(b'L', b"a\0"),
        tar().ext(b'K', b"a\0"),
    ] {
        refused(&dangling, "without an entry");
        refused(&dangling.end(), "without an entry");
    }
    let nul_version = header(b'0', "f", 0).with(263, b"\0\0");
    refused(&tar().head(nul_version).end(), "format");
    for orphan in [
        "major",
        "minor",
        "name",
        "size",
        "realsize",
        "numblocks",
        "offset",
    ] {
        let key = format!("GNU.sparse.{orphan}");
        refused(&tar().pax(&[(&key, b"1")]).file("f", b"1").end(), "sparse");
    }
    let repeated = tar().pax(&[("path", b"a"), ("path", b"b")]);
    check(&repeated.file("f", b"1").end(), &["b=1"]);
    let two = tar().pax(&[("path", b"a")]).pax(&[("uid", b"1")]);
    refused(&two.file("f", b"1").end(), "two extension headers");
}

#[test]
fn h07_claims_cost_nothing() {
    for flag in [b'x', b'g', b'L', b'K'] {
        for size in [(1 << 20) + 1, 1 << 30, (1 << 33) - 1] {
            over_limit(&tar().head(gnu(flag, "ext", size)), Limits::default());
        }
        let huge = gnu(flag, "ext", 0).with(124, b"\x80\0\0\0\x10\0\0\0\0\0\0\0");
        over_limit(&tar().head(huge), Limits::default());
        refused(&tar().head(gnu(flag, "ext", 1 << 20)).raw(b"12 x"), "ends");
    }
    // Both together count.
    let half = vec![b'n'; 600 << 10];
    let tar = tar().ext(b'L', &half).ext(b'K', &half).file("f", b"");
    over_limit(&tar, Limits::default());
}

#[test]
fn h08_chains_of_headers_end() {
    let mut long = tar();
    for _ in 0..8 {
        long = long.global(&[("comment", b"x")]);
    }
    check(&long.clone().file("f", b"1").end(), &["f=1"]);
    over_limit(&long.global(&[]).file("f", b"1").end(), Limits::default());
    for flag in [b'L', b'K'] {
        let mut chain = tar();
        for _ in 0..9 {
            chain = chain.ext(flag, b"x\0");
        }
        assert!(read(&chain.file("f", b"").end().0).is_err());
    }
}

#[test]
fn h09_sparse_maps_that_lie() {
    let pax = |map: &str, size: &str, stored: &[u8]| {
        tar()
            .pax(&[
                ("GNU.sparse.major", b"0"),
                ("GNU.sparse.minor", b"1"),
                ("GNU.sparse.size", size.as_bytes()),
                ("GNU.sparse.map", map.as_bytes()),
            ])
            .file("f", stored)
            .end()
    };
    check(&pax("0,1,5,1,9,0", "9", b"ab"), &["f=ab"]);
    for (map, size, stored) in [
        ("0,2,1,2", "9", &b"abcd"[..]),
        ("5,1,0,1", "9", b"ab"),
        ("5,5", "9", b"abcde"),
        ("0,1", "9", b"ab"),
        ("0,2", "9", b"a"),
        ("9223372036854775807,1", "9223372036854775807", b"a"),
        ("18446744073709551615,1", "9", b"a"),
        ("0", "9", b""),
        ("0,x", "9", b""),
        ("0,1,", "9", b"a"),
        ("0,-1", "9", b"a"),
    ] {
        assert!(read(&pax(map, size, stored).0).is_err(), "{map}");
    }
    let exa = (8u64 << 60).saturating_sub(1).to_string();
    over_limit(&pax("", &exa, b""), Limits::default());
    let limits = Limits {
        sparse_regions: 2,
        ..Limits::default()
    };
    assert!(read_with(&pax("0,1,2,1", "9", b"ab").0, limits.clone()).is_ok());
    over_limit(&pax("0,1,2,1,4,1", "9", b"abc"), limits.clone());
    let one = |map: &[u8]| {
        tar()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"9"),
                ("GNU.sparse.name", b"f"),
            ])
            .file("x", map)
            .end()
    };
    over_limit(&one(&[b"99999999\n", &[b'0'; 503][..]].concat()), limits);
    refused(&one(b"1\n0\n1\n"), "sparse");
    refused(&one(&[b'1'; 512]), "sparse");
    refused(&one(&[b"1\n0\n", &[b'\0'; 508][..]].concat()), "sparse");
    refused(&one(b""), "sparse");
}

#[test]
fn old_sparse_files_continue_in_blocks() {
    let region = |offset: u64, len: u64| format!("{offset:011o}\0{len:011o}\0").into_bytes();
    let mut first = gnu(b'S', "f", 26);
    for i in 0..4 {
        first.put(386 + i * 24, &region(i as u64 * 10, 1));
    }
    first
        .put(482, &[1])
        .put(483, format!("{:011o}\0", 1000).as_bytes());
    let block = |range: std::ops::Range<u64>, more: u8| {
        let mut block = vec![0; 512];
        for (i, at) in range.enumerate() {
            block[i * 24..i * 24 + 24].copy_from_slice(&region(at * 10, 1));
        }
        block[504] = more;
        block
    };
    let data: Vec<u8> = (b'a'..=b'z').collect();
    let tar_of = |first: Header, blocks: &[Vec<u8>]| {
        let tar = tar().head(first).raw(&blocks.concat());
        tar.data(&data).file("g", b"1").end()
    };
    let good = [block(4..25, 1), block(25..26, 0)];
    let entries = read(&tar_of(first.clone(), &good).0).unwrap();
    assert_eq!(entries[0].0.size, 1000);
    let segments = entries[0].0.sparse.as_ref().unwrap();
    assert_eq!(segments.len(), 26);
    assert_eq!(
        segments[25],
        Segment {
            offset: 250,
            len: 1
        }
    );
    assert_eq!(entries[0].1, data);
    assert_eq!(entries[1].0.path, b"g");
    // GNU tar stops at an empty place, Go reads the block that is announced.
    let early = [block(4..20, 1), block(25..26, 0)];
    assert!(read(&tar_of(first.clone(), &early).0).is_err());
    refused(&tar().head(first.clone()), "ends");
    let other = first.with(257, b"ustar\x0000");
    refused(&tar_of(other, &good), "'S'");
}

#[test]
fn h13_ends() {
    let whole = tar().pax(&[("path", b"p")]).file("f", &[b'x'; 700]).end().0;
    // In the padding of the last entry, between it and the end blocks, and anywhere in the second of two
    // zero blocks.
    let body = whole.len() - 1024;
    let data = body - (1024 - 700);
    for cut in 1..whole.len() {
        let fine = (data..=body).contains(&cut) || cut >= body + 512;
        assert_eq!(read(&whole[..cut]).is_ok(), fine, "cut at {cut}");
    }
    // What follows the end is counted and not read.
    for after in [&b"garbage"[..], &tar().file("g", b"2").end().0, &[0; 9000]] {
        let tar = tar().file("f", b"1").end().raw(after);
        check(&tar, &["f=1"]);
    }
    let lone = tar().file("f", b"1").raw(&[0; 512]).file("g", b"2").end();
    refused(&lone, "zero block");
    check(&tar(), &[]);
    check(&tar().end(), &[]);
}

#[test]
fn limits_at_and_above() {
    let long = |n: usize| {
        let path: String = "d/".repeat(n / 2) + if n % 2 == 1 { "f" } else { "" };
        tar().ext(b'L', path.as_bytes()).file("x", b"").end()
    };
    let deep = Limits {
        depth: 5000,
        ..Limits::default()
    };
    assert!(read_with(&long(4095).0, deep.clone()).is_ok());
    over_limit(&long(4097), deep);
    assert!(read(&long(3999).0).is_ok());
    over_limit(&long(4001), Limits::default());
    let component = |n| tar().pax(&[("path", &vec![b'c'; n])]).file("x", b"").end();
    assert!(read(&component(255).0).is_ok());
    over_limit(&component(256), Limits::default());
    let entries = Limits {
        entries: 2,
        ..Limits::default()
    };
    let two = tar().file("a", b"").file("b", b"");
    assert!(read_with(&two.0, entries.clone()).is_ok());
    over_limit(&two.file("c", b""), entries);
    let size = Limits {
        file_bytes: 3,
        ..Limits::default()
    };
    assert!(read_with(&tar().file("a", b"123").0, size.clone()).is_ok());
    over_limit(&tar().file("a", b"1234"), size);
}

#[test]
fn errors_name_the_entry_and_the_place_and_last() {
    let bad = header(b'0', "bad\u{1b}name", 0).with(108, b"zzzzzzz\0");
    let tar = tar().file("fine", b"1").head(bad).end();
    let text = chain(&read(&tar.0).unwrap_err());
    assert!(
        text.contains("bad\\x1bname") && text.contains("1024"),
        "{text}"
    );
    let limits = Limits::default();
    let mut reader = cairn_layer::tar::Reader::new(&tar.0[..], limits);
    assert!(reader.next().unwrap().is_some());
    assert!(reader.next().is_err());
    assert!(
        reader.next().is_err(),
        "a reader that failed does not go on"
    );
    assert!(reader.data().is_err());
}

#[test]
fn long_names_hide_nothing() {
    for body in [&b"a\0b\0"[..], b"\0", b"", b"\0a"] {
        let tar = tar().ext(b'L', body).file("f", b"").end();
        assert!(read(&tar.0).is_err(), "{}", body.escape_ascii());
    }
    check(&tar().ext(b'L', b"a\0\0\0").file("f", b"").end(), &["a="]);
    check(&tar().ext(b'L', b"a").file("f", b"").end(), &["a="]);
    assert_eq!(pax_body(&[("path", b"xy")]), b"11 path=xy\n");
}
