//! What each namespace has, and what of it nobody else does.

use std::collections::HashMap;

use cairn_types::Namespace;

use super::item::Item;
use crate::{Failure, Node, df::Part};

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
        let mut all: Vec<(&Namespace, HashMap<Part, u64>)> = Vec::new();
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
        let mut holders: HashMap<&Part, u32> = HashMap::new();
        for part in all.iter().flat_map(|(_, parts)| parts.keys()) {
            *holders.entry(part).or_default() += 1;
        }
        let usage = |(ns, parts): &(&Namespace, HashMap<Part, u64>)| {
            let sum = |wanted: &dyn Fn(&Part) -> bool| -> u64 {
                let parts = parts.iter().filter(|(part, _)| wanted(part));
                parts.map(|(_, bytes)| bytes).sum()
            };
            NamespaceUsage {
                namespace: (*ns).clone(),
                content_size: sum(&|part| matches!(part, Part::Blob(_))),
                snapshot_size: sum(&|part| matches!(part, Part::Layer(_))),
                unique_size: sum(&|part| holders.get(part) == Some(&1)),
            }
        };
        Ok(all.iter().map(usage).collect())
    }
}
