//! Where peers and streams go apart: trees as Python lists them, archives that two programs read as
//! two, formats for tapes, and streams that fail.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    ffi::OsStr,
    fs,
    io::{self, BufRead, Read},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::Path,
    process::Command,
};

use cairn_layer::tar::{EntryKind, Limits, Reader};
use cairn_types::{Classified, Digest, ErrorKind};
use rustix::fs::{FileType, Mode, Timespec, Timestamps};

use crate::tarball::{Read as Seen, chain, contents, header, pax_body, read, read_with, tar};

/// Prints what Python makes of a tar, in the form of [`ours`].
const LIST: &str = r#"
import hashlib, math, os, sys, tarfile
KINDS = {b"0": "f", b"\0": "f", b"7": "f", b"S": "f", b"1": "h", b"2": "l", b"3": "c", b"4": "b",
         b"5": "d", b"6": "p"}
out = sys.stdout.buffer
archive = tarfile.open(sys.argv[1], errors="surrogateescape", encoding="utf-8")
for m in archive:
    kind = KINDS[m.type]
    data = archive.extractfile(m).read() if kind == "f" else b""
    dev = f"{m.devmajor}:{m.devminor}" if kind in "cb" else ""
    link = os.fsencode(m.linkname) if kind in "hl" else b""
    out.write(b"|".join([os.fsencode(m.name), kind.encode(), b"%o" % (m.mode & 0o7777),
        b"%d:%d" % (m.uid, m.gid), b"%d" % len(data), b"%d" % math.floor(m.mtime), link,
        dev.encode(), hashlib.sha256(data).hexdigest().encode()]) + b"\0")
"#;

/// Writes a tree with Python's tarfile.
const CREATE: &str = r#"
import os, sys, tarfile
kind = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "ustar": tarfile.USTAR_FORMAT}
os.chdir(sys.argv[2])
with tarfile.open(sys.argv[3], "w", format=kind[sys.argv[1]]) as archive:
    archive.add(".")
"#;

#[track_caller]
fn refused(bytes: &[u8], reason: &str) {
    let text = chain(&read_with(bytes, Limits::default()).expect_err("must be refused"));
    assert!(text.contains(reason), "{text}");
}

#[track_caller]
fn run(command: &mut Command) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|err| panic!("{command:?}: {err}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output.stdout
}

fn ours(seen: &[Seen]) -> Vec<String> {
    let line = |seen: &Seen| {
        let (entry, _) = seen;
        let (kind, dev) = match entry.kind {
            EntryKind::Regular => ("f", String::new()),
            EntryKind::Directory => ("d", String::new()),
            EntryKind::Symlink => ("l", String::new()),
            EntryKind::HardLink => ("h", String::new()),
            EntryKind::CharDevice { major, minor } => ("c", format!("{major}:{minor}")),
            EntryKind::BlockDevice { major, minor } => ("b", format!("{major}:{minor}")),
            EntryKind::Fifo => ("p", String::new()),
        };
        let path = entry.path.strip_suffix(b"/").unwrap_or(&entry.path);
        let data = contents(seen);
        assert_eq!(data.len() as u64, entry.size);
        format!(
            "{}|{kind}|{:o}|{}:{}|{}|{}|{}|{dev}|{}",
            path.escape_ascii(),
            entry.mode,
            entry.uid,
            entry.gid,
            entry.size,
            entry.mtime.secs,
            entry.link.escape_ascii(),
            Digest::sha256(&data)
                .to_string()
                .trim_start_matches("sha256:"),
        )
    };
    seen.iter().map(line).collect()
}

#[track_caller]
fn compare_with_python(archive: &Path) -> Vec<Seen> {
    let listed = run(Command::new("python3").args(["-c", LIST]).arg(archive));
    let theirs: Vec<_> = listed
        .split(|b| *b == 0)
        .filter(|line| !line.is_empty())
        .map(|line| line.escape_ascii().to_string())
        .collect();
    let seen = read(&fs::read(archive).unwrap()).unwrap_or_else(|err| panic!("{}", chain(&err)));
    assert_eq!(ours(&seen), theirs, "{archive:?}");
    assert!(seen.len() > 3, "{archive:?} is a real archive");
    seen
}

fn set_times(path: &Path, secs: i64, nanos: i64) {
    let time = Timespec {
        tv_sec: secs,
        tv_nsec: nanos,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

/// What every format can hold.
fn plain_tree(root: &Path) {
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::write(root.join("dir/file"), "hello").unwrap();
    fs::write(root.join("dir/empty"), "").unwrap();
    fs::write(root.join("dir/sub/large"), vec![0x5a; 700_001]).unwrap();
    fs::hard_link(root.join("dir/file"), root.join("dir/hard")).unwrap();
    symlink("../nowhere", root.join("dir/soft")).unwrap();
    let setuid = root.join("dir/setuid");
    fs::write(&setuid, "s").unwrap();
    std::os::unix::fs::lchown(&setuid, Some(1234), Some(5678)).unwrap();
    chmod(&setuid, 0o6755);
    chmod(&root.join("dir/sub"), 0o1777);
    set_times(&setuid, 1_500_000_000, 0);
}

fn chmod(path: &Path, mode: u32) {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).unwrap();
}

/// Devices and names that ustar can hold.
fn ustar_tree(root: &Path) {
    plain_tree(root);
    let parent = root.join("p".repeat(90)).join("q".repeat(50));
    fs::create_dir_all(&parent).unwrap();
    fs::write(parent.join("r".repeat(80)), "prefixed").unwrap();
    let node = |name: &str, kind, major, minor| {
        let dev = rustix::fs::makedev(major, minor);
        let path = root.join(name);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            kind,
            Mode::from_raw_mode(0o640),
            dev,
        )
        .unwrap();
    };
    node("null", FileType::CharacterDevice, 1, 3);
    node("disk", FileType::BlockDevice, 259, 70_000);
    node("pipe", FileType::Fifo, 0, 0);
}

/// What only GNU's extensions and PAX can hold.
fn rich_tree(root: &Path) {
    ustar_tree(root);
    let mut deep = root.to_owned();
    for n in 0..5 {
        deep = deep.join(format!("{n}").repeat(200));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("\u{e4}".repeat(100)), "deep").unwrap();
    symlink("t".repeat(3000), root.join("far")).unwrap();
    fs::hard_link(deep.join("\u{e4}".repeat(100)), root.join("hard-to-deep")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"raw\xff\xfe\n")), "bytes").unwrap();
    fs::write(root.join("old"), "1969").unwrap();
    set_times(&root.join("old"), -1000, 0);
    fs::write(root.join("far-future"), "2400").unwrap();
    set_times(&root.join("far-future"), 13_569_465_600, 0);
    fs::write(root.join("owner"), "").unwrap();
    std::os::unix::fs::lchown(root.join("owner"), Some(u32::MAX - 1), Some(1 << 31)).unwrap();
}

type Tree = fn(&Path);

/// Has a tree packed into an archive by `pack`, and read by Python and by us.
fn compare(tree: Tree, pack: impl FnOnce(&Path, &Path)) {
    let tmp = tempfile::tempdir().unwrap();
    let (root, archive) = (tmp.path().join("t"), tmp.path().join("a.tar"));
    fs::create_dir(&root).unwrap();
    tree(&root);
    pack(&root, &archive);
    compare_with_python(&archive);
}

#[test]
fn gnu_tar_writes_what_python_reads() {
    for (format, tree) in [
        ("v7", plain_tree as Tree),
        ("oldgnu", rich_tree),
        ("gnu", rich_tree),
        ("ustar", ustar_tree),
        ("pax", rich_tree),
    ] {
        compare(tree, |root, archive| {
            let format = format!("--format={format}");
            run(Command::new("tar")
                .arg("-cf")
                .arg(archive)
                .arg(format)
                .arg("-C")
                .arg(root)
                .arg("."));
        });
    }
}

#[test]
fn bsdtar_writes_what_python_reads() {
    for (format, tree) in [
        ("v7", plain_tree as Tree),
        ("gnutar", rich_tree),
        ("ustar", ustar_tree),
        ("pax", rich_tree),
    ] {
        compare(tree, |root, archive| {
            let mut bsdtar = Command::new("bsdtar");
            bsdtar.env("LC_ALL", "C.UTF-8").arg("-cf").arg(archive);
            run(bsdtar
                .arg("--format")
                .arg(format)
                .arg("-C")
                .arg(root)
                .arg("."));
        });
    }
}

#[test]
fn python_writes_what_python_reads() {
    for (format, tree) in [
        ("gnu", rich_tree as Tree),
        ("ustar", ustar_tree),
        ("pax", rich_tree),
    ] {
        compare(tree, |root, archive| {
            let mut python = Command::new("python3");
            run(python.args(["-c", CREATE, format]).arg(root).arg(archive));
        });
    }
}

/// GNU tar's labels, listed backups and volumes are for tapes: refused by name.
#[test]
fn gnu_tar_backups_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let (root, archive) = (tmp.path().join("t"), tmp.path().join("a.tar"));
    fs::create_dir(&root).unwrap();
    plain_tree(&root);
    for (options, reason) in [
        (&["--format=gnu", "--label=x"][..], "volume label"),
        (&["--format=gnu", "--incremental"], "GNU directory dump"),
        (&["--format=pax", "--incremental"], "GNU.dumpdir"),
    ] {
        let mut command = Command::new("tar");
        command
            .args(options)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&root)
            .arg(".");
        run(&mut command);
        refused(&fs::read(&archive).unwrap(), reason);
    }
}

/// Why a hard link with a size and PAX records is refused: two peers see two different archives.
#[test]
fn peers_disagree_about_hard_links_with_data() {
    let tmp = tempfile::tempdir().unwrap();
    let archive = tmp.path().join("a.tar");
    let nested = tar().file("hidden", b"").0;
    let bytes = tar()
        .file("target", &[b'x'; 512])
        .pax(&[("mtime", b"1")])
        .head(header(b'1', "link", 512).with(157, b"target"))
        .data(&nested)
        .end()
        .0;
    fs::write(&archive, &bytes).unwrap();
    let list = |program: &str| {
        let names = run(Command::new(program).arg("-tf").arg(&archive));
        String::from_utf8(names).unwrap().replace('\n', " ")
    };
    assert_eq!(list("tar"), "target link hidden ");
    assert_eq!(list("bsdtar"), "target link ");
    refused(&bytes, "ambiguous");
}

/// The limit is on all extension headers of one entry together, and starts again for the next.
#[test]
fn the_limit_of_extension_bytes_is_exact() {
    let comment = |len: usize| pax_body(&[("comment", &vec![b'c'; len])]);
    let limit = comment((1 << 20) - 17);
    assert_eq!(limit.len(), 1 << 20);
    let ok = tar().ext(b'x', &limit).file("a", b"").ext(b'x', &limit);
    assert_eq!(read(&ok.file("b", b"").end().0).unwrap().len(), 2);
    let over = tar().ext(b'x', &comment((1 << 20) - 16)).file("a", b"");
    refused(&over.end().0, "above the limit of 1048576");
    let together = tar().ext(b'x', &limit).ext(b'L', b"n\0").file("a", b"");
    refused(&together.end().0, "above the limit of 1048576");
}

#[test]
fn data_that_nobody_reads_is_skipped() {
    let bytes = tar().file("a", &[1; 5000]).file("b", b"xyz").end().0;
    let mut reader = Reader::new(&bytes[..], Limits::default());
    assert_eq!(reader.next().unwrap().unwrap().path, b"a");
    assert_eq!(reader.data().unwrap()[0], 1);
    reader.consume(10);
    assert_eq!(reader.next().unwrap().unwrap().path, b"b");
    assert_eq!(reader.data().unwrap(), b"xyz");
    // More than there is takes only what there is.
    reader.consume(usize::MAX);
    assert!(reader.data().unwrap().is_empty());
    assert_eq!(reader.finish().unwrap(), bytes.len() as u64);
    assert!(reader.next().unwrap().is_none());
}

#[test]
fn refusals_name_the_entry_escaped_and_its_place() {
    let label = header(b'V', "b\x1b[2J", 0);
    let err = read_with(
        &tar().file("a", b"1").head(label).end().0,
        Limits::default(),
    )
    .unwrap_err();
    assert_eq!(
        chain(&err),
        "read tar entry \"b\\x1b[2J\" at byte 1024: type 'V' (volume label) is not supported"
    );
    assert_eq!(err.kind(), ErrorKind::InvalidArgument);
    refused(
        b"\x1f\x8b",
        "read tar header at byte 0: the stream ends inside its header",
    );
}

/// Fails for good after some bytes, and is interrupted before each piece.
struct Flaky<'b> {
    bytes: &'b [u8],
    interrupted: bool,
}

impl Read for Flaky<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("the reader borrows")
    }
}

impl BufRead for Flaky<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.interrupted = !self.interrupted;
        match self.interrupted {
            true if !self.bytes.is_empty() => Ok(&self.bytes[..1]),
            true => Err(io::Error::other("cable")),
            // Only the first call for a piece is interrupted, as with a real signal.
            false if self.bytes.is_empty() => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(&self.bytes[..1]),
        }
    }

    fn consume(&mut self, n: usize) {
        self.bytes = &self.bytes[n..];
    }
}

#[test]
fn a_stream_that_fails_is_no_refusal_of_ours_and_nothing_follows_it() {
    let bytes = tar().file("a", &[1; 700]).0;
    let input = Flaky {
        bytes: &bytes[..900],
        interrupted: false,
    };
    let mut reader = Reader::new(input, Limits::default());
    reader.next().unwrap().unwrap();
    let err = reader.next().unwrap_err();
    assert_eq!(
        chain(&err),
        "read tar entry \"a\" at byte 0: the stream failed: cable"
    );
    assert_eq!(err.kind(), ErrorKind::Internal);
    for err in [
        reader.next().unwrap_err(),
        reader.data().map(<[u8]>::len).unwrap_err(),
        reader.finish().unwrap_err(),
    ] {
        assert!(chain(&err).contains("an earlier error ended this archive"));
    }
}
