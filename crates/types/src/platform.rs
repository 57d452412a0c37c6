//! Platforms, and which of an image's variants this machine takes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Classified, ErrorKind};

/// What an image runs on (image-spec `image-index.md`, "platform").
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`, …
    pub os: String,
    /// `v7`, `v8`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows only.
    #[serde(
        rename = "os.version",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub os_version: Option<String>,
    /// What the image needs of the system.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// A text that names no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {0:?}: expected OS/ARCH[/VARIANT], as in linux/arm64")]
pub struct PlatformError(pub String);

impl Classified for PlatformError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidArgument
    }
}

impl Platform {
    /// The platform of this process.
    pub fn host() -> Platform {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            ..Platform::default()
        }
        .normalized()
    }

    /// Attestation manifests carry `unknown/unknown`; they are kept and never picked.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" || self.architecture == "unknown"
    }

    /// Aliases resolved (`x86_64` is `amd64`), default variants made explicit or dropped, as
    /// containerd's `platforms.Normalize`.
    pub fn normalized(mut self) -> Platform {
        self.os = match self.os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let arch = self.architecture.to_lowercase();
        let variant = self.variant.take().unwrap_or_default().to_lowercase();
        let (arch, variant) = match (arch.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", v) => ("amd64", v),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", v) => ("arm64", v),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (a, v) => (a, v),
        };
        self.variant = (!variant.is_empty()).then(|| variant.to_owned());
        self.architecture = arch.to_owned();
        self
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Platform, PlatformError> {
        let word = |w: &str| {
            !w.is_empty()
                && w.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts.as_slice() {
            [os, arch] => (os, arch, None),
            [os, arch, variant] => (os, arch, Some((*variant).to_owned())),
            _ => return Err(PlatformError(text.to_owned())),
        };
        if !parts.iter().all(|p| word(p)) {
            return Err(PlatformError(text.to_owned()));
        }
        let platform = Platform {
            os: (*os).to_owned(),
            architecture: (*architecture).to_owned(),
            variant,
            ..Platform::default()
        };
        Ok(platform.normalized())
    }
}

/// Chooses among an image's variants for one wanted platform, as containerd's `platforms.Only`:
/// the wanted one, or an older one that runs on it.
#[derive(Clone, Debug)]
pub struct PlatformMatcher {
    /// Best first.
    accepted: Vec<Platform>,
}

impl PlatformMatcher {
    /// Accepts `platform` and what runs on it: lower `amd64` levels and `386`; lower `arm64` and
    /// `arm` versions.
    pub fn only(platform: &Platform) -> PlatformMatcher {
        let wanted = platform.clone().normalized();
        let with = |arch: &str, variant: Option<String>| Platform {
            architecture: arch.to_owned(),
            variant,
            ..wanted.clone()
        };
        let mut accepted = vec![wanted.clone()];
        let variant = wanted.variant.as_deref().unwrap_or("");
        let digit = |v: &str| v.strip_prefix('v').and_then(|n| n.parse::<u8>().ok());
        match wanted.architecture.as_str() {
            "amd64" => {
                for level in (2..digit(variant).unwrap_or(1)).rev() {
                    accepted.push(with("amd64", Some(format!("v{level}"))));
                }
                if wanted.variant.is_some() {
                    accepted.push(with("amd64", None));
                }
                accepted.push(with("386", None));
            }
            "arm64" => {
                if let Some((major, minor)) = variant
                    .strip_prefix('v')
                    .and_then(|v| v.split_once('.').or(Some((v, "0"))))
                    .and_then(|(a, b)| Some((a.parse::<u8>().ok()?, b.parse::<u8>().ok()?)))
                {
                    for lower in (1..minor).rev() {
                        accepted.push(with("arm64", Some(format!("v{major}.{lower}"))));
                    }
                    if major > 8 {
                        accepted.push(with("arm64", Some(format!("v{major}"))));
                    }
                    accepted.push(with("arm64", None));
                }
                accepted.extend((5..=8).rev().map(|v| with("arm", Some(format!("v{v}")))));
            }
            "arm" => {
                let lower = digit(variant).unwrap_or(7);
                accepted.extend((5..lower).rev().map(|v| with("arm", Some(format!("v{v}")))));
            }
            _ => {}
        }
        PlatformMatcher { accepted }
    }

    /// How good a match is: 0 is best; `None` is no match. Attestations never match.
    pub fn rank(&self, candidate: &Platform) -> Option<usize> {
        if candidate.is_unknown() {
            return None;
        }
        let candidate = candidate.clone().normalized();
        self.accepted.iter().position(|wanted| {
            wanted.os == candidate.os
                && wanted.architecture == candidate.architecture
                && wanted.variant == candidate.variant
                && candidate
                    .os_features
                    .iter()
                    .all(|feature| wanted.os_features.contains(feature))
                && (wanted.os_version.is_none() || wanted.os_version == candidate.os_version)
        })
    }

    /// The platform that was asked for.
    pub fn wanted(&self) -> &Platform {
        &self.accepted[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranks(wanted: &str, candidates: &[&str]) -> Vec<Option<usize>> {
        let matcher = PlatformMatcher::only(&wanted.parse().expect("platform"));
        candidates
            .iter()
            .map(|c| matcher.rank(&c.parse().expect("platform")))
            .collect()
    }

    #[test]
    fn aliases_are_one_platform() {
        let show = |t: &str| t.parse::<Platform>().expect(t).to_string();
        assert_eq!(show("linux/x86_64"), "linux/amd64");
        assert_eq!(show("linux/aarch64"), "linux/arm64");
        assert_eq!(show("linux/arm64/v8"), "linux/arm64");
        assert_eq!(show("linux/armhf"), "linux/arm/v7");
        assert_eq!(show("linux/arm"), "linux/arm/v7");
        assert_eq!(show("linux/amd64/v1"), "linux/amd64");
        for bad in ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn older_variants_run_on_newer_machines() {
        let order = ranks(
            "linux/amd64/v3",
            &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"],
        );
        assert_eq!(order, [Some(0), Some(1), Some(2)]);
        assert_eq!(
            ranks(
                "linux/amd64",
                &["linux/386", "linux/amd64/v2", "linux/arm64"]
            ),
            [Some(1), None, None]
        );
        assert_eq!(
            ranks(
                "linux/arm64",
                &["linux/arm64/v8", "linux/arm/v7", "linux/arm/v6"]
            ),
            [Some(0), Some(2), Some(3)]
        );
        assert_eq!(
            ranks(
                "linux/arm/v7",
                &["linux/arm/v8", "linux/arm/v6", "linux/arm/v5"]
            ),
            [None, Some(1), Some(2)]
        );
    }

    /// Variants for lazy snapshotters stand beside the plain one and name what they need.
    #[test]
    fn features_that_were_not_asked_for_are_no_match() {
        let mut nydus: Platform = "linux/amd64".parse().expect("platform");
        nydus.os_features = vec!["nydus.remoteimage.v1".to_owned()];
        let plain = "linux/amd64".parse().expect("platform");
        assert_eq!(PlatformMatcher::only(&plain).rank(&nydus), None);
        assert_eq!(PlatformMatcher::only(&nydus).rank(&nydus), Some(0));
        assert_eq!(PlatformMatcher::only(&nydus).rank(&plain), Some(0));
    }

    #[test]
    fn attestations_are_never_picked() {
        assert_eq!(ranks("linux/amd64", &["unknown/unknown"]), [None]);
    }
}
