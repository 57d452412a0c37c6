//! One layer or a few, as a case: what Cairn makes of them beside a tree written down by hand, and
//! beside what umoci and containerd make of the same layout.
//!
//! A peer that differs is told so line by line, so that the test fails on the day it changes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    cairn::Cairn,
    image::{Layout, Packing},
    peers::{self, Containerd},
    tree::Tree,
    wait,
};

/// What a peer makes of a case.
#[derive(Clone, Copy, Debug)]
pub enum Peer<'a> {
    /// The same tree.
    Same,
    /// Another tree: `-` before lines of ours that it lacks, `+` before its own.
    Differs(&'a [&'a str]),
    /// This tree, where we refuse.
    Tree(&'a [&'a str]),
    /// An error that has these words.
    Fails(&'a str),
}

/// A layout with one image and an empty store.
pub struct Case {
    /// The store.
    pub cairn: Cairn,
    layout: PathBuf,
    ours: Option<Vec<String>>,
}

impl Case {
    /// An image of one plain layer.
    pub fn new(tar: Vec<u8>) -> Case {
        Case::stack(&[(tar, Packing::Plain)])
    }

    /// An image of several layers, the lowest first.
    pub fn stack(layers: &[(Vec<u8>, Packing)]) -> Case {
        Case::layout(|layout| {
            layout.image("one", layers, &json!({}));
        })
    }

    /// A layout that `fill` puts an image named `one` into.
    pub fn layout(fill: impl FnOnce(&mut Layout)) -> Case {
        let cairn = Cairn::new();
        let layout = cairn.path("layout");
        fill(&mut Layout::create(&layout));
        let ours = None;
        Case {
            cairn,
            layout,
            ours,
        }
    }

    /// Imports and mounts the image and expects exactly this tree, in the words of
    /// [`Tree::lines`].
    #[track_caller]
    pub fn unpacks(mut self, tree: &[&str]) -> Case {
        let lines = Tree::read(&self.mount()).lines();
        assert_eq!(lines, tree, "cairn's tree");
        self.ours = Some(lines);
        self
    }

    /// Imports and mounts the image; returns where.
    #[track_caller]
    pub fn mount(&self) -> PathBuf {
        self.cairn.ok(&self.import());
        let root = self.root();
        fs::create_dir(&root).expect("target");
        let target = root.display().to_string();
        self.cairn
            .ok(&["images", "mount", "localhost/t:one", &target]);
        root
    }

    /// Expects the import to fail with the entry's name, the offset of its first header and the
    /// reason, and to leave nothing.
    #[track_caller]
    pub fn refused(self, entry: &str, offset: usize, reason: &str) -> Case {
        let stderr = self.cairn.fails(&self.import());
        let place = format!("\"{entry}\" at byte {offset}");
        for words in [&place, reason] {
            assert!(stderr.contains(words), "no {words:?} in\n{stderr}");
        }
        self.nothing_is_left();
        self
    }

    /// Expects the import to fail with these words and to leave nothing.
    #[track_caller]
    pub fn fails(self, words: &[&str]) -> Case {
        let stderr = self.cairn.fails(&self.import());
        for words in words {
            assert!(stderr.contains(words), "no {words:?} in\n{stderr}");
        }
        self.nothing_is_left();
        self
    }

    /// What umoci makes of it.
    #[track_caller]
    pub fn umoci(self, expected: Peer<'_>) -> Case {
        let bundle = self.cairn.path("umoci");
        let actual = peers::umoci_try_unpack(&self.layout, "one", &bundle);
        self.compare("umoci", actual.map(|root| Tree::read(&root)), expected);
        self
    }

    /// What containerd makes of it.
    #[track_caller]
    pub fn containerd(self, expected: Peer<'_>) -> Case {
        let archive = self.archive().display().to_string();
        let target = self.cairn.path("ctr").display().to_string();
        fs::create_dir(&target).expect("target");
        let containerd = Containerd::start();
        let import = ["images", "import", "--base-name", "localhost/t", &archive];
        let mount = ["images", "mount", "localhost/t:one", &target];
        let actual = containerd
            .attempt(&import)
            .and_then(|_| containerd.attempt(&mount))
            .map(|_| Tree::read(Path::new(&target)));
        if actual.is_ok() {
            containerd.ok(&["images", "unmount", &target]);
        }
        self.compare("containerd", actual, expected);
        self
    }

    /// Where the image is mounted by [`unpacks`](Case::unpacks) and [`mount`](Case::mount).
    pub fn root(&self) -> PathBuf {
        self.cairn.path("mnt")
    }

    /// The layout as an archive.
    pub fn archive(&self) -> PathBuf {
        archive(&self.layout, &self.cairn.path("archive.tar"))
    }

    fn import(&self) -> [&str; 5] {
        [
            "images",
            "import",
            "--base-name",
            "localhost/t",
            text(&self.layout),
        ]
    }

    #[track_caller]
    fn compare(&self, who: &str, actual: Result<Tree, String>, expected: Peer<'_>) {
        let (theirs, expected) = match (actual, expected) {
            (Err(stderr), Peer::Fails(words)) => {
                assert!(stderr.contains(words), "{who} fails with {stderr}");
                return;
            }
            (Err(stderr), _) => panic!("{who} fails with {stderr}"),
            (Ok(tree), Peer::Fails(_)) => panic!("{who} unpacks {:#?}", tree.lines()),
            (Ok(tree), Peer::Tree(lines)) => (masked(&tree, who), owned(lines)),
            (Ok(tree), Peer::Same) => (self.difference(&tree, who), Vec::new()),
            (Ok(tree), Peer::Differs(lines)) => (self.difference(&tree, who), owned(lines)),
        };
        assert_eq!(theirs, expected, "{who}'s tree");
    }

    fn difference(&self, theirs: &Tree, who: &str) -> Vec<String> {
        let ours = self.ours.as_ref().expect("unpacks() comes first");
        let theirs = masked(theirs, who);
        let lacks = ours.iter().filter(|line| !theirs.contains(line));
        let adds = theirs.iter().filter(|line| !ours.contains(line));
        lacks
            .map(|line| format!("- {line}"))
            .chain(adds.map(|line| format!("+ {line}")))
            .collect()
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        nothing_is_left(&self.cairn);
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// The names and digests of all images in a store, sorted by name.
pub fn listed(cairn: &Cairn) -> Vec<(String, String)> {
    let images = cairn.ok(&["images", "ls", "--json"]);
    let images: Value = serde_json::from_str(&images).expect("JSON");
    let images = images.as_array().expect("list").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    images
        .map(|image| (text(&image["name"]), text(&image["target"]["digest"])))
        .collect()
}

/// Expects no image, no blob and no snapshot in a store.
#[track_caller]
pub fn nothing_is_left(cairn: &Cairn) {
    assert_eq!(cairn.ok(&["-q", "images", "ls"]), "", "an image is left");
    let store = cairn.path("store");
    assert_eq!(files(&store.join("content/blobs")), 0, "a blob is left");
    assert_eq!(files(&store.join("content/ingest")), 0, "an ingest is left");
    // A daemon removes them behind its answer.
    let left = || -> Vec<_> {
        let snapshots = fs::read_dir(store.join("snapshots")).expect("snapshots");
        let names = snapshots.map(|entry| entry.expect("entry").file_name());
        names.filter(|name| name != "trash").collect()
    };
    wait::until(
        || left().is_empty(),
        || format!("snapshots are left: {:?}", left()),
    );
}

fn files(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let paths = entries.map(|entry| entry.expect("entry").path());
    paths
        .map(|path| if path.is_dir() { files(&path) } else { 1 })
        .sum()
}

/// Packs a layout as GNU tar does, in the order of its names.
pub fn archive(layout: &Path, out: &Path) -> PathBuf {
    let (layout, text) = (layout.display().to_string(), out.display().to_string());
    peers::run("tar", &["-C", &layout, "--sort=name", "-cf", &text, "."]);
    out.to_path_buf()
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// Lines with the times of the unpacking itself made comparable.
///
/// > an entry resolving to the root itself is skipped (containerd `pkg/archive/tar.go`)
///
/// so containerd's root always has the time of its unpacking, and is left out when nothing else is
/// odd about it.
fn masked(tree: &Tree, who: &str) -> Vec<String> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    let mask = |line: String| {
        let Some((before, after)) = line.split_once(" @") else {
            return line;
        };
        let end = after.find(' ').unwrap_or(after.len());
        let (time, rest) = after.split_at(end);
        let secs = time.split('.').next().and_then(|secs| secs.parse().ok());
        match secs {
            Some(secs) if now.as_secs().abs_diff(secs) < 3600 => format!("{before} @now{rest}"),
            _ => line,
        }
    };
    let lines = tree.lines().into_iter().map(mask);
    lines
        .filter(|line| who != "containerd" || line != "dir . 0755 @now")
        .collect()
}
