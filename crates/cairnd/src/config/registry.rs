//! The table `[registry]`: how registries are reached, and how hard.

use std::{path::PathBuf, time::Duration};

use cairn_node::RegistryOptions;
use cairn_types::size;
use serde::{Deserialize, Deserializer, de::Error as _};

use super::not_none;

/// More would only be refused by the registries, which count connections.
const DOWNLOADS_MAX: usize = 256;
/// Each is a request that is waited for.
const CHUNK_BYTES_MIN: u64 = 256 << 10;
/// With the waits between them so many take hours.
const RETRIES_MAX: u32 = 100;

/// Registries.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "default.toml says what each is")]
pub struct Registry {
    #[serde(deserialize_with = "directories")]
    pub config_path: Vec<PathBuf>,
    #[serde(deserialize_with = "downloads")]
    pub max_concurrent_downloads: usize,
    #[serde(deserialize_with = "rate")]
    pub limit_rate: u64,
    #[serde(deserialize_with = "not_none")]
    pub connect_timeout: Duration,
    #[serde(deserialize_with = "not_none")]
    pub header_timeout: Duration,
    #[serde(deserialize_with = "rate")]
    pub min_rate: u64,
    #[serde(deserialize_with = "not_none")]
    pub min_rate_window: Duration,
    #[serde(deserialize_with = "retries")]
    pub retries: u32,
    #[serde(deserialize_with = "chunk")]
    pub upload_chunk: Option<u64>,
}

impl From<Registry> for RegistryOptions {
    fn from(registry: Registry) -> RegistryOptions {
        RegistryOptions {
            hosts_dirs: registry.config_path,
            max_concurrent_downloads: registry.max_concurrent_downloads,
            limit_rate: registry.limit_rate,
            connect_timeout: registry.connect_timeout,
            header_timeout: registry.header_timeout,
            min_rate: registry.min_rate,
            min_rate_window: registry.min_rate_window,
            retries: registry.retries,
            upload_chunk: registry.upload_chunk,
        }
    }
}

/// containerd has one text with colons in it here, which is easily taken for one directory.
fn directories<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    let dirs: Vec<String> = Vec::deserialize(from)?;
    match dirs.iter().find(|dir| !dir.starts_with('/')) {
        Some(dir) => Err(D::Error::custom(format_args!(
            "{dir:?} does not start with /"
        ))),
        None => Ok(dirs.into_iter().map(PathBuf::from).collect()),
    }
}

fn downloads<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match usize::deserialize(from)? {
        0 => Err(D::Error::custom("with 0 nothing would ever come")),
        count @ 1..=DOWNLOADS_MAX => Ok(count),
        count => Err(D::Error::custom(format_args!(
            "{count} is more than {DOWNLOADS_MAX}"
        ))),
    }
}

/// Bytes a second; nothing is no limit.
pub(super) fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    match &*String::deserialize(from)? {
        "" => Ok(0),
        text => size::parse_bytes(text).map_err(D::Error::custom),
    }
}

fn retries<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        count if count <= RETRIES_MAX => Ok(count),
        count => Err(D::Error::custom(format_args!(
            "{count} is more than {RETRIES_MAX}"
        ))),
    }
}

/// Nothing is a blob in one.
fn chunk<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() {
        return Ok(None);
    }
    match size::parse_bytes(&text).map_err(D::Error::custom)? {
        bytes @ CHUNK_BYTES_MIN.. => Ok(Some(bytes)),
        _ => Err(D::Error::custom(format_args!("{text} is less than 256KiB"))),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Layers;

    fn with(keys: &str) -> Result<RegistryOptions, String> {
        let mut layers = Layers::default();
        let added = layers.add(Path::new("/c.toml"), &format!("[registry]\n{keys}"));
        let config = added.and_then(|()| layers.config());
        config
            .map(|config| config.registry.into())
            .map_err(|err| err.to_string())
    }

    /// The file of defaults and the node's own are two lists of the same values.
    #[test]
    fn the_defaults_are_the_nodes() {
        assert_eq!(with("").expect("defaults"), RegistryOptions::default());
    }

    #[test]
    fn values() {
        let options = with(
            "config_path = [\"/a\", \"/b\"]\nlimit_rate = \"10MB\"\nmin_rate = \"0\"\nretries = 0",
        );
        let options = options.expect("good values");
        assert_eq!(options.hosts_dirs, [Path::new("/a"), Path::new("/b")]);
        assert_eq!(options.limit_rate, 10_000_000);
        assert_eq!((options.min_rate, options.retries), (0, 0));
        let options = with("upload_chunk = \"256KiB\"").expect("good values");
        assert_eq!(options.upload_chunk, Some(256 << 10));
    }

    #[test]
    fn values_out_of_range() {
        for (key, value) in [
            ("config_path", "[\"certs.d\"]"),
            ("config_path", "\"/etc/cairn/certs.d\""),
            ("max_concurrent_downloads", "0"),
            ("max_concurrent_downloads", "257"),
            ("limit_rate", "\"fast\""),
            ("connect_timeout", "\"0\""),
            ("header_timeout", "\"soon\""),
            ("min_rate", "\"-1\""),
            ("min_rate_window", "\"0s\""),
            ("retries", "101"),
            ("upload_chunk", "\"0\""),
            ("upload_chunk", "\"255KiB\""),
        ] {
            let err = with(&format!("{key} = {value}")).expect_err(key);
            assert!(err.contains(&format!("registry.{key}")), "{err}");
        }
    }
}
