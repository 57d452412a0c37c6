//! OCI layouts in one tar, as `docker save` and `skopeo` write them.

use serde_json::json;

use super::sha256;

const OCI: &str = "application/vnd.oci.image";

/// An archive with one image.
pub struct Archive {
    /// All of it.
    pub bytes: Vec<u8>,
    /// Digest of the manifest.
    pub manifest: String,
    /// Digest of the configuration.
    pub config: String,
    /// Digests of the layers, lowest first.
    pub layers: Vec<String>,
    /// How many bytes it takes for a layer to be there whole.
    pub ends: Vec<usize>,
}

impl Archive {
    /// One with this name and these layers, which come first.
    pub fn new(name: &str, layers: &[Vec<u8>]) -> Archive {
        let mut tar = tar::Builder::new(Vec::new());
        let mut ends = Vec::new();
        for layer in layers {
            add(&mut tar, &path(&sha256(layer)), layer);
            ends.push(tar.get_ref().len());
        }
        let layers: Vec<_> = layers.iter().map(|l| (sha256(l), l.len())).collect();
        let parts = Parts::new(name, &layers);
        for (path, bytes) in &parts.files {
            add(&mut tar, path, bytes);
        }
        Archive {
            bytes: tar.into_inner().expect("end"),
            manifest: parts.manifest,
            config: parts.config,
            layers: layers.into_iter().map(|(digest, _)| digest).collect(),
            ends,
        }
    }
}

/// All of an archive but its layers.
pub struct Parts {
    pub manifest: String,
    pub config: String,
    /// Names and bytes.
    pub files: Vec<(String, Vec<u8>)>,
}

impl Parts {
    /// Of an image with layers of these digests and sizes.
    pub fn new(name: &str, layers: &[(String, usize)]) -> Parts {
        let host = cairn_types::Platform::host();
        let diff_ids: Vec<&String> = layers.iter().map(|(digest, _)| digest).collect();
        let config = json!({
            "os": host.os, "architecture": host.architecture,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let config = config.to_string().into_bytes();
        let layer = |(digest, size): &(String, usize)| json!({"mediaType": format!("{OCI}.layer.v1.tar"), "digest": digest, "size": size});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": format!("{OCI}.manifest.v1+json"),
            "config": {
                "mediaType": format!("{OCI}.config.v1+json"),
                "digest": sha256(&config), "size": config.len(),
            },
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": format!("{OCI}.manifest.v1+json"),
            "digest": sha256(&manifest), "size": manifest.len(),
            "annotations": {"io.containerd.image.name": name},
        }]});
        let (config_digest, manifest_digest) = (sha256(&config), sha256(&manifest));
        let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
        Parts {
            files: vec![
                (path(&config_digest), config),
                (path(&manifest_digest), manifest),
                ("index.json".to_owned(), index.to_string().into_bytes()),
                ("oci-layout".to_owned(), layout.to_vec()),
            ],
            manifest: manifest_digest,
            config: config_digest,
        }
    }
}

/// Where a blob is in a layout.
pub fn path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// The header of a file.
pub fn header(name: &str, size: usize) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("name");
    header.set_mode(0o644);
    header.set_size(size as u64);
    header.set_cksum();
    header
}

fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) {
    tar.append(&header(name, bytes.len()), bytes)
        .expect("entry");
}
