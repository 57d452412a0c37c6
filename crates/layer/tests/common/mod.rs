//! Layers written byte by byte, trees shown as text, and a canary beside every tree.
#![allow(dead_code, clippy::unwrap_used, missing_docs, unreachable_pub)]

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use cairn_layer::{Applied, Error, Options, Unpacked, apply, unpack};
use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind, LayerType, media};
use flate2::write::GzEncoder;

/// As many threads as make a difference to unpacking.
pub const THREADS: [usize; 4] = [2, 3, 4, 8];

/// A tar under construction. Paths are written as given, however hostile.
#[derive(Clone, Default)]
pub struct Layer {
    bytes: Vec<u8>,
    records: Vec<u8>,
    mode: Option<u32>,
    owner: (u32, u32),
    mtime: u64,
    device: (u32, u32),
}

pub fn layer() -> Layer {
    Layer {
        mtime: 1_000_000_000,
        ..Layer::default()
    }
}

impl Layer {
    /// The next entries' mode.
    pub fn mode(mut self, mode: u32) -> Layer {
        self.mode = Some(mode);
        self
    }

    /// The next entries' owner.
    pub fn owner(mut self, uid: u32, gid: u32) -> Layer {
        self.owner = (uid, gid);
        self
    }

    /// The next entries' modification time.
    pub fn mtime(mut self, secs: u64) -> Layer {
        self.mtime = secs;
        self
    }

    /// An extended attribute of the next entry.
    pub fn xattr(self, name: &str, value: &[u8]) -> Layer {
        self.record(&format!("SCHILY.xattr.{name}"), value)
    }

    /// The next entry is a file of so many bytes, of which the archive has those at `places`.
    pub fn sparse(self, size: u64, places: &[u64]) -> Layer {
        let map: Vec<String> = places.iter().map(|at| format!("{at},1")).collect();
        self.record("GNU.sparse.size", size.to_string().as_bytes())
            .record("GNU.sparse.numblocks", places.len().to_string().as_bytes())
            .record("GNU.sparse.map", map.join(",").as_bytes())
    }

    /// A record of the next entry's extended header.
    fn record(mut self, key: &str, value: &[u8]) -> Layer {
        let mut record = format!("{key}=").into_bytes();
        record.extend_from_slice(value);
        record.push(b'\n');
        let mut len = record.len() + 2;
        while format!("{len} ").len() + record.len() != len {
            len += 1;
        }
        self.records.extend_from_slice(format!("{len} ").as_bytes());
        self.records.extend_from_slice(&record);
        self
    }

    pub fn file(self, path: &str, text: &str) -> Layer {
        self.entry(b'0', path, "", text.as_bytes(), 0o644)
    }

    pub fn dir(self, path: &str) -> Layer {
        self.entry(b'5', path, "", b"", 0o755)
    }

    pub fn symlink(self, path: &str, target: &str) -> Layer {
        self.entry(b'2', path, target, b"", 0o777)
    }

    pub fn hard_link(self, path: &str, target: &str) -> Layer {
        self.entry(b'1', path, target, b"", 0o644)
    }

    pub fn char_device(mut self, path: &str, major: u32, minor: u32) -> Layer {
        self.device = (major, minor);
        self.entry(b'3', path, "", b"", 0o644)
    }

    pub fn fifo(self, path: &str) -> Layer {
        self.entry(b'6', path, "", b"", 0o644)
    }

    pub fn whiteout(self, path: &str) -> Layer {
        let (dir, name) = path
            .rsplit_once('/')
            .map_or((None, path), |(d, n)| (Some(d), n));
        let mark = match dir {
            Some(dir) => format!("{dir}/.wh.{name}"),
            None => format!(".wh.{name}"),
        };
        self.file(&mark, "")
    }

    pub fn opaque(self, dir: &str) -> Layer {
        let mark = if dir.is_empty() {
            String::new()
        } else {
            format!("{dir}/")
        };
        self.file(&format!("{mark}.wh..wh..opq"), "")
    }

    fn entry(mut self, flag: u8, path: &str, link: &str, data: &[u8], mode: u32) -> Layer {
        if !self.records.is_empty() {
            let records = std::mem::take(&mut self.records);
            self.header(b'x', b"pax", b"", records.len(), 0o644);
            self.data(&records);
        }
        for (flag, long) in [(b'L', path), (b'K', link)] {
            if long.len() > 100 {
                let mut name = long.as_bytes().to_vec();
                name.push(0);
                self.header(flag, b"././@LongLink", b"", name.len(), 0o644);
                self.data(&name);
            }
        }
        let mode = self.mode.take().unwrap_or(mode);
        self.header(flag, path.as_bytes(), link.as_bytes(), data.len(), mode);
        self.data(data);
        self
    }

    fn header(&mut self, flag: u8, path: &[u8], link: &[u8], size: usize, mode: u32) {
        let mut header = [0u8; 512];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &path[..path.len().min(100)]);
        put(100, format!("{mode:07o}").as_bytes());
        put(108, format!("{:07o}", self.owner.0).as_bytes());
        put(116, format!("{:07o}", self.owner.1).as_bytes());
        put(124, format!("{size:011o}").as_bytes());
        put(136, format!("{:011o}", self.mtime).as_bytes());
        put(148, b"        ");
        put(156, &[flag]);
        put(157, &link[..link.len().min(100)]);
        put(257, b"ustar\x0000");
        put(329, format!("{:07o}", self.device.0).as_bytes());
        put(337, format!("{:07o}", self.device.1).as_bytes());
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        self.bytes.extend_from_slice(&header);
    }

    fn data(&mut self, data: &[u8]) {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
    }

    /// By how many threads it is unpacked besides; none where it takes long to write.
    fn threads(&self) -> impl Iterator<Item = usize> + use<> {
        let is_small = self.bytes.len() < 256 << 10;
        THREADS.into_iter().filter(move |_| is_small)
    }

    pub fn build(&self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }
}

/// Expects a layer to become this tree, and nothing outside of it to change.
#[track_caller]
pub fn check(layer: Layer, tree: &[&str]) {
    let place = place();
    if let Err(err) = place.apply("fs", &layer) {
        panic!("refused: {}", chain(&err));
    }
    assert_eq!(show(&place.path("fs")), tree);
    for threads in layer.threads() {
        let (unpacked, shown) = unpacked(&layer, threads);
        if let Err(err) = unpacked {
            panic!("refused by {threads} threads: {}", chain(&err));
        }
        assert_eq!(shown, tree, "by {threads} threads");
    }
}

/// Expects a layer to be refused as a fault of whoever made it, with this among the reasons.
#[track_caller]
pub fn refused(layer: Layer, reason: &str) {
    let place = place();
    let err = place.apply("fs", &layer).expect_err("must be refused");
    let text = chain(&err);
    assert!(text.contains(reason), "{text}");
    assert_eq!(err.kind(), ErrorKind::InvalidArgument, "{text}");
    for threads in layer.threads() {
        let (unpacked, _) = unpacked(&layer, threads);
        let err = unpacked.expect_err("must be refused");
        assert_eq!(chain(&err), text, "by {threads} threads");
    }
}

/// A layer packed and unpacked again, and the tree it became.
fn unpacked(layer: &Layer, threads: usize) -> (Result<Unpacked, Error>, Vec<String>) {
    let place = place();
    let packed = gzip(&layer.build());
    let unpacked = unpack_by(threads, &packed[..], media::OCI_LAYER_GZIP, &place);
    place.check_outside();
    (unpacked, show(&place.path("fs")))
}

/// Unpacks into the directory `fs` of a place.
pub fn unpack_by(
    threads: usize,
    source: impl Read + Send,
    media_type: &str,
    place: &Place,
) -> Result<Unpacked, Error> {
    let options = Options {
        threads,
        ..Options::default()
    };
    let kind = LayerType::parse(media_type).unwrap();
    unpack(source, kind, &place.upper("fs"), &options, &|_| {})
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A store with room for layers, and things outside of it that must never change.
pub struct Place {
    tmp: tempfile::TempDir,
    before: Vec<String>,
}

pub fn place() -> Place {
    let tmp = tempfile::tempdir().unwrap();
    let canary = tmp.path().join("canary");
    fs::create_dir_all(canary.join("dir")).unwrap();
    fs::write(canary.join("file"), "do not touch").unwrap();
    fs::write(canary.join("dir/victim"), "nor this").unwrap();
    let before = outside(&canary);
    Place { tmp, before }
}

impl Place {
    /// The canary as an absolute path of this machine.
    pub fn canary(&self) -> String {
        self.tmp.path().join("canary").to_str().unwrap().to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.tmp.path().join("store").join(name)
    }

    /// An empty directory for a layer.
    pub fn upper(&self, name: &str) -> Dir {
        fs::create_dir_all(self.path(name)).unwrap();
        Dir::open(&self.path(name)).unwrap()
    }

    pub fn apply(&self, name: &str, layer: &Layer) -> Result<Applied, Error> {
        let applied = apply(&layer.build()[..], &self.upper(name), &Options::default());
        self.check_outside();
        applied
    }

    #[track_caller]
    pub fn check_outside(&self) {
        let after = outside(&self.tmp.path().join("canary"));
        assert_eq!(after, self.before, "HOST PATH WAS CHANGED!");
        let mut here: Vec<_> = fs::read_dir(self.tmp.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        here.sort();
        assert!(
            here == ["canary", "store"],
            "something appeared beside the store: {here:?}"
        );
    }
}

fn outside(canary: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for path in [
        canary.to_owned(),
        canary.join("dir"),
        canary.join("file"),
        canary.join("dir/victim"),
    ] {
        let meta = fs::symlink_metadata(&path).unwrap();
        let data = if meta.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let mut names: Vec<_> = if meta.is_dir() {
            fs::read_dir(&path)
                .unwrap()
                .map(|e| e.unwrap().file_name())
                .collect()
        } else {
            Vec::new()
        };
        names.sort();
        lines.push(format!(
            "{path:?} {} {:o} {} {} {} {}.{} {data:?} {names:?}",
            meta.ino(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.nlink(),
            meta.mtime(),
            meta.mtime_nsec(),
        ));
    }
    lines
}

/// A tree as text, one line for each name: what it is, what it holds, and what is unusual about it.
pub fn show(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    walk(root, root, &mut lines);
    lines
}

fn walk(root: &Path, dir: &Path, lines: &mut Vec<String>) {
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        lines.push(line(root, &path));
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            walk(root, &path, lines);
        }
    }
}

fn line(root: &Path, path: &Path) -> String {
    let name = path.strip_prefix(root).unwrap().to_str().unwrap();
    let meta = fs::symlink_metadata(path).unwrap();
    let kind = meta.file_type();
    let (mut text, usual) = if kind.is_dir() {
        let mark = if is_opaque(path) { " opaque" } else { "" };
        (format!("{name}/{mark}"), 0o755)
    } else if kind.is_symlink() {
        (
            format!(
                "{name} -> {}",
                fs::read_link(path).unwrap().to_str().unwrap()
            ),
            0o777,
        )
    } else if kind.is_char_device() && meta.rdev() == 0 {
        (format!("{name} deleted"), 0)
    } else if kind.is_char_device() {
        let (major, minor) = (
            rustix::fs::major(meta.rdev()),
            rustix::fs::minor(meta.rdev()),
        );
        (format!("{name} char {major}:{minor}"), 0o644)
    } else if kind.is_fifo() {
        (format!("{name} fifo"), 0o644)
    } else {
        (
            format!("{name} = {}", fs::read_to_string(path).unwrap()),
            0o644,
        )
    };
    if meta.mode() & 0o7777 != usual {
        text.push_str(&format!(" {:04o}", meta.mode() & 0o7777));
    }
    if (meta.uid(), meta.gid()) != (0, 0) {
        text.push_str(&format!(" {}:{}", meta.uid(), meta.gid()));
    }
    if !meta.is_dir() && meta.nlink() > 1 {
        text.push_str(&format!(" x{}", meta.nlink()));
    }
    text
}

pub fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0u8; 4096];
    match rustix::fs::lgetxattr(path, name, &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Some(value)
        }
        Err(rustix::io::Errno::NODATA) => None,
        Err(errno) => panic!("{path:?} {name}: {errno}"),
    }
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

/// The whole chain of an error, as a person would read it.
pub fn chain(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text.push_str(&format!(": {err}"));
        source = err.source();
    }
    text
}
