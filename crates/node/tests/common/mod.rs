//! Images made by hand and by other tools, and a store to put them into.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use cairn_node::{
    EngineKind, Failure, ImportRequest, Imported, MountOrder, Node, NodeOptions, Silent, Source,
};
use cairn_types::{Digest, ErrorKind, HostDir, ImageName, Namespace};
use serde_json::{Value, json};

pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A store of its own, gone at the end of the test.
pub struct Store {
    pub dir: Scratch,
    pub node: Node,
    pub ns: Namespace,
}

/// A temporary directory in which a test that failed leaves no mount behind.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mounts = cairn_sys::mount::mounts_below(self.path()).unwrap_or_default();
        for mount in mounts.iter().rev() {
            let _ = cairn_sys::mount::unmount(&mount.mount_point);
        }
    }
}

pub fn scratch() -> Scratch {
    Scratch(tempfile::tempdir().expect("temporary directory"))
}

impl Store {
    pub fn new() -> Store {
        let dir = scratch();
        let node = open(&dir.path().join("root")).expect("open a new store");
        let ns = Namespace::parse("default").expect("namespace");
        Store { dir, node, ns }
    }

    pub fn import(&self, path: &Path) -> Result<Vec<Imported>, Failure> {
        self.import_with(Source::Path(path.to_owned()), |_| ())
    }

    pub fn import_with(
        &self,
        source: Source,
        change: impl FnOnce(&mut ImportRequest),
    ) -> Result<Vec<Imported>, Failure> {
        let mut request = ImportRequest::new(self.ns.clone(), source);
        change(&mut request);
        self.node.import(request, &Silent)
    }

    /// The files of the host's variant at `mnt` beside the store, read-only: what is there is what the
    /// store hands out, mounted as a client would.
    #[track_caller]
    pub fn mount(&self, name: &ImageName) -> PathBuf {
        let target = self.dir.path().join("mnt");
        fs::create_dir_all(&target).expect("mount point");
        let order = MountOrder {
            ns: self.ns.clone(),
            name: name.clone(),
            target: host_dir(&target),
            rw: false,
            expires: None,
            platform: None,
        };
        let prepared = self.node.prepare_mount(&order, &Silent).expect("prepare");
        cairn_sys::mount::perform(&prepared.mounts, &target).expect("mount");
        target
    }

    /// A program that another test starts has the files that are open here until its `exec`, those in
    /// `target` among them.
    #[track_caller]
    pub fn unmount(&self, target: &Path) {
        cairn_sys::mount::unmount_own(target).expect("unmount");
        let released = self.node.release_mount(&self.ns, &host_dir(target), false);
        released.expect("release");
    }

    /// Imports an image, removes it and collects, again and again for as long as others do something beside.
    pub fn turn_over(&self, path: &Path, going: impl Fn() -> bool) {
        while going() {
            let imported = self.import(path).expect("import");
            for image in imported {
                let removed = self.node.remove_image(&self.ns, &image.name, false);
                removed.expect("remove");
            }
            self.node.gc(false).expect("collect");
        }
    }

    /// Nothing at all is in the store.
    #[track_caller]
    pub fn assert_empty(&self) {
        let blobs = self.node.content().list(&self.ns).expect("blobs");
        let blobs: Vec<String> = blobs.iter().map(|b| b.digest.to_string()).collect();
        assert_eq!(blobs, Vec::<String>::new(), "blobs are left");
        let snapshots = self.node.snapshots().list(&self.ns).expect("snapshots");
        assert_eq!(snapshots.len(), 0, "snapshots are left");
        assert_eq!(
            self.node.images(&self.ns).expect("images"),
            [],
            "images are left"
        );
        let root = self.node.root();
        assert_eq!(
            files_below(&root.join("content/blobs")),
            0,
            "blob files are left"
        );
        assert_eq!(
            files_below(&root.join("content/ingest")),
            0,
            "ingests are left"
        );
        let names = |dir: &str| -> Vec<String> {
            let entries = fs::read_dir(root.join(dir)).expect("directory");
            let names = entries.map(|e| e.expect("entry").file_name().into_string());
            names.map(|name| name.expect("UTF-8")).collect()
        };
        self.node.snapshots().wait_removed();
        assert_eq!(
            names("snapshots"),
            ["trash"],
            "snapshot directories are left"
        );
        assert_eq!(
            names("snapshots/trash"),
            Vec::<String>::new(),
            "trash is left"
        );
    }
}

pub fn host_dir(path: &Path) -> HostDir {
    HostDir::parse(text(path)).expect("a directory")
}

pub fn open(root: &Path) -> Result<Node, Failure> {
    Node::open(NodeOptions::new(root.to_owned(), EngineKind::Redb))
}

/// Opens a store that this process has closed.
pub fn open_again(root: &Path) -> Node {
    soon(|| match open(root) {
        Err(failure) if failure.kind == ErrorKind::Unavailable => Err(failure),
        opened => Ok(opened.expect("open again")),
    })
}

/// What a process may hold up that another test is about to start: it has copies of all our descriptors
/// until it is another program, so that locks stay taken and removed files there for that long.
pub fn soon<T>(mut attempt: impl FnMut() -> Result<T, Failure>) -> T {
    let mut tries = 0;
    loop {
        match attempt() {
            Ok(done) => return done,
            Err(failure) => assert!(tries < 500, "{failure}"),
        }
        tries += 1;
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn files_below(dir: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .map(|entry| entry.expect("entry").path())
        .map(|path| if path.is_dir() { files_below(&path) } else { 1 })
        .sum()
}

/// Runs a program that must succeed, and returns what it printed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|err| panic!("{program}: {err}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8 path")
}

/// A tar of files given by path and content, made by GNU tar. A path that ends in `/` is a
/// directory; parents are not put in unless given.
pub fn tar(entries: &[(&str, &str)]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).expect("directory");
    let mut names = Vec::new();
    for (path, content) in entries {
        let place = tree.join(path);
        if path.ends_with('/') {
            fs::create_dir_all(&place).expect("directory");
        } else {
            fs::create_dir_all(place.parent().expect("parent")).expect("directory");
            fs::write(&place, content).expect("file");
        }
        names.push(*path);
    }
    let out = dir.path().join("out.tar");
    let mut arguments = vec!["--numeric-owner", "--owner=0", "--group=0", "--mtime=@0"];
    arguments.extend(["--no-recursion", "-cf", text(&out), "-C", text(&tree)]);
    arguments.extend(names);
    run("tar", &arguments);
    fs::read(out).expect("tar")
}

/// Packs bytes with a program that reads and writes a file.
pub fn pack(program: &str, bytes: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("x");
    fs::write(&path, bytes).expect("write");
    let mut command = Command::new(program);
    if program == "gzip" {
        // No time and no name, so that the same bytes are packed the same.
        command.arg("-n");
    }
    let output = command
        .arg("-c")
        .arg(&path)
        .output()
        .unwrap_or_else(|err| panic!("{program}: {err}"));
    assert!(output.status.success(), "{program}");
    output.stdout
}

/// An OCI layout being built.
pub struct Layout {
    pub dir: tempfile::TempDir,
    pub entries: Vec<Value>,
}

impl Layout {
    pub fn new() -> Layout {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(dir.path().join("blobs/sha256")).expect("directory");
        let version = r#"{"imageLayoutVersion":"1.0.0"}"#;
        fs::write(dir.path().join("oci-layout"), version).expect("write");
        Layout {
            dir,
            entries: Vec::new(),
        }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.path().join("blobs").join(digest.replace(':', "/"))
    }

    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes);
        fs::write(self.blob_path(&digest.to_string()), bytes).expect("write");
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    }

    pub fn json(&self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, &serde_json::to_vec(value).expect("JSON"))
    }

    /// An image of layers given as media type, stored bytes and plain tar.
    pub fn manifest(&self, platform: &str, layers: &[(&str, Vec<u8>, Vec<u8>)]) -> Value {
        let (os, architecture) = platform.split_once('/').expect("os/arch");
        let diff_ids = layers
            .iter()
            .map(|(_, _, plain)| Digest::sha256(plain).to_string());
        let config = json!({
            "architecture": architecture, "os": os, "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>()},
        });
        let layers = layers.iter().map(|(kind, bytes, _)| self.blob(kind, bytes));
        let layers: Vec<Value> = layers.collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": self.json(OCI_CONFIG, &config), "layers": layers,
        });
        self.json(OCI_MANIFEST, &manifest)
    }

    pub fn name(&mut self, mut descriptor: Value, name: &str) {
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        self.entries.push(descriptor);
    }

    /// Writes `index.json`.
    pub fn finish(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        let bytes = serde_json::to_vec(&index).expect("JSON");
        fs::write(self.path().join("index.json"), bytes).expect("write");
    }

    /// The layout as one archive.
    pub fn archive(&self) -> Vec<u8> {
        self.finish();
        archive_of(self.path())
    }
}

pub fn archive_of(dir: &Path) -> Vec<u8> {
    let out = tempfile::tempdir().expect("temporary directory");
    let path = out.path().join("x.tar");
    // index.json last, as a stream may bring it.
    run(
        "tar",
        &["--sort=name", "-cf", text(&path), "-C", text(dir), "."],
    );
    fs::read(path).expect("tar")
}

/// gzip layers for the host, two of them; the second needs a directory of the first.
pub fn two_layers() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    let first = tar(&[
        ("./", ""),
        ("bin/", ""),
        ("bin/hello", "hello\n"),
        ("etc/", ""),
    ]);
    let second = tar(&[("etc/motd", "welcome\n"), ("bin/.wh.hello", "")]);
    [first, second]
        .map(|plain| (GZIP, pack("gzip", &plain), plain))
        .into()
}

pub fn host() -> String {
    cairn_types::Platform::host().to_string()
}

/// A layout with one image of [`two_layers`], named `shop/web:1`.
pub fn simple() -> Layout {
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &two_layers());
    layout.name(manifest, "shop/web:1");
    layout.finish();
    layout
}

/// An image that shares its two layers with those of other numbers, and has one of its own.
pub fn numbered(number: usize, name: &str) -> Layout {
    let own = tar(&[(&format!("own-{number}"), "x")]);
    let mut layers = two_layers();
    layers.push((OCI_LAYER, own.clone(), own));
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &layers);
    layout.name(manifest, name);
    layout.finish();
    layout
}

pub fn stream(bytes: Vec<u8>) -> Source {
    Source::Stream {
        name: "test stream".to_owned(),
        reader: Box::new(std::io::Cursor::new(bytes)),
    }
}
