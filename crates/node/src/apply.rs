//! Unpacking one layer into a snapshot that a client has prepared (`Diff.Apply`).

use std::time::Instant;

use cairn_layer::{Options, Whiteouts};
use cairn_types::{Descriptor, Digest, ErrorKind, LayerType, Mount, Namespace};

use crate::{Failure, Node, unpack::cores::cores};

const ATTEMPTED: &str = "apply layer";

/// What was applied: the uncompressed layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerApplied {
    /// Of every byte of the uncompressed stream. The caller compares it with the diff ID it expects.
    pub digest: Digest,
    /// Bytes of that stream.
    pub size: u64,
}

impl Node {
    /// Unpacks the stored blob `layer` into the active snapshot that `mounts` show.
    ///
    /// # Errors
    /// `NotFound` for the blob, `InvalidArgument` for mounts that are none of ours, `Unimplemented`
    /// for a type that is no layer's; the layer's own errors. What was written before one stays.
    pub fn apply(
        &self,
        ns: &Namespace,
        layer: &Descriptor,
        mounts: &[Mount],
        sync: bool,
    ) -> Result<LayerApplied, Failure> {
        let pins = self.pins();
        let digest = &layer.digest;
        let failure = |kind, reason: String| {
            Failure::new(kind, ATTEMPTED, reason)
                .object("layer", digest)
                .namespace(ns)
        };
        pins.blob(ns, digest);
        let blob = self.content().open_blob(ns, digest);
        let blob = blob.map_err(|err| Failure::of(ATTEMPTED, &err).object("layer", digest))?;
        let Some(layer_type) = LayerType::parse(&layer.media_type) else {
            let reason = format!("no processor for media-type {:?}", layer.media_type);
            return Err(failure(ErrorKind::Unimplemented, reason));
        };
        let target = self.snapshots().writable(ns, mounts);
        let target = target.map_err(|err| Failure::of(ATTEMPTED, &err).object("layer", digest))?;
        let Some(target) = target else {
            let reason = "the mounts are not those of an active snapshot here".to_owned();
            return Err(failure(ErrorKind::InvalidArgument, reason));
        };
        let named = (ns, &target.key, target.id);
        let held = self.pin_snapshot(&pins, named);
        if !held.map_err(|err| err.object("layer", digest))? {
            let reason = "the snapshot of the mounts has been removed".to_owned();
            return Err(failure(ErrorKind::NotFound, reason));
        }
        // What is mounted as it is must not show overlay's marks.
        let whiteouts = match target.is_overlay {
            true => Whiteouts::Marks,
            false => Whiteouts::Delete,
        };
        let weight = self.inner.unpacking.add(blob.size());
        let threads = weight.threads(cores(self.inner.parallel_layers));
        let options = Options {
            whiteouts,
            threads: threads.number,
            ..Options::default()
        };
        let failed = |err: &cairn_layer::Error| Failure::of(ATTEMPTED, err).object("layer", digest);
        let unpacked = cairn_layer::unpack(blob, layer_type, &target.upper, &options, &|_| ())
            .map_err(|err| failed(&err))?;
        drop(threads);
        drop(weight);
        let mut timing = unpacked.timing.parts();
        let began = Instant::now();
        // An overlay over nothing is put on its parents only when it is committed. Against those its
        // marks are meant; it keeps them all.
        if !(target.is_overlay && target.lowers.is_empty()) {
            cairn_layer::adopt(&target.upper, &target.lowers, &unpacked.applied, &options)
                .map_err(|err| failed(&err))?;
        }
        timing.commit = began.elapsed();
        for skipped in &unpacked.applied.skipped {
            tracing::info!(layer = %digest, "left out: {skipped}");
        }
        if sync {
            let began = Instant::now();
            target
                .upper
                .syncfs()
                .map_err(|err| Failure::of(ATTEMPTED, &err).object("layer", digest))?;
            timing.sync = began.elapsed();
        }
        self.layer_took(&timing);
        Ok(LayerApplied {
            digest: unpacked.diff_id.digest().clone(),
            size: unpacked.size,
        })
    }
}
