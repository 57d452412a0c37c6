//! A real tree through every format of GNU tar, bsdtar and Python, held against the tree itself.
//!
//! | row of the tar table | writers |
//! |---|---|
//! | v7 | GNU tar `--format=v7`, bsdtar `--format=v7tar` |
//! | ustar | GNU tar, bsdtar, Python |
//! | GNU, old GNU | GNU tar, bsdtar, Python |
//! | PAX, with attributes and nanoseconds | GNU tar, bsdtar, Python |
//!
//! What a format cannot hold is taken out of the expectation, and of nothing else. star itself is not
//! in Debian; its headers are made by hand in `tar_headers.rs`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use cairn_integration::{
    fixture::{Case, Peer},
    image::MTIME,
    peers,
    tree::Tree,
};
use tempfile::TempDir;

/// What a writer's format can hold.
#[derive(Clone, Copy)]
struct Holds {
    long_names: bool,
    devices: bool,
    nanoseconds: bool,
    attributes: bool,
}

const V7: Holds = Holds {
    long_names: false,
    devices: false,
    nanoseconds: false,
    attributes: false,
};
const USTAR: Holds = Holds {
    devices: true,
    ..V7
};
const GNU: Holds = Holds {
    long_names: true,
    ..USTAR
};
const PAX: Holds = Holds {
    nanoseconds: true,
    attributes: true,
    ..GNU
};

struct Source(TempDir);

impl Source {
    fn new(holds: Holds) -> Source {
        let source = Source(TempDir::new().expect("temporary directory"));
        let root = source.root();
        fs::create_dir_all(root.join("dir/sub")).expect("directory");
        fs::write(root.join("dir/file"), "content").expect("file");
        fs::write(root.join("dir/sub/large"), vec![7; 100_000]).expect("file");
        fs::hard_link(root.join("dir/file"), root.join("hard")).expect("link");
        symlink("dir/file", root.join("soft")).expect("link");
        fs::write(root.join("name with space\nand é"), "1").expect("file");
        std::os::unix::fs::chown(root.join("dir/sub"), Some(1000), Some(1001)).expect("chown");
        let mode = |path: &str, mode| {
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).expect("mode");
        };
        mode("", 0o755);
        mode("dir", 0o1777);
        mode("dir/file", 0o4750);
        if holds.long_names {
            let long = format!("dir/{}", "l".repeat(200));
            fs::write(root.join(&long), "long").expect("file");
            symlink("t".repeat(300), root.join("to-long")).expect("link");
        }
        if holds.devices {
            let null = source.text("null");
            peers::run("mknod", &["-m", "666", &null, "c", "1", "3"]);
            peers::run("mkfifo", &["-m", "600", &source.text("fifo")]);
        }
        if holds.attributes {
            for (name, value) in [("user.text", "a=b"), ("user.binary", "0x00ff0a")] {
                peers::run(
                    "setfattr",
                    &["-n", name, "-v", value, &source.text("dir/file")],
                );
            }
        }
        let fraction = if holds.nanoseconds { ".123456789" } else { "" };
        let time = format!("@{}{fraction}", MTIME - 5);
        let script = format!("find . -exec touch -h -d {time} {{}} +");
        peers::run(
            "sh",
            &["-c", &format!("cd {} && {script}", source.text(""))],
        );
        source
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("tree")
    }

    fn text(&self, path: &str) -> String {
        self.root().join(path).display().to_string()
    }

    fn lines(&self) -> Vec<String> {
        Tree::read(&self.root()).lines()
    }

    /// Packs it by a shell command with `$OUT`, in the tree.
    fn pack(&self, command: &str) -> Vec<u8> {
        let out = self.0.path().join("out.tar");
        let script = format!("cd {} && OUT={} && {command}", self.text(""), out.display());
        peers::run("sh", &["-c", &script]);
        fs::read(Path::new(&out)).expect("tar")
    }
}

#[track_caller]
fn check(holds: Holds, command: &str) -> Case {
    let source = Source::new(holds);
    let tar = source.pack(command);
    let lines = source.lines();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    Case::new(tar).unpacks(&lines).umoci(Peer::Same)
}

#[test]
fn gnu_tar_v7() {
    check(V7, "tar --format=v7 -cf $OUT .");
}

#[test]
fn gnu_tar_ustar() {
    check(USTAR, "tar --format=ustar -cf $OUT .");
}

#[test]
fn gnu_tar_oldgnu() {
    check(GNU, "tar --format=oldgnu -cf $OUT .");
}

#[test]
fn gnu_tar_gnu() {
    check(GNU, "tar --format=gnu -cf $OUT .");
}

#[test]
fn gnu_tar_pax() {
    check(PAX, "tar --format=pax --xattrs -cf $OUT .").containerd(Peer::Differs(&[
        // It skips the root's entry.
        "- dir . 0755 @1599999995.123456789",
    ]));
}

#[test]
fn bsdtar_v7() {
    check(V7, "bsdtar --format=v7tar -cf $OUT .");
}

#[test]
fn bsdtar_ustar() {
    check(USTAR, "bsdtar --format=ustar -cf $OUT .");
}

#[test]
fn bsdtar_gnu() {
    check(GNU, "bsdtar --format=gnutar -cf $OUT .");
}

/// Both of libarchive's forms of each attribute are in there.
#[test]
fn bsdtar_pax() {
    check(PAX, "bsdtar --format=pax --xattrs -cf $OUT .");
}

fn python(format: &str) -> String {
    format!(
        "python3 -c 'import tarfile,os; t=tarfile.open(os.environ[\"OUT\"],\"w\",\
         format=tarfile.{format}_FORMAT); t.add(\".\"); t.close()'"
    )
    .replace("python3", "OUT=$OUT python3")
}

#[test]
fn python_ustar() {
    check(USTAR, &python("USTAR"));
}

#[test]
fn python_gnu() {
    check(GNU, &python("GNU"));
}

/// Python's times are floats and it writes no attributes, so whole seconds stand in.
#[test]
fn python_pax() {
    check(GNU, &python("PAX"));
}
