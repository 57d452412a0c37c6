//! The built daemon as a citizen of its machine: configuration, log, service manager, signals,
//! sockets, figures, and what it does unasked.

mod config;
mod crowds;
mod daemon;
mod figures;
mod logs;
mod manager;
mod stopping;
mod unasked;
