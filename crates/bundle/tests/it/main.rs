//! Bundles and mounts on a real kernel, run by a real runtime.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;

mod bundle;
mod config;
mod copy;
mod finish;
mod mounts;
mod owners;
mod place;
