//! The client against a real registry, and against servers that do what real ones should not.

mod auth;
mod blob;
mod common;
mod hostile;
mod lists;
mod nearest;
mod observer;
mod patience;
mod proxy;
mod push;
mod read;
mod sessions;
mod tls;
mod trace;
mod upload;
