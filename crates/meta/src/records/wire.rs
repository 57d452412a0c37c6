//! How records lie on disk; and the same as JSON, for exports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Labelled {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(super) labels: BTreeMap<String, String>,
    #[prost(sfixed64, tag = "2")]
    pub(super) created_at: i64,
    #[prost(sfixed64, tag = "3")]
    pub(super) updated_at: i64,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Image {
    #[prost(message, optional, tag = "1")]
    pub(super) common: Option<Labelled>,
    #[prost(string, tag = "2")]
    pub(super) media_type: String,
    #[prost(string, tag = "3")]
    pub(super) digest: String,
    #[prost(uint64, tag = "4")]
    pub(super) size: u64,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Blob {
    #[prost(uint64, tag = "1")]
    pub(super) size: u64,
    #[prost(sfixed64, tag = "2")]
    pub(super) created_at: i64,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Ingest {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) expected: String,
    #[prost(uint64, tag = "3")]
    pub(super) total: u64,
    #[prost(sfixed64, tag = "4")]
    pub(super) started_at: i64,
    #[prost(sfixed64, tag = "5")]
    pub(super) updated_at: i64,
    #[prost(bool, tag = "6")]
    pub(super) leased: bool,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Snapshot {
    #[prost(message, optional, tag = "1")]
    pub(super) common: Option<Labelled>,
    #[prost(uint64, tag = "2")]
    pub(super) id: u64,
    #[prost(uint32, tag = "3")]
    pub(super) kind: u32,
    #[prost(string, tag = "4")]
    pub(super) parent: String,
    #[prost(uint64, tag = "5")]
    pub(super) bytes: u64,
    #[prost(uint64, tag = "6")]
    pub(super) inodes: u64,
    #[prost(bool, tag = "7")]
    pub(super) durable: bool,
    #[prost(string, tag = "8")]
    pub(super) boot_id: String,
    #[prost(string, tag = "9")]
    pub(super) diff_id: String,
    #[prost(string, tag = "10")]
    pub(super) blob: String,
    #[prost(message, optional, tag = "11")]
    pub(super) timing: Option<Timing>,
}

/// Microseconds.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Timing {
    #[prost(uint64, tag = "1")]
    pub(super) fetch: u64,
    #[prost(uint64, tag = "2")]
    pub(super) inflate: u64,
    #[prost(uint64, tag = "3")]
    pub(super) untar: u64,
    #[prost(uint64, tag = "4")]
    pub(super) sync: u64,
    #[prost(uint64, tag = "5")]
    pub(super) commit: u64,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Bundle {
    #[prost(string, tag = "1")]
    pub(super) namespace: String,
    #[prost(string, tag = "2")]
    pub(super) image: String,
    #[prost(string, tag = "3")]
    pub(super) manifest: String,
    #[prost(string, tag = "4")]
    pub(super) snapshot: String,
    #[prost(string, tag = "5")]
    pub(super) platform: String,
    #[prost(sfixed64, tag = "6")]
    pub(super) created_at: i64,
    #[prost(bool, tag = "7")]
    pub(super) made: bool,
    #[prost(bool, tag = "8")]
    pub(super) copied: bool,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Container {
    #[prost(message, optional, tag = "1")]
    pub(super) labelled: Option<Labelled>,
    #[prost(string, tag = "2")]
    pub(super) snapshotter: String,
    #[prost(string, tag = "3")]
    pub(super) snapshot_key: String,
    #[prost(string, tag = "4")]
    pub(super) image: String,
    #[prost(bytes = "vec", tag = "5")]
    #[serde(with = "super::hex")]
    pub(super) document: Vec<u8>,
}
