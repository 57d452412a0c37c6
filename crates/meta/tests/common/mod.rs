//! What the tests of the records share.

// Each test binary uses its own part of this, and none exports it.
#![allow(dead_code, unreachable_pub)]

use std::{collections::BTreeMap, path::Path};

use cairn_meta::{EngineKind, LeaseRecord, Store, Timestamp, View, schema};
use cairn_sys::Dir;
use cairn_types::{LeaseId, Namespace};

/// Both.
pub const ENGINES: [EngineKind; 2] = [EngineKind::Redb, EngineKind::Sled];

/// Opens the records in `path`.
pub fn open(path: &Path, kind: EngineKind) -> Store {
    Store::open(&Dir::open(path).expect("open"), kind).expect("records")
}

/// A namespace.
pub fn ns(text: &str) -> Namespace {
    Namespace::parse(text).expect("namespace")
}

/// One of many keys.
pub fn key(n: u8) -> (Namespace, LeaseId) {
    // Two namespaces, of which one is the beginning of the other.
    let ns = ns(if n & 1 == 0 { "a" } else { "ab" });
    (ns, LeaseId::parse(&format!("l{n}")).expect("lease"))
}

/// A record that carries `value`.
pub fn record(value: i64) -> LeaseRecord {
    LeaseRecord {
        labels: BTreeMap::new(),
        created_at: Timestamp(value),
    }
}

/// All leases of a namespace, with their values.
pub fn listed(store: &Store, prefix: &Namespace) -> Vec<((Namespace, LeaseId), i64)> {
    let all = store
        .read(|r| r.scan(&schema::LEASES, prefix))
        .expect("scan");
    all.into_iter().map(|(k, r)| (k, r.created_at.0)).collect()
}

/// Writes `record(value)` under `key(n)`.
pub fn put(store: &Store, n: u8, value: i64) {
    store
        .write(move |tx: &mut cairn_meta::Tx<'_>| tx.put(&schema::LEASES, &key(n), &record(value)))
        .expect("write");
}
