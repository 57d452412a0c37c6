//! What went through the proxy.

use super::Fault;
use crate::http::Head;

/// What a request is about, by its path (distribution-spec, "Endpoints").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A manifest, by tag or digest.
    Manifest,
    /// A blob that is there.
    Blob,
    /// One that comes.
    Upload,
    /// Anything else.
    Other,
}

/// A request and what became of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its place among all requests, from 0.
    pub number: usize,
    /// Its place among those for bytes of blobs, where it is one.
    pub fetch: usize,
    /// `GET` and so on.
    pub method: String,
    /// With its query.
    pub target: String,
    /// Without it.
    pub path: String,
    /// What it is about.
    pub what: What,
    /// Its fields.
    pub head: Head,
    /// What was done to it.
    pub fault: Option<Fault>,
    /// Of the answer; 0 when there was none.
    pub status: u16,
    /// Bytes of the answer's body that went to the client.
    pub sent: u64,
    /// Bytes of the request's body that came from it.
    pub received: u64,
}

impl Seen {
    pub(super) fn of(head: &Head, number: usize, fetch: usize) -> Seen {
        let (method, target) = head.request();
        let path = target.split('?').next().unwrap_or_default();
        let what = match path {
            path if path.contains("/blobs/uploads/") => What::Upload,
            path if path.contains("/blobs/") => What::Blob,
            path if path.contains("/manifests/") => What::Manifest,
            _ => What::Other,
        };
        Seen {
            number,
            fetch,
            method: method.to_owned(),
            target: target.to_owned(),
            path: path.to_owned(),
            what,
            head: head.clone(),
            fault: None,
            status: 0,
            sent: 0,
            received: 0,
        }
    }

    /// It asks for bytes of a blob.
    pub fn is_fetch(&self) -> bool {
        self.what == What::Blob && self.method == "GET"
    }
}
