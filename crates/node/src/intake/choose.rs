//! What of an image is taken: the manifests for the platforms asked for, and what belongs to them.

use std::{collections::HashSet, num::NonZeroUsize, sync::Arc};

use cairn_types::{Descriptor, Digest, ErrorKind, ImageName, Platform, PlatformMatcher};

use super::Origin;
use crate::{
    Failure,
    unpack::no_platform,
    walk::{Body, Tree},
};

/// What is taken of an index beside the best manifest for each platform.
#[derive(Clone, Debug, Default)]
pub struct Extent {
    /// The manifests and configurations of all other platforms as well, without their layers.
    pub metadata: bool,
    /// Most images; `None` for as many as there are.
    pub limit: Option<NonZeroUsize>,
    /// It is enough if there is one for any of the platforms.
    pub any: bool,
    /// Of which platforms images are unpacked where all are taken; without any the host's.
    pub unpacked: Vec<Platform>,
}

/// Which manifests are taken of an index.
pub(crate) struct Wanted {
    pub(crate) which: Which,
    extent: Extent,
}

/// Which platforms are.
pub(crate) enum Which {
    /// Every one that the archive has.
    All,
    /// The best match for each of these. When they were `asked` for by name, an image for another
    /// platform that is the only one is none of them; for want of a wish it is taken as it is.
    Best {
        matchers: Vec<PlatformMatcher>,
        asked: bool,
    },
}

impl Wanted {
    /// Without any platform, the host's.
    pub(crate) fn new(platforms: &[Platform], all: bool, extent: Extent) -> Wanted {
        let host = [Platform::host()];
        let asked = !platforms.is_empty();
        let platforms = if asked { platforms } else { &host };
        let which = match all {
            true => Which::All,
            false => Which::Best {
                matchers: platforms.iter().map(PlatformMatcher::only).collect(),
                asked,
            },
        };
        Wanted { which, extent }
    }

    /// Whether an entry of an index is for one of these, as far as it says.
    pub(crate) fn suits(&self, entry: &Descriptor) -> bool {
        match (&self.which, &entry.platform) {
            (Which::All, _) | (_, None) => true,
            (Which::Best { matchers, .. }, Some(platform)) => matchers
                .iter()
                .any(|matcher| matcher.rank(platform).is_some()),
        }
    }

    /// Whether what an entry of an index leads to has to be looked at.
    pub(crate) fn reads(&self, entry: &Descriptor) -> bool {
        self.extent.metadata || self.suits(entry)
    }
}

/// One image that will be stored.
#[derive(Clone)]
pub(crate) struct Chosen {
    /// What it will be called; more than one with `--digests`.
    pub(crate) names: Vec<ImageName>,
    /// Its target and everything below that is to be had.
    pub(crate) tree: Arc<Tree>,
    /// Documents and blobs that are kept.
    pub(crate) kept: HashSet<Digest>,
    /// Manifests of images that are to be unpacked, by digest.
    pub(crate) images: Vec<Digest>,
}

/// Chooses from what an image's target leads to.
pub(crate) fn choose_one(
    origin: &dyn Origin,
    tree: Tree,
    names: Vec<ImageName>,
    wanted: &Wanted,
) -> Result<Chosen, Failure> {
    if matches!(tree.body, Body::Missing | Body::Blob) {
        return Err(lacks(origin, "manifest", &tree.descriptor.digest));
    }
    let mut taken = Taken::default();
    match &wanted.which {
        Which::All => taken.all(origin, &tree, &wanted.extent)?,
        Which::Best { matchers, asked } => {
            let unsuited = taken.best(origin, &tree, (matchers, *asked), &wanted.extent)?;
            if let Some(platform) = unsuited {
                return Err(self::unsuited(origin, &tree, &names, platform));
            }
        }
    }
    let Taken { mut kept, images } = taken;
    keep_companions(origin, &tree, &mut kept, wanted.extent.limit.is_none())?;
    for leaf in tree.leaves().into_iter().filter(|leaf| wanted.suits(leaf)) {
        if is_to_be_had(origin, &leaf.digest)? {
            kept.insert(leaf.digest.clone());
        }
    }
    if kept.is_empty() {
        let reason = format!("none of its manifests is in {}", origin.place());
        return Err(about(
            origin,
            Failure::new(ErrorKind::NotFound, origin.attempted(), reason),
        ));
    }
    if wanted.extent.metadata {
        keep_metadata(origin, &tree, &mut kept)?;
    }
    keep_indexes(&tree, &mut kept);
    Ok(Chosen {
        names,
        tree: Arc::new(tree),
        kept,
        images,
    })
}

/// What is chosen so far, as [`Chosen`] has it.
#[derive(Default)]
struct Taken {
    kept: HashSet<Digest>,
    images: Vec<Digest>,
}

impl Taken {
    /// Every manifest that is to be had, as many as may be. Those that an archive lists and does not carry
    /// are other platforms, left out by who made it.
    fn all(&mut self, origin: &dyn Origin, tree: &Tree, extent: &Extent) -> Result<(), Failure> {
        let mut manifests = tree.manifests();
        if extent.limit.is_some() {
            manifests.retain(|manifest| !manifest.is_attestation());
            // As containerd counts them (`core/images/handlers.go: LimitManifests`).
            manifests.sort_by_key(|manifest| manifest.descriptor.platform.is_none());
        }
        let mut left = extent.limit.map_or(usize::MAX, NonZeroUsize::get);
        for manifest in manifests {
            if left == 0 {
                break;
            }
            keep(origin, manifest, &mut self.kept, false)?;
            left -= usize::from(self.kept.contains(&manifest.descriptor.digest));
        }
        let host = [Platform::host()];
        let unpacked = match extent.unpacked.as_slice() {
            [] => &host,
            some => some,
        };
        for platform in unpacked {
            let best = tree.pick(&PlatformMatcher::only(platform));
            let best = best.map(|tree| &tree.descriptor.digest);
            let best =
                best.filter(|best| self.kept.contains(*best) && !self.images.contains(*best));
            self.images.extend(best.cloned());
        }
        Ok(())
    }

    /// The best manifest for each platform, as many as may be. The first platform for which there is none,
    /// if that is wrong.
    fn best<'m>(
        &mut self,
        origin: &dyn Origin,
        tree: &Tree,
        (matchers, asked): (&'m [PlatformMatcher], bool),
        extent: &Extent,
    ) -> Result<Option<&'m Platform>, Failure> {
        let mut unsuited = None;
        for matcher in matchers {
            match tree.pick(matcher) {
                Some(manifest) if !asked || manifest.is_for(matcher) => {
                    let digest = &manifest.descriptor.digest;
                    if self.images.contains(digest) {
                        continue;
                    }
                    if extent
                        .limit
                        .is_some_and(|most| self.images.len() >= most.get())
                    {
                        break;
                    }
                    keep(origin, manifest, &mut self.kept, true)?;
                    self.images.push(digest.clone());
                }
                None if tree.images().next().is_none() => {}
                _ if !extent.any => return Ok(Some(matcher.wanted())),
                _ => unsuited = unsuited.or_else(|| Some(matcher.wanted())),
            }
        }
        Ok(unsuited.filter(|_| self.images.is_empty()))
    }
}

fn is_to_be_had(origin: &dyn Origin, digest: &Digest) -> Result<bool, Failure> {
    Ok(origin.has(digest)? || origin.has_stored(digest))
}

fn about(origin: &dyn Origin, failure: Failure) -> Failure {
    let (kind, name) = origin.object();
    failure.object(kind, name)
}

fn lacks(origin: &dyn Origin, what: &str, digest: &Digest) -> Failure {
    let reason = format!("{what} {digest} is not in {}", origin.place());
    let failure = Failure::new(ErrorKind::NotFound, origin.attempted(), reason);
    about(origin, failure).next(origin.advice().1)
}

fn unsuited(origin: &dyn Origin, tree: &Tree, names: &[ImageName], wanted: &Platform) -> Failure {
    let failure = no_platform(tree, wanted, origin.of_image());
    let mut failure = match names.first() {
        Some(name) => failure.object("image", name),
        None => about(origin, failure),
    };
    // Each of them is a command of its own.
    failure.other_platform = None;
    for platform in tree.platforms() {
        failure.next.push(origin.with_platform(&platform));
    }
    failure
}

/// Keeps a manifest with its blobs. One that is not `needed` is left out when any is missing.
fn keep(
    origin: &dyn Origin,
    manifest: &Tree,
    kept: &mut HashSet<Digest>,
    needed: bool,
) -> Result<(), Failure> {
    if matches!(manifest.body, Body::Missing) {
        if needed {
            return Err(lacks(origin, "manifest", &manifest.descriptor.digest));
        }
        return Ok(());
    }
    let children = manifest.children(&|_| true);
    for child in &children {
        if is_to_be_had(origin, &child.digest)? || is_foreign(child) || child.data.is_some() {
            continue;
        }
        if !needed {
            return Ok(());
        }
        let cause = format!("manifest {} needs it", manifest.descriptor.digest);
        return Err(lacks(origin, "blob", &child.digest).cause(cause));
    }
    kept.insert(manifest.descriptor.digest.clone());
    kept.extend(children.into_iter().map(|child| child.digest.clone()));
    Ok(())
}

pub(crate) fn is_foreign(descriptor: &Descriptor) -> bool {
    cairn_types::LayerType::parse(&descriptor.media_type).is_some_and(|layer| layer.foreign)
}

/// Attestations go with the manifest they are about; `artifacts` have no platform to be chosen by.
fn keep_companions(
    origin: &dyn Origin,
    tree: &Tree,
    kept: &mut HashSet<Digest>,
    artifacts: bool,
) -> Result<(), Failure> {
    for manifest in tree.manifests() {
        let belongs = match manifest.about() {
            Some(subject) => kept.contains(&subject),
            None => match &manifest.body {
                Body::Manifest(body) => artifacts && !body.is_image() && !manifest.is_attestation(),
                _ => false,
            },
        };
        if belongs {
            keep(origin, manifest, kept, false)?;
        }
    }
    Ok(())
}

/// Keeps the manifests that were not taken, with their configurations alone.
fn keep_metadata(
    origin: &dyn Origin,
    tree: &Tree,
    kept: &mut HashSet<Digest>,
) -> Result<(), Failure> {
    for manifest in tree.manifests() {
        let Body::Manifest(body) = &manifest.body else {
            continue;
        };
        let config = &body.manifest.config;
        if kept.insert(manifest.descriptor.digest.clone())
            && (config.data.is_some() || is_to_be_had(origin, &config.digest)?)
        {
            kept.insert(config.digest.clone());
        }
    }
    Ok(())
}

/// Indexes on the way to what is kept. Returns whether there is any.
fn keep_indexes(tree: &Tree, kept: &mut HashSet<Digest>) -> bool {
    match &tree.body {
        Body::Index(children) => {
            let mut any = false;
            for child in children {
                any |= keep_indexes(child, kept);
            }
            if any {
                kept.insert(tree.descriptor.digest.clone());
            }
            any
        }
        _ => kept.contains(&tree.descriptor.digest),
    }
}
