//! The documents of `--json`, and what the tables are made of.
//!
//! The keys are a promise to scripts: within a major version they are added to, never renamed,
//! retyped or left out. Unknown is `null`. They are independent of the types of the store, so that
//! neither can change the other by accident.

use cairn_types::{Labels, SnapshotKind};
use jiff::Timestamp;
use serde::{Serialize, Serializer};

mod disk;
mod fsck;
mod progress;
#[cfg(test)]
mod schema;
mod transfer;
mod version;

pub use disk::{Disk, DiskRow, Unexplained};
pub use fsck::{Checked, Finding, Fsck, Scrub};
pub use progress::Progress;
pub use transfer::{Host, HostFrom, Transfer, TransferredLayer};
pub use version::{Program, Versions};

/// A moment: nanoseconds and `Z` in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::size::time_exact(self.0))
    }
}

/// What a name points at.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Target {
    /// Of the manifest or index.
    pub media_type: String,
    /// Whole.
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

/// One name in one namespace.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Image {
    /// The full reference.
    pub name: String,
    /// Whose.
    pub namespace: String,
    /// Where it points.
    pub target: Target,
    /// Without attestations.
    pub platforms: Vec<String>,
    /// Bytes of all blobs that are here.
    pub content_size: u64,
    /// Bytes on disk of its snapshots; unknown when it is not unpacked.
    pub unpacked_size: Option<u64>,
    /// Nothing is missing.
    pub complete: bool,
    /// Digests that are not here.
    pub missing: Vec<String>,
    /// As set.
    pub labels: Labels,
    /// When this store got it.
    pub created_at: Time,
    /// When the name last moved.
    pub updated_at: Time,
}

/// How long an image's layers took (`images inspect --timing`).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Timed {
    /// Whose layers.
    pub image: Image,
    /// Of the chosen manifest, lowest first.
    pub layers: Vec<TimedLayer>,
}

/// One layer, and how long it took.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TimedLayer {
    /// As it is packed.
    pub digest: String,
    /// Of its uncompressed bytes; unknown when the configuration is not here.
    pub diff_id: Option<String>,
    /// Of the stack up to it.
    pub chain_id: Option<String>,
    /// Bytes as it is packed.
    pub size: u64,
    /// Bytes on disk; unknown when it is not unpacked.
    pub unpacked_size: Option<u64>,
    /// Unknown when it is not unpacked, or a client did it.
    pub timing_ms: Option<TimingMs>,
}

/// What the time of unpacking a layer went into, in milliseconds. Of what goes on side by side that is
/// counted for which the rest waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TimingMs {
    /// Reading, hashing and storing the packed bytes.
    pub fetch: u64,
    /// Inflating them.
    pub inflate: u64,
    /// Hashing what came of it, and writing files.
    pub untar: u64,
    /// Putting the packed bytes on the disk.
    pub sync: u64,
    /// Completing the files by the layers below.
    pub commit: u64,
}

/// One blob as a namespace sees it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Blob {
    /// Whole.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Its diff ID, for a layer whose digest differs.
    pub uncompressed: Option<String>,
    /// As set.
    pub labels: Labels,
    /// When it was linked here.
    pub created_at: Time,
    /// When its labels last changed.
    pub updated_at: Time,
}

/// One snapshot.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Snapshot {
    /// Its name.
    pub key: String,
    /// What it stands on.
    pub parent: Option<String>,
    /// In lower case.
    #[cfg_attr(test, schemars(with = "schema::Kind"))]
    pub kind: SnapshotKind,
    /// Bytes on disk of its own layer.
    pub size: Option<u64>,
    /// Of its own layer.
    pub inodes: Option<u64>,
    /// Its files have reached the disk.
    pub durable: bool,
    /// As set.
    pub labels: Labels,
    /// When it was prepared or committed.
    pub created_at: Time,
    /// When its labels last changed.
    pub updated_at: Time,
}

/// One bundle.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Bundle {
    /// Absolute.
    pub dir: String,
    /// What it was made from.
    pub image: String,
    /// Of the manifest.
    pub digest: String,
    /// Of the manifest.
    pub platform: String,
    /// The writable layer's key; there is none when it is a copy.
    pub snapshot: Option<String>,
    /// Whose.
    pub namespace: String,
    /// `rootfs` is mounted now.
    pub mounted: bool,
    /// `rootfs` is plain files instead.
    pub copied: bool,
    /// Bytes on disk of the writable layer, or of the copy.
    pub size: Option<u64>,
    /// When it was made.
    pub created_at: Time,
}

/// One upload that is not complete.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ingest {
    /// Its name.
    #[serde(rename = "ref")]
    pub reference: String,
    /// Bytes so far.
    pub offset: u64,
    /// Bytes in all.
    pub total: Option<u64>,
    /// The digest it must have.
    pub expected: Option<String>,
    /// When its first byte came.
    pub started_at: Time,
    /// When its last byte came.
    pub updated_at: Time,
}

/// One mount to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mount {
    /// `overlay` or `bind`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `overlay`, or the directory to bind.
    pub source: String,
    /// Where; empty while nobody has said so.
    pub target: String,
    /// In order.
    pub options: Vec<String>,
}

/// What must not be collected yet.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lease {
    /// Its name.
    pub id: String,
    /// When it was made.
    pub created_at: Time,
    /// When it holds no longer; unknown to those that hold for ever.
    pub expires_at: Option<Time>,
    /// As set.
    pub labels: Labels,
    /// What it holds; unknown where only leases are listed.
    pub resources: Option<Vec<Resource>>,
}

/// One thing that a lease holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Resource {
    /// `content`, `images`, `ingests` or `snapshots/overlayfs`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digest, full reference, ref or key.
    pub id: String,
}

/// A separate view of the store.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// As set.
    pub labels: Labels,
    /// How many names of images it has.
    pub images: u64,
    /// How many snapshots it has.
    pub snapshots: u64,
    /// Bytes of the blobs that it sees; others may see them, too.
    pub size: u64,
}

/// What a server is made of.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Plugin {
    /// As containerd calls its kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name among its kind.
    pub id: String,
    /// What it can unpack; empty where that is no question.
    pub platforms: Vec<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// `ok`, `skip` or `error`.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "skip", "error"])))]
    pub status: &'static str,
    /// Why it is not `ok`.
    pub error: Option<String>,
    /// What else it says of itself.
    pub exports: Labels,
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    /// When.
    pub time: Time,
    /// Where.
    pub namespace: String,
    /// What, as `/images/create`.
    pub topic: String,
    /// Of its fields: a protobuf message's name.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its fields.
    pub event: serde_json::Value,
}

/// Who serves a store.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Server {
    /// Of the server.
    pub version: String,
    /// `daemon`, or `embedded` in this process.
    #[cfg_attr(test, schemars(extend("enum" = ["daemon", "embedded"])))]
    pub mode: &'static str,
    /// The daemon's socket.
    pub address: Option<String>,
    /// Directory of the store.
    pub root: String,
    /// The API of another's that it serves, and the version of that, as `containerd 2.3`.
    pub api: String,
    /// Version of the store on disk.
    pub layout: u32,
}

/// How a store and its server are.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Info {
    /// Who serves it.
    #[serde(flatten)]
    pub server: Server,
    /// Why nothing can be changed; unknown when all is well.
    pub read_only: Option<String>,
    /// What became of records that were destroyed; unknown when none were, or nothing is left of that.
    pub rebuilt: Option<String>,
    /// When the server started.
    pub started_at: Time,
    /// The server's process.
    pub pid: u32,
    /// What keeps the records: `redb` or `sled`.
    pub engine: String,
    /// The store's own name.
    pub uuid: String,
    /// Bytes that are free on the file system of the root.
    pub free_bytes: u64,
    /// Bytes of that file system.
    pub total_bytes: u64,
    /// Those that hold anything.
    pub namespaces: Vec<String>,
    /// As `df` says it.
    pub usage: Vec<Usage>,
    /// What reading all of it again in the background has come to; unknown of a server that does not do that.
    pub scrub: Option<Scrub>,
}

/// What one snapshot takes (`images usage`, `snapshots usage`).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SnapshotUsage {
    /// Its name.
    pub key: String,
    /// Bytes on disk.
    pub size: u64,
    /// Files, directories and the rest, each once.
    pub inodes: u64,
}

/// One line of `df`.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Usage {
    /// `images`, `content`, `snapshots`, `ingests`.
    #[serde(rename = "type")]
    pub kind: String,
    /// How many there are.
    pub total: u64,
    /// How many something holds.
    pub active: u64,
    /// Bytes.
    pub size: u64,
    /// Bytes that `gc` would free.
    pub reclaimable: u64,
    /// Of `images`: each by itself; unknown unless `--wide` asks for it.
    pub images: Option<Vec<ImageUsage>>,
    /// Of `images`: each namespace by itself; unknown unless `--wide` asks for it.
    pub namespaces: Option<Vec<NamespaceUsage>>,
}

/// A thing, and what keeps `gc` from removing it (`why`).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Kept {
    /// `image`, `blob`, `snapshot`, `ingest`.
    pub kind: String,
    /// Its name, digest, key or reference.
    pub name: String,
    /// Bytes on disk; of an image none but those of its blobs and snapshots.
    pub size: u64,
    /// Each of them is enough; when there are none `gc` removes it.
    pub held_by: Vec<Holder>,
}

/// What keeps a thing.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Holder {
    /// `image`, `container`, `bundle`, `lease`, `ingest`; `blob` or `snapshot`, which a label keeps; or
    /// `call`, which is under way.
    pub kind: String,
    /// Its name; of a call what it relies on.
    pub name: String,
    /// The label by which a blob or a snapshot is kept whatever else leads to it.
    pub label: Option<String>,
    /// What lies between it and the thing, on a shortest way.
    pub through: Vec<Step>,
    /// The command that lets go of the thing here; none where it is not for this program to say.
    pub frees: Option<String>,
}

/// A thing on the way from a holder to what it keeps.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Step {
    /// `image`, `blob`, `snapshot`, `ingest`, `container`.
    pub kind: String,
    /// Its name, digest, key or reference.
    pub name: String,
}

/// What one image takes.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ImageUsage {
    /// The full reference.
    pub name: String,
    /// Whose.
    pub namespace: String,
    /// Bytes of its blobs.
    pub content_size: u64,
    /// Bytes on disk of its snapshots; unknown when it is not unpacked.
    pub unpacked_size: Option<u64>,
    /// Bytes of both that no other image of any namespace has.
    pub unique_size: u64,
}

/// What one namespace takes.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NamespaceUsage {
    /// Its name.
    pub name: String,
    /// Bytes of the blobs that it sees.
    pub content_size: u64,
    /// Bytes on disk of its committed snapshots.
    pub snapshot_size: u64,
    /// Bytes of both that no other namespace has.
    pub unique_size: u64,
}

/// How many of each kind `gc` removed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Removed {
    /// Names.
    pub images: u64,
    /// Blobs.
    pub content: u64,
    /// Trees.
    pub snapshots: u64,
    /// Half-written blobs.
    pub ingests: u64,
    /// Expired ones.
    pub leases: u64,
}

/// What `gc` did.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Gc {
    /// Nothing was removed, only counted.
    pub dry_run: bool,
    /// By kind.
    pub removed: Removed,
    /// Bytes.
    pub freed_bytes: u64,
    /// Milliseconds.
    pub wall_ms: u64,
    /// Bytes by kind, for the table only: the document has one sum.
    #[serde(skip)]
    pub freed: Removed,
}

/// What went wrong, on standard error.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// All of it.
    pub error: FailureParts,
}

/// What went wrong, in parts.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailureParts {
    /// Verb and kind, as `inspect image`; empty when nothing was attempted.
    pub attempted: String,
    /// The chain, outermost first.
    pub causes: Vec<String>,
    /// The class, as gRPC names it, in snake case.
    pub code: &'static str,
    /// Other namespaces that have the object.
    pub found_in: Vec<String>,
    /// The first line that a person sees, without its `error: `.
    pub message: String,
    /// Where it was looked for.
    pub namespace: Option<String>,
    /// What to do, one step each.
    pub next: Vec<String>,
    /// What it was about.
    pub object: Option<Object>,
}

/// Something that has a name.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Object {
    /// `image`, `blob`, `snapshot`, …
    pub kind: String,
    /// Whole, unquoted.
    pub name: String,
}

/// An image from its name down to its layers, for the tree of `inspect`.
#[derive(Clone, Debug)]
pub struct Tree {
    /// The full reference.
    pub name: String,
    /// Whose.
    pub namespace: String,
    /// When this store got it.
    pub added: Timestamp,
    /// Index or manifest.
    pub root: Node,
}

/// One blob of the tree.
#[derive(Clone, Debug)]
pub struct Node {
    /// `manifest`, `config`, `layer 1`, …
    pub role: String,
    /// Whole.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// What there is to say about it.
    pub note: String,
    /// It is here, and JSON by its type.
    pub readable: bool,
    /// Its text, where that was asked for.
    pub document: Option<String>,
    /// Below it.
    pub children: Vec<Node>,
}
