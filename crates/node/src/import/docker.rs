//! Archives of `docker save`, turned into what they would be as an OCI layout.
//!
//! Since Docker 1.10 such an archive has a `manifest.json`; before, a `repositories` file and one
//! directory for each layer. Neither holds a manifest, so one is made here, in the bytes containerd
//! makes (`core/images/archive/importer.go`), and from there on there is only one way to import.

use std::{collections::BTreeMap, io::Read};

use cairn_types::{Compression, Descriptor, DiffId, Digest, ErrorKind, Hasher, ImageName, media};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    ATTEMPTED,
    archive::{Archive, Member, Place},
    names::{IMAGE_NAME, REF_NAME},
};
use crate::{
    Failure,
    documents::{self, DOCUMENT_BYTES_MAX},
    walk::LAYERS_MAX,
};

/// Most bytes of `manifest.json` or `repositories`: one entry is some kilobytes.
const LISTING_BYTES_MAX: u64 = 20 << 20;

/// One image of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The part of a manifest that is made here, in the order of containerd's fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Made<'a> {
    schema_version: u32,
    media_type: &'a str,
    config: &'a Descriptor,
    layers: &'a [Descriptor],
}

/// Reads `manifest.json`, or `repositories` when that is missing; the images' manifests, named by
/// annotations. `None` when the archive has neither.
pub(super) fn read(archive: &mut Archive) -> Result<Option<Vec<Descriptor>>, Failure> {
    if let Some(member) = archive.member("manifest.json")? {
        let bytes = archive.read(&member, LISTING_BYTES_MAX)?;
        let saved: Vec<Saved> = parse(archive, &member.name, &bytes)?;
        let mut entries = Vec::new();
        for image in saved {
            let manifest = image_of(archive, &image)?;
            name(&mut entries, manifest, &image.repo_tags.unwrap_or_default());
        }
        return Ok(Some(entries));
    }
    if let Some(member) = archive.member("repositories")? {
        let bytes = archive.read(&member, LISTING_BYTES_MAX)?;
        return Ok(Some(repositories(archive, &member.name, &bytes)?));
    }
    tops_of_chains(archive)
}

/// Puts one entry per name into `entries`, or one without a name.
fn name(entries: &mut Vec<Descriptor>, manifest: Descriptor, tags: &[String]) {
    if tags.is_empty() {
        entries.push(manifest);
        return;
    }
    for tag in tags {
        let whole =
            ImageName::normalize(tag).map_or_else(|_| tag.clone(), |name| name.as_str().to_owned());
        let mut entry = manifest.clone();
        if let Some((_, tag)) = whole.rsplit_once(':') {
            entry
                .annotations
                .insert(REF_NAME.to_owned(), tag.to_owned());
        }
        entry.annotations.insert(IMAGE_NAME.to_owned(), whole);
        entries.push(entry);
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    archive: &Archive,
    name: &str,
    bytes: &[u8],
) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|err| damaged(archive, name, err.to_string()))
}

fn damaged(archive: &Archive, member: &str, cause: impl Into<String>) -> Failure {
    Failure::new(
        ErrorKind::InvalidArgument,
        ATTEMPTED,
        format!("its {member} is wrong"),
    )
    .object("archive", &archive.name)
    .cause(cause)
    .at(archive.location(member))
}

fn absent(archive: &Archive, what: &str, member: &str) -> Failure {
    Failure::new(
        ErrorKind::NotFound,
        ATTEMPTED,
        format!("{what} {member} is not in the archive"),
    )
    .object("archive", &archive.name)
    .next("fetch or save the archive again")
}

/// The synthesised manifest of one entry of `manifest.json`.
fn image_of(archive: &mut Archive, image: &Saved) -> Result<Descriptor, Failure> {
    let member = archive
        .member(&image.config)?
        .ok_or_else(|| absent(archive, "configuration", &image.config))?;
    let bytes = archive.read(&member, DOCUMENT_BYTES_MAX)?;
    let digest = Digest::sha256(&bytes);
    check_config_name(archive, &image.config, &digest)?;
    let config = documents::config(&bytes)
        .map_err(|err| damaged(archive, &image.config, err.to_string()))?;
    let paths = image.layers.clone().unwrap_or_default();
    let diff_ids = &config.rootfs.diff_ids;
    if paths.len() != diff_ids.len() || paths.len() > LAYERS_MAX {
        let cause = format!(
            "manifest.json lists {} layers, the configuration {} (at most {LAYERS_MAX} are taken)",
            paths.len(),
            diff_ids.len()
        );
        return Err(damaged(archive, &image.config, cause));
    }
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(diff_ids) {
        let member = archive
            .member(path)?
            .ok_or_else(|| absent(archive, "layer", path))?;
        layers.push(layer_of(archive, member, Some(diff_id))?);
    }
    Ok(manifest_of(archive, bytes, layers))
}

/// Docker names a configuration by its digest; other producers do so with the algorithm before it,
/// or not at all.
fn check_config_name(archive: &Archive, path: &str, actual: &Digest) -> Result<(), Failure> {
    let stem = path.strip_suffix(".json").unwrap_or(path);
    let stem = stem.strip_prefix("blobs/sha256/").unwrap_or(stem);
    let stem = stem.strip_prefix("sha256:").unwrap_or(stem);
    match Digest::parse(&format!("sha256:{stem}")) {
        Ok(named) if named != *actual => Err(Failure::new(
            ErrorKind::DataLoss,
            ATTEMPTED,
            format!("configuration {named} is damaged"),
        )
        .object("archive", &archive.name)
        .cause(format!("its bytes hash to {actual}"))
        .at(archive.location(path))
        .next("fetch the archive again")),
        _ => Ok(()),
    }
}

/// Keeps the configuration and the manifest made of it in the archive, as if they had been there.
fn manifest_of(archive: &mut Archive, config: Vec<u8>, layers: Vec<Descriptor>) -> Descriptor {
    let size = config.len() as u64;
    let digest = archive.keep(config);
    let config = Descriptor::new(media::DOCKER_CONFIG, digest, size);
    let made = Made {
        schema_version: 2,
        media_type: media::DOCKER_MANIFEST,
        config: &config,
        layers: &layers,
    };
    let bytes = serde_json::to_vec(&made).expect("a struct of plain fields serialises");
    let size = bytes.len() as u64;
    Descriptor::new(media::DOCKER_MANIFEST, archive.keep(bytes), size)
}

/// Describes a layer. A plain tar's digest is its diff ID, so nothing has to be read for it now; it
/// is proven when the layer passes.
fn layer_of(
    archive: &mut Archive,
    member: Member,
    diff_id: Option<&DiffId>,
) -> Result<Descriptor, Failure> {
    let mut head = [0; 4];
    let mut reader = archive.open(&member)?;
    let length = read_up_to(&mut reader, &mut head)
        .map_err(|err| damaged(archive, &member.name, err.to_string()))?;
    let media_type = match Compression::sniff(&head[..length]) {
        Compression::None => media::DOCKER_LAYER,
        Compression::Gzip => media::DOCKER_LAYER_GZIP,
        Compression::Zstd => media::DOCKER_LAYER_ZSTD,
    };
    let digest = match (&member.place, diff_id) {
        (Place::Stored(digest), _) => digest.clone(),
        (_, Some(diff_id)) if media_type == media::DOCKER_LAYER => diff_id.digest().clone(),
        _ => {
            let mut hasher = Hasher::new(cairn_types::Algorithm::Sha256);
            hasher.update(&head[..length]);
            hash_rest(&mut reader, &mut hasher)
                .map_err(|err| damaged(archive, &member.name, err.to_string()))?;
            hasher.finish()
        }
    };
    let descriptor = Descriptor::new(media_type, digest.clone(), member.size);
    archive.alias(digest, member);
    Ok(descriptor)
}

fn read_up_to(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..])? {
            0 => break,
            n => length += n,
        }
    }
    Ok(length)
}

fn hash_rest(reader: &mut dyn Read, hasher: &mut Hasher) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            n => hasher.update(&buffer[..n]),
        }
    }
}

/// `{"busybox": {"latest": "<id>"}}`, from before Docker 1.10.
fn repositories(
    archive: &mut Archive,
    member: &str,
    bytes: &[u8],
) -> Result<Vec<Descriptor>, Failure> {
    let names: BTreeMap<String, BTreeMap<String, String>> = parse(archive, member, bytes)?;
    let mut entries = Vec::new();
    for (repository, tags) in names {
        for (tag, id) in tags {
            let manifest = image_of_chain(archive, &id)?;
            name(&mut entries, manifest, &[format!("{repository}:{tag}")]);
        }
    }
    Ok(entries)
}

/// Without `repositories` (an image saved by its ID), the images are those `<id>/json` that are
/// nobody's parent.
fn tops_of_chains(archive: &mut Archive) -> Result<Option<Vec<Descriptor>>, Failure> {
    let ids: Vec<String> = archive
        .names()
        .into_iter()
        .filter_map(|name| name.strip_suffix("/json"))
        .filter(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_owned)
        .collect();
    if ids.is_empty() {
        return Ok(None);
    }
    let mut parents = Vec::new();
    for id in &ids {
        let old = v1_json(archive, id)?;
        parents.extend(old.get("parent").and_then(Value::as_str).map(str::to_owned));
    }
    let mut entries = Vec::new();
    for id in ids.iter().filter(|id| !parents.contains(id)) {
        let manifest = image_of_chain(archive, id)?;
        entries.push(manifest);
    }
    Ok(Some(entries))
}

fn v1_json(archive: &Archive, id: &str) -> Result<Map<String, Value>, Failure> {
    let path = format!("{id}/json");
    let member = archive
        .member(&path)?
        .ok_or_else(|| absent(archive, "layer", &path))?;
    let bytes = archive.read(&member, DOCUMENT_BYTES_MAX)?;
    parse(archive, &path, &bytes)
}

/// Follows `parent` from the top `<id>/json` down, and makes the configuration that Docker made
/// when it migrated such images (`image/v1/imagev1.go: MakeConfigFromV1Config`).
fn image_of_chain(archive: &mut Archive, top: &str) -> Result<Descriptor, Failure> {
    let mut chain = Vec::new();
    let mut id = Some(top.to_owned());
    while let Some(current) = id {
        let old = v1_json(archive, &current)?;
        id = old.get("parent").and_then(Value::as_str).map(str::to_owned);
        let parent_seen = chain.iter().any(|(seen, _)| Some(seen) == id.as_ref());
        chain.push((current, old));
        if chain.len() > LAYERS_MAX || parent_seen {
            let cause = format!("its layers form a loop, or are more than {LAYERS_MAX}");
            return Err(damaged(archive, &format!("{top}/json"), cause));
        }
    }
    let (mut layers, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
    for (id, old) in chain.iter().rev() {
        let path = format!("{id}/layer.tar");
        let member = archive
            .member(&path)?
            .ok_or_else(|| absent(archive, "layer", &path))?;
        let layer = layer_of(archive, member, None)?;
        if layer.media_type != media::DOCKER_LAYER {
            return Err(damaged(
                archive,
                &path,
                "it is packed, which no docker of its age did",
            ));
        }
        diff_ids.push(Value::String(layer.digest.to_string()));
        layers.push(layer);
        history.push(Value::Object(history_of(old)));
    }
    let mut config = chain.swap_remove(0).1;
    for key in ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"] {
        config.remove(key);
    }
    let rootfs = serde_json::json!({"type": "layers", "diff_ids": diff_ids});
    config.insert("rootfs".to_owned(), rootfs);
    config.insert("history".to_owned(), Value::Array(history));
    let bytes = serde_json::to_vec(&config).expect("a JSON map serialises");
    Ok(manifest_of(archive, bytes, layers))
}

fn history_of(old: &Map<String, Value>) -> Map<String, Value> {
    let mut history = Map::new();
    for key in ["author", "comment", "created"] {
        let value = old.get(key).filter(|v| v.as_str() != Some(""));
        history.extend(value.map(|v| (key.to_owned(), v.clone())));
    }
    let command = old.get("container_config").and_then(|c| c.get("Cmd"));
    let words = command.and_then(Value::as_array).map(|words| {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        Value::String(words.join(" "))
    });
    history.extend(words.map(|words| ("created_by".to_owned(), words)));
    history
}
