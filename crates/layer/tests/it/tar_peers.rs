//! What GNU tar, bsdtar and Python write is read as they meant it, and no mutation of it panics.
#![allow(clippy::unwrap_used, missing_docs, clippy::cast_possible_truncation)]

use std::{
    fs::{self, File},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use cairn_layer::tar::EntryKind;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::tarball::{Read, contents, gnu, header, kind_letter, read, tar};

/// A tree with a bit of everything: what a format cannot hold is left out of it.
struct Tree {
    dir: TempDir,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Short,
    Ustar,
    Any,
}

fn tree(names: Names) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join("t").join(name);
    fs::create_dir_all(at("sub/empty")).unwrap();
    fs::write(at("plain"), "plain text\n").unwrap();
    fs::write(at("nothing"), "").unwrap();
    fs::write(at("sub/blocks"), vec![b'b'; 1024]).unwrap();
    fs::write(at("sub/odd"), vec![b'o'; 1025]).unwrap();
    fs::write(at("setuid"), "s").unwrap();
    fs::set_permissions(at("setuid"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::hard_link(at("plain"), at("plain-again")).unwrap();
    symlink("../nowhere", at("soft")).unwrap();
    run(Command::new("mkfifo").arg(at("pipe")));
    std::os::unix::fs::chown(at("sub/odd"), Some(1234), Some(65534)).unwrap();
    if names != Names::Short {
        fs::create_dir_all(at(&"p".repeat(90))).unwrap();
        fs::write(
            at(&format!("{}/{}", "p".repeat(90), "q".repeat(90))),
            "long",
        )
        .unwrap();
    }
    if names == Names::Any {
        let deep = format!("{0}/{0}", "d".repeat(200));
        fs::create_dir_all(at(&deep)).unwrap();
        fs::write(at(&format!("{deep}/{}", "f".repeat(255))), "deep").unwrap();
        symlink("l".repeat(300), at("long-link")).unwrap();
        fs::write(at("\u{fc}ml\u{e4}ut"), "utf8").unwrap();
        fs::write(
            dir.path()
                .join("t")
                .join(std::ffi::OsStr::from_bytes(b"\xff\xfe")),
            "bytes",
        )
        .unwrap();
        std::os::unix::fs::chown(at("sub/odd"), Some(3_000_000_000), Some(70000)).unwrap();
    }
    Tree { dir }
}

#[track_caller]
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {err}");
    output.stdout
}

impl Tree {
    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn gnu(&self, options: &[&str]) -> Vec<u8> {
        let mut command = Command::new("tar");
        run(command
            .arg("-C")
            .arg(self.path())
            .args(options)
            .args(["-cf", "-", "t"]))
    }

    /// Every node and what `read` made of it.
    #[track_caller]
    fn compare(&self, archive: &[u8], nanos: bool) {
        let entries = read(archive).expect("a peer's archive");
        let mut seen = Vec::new();
        for read in &entries {
            let (entry, _) = read;
            let path = self.path().join(std::ffi::OsStr::from_bytes(&entry.path));
            let path: PathBuf = path.components().collect();
            self.compare_one(read, &path, nanos);
            seen.push(path);
        }
        seen.sort();
        let mut expected = Vec::new();
        walk(&self.path().join("t"), &mut expected);
        expected.sort();
        assert_eq!(seen, expected);
    }

    #[track_caller]
    fn compare_one(&self, read: &Read, path: &Path, nanos: bool) {
        let (entry, _) = read;
        let meta = fs::symlink_metadata(path).unwrap();
        let shown = path.display();
        assert_eq!(entry.mode, meta.mode() & 0o7777, "{shown}");
        assert_eq!((entry.uid, entry.gid), (meta.uid(), meta.gid()), "{shown}");
        assert_eq!(entry.mtime.secs, meta.mtime(), "{shown}");
        let expected = if nanos { meta.mtime_nsec() } else { 0 };
        assert_eq!(i64::from(entry.mtime.nanos), expected, "{shown}");
        match entry.kind {
            EntryKind::Regular => {
                assert!(meta.is_file(), "{shown}");
                assert_eq!(entry.size, meta.len(), "{shown}");
                assert_eq!(contents(read), fs::read(path).unwrap(), "{shown}");
            }
            EntryKind::HardLink => {
                let target = self.path().join(std::ffi::OsStr::from_bytes(&entry.link));
                assert_eq!(fs::metadata(target).unwrap().ino(), meta.ino(), "{shown}");
            }
            EntryKind::Symlink => {
                let target = fs::read_link(path).unwrap();
                assert_eq!(entry.link, target.as_os_str().as_bytes(), "{shown}");
            }
            EntryKind::Directory => assert!(meta.is_dir(), "{shown}"),
            EntryKind::Fifo => assert!(meta.file_type().is_fifo(), "{shown}"),
            other => panic!("{shown}: {other:?}"),
        }
    }
}

fn walk(path: &Path, all: &mut Vec<PathBuf>) {
    all.push(path.to_owned());
    if fs::symlink_metadata(path).unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walk(&entry.unwrap().path(), all);
        }
    }
}

#[test]
fn gnu_tar_in_every_format() {
    for (format, names) in [
        ("v7", Names::Short),
        ("ustar", Names::Ustar),
        ("oldgnu", Names::Any),
        ("gnu", Names::Any),
        ("pax", Names::Any),
    ] {
        let tree = tree(names);
        if format == "v7" {
            // v7 knows no pipes.
            fs::remove_file(tree.path().join("t/pipe")).unwrap();
        }
        tree.compare(&tree.gnu(&[&format!("--format={format}")]), format == "pax");
    }
}

#[test]
fn bsdtar_in_every_format() {
    for (format, names) in [
        ("ustar", Names::Ustar),
        ("gnutar", Names::Any),
        ("pax", Names::Any),
    ] {
        let tree = tree(names);
        let mut command = Command::new("bsdtar");
        command.env("LC_ALL", "C.UTF-8").arg("-C").arg(tree.path());
        let archive = run(command.args(["--format", format, "-cf", "-", "t"]));
        tree.compare(&archive, format == "pax");
    }
}

#[test]
fn python_in_every_format() {
    for (format, names) in [
        ("USTAR", Names::Ustar),
        ("GNU", Names::Any),
        ("PAX", Names::Any),
    ] {
        let tree = tree(names);
        let script = format!(
            "import sys,tarfile\n\
             t=tarfile.open(fileobj=sys.stdout.buffer,mode='w|',format=tarfile.{format}_FORMAT)\n\
             t.add('t');t.close()"
        );
        let mut command = Command::new("python3");
        let archive = run(command.current_dir(tree.path()).args(["-c", &script]));
        let entries = read(&archive).unwrap();
        // Python's PAX times are floats, so nanoseconds are near at best.
        for read in &entries {
            let path = tree.path().join(std::ffi::OsStr::from_bytes(&read.0.path));
            let nanos = fs::symlink_metadata(&path).unwrap().mtime_nsec();
            let mut read = read.clone();
            if format == "PAX" {
                assert!(
                    (i64::from(read.0.mtime.nanos) - nanos).abs() < 1000,
                    "{path:?}"
                );
                read.0.mtime.nanos = nanos as u32;
            }
            tree.compare_one(&read, &path, format == "PAX");
        }
        let mut expected = Vec::new();
        walk(&tree.path().join("t"), &mut expected);
        assert_eq!(entries.len(), expected.len());
    }
}

/// A file of 2 MiB with `regions` of data in it, and a hole at its end.
fn sparse_tree(regions: u64, name: &str) -> Tree {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("t")).unwrap();
    let file = File::create(dir.path().join("t").join(name)).unwrap();
    for i in 0..regions {
        let text = format!("region {i}");
        file.write_all_at(text.as_bytes(), i * 16384).unwrap();
    }
    file.set_len(2 << 20).unwrap();
    let after = dir.path().join("t/z-after");
    File::create(after).unwrap().write_all(b"after").unwrap();
    Tree { dir }
}

#[test]
fn sparse_files_in_every_dialect() {
    let long = "s".repeat(180);
    let dialects: [&[&str]; 5] = [
        &["--format=gnu"],
        &["--format=oldgnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for name in ["s", &long] {
        for regions in [0, 1, 4, 5, 26, 100] {
            let tree = sparse_tree(regions, name);
            for dialect in dialects {
                let archive = tree.gnu(&[dialect, &["--sparse", "--sort=name"]].concat());
                tree.compare(&archive, dialect[0] == "--format=pax");
                let entries = read(&archive).unwrap();
                let sparse = entries
                    .iter()
                    .find(|(e, _)| e.path.ends_with(name.as_bytes()));
                let (entry, stored) = sparse.unwrap();
                let segments = entry.sparse.as_ref().expect("a sparse file");
                assert_eq!(segments.len() as u64, regions, "{dialect:?}");
                assert!(stored.len() < 1 << 20);
            }
            let mut command = Command::new("bsdtar");
            command
                .arg("-C")
                .arg(tree.path())
                .args(["--format=pax", "-cf", "-", "t"]);
            tree.compare(&run(&mut command), true);
        }
    }
}

#[test]
fn attributes_from_both_dialects() {
    let tree = tree(Names::Short);
    let file = tree.path().join("t/plain");
    for (name, value) in [("user.text", "a=b"), ("user.binary", "0x00ff0a")] {
        let mut command = Command::new("setfattr");
        run(command.args(["-n", name, "-v", value]).arg(&file));
    }
    let expected = [
        (b"user.binary".to_vec(), b"\0\xff\n".to_vec()),
        (b"user.text".to_vec(), b"a=b".to_vec()),
    ];
    let mut bsdtar = Command::new("bsdtar");
    bsdtar.arg("-C").arg(tree.path());
    for archive in [
        tree.gnu(&["--format=pax", "--xattrs"]),
        run(bsdtar.args(["--format=pax", "--xattrs", "-cf", "-", "t"])),
    ] {
        let entries = read(&archive).unwrap();
        // bsdtar repeats them at the file's second name.
        let found = entries.iter().filter(|(entry, _)| !entry.xattrs.is_empty());
        let found: Vec<_> = found.map(|(entry, _)| &entry.xattrs).collect();
        assert!(matches!(found.len(), 1 | 2), "{found:?}");
        assert!(found.iter().all(|xattrs| **xattrs == expected), "{found:?}");
    }
}

#[test]
fn numbers_beyond_octal() {
    let script = "import sys,tarfile,io\n\
        f=getattr(tarfile,sys.argv[1]+'_FORMAT')\n\
        t=tarfile.open(fileobj=sys.stdout.buffer,mode='w|',format=f)\n\
        i=tarfile.TarInfo('f');i.uid=4294967294;i.gid=1<<31;i.mtime=-86400;i.size=1\n\
        t.addfile(i,io.BytesIO(b'x'))\n\
        i=tarfile.TarInfo('g');i.mtime=1<<40\n\
        t.addfile(i);t.close()";
    for format in ["GNU", "PAX"] {
        let archive = run(Command::new("python3").args(["-c", script, format]));
        let entries = read(&archive).unwrap();
        let entry = &entries[0].0;
        assert_eq!((entry.uid, entry.gid), (u32::MAX - 1, 1 << 31));
        assert_eq!((entry.mtime.secs, entry.mtime.nanos), (-86400, 0));
        assert_eq!(entries[1].0.mtime.secs, 1 << 40);
    }
}

/// bsdtar's own list of an archive written here: an order of letters and names.
#[test]
fn archives_of_ours_are_listed_alike() {
    let archive = tar()
        .head(header(b'5', "d/", 0))
        .file("d/f", b"123")
        .pax(&[("path", b"d/long name"), ("mtime", b"1.5")])
        .file("x", b"4")
        .ext(b'L', format!("d/{}\0", "n".repeat(120)).as_bytes())
        .head(gnu(b'0', "x", 0))
        .head(header(b'2', "d/s", 0).with(157, b"f"))
        .head(header(b'1', "d/h", 0).with(157, b"d/f"))
        .end();
    let ours: Vec<String> = read(&archive.0)
        .unwrap()
        .iter()
        .map(|(e, _)| {
            assert!(!kind_letter(e.kind).is_empty());
            String::from_utf8(e.path.clone()).unwrap()
        })
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), &archive.0).unwrap();
    for program in ["tar", "bsdtar"] {
        let listed = run(Command::new(program).arg("-tf").arg(file.path()));
        let listed = String::from_utf8(listed).unwrap();
        assert_eq!(listed.lines().collect::<Vec<_>>(), ours, "{program}");
    }
    let script = "import sys,tarfile\nfor m in tarfile.open(sys.argv[1]): print(m.name)";
    let listed = run(Command::new("python3")
        .args(["-c", script])
        .arg(file.path()));
    let listed = String::from_utf8(listed).unwrap();
    let trimmed: Vec<&str> = ours.iter().map(|name| name.trim_end_matches('/')).collect();
    assert_eq!(listed.lines().collect::<Vec<_>>(), trimmed);
}

/// One small archive for each dialect.
fn seeds() -> &'static [Vec<u8>] {
    static SEEDS: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    SEEDS.get_or_init(|| {
        let mut seeds = Vec::new();
        let any = tree(Names::Any);
        let sparse = sparse_tree(6, "s");
        for format in ["--format=gnu", "--format=pax", "--format=oldgnu"] {
            seeds.push(any.gnu(&[format, "--xattrs"]));
            seeds.push(sparse.gnu(&[format, "--sparse"]));
        }
        for version in ["0.0", "0.1"] {
            let version = format!("--sparse-version={version}");
            seeds.push(sparse.gnu(&["--format=pax", "--sparse", &version]));
        }
        seeds.push(tree(Names::Ustar).gnu(&["--format=ustar"]));
        seeds
    })
}

/// Makes every header's checksum right again, so that mutations reach what is behind it.
fn reseal(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            block[148..156].copy_from_slice(b"        ");
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_mutation_panics(
        seed in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cut in prop::option::of(any::<prop::sample::Index>()),
        seal in any::<bool>(),
    ) {
        let mut bytes = seed.get(seeds()).clone();
        for (at, byte) in edits {
            *at.get_mut(&mut bytes) = byte;
        }
        if seal {
            reseal(&mut bytes);
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(entries) = read(&bytes) {
            for read in entries.iter().filter(|(entry, _)| entry.size < 16 << 20) {
                prop_assert_eq!(contents(read).len() as u64, read.0.size);
            }
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        let _ = read(&bytes);
    }
}
