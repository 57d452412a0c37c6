//! Registries: how they are reached, who asks, within which limits, and on which threads.
//!
//! The client of registries waits in a runtime, layers are unpacked by threads. What both have to do
//! with is here: the runtime, which is made with the first pull, and the limits of all pulls and pushes
//! together, which may be changed while they run.

mod client;
mod limits;
mod origins;

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, PoisonError},
    time::Duration,
};

use cairn_registry::{
    Detail,
    credentials::{Anonymous, Credentials},
    hosts,
};

use crate::Node;

pub use client::RemoteName;
pub(crate) use client::{Reach, Threads};
pub(crate) use limits::{Pace, Place, Places, Share};
pub(crate) use origins::Origins;

/// Most blobs that one pull or push is at. No registry likes more, and each takes a thread.
pub(crate) const CONNECTIONS_MAX: usize = 64;

/// The table `[registry]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryOptions {
    /// Directories of hosts.toml files, where a request names none.
    pub hosts_dirs: Vec<PathBuf>,
    /// Connections by which blobs come, over all pulls; at least one.
    pub max_concurrent_downloads: usize,
    /// Bytes a second of all pulls together; 0 for as many as come.
    pub limit_rate: u64,
    /// For a connection to come about.
    pub connect_timeout: Duration,
    /// From a request to the headers of its answer.
    pub header_timeout: Duration,
    /// Bytes a second below which a connection counts as broken, over the window; 0 for never.
    pub min_rate: u64,
    /// The window.
    pub min_rate_window: Duration,
    /// How often a request that failed is made again.
    pub retries: u32,
    /// Bytes of one request of an upload; a blob in one without it, unless a registry takes less.
    pub upload_chunk: Option<u64>,
}

impl Default for RegistryOptions {
    fn default() -> RegistryOptions {
        RegistryOptions {
            hosts_dirs: hosts::DIRS.iter().map(PathBuf::from).collect(),
            max_concurrent_downloads: 6,
            limit_rate: 0,
            connect_timeout: Duration::from_secs(5),
            header_timeout: Duration::from_secs(30),
            min_rate: 10 << 10,
            min_rate_window: Duration::from_secs(30),
            retries: 5,
            upload_chunk: None,
        }
    }
}

impl Node {
    /// Changes how registries are reached, for pulls and pushes that begin from now on.
    pub fn set_registry(&self, options: RegistryOptions) {
        self.inner
            .places
            .set_limit(options.max_concurrent_downloads);
        self.inner.pace.set_rate(options.limit_rate);
        let now = self.inner.registry.write();
        *now.unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    /// How registries are reached now.
    pub fn registry_options(&self) -> Arc<RegistryOptions> {
        let now = self.inner.registry.read();
        Arc::clone(&now.unwrap_or_else(PoisonError::into_inner))
    }
}

/// What one request says of the registry it is about.
#[derive(Clone)]
pub struct Remote {
    /// What flags say of where to ask. Without directories those of [`RegistryOptions`].
    pub hosts: hosts::Options,
    /// Who asks.
    pub credentials: Arc<dyn Credentials>,
    /// Bytes a second of this request; 0 for the limit of all alone.
    pub limit_rate: u64,
    /// Connections of this request; 0 for the limit of all alone.
    pub max_concurrent: usize,
    /// Tells its requests, line by line ([`crate::Event::Traced`]).
    pub trace: Option<Detail>,
}

impl Default for Remote {
    /// Nobody asks, and nothing is said beside the configuration.
    fn default() -> Remote {
        Remote {
            hosts: hosts::Options::default(),
            credentials: Arc::new(Anonymous),
            limit_rate: 0,
            max_concurrent: 0,
            trace: None,
        }
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Remote")
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}
