//! OCI distribution: which hosts to ask for a repository, with whose credentials, and how.
//!
//! Nothing here knows a store: bytes go to whoever asked for them.

mod answer;
mod auth;
mod blob;
mod body;
mod breaks;
mod challenge;
mod client;
pub mod credentials;
pub mod env;
mod error;
pub mod explain;
mod host;
pub mod hosts;
mod listing;
mod manifest;
mod message;
mod nearest;
mod net;
mod observer;
mod options;
pub mod proxy;
mod push;
mod reach;
mod reference;
mod retry;
mod sessions;
mod source;
mod tls;
mod token;
mod trace;
mod turns;
mod upload;

pub use answer::{Answer, Complaint};
pub use blob::Blob;
pub use client::Client;
pub use error::{Cause, Details, Error, Failed, Shown, What};
pub use listing::referrers_tag;
pub use observer::{Exchange, Observer, Retry};
pub use options::{DOCUMENT_BYTES_MAX, Options};
pub use push::{Mounted, Pushed, Stored};
pub use reference::{Reference, Tag};
pub use retry::{Clock, Dice, Policy, Sleep, System, Tried};
pub use sessions::Sessions;
pub use source::{ByteStream, Source};
pub use trace::{Detail, Trace};
pub use upload::{Upload, UploadState};
