//! What only a tool can make of an image.

use serde_json::Value;
use tempfile::TempDir;

use super::Repository;
use crate::peers;

impl Repository<'_> {
    /// `encrypted`: the image of `from` with its layers encrypted for a key that nobody keeps.
    pub fn encrypted(&self, from: &str) {
        let work = TempDir::new().expect("temporary directory");
        let key = work.path().join("key");
        let key = key.to_str().expect("UTF-8");
        let public = format!("{key}.pub");
        peers::run("openssl", &["genrsa", "-out", key, "2048"]);
        peers::run("openssl", &["rsa", "-in", key, "-pubout", "-out", &public]);
        let recipient = format!("jwe:{public}");
        self.convert(from, "encrypted", &["--encryption-key", &recipient]);
    }

    /// `schema1`: the image of `from` as registries had it before 2016, signed.
    pub fn schema1(&self, from: &str) {
        self.convert(from, "schema1", &["--format", "v2s1"]);
    }

    /// The manifest of a tag of its own.
    pub fn read(&self, tag: &str) -> Value {
        let stored = self.registry.manifest(self.name, tag).expect(tag);
        serde_json::from_slice(&stored.bytes).expect("JSON")
    }

    fn convert(&self, from: &str, to: &str, flags: &[&str]) {
        let [from, to] = [from, to].map(|tag| format!("docker://{}", self.reference(tag)));
        let plain = [
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--quiet",
        ];
        peers::run(
            "skopeo",
            &[&["copy"], &plain[..], flags, &[&from, &to]].concat(),
        );
    }
}
