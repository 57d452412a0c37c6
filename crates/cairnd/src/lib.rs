//! The daemon: containerd's API over a store, on a unix socket.
//!
//! - [`server`] puts the services together, [`listen`] makes the socket, [`incoming`] and [`turns`]
//!   keep one client's flood from the others, by [`limits`]; [`run`] is the program;
//! - [`config`] is what can be chosen, [`options`] the flags, [`man`] what is generated from both;
//! - [`calls`] surrounds every call, [`methods`] knows them all; [`maintain`] and [`scrub`] are what happens
//!   unasked;
//! - [`log`], [`metrics`], [`traces`], [`endpoint`], [`notify`] and `opening` are for those who run it;
//! - [`records`] are taken out of a stopped store and put in;
//! - [`routes`] finds the service of a call; [`service`] has one file for each of them; they parse, call
//!   the node and convert;
//! - [`backend`] serves another socket, for containerd itself, with the same services;
//! - [`caller`], [`chunks`], [`status`], [`details`], [`convert`] and `transfers` are what several of them share;
//! - [`embedded`] is the server inside another program.
//!
//! A library with a thin main, so that the command line can have the same server in its own process.

pub mod backend;
pub mod caller;
pub mod calls;
pub mod chunks;
pub mod config;
mod connection;
pub mod convert;
pub mod details;
pub mod embedded;
pub mod endpoint;
pub mod incoming;
pub mod limits;
pub mod listen;
pub mod log;
pub mod maintain;
pub mod man;
pub mod methods;
pub mod metrics;
pub mod notify;
mod opening;
pub mod options;
pub mod records;
pub mod routes;
pub mod run;
pub mod scrub;
pub mod server;
pub mod service;
pub mod status;
pub mod streams;
pub mod traces;
mod transfers;
pub mod turns;
