//! Writing images out as one archive that OCI and docker tools both read.

mod tar;

use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Read, Write},
};

use cairn_types::{
    ChainId, Descriptor, Digest, ErrorKind, Hasher, ImageName, Labels, LayerType, Namespace,
    Platform, PlatformMatcher, SnapshotKey, media,
};
use serde::Serialize;

use self::tar::TarWriter;
use crate::{
    Event, Failure, Node, Phase, Pins, Progress,
    failure::words,
    import::{IMAGE_NAME, REF_NAME},
    store::StoreBlobs,
    unpack::no_platform,
    walk::{Body, Tree},
};

const ATTEMPTED: &str = "export image";
/// Where a blob came from (containerd), told on to whoever imports it.
const SOURCE_LABEL: &str = "containerd.io/distribution.source.";

/// What to export, and how.
pub struct ExportRequest<'a> {
    /// The namespace that has the images.
    pub ns: Namespace,
    /// Gets the archive, in order; never seeked.
    pub out: &'a mut dyn Write,
    /// Full names, as [`Node::resolve`] returns them.
    pub names: Vec<ImageName>,
    /// Which platforms of an index to take; none means the host's.
    pub platforms: Vec<Platform>,
    /// Of each image it is enough if there is one for any of the platforms.
    pub any_platform: bool,
    /// Takes every platform; each must be here whole.
    pub all_platforms: bool,
    /// Leaves out docker's `manifest.json`.
    pub skip_manifest_json: bool,
    /// Leaves out foreign layers.
    pub skip_non_distributable: bool,
    /// Of each image takes nothing but what is said about it: the attestations of the platforms that
    /// would be taken otherwise, and the indexes that list them.
    pub only_attestations: bool,
}

/// `index.json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [Descriptor],
}

/// One image of docker's `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Vec<String>,
    layers: Vec<String>,
}

/// What goes into the archive.
#[derive(Default)]
struct Parts {
    /// Entries of `index.json`.
    entries: Vec<Descriptor>,
    /// By their names in the archive, so that they come out sorted.
    blobs: BTreeMap<String, Descriptor>,
    /// Docker's view, by manifest.
    saved: Vec<(Digest, Saved)>,
}

impl Node {
    /// Writes the archive and returns its length in bytes. Every blob is verified while it is
    /// written, so a damaged one ends in an error and an archive without end.
    pub fn export(
        &self,
        request: ExportRequest<'_>,
        progress: &dyn Progress,
    ) -> Result<u64, Failure> {
        let pins = self.pins();
        let mut parts = Parts::default();
        for name in &request.names {
            self.add_image(&request, name, &mut parts, &pins)?;
        }
        let title = match request.names.as_slice() {
            [only] => only.to_string(),
            names => format!("{} images", names.len()),
        };
        progress.event(Event::Resolved {
            name: title,
            platform: String::new(),
            layers: parts
                .blobs
                .values()
                .map(|b| (b.digest.clone(), b.size))
                .collect(),
        });
        let length = self.write_archive(request, &parts, progress)?;
        progress.event(Event::Done);
        Ok(length)
    }

    fn add_image(
        &self,
        request: &ExportRequest<'_>,
        name: &ImageName,
        parts: &mut Parts,
        pins: &Pins,
    ) -> Result<(), Failure> {
        let ns = &request.ns;
        let record = self.image_record(ns, name, ATTEMPTED)?;
        let blobs = StoreBlobs::new(self, ns, ATTEMPTED, name.to_string()).pinned(pins);
        let tree = Tree::read(&blobs, &record.target)?;
        if matches!(tree.body, Body::Missing | Body::Blob) {
            return Err(blobs.missing(&tree.descriptor));
        }
        let mut kept = manifests(request, name, &tree)?;
        if request.only_attestations {
            kept = attestations(request, name, &tree, &kept)?;
        }
        for manifest in tree.manifests() {
            if !kept.contains(&manifest.descriptor.digest) {
                continue;
            }
            if matches!(manifest.body, Body::Missing) {
                return Err(blobs.missing(&manifest.descriptor));
            }
            parts.add(&manifest.descriptor);
            for child in manifest.children(&|_| true) {
                pins.blob(ns, &child.digest);
                let layer = LayerType::parse(&child.media_type);
                let foreign = layer.is_some_and(|layer| layer.foreign);
                let here = self.has_blob(ns, &child.digest)?;
                if foreign && (request.skip_non_distributable || !here) {
                    continue;
                }
                if !here {
                    return Err(self.not_here(ns, (name, ATTEMPTED), manifest, child)?);
                }
                parts.add(child);
            }
        }
        let leaves = match request.only_attestations {
            true => Vec::new(),
            false => tree.leaves(),
        };
        for leaf in leaves {
            pins.blob(ns, &leaf.digest);
            if self.has_blob(ns, &leaf.digest)? {
                parts.add(leaf);
                kept.insert(leaf.digest.clone());
            }
        }
        indexes(&tree, &kept, parts);
        let mut entry = record.target.clone();
        entry.annotations = self.sources(ns, &entry.digest);
        entry
            .annotations
            .insert(IMAGE_NAME.to_owned(), name.to_string());
        entry
            .annotations
            .insert(REF_NAME.to_owned(), tag_of(name).to_owned());
        parts.entries.push(entry);
        parts.save(name, &tree, &kept);
        Ok(())
    }

    /// A blob that is not here: that of a layer which nobody kept once it was unpacked, or one that
    /// somebody took away.
    pub(crate) fn not_here(
        &self,
        ns: &Namespace,
        (name, attempted): (&ImageName, &str),
        manifest: &Tree,
        blob: &Descriptor,
    ) -> Result<Failure, Failure> {
        let failure = |what: &str| {
            let reason = format!("{what} {} is missing", blob.digest);
            let failure = Failure::new(ErrorKind::NotFound, attempted, reason);
            failure.object("image", name).namespace(ns)
        };
        if !self.is_unpacked(ns, manifest, &blob.digest)? {
            return Ok(failure("blob").next("import or pull the image again"));
        }
        let failure = failure("layer").cause("it was unpacked, and its packed bytes were not kept");
        Ok(failure.next(match self.inner.discard_layers {
            true => "set discard_layers = false under [unpack], then import the image again",
            false => "import it again without --discard-unpacked-layers: cairn images import FILE",
        }))
    }

    /// Whether this is a layer whose files are here.
    fn is_unpacked(
        &self,
        ns: &Namespace,
        manifest: &Tree,
        digest: &Digest,
    ) -> Result<bool, Failure> {
        let Body::Manifest(body) = &manifest.body else {
            return Ok(false);
        };
        let Some(config) = &body.config else {
            return Ok(false);
        };
        let chains = ChainId::stack(&config.rootfs.diff_ids);
        for (layer, chain) in body.manifest.layers.iter().zip(chains) {
            if layer.digest == *digest {
                return self.has_snapshot(ns, &SnapshotKey::from(&chain));
            }
        }
        Ok(false)
    }

    /// The labels that say from which registry a target came, as annotations.
    fn sources(&self, ns: &Namespace, digest: &Digest) -> Labels {
        let labels = self.content().info(ns, digest).map(|info| info.labels);
        let labels = labels.unwrap_or_default().into_iter();
        labels
            .filter(|(key, _)| key.starts_with(SOURCE_LABEL))
            .collect()
    }

    fn write_archive(
        &self,
        request: ExportRequest<'_>,
        parts: &Parts,
        progress: &dyn Progress,
    ) -> Result<u64, Failure> {
        let title: Vec<&str> = request.names.iter().map(ImageName::as_str).collect();
        let title = title.join(", ");
        let failed = |err: io::Error| {
            let kind = match err.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    ErrorKind::ResourceExhausted
                }
                io::ErrorKind::BrokenPipe => ErrorKind::Canceled,
                _ => ErrorKind::Internal,
            };
            Failure::new(kind, ATTEMPTED, "the archive cannot be written")
                .object("image", &title)
                .cause(words(&err))
        };
        let mut tar = TarWriter::new(request.out);
        tar.directory("blobs/").map_err(failed)?;
        let mut directory = String::new();
        for (name, blob) in &parts.blobs {
            let own = format!("blobs/{}/", blob.digest.algorithm().name());
            if own != directory {
                tar.directory(&own).map_err(failed)?;
                directory = own;
            }
            let source = self.open_stored(&request.ns, &blob.digest, ATTEMPTED)?;
            tar.file(name, 0o444, blob.size).map_err(failed)?;
            copy_verified(source, blob, &mut tar, &failed)?;
            progress.event(Event::Layer {
                digest: blob.digest.clone(),
                phase: Phase::Done,
                done: blob.size,
                total: blob.size,
            });
        }
        let index = Index {
            schema_version: 2,
            media_type: media::OCI_INDEX,
            manifests: &parts.entries,
        };
        let index = serde_json::to_vec(&index).expect("plain fields serialise");
        tar.small("index.json", 0o644, &index).map_err(failed)?;
        if !request.skip_manifest_json && !parts.saved.is_empty() {
            let saved: Vec<&Saved> = parts.saved.iter().map(|(_, saved)| saved).collect();
            let saved = serde_json::to_vec(&saved).expect("plain fields serialise");
            tar.small("manifest.json", 0o644, &saved).map_err(failed)?;
        }
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        tar.small("oci-layout", 0o444, layout).map_err(failed)?;
        tar.finish().map_err(failed)
    }
}

/// The manifests that go out: all that are asked for must be here, or any of them where that is enough;
/// attestations go along when they are.
fn manifests(
    request: &ExportRequest<'_>,
    name: &ImageName,
    tree: &Tree,
) -> Result<HashSet<Digest>, Failure> {
    let mut kept = HashSet::new();
    if request.all_platforms {
        kept.extend(tree.manifests().iter().map(|m| m.descriptor.digest.clone()));
        return Ok(kept);
    }
    let host = [Platform::host()];
    let wanted = match request.platforms.as_slice() {
        [] => &host,
        some => some,
    };
    let refused = |platform: &Platform| {
        no_platform(tree, platform, ATTEMPTED)
            .object("image", name)
            .namespace(&request.ns)
    };
    let mut unsuited = None;
    for platform in wanted {
        let matcher = PlatformMatcher::only(platform);
        match tree.pick(&matcher) {
            // The only manifest is taken as it is, unless another platform was asked for by name.
            Some(manifest) if request.platforms.is_empty() || manifest.is_for(&matcher) => {
                kept.insert(manifest.descriptor.digest.clone());
            }
            None if tree.images().next().is_none() => {}
            _ if request.any_platform => unsuited = unsuited.or(Some(platform)),
            _ => return Err(refused(platform)),
        }
    }
    if let Some(platform) = unsuited.filter(|_| kept.is_empty()) {
        return Err(refused(platform));
    }
    for manifest in tree.manifests() {
        if matches!(manifest.body, Body::Missing) {
            continue;
        }
        let belongs = match manifest.about() {
            Some(subject) => kept.contains(&subject),
            None => matches!(&manifest.body, Body::Manifest(body) if !body.is_image()),
        };
        if belongs {
            kept.insert(manifest.descriptor.digest.clone());
        }
    }
    Ok(kept)
}

/// Those of `kept` that are about others of them.
///
/// # Errors
/// `NotFound` when there is none: an archive without anything would look like one of nothing.
fn attestations(
    request: &ExportRequest<'_>,
    name: &ImageName,
    tree: &Tree,
    kept: &HashSet<Digest>,
) -> Result<HashSet<Digest>, Failure> {
    let manifests = tree.manifests().into_iter();
    let about = manifests.filter(|manifest| manifest.is_attestation());
    let digests = about.map(|manifest| manifest.descriptor.digest.clone());
    let found: HashSet<Digest> = digests.filter(|digest| kept.contains(digest)).collect();
    if found.is_empty() {
        let reason = "it has no attestations here";
        return Err(Failure::new(ErrorKind::NotFound, ATTEMPTED, reason)
            .object("image", name)
            .namespace(&request.ns)
            .next(format!("cairn images inspect {name}")));
    }
    Ok(found)
}

/// Adds the indexes on the way to what is kept.
fn indexes(tree: &Tree, kept: &HashSet<Digest>, parts: &mut Parts) -> bool {
    match &tree.body {
        Body::Index(children) => {
            let mut any = false;
            for child in children {
                any |= indexes(child, kept, parts);
            }
            if any {
                parts.add(&tree.descriptor);
            }
            any
        }
        _ => kept.contains(&tree.descriptor.digest),
    }
}

/// The tag of a name, or `latest` for one that has only a digest.
fn tag_of(name: &ImageName) -> &str {
    let name = name.as_str().split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map_or("latest", |(_, tag)| tag)
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

impl Parts {
    fn add(&mut self, descriptor: &Descriptor) {
        let path = path_of(&descriptor.digest);
        self.blobs.entry(path).or_insert_with(|| descriptor.clone());
    }

    /// Adds docker's view of an image. Docker knows one platform for a name: the host's if it is
    /// here, else the first.
    fn save(&mut self, name: &ImageName, tree: &Tree, kept: &HashSet<Digest>) {
        let host = PlatformMatcher::only(&Platform::host());
        let here = |tree: &&Tree| kept.contains(&tree.descriptor.digest);
        let manifest = tree
            .pick(&host)
            .filter(here)
            .or_else(|| tree.images().find(here));
        let Some((manifest, Body::Manifest(body))) = manifest.map(|tree| (tree, &tree.body)) else {
            return;
        };
        if !body.is_image() {
            return;
        }
        // `name@digest` is no tag.
        let tag = (!name.as_str().contains('@')).then(|| name.familiar().to_owned());
        let digest = &manifest.descriptor.digest;
        if let Some((_, known)) = self.saved.iter_mut().find(|(known, _)| known == digest) {
            known.repo_tags.extend(tag);
            return;
        }
        let layers = body
            .manifest
            .layers
            .iter()
            .map(|layer| path_of(&layer.digest));
        let saved = Saved {
            config: path_of(&body.manifest.config.digest),
            repo_tags: tag.into_iter().collect(),
            layers: layers.collect(),
        };
        self.saved.push((digest.clone(), saved));
    }
}

fn copy_verified(
    mut source: Box<dyn Read + Send>,
    blob: &Descriptor,
    tar: &mut TarWriter<'_>,
    failed: &dyn Fn(io::Error) -> Failure,
) -> Result<(), Failure> {
    let damaged = |cause: String| {
        let reason = format!("blob {} is damaged", blob.digest);
        Failure::new(ErrorKind::DataLoss, ATTEMPTED, reason)
            .cause(cause)
            .next("cairn fsck --deep --repair")
    };
    let mut hasher = Hasher::new(blob.digest.algorithm());
    let mut buffer = vec![0; 1 << 18];
    let mut length = 0;
    loop {
        let got = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => got,
            Err(err) if err.kind() == io::ErrorKind::Interrupted => continue,
            Err(err) => return Err(damaged(err.to_string())),
        };
        length += got as u64;
        if length > blob.size {
            return Err(damaged(format!("it has more than {} bytes", blob.size)));
        }
        hasher.update(&buffer[..got]);
        tar.data(&buffer[..got]).map_err(failed)?;
    }
    let actual = hasher.finish();
    if length < blob.size {
        return Err(damaged(format!(
            "it has {length} bytes instead of {}",
            blob.size
        )));
    }
    if actual != blob.digest {
        return Err(damaged(format!("its bytes hash to {actual}")));
    }
    Ok(())
}
