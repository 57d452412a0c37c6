//! Images that go to Debian's registry, and what others find there.

#[path = "../common/mod.rs"]
mod common;

mod faults;
mod parts;
mod peers;
mod whole;
