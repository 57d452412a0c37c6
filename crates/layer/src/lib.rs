//! A tar stream into a directory, and back: no database, no socket, so that it can be tested and
//! fuzzed alone.
//!
//! - [`tar`] reads entries and does not know what becomes of them;
//! - [`path`] says what an entry's path asks for: a place, a whiteout, an opaque mark;
//! - [`apply()`] writes entries into the upper directory of an overlay;
//! - [`adopt()`] gives directories that a layer had to invent the attributes of the layers below;
//! - [`inflate`] undoes gzip and zstd, [`deflate`] packs what came plain;
//! - [`unpack()`] runs it all as one pipeline over a compressed layer;
//! - [`compare()`] holds a tree against its layer;
//! - [`diff`] goes the other way: what one stack of layers shows and another does not, as a layer.
//!
//! What a layer may write, link, chmod or delete ends at the directory it is applied to: every path
//! is walked one component at a time from an open directory, and no final link is ever followed.

mod adopt;
mod apply;
mod compare;
pub mod deflate;
pub mod diff;
mod error;
pub mod inflate;
pub mod path;
pub mod tar;
mod unpack;

pub use adopt::adopt;
pub use apply::{Applied, Options, Sums, Whiteouts, apply};
pub use compare::{Aspect, Difference, compare};
pub use error::{Error, Refusal};
pub use unpack::{Timing, Unpacked, unpack};
