//! Whole trees as they lie on disk, and how two of them differ.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    fmt::Write as _,
    fs,
    io::{ErrorKind, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

/// Longer files are shown by their digest.
const SHOWN_BYTES_MAX: usize = 40;

/// Every name below a directory, itself as the empty path, with everything that a layer can set.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, Node>);

/// One name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// `file`, `dir`, `link`, `char`, `block`, `fifo`, `socket`; `ghost` if it is listed and not there.
    pub kind: &'static str,
    /// All twelve bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, i64),
    /// Of devices.
    pub rdev: u64,
    /// A file's bytes, escaped, or its size and digest when it is longer than a line; target of a link.
    pub content: String,
    /// All but overlay's own.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// The first name, in order, of the same inode.
    pub first_link: PathBuf,
}

impl Tree {
    /// Reads the tree at `root`, without following links or crossing into other mounts below.
    pub fn read(root: &Path) -> Tree {
        let mut names = vec![PathBuf::new()];
        collect(root, Path::new(""), &mut names);
        names.sort();
        let mut first = HashMap::new();
        let nodes = names.into_iter().map(|name| {
            let path = root.join(&name);
            let meta = match fs::symlink_metadata(&path) {
                Ok(meta) => meta,
                Err(err) if err.kind() == ErrorKind::NotFound => return (name, Node::ghost()),
                Err(err) => panic!("stat {}: {err}", path.display()),
            };
            let inode = (meta.dev(), meta.ino());
            let first_link = match meta.is_dir() {
                true => name.clone(),
                false => first.entry(inode).or_insert_with(|| name.clone()).clone(),
            };
            (name, node(&path, &meta, first_link))
        });
        Tree(nodes.collect())
    }

    /// Changes what is known to differ before a comparison; `false` drops the name.
    pub fn retain(&mut self, mut keep: impl FnMut(&Path, &mut Node) -> bool) {
        self.0.retain(|path, node| keep(path, node));
    }

    /// The node at `path`.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(Path::new(path))
    }

    /// A line for each name, for trees written down by hand: kind, path and mode, then only what is
    /// not ordinary. Ordinary are owner 0:0, the time [`MTIME`](crate::image::MTIME), one name for an
    /// inode, and a root directory of mode 0755, which gets no line. As in
    ///
    /// ```text
    /// dir d 2750 5:6
    /// file d/f 0644 = content @1.500000000 user.note=a=b
    /// link l 0777 -> ../d/f
    /// file z 0644 = content same as d/f
    /// char null 0666 1:3
    /// ```
    pub fn lines(&self) -> Vec<String> {
        let lines = self.0.iter().map(|(path, node)| node.line(path));
        lines.filter(|line| line != "dir . 0755").collect()
    }

    /// How many names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether not even the root is there.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A line for each difference; empty when the trees are equal.
    pub fn diff(&self, other: &Tree) -> String {
        let mut out = String::new();
        let names: std::collections::BTreeSet<_> = self.0.keys().chain(other.0.keys()).collect();
        for name in names {
            let (left, right) = (self.0.get(name), other.0.get(name));
            if left != right {
                let _ = writeln!(out, "{}:\n  {left:?}\n  {right:?}", name.display());
            }
        }
        out
    }

    /// Panics with the first differences when the trees are not equal.
    #[track_caller]
    pub fn assert_equals(&self, other: &Tree, what: &str) {
        let diff = self.diff(other);
        let lines: Vec<&str> = diff.lines().take(60).collect();
        assert!(
            diff.is_empty(),
            "{what} differ ({} lines):\n{}",
            diff.lines().count(),
            lines.join("\n")
        );
    }
}

impl Node {
    fn ghost() -> Node {
        Node {
            kind: "ghost",
            mode: 0,
            owner: (0, 0),
            mtime: (0, 0),
            rdev: 0,
            content: String::new(),
            xattrs: BTreeMap::new(),
            first_link: PathBuf::new(),
        }
    }

    fn line(&self, path: &Path) -> String {
        let name = match path.as_os_str().as_bytes() {
            b"" => ".".to_owned(),
            bytes => bytes.escape_ascii().to_string(),
        };
        if self.kind == "ghost" {
            return format!("ghost {name}");
        }
        let mut line = format!("{} {name} {:04o}", self.kind, self.mode);
        if self.owner != (0, 0) {
            let _ = write!(line, " {}:{}", self.owner.0, self.owner.1);
        }
        match self.kind {
            "file" => line.extend([" = ", &self.content]),
            "link" => line.extend([" -> ", &self.content]),
            "char" | "block" => {
                let (major, minor) = (rustix::fs::major(self.rdev), rustix::fs::minor(self.rdev));
                let _ = write!(line, " device {major}:{minor}");
            }
            _ => {}
        }
        let ordinary = i64::try_from(crate::image::MTIME).expect("small");
        if self.mtime != (ordinary, 0) {
            let _ = write!(line, " @{}.{:09}", self.mtime.0, self.mtime.1);
        }
        for (name, value) in &self.xattrs {
            let _ = write!(line, " {name}={}", value.escape_ascii());
        }
        if self.first_link != path {
            let first = self.first_link.as_os_str().as_bytes().escape_ascii();
            let _ = write!(line, " same as {first}");
        }
        line
    }
}

fn collect(root: &Path, below: &Path, names: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(root.join(below)).expect("list");
    for entry in entries {
        let entry = entry.expect("entry");
        let name = below.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            collect(root, &name, names);
        }
        names.push(name);
    }
}

fn node(path: &Path, meta: &fs::Metadata, first_link: PathBuf) -> Node {
    let kind = meta.file_type();
    let (kind, content) = match () {
        () if kind.is_dir() => ("dir", String::new()),
        () if kind.is_symlink() => {
            let target = fs::read_link(path).expect("read link");
            (
                "link",
                target.as_os_str().as_bytes().escape_ascii().to_string(),
            )
        }
        () if kind.is_char_device() => ("char", String::new()),
        () if kind.is_block_device() => ("block", String::new()),
        () if kind.is_fifo() => ("fifo", String::new()),
        () if kind.is_socket() => ("socket", String::new()),
        () => ("file", content(path)),
    };
    Node {
        kind,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        rdev: meta.rdev(),
        content,
        xattrs: xattrs(path),
        first_link,
    }
}

fn content(path: &Path) -> String {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|mut f| f.read_to_end(&mut bytes))
        .expect("read");
    if bytes.len() <= SHOWN_BYTES_MAX {
        return bytes.escape_ascii().to_string();
    }
    format!("{} bytes {}", bytes.len(), crate::image::digest(&bytes))
}

fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0_u8; 64 << 10];
    let length = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    list[..length]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"trusted.overlay."))
        .map(|name| {
            let mut value = vec![0_u8; 64 << 10];
            let read = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]);
            value.truncate(read.expect("read attribute"));
            (String::from_utf8_lossy(name).into_owned(), value)
        })
        .collect()
}
