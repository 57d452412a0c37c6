//! The store by its own calls, on a real disk. What measures its own process is tested apart.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../content/tests/common/disk.rs"]
mod disk;

mod compress;
mod concurrent;
mod cores;
mod df;
mod diff;
mod ends;
mod fsck;
mod fsck_one;
mod fsck_trees;
mod gc_beside;
mod gc_stress;
mod heal;
mod held;
mod import;
mod lost;
mod scrub;
mod settle;
mod share;
mod shared;
mod store;
mod torn;
