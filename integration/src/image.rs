//! Images made byte by byte.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha384, Sha512};

/// How a layer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// A plain tar.
    Plain,
    /// One gzip member.
    Gzip,
    /// One zstd frame.
    Zstd,
}

impl Packing {
    fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Packing::Plain => tar.to_vec(),
            Packing::Gzip => {
                let mut encoder =
                    flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(tar).expect("gzip");
                encoder.finish().expect("gzip")
            }
            Packing::Zstd => zstd::bulk::compress(tar, 1).expect("zstd"),
        }
    }

    fn media_type(self) -> &'static str {
        match self {
            Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
            Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }
}

/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an OCI configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Media type of a docker manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Media type of a docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Media type of a docker configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// This machine's architecture as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A layer as it is stored, and what it is said to be.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Of its descriptor.
    pub media_type: String,
    /// Packed.
    pub bytes: Vec<u8>,
    /// In the configuration.
    pub diff_id: String,
}

impl Stored {
    /// A plain tar.
    pub fn plain(tar: Vec<u8>) -> Stored {
        Stored::packed(&tar, Packing::Plain)
    }

    /// A tar packed as told.
    pub fn packed(tar: &[u8], packing: Packing) -> Stored {
        Stored::of(packing.media_type(), packing.pack(tar), tar)
    }

    /// The tar of one that was made by [`Stored::packed`].
    pub fn unpacked(&self) -> Vec<u8> {
        match self.media_type.rsplit('+').next() {
            Some("gzip") => {
                let mut tar = Vec::new();
                let mut decoder = flate2::read::MultiGzDecoder::new(&self.bytes[..]);
                decoder.read_to_end(&mut tar).expect("gzip");
                tar
            }
            Some("zstd") => zstd::decode_all(&self.bytes[..]).expect("zstd"),
            _ => self.bytes.clone(),
        }
    }

    /// Bytes that should unpack to `tar`.
    pub fn of(media_type: &str, bytes: Vec<u8>, tar: &[u8]) -> Stored {
        let media_type = media_type.to_owned();
        let diff_id = digest(tar);
        Stored {
            media_type,
            bytes,
            diff_id,
        }
    }
}

/// Bytes that nothing packs smaller, the same for the same seed (Knuth's MMIX generator).
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut bytes = Vec::with_capacity(len + 4);
    while bytes.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005);
        state = state.wrapping_add(1_442_695_040_888_963_407);
        bytes.extend_from_slice(&state.to_be_bytes()[..4]);
    }
    bytes.truncate(len);
    bytes
}

/// `sha256:` and the digits.
pub fn digest(bytes: &[u8]) -> String {
    digest_by("sha256", bytes)
}

/// The digest by `sha256`, `sha384` or `sha512`, its algorithm before it.
pub fn digest_by(algorithm: &str, bytes: &[u8]) -> String {
    let hash = match algorithm {
        "sha256" => Sha256::digest(bytes).to_vec(),
        "sha384" => Sha384::digest(bytes).to_vec(),
        "sha512" => Sha512::digest(bytes).to_vec(),
        other => panic!("no algorithm {other}"),
    };
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{algorithm}:{digits}")
}

/// An OCI layout on disk that grows blob by blob.
pub struct Layout {
    path: PathBuf,
    manifests: Vec<Value>,
}

impl Layout {
    /// An empty layout at `path`.
    pub fn create(path: &Path) -> Layout {
        fs::create_dir_all(path.join("blobs/sha256")).expect("layout");
        fs::write(path.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("layout");
        let layout = Layout {
            path: path.to_path_buf(),
            manifests: Vec::new(),
        };
        layout.index();
        layout
    }

    /// Adds a blob and describes it.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        self.blob_by("sha256", media_type, bytes)
    }

    /// Adds a blob under a digest by `sha256`, `sha384` or `sha512`.
    pub fn blob_by(&self, algorithm: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest_by(algorithm, bytes);
        let path = self.blob_path(&digest);
        fs::create_dir_all(path.parent().expect("parent")).expect("blobs");
        fs::write(path, bytes).expect("blob");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Where a blob is.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.path.join("blobs").join(digest.replace(':', "/"))
    }

    /// Adds an image of the given tar layers for this machine; `config` is merged over the
    /// configuration's `config`.
    pub fn image(&mut self, name: &str, layers: &[(Vec<u8>, Packing)], config: &Value) -> Value {
        let layers: Vec<Stored> = layers
            .iter()
            .map(|(tar, packing)| Stored::packed(tar, *packing))
            .collect();
        let manifest = self.manifest(architecture(), &layers, config);
        self.list(manifest, name)
    }

    /// Adds an image of layers that are what they are.
    pub fn image_of(&mut self, name: &str, layers: &[Stored]) -> Value {
        let manifest = self.manifest(architecture(), layers, &json!({}));
        self.list(manifest, name)
    }

    /// Adds the blobs of an image; returns its manifest's descriptor, which nothing lists yet.
    pub fn manifest(&self, architecture: &str, layers: &[Stored], config: &Value) -> Value {
        let add = |media_type: &str, bytes: &[u8]| self.blob(media_type, bytes);
        self.json(OCI_MANIFEST, &document(&add, architecture, layers, config))
    }

    /// Adds a JSON document as a blob.
    pub fn json(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Lists a descriptor in `index.json` under a name; returns it so.
    pub fn list(&mut self, mut descriptor: Value, name: &str) -> Value {
        descriptor["annotations"]["org.opencontainers.image.ref.name"] = json!(name);
        self.push(descriptor.clone());
        descriptor
    }

    /// Lists a descriptor in `index.json` as it is.
    pub fn push(&mut self, descriptor: Value) {
        self.manifests.push(descriptor);
        self.index();
    }

    /// Where the layout is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn index(&self) {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        fs::write(self.path.join("index.json"), index.to_string()).expect("index");
    }
}

/// The manifest of an image for Linux whose configuration and layers `add` stores and describes.
pub fn document(
    add: &dyn Fn(&str, &[u8]) -> Value,
    architecture: &str,
    layers: &[Stored],
    config: &Value,
) -> Value {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    let document = json!({
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let layers = layers
        .iter()
        .map(|layer| add(&layer.media_type, &layer.bytes));
    let layers: Vec<Value> = layers.collect();
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": add(OCI_CONFIG, document.to_string().as_bytes()),
        "layers": layers,
    })
}

/// A layer under construction: GNU or PAX headers by the `tar` crate, written as told.
#[derive(Default)]
pub struct Layer {
    builder: Option<tar::Builder<Vec<u8>>>,
}

/// The time of everything that does not say another.
pub const MTIME: u64 = 1_600_000_000;

impl Layer {
    /// An empty layer.
    pub fn new() -> Layer {
        Layer {
            builder: Some(tar::Builder::new(Vec::new())),
        }
    }

    /// A root in which this machine's busybox runs, as `sh` and `cat`.
    pub fn busybox() -> Layer {
        let program = fs::read("/bin/busybox").expect("busybox-static is installed");
        let executable = Layer::header(tar::EntryType::Regular, 0o755, 0, 0, MTIME);
        ["bin", "proc", "sys", "dev", "etc"]
            .iter()
            .fold(Layer::new(), |layer, dir| layer.dir(dir, 0o755))
            .entry("bin/busybox", executable, &program)
            .link(tar::EntryType::Symlink, "bin/sh", "busybox")
            .link(tar::EntryType::Symlink, "bin/cat", "busybox")
    }

    /// The builder, for entries that none of the methods makes.
    pub fn builder(&mut self) -> &mut tar::Builder<Vec<u8>> {
        self.builder.as_mut().expect("not finished")
    }

    /// A header with everything but its size set.
    pub fn header(kind: tar::EntryType, mode: u32, uid: u64, gid: u64, mtime: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(mtime);
        header.set_size(0);
        header
    }

    /// Any entry with data.
    pub fn entry(mut self, path: &str, mut header: tar::Header, data: &[u8]) -> Layer {
        header.set_size(data.len() as u64);
        self.builder()
            .append_data(&mut header, path, data)
            .expect("entry");
        self
    }

    /// A regular file of root's.
    pub fn file(self, path: &str, data: &[u8]) -> Layer {
        self.entry(
            path,
            Layer::header(tar::EntryType::Regular, 0o644, 0, 0, MTIME),
            data,
        )
    }

    /// A directory.
    pub fn dir(self, path: &str, mode: u32) -> Layer {
        self.entry(
            path,
            Layer::header(tar::EntryType::Directory, mode, 0, 0, MTIME),
            b"",
        )
    }

    /// A symbolic or hard link.
    pub fn link(mut self, kind: tar::EntryType, path: &str, target: &str) -> Layer {
        let mut header = Layer::header(kind, 0o777, 0, 0, MTIME);
        self.builder()
            .append_link(&mut header, path, target)
            .expect("link");
        self
    }

    /// A hard link of the mode that [`file`](Layer::file) gives: peers set a link's mode on what it
    /// links to.
    pub fn hard_link(mut self, path: &str, target: &str) -> Layer {
        let mut header = Layer::header(tar::EntryType::Link, 0o644, 0, 0, MTIME);
        self.builder()
            .append_link(&mut header, path, target)
            .expect("link");
        self
    }

    /// The whole tar.
    pub fn finish(mut self) -> Vec<u8> {
        self.builder
            .take()
            .expect("not finished")
            .into_inner()
            .expect("tar")
    }
}
