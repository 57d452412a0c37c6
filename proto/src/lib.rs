//! The wire types of Cairn: messages, clients and servers generated from the `.proto` files beside
//! this crate. Names and numbers are those of containerd's API; `cairn` is what that has no
//! service for.
//!
//! Nothing here has behaviour; services are translated in the daemon, and only there and in the CLI
//! is `tonic` named.

#![allow(missing_docs, unreachable_pub, clippy::all, clippy::or_fun_call)]

mod generated {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}

mod secret;

/// All of it in descriptors, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/api.bin"));

pub use generated::{cairn, containerd, google};
