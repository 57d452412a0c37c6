//! Archives made byte by byte.
//!
//! They never change, so neither do their digests; those in the transcripts were computed by
//! `sha256sum`, and so are those in the archives. Nothing of Cairn's own takes part.

use std::{
    io::Write,
    process::{Command, Stdio},
};

pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Seconds since 1970 of everything in the archives.
const MTIME: u64 = 1_700_000_000;

/// `sha256:…`, by coreutils.
pub fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(bytes).expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("sha256sum");
    let text = String::from_utf8(output.stdout).expect("text");
    format!("sha256:{}", text.split(' ').next().expect("digest"))
}

/// A ustar archive; a name that ends in `/` is a directory.
pub fn tar(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, bytes) in entries {
        let (kind, mode) = match name.ends_with('/') {
            true => (b'5', 0o755),
            false => (b'0', 0o644),
        };
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        let mut number = |at: usize, width: usize, n: u64| {
            let text = format!("{n:0width$o}\0", width = width - 1);
            header[at..at + width].copy_from_slice(text.as_bytes());
        };
        number(100, 8, mode);
        number(108, 8, 0);
        number(116, 8, 0);
        number(124, 12, bytes.len() as u64);
        number(136, 12, MTIME);
        header[148..156].fill(b' ');
        header[156] = kind;
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u64 = header.iter().map(|b| u64::from(*b)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(bytes);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A gzip file of one stored block: its bytes depend on no compressor's version.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let length = u16::try_from(bytes.len()).expect("one block");
    out.push(1);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    out.extend_from_slice(&(!crc).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out
}

/// The lower layer of both images.
pub fn base_layer() -> Vec<u8> {
    tar(&[
        ("bin/", b""),
        ("bin/sh", &[b'#'; 3000]),
        ("etc/", b""),
        ("etc/hello", b"hello\n"),
    ])
}

pub fn top_layer() -> Vec<u8> {
    tar(&[("etc/more", b"more\n")])
}

/// An image of two layers, whose lower one is too large to be kept in its record for a while.
pub fn large() -> Image {
    let lower = tar(&[
        ("bin/", b""),
        ("bin/sh", &[b'#'; 20_000]),
        ("etc/", b""),
        ("etc/hello", b"hello\n"),
    ]);
    let plain = [lower, top_layer()];
    let layers = plain.iter().map(|layer| (OCI_LAYER, layer.clone()));
    Image::new(layers.collect(), &plain)
}

/// An image before it is in an archive.
pub struct Image {
    pub config: Vec<u8>,
    /// Media type and bytes.
    pub layers: Vec<(String, Vec<u8>)>,
}

impl Image {
    /// For linux/amd64, over the given layers; their diff IDs are those of `plain`.
    pub fn new(layers: Vec<(&str, Vec<u8>)>, plain: &[Vec<u8>]) -> Image {
        Image::on("amd64", layers, plain)
    }

    pub fn on(architecture: &str, layers: Vec<(&str, Vec<u8>)>, plain: &[Vec<u8>]) -> Image {
        let ids: Vec<String> = plain.iter().map(|p| format!("\"{}\"", sha256(p))).collect();
        let config = format!(
            "{{\"architecture\":\"{architecture}\",\"os\":\"linux\",\"config\":{{\"Cmd\":[\"sh\"]}},\
             \"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[{}]}}}}",
            ids.join(",")
        );
        let layers = layers
            .into_iter()
            .map(|(kind, bytes)| (kind.to_owned(), bytes));
        Image {
            config: config.into_bytes(),
            layers: layers.collect(),
        }
    }

    /// One layer; only its author tells it from others.
    pub fn by(author: u32) -> Image {
        let mut image = Image::new(vec![(OCI_LAYER, base_layer())], &[base_layer()]);
        let config = String::from_utf8(image.config).expect("text");
        let author = format!("\"os\":\"linux\",\"author\":\"{author:06}\"");
        image.config = config.replace("\"os\":\"linux\"", &author).into_bytes();
        image
    }

    /// Two layers, the lower one gzipped.
    pub fn busybox() -> Image {
        let layers = vec![(OCI_GZIP, gzip(&base_layer())), (OCI_LAYER, top_layer())];
        Image::new(layers, &[base_layer(), top_layer()])
    }

    pub fn manifest(&self) -> Vec<u8> {
        let layers: Vec<String> = self
            .layers
            .iter()
            .map(|(kind, bytes)| descriptor(kind, bytes, ""))
            .collect();
        let config = descriptor(OCI_CONFIG, &self.config, "");
        format!(
            "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_MANIFEST}\",\"config\":{config},\
             \"layers\":[{}]}}",
            layers.join(",")
        )
        .into_bytes()
    }

    /// The members of an OCI archive that names it.
    pub fn members(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let note = format!(",\"annotations\":{{\"io.containerd.image.name\":\"{name}\"}}");
        let manifest = self.manifest();
        let index = format!(
            "{{\"schemaVersion\":2,\"manifests\":[{}]}}",
            descriptor(OCI_MANIFEST, &manifest, &note)
        );
        let mut members = vec![
            (
                "oci-layout".to_owned(),
                b"{\"imageLayoutVersion\":\"1.0.0\"}".to_vec(),
            ),
            ("index.json".to_owned(), index.into_bytes()),
        ];
        let blobs = self.layers.iter().map(|(_, bytes)| bytes.clone());
        for blob in blobs.chain([self.config.clone(), manifest]) {
            members.push((blob_path(&sha256(&blob)), blob));
        }
        members
    }

    pub fn oci(&self, name: &str) -> Vec<u8> {
        pack(&self.members(name))
    }

    /// As `docker save` writes it; the layers must be uncompressed.
    pub fn docker(&self, name: &str) -> Vec<u8> {
        let config = format!("{}.json", &sha256(&self.config)[7..]);
        let paths: Vec<String> = (1..=self.layers.len())
            .map(|n| format!("{n}/layer.tar"))
            .collect();
        let quoted: Vec<String> = paths.iter().map(|p| format!("\"{p}\"")).collect();
        let manifest = format!(
            "[{{\"Config\":\"{config}\",\"RepoTags\":[\"{name}\"],\"Layers\":[{}]}}]",
            quoted.join(",")
        );
        let mut members = vec![(config, self.config.clone())];
        for (path, (_, bytes)) in paths.into_iter().zip(&self.layers) {
            members.push((path, bytes.clone()));
        }
        members.push(("manifest.json".to_owned(), manifest.into_bytes()));
        pack(&members)
    }
}

/// An archive of busybox with a statement about it, as BuildKit makes them.
pub fn attested(name: &str) -> Vec<u8> {
    let image = Image::busybox();
    let mut members = image.members(name);
    members.retain(|(member, _)| member != "index.json");
    let statement = b"{\"_type\":\"https://in-toto.io/Statement/v0.1\"}".to_vec();
    let about = Image::on(
        "unknown",
        vec![("application/vnd.in-toto+json", statement.clone())],
        std::slice::from_ref(&statement),
    );
    let config = String::from_utf8(about.config).expect("text");
    let about = Image {
        config: config
            .replace("\"os\":\"linux\"", "\"os\":\"unknown\"")
            .into_bytes(),
        layers: about.layers,
    };
    let platform = |os: &str, architecture: &str| {
        format!(",\"platform\":{{\"os\":\"{os}\",\"architecture\":\"{architecture}\"}}")
    };
    let manifest = image.manifest();
    let subject = sha256(&manifest);
    let notes = format!(
        "{},\"annotations\":{{\"vnd.docker.reference.type\":\"attestation-manifest\",\
         \"vnd.docker.reference.digest\":\"{subject}\"}}",
        platform("unknown", "unknown")
    );
    let index = format!(
        "{{\"schemaVersion\":2,\"mediaType\":\"{OCI_INDEX}\",\"manifests\":[{},{}]}}",
        descriptor(OCI_MANIFEST, &manifest, &platform("linux", "amd64")),
        descriptor(OCI_MANIFEST, &about.manifest(), &notes),
    )
    .into_bytes();
    let named = format!(",\"annotations\":{{\"io.containerd.image.name\":\"{name}\"}}");
    let top = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{}]}}",
        descriptor(OCI_INDEX, &index, &named)
    );
    members.push(("index.json".to_owned(), top.into_bytes()));
    for blob in [statement, about.config.clone(), about.manifest(), index] {
        members.push((blob_path(&sha256(&blob)), blob));
    }
    pack(&members)
}

/// `blobs/sha256/…`
pub fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

pub fn pack(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<(&str, &[u8])> = members.iter().map(|(n, b)| (&**n, &**b)).collect();
    tar(&entries)
}

pub fn descriptor(media_type: &str, bytes: &[u8], more: &str) -> String {
    let (digest, size) = (sha256(bytes), bytes.len());
    format!("{{\"mediaType\":\"{media_type}\",\"digest\":\"{digest}\",\"size\":{size}{more}}}")
}
