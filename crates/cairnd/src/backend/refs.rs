//! Which committed snapshot was asked for by which reference.
//!
//! containerd names what a snapshot is to become when it prepares one (`containerd.io/snapshot.ref`,
//! the chain ID of a layer). Where a committed one with the same label stands on the same parent
//! already, put there for another of its namespaces, it takes that one, and neither fetches nor
//! unpacks the layer. Reading all records for each question would take longer than preparing does,
//! so they are read once and followed from there on.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use cairn_node::Node;
use cairn_snapshot::{Result, SnapshotInfo};
use cairn_types::{Namespace, SnapshotKey, SnapshotKind};

use crate::service::REF;

type Asked = (String, Option<SnapshotKey>);

/// The snapshots by what they were asked for and what they stand on. A hint: what it names is looked
/// at before it is believed.
#[derive(Default)]
pub(super) struct Refs(Mutex<Known>);

#[derive(Default)]
struct Known {
    names: HashMap<Asked, BTreeSet<SnapshotKey>>,
    asked: HashMap<SnapshotKey, Asked>,
}

impl Refs {
    /// Those of a store.
    pub(super) fn read(node: &Node, ns: &Namespace) -> Result<Refs> {
        let refs = Refs::default();
        for info in node.snapshots().list(ns)? {
            refs.learn(&info);
        }
        Ok(refs)
    }

    /// A snapshot was committed or labelled.
    pub(super) fn learn(&self, info: &SnapshotInfo) {
        let mut known = self.lock();
        known.forget(&info.key);
        if info.kind != SnapshotKind::Committed {
            return;
        }
        let Some(reference) = info.labels.get(REF) else {
            return;
        };
        let asked = (reference.clone(), info.parent.clone());
        let names = known.names.entry(asked.clone()).or_default();
        names.insert(info.key.clone());
        known.asked.insert(info.key.clone(), asked);
    }

    /// A snapshot was removed.
    pub(super) fn forget(&self, key: &SnapshotKey) {
        self.lock().forget(key);
    }

    /// The committed snapshot that is what `reference` asks for on `parent`.
    pub(super) fn find(
        &self,
        node: &Node,
        ns: &Namespace,
        reference: &str,
        parent: Option<&SnapshotKey>,
    ) -> Option<SnapshotKey> {
        let asked = (reference.to_owned(), parent.cloned());
        let names = self.lock().names.get(&asked).cloned()?;
        let is_it = |name: &SnapshotKey| {
            node.snapshots().stat(ns, name).is_ok_and(|info| {
                info.kind == SnapshotKind::Committed
                    && info.parent == asked.1
                    && info.labels.get(REF) == Some(&asked.0)
            })
        };
        names.into_iter().find(is_it)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget(&mut self, key: &SnapshotKey) {
        let Some(asked) = self.asked.remove(key) else {
            return;
        };
        if let Some(names) = self.names.get_mut(&asked) {
            names.remove(key);
            if names.is_empty() {
                self.names.remove(&asked);
            }
        }
    }
}
