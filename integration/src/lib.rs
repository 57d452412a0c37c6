//! What the end-to-end tests share: images made byte by byte, whole trees read back, the program
//! under test, and the peers it is held against.
//!
//! Nothing here uses Cairn's crates but the generated messages of the API: expectations come from
//! outside.

// Helpers of tests fail by panicking; the panic names what went wrong.
#![allow(clippy::missing_panics_doc)]

pub mod both;
pub mod cairn;
pub mod counts;
pub mod daemon;
pub mod fault;
pub mod fault_proxy;
pub mod fixture;
pub mod front;
pub mod go;
pub mod http;
pub mod image;
pub mod line;
pub mod machine;
pub mod peers;
pub mod power;
pub mod raw;
pub mod registry;
pub mod registry_images;
pub mod script;
pub mod secrets;
pub mod soak;
pub mod tree;
pub mod wait;
