//! Blobs, and the uploads ("ingests") that become them.
//!
//! ```text
//! <root>/content/blobs/<alg>/<hex>   0444, verified bytes only
//! <root>/content/ingest/<id>/data    what came so far of an upload
//! <root>/content/ingest/put-<n>      a document that is being written in one go
//! ```
//!
//! A blob's bytes are there once; who may see it is a link per namespace, with labels and times of
//! its own. On the way in: bytes, sync, name, sync, record, answer; or, for what is small, bytes, name,
//! record with the bytes, answer, and the syncs later. On the way out the record goes first. So a file without a
//! record is garbage that [`Content::sweep`] removes, unless records are lost ([`Content::adopt`]), and a record
//! without its file is outside damage.
//!
//! What a blob is (a manifest, a layer) is not known here, and nothing is ever collected: whoever
//! knows what is referred to calls [`Content::delete`], or its parts: [`Content::unlink`] in a
//! transaction of many, and [`Content::remove_unrecorded`] after it.

mod adopt;
mod blob;
mod census;
mod check;
mod error;
mod ingest;
mod links;
mod locks;
mod proven;
mod publish;
mod small;
mod sweep;

use std::{
    collections::HashSet,
    ffi::OsStr,
    io::Read,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use cairn_meta::{ReadOnly, Store, Timestamp, View, schema};
use cairn_sys::{Dir, OFlags, durable, raw};
use cairn_types::{Algorithm, Classified, Digest, ErrorKind, IngestRef, Labels, Namespace};

pub use self::{
    adopt::{Adopted, PutBy, UNREAD},
    blob::{Blob, Proof},
    census::{Purpose, Stored},
    check::{Flaw, Mended},
    error::{Error, Result},
    ingest::{Ingest, IngestInfo},
    sweep::Swept,
};
use self::{
    check::Doubts,
    error::{io, sys},
    locks::Locks,
    proven::{Mark, Proven},
};

/// What is known of a blob in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// Set by this namespace.
    pub labels: Labels,
    /// When this namespace first had it.
    pub created_at: Timestamp,
    /// When its labels were last changed.
    pub updated_at: Timestamp,
}

/// The directory of the blobs that are named by one algorithm.
struct Blobs {
    dir: Dir,
    /// Of the names in it.
    syncs: durable::Shared,
}

/// The content store. Clones share it; at most one process may have it open.
#[derive(Clone)]
pub struct Content {
    inner: Arc<Inner>,
}

struct Inner {
    meta: Store,
    root: Dir,
    /// One for each of [`Algorithm::ALL`].
    blobs: [Blobs; 3],
    ingests: Dir,
    /// Refs that are being written.
    writing: Locks<(Namespace, IngestRef)>,
    /// Digests whose file and records are being changed. Without it a deletion, whose record goes
    /// before its file, could remove the file that a commit in between has found and believed.
    changing: Locks<Digest>,
    /// Blobs that are recorded no longer and whose files are to go, when nobody holds their names.
    left: Mutex<HashSet<Digest>>,
    /// Uploads whose records are gone and whose files are to go.
    ending: Mutex<HashSet<u64>>,
    /// Blobs whose bytes were found to be wrong.
    doubts: Doubts,
    /// Blobs whose bytes were found to be right.
    proven: Proven,
    /// Small blobs whose files are not known to be on the disk.
    youth: Mutex<small::Youth>,
    /// For names of documents that are being written.
    puts: AtomicU64,
    /// The sync that failed.
    broken: OnceLock<ReadOnly>,
}

impl Content {
    /// Opens the store in `root`, making its directories when they are absent. Call
    /// [`Content::sweep`] before first using it.
    pub fn open(root: &Dir, meta: Store) -> Result<Content> {
        let make = |path: &str| {
            root.create_dir_all_open(path, 0o700)
                .map_err(sys(format!("open content in {}", root.path().display())))
        };
        let of = |algorithm: Algorithm| {
            Ok::<_, Error>(Blobs {
                dir: make(&format!("blobs/{}", algorithm.name()))?,
                syncs: durable::Shared::default(),
            })
        };
        let [a, b, c] = Algorithm::ALL;
        Ok(Content {
            inner: Arc::new(Inner {
                meta,
                root: root.clone(),
                blobs: [of(a)?, of(b)?, of(c)?],
                ingests: make("ingest")?,
                writing: Locks::new(),
                changing: Locks::new(),
                left: Mutex::default(),
                ending: Mutex::default(),
                doubts: Doubts::default(),
                proven: Proven::default(),
                youth: Mutex::default(),
                puts: AtomicU64::new(0),
                broken: OnceLock::new(),
            }),
        })
    }

    /// What is known of a blob.
    pub fn info(&self, ns: &Namespace, digest: &Digest) -> Result<BlobInfo> {
        let key = (ns.clone(), digest.clone());
        self.inner.meta.read(|view| {
            let Some(link) = view.get(&schema::BLOB_LINKS, &key)? else {
                let (ns, digest) = key;
                return Err(Error::NotFound { digest, ns });
            };
            let Some(blob) = view.get(&schema::BLOBS, digest)? else {
                return Err(unrecorded(digest));
            };
            Ok(BlobInfo {
                digest: digest.clone(),
                size: blob.size,
                labels: link.labels,
                created_at: link.created_at,
                updated_at: link.updated_at,
            })
        })
    }

    /// Whether the namespace has the blob.
    pub fn exists(&self, ns: &Namespace, digest: &Digest) -> Result<bool> {
        let key = (ns.clone(), digest.clone());
        self.inner
            .meta
            .read(|view| Ok(view.get(&schema::BLOB_LINKS, &key)?.is_some()))
    }

    /// All blobs of a namespace, in bytewise order of their digests.
    pub fn list(&self, ns: &Namespace) -> Result<Vec<BlobInfo>> {
        self.inner.meta.read(|view| {
            let mut infos = Vec::new();
            for ((_, digest), link) in view.scan(&schema::BLOB_LINKS, ns)? {
                // One damaged entry must not hide the others.
                let Some(blob) = view.get(&schema::BLOBS, &digest)? else {
                    tracing::error!("{}", unrecorded(&digest));
                    continue;
                };
                infos.push(BlobInfo {
                    digest,
                    size: blob.size,
                    labels: link.labels,
                    created_at: link.created_at,
                    updated_at: link.updated_at,
                });
            }
            Ok(infos)
        })
    }

    /// Opens a blob for reading.
    ///
    /// # Errors
    /// [`Error::Damaged`] when its file is not there or has another length than recorded.
    pub fn open_blob(&self, ns: &Namespace, digest: &Digest) -> Result<Blob> {
        match self.try_open_blob(ns, digest) {
            // Also when it was deleted between the look at its record and that for its file. With
            // the lock the two belong together.
            Err(Error::Damaged { .. }) => {
                let _changing = self.inner.changing.lock(digest);
                self.try_open_blob(ns, digest)
            }
            other => other,
        }
    }

    fn try_open_blob(&self, ns: &Namespace, digest: &Digest) -> Result<Blob> {
        let info = self.info(ns, digest)?;
        self.open_file(digest, info.size)
    }

    /// Bytes of a blob that any namespace may have; `None` when none has it.
    pub fn size_of_any(&self, digest: &Digest) -> Result<Option<u64>> {
        let read = self
            .inner
            .meta
            .read(|view| view.get(&schema::BLOBS, digest));
        Ok(read.map_err(Error::from)?.map(|blob| blob.size))
    }

    /// Opens a blob that any namespace may have. For those who do not hand its bytes on: who may see
    /// a blob is decided by its links.
    pub fn open_any(&self, digest: &Digest) -> Result<Blob> {
        let _changing = self.inner.changing.lock(digest);
        match self.size_of_any(digest)? {
            Some(size) => self.open_file(digest, size),
            None => Err(unrecorded(digest)),
        }
    }

    fn open_file(&self, digest: &Digest, size: u64) -> Result<Blob> {
        let (dir, name) = self.place(digest);
        let attempted = || format!("open blob {digest}");
        let damaged = |reason: String| Error::Damaged {
            digest: digest.clone(),
            reason,
        };
        let file = match dir.open_file(name, OFlags::RDONLY, 0) {
            Ok(file) => file,
            Err(err) if is_missing(&err) => return Err(damaged("its file is missing".to_owned())),
            Err(err) => return Err(sys(attempted())(err)),
        };
        let stat = raw::stat(&file).map_err(sys(attempted()))?;
        let length = u64::try_from(stat.st_size).unwrap_or(0);
        if length != size {
            return Err(damaged(format!(
                "its file has {length} bytes instead of {size}"
            )));
        }
        let (doubts, proven) = (self.inner.doubts.clone(), self.inner.proven.clone());
        let file = (file, Mark::of(&stat));
        Ok(Blob::new(file, digest.clone(), size, doubts, proven))
    }

    /// Reads a whole document of at most `limit` bytes and proves it.
    pub fn read_all(&self, ns: &Namespace, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let mut blob = self.open_blob(ns, digest)?;
        let size = blob.size();
        let capacity = usize::try_from(size).ok().filter(|_| size <= limit);
        let Some(capacity) = capacity else {
            return Err(Error::TooLarge {
                digest: digest.clone(),
                size,
                limit,
            });
        };
        let mut bytes = Vec::with_capacity(capacity);
        match blob.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(err) if err.kind() == std::io::ErrorKind::InvalidData => Err(Error::Damaged {
                digest: digest.clone(),
                reason: "its bytes are not those it is named by".to_owned(),
            }),
            Err(err) => Err(io(format!("read blob {digest}"), "read")(err)),
        }
    }

    /// The namespaces in which anything was ever written, by name.
    pub fn namespaces(&self) -> Result<Vec<Namespace>> {
        self.inner.meta.read(|view| {
            let records = view.scan(&schema::NAMESPACES, &())?;
            Ok(records.into_iter().map(|(ns, _)| ns).collect())
        })
    }

    /// The directory and file name of a blob.
    fn place<'a>(&'a self, digest: &'a Digest) -> (&'a Dir, &'a OsStr) {
        (&self.blobs_of(digest).dir, OsStr::new(digest.hex()))
    }

    fn blobs_of(&self, digest: &Digest) -> &Blobs {
        let [a, b, c] = &self.inner.blobs;
        match digest.algorithm() {
            Algorithm::Sha256 => a,
            Algorithm::Sha384 => b,
            Algorithm::Sha512 => c,
        }
    }

    /// A name below `ingest/` that only this process uses, and only once.
    fn put_name(&self) -> String {
        let number = self.inner.puts.fetch_add(1, Ordering::Relaxed);
        format!("put-{number}")
    }

    /// Why no blobs are taken any more, if that is so.
    pub fn read_only(&self) -> Option<&ReadOnly> {
        self.inner.broken.get()
    }

    /// Refuses changes after a sync has failed.
    fn check_writable(&self) -> Result<()> {
        match self.inner.broken.get() {
            None => Ok(()),
            Some(broken) => Err(Error::ReadOnly(broken.clone())),
        }
    }
}

fn unrecorded(digest: &Digest) -> Error {
    Error::Damaged {
        digest: digest.clone(),
        reason: "its record is missing".to_owned(),
    }
}

fn is_missing(err: &cairn_sys::Error) -> bool {
    err.kind() == ErrorKind::NotFound
}
