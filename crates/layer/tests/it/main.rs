//! Tar streams into directories and back.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../tarball/mod.rs"]
mod tarball;

mod adopt;
mod attributes;
mod compare;
mod diff;
mod diff_random;
mod large;
mod paths;
mod stack;
mod tar_disputes;
mod tar_hostile;
mod tar_peers;
mod tar_sparse;
mod tar_values;
mod unpack;
mod whiteouts;
