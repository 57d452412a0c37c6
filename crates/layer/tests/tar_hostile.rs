//! Archives that readers have disagreed about, broken off or fallen over: each is read one way or
//! refused by name.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

mod tarball;

use cairn_layer::tar::{EntryKind, Limits, Segment, Time};
use cairn_types::{Classified, ErrorKind};

use self::tarball::{Header, Tar, chain, gnu, header, pax_body, read, read_with, tar};

#[track_caller]
fn refused(tar: &Tar, reason: &str) {
    let err = read(&tar.0).expect_err("must be refused");
    let text = chain(&err);
    assert!(text.contains(reason), "{text}");
    assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{text}");
}

#[track_caller]
fn over_limit(tar: &Tar, limits: Limits) {
    let err = read_with(&tar.0, limits).expect_err("must be refused");
    assert_eq!(err.kind(), ErrorKind::ResourceExhausted, "{err}");
}

/// Names and data, "name=data", of an archive that is read.
#[track_caller]
fn check(tar: &Tar, expected: &[&str]) {
    let entries = read(&tar.0).expect("a valid archive");
    let shown: Vec<String> = entries
        .iter()
        .map(|(entry, data)| {
            let data = String::from_utf8_lossy(&data[..data.len().min(8)]);
            format!("{}={data}", entry.path.escape_ascii())
        })
        .collect();
    assert_eq!(shown, expected);
}

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
fn h10_numbers() {
    let size = |bytes: &[u8]| {
        tar()
            .head(header(b'0', "f", 0).with(124, bytes))
            .data(b"abc")
            .end()
    };
    check(&size(b"\x80\0\0\0\0\0\0\0\0\0\0\x03"), &["f=abc"]);
    check(&size(b"         3\0 "), &["f=abc"]);
    check(&size(b"000000000003"), &["f=abc"]);
    for bad in [
        &[0xff; 12][..],
        b"\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff",
        b"-0000000003\0",
        b"+0000000003\0",
        b"0000000000a\0",
        b"0x000000003\0",
        b"00000000 03\0",
        b"\x000000000003",
    ] {
        refused(&size(bad), "size");
    }
    let mut wrong = tar().file("f", b"").end();
    wrong.0[0] ^= 1;
    refused(&wrong, "checksum");
    refused(&tar().raw(&[b'A'; 512]), "checksum");
    let mut signed = header(b'0', "\u{e9}", 0);
    signed.put(148, b"        ");
    let sum: i32 = signed.0.iter().map(|b| i32::from(b.cast_signed())).sum();
    signed.put(148, format!("{sum:06o}\0 ").as_bytes());
    check(&tar().raw(&signed.0).end(), &["\\xc3\\xa9="]);
}

#[test]
fn h11_owners() {
    let pax = |id: &str| tar().pax(&[("uid", id.as_bytes())]).file("f", b"").end();
    for id in [0u32, 1 << 31, u32::MAX - 1] {
        assert_eq!(read(&pax(&id.to_string()).0).unwrap()[0].0.uid, id);
        let bytes = [&[0x80, 0, 0, 0][..], &id.to_be_bytes()].concat();
        let entries = read(&tar().head(header(b'0', "f", 0).with(116, &bytes)).end().0).unwrap();
        assert_eq!(entries[0].0.gid, id);
    }
    for id in [
        "4294967295",
        "4294967296",
        "9223372036854775808",
        "-5",
        "18446744073709551616",
    ] {
        refused(&pax(id), "uid");
    }
    for bytes in [
        &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff][..],
        &[0x80, 0, 0, 1, 0, 0, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfb],
    ] {
        refused(
            &tar().head(header(b'0', "f", 0).with(116, bytes)).end(),
            "gid",
        );
    }
    // PAX wins.
    let both = tar()
        .pax(&[("uid", b"70000")])
        .head(header(b'0', "f", 0).with(108, b"0000007\0"))
        .end();
    assert_eq!(read(&both.0).unwrap()[0].0.uid, 70000);
}

#[test]
fn h12_times() {
    let pax = |time: &str| {
        tar()
            .pax(&[("mtime", time.as_bytes())])
            .file("f", b"")
            .end()
    };
    for (text, secs, nanos) in [
        ("-1", -1, 0),
        ("-2177452800", -2_177_452_800, 0),
        ("15032385536", 15_032_385_536, 0),
        ("1.000000001", 1, 1),
        ("-1.5", -2, 500_000_000),
        ("9223372036854775807", i64::MAX, 0),
    ] {
        assert_eq!(
            read(&pax(text).0).unwrap()[0].0.mtime,
            Time { secs, nanos },
            "{text}"
        );
    }
    for bad in ["NaN", "inf", "1e9", "", "9223372036854775808", "0x1", "1,5"] {
        refused(&pax(bad), "mtime");
    }
    let before = header(b'0', "f", 0).with(136, &[0xff; 12]);
    let entries = read(&tar().head(before).end().0).unwrap();
    assert_eq!(entries[0].0.mtime, Time { secs: -1, nanos: 0 });
}

#[test]
fn h13_ends() {
    let whole = tar().pax(&[("path", b"p")]).file("f", &[b'x'; 700]).end().0;
    // Between the end blocks and the entry, and anywhere in the second of two zero blocks.
    let body = whole.len() - 1024;
    for cut in 1..whole.len() {
        let fine = cut == body || cut >= body + 512;
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
fn h14_types() {
    for (flag, name) in [
        (b'V', "volume"),
        (b'M', "volume"),
        (b'D', "directory"),
        (b'N', "old GNU"),
        (b'X', "Solaris"),
        (b'Z', "unknown"),
        (b'8', "unknown"),
        (0xff, "unknown"),
    ] {
        refused(&tar().head(gnu(flag, "f", 0)).end(), name);
    }
    for key in ["path", "size", "linkpath", "GNU.sparse.major"] {
        refused(&tar().global(&[(key, b"1")]).file("f", b"").end(), "global");
    }
    let global = tar().global(&[("mtime", b"5"), ("comment", b"abc"), ("uid", b"9")]);
    let entries = read(&global.file("f", b"").end().0).unwrap();
    assert_eq!((entries[0].0.mtime.secs, entries[0].0.uid), (0, 0));
    refused(
        &tar().ext(b'g', b"garbage").file("f", b"").end(),
        "PAX record",
    );
    check(&tar().head(header(b'7', "f", 1)).data(b"1").end(), &["f=1"]);
}

#[test]
fn kinds_and_what_follows_them() {
    let v7 = |flag, name, size| header(flag, name, size).with(257, &[0; 8]);
    let tar = tar()
        .head(v7(0, "dir/", 0))
        .head(v7(0, "dir/file", 1))
        .data(b"1")
        .head(header(b'5', "dir2", 4096))
        .head(v7(b'1', "hard", 1).with(157, b"dir/file"))
        .head(header(b'2', "soft", 9).with(157, b"anywhere"))
        .head(header(b'3', "c", 0).with(329, b"0000001\x000000003\0"))
        .head(header(b'4', "b", 0).with(329, b"0000010\x000000000\0"))
        .head(header(b'6', "pipe", 5))
        .end();
    let kinds: Vec<EntryKind> = read(&tar.0).unwrap().iter().map(|(e, _)| e.kind).collect();
    assert_eq!(
        kinds,
        [
            EntryKind::Directory,
            EntryKind::Regular,
            EntryKind::Directory,
            EntryKind::HardLink,
            EntryKind::Symlink,
            EntryKind::CharDevice { major: 1, minor: 3 },
            EntryKind::BlockDevice { major: 8, minor: 0 },
            EntryKind::Fifo
        ]
    );
}

#[test]
fn prefixes_of_ustar_and_star() {
    let name = "n".repeat(100);
    let prefix = "p".repeat(155);
    let ustar = header(b'0', &name, 0).with(345, prefix.as_bytes());
    check(&tar().head(ustar).end(), &[&format!("{prefix}/{name}=")]);
    let star = header(b'0', "n", 0)
        .with(345, &[b'p'; 131])
        .with(476, b"00000000001 00000000002 ")
        .with(508, b"tar\0");
    check(
        &tar().head(star).end(),
        &[&format!("{}/n=", "p".repeat(131))],
    );
    // GNU has times where ustar has the prefix.
    let gnu = gnu(b'0', "n", 0).with(345, b"00000000001\x0000000000002\0");
    check(&tar().head(gnu).end(), &["n="]);
}

#[test]
fn h17_extended_attributes() {
    let big = vec![0; (64 << 10) - 6];
    let one = |key: &str, value: &[u8]| tar().pax(&[(key, value)]).file("f", b"").end();
    let entries = read(&one("SCHILY.xattr.user.a", &big).0).unwrap();
    assert_eq!(entries[0].0.xattrs, [(b"user.a".to_vec(), big.clone())]);
    over_limit(&one("SCHILY.xattr.user.ab", &big), Limits::default());
    let both = tar()
        .pax(&[
            ("LIBARCHIVE.xattr.user.a%3Db", b"AP8K"),
            ("SCHILY.xattr.user.empty", b""),
            ("SCHILY.xattr.user.x", b"=\n\0="),
        ])
        .file("f", b"")
        .end();
    assert_eq!(
        read(&both.0).unwrap()[0].0.xattrs,
        [
            (b"user.a=b".to_vec(), b"\0\xff\n".to_vec()),
            (b"user.empty".to_vec(), b"".to_vec()),
            (b"user.x".to_vec(), b"=\n\0=".to_vec()),
        ]
    );
    let long = format!("SCHILY.xattr.user.{}", "n".repeat(251));
    refused(&one(&long, b"1"), "attribute");
    refused(&one("SCHILY.xattr.", b"1"), "attribute");
    refused(&one("LIBARCHIVE.xattr.user.a", b"A"), "LIBARCHIVE");
    refused(&one("LIBARCHIVE.xattr.user.%zz", b"AA"), "LIBARCHIVE");
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
