//! What an image is made of, in words.

use cairn_node::{Inspect, InspectNode, Role};
use cairn_types::{Digest, ImageName, Platform};
use jiff::Timestamp;

use super::{Client, Result, images::image, moment};
use crate::{model, size};

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
}

impl Client {
    /// Everything about one image.
    pub fn inspect(&self, name: &ImageName, platform: Option<&Platform>) -> Result<Details> {
        Ok(details(self.node.inspect(&self.ns, name, platform)?))
    }
}

fn details(inspect: Inspect) -> Details {
    let mut usage = Vec::new();
    // The chosen manifest only: an index's variants would mix up their layers.
    let wanted = inspect.manifest.as_ref().map(|m| &m.digest);
    let chosen = find(&inspect.tree, &|n| Some(&n.descriptor.digest) == wanted);
    for layer in chosen.map(|m| &*m.children).unwrap_or_default() {
        if let (Some(chain), Some(on_disk)) = (&layer.chain_id, layer.unpacked) {
            usage.push((chain.to_string(), on_disk.bytes, on_disk.inodes));
        }
    }
    Details {
        tree: model::Tree {
            name: inspect.image.name.to_string(),
            namespace: inspect.image.namespace.to_string(),
            added: moment(inspect.image.created_at),
            root: tree(&inspect.tree, &inspect.config_bytes, false),
        },
        image: image(inspect.image),
        manifest: inspect.manifest_bytes,
        config: inspect.config_bytes,
        usage,
    }
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
    let role = match node.role {
        Role::Index => "index".to_owned(),
        Role::Manifest => "manifest".to_owned(),
        Role::Attestation => "attestation".to_owned(),
        Role::Config => "config".to_owned(),
        Role::Layer(n) => format!("layer {n}"),
        Role::Other => "blob".to_owned(),
    };
    let mut notes = match node.role {
        Role::Config => config_notes(node, config),
        Role::Layer(_) => layer_notes(node),
        _ => vec![node.descriptor.media_type.clone()],
    };
    if let (Role::Manifest, true, Some(platform)) = (node.role, listed, &node.platform) {
        notes.push(platform.to_string());
    }
    if !node.present {
        notes.push("not here".to_owned());
    }
    model::Node {
        role,
        digest: node.descriptor.digest.to_string(),
        size: node.descriptor.size,
        note: notes.join(", "),
        children: node
            .children
            .iter()
            .map(|child| tree(child, config, true))
            .collect(),
    }
}

fn layer_notes(node: &InspectNode) -> Vec<String> {
    let media_type = &node.descriptor.media_type;
    let form = match media_type.rsplit_once(['+', '.']) {
        Some((_, form @ ("gzip" | "zstd" | "tar"))) => form,
        _ => media_type,
    };
    let mut notes = vec![form.to_owned()];
    if let Some(diff) = &node.diff_id {
        notes.push(format!("diff {diff}"));
    }
    if let Some(usage) = node.unpacked {
        notes.push(format!("unpacked {}", size::bytes(usage.bytes)));
    }
    notes
}

/// What a person asks of a configuration: where it runs, what it starts, as whom, how old it is.
/// Only that of the chosen manifest is at hand; another's line has its platform alone.
fn config_notes(node: &InspectNode, bytes: &[u8]) -> Vec<String> {
    let mut notes: Vec<String> = node.platform.iter().map(ToString::to_string).collect();
    if Digest::of(node.descriptor.digest.algorithm(), bytes) != node.descriptor.digest {
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
        let time = built.parse::<Timestamp>().map(size::time);
        notes.push(format!("built {}", time.as_deref().unwrap_or(built)));
    }
    notes
}
