//! Media types, and what each means to the store.

/// OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI empty descriptor's content, `{}`.
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// OCI layer, plain tar.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image manifest, version 2 schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, plain tar (only inside archives).
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker manifests of schema 1, which are refused.
pub const DOCKER_SCHEMA1: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];

/// How a layer's bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip, any number of members.
    Gzip,
    /// zstd, any number of frames.
    Zstd,
}

impl Compression {
    /// `tar`, `gzip` or `zstd`.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "tar",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        }
    }

    /// Sniffs as containerd does (`core/diff/stream.go`): gzip by `1f 8b 08`, zstd by its magic or a
    /// skippable frame's, else plain.
    pub fn sniff(head: &[u8]) -> Compression {
        match head {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}

/// What a layer's media type says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerType {
    /// The packing that the type names. The bytes are sniffed all the same, except where
    /// [`LayerType::always_plain`].
    pub compression: Compression,
    /// An OCI plain `tar` is never decompressed, whatever it begins with.
    pub always_plain: bool,
    /// Non-distributable (foreign): kept by those who made it, not always here.
    pub foreign: bool,
}

impl LayerType {
    /// Parses the layer types of containerd's `core/images/mediatypes.go: DiffCompression`.
    pub fn parse(media_type: &str) -> Option<LayerType> {
        let docker = "application/vnd.docker.image.rootfs.";
        let (compression, always_plain, foreign) = match media_type {
            OCI_LAYER => (Compression::None, true, false),
            OCI_LAYER_GZIP => (Compression::Gzip, false, false),
            OCI_LAYER_ZSTD => (Compression::Zstd, false, false),
            "application/vnd.oci.image.layer.nondistributable.v1.tar" => {
                (Compression::None, true, true)
            }
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip" => {
                (Compression::Gzip, false, true)
            }
            "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd" => {
                (Compression::Zstd, false, true)
            }
            other => match other.strip_prefix(docker)? {
                "diff.tar" => (Compression::None, false, false),
                "diff.tar.gzip" => (Compression::Gzip, false, false),
                "diff.tar.zstd" => (Compression::Zstd, false, false),
                "foreign.diff.tar" => (Compression::None, false, true),
                "foreign.diff.tar.gzip" => (Compression::Gzip, false, true),
                _ => return None,
            },
        };
        Some(LayerType {
            compression,
            always_plain,
            foreign,
        })
    }
}

/// What a descriptor points at, by its media type alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// An OCI index or Docker manifest list.
    Index,
    /// An OCI or Docker image manifest.
    Manifest,
    /// An OCI or Docker image configuration.
    Config,
    /// A layer that can be unpacked.
    Layer(LayerType),
    /// Docker schema 1, refused.
    Schema1,
    /// Anything else: an artifact's blob, an encrypted layer.
    Other,
}

impl MediaKind {
    /// Classifies a media type.
    pub fn of(media_type: &str) -> MediaKind {
        match media_type {
            OCI_INDEX | DOCKER_LIST => MediaKind::Index,
            OCI_MANIFEST | DOCKER_MANIFEST => MediaKind::Manifest,
            OCI_CONFIG | DOCKER_CONFIG => MediaKind::Config,
            other if DOCKER_SCHEMA1.contains(&other) => MediaKind::Schema1,
            other => LayerType::parse(other).map_or(MediaKind::Other, MediaKind::Layer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sniffing_knows_the_three_magics() {
        assert_eq!(Compression::sniff(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(Compression::sniff(&[0x1f, 0x8b, 7, 0]), Compression::None);
        assert_eq!(
            Compression::sniff(&[0x28, 0xb5, 0x2f, 0xfd]),
            Compression::Zstd
        );
        assert_eq!(
            Compression::sniff(&[0x5f, 0x2a, 0x4d, 0x18]),
            Compression::Zstd
        );
        assert_eq!(
            Compression::sniff(&[0x60, 0x2a, 0x4d, 0x18]),
            Compression::None
        );
        assert_eq!(Compression::sniff(&[]), Compression::None);
    }

    #[test]
    fn every_layer_type_is_known() {
        for (text, compression, foreign) in [
            (
                "application/vnd.oci.image.layer.v1.tar",
                Compression::None,
                false,
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+gzip",
                Compression::Gzip,
                false,
            ),
            (
                "application/vnd.oci.image.layer.v1.tar+zstd",
                Compression::Zstd,
                false,
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar",
                Compression::None,
                true,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar",
                Compression::None,
                false,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                Compression::Gzip,
                false,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.zstd",
                Compression::Zstd,
                false,
            ),
            (
                "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                Compression::Gzip,
                true,
            ),
        ] {
            let layer = LayerType::parse(text).expect(text);
            assert_eq!(
                (layer.compression, layer.foreign),
                (compression, foreign),
                "{text}"
            );
        }
        assert_eq!(LayerType::parse("application/vnd.acme.layer.v9"), None);
        assert_eq!(
            LayerType::parse("application/vnd.oci.image.layer.v1.tar+gzip+encrypted"),
            None
        );
    }
}
