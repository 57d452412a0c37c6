//! The same `ctr` against cairnd and against containerd: the same commands print the same.

use std::path::{Path, PathBuf};

use serde_json::json;
use tar::EntryType;
use tempfile::TempDir;

use crate::{
    daemon::Daemon,
    image::{Layer, Layout, Packing},
    peers::{self, Containerd},
};

/// What [`Both::import`] names its image.
pub const NAME: &str = "localhost/t:one";

/// Both daemons, and an archive for them.
pub struct Both {
    /// cairnd.
    pub ours: Daemon,
    /// containerd.
    pub theirs: Containerd,
    /// Beside both.
    pub work: TempDir,
}

impl Default for Both {
    fn default() -> Both {
        Both::start()
    }
}

impl Both {
    /// Starts both.
    pub fn start() -> Both {
        Both {
            ours: Daemon::start(),
            theirs: Containerd::start(),
            work: TempDir::new().expect("temporary directory"),
        }
    }

    /// The same command for both; what both print, each line without what `keep` leaves out.
    #[track_caller]
    pub fn same_but(&self, arguments: &[&str], keep: impl Fn(&str) -> String) -> Vec<String> {
        let lines = |text: String| text.lines().map(&keep).collect::<Vec<_>>();
        let ours = lines(self.ours.ok(arguments));
        let theirs = lines(self.theirs.ok(arguments));
        assert_eq!(ours, theirs, "ctr {arguments:?}: cairnd, containerd");
        ours
    }

    /// The same command prints the same, but for the widths of columns.
    #[track_caller]
    pub fn same(&self, arguments: &[&str]) -> Vec<String> {
        self.same_but(arguments, words)
    }

    /// The same command fails for both, with these words.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str], because: &str) {
        for answer in [self.ours.attempt(arguments), self.theirs.attempt(arguments)] {
            let said = answer.expect_err("refused");
            assert!(said.contains(because), "ctr {arguments:?}: {said}");
        }
    }

    /// Has `ctr` import the image into both, and lets both collect what that leaves; the archive.
    pub fn import(&self) -> PathBuf {
        let archive = archive(self.work.path(), &layers());
        let import = [
            "images",
            "import",
            "--base-name",
            "localhost/t",
            text(&archive),
        ];
        self.ours.ok(&import);
        self.theirs.ok(&import);
        self.same_but(&["leases", "create", "--id", "collect"], |_| String::new());
        self.same(&["leases", "rm", "--sync", "collect"]);
        archive
    }
}

/// A line without the widths of its columns.
pub fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The first so many words of a line.
pub fn first(count: usize) -> impl Fn(&str) -> String {
    move |line| {
        let words = line.split_whitespace().take(count);
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A path for an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Three layers: what is hidden, replaced and linked among them.
pub fn layers() -> Vec<(Vec<u8>, Packing)> {
    let base = Layer::new()
        .dir("d/", 0o755)
        .file("d/one", b"1")
        .file("d/two", b"2")
        .dir("gone/", 0o700)
        .file("gone/x", b"x")
        .dir("fresh/", 0o755)
        .file("fresh/old", b"old")
        .file("f", b"base")
        .hard_link("hard", "f")
        .link(EntryType::Symlink, "soft", "../f");
    let middle = Layer::new()
        .dir("d/", 0o2750)
        .file("d/.wh.one", b"")
        .file(".wh.gone", b"")
        .dir("fresh/", 0o711)
        .file("fresh/.wh..wh..opq", b"")
        .file("fresh/new", b"new");
    let header = Layer::header(EntryType::Regular, 0o4755, 1000, 100, 1_500_000_000);
    let top = Layer::new()
        .entry("suid", header, b"#!")
        .file("f", b"over")
        .file("d/three", &vec![b'3'; 100_000]);
    vec![
        (base.finish(), Packing::Gzip),
        (middle.finish(), Packing::Plain),
        (top.finish(), Packing::Zstd),
    ]
}

/// The archive of a layout with these layers as [`NAME`].
pub fn archive(work: &Path, layers: &[(Vec<u8>, Packing)]) -> PathBuf {
    let layout = work.join("layout");
    Layout::create(&layout).image("one", layers, &json!({ "Cmd": ["/suid"] }));
    let out = work.join("archive.tar");
    let parts = ["blobs", "index.json", "oci-layout"];
    let arguments = ["-C", text(&layout), "-cf", text(&out)];
    peers::run("tar", &[&arguments[..], &parts].concat());
    out
}
