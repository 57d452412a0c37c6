//! Times, owners and sizes at the edges of what headers can say: one fixture for each.
//!
//! | row of the tar table | tests |
//! |---|---|
//! | atime, ctime, mtime: sub-second, negative, beyond 2038 | `times_to_the_nanosecond`, `access_times` |
//! | base-256 numbers, uid > 2^31, size > 8 GiB | `h10_base_256_numbers`, `h11_owners_beyond_31_bits`, `h11_owners_out_of_range`, `h09_sizes_beyond_8_gib` |
//!
//! Numbers that are none are in `crates/layer/tests/it/tar_values.rs`.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt},
};

use cairn_integration::{
    fixture::{Case, Peer},
    raw::{Header, Tar},
};

/// Times in PAX records are decimal, with a fraction after a period, and a sign before 1970 (POSIX
/// `pax`, "pax Extended Header File Times").
#[test]
fn times_to_the_nanosecond() {
    let times: [(&str, &[u8]); 5] = [
        ("a-fraction", b"1500000000.123456789"),
        ("b-finer", b"1500000000.1234567899"),
        ("c-before-1970", b"-1.25"),
        ("d-beyond-2038", b"4102444800.5"),
        ("e-short", b"1500000000.5"),
    ];
    let mut tar = Tar::new()
        .pax(&[("mtime", b"1500000000.000000001")])
        .dir("dir");
    for (name, time) in times {
        let path = format!("dir/{name}");
        tar = tar
            .pax(&[("mtime", time), ("ctime", b"7.5")])
            .file(&path, b"");
    }
    let tar = tar
        .pax(&[("mtime", b"1500000000.25")])
        .link(b'2', "soft", "x");
    Case::new(tar.finish())
        .unpacks(&[
            "dir dir 0755 @1500000000.000000001",
            "file dir/a-fraction 0644 =  @1500000000.123456789",
            "file dir/b-finer 0644 =  @1500000000.123456789",
            "file dir/c-before-1970 0644 =  @-2.750000000",
            "file dir/d-beyond-2038 0644 =  @4102444800.500000000",
            "file dir/e-short 0644 =  @1500000000.500000000",
            "link soft 0777 -> x @1500000000.250000000",
        ])
        .umoci(Peer::Same)
        // > Times outside [1970, ~2262] become 1970-01-01 (`pkg/archive/time.go: boundTime`)
        .containerd(Peer::Differs(&[
            "- file dir/c-before-1970 0644 =  @-2.750000000",
            "+ file dir/c-before-1970 0644 =  @0.000000000",
        ]));
}

/// Access times are checked on what nothing reads: reading a file would change them.
#[test]
fn access_times() {
    let fifo = |name: &[u8]| Header::ustar(b'6', name, 0);
    let tar = Tar::new()
        .pax(&[("mtime", b"1500000000"), ("atime", b"1600000000.125")])
        .head(fifo(b"later"))
        .pax(&[("mtime", b"1500000000"), ("atime", b"1400000000")])
        .head(fifo(b"before"))
        .pax(&[("mtime", b"1500000000.75")])
        .head(fifo(b"none"))
        .finish();
    let case = Case::new(tar).unpacks(&[
        "fifo before 0644 @1500000000.000000000",
        "fifo later 0644 @1500000000.000000000",
        "fifo none 0644 @1500000000.750000000",
    ]);
    let atime = |name: &str| {
        let meta = fs::symlink_metadata(case.root().join(name)).expect("stat");
        (meta.atime(), meta.atime_nsec())
    };
    assert_eq!(atime("later"), (1_600_000_000, 125_000_000));
    // > utimes no-follow with atime=max(atime,mtime) (containerd `pkg/archive/tar.go`)
    assert_eq!(atime("before"), (1_500_000_000, 0));
    assert_eq!(atime("none"), (1_500_000_000, 750_000_000));
}

/// Eight or twelve bytes, two's complement, the highest bit set.
fn base_256(number: i64, width: usize) -> Vec<u8> {
    let mut field = vec![if number < 0 { 0xff } else { 0 }; width];
    let bytes = number.to_be_bytes();
    let kept = bytes.len().min(width);
    field[width - kept..].copy_from_slice(&bytes[bytes.len() - kept..]);
    field[0] |= 0x80;
    field
}

/// Numbers that octal digits cannot hold: the first byte is 0x80 or, below zero, 0xff, and the rest is
/// two's complement (GNU tar manual, "Extensions to the Archive Format").
#[test]
fn h10_base_256_numbers() {
    let mtime = |time| Header::gnu(b'0', b"x", 0).put(136, &base_256(time, 12));
    let tar = Tar::new()
        .head(mtime(4_102_444_800).put(0, b"a-beyond-2038"))
        .head(mtime(-86_400).put(0, b"b-before-1970"))
        .head(Header::gnu(b'0', b"c-size", 0).put(124, &base_256(3, 12)))
        .data(b"abc")
        .head(
            Header::gnu(b'0', b"d-owner", 0)
                .put(108, &base_256(3_000_000_000, 8))
                .put(116, &base_256(70_000, 8)),
        )
        .finish();
    Case::new(tar)
        .unpacks(&[
            "file a-beyond-2038 0644 =  @4102444800.000000000",
            "file b-before-1970 0644 =  @-86400.000000000",
            "file c-size 0644 = abc",
            "file d-owner 0644 3000000000:70000 = ",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Differs(&[
            "- file b-before-1970 0644 =  @-86400.000000000",
            "+ file b-before-1970 0644 =  @0.000000000",
        ]));
}

#[test]
fn h11_owners_beyond_31_bits() {
    let tar = Tar::new()
        .pax(&[("uid", b"4294967294"), ("gid", b"2147483648")])
        .file("f", b"1")
        .finish();
    Case::new(tar)
        .unpacks(&["file f 0644 4294967294:2147483648 = 1"])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// 2^32-1 tells the kernel to leave the owner as it is, so the file would stay root's; what is beyond
/// would be cut.
#[test]
fn h11_owners_out_of_range() {
    for (uid, theirs) in [
        ("4294967295", "file f 0644 = 1"),
        ("4294967296", "file f 0644 = 1"),
    ] {
        let tar = Tar::new();
        let at = tar.offset();
        let tar = tar.pax(&[("uid", uid.as_bytes())]).file("f", b"1").finish();
        Case::new(tar)
            .refused("f", at, &format!("uid {uid} is out of range"))
            .umoci(Peer::Tree(&[theirs]))
            .containerd(Peer::Tree(&[theirs]));
    }
}

/// Nine GiB, of which two blocks are stored: GNU's sparse form with base-256 numbers.
#[test]
fn h09_sizes_beyond_8_gib() {
    let size: i64 = 9 << 30;
    let map = [
        base_256(size - 1024, 12),
        base_256(1024, 12),
        base_256(size, 12),
        base_256(0, 12),
    ];
    let tar = Tar::new()
        .head(
            Header::gnu(b'S', b"large", 1024)
                .put(386, &map.concat())
                .put(483, &base_256(size, 12)),
        )
        .data(&[7; 1024])
        .finish();
    let case = Case::new(tar);
    let root = case.mount();
    let file = fs::File::open(root.join("large")).expect("large");
    let meta = file.metadata().expect("stat");
    assert_eq!(meta.len(), 9 << 30);
    assert!(meta.blocks() * 512 <= 64 << 10, "{} blocks", meta.blocks());
    let mut tail = [0; 2048];
    file.read_exact_at(&mut tail, (9 << 30) - 2048)
        .expect("tail");
    assert_eq!(tail, [[0; 1024], [7; 1024]].concat()[..]);
    drop(file);
    case.umoci(Peer::Fails("unknown typeflag"))
        .containerd(Peer::Fails("unhandled tar header type"));
}
