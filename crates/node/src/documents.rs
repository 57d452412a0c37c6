//! Reading an image's JSON documents so that one document has one meaning.
//!
//! A document that two readers could take for two different things (both `layers` and `manifests`,
//! a key twice, a media type that contradicts the descriptor) has been used to smuggle images past
//! checks (CVE-2021-41190), so it is refused here, for every source and in both directions.

use std::{collections::HashSet, fmt};

use cairn_types::{Descriptor, Digest, ImageConfig, Index, Manifest, MediaKind, media};
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

/// Most bytes of one document (distribution-spec: registries should allow, clients expect 4 MiB).
pub(crate) const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// Most bytes of a descriptor's embedded `data`.
const DATA_BYTES_MAX: usize = 64 << 10;

/// Most keys of a document, those of what it lists not counted. Documents have a dozen.
const KEYS_MAX: usize = 1024;

/// Keys that decide what a document is; a spelling like `Layers` would be read as `layers` by Go.
const KEYS: [&str; 9] = [
    "schemaVersion",
    "mediaType",
    "manifests",
    "layers",
    "config",
    "fsLayers",
    "subject",
    "rootfs",
    "annotations",
];

/// Why a document is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DocumentError {
    /// Too long.
    #[error("it has {0} bytes, more than {DOCUMENT_BYTES_MAX}")]
    Long(u64),
    /// Its descriptor says that there is nothing to read.
    #[error("its descriptor says that it has 0 bytes")]
    Empty,
    /// Has not as many as its descriptor says.
    #[error("it has {actual} bytes where {expected} are expected")]
    Size {
        /// In the descriptor.
        expected: u64,
        /// That came.
        actual: u64,
    },
    /// Lists more than there can be.
    #[error("the sizes of all that it lists have no sum")]
    Sizes,
    /// No JSON, or not of the shape.
    #[error("it does not parse: {0}")]
    Json(String),
    /// A key is there twice or in another spelling.
    #[error("its key {0:?} is ambiguous")]
    Key(String),
    /// `manifests` beside `layers` or `config`.
    #[error("it is an index and a manifest at once")]
    Both,
    /// Docker schema 1.
    #[error("it is a docker schema 1 manifest, which carries no verifiable layers")]
    Schema1,
    /// Neither.
    #[error("it is neither an index nor a manifest")]
    Neither,
    /// Says another media type than the descriptor.
    #[error("it says it is {found}, its descriptor says {expected}")]
    MediaType {
        /// In the descriptor.
        expected: String,
        /// In the document.
        found: String,
    },
    /// Another number than 2.
    #[error("it has schema version {0}")]
    Version(u32),
    /// Embedded data contradicts the descriptor.
    #[error("the data embedded in the descriptor of {0} is not that blob")]
    Data(Digest),
}

/// An index or a manifest.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Document {
    /// Lists manifests.
    Index(Box<Index>),
    /// Lists layers.
    Manifest(Box<Manifest>),
}

impl Document {
    /// Its media type when the descriptor has none.
    pub(crate) fn media_type(&self) -> &str {
        match self {
            Document::Index(index) => index.media_type.as_deref().unwrap_or(media::OCI_INDEX),
            Document::Manifest(manifest) => manifest
                .media_type
                .as_deref()
                .unwrap_or(media::OCI_MANIFEST),
        }
    }
}

/// The top-level keys, and the first that can be read in two ways.
#[derive(Default)]
struct Keys {
    all: HashSet<String>,
    ambiguous: Option<String>,
}

impl Keys {
    fn add(&mut self, key: String) {
        let known = KEYS.iter().find(|k| k.eq_ignore_ascii_case(&key));
        let is_other = known.is_some_and(|k| *k != key);
        if (is_other || self.all.contains(&key)) && self.ambiguous.is_none() {
            self.ambiguous = Some(key.chars().take(64).collect());
        }
        self.all.insert(key);
    }
}

impl<'de> serde::Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        struct KeysVisitor;
        impl<'de> Visitor<'de> for KeysVisitor {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Keys::default();
                while let Some((key, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    keys.add(key);
                    if keys.all.len() > KEYS_MAX {
                        let why = format_args!("it has more than {KEYS_MAX} keys");
                        return Err(A::Error::custom(why));
                    }
                }
                Ok(keys)
            }
        }
        deserializer.deserialize_map(KeysVisitor)
    }
}

fn json<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, DocumentError> {
    serde_json::from_slice(bytes).map_err(|err| DocumentError::Json(err.to_string()))
}

fn keys(bytes: &[u8]) -> Result<HashSet<String>, DocumentError> {
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(DocumentError::Long(bytes.len() as u64));
    }
    let Keys { all, ambiguous } = json(bytes)?;
    ambiguous.map_or(Ok(all), |key| Err(DocumentError::Key(key)))
}

/// Parses an index or manifest; `media_type` is the descriptor's, empty when it has none.
pub(crate) fn document(bytes: &[u8], media_type: &str) -> Result<Document, DocumentError> {
    let keys = keys(bytes)?;
    let has = |key: &str| keys.contains(key);
    if has("fsLayers") || MediaKind::of(media_type) == MediaKind::Schema1 {
        return Err(DocumentError::Schema1);
    }
    let document = match (has("manifests"), has("layers") || has("config")) {
        (true, true) => return Err(DocumentError::Both),
        (true, false) => Document::Index(json(bytes)?),
        (false, true) => Document::Manifest(json(bytes)?),
        (false, false) => return Err(DocumentError::Neither),
    };
    let (version, kind) = match &document {
        Document::Index(index) => (index.schema_version, MediaKind::Index),
        Document::Manifest(manifest) => (manifest.schema_version, MediaKind::Manifest),
    };
    if version == 1 {
        return Err(DocumentError::Schema1);
    }
    if version != 2 {
        return Err(DocumentError::Version(version));
    }
    let found = document.media_type();
    let contradicts = !media_type.is_empty() && media_type != found && has("mediaType");
    let expected = if media_type.is_empty() {
        found
    } else {
        media_type
    };
    if contradicts || MediaKind::of(expected) != kind {
        return Err(DocumentError::MediaType {
            expected: media_type.to_owned(),
            found: found.to_owned(),
        });
    }
    Ok(document)
}

/// Parses the part of an image's configuration that unpacking needs.
pub(crate) fn config(bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
    let keys = keys(bytes)?;
    if ["manifests", "layers"]
        .iter()
        .any(|key| keys.contains(*key))
    {
        return Err(DocumentError::Json(
            "it is a manifest where a configuration should be".to_owned(),
        ));
    }
    let config: ImageConfig = json(bytes)?;
    if config.rootfs.kind != "layers" && !config.rootfs.kind.is_empty() {
        return Err(DocumentError::Json(format!(
            "rootfs.type is {:?}, not \"layers\"",
            config.rootfs.kind
        )));
    }
    Ok(config)
}

/// The blob that a descriptor carries within itself, if it does; verified.
pub(crate) fn embedded(descriptor: &Descriptor) -> Result<Option<Vec<u8>>, DocumentError> {
    let Some(data) = &descriptor.data else {
        return Ok(None);
    };
    let wrong = || DocumentError::Data(descriptor.digest.clone());
    if data.len() > DATA_BYTES_MAX * 4 / 3 + 4 {
        return Err(wrong());
    }
    let bytes = base64(data).ok_or_else(wrong)?;
    let right = bytes.len() as u64 == descriptor.size
        && Digest::of(descriptor.digest.algorithm(), &bytes) == descriptor.digest;
    right.then_some(Some(bytes)).ok_or_else(wrong)
}

/// Standard alphabet, padded.
fn base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (i, group) in text.chunks(4).enumerate() {
        let last = (i + 1) * 4 == text.len();
        let padding = group.iter().rev().take_while(|b| **b == b'=').count();
        if padding > 2 || (padding > 0 && !last) {
            return None;
        }
        let mut value = 0_u32;
        for byte in &group[..4 - padding] {
            let six = match byte {
                b'A'..=b'Z' => byte - b'A',
                b'a'..=b'z' => byte - b'a' + 26,
                b'0'..=b'9' => byte - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            value = value << 6 | u32::from(six);
        }
        value <<= 6 * padding;
        bytes.extend_from_slice(&value.to_be_bytes()[1..4 - padding]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn manifest(extra: &str) -> String {
        format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{DIGEST}","size":3}}{extra}}}"#
        )
    }

    #[test]
    fn m01_ambiguous_documents_are_refused() {
        let of = |text: &str, media_type| document(text.as_bytes(), media_type);
        assert!(of(&manifest(r#","layers":[]"#), media::OCI_MANIFEST).is_ok());
        assert!(of(&manifest(r#","layers":null"#), "").is_ok());
        let both = manifest(r#","layers":[],"manifests":[]"#);
        assert_eq!(of(&both, media::OCI_MANIFEST), Err(DocumentError::Both));
        assert_eq!(of(&both, media::OCI_INDEX), Err(DocumentError::Both));
        for (text, media_type) in [
            (manifest(r#","layers":[]"#), media::OCI_INDEX),
            (manifest(r#","layers":[],"layers":[]"#), media::OCI_MANIFEST),
            (manifest(r#","Layers":[]"#), media::OCI_MANIFEST),
            (
                manifest(r#","mediaType":"application/vnd.oci.image.index.v1+json""#),
                "",
            ),
            (manifest(r#","layers":[]"#) + "{}", media::OCI_MANIFEST),
            (format!("\u{feff}{}", manifest("")), media::OCI_MANIFEST),
            (manifest(r#","fsLayers":[]"#), media::OCI_MANIFEST),
            (manifest(""), media::DOCKER_SCHEMA1[0]),
            (manifest("").replace(":2,", ":1,"), media::OCI_MANIFEST),
            (manifest("").replace(":3}", ":-3}"), media::OCI_MANIFEST),
            (format!("{{\"manifests\":{}", "[".repeat(100_000)), ""),
            ("{}".to_owned(), media::OCI_MANIFEST),
        ] {
            assert!(of(&text, media_type).is_err(), "{:.200}", text);
        }
    }

    /// Half a million of them once took minutes.
    #[test]
    fn keys_are_few() {
        let many = |count: usize| {
            let keys: String = (0..count).map(|i| format!(",\"{i}\":0")).collect();
            document(manifest(&keys).as_bytes(), media::OCI_MANIFEST)
        };
        assert!(many(1000).is_ok());
        let refused = many(300_000).expect_err("too many").to_string();
        assert!(refused.contains("more than 1024 keys"), "{refused}");
    }

    #[test]
    fn embedded_data_must_be_the_blob() {
        let mut descriptor = Descriptor::new("x", Digest::sha256(b"abc"), 3);
        assert_eq!(embedded(&descriptor), Ok(None));
        descriptor.data = Some("YWJj".to_owned());
        assert_eq!(embedded(&descriptor), Ok(Some(b"abc".to_vec())));
        for wrong in ["YWJk", "YWJ", "YW=j", "YWI=", "*"] {
            descriptor.data = Some(wrong.to_owned());
            assert!(embedded(&descriptor).is_err(), "{wrong}");
        }
    }

    #[test]
    fn base64_of_every_length() {
        for (text, bytes) in [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo")] {
            assert_eq!(base64(text).expect(text), bytes.as_bytes());
        }
    }
}
