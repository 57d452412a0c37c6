//! What each namespace has, and what of it nobody else does.

use cairn_types::Namespace;

use super::item::Item;
use crate::{
    Failure, Node,
    df::{Holders, Part, Parts},
};

/// What one namespace takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceUsage {
    /// Its name.
    pub namespace: Namespace,
    /// Bytes of the blobs that it sees.
    pub content_size: u64,
    /// Bytes of its committed snapshots, as of their commits, each tree once.
    pub snapshot_size: u64,
    /// Bytes of both that no other namespace has.
    pub unique_size: u64,
}

impl Node {
    /// Each namespace that has anything, by name. Asks the records alone.
    pub fn df_namespaces(&self) -> Result<Vec<NamespaceUsage>, Failure> {
        let collection = self.marked(None, &mut |_| ())?;
        let mut all: Vec<(&Namespace, Parts)> = Vec::new();
        for (ns, space) in &collection.spaces {
            let graph = &space.graph;
            let parts = graph.all().filter_map(|id| {
                let part = match graph.item(id) {
                    Item::Blob(digest) => Part::Blob(digest.clone()),
                    Item::Snapshot(_) => Part::Layer(graph.tree(id)),
                    _ => return None,
                };
                Some((part, graph.size(id)))
            });
            all.push((ns, parts.collect()));
        }
        let holders: Holders<'_> = all.iter().map(|(_, parts)| parts).collect();
        let usage = |(ns, parts): &(&Namespace, Parts)| NamespaceUsage {
            namespace: (*ns).clone(),
            content_size: parts.content_size(),
            snapshot_size: parts.snapshot_size(),
            unique_size: holders.unique_size(parts),
        };
        Ok(all.iter().map(usage).collect())
    }
}
