//! What happened in the store, for whoever listens. There is no history: an event reaches those who
//! listen when it happens.
//!
//! Events are sent after the change is on the disk, so that nobody acts on what a crash takes back.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use cairn_meta::{ContainerRecord, Timestamp};
use cairn_types::{Digest, ImageName, Labels, Namespace, SnapshotKey};

use crate::Node;

/// A change, where and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// In this namespace.
    pub ns: Namespace,
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum What {
    NamespaceCreated(Labels),
    NamespaceUpdated(Labels),
    NamespaceDeleted,
    ContentCreated {
        digest: Digest,
        size: u64,
    },
    ContentDeleted {
        digest: Digest,
    },
    ImageCreated {
        name: ImageName,
        labels: Labels,
    },
    ImageUpdated {
        name: ImageName,
        labels: Labels,
    },
    ImageDeleted {
        name: ImageName,
    },
    SnapshotPrepared {
        key: SnapshotKey,
        parent: Option<SnapshotKey>,
    },
    SnapshotCommitted {
        key: SnapshotKey,
        name: SnapshotKey,
    },
    SnapshotRemoved {
        key: SnapshotKey,
    },
    /// All of the record: what a runtime is only its document says, which is not read here.
    ContainerCreated {
        id: String,
        record: Box<ContainerRecord>,
    },
    ContainerUpdated {
        id: String,
        image: String,
        labels: Labels,
        snapshot_key: String,
    },
    ContainerDeleted {
        id: String,
    },
    /// A client's own: topic, type and bytes.
    Published {
        topic: String,
        type_url: String,
        value: Vec<u8>,
    },
}

impl Event {
    /// One that happens now.
    pub fn of(ns: &Namespace, what: What) -> Event {
        Event {
            ns: ns.clone(),
            at: Timestamp::now(),
            what,
        }
    }
}

/// Hears of every event; called on the thread of whoever made it, so it must not wait.
pub trait Listener: Send + Sync {
    /// It happened. `false` ends the listening.
    fn hear(&self, event: &Arc<Event>) -> bool;
}

/// Those who listen.
#[derive(Default)]
pub(crate) struct Listeners(Mutex<Vec<Weak<dyn Listener>>>);

impl Node {
    /// Tells `listener` of every event from now on, until it is dropped or says that it has enough.
    pub fn listen(&self, listener: &Arc<dyn Listener>) {
        let mut listeners = self
            .inner
            .listeners
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.push(Arc::downgrade(listener));
    }

    /// Tells everybody.
    pub fn happened(&self, event: Event) {
        let event = Arc::new(event);
        let mut listeners = self
            .inner
            .listeners
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.upgrade().is_some_and(|l| l.hear(&event)));
    }
}
