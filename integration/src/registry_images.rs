//! Images of every kind that a registry can hold, each under a name of its own.
//!
//! Documents are written here by hand, so that nothing but the specification stands between a test and
//! what it means. What only a tool can make, encrypted layers and manifests of the first schema among it,
//! skopeo makes of them.

mod made;
mod parts;
mod shelf;

use serde_json::{Value, json};

use crate::{
    http::{self, Server},
    image::{
        DOCKER_CONFIG, DOCKER_LIST, DOCKER_MANIFEST, Layer, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST,
        Packing, Stored, architecture, digest, document, noise,
    },
    registry::Registry,
};

pub use shelf::Shelf;

/// What is no content, and stands where a descriptor is asked for (image-spec, "Guidance for an Empty
/// Descriptor", whose digest this is).
pub const EMPTY: &str = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";

/// Media type of [`EMPTY`].
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// A repository of a registry that grows document by document.
pub struct Repository<'r> {
    registry: &'r Registry,
    name: &'r str,
}

impl<'r> Repository<'r> {
    /// One that nothing was pushed to.
    pub fn new(registry: &'r Registry, name: &'r str) -> Repository<'r> {
        Repository { registry, name }
    }

    /// Adds a blob and describes it.
    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        self.blob_by("sha256", media_type, bytes)
    }

    /// Adds a blob under a digest by `sha256` or `sha512`.
    pub fn blob_by(&self, algorithm: &str, media_type: &str, bytes: &[u8]) -> Value {
        let digest = self.registry.put_blob(self.name, algorithm, bytes);
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Adds the blobs of an image; its manifest, which is not there yet.
    pub fn image(&self, architecture: &str, layers: &[Stored]) -> Value {
        let add = |media_type: &str, bytes: &[u8]| self.blob(media_type, bytes);
        document(&add, architecture, layers, &json!({ "Cmd": ["/bin/sh"] }))
    }

    /// Adds a manifest by its digest; describes it.
    pub fn manifest(&self, document: &Value) -> Value {
        let bytes = document.to_string();
        let media_type = document["mediaType"].as_str().expect("type");
        let digest = digest(bytes.as_bytes());
        let registry = self.registry;
        registry.put_manifest(self.name, &digest, media_type, bytes.as_bytes());
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// The same, and a tag for it.
    pub fn tag(&self, tag: &str, document: &Value) -> Value {
        let described = self.manifest(document);
        let (bytes, media_type) = (document.to_string(), described["mediaType"].as_str());
        let media_type = media_type.expect("type");
        self.registry
            .put_manifest(self.name, tag, media_type, bytes.as_bytes());
        described
    }

    /// Where the registry and the repository are, as a reference begins.
    pub fn reference(&self, tag: &str) -> String {
        format!("{}/{}:{tag}", self.registry.host(), self.name)
    }
}

/// The layers that most of them have; one file of each says what it is.
pub fn layers() -> Vec<Stored> {
    layers_as([Packing::Gzip, Packing::Plain])
}

fn layers_as([lower, upper]: [Packing; 2]) -> Vec<Stored> {
    let base = Layer::new()
        .dir("etc/", 0o755)
        .file("etc/name", b"base\n")
        .file("etc/gone", b"");
    let top = Layer::new()
        .dir("etc/", 0o755)
        .file("etc/.wh.gone", b"")
        .file("etc/name", b"top\n");
    vec![
        Stored::packed(&base.finish(), lower),
        Stored::packed(&top.finish(), upper),
    ]
}

/// What [`layers`] unpack to, in the words of [`Tree::lines`](crate::tree::Tree::lines).
pub const TREE: [&str; 2] = ["dir etc 0755", "file etc/name 0644 = top\\n"];

/// Types of layers that are kept by those who made them: docker's, and the image-spec's (`layer.md`,
/// "Non-Distributable Layers"). The name to each is a tag, and is in the one file of its layer.
pub const FOREIGN: [(&str, &str, Packing); 4] = [
    (
        "foreign-docker",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        Packing::Gzip,
    ),
    (
        "foreign-tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        Packing::Plain,
    ),
    (
        "foreign-gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        Packing::Gzip,
    ),
    (
        "foreign-zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        Packing::Zstd,
    ),
];

fn foreign_layer(name: &str, packing: Packing) -> Stored {
    let tar = Layer::new().file("far", name.as_bytes()).finish();
    Stored::packed(&tar, packing)
}

/// Who made the layers of [`FOREIGN`], and gives them to everybody.
pub fn foreign_maker() -> Server {
    let layers = FOREIGN.map(|(name, _, packing)| foreign_layer(name, packing));
    http::files(
        layers
            .map(|layer| (format!("/{}", layer.diff_id), layer.bytes))
            .into(),
    )
}

/// An index, or a list, of what was described.
pub fn index(media_type: &str, manifests: &[Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests })
}

/// The descriptor of an image for Linux on `architecture`.
pub fn on(mut described: Value, architecture: &str) -> Value {
    described["platform"] = json!({ "architecture": architecture, "os": "linux" });
    described
}

/// One that this machine is not.
pub fn another_architecture() -> &'static str {
    match architecture() {
        "s390x" => "amd64",
        _ => "s390x",
    }
}

impl Repository<'_> {
    /// An image as docker pushes it, `docker`.
    pub fn docker(&self) -> Value {
        self.tag("docker", &self.docker_image(architecture()))
    }

    fn docker_image(&self, architecture: &str) -> Value {
        // docker tells how each layer was made, and skopeo wants to know.
        let add = |kind: &str, bytes: &[u8]| {
            if kind != OCI_CONFIG {
                return self.blob(kind, bytes);
            }
            let mut config: Value = serde_json::from_slice(bytes).expect("JSON");
            let step = |by: &str| json!({ "created": "2020-09-13T12:26:40Z", "created_by": by });
            config["history"] = json!([step("ADD base"), step("ADD top")]);
            self.blob(DOCKER_CONFIG, config.to_string().as_bytes())
        };
        let layers = layers_as([Packing::Gzip; 2]);
        let mut manifest = document(&add, architecture, &layers, &json!({ "Cmd": ["/bin/sh"] }));
        manifest["mediaType"] = json!(DOCKER_MANIFEST);
        for layer in manifest["layers"].as_array_mut().expect("layers") {
            layer["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
        }
        manifest
    }

    /// A manifest list of two platforms, `docker-list`.
    pub fn docker_list(&self) -> Value {
        let platforms = [another_architecture(), architecture()];
        let images = platforms.map(|name| on(self.manifest(&self.docker_image(name)), name));
        self.tag("docker-list", &index(DOCKER_LIST, &images))
    }

    /// An index of two platforms, and of what was built how, `index`.
    pub fn index(&self) -> Value {
        let platforms = [another_architecture(), architecture()];
        let mut images =
            Vec::from(platforms.map(|name| on(self.manifest(&self.image(name, &layers())), name)));
        images.push(self.attestation(&images[1]));
        self.tag("index", &index(OCI_INDEX, &images))
    }

    /// What BuildKit says about an image: a manifest for no platform that names it.
    fn attestation(&self, image: &Value) -> Value {
        let statement = json!({ "_type": "https://in-toto.io/Statement/v0.1", "subject": [] });
        let statement = statement.to_string();
        let add = |media_type: &str, bytes: &[u8]| self.blob(media_type, bytes);
        let stored = Stored::of("application/vnd.in-toto+json", statement.into(), b"");
        let mut described = self.manifest(&document(&add, "unknown", &[stored], &json!({})));
        described["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
        described["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        });
        described
    }

    /// An index in an index in an index, `nested`.
    pub fn nested(&self) -> Value {
        let image = on(
            self.manifest(&self.image(architecture(), &layers())),
            architecture(),
        );
        let inner = self.manifest(&index(OCI_INDEX, &[image]));
        let middle = self.manifest(&index(OCI_INDEX, &[inner]));
        self.tag("nested", &index(OCI_INDEX, &[middle]))
    }

    /// An index whose manifests name no platform, `bare-index`.
    pub fn bare_index(&self) -> Value {
        let image = self.manifest(&self.image(architecture(), &layers()));
        self.tag("bare-index", &index(OCI_INDEX, &[image]))
    }

    /// Something that is no image and says what it is about, `artifact`.
    pub fn artifact(&self, subject: &Value) -> Value {
        let empty = self.blob(EMPTY_TYPE, b"{}");
        assert_eq!(empty["digest"], EMPTY);
        let note = self.blob("text/plain", b"signed\n");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": empty,
            "layers": [note],
            "subject": subject,
        });
        self.tag("artifact", &manifest)
    }

    /// The same without anything in it, `artifact-empty`: its one layer is the empty descriptor, too.
    pub fn artifact_empty(&self) -> Value {
        let empty = self.blob(EMPTY_TYPE, b"{}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.mark",
            "config": empty,
            "layers": [empty],
        });
        self.tag("artifact-empty", &manifest)
    }

    /// Descriptors that bring their content along: all of them (`data`), as base 64.
    pub fn data(&self) -> Value {
        let (layers, manifest) = self.with_layers();
        let mut manifest = manifest;
        for (described, stored) in manifest["layers"]
            .as_array_mut()
            .expect("layers")
            .iter_mut()
            .zip(&layers)
        {
            described["data"] = json!(encoded(&stored.bytes));
        }
        self.tag("data", &manifest)
    }

    /// One that brings something else along, `data-wrong`.
    pub fn data_wrong(&self) -> Value {
        let (_, mut manifest) = self.with_layers();
        manifest["layers"][0]["data"] = json!(encoded(b"something else"));
        self.tag("data-wrong", &manifest)
    }

    fn with_layers(&self) -> (Vec<Stored>, Value) {
        let layers = layers();
        let manifest = self.image(architecture(), &layers);
        (layers, manifest)
    }

    /// Layers of this packing, `zstd` and so on.
    pub fn packed(&self, tag: &str, packing: Packing) -> Value {
        self.tag(tag, &self.image(architecture(), &layers_as([packing; 2])))
    }

    /// Configuration and layers by SHA-512, `sha512`. The registry knows manifests by SHA-256 alone.
    pub fn sha512(&self) -> Value {
        let add = |media_type: &str, bytes: &[u8]| self.blob_by("sha512", media_type, bytes);
        let mut layers = layers();
        for layer in &mut layers {
            let tar = layer.unpacked();
            layer.diff_id = crate::image::digest_by("sha512", &tar);
        }
        self.tag(
            "sha512",
            &document(&add, architecture(), &layers, &json!({})),
        )
    }

    /// An image for each of [`FOREIGN`], tagged by the name there: its lowest layer lies with its maker at
    /// `elsewhere` and not here, the others lie here.
    pub fn foreign(&self, elsewhere: &Server) -> Vec<(&'static str, Value)> {
        let made = FOREIGN.iter().map(|&(tag, media_type, packing)| {
            let layer = foreign_layer(tag, packing);
            let mut all = layers();
            all.insert(0, layer.clone());
            let add = |kind: &str, bytes: &[u8]| match bytes == layer.bytes {
                true => json!({
                    "mediaType": media_type,
                    "digest": digest(bytes),
                    "size": bytes.len(),
                    "urls": [elsewhere.url(&format!("/{}", layer.diff_id))],
                }),
                false => self.blob(kind, bytes),
            };
            let mut manifest = document(&add, architecture(), &all, &json!({}));
            if media_type.contains("docker") {
                manifest["mediaType"] = json!(DOCKER_MANIFEST);
                manifest["config"]["mediaType"] = json!(DOCKER_CONFIG);
            }
            (tag, self.tag(tag, &manifest))
        });
        made.collect()
    }

    /// Layers of one file each, which have so many bytes that nothing packs smaller, under a tag.
    pub fn noise(&self, tag: &str, sizes: &[usize]) -> Noise {
        let layers = sizes.iter().zip(1_u64..).map(|(&size, seed)| {
            let file = Layer::new().file(&format!("noise-{seed}"), &noise(size, seed));
            Stored::packed(&file.finish(), Packing::Gzip)
        });
        let layers: Vec<Stored> = layers.collect();
        let document = self.image(architecture(), &layers);
        let text = |value: &Value| value["digest"].as_str().expect("digest").to_owned();
        let config = document["config"]["size"].as_u64().expect("size");
        Noise {
            digest: text(&self.tag(tag, &document)),
            config: text(&document["config"]),
            layers: document["layers"]
                .as_array()
                .expect("layers")
                .iter()
                .map(text)
                .collect(),
            bytes: config
                + layers
                    .iter()
                    .map(|layer| layer.bytes.len() as u64)
                    .sum::<u64>(),
        }
    }

    /// The same layer twice, `twice`, and none at all, `none`.
    pub fn odd_counts(&self) -> [Value; 2] {
        let layer = layers().swap_remove(0);
        let twice = self.image(architecture(), &[layer.clone(), layer]);
        [
            self.tag("twice", &twice),
            self.tag("none", &self.image(architecture(), &[])),
        ]
    }
}

/// An image that is there to be fetched.
#[derive(Clone, Debug)]
pub struct Noise {
    /// Of its manifest.
    pub digest: String,
    /// Of its configuration.
    pub config: String,
    /// Digests, lowest first.
    pub layers: Vec<String>,
    /// Of its configuration and layers, as stored.
    pub bytes: u64,
}

impl Noise {
    /// The digests of all its blobs and documents.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        let documents = [&self.digest, &self.config];
        documents.into_iter().chain(&self.layers)
    }
}

fn encoded(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}
