//! What stands in the fields of a header and in PAX records: numbers, owners, times, kinds, names and
//! attributes, and what none of them may be.

#![allow(clippy::unwrap_used)]

use cairn_layer::tar::{EntryKind, Limits, Time};

use crate::tarball::{check, gnu, header, over_limit, read, refused, tar};

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
