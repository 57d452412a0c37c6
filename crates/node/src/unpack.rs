//! Making the snapshots of an image's layers exist.
//!
//! The one way by which layers become snapshots, whether their bytes come from an archive or are in
//! the store: all layers that are missing are unpacked side by side, and when every digest and diff
//! ID is proven they take from their parents what they had to invent and appear together.

pub(crate) mod cores;
mod plan;
pub(crate) mod pool;
pub(crate) mod tee;
mod work;

use std::sync::Arc;

use cairn_snapshot::{Snapshots, StagedLayer};
use cairn_types::{
    ChainId, Descriptor, DiffId, ErrorKind, LayerTiming, LayerType, Namespace, Platform,
    PlatformMatcher, SnapshotKey,
};

pub(crate) use self::{
    plan::make,
    work::{Reading, Work},
};
use crate::{
    Event, Failure, Node, Pins, Progress,
    claims::Claim,
    events,
    events::What,
    store::StoreBlobs,
    walk::{Body, LAYERS_MAX, ManifestBody, Tree},
};

/// The layers of one image, lowest first.
#[derive(Clone)]
pub(crate) struct Stack {
    pub(crate) layers: Vec<(Descriptor, LayerType, DiffId)>,
}

impl Stack {
    /// Checks that a manifest and its configuration describe a stack that can be unpacked.
    pub(crate) fn of(work: &Work<'_>, tree: &Tree, body: &ManifestBody) -> Result<Stack, Failure> {
        let refuse = |reason: String| {
            work.failure(Failure::new(
                ErrorKind::InvalidArgument,
                work.attempted,
                reason,
            ))
        };
        let types = body.layer_types().map_err(|(number, media_type)| {
            let count = body.manifest.layers.len();
            let reason = format!("layer {number} of {count} has unknown type {media_type}");
            let mut failure =
                refuse(reason).cause("known: tar, tar+gzip, tar+zstd, and docker's names for them");
            "unpack image".clone_into(&mut failure.attempted);
            failure.next.extend(work.keep_packed());
            failure
        })?;
        let Some(config) = &body.config else {
            let reason = format!(
                "configuration {} of manifest {} is missing",
                body.manifest.config.digest, tree.descriptor.digest
            );
            let mut failure = refuse(reason);
            failure.kind = ErrorKind::NotFound;
            return Err(failure);
        };
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != types.len() {
            return Err(refuse(format!(
                "its manifest has {} layers, its configuration {} diff IDs",
                types.len(),
                diff_ids.len()
            )));
        }
        if types.len() > LAYERS_MAX {
            return Err(refuse(format!(
                "it has {} layers, the kernel mounts at most {LAYERS_MAX}",
                types.len()
            )));
        }
        let layers = body.manifest.layers.iter().cloned();
        let layers = layers.zip(types).zip(diff_ids.iter().cloned());
        Ok(Stack {
            layers: layers.map(|((d, t), id)| (d, t, id)).collect(),
        })
    }

    /// The chain IDs, lowest first.
    pub(crate) fn chains(&self) -> Vec<ChainId> {
        let diff_ids: Vec<DiffId> = self.layers.iter().map(|(_, _, id)| id.clone()).collect();
        ChainId::stack(&diff_ids)
    }
}

/// Layers that are complete and not yet visible.
pub(crate) struct Ready {
    layers: Vec<StagedLayer>,
    /// Others wait until they are.
    _claim: Claim,
}

impl Ready {
    /// Makes them visible, all at once.
    pub(crate) fn commit(self, work: &Work<'_>) -> Result<(), Failure> {
        self.record(work, Snapshots::commit_stack)
    }

    /// The same for layers whose blobs are not kept, which nothing could unpack again after a power cut: they
    /// are on the disk before anybody sees them, and could put something on top.
    pub(crate) fn commit_synced(self, work: &Work<'_>) -> Result<(), Failure> {
        self.record(work, Snapshots::commit_stack_synced)
    }

    fn record(
        self,
        work: &Work<'_>,
        commit: fn(&Snapshots, &Namespace, Vec<StagedLayer>) -> cairn_snapshot::Result<()>,
    ) -> Result<(), Failure> {
        if self.layers.is_empty() {
            return Ok(());
        }
        let names: Vec<SnapshotKey> = self.layers.iter().map(|layer| layer.key.clone()).collect();
        let timings: Vec<LayerTiming> = self.layers.iter().filter_map(|l| l.timing).collect();
        let timed: Vec<Event> = self.layers.iter().filter_map(timed).collect();
        let committed = commit(work.node.snapshots(), work.ns, self.layers);
        committed.map_err(|err| {
            let reason = "its snapshots cannot be recorded";
            work.failure(Failure::because(work.attempted, reason, &err))
        })?;
        for timing in &timings {
            work.node.layer_took(timing);
        }
        for event in timed {
            work.progress.event(event);
        }
        for name in names {
            // No key stood for it before it was whole.
            let key = name.clone();
            let what = What::SnapshotCommitted { key, name };
            work.node.happened(events::Event::of(work.ns, what));
        }
        Ok(())
    }
}

fn timed(layer: &StagedLayer) -> Option<Event> {
    Some(Event::Timed {
        digest: layer.blob.clone()?,
        key: layer.key.clone(),
        timing: layer.timing?,
    })
}

impl Node {
    /// Makes the snapshots of the image `target` (a manifest, or an index from which `platform`
    /// chooses; the host's when `None`) exist, and returns the chain ID of its top.
    ///
    /// Layers that are there already are left alone. An image without layers has no chain: `None`.
    ///
    /// Whatever becomes of the image meanwhile, what is returned is not collected before `pins` are
    /// dropped: by then the caller has made something that holds it.
    pub fn unpack(
        &self,
        ns: &Namespace,
        target: &Descriptor,
        platform: Option<&Platform>,
        progress: &dyn Progress,
        pins: &Pins,
    ) -> Result<Option<ChainId>, Failure> {
        let blobs = StoreBlobs::new(self, ns, "unpack image", target.digest.to_string());
        let blobs = blobs.pinned(pins);
        let tree = Tree::read(&blobs, target)?;
        let picked = self.pick(
            ns,
            &tree,
            platform,
            "unpack image",
            &target.digest.to_string(),
        )?;
        let Body::Manifest(body) = &picked.body else {
            return Err(blobs.missing(&picked.descriptor));
        };
        let work = Work {
            node: self,
            ns,
            attempted: "unpack image",
            object: ("image", target.digest.to_string()),
            origin: None,
            progress,
            pins,
            missing: Arc::default(),
            pulse: Arc::default(),
        };
        let stack = Stack::of(&work, picked, body)?;
        let chains = stack.chains();
        let chain = chains.last().cloned();
        let Some(top) = &chain else {
            return Ok(None);
        };
        // A snapshot's parents cannot go before it, so the top stands for all; nothing to tell then.
        pins.snapshot(ns, &SnapshotKey::from(top));
        if self.has_snapshot(ns, &SnapshotKey::from(top))? {
            self.hold_chain(ns, &body.manifest.config.digest, top)?;
            return Ok(chain);
        }
        if self.share_chain(ns, &chains, pins)? == chains.len() {
            self.sync_without_blobs(ns, &stack)?;
            self.hold_chain(ns, &body.manifest.config.digest, top)?;
            return Ok(chain);
        }
        let layers = stack
            .layers
            .iter()
            .map(|(d, _, _)| (d.digest.clone(), d.size));
        progress.event(Event::Resolved {
            name: target.digest.to_string(),
            platform: picked.platform().map(|p| p.to_string()).unwrap_or_default(),
            layers: layers.collect(),
        });
        let stacks = std::slice::from_ref(&stack);
        make(&work, stacks, &[], &mut Vec::new())?.commit(&work)?;
        self.sync_without_blobs(ns, &stack)?;
        self.hold_chain(ns, &body.manifest.config.digest, top)?;
        progress.event(Event::Done);
        Ok(chain)
    }

    /// Puts a stack on the disk if it has a layer that another namespace unpacked and whose blob is not in
    /// this one: a power cut could not be made good here.
    fn sync_without_blobs(&self, ns: &Namespace, stack: &Stack) -> Result<(), Failure> {
        for (layer, _, _) in &stack.layers {
            if !self.has_blob(ns, &layer.digest)? {
                let flushed = self.snapshots().flush();
                return flushed.map_err(|err| Failure::of("put unpacked layers on the disk", &err));
            }
        }
        Ok(())
    }

    /// The manifest of `tree` for a platform, or a failure that says which there are.
    pub(crate) fn pick<'t>(
        &self,
        ns: &Namespace,
        tree: &'t Tree,
        platform: Option<&Platform>,
        attempted: &str,
        name: &str,
    ) -> Result<&'t Tree, Failure> {
        let wanted = platform.cloned().unwrap_or_else(Platform::host);
        let matcher = PlatformMatcher::only(&wanted);
        // A target that is a manifest is taken as it is (containerd `core/images/image.go`), unless
        // somebody asked by name for what it is not.
        let fits = |picked: &&Tree| match (platform, picked.platform()) {
            (Some(_), Some(found)) => matcher.rank(&found).is_some(),
            _ => true,
        };
        tree.pick(&matcher).filter(fits).ok_or_else(|| {
            no_platform(tree, &wanted, attempted)
                .object("image", name)
                .namespace(ns)
        })
    }
}

/// No manifest suits; which would.
pub(crate) fn no_platform(tree: &Tree, wanted: &Platform, attempted: &str) -> Failure {
    let reason = format!("no manifest for {wanted}");
    let failure = Failure::new(ErrorKind::NotFound, attempted, reason);
    match tree.platforms().as_slice() {
        [] => failure.cause("it names no platform at all"),
        some => failure
            .cause(format!("it has {}", some.join(", ")))
            .other_platform(&some[0]),
    }
}
