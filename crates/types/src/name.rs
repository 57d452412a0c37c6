//! Names that users and clients choose: namespaces, image names, snapshot keys, ingest refs, leases,
//! directories of the host.

use std::{
    fmt,
    path::{Component, Path},
};

use oci_spec::distribution::Reference;
use serde::{Deserialize, Serialize};

use crate::{Classified, ErrorKind};

/// Most bytes of any name (an image name, a key, a ref).
const NAME_BYTES_MAX: usize = 1024;

/// Most bytes of an identifier (containerd `pkg/identifiers`).
const IDENTIFIER_BYTES_MAX: usize = 76;

/// Why a text is no name of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("{what} is required")]
    Empty {
        /// `namespace`, `image name`, …
        what: &'static str,
    },
    /// Longer than its limit.
    #[error("{what} has {length} bytes, more than {limit}")]
    Long {
        /// `namespace`, `image name`, …
        what: &'static str,
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Characters or shape the grammar does not have.
    #[error("invalid {what} {text:?}: {reason}")]
    Grammar {
        /// `namespace`, `reference`, …
        what: &'static str,
        /// As it was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Classified for NameError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

fn checked(what: &'static str, text: &str, limit: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > limit {
        return Err(NameError::Long {
            what,
            length: text.len(),
            limit,
        });
    }
    if text.contains('\0') {
        let reason = "it has a NUL byte".to_owned();
        return Err(NameError::Grammar {
            what,
            text: text.escape_default().to_string(),
            reason,
        });
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Takes any non-empty text without NUL of at most 1,024 bytes.
            pub fn parse(text: &str) -> Result<$name, NameError> {
                checked($what, text, NAME_BYTES_MAX)?;
                Ok($name(text.to_owned()))
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// Names a snapshot within a namespace. Any text: clients use spaces and slashes.
    SnapshotKey,
    "snapshot key"
);
name!(
    /// Names an upload within a namespace.
    IngestRef,
    "ingest ref"
);
name!(
    /// Names a lease within a namespace.
    LeaseId,
    "lease id"
);
name!(
    /// Names an image within a namespace. The store keeps any text; people's references go through
    /// [`ImageName::normalize`].
    ImageName,
    "image name"
);

impl From<&crate::ChainId> for SnapshotKey {
    fn from(chain: &crate::ChainId) -> SnapshotKey {
        SnapshotKey(chain.to_string())
    }
}

impl ImageName {
    /// Completes what a person typed as Docker does: `alpine` is `docker.io/library/alpine:latest`.
    pub fn normalize(text: &str) -> Result<ImageName, NameError> {
        checked("reference", text, NAME_BYTES_MAX)?;
        let reference: Reference = text.parse().map_err(|err| NameError::Grammar {
            what: "reference",
            text: text.to_owned(),
            reason: reference_reason(text, &err),
        })?;
        // `whole()` would drop the tag of `name:tag@digest`; a name that was given with both keeps both.
        let repository = format!("{}/{}", reference.registry(), reference.repository());
        let mut whole = repository;
        if let Some(tag) = reference.tag() {
            whole.push(':');
            whole.push_str(tag);
        }
        if let Some(digest) = reference.digest() {
            whole.push('@');
            whole.push_str(digest);
        }
        Ok(ImageName(whole))
    }

    /// Docker's short form, for archives' `RepoTags`: `docker.io/library/` is left out.
    pub fn familiar(&self) -> &str {
        self.0
            .strip_prefix("docker.io/library/")
            .or_else(|| self.0.strip_prefix("docker.io/"))
            .unwrap_or(&self.0)
    }
}

fn reference_reason(text: &str, err: &impl fmt::Display) -> String {
    let repository = text.split('@').next().unwrap_or(text);
    if repository
        .rsplit_once(':')
        .map_or(repository, |(r, _)| r)
        .chars()
        .any(char::is_uppercase)
    {
        return "repository must be lower case".to_owned();
    }
    err.to_string()
}

/// A tenant's separate view of the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Namespace(String);

impl Namespace {
    /// 1 to 76 bytes of `[A-Za-z0-9]+([._-][A-Za-z0-9]+)*` (containerd `pkg/identifiers`).
    pub fn parse(text: &str) -> Result<Namespace, NameError> {
        checked("namespace", text, IDENTIFIER_BYTES_MAX)?;
        let well_formed = text
            .split(['.', '_', '-'])
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
        if !well_formed {
            return Err(NameError::Grammar {
                what: "namespace",
                text: text.escape_default().to_string(),
                reason: "letters and digits, single . _ - between them".to_owned(),
            });
        }
        Ok(Namespace(text.to_owned()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key of a bundle's snapshot begins with.
const BUNDLE: &str = "bundle:";
/// What a key of a mounted image's snapshot begins with.
const MOUNT: &str = "mount:";

/// A directory of the host that something outside of the store is known by: absolute, without `.`
/// and `..`. Its links were resolved by whoever names it, who alone can see them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostDir(String);

impl HostDir {
    /// Takes an absolute path of at most 1,017 bytes, so that the keys made of it are names, too.
    pub fn parse(text: &str) -> Result<HostDir, NameError> {
        checked("directory", text, NAME_BYTES_MAX - BUNDLE.len())?;
        let path = Path::new(text);
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        // Doubled slashes and one at the end are taken off by the iterator, and would give another key.
        let rebuilt: std::path::PathBuf = path.components().collect();
        if !path.is_absolute() || !path.components().all(plain) || rebuilt.as_os_str() != text {
            return Err(NameError::Grammar {
                what: "directory",
                text: text.escape_default().to_string(),
                reason: "it is not an absolute path without . and ..".to_owned(),
            });
        }
        Ok(HostDir(text.to_owned()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0)
    }

    /// The key of the writable snapshot of a bundle there.
    pub fn bundle_key(&self) -> SnapshotKey {
        SnapshotKey(format!("{BUNDLE}{}", self.0))
    }

    /// The key of the snapshot of an image that is mounted there.
    pub fn mount_key(&self) -> SnapshotKey {
        SnapshotKey(format!("{MOUNT}{}", self.0))
    }

    /// The directory that such a key was made of.
    pub fn of_mount_key(key: &SnapshotKey) -> Option<HostDir> {
        HostDir::parse(key.0.strip_prefix(MOUNT)?).ok()
    }
}

impl fmt::Display for HostDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_have_one_spelling() {
        for good in ["/", "/run/demo", "/a b/ä"] {
            assert_eq!(HostDir::parse(good).expect(good).as_str(), good);
        }
        let long = format!("/{}", "a".repeat(1017));
        for bad in [
            "", "a", "./a", "/a/", "//a", "/a/../b", "/a/./b", "/a\0", &long,
        ] {
            assert!(HostDir::parse(bad).is_err(), "{bad:?}");
        }
        let longest = HostDir::parse(&long[..1017]).expect("long");
        SnapshotKey::parse(longest.bundle_key().as_str()).expect("a key");
        let key = longest.mount_key();
        assert_eq!(HostDir::of_mount_key(&key), Some(longest.clone()));
        assert_eq!(HostDir::of_mount_key(&longest.bundle_key()), None);
    }

    #[test]
    fn namespaces_follow_containerds_grammar() {
        for good in ["default", "k8s.io", "a", "a-b_c.d", &"a".repeat(76)] {
            assert!(Namespace::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a/b",
            "a b",
            "ä",
            &"a".repeat(77),
            "a\0b",
        ] {
            assert!(Namespace::parse(bad).is_err(), "{bad:?}");
        }
    }

    /// Docker's own table of normalised names (distribution/reference).
    #[test]
    fn references_are_completed_as_docker_does() {
        let hex = "a".repeat(64);
        for (typed, whole) in [
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
            ("alpine:3.19", "docker.io/library/alpine:3.19".to_owned()),
            ("user/app", "docker.io/user/app:latest".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("localhost:5000/app:1", "localhost:5000/app:1".to_owned()),
            (
                "registry.example.com/shop/web:2.1",
                "registry.example.com/shop/web:2.1".to_owned(),
            ),
            (
                "index.docker.io/library/alpine",
                "docker.io/library/alpine:latest".to_owned(),
            ),
            (
                &format!("alpine@sha256:{hex}"),
                format!("docker.io/library/alpine@sha256:{hex}"),
            ),
            (
                &format!("alpine:3@sha256:{hex}"),
                format!("docker.io/library/alpine:3@sha256:{hex}"),
            ),
        ] {
            assert_eq!(ImageName::normalize(typed).expect(typed).as_str(), whole);
        }
        let err = ImageName::normalize("Busybox:1.36").expect_err("upper case");
        assert!(err.to_string().contains("lower case"), "{err}");
    }

    #[test]
    fn familiar_names_leave_out_what_docker_leaves_out() {
        let name = |t| ImageName::parse(t).expect("name");
        assert_eq!(name("docker.io/library/alpine:3").familiar(), "alpine:3");
        assert_eq!(name("docker.io/user/app:1").familiar(), "user/app:1");
        assert_eq!(name("quay.io/a/b:1").familiar(), "quay.io/a/b:1");
    }
}
