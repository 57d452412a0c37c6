//! Headers of every age and the names in them: one fixture for each form.
//!
//! | row of the tar table | tests |
//! |---|---|
//! | v7, ustar prefix, star | `v7_headers`, `ustar_prefix`, `star_headers` |
//! | GNU long name/link `L`/`K`, > 4 KiB | `gnu_long_names`, `gnu_long_names_over_the_limit` |
//! | PAX path/linkpath with NUL, non-UTF-8, trailing slash | `p20_pax_names`, `p20_pax_names_with_nul` |
//! | PAX global `g`; > 2 blocks; per-entry > 1 MiB | `pax_global_headers`, `h14_pax_global_headers_that_mean_something`, `pax_headers_of_many_blocks`, `h07_pax_headers_over_the_limit` |
//!
//! Times and numbers are in `tar_numbers.rs`. What other programs write of real trees is in `tar_writers.rs`; damaged and lying headers
//! are in `crates/layer/tests/it/tar_hostile.rs`.

use cairn_integration::{
    fixture::{Case, Peer},
    raw::{Header, Tar},
};

/// Archives from before POSIX have no type for directories: a file whose name ends in a slash is one
/// (GNU tar manual, "Basic Tar Format").
#[test]
fn v7_headers() {
    let tar = Tar::new()
        .head(Header::v7(0, b"dir/", 0).mode(0o750))
        .head(Header::v7(0, b"dir/file", 1))
        .data(b"1")
        .head(Header::v7(b'1', b"hard", 0).link(b"dir/file"))
        .head(Header::v7(b'2', b"soft", 0).link(b"dir/file"))
        .finish();
    Case::new(tar)
        .unpacks(&[
            "dir dir 0750",
            "file dir/file 0644 = 1",
            "file hard 0644 = 1 same as dir/file",
            "link soft 0777 -> dir/file",
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// The path is prefix, slash and name if there is a prefix (POSIX `pax`, "ustar Interchange Format").
#[test]
fn ustar_prefix() {
    let (prefix, name) = ("p".repeat(155), "n".repeat(100));
    let tar = Tar::new()
        .head(Header::ustar(b'5', &[b'p'; 100], 0))
        .head(Header::ustar(b'5', b"d", 0).put(345, &[b'p'; 100]))
        .dir("q")
        .head(Header::ustar(b'5', &[b'p'; 55], 0).put(345, b"q"))
        .pax(&[("path", prefix.as_bytes())])
        .dir("x")
        .head(Header::ustar(b'0', name.as_bytes(), 1).put(345, prefix.as_bytes()))
        .data(b"1")
        .finish();
    let (p100, p55) = ("p".repeat(100), "p".repeat(55));
    Case::new(tar)
        .unpacks(&[
            &format!("dir {p100} 0755"),
            &format!("dir {p100}/d 0755"),
            &format!("dir {prefix} 0755"),
            &format!("file {prefix}/{name} 0644 = 1"),
            "dir q 0755",
            &format!("dir q/{p55} 0755"),
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// star keeps access and change time where ustar has the end of its prefix, and signs with `tar`.
#[test]
fn star_headers() {
    let star = |flag, name: &[u8], size| {
        Header::ustar(flag, name, size)
            .put(476, b"13727406400 13727406400 ")
            .put(508, b"tar\0")
    };
    let prefix = [b'p'; 131];
    let tar = Tar::new()
        .pax(&[("path", &prefix)])
        .dir("x")
        .head(star(b'0', b"file", 1).put(345, &prefix))
        .data(b"1")
        .finish();
    Case::new(tar)
        .unpacks(&[
            &format!("dir {} 0755", "p".repeat(131)),
            &format!("file {}/file 0644 = 1", "p".repeat(131)),
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// A name over 100 bytes is the data of an entry of type `L` before the entry, a link's target of one
/// of type `K` (GNU tar manual, "Basic Tar Format").
#[test]
fn gnu_long_names() {
    let name = format!("{}/{}", "d".repeat(250), "n".repeat(255));
    let target = "t/".repeat(2047) + "t";
    let tar = Tar::new()
        .long(b'L', &name.as_bytes()[..251])
        .head(Header::gnu(b'5', name.as_bytes(), 0))
        .long(b'L', name.as_bytes())
        .head(Header::gnu(b'0', name.as_bytes(), 1))
        .data(b"1")
        .long(b'L', name.as_bytes())
        .long(b'K', target.as_bytes())
        .head(Header::gnu(b'2', name.as_bytes(), 0).link(&target.as_bytes()[..100]))
        .long(b'K', name.as_bytes())
        .head(Header::gnu(b'1', b"hard", 0).link(&name.as_bytes()[..100]))
        .finish();
    assert_eq!(target.len(), 4095);
    Case::new(tar)
        .unpacks(&[
            &format!("dir {} 0755", "d".repeat(250)),
            &format!("link {name} 0777 -> {target}"),
            &format!("link hard 0777 -> {target} same as {name}"),
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// A name that the kernel could not open is refused, and never cut.
#[test]
fn gnu_long_names_over_the_limit() {
    let target = "t/".repeat(2048);
    let tar = Tar::new();
    let at = tar.offset();
    let tar = tar
        .long(b'K', target.as_bytes())
        .head(Header::gnu(b'2', b"soft", 0).link(&target.as_bytes()[..100]))
        .finish();
    Case::new(tar)
        .refused(
            "soft",
            at,
            "bytes of its link target above the limit of 4095",
        )
        .umoci(Peer::Fails("file name too long"))
        .containerd(Peer::Fails("file name too long"));
}

/// POSIX wants records in UTF-8; names on Linux are bytes, and GNU tar writes them as they are.
#[test]
fn p20_pax_names() {
    let long = "é".repeat(120);
    let tar = Tar::new()
        .pax(&[("path", b"latin-\xe9")])
        .file("x", b"1")
        .pax(&[("path", long.as_bytes())])
        .file("x", b"2")
        .pax(&[("path", b"soft"), ("linkpath", b"to-\xff\xfe")])
        .link(b'2', "x", "y")
        .pax(&[("path", b"hard"), ("linkpath", b"latin-\xe9")])
        .link(b'1', "x", "y")
        .pax(&[("path", b"dir/")])
        .dir("x")
        .pax(&[("path", b"equals=and\nnewline")])
        .file("x", b"3")
        .finish();
    Case::new(tar)
        .unpacks(&[
            "dir dir 0755",
            "file equals=and\\nnewline 0644 = 3",
            "file hard 0644 = 1",
            "file latin-\\xe9 0644 = 1 same as hard",
            "link soft 0777 -> to-\\xff\\xfe",
            &format!("file {} 0644 = 2", "\\xc3\\xa9".repeat(120)),
        ])
        .umoci(Peer::Same)
        .containerd(Peer::Same);
}

/// A NUL would end the name for some readers and not for others.
#[test]
fn p20_pax_names_with_nul() {
    for key in ["path", "linkpath"] {
        let tar = Tar::new();
        let at = tar.offset();
        let tar = tar.pax(&[(key, b"a\0b")]).link(b'2', "x", "y").finish();
        Case::new(tar)
            .fails(&[
                &format!("at byte {at}"),
                &format!("PAX record {key} has an invalid value"),
            ])
            .umoci(Peer::Fails("invalid tar header"))
            .containerd(Peer::Fails("invalid tar header"));
    }
}

/// Their records are meant for all entries that follow (POSIX `pax`). Docker and containerd ignore
/// them, so every image that has been built means them ignored: git writes a comment, others times.
#[test]
fn pax_global_headers() {
    let tar = Tar::new()
        .global(&[("mtime", b"5"), ("comment", b"0123abc"), ("uid", b"9")])
        .file("one", b"1")
        .global(&[("mode", b"0"), ("gname", b"staff")])
        .file("two", b"2")
        .finish();
    Case::new(tar)
        .unpacks(&["file one 0644 = 1", "file two 0644 = 2"])
        .umoci(Peer::Fails("unknown typeflag"))
        // It ignores the header, and makes the directory in the header's own name all the same.
        .containerd(Peer::Differs(&["+ dir PaxHeaders 0755 @now"]));
}

/// Of those that rename or resize every entry, readers make different archives.
#[test]
fn h14_pax_global_headers_that_mean_something() {
    for (key, said) in [
        ("path", "path"),
        ("linkpath", "linkpath"),
        ("size", "size"),
        ("GNU.sparse.map", "a sparse map"),
    ] {
        let tar = Tar::new();
        let at = tar.offset();
        let tar = tar.global(&[(key, b"1")]).file("one", b"1").finish();
        Case::new(tar).fails(&[
            &format!("at byte {at}"),
            &format!("a global header may not set {said}"),
        ]);
    }
}

/// More than two blocks, where some builders of images gave up (moby/moby#41496).
#[test]
fn pax_headers_of_many_blocks() {
    let comment = vec![b'c'; 5 << 10];
    let large = vec![b'c'; 900 << 10];
    let tar = Tar::new()
        .global(&[("comment", &comment)])
        .file("one", b"1")
        .pax(&[("comment", &large), ("path", b"two")])
        .file("x", b"2")
        .finish();
    Case::new(tar)
        .unpacks(&["file one 0644 = 1", "file two 0644 = 2"])
        .containerd(Peer::Differs(&["+ dir PaxHeaders 0755 @now"]));
}

/// One header that fills the memory of who reads it is refused, by us and by Go's reader.
#[test]
fn h07_pax_headers_over_the_limit() {
    let large = vec![b'c'; (1 << 20) + 1];
    for flag in [b'x', b'g'] {
        let tar = Tar::new();
        let at = tar.offset();
        let body = cairn_integration::raw::records_of(&[("comment", &large)]);
        let tar = tar.extended(flag, &body).file("one", b"1").finish();
        Case::new(tar)
            .fails(&[
                &format!("at byte {at}"),
                "bytes of extension headers before an entry above the limit of 1048576",
            ])
            .containerd(Peer::Fails("header field too long"));
    }
}
