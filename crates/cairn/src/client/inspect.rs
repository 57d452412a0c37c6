//! What an image is made of, in words.

use cairn_proto::cairn::v1::{
    self, InspectNode, InspectRequest, InspectResponse, images_client::ImagesClient,
    inspect_node::Role,
};
use cairn_types::{Digest, ImageName, Platform};
use jiff::Timestamp;

use super::{Client, Result, images::image, link::client, objects::unparsed, plain::count, some};
use crate::{model, size as words};

/// A longer one is not looked at on a terminal.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// What is known about one image.
pub struct Details {
    /// The document.
    pub image: model::Image,
    /// For the default output.
    pub tree: model::Tree,
    /// As stored; empty when absent.
    pub manifest: Vec<u8>,
    /// As stored; empty when absent.
    pub config: Vec<u8>,
    /// Chain ID, bytes and inodes of each unpacked layer, lowest first.
    pub usage: Vec<(String, u64, u64)>,
    /// Of the chosen manifest, lowest first.
    pub layers: Vec<model::TimedLayer>,
}

impl Client {
    /// Everything about one image.
    pub fn inspect(&self, name: &ImageName, platform: Option<&Platform>) -> Result<Details> {
        let mut images = client!(self.link, ImagesClient<_>);
        let answer = images.inspect(self.link.request(InspectRequest {
            name: name.to_string(),
            platform: platform.map(Platform::to_string).unwrap_or_default(),
        }));
        Ok(details(self.link.wait(answer)?.into_inner()))
    }

    /// Reads what is JSON in a tree.
    ///
    /// # Errors
    /// When something is damaged: a person would look at what is not the image's.
    pub fn read_documents(&self, node: &mut model::Node) -> Result<()> {
        if node.readable && node.size <= DOCUMENT_BYTES_MAX {
            let (mut bytes, text) = (Vec::new(), &node.digest);
            let digest =
                Digest::parse(text).map_err(|err| unparsed("inspect image", text, &err))?;
            self.copy_blob(&digest, 0, None, &mut bytes)?;
            node.document = String::from_utf8(bytes).ok();
        }
        // As deep as an image's tree, which its reader limits.
        let mut children = node.children.iter_mut();
        children.try_for_each(|child| self.read_documents(child))
    }
}

fn details(inspect: InspectResponse) -> Details {
    let root = inspect.tree.unwrap_or_default();
    let mut usage = Vec::new();
    // The chosen manifest only: an index's variants would mix up their layers.
    let wanted =
        |node: &InspectNode| !inspect.manifest.is_empty() && digest(node) == inspect.manifest;
    let chosen = find(&root, &wanted);
    let mut layers = Vec::new();
    for layer in chosen.map(|m| &*m.children).unwrap_or_default() {
        if layer.role() == Role::Layer {
            layers.push(timed(layer));
        }
        if let (false, Some(on_disk)) = (layer.chain_id.is_empty(), layer.unpacked) {
            usage.push((layer.chain_id.clone(), on_disk.bytes, on_disk.inodes));
        }
    }
    let image = image(inspect.image.unwrap_or_default());
    Details {
        tree: model::Tree {
            name: image.name.clone(),
            namespace: image.namespace.clone(),
            added: image.created_at.0,
            root: tree(&root, &inspect.config_bytes, false),
        },
        image,
        manifest: inspect.manifest_bytes,
        config: inspect.config_bytes,
        usage,
        layers,
    }
}

fn timed(layer: &InspectNode) -> model::TimedLayer {
    model::TimedLayer {
        digest: digest(layer).to_owned(),
        diff_id: some(layer.diff_id.clone()),
        chain_id: some(layer.chain_id.clone()),
        size: size(layer),
        unpacked_size: layer.unpacked.map(|on_disk| on_disk.bytes),
        timing_ms: layer.timing.map(timing),
    }
}

pub(super) fn timing(timing: v1::LayerTiming) -> model::TimingMs {
    let ms = |micros: u64| micros.saturating_add(500) / 1000;
    model::TimingMs {
        fetch: ms(timing.fetch_us),
        inflate: ms(timing.inflate_us),
        untar: ms(timing.untar_us),
        sync: ms(timing.sync_us),
        commit: ms(timing.commit_us),
    }
}

fn size(node: &InspectNode) -> u64 {
    let descriptor = node.descriptor.as_ref();
    descriptor.map_or(0, |descriptor| count(descriptor.size))
}

fn digest(node: &InspectNode) -> &str {
    let descriptor = node.descriptor.as_ref();
    descriptor.map_or("", |descriptor| &*descriptor.digest)
}

fn media_type(node: &InspectNode) -> &str {
    let descriptor = node.descriptor.as_ref();
    descriptor.map_or("", |descriptor| &*descriptor.media_type)
}

fn find<'n>(
    node: &'n InspectNode,
    wanted: &dyn Fn(&InspectNode) -> bool,
) -> Option<&'n InspectNode> {
    if wanted(node) {
        return Some(node);
    }
    node.children.iter().find_map(|child| find(child, wanted))
}

/// The platform of a manifest is worth saying where there is a choice; its configuration says it.
fn tree(node: &InspectNode, config: &[u8], listed: bool) -> model::Node {
    let role = match node.role() {
        Role::Index => "index".to_owned(),
        Role::Manifest => "manifest".to_owned(),
        Role::Attestation => "attestation".to_owned(),
        Role::Config => "config".to_owned(),
        Role::Layer => format!("layer {}", node.layer),
        Role::Other => "blob".to_owned(),
    };
    let mut notes = match node.role() {
        Role::Config => config_notes(node, config),
        Role::Layer => layer_notes(node),
        _ => vec![media_type(node).to_owned()],
    };
    if node.role() == Role::Manifest && listed && !node.platform.is_empty() {
        notes.push(node.platform.clone());
    }
    if !node.present {
        notes.push("not here".to_owned());
    }
    model::Node {
        role,
        digest: digest(node).to_owned(),
        size: size(node),
        note: notes.join(", "),
        readable: node.present && is_json(node),
        document: None,
        children: node
            .children
            .iter()
            .map(|child| tree(child, config, true))
            .collect(),
    }
}

/// Documents are, and so are the statements that attestations have for layers.
fn is_json(node: &InspectNode) -> bool {
    let is_document = [Role::Index, Role::Manifest, Role::Attestation, Role::Config];
    is_document.contains(&node.role()) || media_type(node).ends_with("json")
}

fn layer_notes(node: &InspectNode) -> Vec<String> {
    let media_type = media_type(node);
    let form = match media_type.rsplit_once(['+', '.']) {
        Some((_, form @ ("gzip" | "zstd" | "tar"))) => form,
        _ => media_type,
    };
    let mut notes = vec![form.to_owned()];
    if !node.diff_id.is_empty() {
        notes.push(format!("diff {}", node.diff_id));
    }
    if let Some(usage) = node.unpacked {
        notes.push(format!("unpacked {}", words::bytes(usage.bytes)));
    }
    notes
}

/// What a person asks of a configuration: where it runs, what it starts, as whom, how old it is.
/// Only that of the chosen manifest is at hand; another's line has its platform alone.
fn config_notes(node: &InspectNode, bytes: &[u8]) -> Vec<String> {
    let mut notes: Vec<String> = some(node.platform.clone()).into_iter().collect();
    let is_it = |digest: Digest| Digest::of(digest.algorithm(), bytes) == digest;
    if !Digest::parse(digest(node)).is_ok_and(is_it) {
        return notes;
    }
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        notes.push("no image configuration".to_owned());
        return notes;
    };
    let part = &document["config"];
    for (key, word) in [("Entrypoint", "entrypoint"), ("Cmd", "cmd")] {
        if part[key].as_array().is_some_and(|a| !a.is_empty()) {
            notes.push(format!("{word} {}", part[key]));
        }
    }
    let user = part["User"].as_str().filter(|u| !u.is_empty());
    notes.push(format!("user {}", user.unwrap_or("0:0")));
    if let Some(built) = document["created"].as_str() {
        let time = built.parse::<Timestamp>().map(words::time);
        notes.push(format!("built {}", time.as_deref().unwrap_or(built)));
    }
    notes
}
