//! What `version` tells.

use serde::Serialize;

use super::Server;

/// Who asks and who answers.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Versions {
    /// The program that was called.
    pub client: Program,
    /// Who serves the store.
    pub server: Server,
}

/// A program.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Program {
    /// Its version.
    pub version: String,
    /// What it was built for, as `linux/amd64`.
    pub platform: String,
}
