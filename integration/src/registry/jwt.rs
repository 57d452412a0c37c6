//! Tokens as docker-registry takes them: JSON Web Tokens (RFC 7519) by RS256, signed by `openssl`.

use std::path::PathBuf;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::certs::openssl;
use crate::peers;

/// How a token says which key signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyHint {
    /// By the key's certificate, `x5c` (RFC 7515, 4.1.6).
    Certificate,
    /// By the key's fingerprint in the form of libtrust, `kid`.
    Id,
}

/// A key that signs tokens, and its certificate.
pub(super) struct Signer {
    work: TempDir,
    header: Value,
}

impl Signer {
    /// Makes a key.
    pub(super) fn new(hint: KeyHint) -> Signer {
        let work = TempDir::new().expect("temporary directory");
        let made =
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=tokens -keyout key -out crt";
        openssl(work.path(), &made.split(' ').collect::<Vec<_>>());
        let mut header = json!({ "typ": "JWT", "alg": "RS256" });
        match hint {
            KeyHint::Certificate => {
                let der = openssl(work.path(), &["x509", "-in", "crt", "-outform", "DER"]);
                header["x5c"] = json!([STANDARD.encode(der)]);
            }
            KeyHint::Id => {
                let der = openssl(
                    work.path(),
                    &["pkey", "-in", "key", "-pubout", "-outform", "DER"],
                );
                header["kid"] = json!(fingerprint(&der));
            }
        }
        Signer { work, header }
    }

    /// What those who check tokens trust.
    pub(super) fn certificate(&self) -> PathBuf {
        self.work.path().join("crt")
    }

    /// A token of these claims.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let text = format!("{}.{}", part(&self.header), part(claims));
        let key = self.work.path().join("key");
        let key = key.to_str().expect("UTF-8");
        let signature = peers::filter(
            "openssl",
            &["dgst", "-sha256", "-sign", key],
            text.as_bytes(),
        );
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// libtrust's: the first 240 bits of the SHA-256 of the public key (DER), in base 32, by fours.
fn fingerprint(der: &[u8]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = Sha256::digest(der);
    let digits = hash[..30].chunks(5).flat_map(|five| {
        let bits = five
            .iter()
            .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
        (0..8)
            .rev()
            .map(move |at| DIGITS[(bits >> (5 * at) & 31) as usize] as char)
    });
    let digits: Vec<char> = digits.collect();
    let groups = digits.chunks(4).map(|four| four.iter().collect::<String>());
    groups.collect::<Vec<_>>().join(":")
}
