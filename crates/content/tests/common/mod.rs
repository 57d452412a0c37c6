//! A store of blobs, and what is done with it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use cairn_content::{Content, Ingest};
use cairn_meta::{EngineKind, Store};
use cairn_sys::Dir;
use cairn_types::{Digest, IngestRef, Labels, Namespace};

pub(crate) struct Fixture {
    pub(crate) root: tempfile::TempDir,
    pub(crate) meta: Store,
    pub(crate) content: Content,
}

impl Fixture {
    pub(crate) fn new() -> Fixture {
        Fixture::at(tempfile::tempdir().expect("tempdir"))
    }

    pub(crate) fn at(root: tempfile::TempDir) -> Fixture {
        let (meta, content) = open(root.path());
        Fixture {
            root,
            meta,
            content,
        }
    }

    /// As after the process has ended and begun again.
    pub(crate) fn reopen(self) -> Fixture {
        let Fixture {
            root,
            meta,
            content,
        } = self;
        drop((meta, content));
        Fixture::at(root)
    }

    pub(crate) fn file(&self, digest: &Digest) -> PathBuf {
        file(self.root.path(), digest)
    }

    pub(crate) fn ingest_entries(&self) -> usize {
        let dir = self.root.path().join("content/ingest");
        fs::read_dir(dir).expect("ingest dir").count()
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> Digest {
        let put = self.content.put(&ns(name), bytes, None, Labels::new());
        put.expect("put")
    }

    pub(crate) fn read(&self, digest: &Digest) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut blob = self.content.open_any(digest).expect("open");
        blob.read_to_end(&mut bytes).expect("proven");
        bytes
    }

    pub(crate) fn writer(&self, name: &str, total: u64) -> Ingest {
        self.content
            .writer(&ns("default"), &reference(name), None, total)
            .expect("writer")
    }
}

/// Opens the store in `root` as it is.
pub(crate) fn open(root: &Path) -> (Store, Content) {
    let dir = Dir::open(root).expect("root");
    let records = dir.create_dir_all_open("meta", 0o700).expect("meta dir");
    let meta = Store::open(&records, EngineKind::Redb).expect("records");
    let place = dir.create_dir_all_open("content", 0o711).expect("content");
    let content = Content::open(&place, meta.clone()).expect("content");
    (meta, content)
}

/// Where the bytes of a blob are.
pub(crate) fn file(root: &Path, digest: &Digest) -> PathBuf {
    let blobs = root.join("content/blobs");
    blobs.join(digest.algorithm().name()).join(digest.hex())
}

pub(crate) fn ns(name: &str) -> Namespace {
    Namespace::parse(name).expect("namespace")
}

pub(crate) fn reference(name: &str) -> IngestRef {
    IngestRef::parse(name).expect("ref")
}
