//! OCI distribution: which hosts to ask for a repository, with whose credentials, and how.
//!
//! Nothing here knows a store: bytes go to whoever asked for them.

pub mod credentials;
pub mod env;
pub mod explain;
pub mod hosts;
pub mod proxy;
