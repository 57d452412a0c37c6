//! What one snapshot shows and another does not, as a stored layer (`Diff.Diff`).

use std::io::Write;

use cairn_content::{Error as ContentError, Ingest};
use cairn_layer::diff::{self, Packed};
use cairn_meta::Timestamp;
use cairn_sys::Dir;
use cairn_types::{
    Classified, Compression, Descriptor, ErrorKind, IngestRef, Labels, Mount, media, validate_label,
};

use crate::{
    Caller, Failure, Node, Pins, Resource,
    events::{Event, What},
    unpack::pool::UNCOMPRESSED,
    uploads,
};

const ATTEMPTED: &str = "diff snapshots";

/// How to write and store the layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// An OCI layer type: plain, gzip or zstd. Empty for gzip.
    pub media_type: String,
    /// The upload to write it through; what that holds is thrown away. Otherwise one of its own.
    pub reference: Option<IngestRef>,
    /// Of the blob, if this makes it.
    pub labels: Labels,
    /// The latest modification time an entry may have.
    pub source_date_epoch: Option<Timestamp>,
}

impl Node {
    /// Stores what `upper` shows and `lower` does not, both given as mounts of ours, as a layer. No
    /// mounts are an empty directory. A blob that is there already is as good; only the label that
    /// names its uncompressed form is added to it.
    ///
    /// # Errors
    /// `Unimplemented` for other media types, `InvalidArgument` for mounts that are none of ours and
    /// for labels that are too long, `Unavailable` while somebody else writes to the upload;
    /// the layer's own errors.
    pub fn diff(
        &self,
        caller: &Caller,
        lower: &[Mount],
        upper: &[Mount],
        options: DiffOptions,
    ) -> Result<Descriptor, Failure> {
        let pins = self.pins();
        let (media_type, compression) = packing(&options.media_type)
            .map_err(|reason| Failure::new(ErrorKind::Unimplemented, ATTEMPTED, reason))?;
        for (key, value) in &options.labels {
            validate_label(key, value).map_err(|err| Failure::of(ATTEMPTED, &err))?;
        }
        let (left, right) = self.shown_by(caller, lower, upper, &pins)?;
        let own = options.reference.is_none();
        let reference = match options.reference {
            Some(reference) => reference,
            None => uploads::name().map_err(|err| Failure::of(ATTEMPTED, &err))?,
        };
        let job = Job {
            node: self,
            caller,
            reference,
            labels: options.labels,
            options: diff::Options {
                latest: options
                    .source_date_epoch
                    .map(|at| at.0.div_euclid(1_000_000_000)),
                userxattr: false,
            },
            compression,
            pins,
        };
        let upload = Resource::Ingest(job.reference.clone());
        self.hold(caller, &upload)?;
        let stored = job.run(&left, &right);
        if stored.is_err() && own {
            match self.content().abort(&caller.ns, &job.reference) {
                Ok(()) | Err(ContentError::NoIngest { .. }) => {}
                Err(err) => tracing::warn!("throw away upload {}: {err}", job.reference),
            }
        }
        if stored.is_ok() || own {
            self.let_go(caller, &upload)?;
        }
        let (digest, size) = stored?;
        Ok(Descriptor::new(media_type, digest, size))
    }

    fn shown_by(
        &self,
        caller: &Caller,
        left: &[Mount],
        right: &[Mount],
        pins: &Pins,
    ) -> Result<(Vec<Dir>, Vec<Dir>), Failure> {
        let ns = &caller.ns;
        let shown = self.snapshots().shown(ns, [left, right]);
        let foreign = |side: &str| {
            let reason = format!("the mounts on the {side} are not those of a snapshot here");
            Failure::new(ErrorKind::InvalidArgument, ATTEMPTED, reason).namespace(ns)
        };
        match shown.map_err(|err| Failure::of(ATTEMPTED, &err).namespace(ns))? {
            [Some(left), Some(right)] => {
                for (key, id) in [&left.top, &right.top].into_iter().flatten() {
                    // Those below cannot go before it.
                    if !self.pin_snapshot(pins, (ns, key, *id))? {
                        let reason = "a snapshot of the mounts has been removed";
                        let failure = Failure::new(ErrorKind::NotFound, ATTEMPTED, reason);
                        return Err(failure.object("snapshot", key).namespace(ns));
                    }
                }
                Ok((left.trees, right.trees))
            }
            [None, _] => Err(foreign("left")),
            [_, None] => Err(foreign("right")),
        }
    }
}

/// The media type of the layer, and how it is packed.
fn packing(asked: &str) -> Result<(&'static str, Compression), String> {
    match asked {
        "" | media::OCI_LAYER_GZIP => Ok((media::OCI_LAYER_GZIP, Compression::Gzip)),
        media::OCI_LAYER => Ok((media::OCI_LAYER, Compression::None)),
        media::OCI_LAYER_ZSTD => Ok((media::OCI_LAYER_ZSTD, Compression::Zstd)),
        other => Err(format!("unsupported diff media type: {other:?}")),
    }
}

/// One layer on its way into the store.
struct Job<'a> {
    node: &'a Node,
    caller: &'a Caller,
    reference: IngestRef,
    labels: Labels,
    options: diff::Options,
    compression: Compression,
    pins: Pins,
}

type Stored = (cairn_types::Digest, u64);

impl Job<'_> {
    fn run(&self, left: &[Dir], right: &[Dir]) -> Result<Stored, Failure> {
        let ns = &self.caller.ns;
        let opened = self.node.content().writer(ns, &self.reference, None, 0);
        let mut ingest = opened.map_err(|err| self.failed(&err))?;
        ingest.truncate().map_err(|err| self.failed(&err))?;
        let packed = diff::pack(left, right, &self.options, self.compression, &mut ingest)
            .map_err(|err| self.failed(&err))?;
        ingest
            .flush()
            .map_err(|err| self.failed(&diff::Error::Output(err)))?;
        self.commit(ingest, &packed)
    }

    fn commit(&self, ingest: Ingest, packed: &Packed) -> Result<Stored, Failure> {
        let ns = &self.caller.ns;
        let (digest, size) = (ingest.digest_so_far(), ingest.offset());
        // Held before it exists, so that no collection comes between; and pinned, for those without a
        // lease, since it may exist already.
        self.pins.blob(ns, &digest);
        self.node
            .hold(self.caller, &Resource::Content(digest.clone()))?;
        let mut labels = self.labels.clone();
        let mut uncompressed = Labels::new();
        if self.compression != Compression::None {
            uncompressed.insert(UNCOMPRESSED.to_owned(), packed.diff_id.to_string());
        }
        labels.extend(uncompressed.clone());
        // Both are said, so that nothing counts which an earlier user of the upload has announced.
        match ingest.commit(Some(size), Some(&digest), labels) {
            Ok(_) => {
                let digest = digest.clone();
                let created = What::ContentCreated { digest, size };
                self.node.happened(Event::of(ns, created));
            }
            Err(ContentError::Exists { .. }) => {
                let info = self.node.content().info(ns, &digest);
                let known = info.map_err(|err| self.failed(&err))?.labels;
                if uncompressed.keys().any(|key| !known.contains_key(key)) {
                    let content = self.node.content();
                    let added = content.update_labels(ns, &digest, &uncompressed);
                    added.map_err(|err| self.failed(&err))?;
                }
            }
            Err(err) => return Err(self.failed(&err)),
        }
        Ok((digest, size))
    }

    fn failed(&self, err: &dyn Classified) -> Failure {
        Failure::of(ATTEMPTED, err).namespace(&self.caller.ns)
    }
}
