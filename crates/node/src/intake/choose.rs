//! What of an image is taken: the manifests for the platforms asked for, and what belongs to them.

use std::{collections::HashSet, sync::Arc};

use cairn_types::{Descriptor, Digest, ErrorKind, ImageName, Platform, PlatformMatcher};

use super::Origin;
use crate::{
    Failure,
    unpack::no_platform,
    walk::{Body, Tree},
};

/// Which platforms are taken of an index.
pub(crate) enum Wanted {
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
    /// Without any, the host's.
    pub(crate) fn new(platforms: &[Platform], all: bool) -> Wanted {
        if all {
            return Wanted::All;
        }
        let host = [Platform::host()];
        let asked = !platforms.is_empty();
        let platforms = if asked { platforms } else { &host };
        Wanted::Best {
            matchers: platforms.iter().map(PlatformMatcher::only).collect(),
            asked,
        }
    }

    /// Whether an entry of an index is for one of these, as far as it says.
    pub(crate) fn suits(&self, entry: &Descriptor) -> bool {
        match (self, &entry.platform) {
            (Wanted::All, _) | (_, None) => true,
            (Wanted::Best { matchers, .. }, Some(platform)) => matchers
                .iter()
                .any(|matcher| matcher.rank(platform).is_some()),
        }
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
    let mut kept = HashSet::new();
    let mut images = Vec::new();
    match wanted {
        Wanted::All => {
            // Those that an archive lists and does not carry are other platforms, left out by who
            // made it.
            for manifest in tree.manifests() {
                keep(origin, manifest, &mut kept, false)?;
            }
            let host = PlatformMatcher::only(&Platform::host());
            let best = tree
                .pick(&host)
                .filter(|t| kept.contains(&t.descriptor.digest));
            images.extend(best.map(|tree| tree.descriptor.digest.clone()));
        }
        Wanted::Best { matchers, asked } => {
            for matcher in matchers {
                match tree.pick(matcher) {
                    Some(manifest) if *asked && !manifest.is_for(matcher) => {
                        return Err(unsuited(origin, &tree, &names, matcher.wanted()));
                    }
                    Some(manifest) => {
                        keep(origin, manifest, &mut kept, true)?;
                        images.push(manifest.descriptor.digest.clone());
                    }
                    None if tree.images().next().is_none() => {}
                    None => return Err(unsuited(origin, &tree, &names, matcher.wanted())),
                }
            }
        }
    }
    keep_companions(origin, &tree, &mut kept)?;
    for leaf in tree.leaves().into_iter().filter(|leaf| wanted.suits(leaf)) {
        let here = origin.has(&leaf.digest)? || origin.has_stored(&leaf.digest);
        if here {
            kept.insert(leaf.digest.clone());
        }
    }
    keep_indexes(&tree, &mut kept);
    images.dedup();
    if kept.is_empty() {
        let reason = format!("none of its manifests is in {}", origin.place());
        return Err(about(
            origin,
            Failure::new(ErrorKind::NotFound, origin.attempted(), reason),
        ));
    }
    Ok(Chosen {
        names,
        tree: Arc::new(tree),
        kept,
        images,
    })
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
        let here = origin.has(&child.digest)? || origin.has_stored(&child.digest);
        if here || is_foreign(child) || child.data.is_some() {
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

/// Attestations go with the manifest they are about; artifacts have no platform to be chosen by.
fn keep_companions(
    origin: &dyn Origin,
    tree: &Tree,
    kept: &mut HashSet<Digest>,
) -> Result<(), Failure> {
    for manifest in tree.manifests() {
        let about = manifest
            .descriptor
            .annotations
            .get("vnd.docker.reference.digest");
        let belongs = match about.and_then(|text| Digest::parse(text).ok()) {
            Some(subject) => kept.contains(&subject),
            None => match &manifest.body {
                Body::Manifest(body) => !body.is_image() && !manifest.is_attestation(),
                _ => false,
            },
        };
        if belongs {
            keep(origin, manifest, kept, false)?;
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
