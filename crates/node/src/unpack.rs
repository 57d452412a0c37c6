//! Making the snapshots of an image's layers exist.
//!
//! The one way by which layers become snapshots, whether their bytes come from an archive or are in
//! the store: all layers that are missing are unpacked side by side, and when every digest and diff
//! ID is proven they take from their parents what they had to invent and appear together.

pub(crate) mod pool;
mod work;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_layer::Options;
use cairn_snapshot::StagedLayer;
use cairn_sys::Dir;
use cairn_types::{
    ChainId, Classified, Descriptor, DiffId, Digest, ErrorKind, LayerTiming, LayerType, Namespace,
    Platform, PlatformMatcher, SnapshotKey, Usage,
};

use self::pool::{Job, Made, Tree as Unpacked};
pub(crate) use self::work::{Reading, Work};
use crate::{
    Event, Failure, Node, Phase, Pins, Progress, events,
    events::What,
    store::StoreBlobs,
    walk::{Body, LAYERS_MAX, ManifestBody, Tree},
};

/// The layers of one image, lowest first.
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
            let layer = &body.manifest.layers[number - 1].digest;
            failure.next.extend(work.keep_packed(layer));
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

/// A snapshot that is to exist.
struct Planned {
    key: SnapshotKey,
    parent: Option<SnapshotKey>,
    diff_id: DiffId,
}

/// What is to be done for some stacks and blobs.
pub(crate) struct Plan {
    jobs: Vec<Job>,
    /// Parents before children.
    snapshots: Vec<Planned>,
    /// Blobs of the stacks for which there is nothing to do.
    here: Vec<(Digest, u64)>,
}

impl Plan {
    /// Finds out what is missing: of `stacks` the snapshots, of `blobs` the blobs themselves. A
    /// blob that a stack needs unpacked and that is in no `blobs` is read from the store.
    pub(crate) fn new(
        work: &Work<'_>,
        stacks: &[Stack],
        blobs: &[Descriptor],
    ) -> Result<Plan, Failure> {
        let mut jobs: HashMap<Digest, Job> = HashMap::new();
        for blob in blobs {
            work.pins.blob(work.ns, &blob.digest);
            let stored = check_stored(work, blob)?;
            jobs.entry(blob.digest.clone()).or_insert_with(|| Job {
                digest: blob.digest.clone(),
                size: blob.size,
                store: !stored,
                layer: None,
                trees: Vec::new(),
            });
        }
        let mut snapshots = Vec::new();
        let mut seen = HashSet::new();
        for stack in stacks {
            let mut parent = None;
            for ((layer, layer_type, diff_id), chain) in stack.layers.iter().zip(stack.chains()) {
                let key = SnapshotKey::from(&chain);
                if !jobs.contains_key(&layer.digest) {
                    work.pins.blob(work.ns, &layer.digest);
                    check_stored(work, layer)?;
                }
                let job = jobs.entry(layer.digest.clone()).or_insert_with(|| Job {
                    digest: layer.digest.clone(),
                    size: layer.size,
                    store: false,
                    layer: None,
                    trees: Vec::new(),
                });
                // One blob has one diff ID, or one of two chains would get the other's tree.
                if job
                    .layer
                    .as_ref()
                    .is_some_and(|(known, _)| known != diff_id)
                {
                    let reason = format!("layer {} is given two diff IDs", layer.digest);
                    let failure = Failure::new(ErrorKind::InvalidArgument, work.attempted, reason);
                    return Err(work.failure(failure));
                }
                job.layer = Some((diff_id.clone(), *layer_type));
                work.pins.snapshot(work.ns, &key);
                if seen.insert(key.clone()) && !work.node.has_snapshot(work.ns, &key)? {
                    job.trees.push(key.clone());
                    snapshots.push(Planned {
                        key: key.clone(),
                        parent: parent.clone(),
                        diff_id: diff_id.clone(),
                    });
                }
                parent = Some(key);
            }
        }
        let (jobs, here): (Vec<Job>, Vec<Job>) = jobs
            .into_values()
            .partition(|job| job.store || !job.trees.is_empty());
        Ok(Plan {
            jobs,
            snapshots,
            here: here.into_iter().map(|job| (job.digest, job.size)).collect(),
        })
    }

    /// Does it; nothing of the snapshots is visible before [`Ready::commit`]. On failure the blobs
    /// that were stored stay listed in `stored`.
    pub(crate) fn run(self, work: &Work<'_>, stored: &mut Vec<Digest>) -> Result<Ready, Failure> {
        for (digest, size) in &self.here {
            work.layer(digest, Phase::HereAlready, *size, *size);
        }
        let mut made = Made::default();
        let done = pool::run(work, self.jobs, &mut made);
        stored.append(&mut made.stored);
        done?;
        let mut trees: HashMap<SnapshotKey, Unpacked> = made
            .trees
            .into_iter()
            .map(|tree| (tree.key.clone(), tree))
            .collect();
        let usages = adopt_all(work, &self.snapshots, &trees)?;
        let mut layers = Vec::new();
        for (planned, (usage, commit)) in self.snapshots.into_iter().zip(usages) {
            let Some(tree) = trees.remove(&planned.key) else {
                continue;
            };
            layers.push(StagedLayer {
                staged: tree.staged,
                key: planned.key,
                parent: planned.parent,
                usage,
                diff_id: Some(planned.diff_id),
                blob: Some(tree.blob),
                timing: Some(LayerTiming {
                    commit,
                    ..tree.timing
                }),
                labels: cairn_types::Labels::new(),
            });
        }
        Ok(Ready { layers })
    }
}

/// Whether the store has a blob; one whose length is not what the manifest says is refused, as it is
/// where the bytes pass by.
fn check_stored(work: &Work<'_>, blob: &Descriptor) -> Result<bool, Failure> {
    match work.node.content().info(work.ns, &blob.digest) {
        Ok(info) if info.size == blob.size => Ok(true),
        Ok(info) => {
            let cause = format!("it has {} bytes instead of {}", info.size, blob.size);
            Err(work.damaged(&blob.digest).cause(cause))
        }
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(false),
        Err(err) => Err(work.store_failure(&blob.digest, &err)),
    }
}

/// Completes every new layer from those below it, lowest first; what each takes, and how long that was.
fn adopt_all(
    work: &Work<'_>,
    planned: &[Planned],
    trees: &HashMap<SnapshotKey, Unpacked>,
) -> Result<Vec<(Usage, Duration)>, Failure> {
    let parents_of: HashMap<&SnapshotKey, Option<&SnapshotKey>> = planned
        .iter()
        .map(|p| (&p.key, p.parent.as_ref()))
        .collect();
    let mut usages = Vec::with_capacity(planned.len());
    for planned in planned {
        let Some(tree) = trees.get(&planned.key) else {
            usages.push(Default::default());
            continue;
        };
        let began = Instant::now();
        let mut below: Vec<Dir> = Vec::new();
        let mut parent = planned.parent.as_ref();
        while let Some(key) = parent {
            match trees.get(key) {
                Some(tree) => {
                    below.push(tree.staged.dir().clone());
                    parent = parents_of.get(key).copied().flatten();
                }
                None => {
                    let lowers = work.node.snapshots().lowers(work.ns, key);
                    below.extend(lowers.map_err(|err| work.store_failure(&tree.blob, &err))?);
                    break;
                }
            }
        }
        let applied = &tree.unpacked.applied;
        let usage = cairn_layer::adopt(tree.staged.dir(), &below, applied, &Options::default())
            .map_err(|err| work.layer_failure(&tree.blob, &err))?;
        usages.push((usage, began.elapsed()));
    }
    Ok(usages)
}

/// Layers that are complete and not yet visible.
pub(crate) struct Ready {
    layers: Vec<StagedLayer>,
}

impl Ready {
    /// Makes them visible, all at once.
    pub(crate) fn commit(self, work: &Work<'_>) -> Result<(), Failure> {
        if self.layers.is_empty() {
            return Ok(());
        }
        let names: Vec<SnapshotKey> = self.layers.iter().map(|layer| layer.key.clone()).collect();
        let timings: Vec<LayerTiming> = self.layers.iter().filter_map(|l| l.timing).collect();
        let committed = work.node.snapshots().commit_stack(work.ns, self.layers);
        committed.map_err(|err| {
            let reason = "its snapshots cannot be recorded";
            work.failure(Failure::because(work.attempted, reason, &err))
        })?;
        for timing in &timings {
            work.node.layer_took(timing);
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

impl Node {
    /// Makes the snapshots of the image `target` (a manifest, or an index from which `platform`
    /// chooses; the host's when `None`) exist, and returns the chain ID of its top.
    ///
    /// Layers that are there already are left alone. An image without layers has no chain: `None`.
    pub fn unpack(
        &self,
        ns: &Namespace,
        target: &Descriptor,
        platform: Option<&Platform>,
        progress: &dyn Progress,
    ) -> Result<Option<ChainId>, Failure> {
        self.unpack_pinned(ns, target, platform, progress, &self.pins())
    }

    /// As [`Node::unpack`]; what it returns is not collected before `pins` are dropped.
    pub(crate) fn unpack_pinned(
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
        let open = |digest: &Digest, _| self.open_stored(ns, digest, "unpack image");
        let work = Work {
            node: self,
            ns,
            attempted: "unpack image",
            object: ("image", target.digest.to_string()),
            open: &open,
            location: &|_| None,
            advice: "import or pull the image again",
            progress,
            pins,
            missing: Arc::default(),
        };
        let stack = Stack::of(&work, picked, body)?;
        let chain = stack.chains().pop();
        let Some(top) = &chain else {
            return Ok(None);
        };
        // A snapshot's parents cannot go before it, so the top stands for all; nothing to tell then.
        pins.snapshot(ns, &SnapshotKey::from(top));
        if self.has_snapshot(ns, &SnapshotKey::from(top))? {
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
        let plan = Plan::new(&work, &[stack], &[])?;
        plan.run(&work, &mut Vec::new())?.commit(&work)?;
        self.hold_chain(ns, &body.manifest.config.digest, top)?;
        progress.event(Event::Done);
        Ok(chain)
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
