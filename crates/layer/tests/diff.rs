//! Changes made through a real overlay mount, written as a layer, and unpacked again: the same tree.
#![allow(missing_docs, clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs,
    io::Read,
    os::unix::{
        ffi::OsStringExt,
        fs::{FileExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    process::Command,
};

use cairn_layer::{
    Options, adopt, apply,
    diff::{self, Error, Packed, diff, pack},
    tar::{self, EntryKind, Limits},
};
use cairn_sys::Dir;
use cairn_types::{Compression, Digest};
use rustix::fs::{FileType, Mode, Timespec, Timestamps, XattrFlags};

const OLD: i64 = 1_577_934_245;

/// Two lower layers, an upper one, and where they are mounted.
struct Stack {
    tmp: tempfile::TempDir,
}

impl Stack {
    /// `fill` makes the lower layers: `0` at the bottom and `1`.
    fn new(fill: impl FnOnce(&Path, &Path)) -> Stack {
        let stack = Stack {
            tmp: tempfile::tempdir().unwrap(),
        };
        for name in ["0", "1", "upper", "work", "again", "mnt"] {
            fs::create_dir(stack.at(name)).unwrap();
        }
        fill(&stack.at("0"), &stack.at("1"));
        stack
    }

    fn at(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    fn dir(&self, name: &str) -> Dir {
        Dir::open(&self.at(name)).unwrap()
    }

    fn lowers(&self) -> Vec<Dir> {
        vec![self.dir("1"), self.dir("0")]
    }

    fn with(&self, upper: &str) -> Vec<Dir> {
        [vec![self.dir(upper)], self.lowers()].concat()
    }

    /// Works on the mounted stack.
    fn change(&self, change: impl FnOnce(&Path)) -> &Stack {
        let options = format!(
            "upperdir={},workdir={},lowerdir={}:{}",
            self.at("upper").display(),
            self.at("work").display(),
            self.at("1").display(),
            self.at("0").display()
        );
        let mounted = Mounted::new(self.at("mnt"), &options);
        change(&mounted.0);
        self
    }

    /// What is seen of the lower layers with `upper` on them.
    fn seen(&self, upper: &str, dir_times: bool) -> BTreeMap<PathBuf, String> {
        let options = format!(
            "lowerdir={}:{}:{}",
            self.at(upper).display(),
            self.at("1").display(),
            self.at("0").display()
        );
        let mounted = Mounted::new(self.at("mnt"), &options);
        tree(&mounted.0, dir_times)
    }

    fn diff(&self) -> Vec<u8> {
        written(&self.lowers(), &self.with("upper"))
    }

    /// Unpacks the difference on the same lower layers and compares what is seen.
    #[track_caller]
    fn check_round_trip(&self) {
        self.check_round_trip_with(true);
    }

    /// `dir_times` says whether times of directories are compared.
    #[track_caller]
    fn check_round_trip_with(&self, dir_times: bool) {
        let layer = self.diff();
        assert_eq!(layer, self.diff(), "the same bytes again");
        let again = self.dir("again");
        let options = Options::default();
        let applied = apply(&layer[..], &again, &options).unwrap();
        adopt(&again, &self.lowers(), &applied, &options).unwrap();
        let (was, is) = (self.seen("upper", dir_times), self.seen("again", dir_times));
        for (path, line) in &was {
            assert_eq!(Some(line), is.get(path), "{}", path.display());
        }
        let extra: Vec<_> = is.keys().filter(|path| !was.contains_key(*path)).collect();
        assert!(extra.is_empty(), "{extra:?}");
        let once_more = written(&self.lowers(), &self.with("again"));
        assert_eq!(
            listing(&once_more),
            listing(&layer),
            "and the same difference"
        );
    }
}

struct Mounted(PathBuf);

impl Mounted {
    fn new(target: PathBuf, options: &str) -> Mounted {
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", options]);
        assert!(
            mount.arg(&target).status().unwrap().success(),
            "mount overlay"
        );
        Mounted(target)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(
            Command::new("umount")
                .arg(&self.0)
                .status()
                .unwrap()
                .success()
        );
    }
}

fn written(left: &[Dir], right: &[Dir]) -> Vec<u8> {
    let mut out = Vec::new();
    diff(left, right, &diff::Options::default(), &mut out).unwrap();
    out
}

/// Path, type and what is special of each entry.
fn listing(layer: &[u8]) -> Vec<String> {
    let mut reader = tar::Reader::new(layer, Limits::default());
    let mut lines = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        lines.push(match entry.kind {
            EntryKind::Regular => path,
            EntryKind::Directory => path,
            EntryKind::HardLink => format!("{path} = {}", entry.link.escape_ascii()),
            EntryKind::Symlink => format!("{path} -> {}", entry.link.escape_ascii()),
            other => format!("{path} {other:?}"),
        });
    }
    assert_eq!(reader.finish().unwrap(), layer.len() as u64);
    lines
}

/// Everything that a layer can keep. Not the times of the root, which no layer has.
fn tree(root: &Path, dir_times: bool) -> BTreeMap<PathBuf, String> {
    let (mut seen, mut inodes) = (BTreeMap::new(), HashMap::new());
    let mut todo = vec![PathBuf::new()];
    let mut paths = Vec::new();
    while let Some(path) = todo.pop() {
        if fs::symlink_metadata(root.join(&path)).unwrap().is_dir() {
            let entries = fs::read_dir(root.join(&path)).unwrap();
            todo.extend(entries.map(|entry| path.join(entry.unwrap().file_name())));
        }
        paths.push(path);
    }
    paths.sort();
    for path in paths {
        let whole = root.join(&path);
        let meta = fs::symlink_metadata(&whole).unwrap();
        let kind = FileType::from_raw_mode(meta.mode());
        let content = match kind {
            FileType::RegularFile => Digest::sha256(&fs::read(&whole).unwrap()).to_string(),
            FileType::Symlink => format!("{:?}", fs::read_link(&whole).unwrap()),
            _ => format!("{:x}", meta.rdev()),
        };
        let inode = (meta.dev(), meta.ino());
        let first = match meta.is_dir() {
            true => path.clone(),
            false => inodes.entry(inode).or_insert_with(|| path.clone()).clone(),
        };
        let timed = !path.as_os_str().is_empty() && (dir_times || !meta.is_dir());
        let time = if timed { meta.mtime() } else { 0 };
        let line = format!(
            "{kind:?} {:o} {}:{} {time} {content} {:?} same as {first:?}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            xattrs(&whole)
        );
        seen.insert(path, line);
    }
    seen
}

fn xattrs(path: &Path) -> Vec<(String, String)> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|n| !n.is_empty());
    let mut all: Vec<_> = names
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            let value = value[..length].escape_ascii().to_string();
            (String::from_utf8(name.to_vec()).unwrap(), value)
        })
        .filter(|(name, _)| !name.starts_with("trusted."))
        .collect();
    all.sort();
    all
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// A file of the past.
fn file(root: &Path, path: &str, text: &str) {
    fs::write(root.join(path), text).unwrap();
    age(&root.join(path), OLD);
}

fn dir(root: &Path, path: &str) {
    fs::create_dir_all(root.join(path)).unwrap();
}

fn age(path: &Path, seconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: 0,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).unwrap();
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What most tests begin with.
fn some(bottom: &Path, nearer: &Path) {
    dir(bottom, "d/sub/deep");
    for path in ["d/one", "d/two", "d/sub/x", "d/sub/deep/y", "f", "g", "h"] {
        file(bottom, path, path);
    }
    symlink("f", bottom.join("link")).unwrap();
    file(bottom, "linked", "linked");
    fs::hard_link(bottom.join("linked"), bottom.join("d/linked")).unwrap();
    dir(nearer, "d/sub");
    file(nearer, "d/three", "3");
    file(nearer, "d/sub/z", "z");
    chmod(&nearer.join("d"), 0o750);
}

#[test]
fn whatever_happens_in_a_container_comes_back() {
    let longest = "l".repeat(255);
    let stack = Stack::new(|bottom, nearer| {
        some(bottom, nearer);
        file(bottom, &longest, "");
    });
    stack.change(|root| {
        fs::remove_file(root.join(&longest)).unwrap();
        // Content, mode, owner, time.
        fs::write(root.join("d/one"), "changed").unwrap();
        chmod(&root.join("d/two"), 0o4711);
        std::os::unix::fs::chown(root.join("f"), Some(1000), Some(1001)).unwrap();
        age(&root.join("g"), OLD + 7);
        // Deleting, moving, and back.
        fs::remove_dir_all(root.join("d/sub/deep")).unwrap();
        fs::rename(root.join("h"), root.join("d/moved")).unwrap();
        fs::remove_file(root.join("d/three")).unwrap();
        file(root, "d/three", "again");
        // New things of every kind.
        dir(root, "new/empty");
        file(root, "new/zero", "");
        symlink("/../x", root.join("new/link")).unwrap();
        for (kind, name) in [
            (FileType::CharacterDevice, "new/char"),
            (FileType::BlockDevice, "new/block"),
            (FileType::Fifo, "new/fifo"),
        ] {
            let device = match kind {
                FileType::Fifo => 0,
                _ => rustix::fs::makedev(259, 70_000),
            };
            let mode = Mode::from_raw_mode(0o640);
            rustix::fs::mknodat(rustix::fs::CWD, root.join(name), kind, mode, device).unwrap();
        }
        let sparse = fs::File::create(root.join("new/sparse")).unwrap();
        sparse.write_all_at(b"far", 3 << 20).unwrap();
        sparse.set_len(5 << 20).unwrap();
        fs::write(root.join("new/odd"), vec![b'o'; 300_001]).unwrap();
        // Names.
        file(root, &"n".repeat(250), "long");
        let deep = format!("{0}/{0}/{0}", "p".repeat(90));
        dir(root, &deep);
        file(root, &format!("{deep}/f"), "deep");
        let odd = OsString::from_vec(b"\xff\n\xc3\xa9 ".to_vec());
        fs::write(root.join(odd), "odd").unwrap();
        symlink("t".repeat(1000), root.join("far")).unwrap();
        // Links.
        file(root, "new/a", "linked");
        fs::hard_link(root.join("new/a"), root.join("new/empty/b")).unwrap();
        fs::hard_link(root.join("new/a"), root.join("c")).unwrap();
        // Attributes, on files and directories; a capability.
        set_xattr(&root.join("new/a"), "user.note", b"a\0b\n");
        set_xattr(&root.join("new"), "user.dir", b"");
        set_xattr(&root.join("d/sub"), "user.lower", b"x");
        let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        set_xattr(&root.join("new/odd"), "security.capability", &capability);
        chmod(&root.join("new"), 0o2770);
        chmod(&root.join("new/empty"), 0o1777);
    });
    stack.check_round_trip();
}

#[test]
fn kinds_change_places() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::remove_file(root.join("f")).unwrap();
        dir(root, "f");
        file(root, "f/x", "x");
        fs::remove_dir_all(root.join("d/sub")).unwrap();
        file(root, "d/sub", "now a file");
        fs::remove_file(root.join("link")).unwrap();
        dir(root, "link/empty");
        fs::remove_file(root.join("g")).unwrap();
        symlink("h", root.join("g")).unwrap();
    });
    assert_eq!(
        listing(&stack.diff()),
        ["d/", "d/sub", "f/", "f/x", "g -> h", "link/", "link/empty/"],
        "none of them needs a whiteout"
    );
    stack.check_round_trip();
}

#[test]
fn a_directory_made_anew_lists_what_is_gone() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::remove_dir_all(root.join("d")).unwrap();
        dir(root, "d/sub");
        chmod(&root.join("d"), 0o750);
        file(root, "d/new", "n");
        file(root, "d/two", "d/two");
        file(root, "d/sub/z", "other");
    });
    assert_eq!(
        listing(&stack.diff()),
        [
            "d/",
            "d/.wh.linked",
            "d/new",
            "d/.wh.one",
            "d/sub/",
            "d/sub/.wh.deep",
            "d/sub/.wh.x",
            "d/sub/z",
            "d/.wh.three",
        ],
        "one that is the same again is none of them"
    );
    stack.check_round_trip();
}

#[test]
fn what_was_only_touched_is_not_there() {
    let stack = Stack::new(some);
    stack.change(|root| {
        // Copied up, and the same as before.
        let opened = fs::OpenOptions::new().append(true).open(root.join("d/one"));
        drop(opened.unwrap());
        file(root, "f", "f");
        chmod(&root.join("d/sub"), 0o711);
        chmod(&root.join("d/sub"), 0o755);
        // Come and gone.
        file(root, "d/gone", "");
        fs::remove_file(root.join("d/gone")).unwrap();
    });
    assert!(stack.at("upper").join("d/one").exists(), "it was copied up");
    assert_eq!(listing(&stack.diff()), [""; 0]);
    assert_eq!(stack.diff(), [0; 1024]);
}

#[test]
fn from_nothing_and_to_nothing() {
    let stack = Stack::new(some);
    assert_eq!(written(&[], &[]), [0; 1024], "nothing and nothing");
    let all = written(&[], &stack.lowers());
    let gone = written(&stack.lowers(), &[]);
    assert_eq!(
        listing(&gone),
        [".wh.d", ".wh.f", ".wh.g", ".wh.h", ".wh.link", ".wh.linked"]
    );
    assert!(listing(&all).contains(&"d/sub/z".to_owned()));
}

#[test]
fn same_size_and_time_but_other_content() {
    let stack = Stack::new(some);
    stack.change(|root| file(root, "d/one", "D/ONE"));
    assert_eq!(listing(&stack.diff()), ["d/", "d/one"]);
    stack.check_round_trip();
}

#[test]
fn a_new_name_for_an_unchanged_file() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::hard_link(root.join("d/one"), root.join("second")).unwrap();
        fs::hard_link(root.join("f"), root.join("a")).unwrap();
    });
    assert_eq!(
        listing(&stack.diff()),
        ["a", "f = a", "second", "d/", "d/one = second"],
        "the new name has the data, the old one follows with its parents"
    );
    stack.check_round_trip();
}

#[test]
fn the_root_itself() {
    let stack = Stack::new(|bottom, nearer| {
        some(bottom, nearer);
        std::os::unix::fs::chown(nearer, Some(5), Some(6)).unwrap();
        chmod(nearer, 0o700);
    });
    // As the snapshotter makes it.
    std::os::unix::fs::chown(stack.at("upper"), Some(5), Some(6)).unwrap();
    assert_eq!(listing(&stack.diff()), [""; 0], "as it was made");
    stack.change(|root| chmod(root, 0o1777));
    assert_eq!(listing(&stack.diff()), ["./"]);
    stack.check_round_trip();
}

#[test]
fn sockets_are_left_out_and_hide_what_was_there() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::remove_file(root.join("f")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(root.join("f")).unwrap());
        drop(std::os::unix::net::UnixListener::bind(root.join("new")).unwrap());
    });
    assert_eq!(listing(&stack.diff()), [".wh.f"]);
}

#[test]
fn times_are_capped_and_whole() {
    let stack = Stack::new(some);
    stack.change(|root| {
        fs::write(root.join("now"), "").unwrap();
        file(root, "old", "");
        fs::remove_file(root.join("f")).unwrap();
    });
    let options = diff::Options {
        latest: Some(OLD + 10),
        ..Default::default()
    };
    let mut out = Vec::new();
    diff(&stack.lowers(), &stack.with("upper"), &options, &mut out).unwrap();
    let mut reader = tar::Reader::new(&out[..], Limits::default());
    let mut times = Vec::new();
    while let Some(entry) = reader.next().unwrap() {
        times.push((entry.mtime.secs, entry.mtime.nanos));
    }
    assert_eq!(times, [(0, 0), (OLD + 10, 0), (OLD, 0)]);
}

#[test]
fn between_any_two_stacks() {
    let stack = Stack::new(some);
    stack.change(|root| {
        file(root, "second", "2");
        fs::remove_file(root.join("f")).unwrap();
        fs::remove_dir_all(root.join("d/sub")).unwrap();
        fs::remove_file(root.join("linked")).unwrap();
    });
    let (lowers, upper) = (stack.lowers(), stack.with("upper"));
    assert_eq!(
        listing(&written(&lowers, &upper)),
        ["d/", "d/.wh.sub", ".wh.f", ".wh.linked", "second"]
    );
    assert_eq!(
        listing(&written(&upper, &lowers)),
        [
            "d/",
            "d/sub/",
            "d/sub/deep/",
            "d/sub/deep/y",
            "d/sub/x",
            "d/sub/z",
            "f",
            "linked",
            "d/linked = linked",
            ".wh.second",
        ],
        "backwards; a name that is back is again that of its file"
    );
    assert_eq!(listing(&written(&upper, &upper)), [""; 0]);
    assert_eq!(
        listing(&written(&lowers[1..], &upper)),
        [
            "d/",
            "d/.wh.sub",
            "d/three",
            ".wh.f",
            ".wh.linked",
            "second"
        ],
        "two layers at once"
    );
}

#[test]
fn every_packing_holds_the_same_layer() {
    let stack = Stack::new(some);
    stack.change(|root| file(root, "new", &"text ".repeat(100_000)));
    let layer = stack.diff();
    let packed = |compression| -> (Packed, Vec<u8>) {
        let mut out = Vec::new();
        let options = diff::Options::default();
        let (left, right) = (stack.lowers(), stack.with("upper"));
        let packed = pack(&left, &right, &options, compression, &mut out).unwrap();
        (packed, out)
    };
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let (said, bytes) = packed(compression);
        assert_eq!(bytes, packed(compression).1, "{compression:?} again");
        assert_eq!(Compression::sniff(&bytes), compression);
        let mut inside = Vec::new();
        match compression {
            Compression::None => inside = bytes,
            Compression::Gzip => {
                let mut reader = flate2::read::GzDecoder::new(&bytes[..]);
                reader.read_to_end(&mut inside).unwrap();
            }
            Compression::Zstd => inside = zstd::decode_all(&bytes[..]).unwrap(),
        }
        assert_eq!(inside, layer);
        assert_eq!(said.diff_id.digest(), &Digest::sha256(&layer));
        assert_eq!((said.size, said.entries), (layer.len() as u64, 1));
    }
}

#[test]
fn what_a_layer_cannot_say_is_refused() {
    let stack = Stack::new(some);
    let refused = |right: &[Dir]| {
        let options = diff::Options::default();
        diff(&stack.lowers(), right, &options, std::io::sink()).unwrap_err()
    };
    file(&stack.at("upper"), ".wh.f", "");
    let err = refused(&stack.with("upper"));
    assert!(
        matches!(&err, Error::Marker { path } if path == ".wh.f"),
        "{err}"
    );
    fs::remove_file(stack.at("upper").join(".wh.f")).unwrap();

    dir(&stack.at("upper"), "moved");
    set_xattr(
        &stack.at("upper").join("moved"),
        "trusted.overlay.redirect",
        b"d",
    );
    let err = refused(&stack.with("upper"));
    assert!(matches!(&err, Error::Feature { .. }), "{err}");
    fs::remove_dir(stack.at("upper").join("moved")).unwrap();

    file(&stack.at("upper"), "f", "");
    set_xattr(
        &stack.at("upper").join("f"),
        "trusted.overlay.metacopy",
        b"",
    );
    let err = refused(&stack.with("upper"));
    assert!(matches!(&err, Error::Feature { .. }), "{err}");
}

#[test]
fn deep_and_wide_trees() {
    let stack = Stack::new(|bottom, _| {
        let mut at = Dir::open(bottom).unwrap();
        for _ in 0..1900 {
            at.create_dir(OsStr::new("d"), 0o755).unwrap();
            at = at.open_dir(OsStr::new("d")).unwrap();
        }
    });
    let mut at = stack.dir("upper");
    for _ in 0..1900 {
        at.create_dir(OsStr::new("d"), 0o755).unwrap();
        at = at.open_dir(OsStr::new("d")).unwrap();
        // Compared after the way back.
        let made = at.open_file(
            OsStr::new("z"),
            cairn_sys::OFlags::CREATE | cairn_sys::OFlags::WRONLY,
            0o644,
        );
        drop(made.unwrap());
    }
    let layer = written(&stack.lowers(), &stack.with("upper"));
    assert_eq!(listing(&layer).len(), 2 * 1900);
}

/// A small generator: the same numbers in each run.
struct Random {
    state: u64,
    /// Not in lower layers: an overlay takes the names of one file apart when it copies one of them up,
    /// and a layer that does not have the copy, as nothing else changed, leaves them together.
    links: bool,
}

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        usize::try_from(self.state % limit as u64).unwrap()
    }

    /// A path of few names, so that everything happens to the same ones.
    fn path(&mut self, root: &Path) -> PathBuf {
        let mut path = root.to_owned();
        for _ in 0..=self.below(3) {
            path.push(["a", "b", "c", "d"][self.below(4)]);
        }
        path
    }

    /// Anything that may happen; much of it fails, as there is no such file or parent.
    fn act(&mut self, root: &Path) {
        let (path, other) = (self.path(root), self.path(root));
        let linked = |path: &Path| fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir());
        let _ = match self.below(14) {
            0..=2 => fs::create_dir(&path),
            3..=5 if !path.is_symlink() => fs::write(&path, ["", "x", "y"][self.below(3)]),
            6 => symlink("a", &path),
            7 => fs::remove_file(&path),
            8 => fs::remove_dir_all(&path),
            9 => fs::rename(&path, &other),
            10 if self.links && linked(&path) => fs::hard_link(&path, &other),
            11 if !path.is_symlink() && path.exists() => {
                chmod(&path, [0o644, 0o755, 0o700][self.below(3)]);
                Ok(())
            }
            12 => std::os::unix::fs::lchown(&path, Some(7), Some(8)),
            13 if path.is_file() && !path.is_symlink() => {
                set_xattr(&path, "user.x", ["1", "2"][self.below(2)].as_bytes());
                Ok(())
            }
            _ => Ok(()),
        };
        // Often enough the time says nothing.
        if self.below(2) == 0 && fs::symlink_metadata(&path).is_ok() {
            age(&path, OLD);
        }
    }
}

/// What containerd does: it walks two mounts and compares them, and knows nothing of overlay's marks.
#[test]
fn random_changes_come_back_and_are_those_that_the_kernel_shows() {
    for seed in 1..=60u64 {
        let mut random = Random {
            state: 0x9e37_79b9_7f4a_7c15 ^ (seed << 32),
            links: false,
        };
        let stack = Stack::new(|bottom, nearer| {
            for root in [bottom, nearer] {
                (0..40).for_each(|_| random.act(root));
            }
        });
        random.links = true;
        stack.change(|root| (0..60).for_each(|_| random.act(root)));
        let layer = stack.diff();
        let lowers = format!("{}:{}", stack.at("1").display(), stack.at("0").display());
        fs::create_dir(stack.at("below")).unwrap();
        let below = Mounted::new(stack.at("below"), &format!("lowerdir={lowers}"));
        let lowers = format!("lowerdir={}:{lowers}", stack.at("upper").display());
        let above = Mounted::new(stack.at("mnt"), &lowers);
        let (left, right) = (Dir::open(&below.0).unwrap(), Dir::open(&above.0).unwrap());
        let compared = written(&[left], &[right]);
        assert_eq!(listing(&layer), listing(&compared), "seed {seed}");
        assert!(layer == compared, "seed {seed}");
        drop((below, above));
        // A directory in which something came and went has another time, and nothing else.
        stack.check_round_trip_with(false);
    }
}
