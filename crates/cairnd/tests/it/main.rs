//! The services over a real socket, as clients see them. What measures its own process, and the program
//! itself, are tested apart.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;

mod absent;
mod apply;
mod backend;
mod containers;
mod content;
mod events;
mod gc;
mod images;
mod introspection;
mod leases;
mod namespaces;
mod snapshots;
mod stalled;
mod write;
