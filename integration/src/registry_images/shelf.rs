//! A registry that hands out what it was filled with, for images that Debian's takes from nobody: it
//! knows manifests by SHA-256 alone, and of the first schema only signed ones.

use std::{cell::RefCell, collections::BTreeMap};

use serde_json::{Value, json};

use crate::{
    http::{Answer, Request, Server},
    image::{OCI_MANIFEST, Stored, digest_by, document},
};

/// What it is to have, in the repository `shop/web`.
#[derive(Default)]
pub struct Shelf {
    /// By tag or digest.
    manifests: RefCell<BTreeMap<String, Kept>>,
    blobs: RefCell<BTreeMap<String, Vec<u8>>>,
}

struct Kept {
    digest: String,
    media_type: String,
    bytes: Vec<u8>,
}

impl Shelf {
    /// An empty one.
    pub fn new() -> Shelf {
        Shelf::default()
    }

    /// Adds a blob under a digest by `algorithm`; describes it.
    pub fn blob(&self, algorithm: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest_by(algorithm, bytes);
        let described = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.blobs.borrow_mut().insert(digest, bytes.to_vec());
        described
    }

    /// Adds a manifest under a digest by `algorithm`; describes it.
    pub fn manifest(&self, algorithm: &str, media_type: &str, document: &Value) -> Value {
        let bytes = document.to_string().into_bytes();
        let digest = digest_by(algorithm, &bytes);
        let described = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
        self.keep(&digest, &digest, media_type, &bytes);
        described
    }

    /// Adds an image for `architecture`, all of whose digests but those of its layers are by `algorithm`.
    pub fn image(&self, algorithm: &str, architecture: &str, layers: &[Stored]) -> Value {
        let add = |media_type: &str, bytes: &[u8]| {
            let is_layer = layers.iter().any(|layer| layer.bytes == bytes);
            self.blob(
                if is_layer { "sha256" } else { algorithm },
                media_type,
                bytes,
            )
        };
        let manifest = document(&add, architecture, layers, &json!({}));
        self.manifest(algorithm, OCI_MANIFEST, &manifest)
    }

    /// Has a tag mean what was described.
    pub fn tag(&self, tag: &str, described: &Value) {
        let digest = described["digest"].as_str().expect("digest");
        let manifests = self.manifests.borrow();
        let known = manifests.get(digest).expect("a manifest");
        let (media_type, bytes) = (known.media_type.clone(), known.bytes.clone());
        drop(manifests);
        self.keep(tag, digest, &media_type, &bytes);
    }

    /// Has other bytes where a digest is asked for.
    pub fn spoil(&self, digest: &str, bytes: &[u8]) {
        self.keep(digest, digest, OCI_MANIFEST, bytes);
    }

    fn keep(&self, reference: &str, digest: &str, media_type: &str, bytes: &[u8]) {
        let kept = Kept {
            digest: digest.to_owned(),
            media_type: media_type.to_owned(),
            bytes: bytes.to_vec(),
        };
        self.manifests
            .borrow_mut()
            .insert(reference.to_owned(), kept);
    }

    /// Answers, by plain HTTP.
    pub fn serve(self) -> Server {
        let (manifests, blobs) = (self.manifests.into_inner(), self.blobs.into_inner());
        Server::start(move |request| answer(request, &manifests, &blobs))
    }
}

fn answer(
    request: &Request,
    manifests: &BTreeMap<String, Kept>,
    blobs: &BTreeMap<String, Vec<u8>>,
) -> Answer {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Answer::status(405);
    }
    if request.path == "/v2/" {
        return Answer::status(200);
    }
    if let Some(reference) = request.path.strip_prefix("/v2/shop/web/manifests/") {
        let Some(kept) = manifests.get(reference) else {
            return Answer::status(404);
        };
        return Answer::status(200)
            .with("Content-Type", &kept.media_type)
            .with("Docker-Content-Digest", &kept.digest)
            .body(kept.bytes.clone());
    }
    let digest = request.path.strip_prefix("/v2/shop/web/blobs/");
    match digest.and_then(|digest| blobs.get(digest)) {
        Some(bytes) => Answer::status(200).body(bytes.clone()),
        None => Answer::status(404),
    }
}
