//! A store in this process, what an image is made of, and bundles and mounts of it.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part"
)]

#[path = "../../../node/tests/common/mod.rs"]
mod base;
pub mod bundle;
mod direct;

pub use base::*;
pub use direct::*;
