//! Blobs and manifests into a registry, and out of it, by its API and by nothing of Cairn's.
//!
//! distribution-spec, "Push" and "Pull".

use base64::{Engine, engine::general_purpose::STANDARD};

use super::Registry;
use crate::{
    http::{Answer, Head, ask, fields},
    image, peers,
};

/// What a registry has answered a manifest of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// As it says.
    pub digest: String,
    /// Its type.
    pub media_type: String,
    /// Byte by byte.
    pub bytes: Vec<u8>,
}

impl Registry {
    /// Stores a blob under the digest that it has by `algorithm`.
    pub fn put_blob(&self, repository: &str, algorithm: &str, bytes: &[u8]) -> String {
        let digest = image::digest_by(algorithm, bytes);
        let begun = self.ask(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
            &[],
        );
        let place = begun.head.get("location").expect("where to");
        // Its own address stands before.
        let (_, path) = place.split_once("://").expect("URL");
        let path = &path[path.find('/').expect("path")..];
        let between = if path.contains('?') { '&' } else { '?' };
        let octets = [("Content-Type", "application/octet-stream")];
        let target = format!("{path}{between}digest={digest}");
        let put = self.ask("PUT", &target, &octets, bytes);
        assert_eq!(put.head.status(), 201, "blob {digest}: {}", put.text());
        digest
    }

    /// Stores a manifest under a tag or its digest.
    pub fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        let put = self.try_put_manifest(repository, reference, media_type, bytes);
        assert_eq!(put.head.status(), 201, "{repository}: {}", put.text());
    }

    /// Tries to; what it answers.
    pub fn try_put_manifest(
        &self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Answer {
        let target = format!("/v2/{repository}/manifests/{reference}");
        self.ask("PUT", &target, &[("Content-Type", media_type)], bytes)
    }

    /// What a tag or digest means, of whatever type it is.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<Stored> {
        let target = format!("/v2/{repository}/manifests/{reference}");
        let types = [
            image::OCI_MANIFEST,
            image::OCI_INDEX,
            image::DOCKER_MANIFEST,
            image::DOCKER_LIST,
        ];
        let got = self.ask("GET", &target, &[("Accept", &types.join(", "))], &[]);
        if got.head.status() == 404 {
            return None;
        }
        assert_eq!(got.head.status(), 200, "{target}: {}", got.text());
        let field = |name| got.head.get(name).expect(name).to_owned();
        Some(Stored {
            digest: field("docker-content-digest"),
            media_type: field("content-type"),
            bytes: got.body,
        })
    }

    /// Whether it has a blob in a repository.
    pub fn has_blob(&self, repository: &str, digest: &str) -> bool {
        let target = format!("/v2/{repository}/blobs/{digest}");
        self.ask("HEAD", &target, &[], &[]).head.status() == 200
    }

    /// Has skopeo bring an image, index and all, with the digests that it has; `from` as skopeo names it.
    pub fn copy_in(&self, from: &str, name: &str) {
        let to = format!("docker://{}/{name}", self.host());
        let mut arguments = vec!["copy", "--quiet", "--all", "--preserve-digests"];
        let flags = self.skopeo_flags("dest-");
        arguments.extend(flags.iter().map(String::as_str));
        arguments.extend([from, &to]);
        peers::run("skopeo", &arguments);
    }

    /// What skopeo has to be told to get in; `side` is `src-`, `dest-` or empty.
    pub fn skopeo_flags(&self, side: &str) -> Vec<String> {
        let mut flags = vec![match self.access.secure {
            true => format!(
                "--{side}cert-dir={}",
                self.work.path().join(super::TRUSTED).display()
            ),
            false => format!("--{side}tls-verify=false"),
        }];
        if let Some((user, password)) = &self.access.user {
            flags.push(format!("--{side}creds={user}:{password}"));
        }
        flags
    }

    fn ask(&self, method: &str, target: &str, more: &[(&str, &str)], body: &[u8]) -> Answer {
        assert!(!self.access.secure, "only by plain HTTP");
        let mut head: Head = fields(more);
        if let Some((user, password)) = &self.access.user {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            head.set("Authorization", format!("Basic {pair}"));
        }
        ask(self.address(), method, target, &head, body)
    }
}
