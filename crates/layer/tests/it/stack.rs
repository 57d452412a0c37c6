//! Two lower layers and an upper one, mounted, changed and compared.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use cairn_layer::{
    Options, adopt, apply,
    diff::{self, diff},
    tar::{self, EntryKind, Limits},
};
use cairn_sys::Dir;
use cairn_types::Digest;
use rustix::fs::{FileType, Timespec, Timestamps, XattrFlags};

pub(crate) const OLD: i64 = 1_577_934_245;

/// Two lower layers, an upper one, and where they are mounted.
pub(crate) struct Stack {
    tmp: tempfile::TempDir,
}

impl Stack {
    /// `fill` makes the lower layers: `0` at the bottom and `1`.
    pub(crate) fn new(fill: impl FnOnce(&Path, &Path)) -> Stack {
        let stack = Stack {
            tmp: tempfile::tempdir().unwrap(),
        };
        for name in ["0", "1", "upper", "work", "again", "mnt"] {
            fs::create_dir(stack.at(name)).unwrap();
        }
        fill(&stack.at("0"), &stack.at("1"));
        stack
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.tmp.path().join(name)
    }

    pub(crate) fn dir(&self, name: &str) -> Dir {
        Dir::open(&self.at(name)).unwrap()
    }

    pub(crate) fn lowers(&self) -> Vec<Dir> {
        vec![self.dir("1"), self.dir("0")]
    }

    pub(crate) fn with(&self, upper: &str) -> Vec<Dir> {
        [vec![self.dir(upper)], self.lowers()].concat()
    }

    /// Works on the mounted stack.
    pub(crate) fn change(&self, change: impl FnOnce(&Path)) -> &Stack {
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
    pub(crate) fn seen(&self, upper: &str, dir_times: bool) -> BTreeMap<PathBuf, String> {
        let options = format!(
            "lowerdir={}:{}:{}",
            self.at(upper).display(),
            self.at("1").display(),
            self.at("0").display()
        );
        let mounted = Mounted::new(self.at("mnt"), &options);
        tree(&mounted.0, dir_times)
    }

    pub(crate) fn diff(&self) -> Vec<u8> {
        written(&self.lowers(), &self.with("upper"))
    }

    /// Unpacks the difference on the same lower layers and compares what is seen.
    #[track_caller]
    pub(crate) fn check_round_trip(&self) {
        self.check_round_trip_with(true);
    }

    /// `dir_times` says whether times of directories are compared.
    #[track_caller]
    pub(crate) fn check_round_trip_with(&self, dir_times: bool) {
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

pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn new(target: PathBuf, options: &str) -> Mounted {
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
    /// A process that another test is about to start has all our descriptors until it is another program,
    /// and the mount is busy for that long.
    fn drop(&mut self) {
        let unmount = || {
            let mut command = Command::new("umount");
            command.arg(&self.0).status().unwrap().success()
        };
        let mut tries = 0;
        while !unmount() {
            tries += 1;
            assert!(tries < 100, "{} stays mounted", self.0.display());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn written(left: &[Dir], right: &[Dir]) -> Vec<u8> {
    let mut out = Vec::new();
    diff(left, right, &diff::Options::default(), &mut out).unwrap();
    out
}

/// Path, type and what is special of each entry.
pub(crate) fn listing(layer: &[u8]) -> Vec<String> {
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
pub(crate) fn tree(root: &Path, dir_times: bool) -> BTreeMap<PathBuf, String> {
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

pub(crate) fn xattrs(path: &Path) -> Vec<(String, String)> {
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

pub(crate) fn set_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

/// A file of the past.
pub(crate) fn file(root: &Path, path: &str, text: &str) {
    fs::write(root.join(path), text).unwrap();
    age(&root.join(path), OLD);
}

pub(crate) fn dir(root: &Path, path: &str) {
    fs::create_dir_all(root.join(path)).unwrap();
}

pub(crate) fn age(path: &Path, seconds: i64) {
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

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What most tests begin with.
pub(crate) fn some(bottom: &Path, nearer: &Path) {
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
