//! The decoder from outside: streams made by hand, and those that zlib is asked about too.
#![allow(missing_docs, clippy::unwrap_used, clippy::cast_possible_truncation)]

mod ahead;
mod common;
mod deflate;
mod gzip;
mod peer;
mod plain;
