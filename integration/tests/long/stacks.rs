//! Random stacks of layers: whiteouts, opaque directories, implied parents, type changes, hard links.
//!
//! Cairn unpacks layers side by side, each before its parents are there. Whatever the stack, the
//! mounted tree must be the one that a model gets by applying the layers one after the other to a map
//! in memory, by the sentences of the image-spec and nothing of Cairn's.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use cairn_integration::{
    cairn::Cairn,
    image::{Layer, Layout, MTIME, Packing},
};
use serde_json::json;
use tar::EntryType;

#[derive(Clone, Debug)]
enum What {
    Dir,
    File(String),
    Symlink,
    /// To a file of the same layer.
    Hard(String),
    Whiteout,
    Opaque,
}

#[derive(Clone, Debug)]
struct Step {
    path: String,
    what: What,
    mode: u32,
    owner: u64,
    mtime: u64,
}

/// What a name is and carries; hard links share `inode`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    dir: bool,
    content: Option<String>,
    mode: u32,
    owner: u64,
    mtime: u64,
    inode: usize,
}

#[derive(Default)]
struct Model {
    nodes: BTreeMap<String, Node>,
    inodes: usize,
}

fn below(outer: &str, inner: &str) -> bool {
    outer.is_empty() && !inner.is_empty()
        || inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.starts_with('/'))
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl Model {
    fn apply(&mut self, layer: &[Step]) {
        // > Whiteout files MUST only apply to resources in lower/parent layers.
        for step in layer {
            match step.what {
                What::Whiteout => self.remove(&step.path),
                What::Opaque => self.nodes.retain(|path, _| !below(&step.path, path)),
                _ => {}
            }
        }
        for step in layer {
            match &step.what {
                What::Whiteout | What::Opaque => {}
                What::Hard(target) => {
                    self.imply(parent(&step.path), layer);
                    let node = self.nodes[target].clone();
                    self.remove(&step.path);
                    self.nodes.insert(step.path.clone(), node);
                }
                what => self.set(step, what, layer),
            }
        }
    }

    fn set(&mut self, step: &Step, what: &What, layer: &[Step]) {
        self.imply(parent(&step.path), layer);
        let dir = matches!(what, What::Dir);
        let content = match what {
            What::File(text) => Some(text.clone()),
            _ => None,
        };
        if !dir || self.nodes.get(&step.path).is_some_and(|node| !node.dir) {
            self.remove(&step.path);
        }
        self.inodes += 1;
        let mode = if matches!(what, What::Symlink) {
            0o777
        } else {
            step.mode
        };
        let (owner, mtime, inode) = (step.owner, step.mtime, self.inodes);
        self.nodes.insert(
            step.path.clone(),
            Node {
                dir,
                content,
                mode,
                owner,
                mtime,
                inode,
            },
        );
    }

    fn remove(&mut self, path: &str) {
        self.nodes
            .retain(|other, _| other != path && !below(path, other));
    }

    /// A directory that no entry lists: as it is below, or else root's own, as old as the first entry
    /// that names it on its way.
    fn imply(&mut self, path: &str, layer: &[Step]) {
        if path.is_empty() || self.nodes.get(path).is_some_and(|node| node.dir) {
            return;
        }
        self.imply(parent(path), layer);
        let first = layer.iter().find(|step| below(path, &step.path));
        let mtime = first.expect("something needs it").mtime;
        self.remove(path);
        self.inodes += 1;
        let inode = self.inodes;
        let node = Node {
            dir: true,
            content: None,
            mode: 0o755,
            owner: 0,
            mtime,
            inode,
        };
        self.nodes.insert(path.to_owned(), node);
    }

    /// Comparable: each inode named by its first path.
    fn listing(&self) -> Vec<String> {
        let mut first = BTreeMap::new();
        let lines = self.nodes.iter().map(|(path, node)| {
            let link = first.entry(node.inode).or_insert(path);
            let kind = if node.dir {
                "dir"
            } else if node.content.is_some() {
                "file"
            } else {
                "link"
            };
            line(
                path,
                kind,
                node.mode,
                node.owner,
                node.mtime,
                node.content.as_deref(),
                link,
            )
        });
        lines.collect()
    }
}

fn line(
    path: &str,
    kind: &str,
    mode: u32,
    owner: u64,
    mtime: u64,
    content: Option<&str>,
    link: &str,
) -> String {
    format!(
        "{path} {kind} {mode:o} {owner} {mtime} {} ={link}",
        content.unwrap_or("-")
    )
}

/// The mounted tree in the model's words.
fn read(root: &Path) -> Vec<String> {
    let mut names = Vec::new();
    list(root, "", &mut names);
    names.sort();
    let mut first = BTreeMap::new();
    let lines = names.iter().map(|name| {
        let path = root.join(name);
        let Ok(meta) = fs::symlink_metadata(&path) else {
            return format!("{name} is listed and not there");
        };
        let kind = match () {
            () if meta.is_dir() => "dir",
            () if meta.is_symlink() => "link",
            () => "file",
        };
        let content = meta
            .is_file()
            .then(|| fs::read_to_string(&path).expect("read"));
        let key = if meta.is_dir() {
            (0, name.len() as u64)
        } else {
            (1, meta.ino())
        };
        let link = if meta.is_dir() {
            name
        } else {
            first.entry(key).or_insert(name)
        };
        let mtime = u64::try_from(meta.mtime()).expect("after 1970");
        let (mode, owner) = (meta.mode() & 0o7777, u64::from(meta.uid()));
        line(name, kind, mode, owner, mtime, content.as_deref(), link)
    });
    lines.collect()
}

fn list(root: &Path, below: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).expect("list") {
        let entry = entry.expect("entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        if entry.file_type().expect("type").is_dir() {
            list(root, &path, names);
        }
        names.push(path);
    }
}

/// Small numbers that are the same in every run (Marsaglia's xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let index = usize::try_from(self.roll(from.len() as u64)).expect("small");
        from[index].clone()
    }

    fn path(&mut self) -> String {
        let parts: Vec<&str> = (0..=self.roll(3))
            .map(|_| self.pick(&["a", "b", "c"]))
            .collect();
        parts.join("/")
    }

    /// A layer of at most nine entries, mostly without the directories they lie in. Within one layer
    /// a name has one meaning; what two meanings do is told by other tests, entry by entry.
    fn layer(&mut self) -> Vec<Step> {
        let mut layer: Vec<Step> = Vec::new();
        for _ in 0..2 + self.roll(8) {
            let path = self.path();
            let files: Vec<String> = layer
                .iter()
                .filter(|s| matches!(s.what, What::File(_)))
                .map(|s| s.path.clone())
                .collect();
            let mtime = MTIME + self.roll(1000);
            let what = match self.roll(12) {
                0..=3 => What::File(format!("{mtime}")),
                4 | 5 => What::Dir,
                6 => What::Symlink,
                7 | 8 if !files.is_empty() => What::Hard(self.pick(&files)),
                9 => What::Opaque,
                _ => What::Whiteout,
            };
            let directory = |s: &Step| matches!(s.what, What::Dir | What::Opaque);
            let mine = matches!(what, What::Dir | What::Opaque);
            let clash = layer.iter().any(|s| {
                s.path == path
                    || below(&s.path, &path) && !directory(s)
                    || below(&path, &s.path) && !mine
            });
            if clash {
                continue;
            }
            let (mode, owner) = (self.pick(&[0o700, 0o755, 0o750]), self.roll(3) * 1000);
            if matches!(what, What::Opaque) {
                // The directory itself is listed, as every writer of opaque marks does.
                let dir = Step {
                    path: path.clone(),
                    what: What::Dir,
                    mode,
                    owner,
                    mtime,
                };
                layer.push(dir);
            }
            layer.push(Step {
                path,
                what,
                mode,
                owner,
                mtime,
            });
        }
        layer
    }
}

fn tar(layer: &[Step]) -> Vec<u8> {
    let mut out = Layer::new().dir("./", 0o755);
    for step in layer {
        let path = step.path.as_str();
        let (up, name) = path
            .rsplit_once('/')
            .map_or((String::new(), path), |(p, n)| (format!("{p}/"), n));
        let header = |kind| Layer::header(kind, step.mode, step.owner, step.owner, step.mtime);
        out = match &step.what {
            What::Dir => out.entry(&format!("{path}/"), header(EntryType::Directory), b""),
            What::File(text) => out.entry(path, header(EntryType::Regular), text.as_bytes()),
            What::Symlink => {
                let mut header = header(EntryType::Symlink);
                out.builder()
                    .append_link(&mut header, path, "nowhere")
                    .expect("link");
                out
            }
            What::Hard(target) => {
                let mut header = header(EntryType::Link);
                out.builder()
                    .append_link(&mut header, path, target)
                    .expect("link");
                out
            }
            What::Whiteout => {
                out.entry(&format!("{up}.wh.{name}"), header(EntryType::Regular), b"")
            }
            What::Opaque => out.entry(
                &format!("{path}/.wh..wh..opq"),
                header(EntryType::Regular),
                b"",
            ),
        };
    }
    out.finish()
}

fn check(cairn: &Cairn, seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let stack: Vec<Vec<Step>> = (0..2 + dice.roll(4)).map(|_| dice.layer()).collect();
    let mut model = Model::default();
    for layer in &stack {
        model.apply(layer);
    }
    let layers: Vec<_> = stack
        .iter()
        .map(|layer| (tar(layer), Packing::Plain))
        .collect();
    let layout: PathBuf = cairn.path(&format!("layout-{seed}"));
    Layout::create(&layout).image("one", &layers, &json!({}));
    let target = cairn.path(&format!("mnt-{seed}"));
    fs::create_dir(&target).expect("target");
    let (name, target_text) = (format!("localhost/s{seed}"), target.display().to_string());
    cairn.ok(&[
        "images",
        "import",
        "--base-name",
        &name,
        &layout.display().to_string(),
    ]);
    cairn.ok(&["images", "mount", &format!("{name}:one"), &target_text]);
    let actual = read(&target);
    cairn.ok(&["images", "unmount", &target_text]);
    let expected = model.listing();
    assert!(
        actual == expected,
        "seed {seed}: the mounted tree\n  {}\nis not the model's\n  {}\nfor the layers\n{stack:#?}",
        actual.join("\n  "),
        expected.join("\n  ")
    );
}

#[test]
fn random_stacks_are_as_if_unpacked_one_after_the_other() {
    let cairn = Cairn::new();
    for seed in 1..=150 {
        check(&cairn, seed);
    }
}
