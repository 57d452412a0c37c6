//! Streams, and transfers that use them.

#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "each test uses a part")]
#[path = "../../../registry/tests/wire/common/registry.rs"]
mod registry;

mod archives;
mod front;
mod given_up;
mod held;
mod hosts;
mod logs;
mod names;
mod parts;
mod platforms;
mod progress;
mod registries;
mod streams;
