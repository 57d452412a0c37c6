//! The daemon: containerd's API over a store, on a unix socket.
//!
//! - [`server`] puts the services together, [`listen`] makes the socket, [`run`] is the program;
//! - [`service`] has one file for each service of the API; they parse, call the node and convert;
//! - [`caller`], [`status`] and [`convert`] are what all of them share.
//!
//! A library with a thin main, so that the command line can have the same server in its own process.

pub mod caller;
pub mod convert;
pub mod listen;
pub mod options;
pub mod run;
pub mod server;
pub mod service;
pub mod status;
