//! The built daemon as a citizen of its machine: configuration, log, service manager, signals,
//! sockets, figures, and what it does unasked.

#[path = "../common/mod.rs"]
mod common;
mod config;
mod crowds;
mod daemon;
mod dashboard;
mod figures;
mod logs;
mod manager;
mod records;
mod registries;
mod stopping;
mod unasked;
