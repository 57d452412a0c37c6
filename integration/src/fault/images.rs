//! Three images of a few small layers that share some, each in another form.
//!
//! - A is what `docker save` writes, all layers plain;
//! - B is a layout; its first layer is A's, its second A's as another blob, its third its own;
//! - C is a layout in a compressed archive, for standard input; its first layer is A's, packed.
//!
//! Beside them are files of no image, to be stored as they are.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use tar::EntryType;
use tempfile::TempDir;

use crate::{
    image::{Layer, Layout, MTIME, Packing, digest},
    registry::Registry,
};

/// The images' files.
pub struct Images {
    dir: TempDir,
    registry: Option<Registry>,
}

/// Files of no image: their names, lengths and contents. The first stands in the records, the second
/// does not, and the third is how that begins.
const FILES: [(&str, usize); 3] = [
    ("put-small", 3000),
    ("put-large", 50_000),
    ("put-half", 25_000),
];
const FILES_SEED: u64 = 5;

impl Default for Images {
    fn default() -> Images {
        Images::new()
    }
}

impl Images {
    /// Makes them.
    pub fn new() -> Images {
        let images = Images {
            dir: TempDir::new().expect("temporary directory"),
            registry: None,
        };
        for (name, length) in FILES {
            let bytes = Images::noise(length, FILES_SEED);
            fs::write(images.path().join(name), bytes).expect("write");
        }
        let [base, middle, top, other, last] = layers();
        docker(
            &images.path().join("a.tar"),
            "localhost/a:1",
            &[&base, &middle, &top],
        );
        let b = [
            (base.clone(), Packing::Plain),
            (middle, Packing::Gzip),
            (other, Packing::Zstd),
        ];
        Layout::create(&images.path().join("b")).image("two", &b, &json!({"Cmd": ["sh"]}));
        let c = [(base, Packing::Gzip), (last, Packing::Plain)];
        let layout = images.path().join("c");
        Layout::create(&layout).image("localhost/c:3", &c, &json!({"User": "1000"}));
        let packed = Command::new("tar")
            .args(["--sort=name", "-czf"])
            .arg(images.path().join("c.tgz"))
            .arg("-C")
            .arg(&layout)
            .arg(".")
            .status();
        assert!(packed.expect("start tar").success());
        images
    }

    /// The same, with B in a registry of its own as `shop/b:two`.
    pub fn served() -> Images {
        let mut images = Images::new();
        let registry = Registry::start();
        let layout = format!("oci:{}:two", images.path().join("b").display());
        registry.copy_in(&layout, "shop/b:two");
        images.registry = Some(registry);
        images
    }

    /// What words stand for in commands: `{i}` is the directory, `{small}` and `{large}` are digests of
    /// files in it, `{A}` and `{B}` stacks of layers, and `{r}` is the registry, if there is one.
    pub(super) fn words(&self) -> Vec<(&'static str, String)> {
        let file = |number: usize| digest(&Images::noise(FILES[number].1, FILES_SEED));
        let mut words = vec![
            ("{i}", self.path().display().to_string()),
            ("{small}", file(0)),
            ("{large}", file(1)),
            ("{A}", self.chain("a:1")),
            ("{B}", self.chain("b:two")),
        ];
        words.extend(
            self.registry
                .iter()
                .map(|registry| ("{r}", registry.host())),
        );
        words
    }

    /// Bytes that do not pack to nothing.
    pub fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            bytes.extend_from_slice(&seed.to_be_bytes()[..4]);
        }
        bytes
    }

    /// What names the stack of an image's layers (image-spec, config.md#layer-chainid).
    pub fn chain(&self, word: &str) -> String {
        let [base, middle, top, other, last] = layers().map(|layer| digest(&layer));
        let ids = match word {
            "a:1" => vec![base, middle, top],
            "b:two" => vec![base, middle, other],
            "c:3" => vec![base, last],
            _ => panic!("no image {word}"),
        };
        let chain = ids
            .into_iter()
            .reduce(|below, id| digest(format!("{below} {id}").as_bytes()));
        chain.expect("layers")
    }

    /// The directory with `a.tar`, `b` and `c.tgz`.
    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

fn layers() -> [Vec<u8>; 5] {
    let fifo = Layer::header(EntryType::Fifo, 0o600, 7, 8, MTIME);
    let owned = Layer::header(EntryType::Regular, 0o4755, 1000, 1000, MTIME + 5);
    let base = Layer::new()
        .dir("./", 0o755)
        .dir("bin/", 0o755)
        .file("bin/tool", &Images::noise(300_000, 1))
        .link(EntryType::Link, "bin/same", "bin/tool")
        .link(EntryType::Symlink, "bin/sh", "tool")
        .dir("etc/", 0o750)
        .file("etc/conf", b"old")
        .file("etc/passwd", b"user:x:1000:1000::/:/bin/sh\n")
        .dir("lib/", 0o755)
        .file("lib/hidden", b"hidden")
        .file("srv/deep/er/file", b"implied");
    let middle = Layer::new()
        .file("etc/.wh.conf", b"")
        .entry("run/fifo", fifo, b"")
        .dir("lib/", 0o711)
        .file("lib/.wh..wh..opq", b"")
        .file("lib/seen", b"seen");
    // `bin` and `srv/deep` are as they are below.
    let top = Layer::new()
        .entry("bin/setuid", owned, b"#!/bin/sh\n")
        .file("srv/deep/more", &Images::noise(70_000, 2));
    let other = Layer::new()
        .file("bin/other", &Images::noise(40_000, 3))
        .file("bin/.wh.same", b"");
    let last = Layer::new().file("etc/last", b"last");
    [base, middle, top, other, last].map(Layer::finish)
}

/// What `docker save` wrote before it wrote layouts.
fn docker(path: &Path, name: &str, layers: &[&Vec<u8>]) {
    let ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/tool"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    })
    .to_string();
    let config_name = format!("{}.json", &digest(config.as_bytes())[7..]);
    let places: Vec<String> = ids
        .iter()
        .map(|id| format!("{}/layer.tar", &id[7..]))
        .collect();
    let manifest = json!([{"Config": config_name, "RepoTags": [name], "Layers": places}]);
    let mut out = Layer::new();
    for (place, layer) in places.iter().zip(layers) {
        out = out.file(place, layer);
    }
    let out = out
        .file(&config_name, config.as_bytes())
        .file("manifest.json", manifest.to_string().as_bytes());
    fs::write(path, out.finish()).expect("write archive");
}
