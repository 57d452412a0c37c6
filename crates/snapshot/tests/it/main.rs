//! The snapshotter on a real kernel, and over restarts.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;

mod recover;
mod share;
mod share_orders;
mod snapshots;
