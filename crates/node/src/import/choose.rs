//! What of an archive is taken: the manifests for the platforms asked for, and what belongs to them.

use std::collections::HashSet;

use cairn_types::{Descriptor, Digest, ErrorKind, ImageName, Platform, PlatformMatcher};

use super::{
    ATTEMPTED,
    archive::Archive,
    contents::{ArchiveBlobs, Contents},
    write::Options,
};
use crate::{
    Failure,
    import::file_word,
    unpack::no_platform,
    walk::{Body, Tree},
};

/// Which platforms are taken of an index.
pub(super) enum Wanted {
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
    pub(super) fn new(platforms: &[Platform], all: bool) -> Wanted {
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

    /// Whether an entry at the top of the archive is for one of these, as far as it says.
    fn suits(&self, entry: &Descriptor) -> bool {
        match (self, &entry.platform) {
            (Wanted::All, _) | (_, None) => true,
            (Wanted::Best { matchers, .. }, Some(platform)) => matchers
                .iter()
                .any(|matcher| matcher.rank(platform).is_some()),
        }
    }
}

/// One image that will be imported.
pub(super) struct Chosen {
    /// What it will be called; more than one with `--digests`.
    pub(super) names: Vec<ImageName>,
    /// Its target and everything below that the archive has.
    pub(super) tree: Tree,
    /// Documents and blobs that are kept.
    pub(super) kept: HashSet<Digest>,
    /// Manifests of images that are to be unpacked, by digest.
    pub(super) images: Vec<Digest>,
}

/// Chooses from every entry of the archive. An entry that is listed for another platform only is
/// left out, like one of an index; whatever else is wrong with one is wrong with the archive.
pub(super) fn choose(
    archive: &Archive,
    contents: &Contents,
    options: &Options,
) -> Result<Vec<Chosen>, Failure> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut others = Vec::new();
    let blobs = ArchiveBlobs { archive };
    for entry in &contents.entries {
        let names = options
            .naming
            .names(entry)
            .map_err(|err| Failure::of(ATTEMPTED, &err).object("archive", &archive.name))?;
        if names.is_empty() && options.index_name.is_none() {
            continue;
        }
        if !options.wanted.suits(entry) {
            others.extend(entry.platform.as_ref().map(ToString::to_string));
            continue;
        }
        let mut target = entry.clone();
        // What the archive says about the entry is about this archive, not about the image.
        target.annotations.clear();
        let tree = Tree::read(&blobs, &target)?;
        chosen.push(one(archive, tree, names, &options.wanted)?);
    }
    if chosen.is_empty() {
        let failure = match (&options.wanted, others.as_slice()) {
            (Wanted::Best { matchers, .. }, [first, ..]) => {
                let reason = format!("no manifest for {}", matchers[0].wanted());
                Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
                    .cause(format!("it has {}", others.join(", ")))
                    .next(import_with(first, archive))
            }
            _ => Failure::new(
                ErrorKind::NotFound,
                ATTEMPTED,
                "none of its images has the name asked for",
            )
            .next("leave out --base-name"),
        };
        return Err(failure.object("archive", &archive.name));
    }
    if let Some(name) = &options.index_name {
        chosen.push(whole(archive, contents, name, &chosen)?);
    }
    Ok(chosen)
}

/// The archive's own index as an image, over what was chosen of its entries.
fn whole(
    archive: &Archive,
    contents: &Contents,
    name: &str,
    chosen: &[Chosen],
) -> Result<Chosen, Failure> {
    let tree = Tree::read(&ArchiveBlobs { archive }, &contents.index)?;
    let name = ImageName::normalize(name)
        .map_err(|err| Failure::of(ATTEMPTED, &err).object("archive", &archive.name))?;
    let mut kept: HashSet<Digest> = chosen.iter().flat_map(|c| c.kept.iter().cloned()).collect();
    kept.insert(contents.index.digest.clone());
    Ok(Chosen {
        names: vec![name],
        tree,
        kept,
        images: Vec::new(),
    })
}

fn one(
    archive: &Archive,
    tree: Tree,
    names: Vec<ImageName>,
    wanted: &Wanted,
) -> Result<Chosen, Failure> {
    if matches!(tree.body, Body::Missing | Body::Blob) {
        let reason = format!("manifest {} is not in the archive", tree.descriptor.digest);
        return Err(Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
            .object("archive", &archive.name)
            .next("fetch or save the archive again"));
    }
    let mut kept = HashSet::new();
    let mut images = Vec::new();
    match wanted {
        Wanted::All => {
            // Those that an archive lists and does not carry are other platforms, left out by who
            // made it.
            for manifest in tree.manifests() {
                keep(archive, manifest, &mut kept, false)?;
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
                    Some(manifest) if *asked && !is_for(manifest, matcher) => {
                        return Err(unsuited(archive, &tree, &names, matcher.wanted()));
                    }
                    Some(manifest) => {
                        keep(archive, manifest, &mut kept, true)?;
                        images.push(manifest.descriptor.digest.clone());
                    }
                    None if tree.images().next().is_none() => {}
                    None => return Err(unsuited(archive, &tree, &names, matcher.wanted())),
                }
            }
        }
    }
    keep_companions(archive, &tree, &mut kept)?;
    for leaf in tree.leaves().into_iter().filter(|leaf| wanted.suits(leaf)) {
        let here = archive.blob(&leaf.digest)?.is_some() || archive.has_stored(&leaf.digest);
        if here {
            kept.insert(leaf.digest.clone());
        }
    }
    keep_indexes(&tree, &mut kept);
    images.dedup();
    if kept.is_empty() {
        let reason = "none of its manifests is in the archive";
        return Err(
            Failure::new(ErrorKind::NotFound, ATTEMPTED, reason).object("archive", &archive.name)
        );
    }
    Ok(Chosen {
        names,
        tree,
        kept,
        images,
    })
}

/// A manifest that says no platform is for any.
fn is_for(manifest: &Tree, matcher: &PlatformMatcher) -> bool {
    let platform = manifest.platform();
    platform.is_none_or(|platform| matcher.rank(&platform).is_some())
}

fn import_with(platform: &str, archive: &Archive) -> String {
    let file = file_word(&archive.name);
    format!("cairn images import --platform {platform} {file}")
}

fn unsuited(archive: &Archive, tree: &Tree, names: &[ImageName], wanted: &Platform) -> Failure {
    let failure = no_platform(tree, wanted, "import image");
    let mut failure = match names.first() {
        Some(name) => failure.object("image", name),
        None => failure.object("archive", &archive.name),
    };
    // Each of them is a command of its own.
    failure.other_platform = None;
    for platform in tree.platforms() {
        failure.next.push(import_with(&platform, archive));
    }
    failure
}

/// Keeps a manifest with its blobs. One that is not `needed` is left out when any is missing.
fn keep(
    archive: &Archive,
    manifest: &Tree,
    kept: &mut HashSet<Digest>,
    needed: bool,
) -> Result<(), Failure> {
    if matches!(manifest.body, Body::Missing) {
        if needed {
            let reason = format!(
                "manifest {} is not in the archive",
                manifest.descriptor.digest
            );
            return Err(Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
                .object("archive", &archive.name)
                .next("fetch or save the archive again"));
        }
        return Ok(());
    }
    let children = manifest.children(&|_| true);
    for child in &children {
        let here = archive.blob(&child.digest)?.is_some() || archive.has_stored(&child.digest);
        if here || is_foreign(child) || child.data.is_some() {
            continue;
        }
        if !needed {
            return Ok(());
        }
        let reason = format!("blob {} is not in the archive", child.digest);
        return Err(Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
            .object("archive", &archive.name)
            .cause(format!("manifest {} needs it", manifest.descriptor.digest))
            .next("fetch or save the archive again"));
    }
    kept.insert(manifest.descriptor.digest.clone());
    kept.extend(children.into_iter().map(|child| child.digest.clone()));
    Ok(())
}

pub(super) fn is_foreign(descriptor: &Descriptor) -> bool {
    cairn_types::LayerType::parse(&descriptor.media_type).is_some_and(|layer| layer.foreign)
}

/// Attestations go with the manifest they are about; artifacts have no platform to be chosen by.
fn keep_companions(
    archive: &Archive,
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
            keep(archive, manifest, kept, false)?;
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
