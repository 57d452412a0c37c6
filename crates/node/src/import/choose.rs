//! Which images of an archive are taken.

use std::{collections::HashSet, sync::Arc};

use cairn_types::{Digest, ErrorKind, ImageName, NameError};

use super::{
    ATTEMPTED,
    contents::{ArchiveBlobs, Contents},
    names::Naming,
    origin::Archived,
};
use crate::{
    Failure,
    intake::{Chosen, Origin, Wanted, Which, choose_one},
    walk::Tree,
};

/// How images are told apart and named.
pub(super) struct Choice {
    pub(super) naming: Naming,
    pub(super) wanted: Wanted,
}

/// Chooses from every entry of the archive. An entry that is listed for another platform only is
/// left out, like one of an index; whatever else is wrong with one is wrong with the archive.
pub(super) fn choose(
    origin: &Archived<'_>,
    contents: &Contents,
    options: &Choice,
) -> Result<Vec<Chosen>, Failure> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut others = Vec::new();
    let archive = origin.archive;
    let blobs = ArchiveBlobs { archive };
    let unnamed = |err: NameError| Failure::of(ATTEMPTED, &err).object("archive", &archive.name);
    let of_index = options.naming.of_index(&contents.index.digest);
    let of_index = of_index.map_err(unnamed)?;
    for entry in &contents.entries {
        let names = options.naming.names(entry).map_err(unnamed)?;
        if names.is_empty() && of_index.is_empty() {
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
        chosen.push(choose_one(origin, tree, names, &options.wanted)?);
    }
    if chosen.is_empty() {
        let failure = match (&options.wanted.which, others.as_slice()) {
            (Which::Best { matchers, .. }, [first, ..]) => {
                let reason = format!("no manifest for {}", matchers[0].wanted());
                Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
                    .cause(format!("it has {}", others.join(", ")))
                    .next(origin.with_platform(first))
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
    if !of_index.is_empty() {
        chosen.push(whole(origin, contents, of_index, &chosen)?);
    }
    Ok(chosen)
}

/// The archive's own index as an image, over what was chosen of its entries.
fn whole(
    origin: &Archived<'_>,
    contents: &Contents,
    names: Vec<ImageName>,
    chosen: &[Chosen],
) -> Result<Chosen, Failure> {
    let archive = origin.archive;
    let tree = Tree::read(&ArchiveBlobs { archive }, &contents.index)?;
    let mut kept: HashSet<Digest> = chosen.iter().flat_map(|c| c.kept.iter().cloned()).collect();
    kept.insert(contents.index.digest.clone());
    Ok(Chosen {
        names,
        tree: Arc::new(tree),
        kept,
        images: Vec::new(),
    })
}
