//! What goes to registries and comes from there.

use serde::Serialize;

use super::{Image, TimingMs};

/// What a pull or a push did.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Transfer {
    /// As it is here now.
    pub image: Image,
    /// Of what the name means now: there, or of a pull here.
    pub digest: String,
    /// The one platform that went of several, since no other is here; unknown of anything else.
    pub only_platform: Option<String>,
    /// Bytes that came; of a push 0.
    pub fetched_bytes: u64,
    /// Bytes that went; of a pull 0.
    pub sent_bytes: u64,
    /// Bytes that were here already; of a push, there.
    pub reused_bytes: u64,
    /// Lowest first.
    pub layers: Vec<TransferredLayer>,
    /// Milliseconds.
    pub wall_ms: u64,
}

/// A layer that was fetched or sent.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TransferredLayer {
    /// As it is packed.
    pub digest: String,
    /// Of its uncompressed bytes; unknown when its configuration is not here.
    pub diff_id: Option<String>,
    /// Of the stack up to it; unknown when it is not unpacked.
    pub chain_id: Option<String>,
    /// Bytes as it is packed.
    pub size: u64,
    /// Bytes on disk; unknown when it is not unpacked.
    pub unpacked_size: Option<u64>,
    /// Which it came from or went to; unknown when there was nothing to do.
    pub host: Option<String>,
    /// Requests that it took.
    pub attempts: u32,
    /// Unknown when it was not unpacked now.
    pub timing_ms: Option<TimingMs>,
}

/// Whom a pull would ask (`explain-host`).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Host {
    /// Where to ask.
    pub url: String,
    /// For what: `pull`, `resolve`, `push`, `referrers`.
    pub capabilities: Vec<String>,
    /// Who asks, and where that is written; unknown when nobody in particular does.
    pub auth_source: Option<String>,
    /// Through whom, and what decided that; unknown when through nobody.
    pub proxy: Option<String>,
    /// Where the host was learned of.
    pub from: HostFrom,
}

/// Where a host was learned of.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HostFrom {
    /// A file or directory; unknown when it is the name itself, or a flag.
    pub file: Option<String>,
    /// In the file.
    pub line: Option<u64>,
    /// Both, or the word for what is no file, for the table only.
    #[serde(skip)]
    pub text: String,
}
