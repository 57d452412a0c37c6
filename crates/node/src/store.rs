//! Small questions that several requests ask of the rooms below.

use std::io::Read;

use cairn_meta::{ImageRecord, View, schema};
use cairn_sys::Space;
use cairn_types::{
    ChainId, Classified, Descriptor, Digest, ErrorKind, ImageName, Labels, Namespace, SnapshotKey,
    SnapshotKind,
};

use rustix::io::Errno;

use crate::{
    Failure, Node, Pins,
    documents::{DOCUMENT_BYTES_MAX, DocumentError},
    failure::size,
    walk::{self, Blobs, Tree},
};

/// Most bytes of a disk that are kept free; of small ones it is one in twenty.
const KEPT_FREE_BYTES_MAX: u64 = 1 << 30;
/// It is not worth to keep so few.
const KEPT_FREE_BYTES_MIN: u64 = 4 << 20;

/// The label by which a configuration holds its unpacked stack (containerd `core/unpack`).
pub(crate) const SNAPSHOT_REF: &str = "containerd.io/gc.ref.snapshot.overlayfs";

impl Node {
    /// Whether the namespace has a blob with a file that looks whole: one without is as good as missing,
    /// and brought again by whoever has it.
    pub(crate) fn has_blob(&self, ns: &Namespace, digest: &Digest) -> Result<bool, Failure> {
        self.content()
            .is_whole(ns, digest)
            .map_err(|err| Failure::of("look up blob", &err).object("blob", digest))
    }

    /// Whether a committed snapshot of this name exists, with its tree.
    pub(crate) fn has_snapshot(&self, ns: &Namespace, key: &SnapshotKey) -> Result<bool, Failure> {
        match self.snapshots().stat(ns, key) {
            Ok(info) => Ok(info.kind == SnapshotKind::Committed && self.has_tree(key, info.id)?),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
            Err(err) => Err(Failure::of("look up snapshot", &err).object("snapshot", key)),
        }
    }

    fn has_tree(&self, key: &SnapshotKey, id: u64) -> Result<bool, Failure> {
        let found = self.snapshots().has_tree(id);
        found.map_err(|err| Failure::of("look up snapshot", &err).object("snapshot", key))
    }

    /// Pins a snapshot that was found by its directory's number; whether it is there still.
    pub(crate) fn pin_snapshot(
        &self,
        pins: &Pins,
        (ns, key, id): (&Namespace, &SnapshotKey, u64),
    ) -> Result<bool, Failure> {
        pins.snapshot(ns, key);
        let known = self.snapshots().has(ns, key, id);
        known.map_err(|err| Failure::of("look up snapshot", &err).object("snapshot", key))
    }

    /// Opens a stored blob.
    pub(crate) fn open_stored(
        &self,
        ns: &Namespace,
        digest: &Digest,
        attempted: &str,
    ) -> Result<Box<dyn Read + Send>, Failure> {
        let blob = self.content().open_blob(ns, digest).map_err(|err| {
            Failure::because(attempted, format!("blob {digest} is missing"), &err).namespace(ns)
        })?;
        Ok(Box::new(blob))
    }

    /// What a full disk has no more of, for messages: `no space left on ROOT (1.5 KiB free)`, or no
    /// inodes. Of what is to come `missing` bytes are known; 0 says nothing.
    pub(crate) fn nothing_left(&self, missing: u64) -> String {
        let space = self.inner.dir.space().ok();
        let free = size(space.map_or(0, |space| space.free_bytes));
        let no_inodes = space.is_some_and(|s| s.total_inodes > 0 && s.free_inodes == 0);
        let root = self.root().display();
        match (no_inodes, missing) {
            (true, _) => format!("no inodes left on {root} ({free} free)"),
            (false, 0) => format!("no space left on {root} ({free} free)"),
            // How much unpacked layers take is known of none before its end.
            (false, _) => {
                let more = size(missing);
                format!("no space left on {root} ({free} free, at least {more} more needed)")
            }
        }
    }

    /// Bytes of the disk that stay free, so that others have room and the records can be written that make
    /// more.
    pub(crate) fn kept_free(space: &Space) -> u64 {
        match (space.total_bytes / 20).min(KEPT_FREE_BYTES_MAX) {
            // The records keep as much for themselves.
            little if little <= KEPT_FREE_BYTES_MIN => 0,
            kept => kept,
        }
    }

    /// Whether so many bytes can be stored; else the bytes that have to stay free.
    pub(crate) fn has_room(&self, bytes: u64) -> Result<(), u64> {
        // What the system does not tell shows when it is written.
        let Ok(space) = self.inner.dir.space() else {
            return Ok(());
        };
        let kept = Node::kept_free(&space);
        match space.free_bytes.saturating_sub(kept) >= bytes {
            true => Ok(()),
            false => Err(kept),
        }
    }

    /// Makes a configuration hold its unpacked stack.
    pub(crate) fn hold_chain(
        &self,
        ns: &Namespace,
        config: &Digest,
        chain: &ChainId,
    ) -> Result<(), Failure> {
        // Most often it does already, and a change costs a flush.
        let known = self.content().info(ns, config);
        if known.is_ok_and(|info| info.labels.get(SNAPSHOT_REF) == Some(&chain.to_string())) {
            return Ok(());
        }
        let mut labels = Labels::new();
        labels.insert(SNAPSHOT_REF.to_owned(), chain.to_string());
        self.add_labels(ns, config, labels)
    }

    /// Adds labels to a blob.
    pub(crate) fn add_labels(
        &self,
        ns: &Namespace,
        digest: &Digest,
        labels: Labels,
    ) -> Result<(), Failure> {
        self.content()
            .update_labels(ns, digest, &labels)
            .map(drop)
            .map_err(|err| Failure::of("label blob", &err).object("blob", digest))
    }

    /// All image records of a namespace, by name; a damaged one is told of and left out, since it
    /// must not hide the others.
    pub(crate) fn image_records(
        &self,
        ns: &Namespace,
        attempted: &str,
    ) -> Result<Vec<(ImageName, ImageRecord)>, Failure> {
        let read = self
            .meta()
            .read(|view| view.scan_sound(&schema::IMAGES, ns));
        let (records, damaged) = read.map_err(|err| Failure::of(attempted, &err).namespace(ns))?;
        for err in damaged {
            tracing::error!("{err}");
        }
        Ok(records
            .into_iter()
            .map(|((_, name), record)| (name, record))
            .collect())
    }

    /// One image record; a failure that says where else to look when it is not there.
    pub(crate) fn image_record(
        &self,
        ns: &Namespace,
        name: &ImageName,
        attempted: &str,
    ) -> Result<ImageRecord, Failure> {
        let read = self
            .meta()
            .read(|view| view.get(&schema::IMAGES, &(ns.clone(), name.clone())));
        match read {
            Ok(Some(record)) => Ok(record),
            Ok(None) => Err(self.no_such_image(ns, name, attempted)),
            Err(err) => Err(Failure::of(attempted, &err)
                .object("image", name)
                .namespace(ns)),
        }
    }
}

/// Whether an error says that the disk is full, or a quota used up; and not that the process may
/// open no more files, or the machine has no memory, against which no room on a disk helps.
pub(crate) fn is_full(err: &dyn Classified) -> bool {
    let mut source = err.source();
    while let Some(cause) = source {
        if let Some(err) = cause.downcast_ref::<cairn_sys::Error>() {
            let elsewhere = [Errno::MFILE, Errno::NFILE, Errno::NOMEM];
            if elsewhere.contains(&err.errno()) {
                return false;
            }
        }
        source = cause.source();
    }
    err.kind() == ErrorKind::ResourceExhausted
}

/// The documents of one namespace.
pub(crate) struct StoreBlobs<'a> {
    node: &'a Node,
    ns: &'a Namespace,
    attempted: &'a str,
    image: String,
    lenient: bool,
    pins: Option<&'a Pins>,
}

impl<'a> StoreBlobs<'a> {
    /// Damage and refusals are failures.
    pub(crate) fn new(
        node: &'a Node,
        ns: &'a Namespace,
        attempted: &'a str,
        image: String,
    ) -> Self {
        StoreBlobs {
            node,
            ns,
            attempted,
            image,
            lenient: false,
            pins: None,
        }
    }

    /// Pins every document before it looks for it.
    pub(crate) fn pinned(mut self, pins: &'a Pins) -> Self {
        self.pins = Some(pins);
        self
    }

    /// A damaged document counts as missing: one bad image must not hide the others from a list.
    pub(crate) fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// A document that is needed and not here.
    pub(crate) fn missing(&self, descriptor: &Descriptor) -> Failure {
        let reason = format!("manifest {} is missing", descriptor.digest);
        Failure::new(ErrorKind::NotFound, self.attempted, reason)
            .object("image", &self.image)
            .namespace(self.ns)
            .next("import or pull the image again")
    }

    /// The tree below a target. Lenient readers get a target that cannot be read as missing.
    pub(crate) fn tree(&self, target: &Descriptor) -> Result<Tree, Failure> {
        match Tree::read(self, target) {
            Err(err) if self.lenient => {
                tracing::warn!("{err}");
                Ok(Tree {
                    descriptor: target.clone(),
                    bytes: Vec::new(),
                    body: walk::Body::Missing,
                })
            }
            other => other,
        }
    }
}

impl Blobs for StoreBlobs<'_> {
    type Error = Failure;

    fn document(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, Failure> {
        let content = self.node.content();
        if let Some(pins) = self.pins {
            pins.blob(self.ns, &descriptor.digest);
        }
        match content.read_all(self.ns, &descriptor.digest, DOCUMENT_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
            Err(err) if self.lenient => {
                tracing::warn!("read {}: {err}", descriptor.digest);
                Ok(None)
            }
            Err(err) => {
                let reason = format!("blob {} cannot be read", descriptor.digest);
                Err(Failure::because(self.attempted, reason, &err)
                    .object("image", &self.image)
                    .namespace(self.ns))
            }
        }
    }

    fn refuse(&self, descriptor: &Descriptor, reason: DocumentError) -> Failure {
        let text = format!("document {} is refused", descriptor.digest);
        Failure::new(ErrorKind::InvalidArgument, self.attempted, text)
            .object("image", &self.image)
            .namespace(self.ns)
            .cause(reason.to_string())
    }

    fn too_many(&self, _descriptor: &Descriptor, reason: String) -> Failure {
        Failure::new(ErrorKind::InvalidArgument, self.attempted, reason)
            .object("image", &self.image)
            .namespace(self.ns)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn so_much_of_a_disk_stays_free() {
        for (total, kept) in [
            (64 << 20, 0),
            (80 << 20, 0),
            (200 << 20, 10 << 20),
            (10 << 30, 512 << 20),
            (20 << 30, 1 << 30),
            (1 << 50, 1 << 30),
        ] {
            let space = Space {
                free_bytes: 0,
                total_bytes: total,
                free_inodes: 0,
                total_inodes: 0,
            };
            assert_eq!(Node::kept_free(&space), kept, "of {total}");
        }
    }

    #[test]
    fn only_a_disk_is_full() {
        let err = |errno: Errno| cairn_snapshot::Error::Sys {
            attempted: "unpack".to_owned(),
            source: cairn_sys::Error::of_io("openat", "f", &io::Error::from(errno)),
        };
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert!(is_full(&err(errno)), "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::IO] {
            assert!(!is_full(&err(errno)), "{errno}");
        }
    }
}
