//! Cairn's own services over a socket, on a real store.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;

mod images;
mod store;
mod streams;
