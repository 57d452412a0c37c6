//! What a check of the store found.

use serde::Serialize;

use super::Time;

/// What `fsck` looked at and found.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Fsck {
    /// Every byte was read.
    pub deep: bool,
    /// What could be mended was.
    pub repair: bool,
    /// What was looked at.
    pub checked: Checked,
    /// What is not as it should be, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// Milliseconds.
    pub wall_ms: u64,
}

/// How much was looked at, in all namespaces.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Checked {
    /// Of all kinds.
    pub records: u64,
    /// Each once, however many namespaces have it.
    pub blobs: u64,
    /// Of blobs that were read.
    pub bytes: u64,
    /// In all namespaces.
    pub snapshots: u64,
    /// Unpacked layers that were held against their blobs, each once.
    pub trees: u64,
    /// Names.
    pub images: u64,
    /// Directories.
    pub bundles: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// `damage` is here and not what it should be, `loss` is needed and not here, `litter` takes room for
    /// nothing, and of a `note` nothing is wrong.
    #[cfg_attr(test, schemars(extend("enum" = ["damage", "loss", "litter", "note"])))]
    pub severity: &'static str,
    /// Which kind of wrong, as `blob-bytes`.
    pub kind: String,
    /// Which kind of thing: `blob`, `snapshot`, `image`, `record`, …
    pub object: String,
    /// Its name, whole.
    pub name: String,
    /// Whose it is; unknown when it is of no one namespace.
    pub namespace: Option<String>,
    /// Where in it, or which file of the store's.
    pub path: Option<String>,
    /// What is wrong.
    pub detail: String,
    /// What that means to whom.
    pub meaning: String,
    /// What mends it, one step or command each.
    pub next: Vec<String>,
    /// It is mended.
    pub repaired: bool,
    /// What was done about it, or why nothing was.
    pub action: Option<String>,
}

/// What reading all that is stored again, behind everything else, has come to.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Scrub {
    /// It is at work.
    pub running: bool,
    /// When the pass began that did not come to its end yet; unknown when there is none.
    pub began_at: Option<Time>,
    /// Bytes of it so far.
    pub done: u64,
    /// Bytes of it in all.
    pub total: u64,
    /// When the last pass ended that came to its end; unknown before one has.
    pub ended_at: Option<Time>,
    /// Blobs that it read, each once.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Unpacked layers that it held against their blobs, each once.
    pub trees: u64,
    /// Unpacked layers that it could not: their blobs are not here, mostly.
    pub unproven: u64,
    /// What was found, and is still so for all that is known.
    pub findings: Vec<Finding>,
}

impl Finding {
    /// Whether it is damage or loss that is still there.
    pub fn is_left(&self) -> bool {
        matches!(self.severity, "damage" | "loss") && !self.repaired
    }
}
