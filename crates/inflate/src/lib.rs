//! DEFLATE and gzip decoded: no files, no tar.
//!
//! What unpacking a layer costs is mostly this, so it is made to be fast, and since its input is
//! anybody's, without `unsafe`. It takes what zlib takes and refuses what zlib refuses.
//!
//! - `gzip` reads a member's header, hands out its bytes and proves its trailer;
//! - `inflate` decodes a stream with input and output cut anywhere, `fast` does the same for as long as
//!   neither is about to end, which is nearly always;
//! - `table` makes codes into tables, `bits` keeps the input's next bits, `copy` repeats matches;
//! - `crew` has other threads decode what is still to come, if there are any: `ahead` reads it, `find`
//!   looks for where blocks begin, `scout` decodes from there without what came before, `part` by part.

#![forbid(unsafe_code)]
// Bits are cut out of words everywhere here, which the lint takes for accidents.
#![allow(clippy::cast_possible_truncation)]

mod ahead;
mod bits;
mod copy;
mod crew;
mod error;
mod fast;
mod find;
mod gzip;
mod header;
mod inflate;
mod part;
mod scout;
mod table;

pub use ahead::{ReadAhead, buffered};
pub use error::Error;
pub use gzip::Gunzip;

/// How far back a match may reach.
const WINDOW_BYTES: usize = 32 << 10;
