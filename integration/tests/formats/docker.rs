//! Archives of `docker save`, of every age and of those who imitate it.
//!
//! | row of the image table | tests |
//! |---|---|
//! | v1 layout with `repositories` and no manifest.json | `before_docker_1_10` |
//! | `repositories` missing (containerd#6309) | `before_docker_1_10` |
//! | manifest.json v1.2, layer symlinks between images | `from_docker_1_10_to_24` |
//! | >= 25 hybrid | `from_docker_25_on` |
//! | gzipped layers inside | `packed_layers_inside` |
//! | outer gz/xz/zst/bz2 | `packed_outside` |
//! | docker2oci, box, bazel rules: other names for configurations and layers | `imitations` |
//! | names: several tags, none, several images | `names_of_saved_images` |
//! | skopeo's and buildah's archives | `written_by_skopeo_and_buildah` |
//! | plain layers, packed on the way in | `packed_on_the_way_in` |
//!
//! containerd makes a manifest for these archives, and ours is the same to the byte: its digest is
//! compared wherever containerd 1.6 reads the archive.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use cairn_integration::{
    cairn::Cairn,
    fixture::{archive, listed, nothing_is_left, text},
    image::{Layout, Packing, Stored, architecture, digest},
    peers::{self, Containerd},
    raw::Tar,
};
use serde_json::{Value, json};
use tempfile::TempDir;

fn layers() -> [Vec<u8>; 2] {
    [
        Tar::new().file("low", b"1").file("gone", b"1").finish(),
        Tar::new().file("who", b"me").file(".wh.gone", b"").finish(),
    ]
}

/// A saved image in a directory, to be changed and packed.
struct Saved {
    work: TempDir,
    config: String,
}

impl Saved {
    /// `manifest.json`, a configuration named by its digest, and a directory for each layer.
    fn new(repo_tags: &Value) -> Saved {
        let work = TempDir::new().expect("temporary directory");
        let diff_ids: Vec<String> = layers().iter().map(|tar| digest(tar)).collect();
        let document = json!({
            "architecture": architecture(),
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = format!("{}.json", &digest(document.to_string().as_bytes())[7..]);
        let saved = Saved { work, config };
        for (id, tar) in ["x", "y"].iter().zip(layers()) {
            saved.write(&format!("{id}/layer.tar"), &tar);
            saved.write(&format!("{id}/VERSION"), b"1.0");
            saved.write(&format!("{id}/json"), b"{}");
        }
        saved.write(&saved.config, document.to_string().as_bytes());
        saved.manifest(repo_tags, &["x/layer.tar", "y/layer.tar"]);
        saved
    }

    fn dir(&self) -> PathBuf {
        self.work.path().join("saved")
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().expect("parent")).expect("directory");
        fs::write(path, bytes).expect("write");
    }

    fn manifest(&self, repo_tags: &Value, layers: &[&str]) {
        let entry = json!([{ "Config": self.config, "RepoTags": repo_tags, "Layers": layers }]);
        self.write("manifest.json", entry.to_string().as_bytes());
    }

    /// As docker packs it: sorted, and without `./` before the names.
    fn archive(&self) -> PathBuf {
        let out = self.work.path().join("saved.tar");
        let script = format!(
            "cd {} && tar --sort=name -cf {} *",
            text(&self.dir()),
            text(&out)
        );
        peers::run("sh", &["-c", &script]);
        out
    }
}

#[track_caller]
fn check_tree(cairn: &Cairn, name: &str) {
    let target = cairn.path("mnt");
    fs::create_dir_all(&target).expect("target");
    cairn.ok(&["images", "mount", name, text(&target)]);
    let mut names: Vec<_> = fs::read_dir(&target)
        .expect("list")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["low", "who"]);
    cairn.ok(&["images", "unmount", text(&target)]);
}

/// Imports as a file and from standard input; both must give the same images.
#[track_caller]
fn import(file: &Path) -> Vec<(String, String)> {
    let cairn = Cairn::new();
    cairn.ok(&["images", "import", text(file)]);
    let images = listed(&cairn);
    for (name, _) in &images {
        check_tree(&cairn, name);
    }
    let piped = Cairn::new();
    let mut command = piped.command(&["images", "import", "-"]);
    command.stdin(Stdio::from(fs::File::open(file).expect("open")));
    let output = command.output().expect("start cairn");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(listed(&piped), images, "from standard input");
    images
}

/// What containerd makes of it.
#[track_caller]
fn containerd(file: &Path) -> Vec<(String, String)> {
    let containerd = Containerd::start();
    containerd.ok(&["images", "import", "--no-unpack", text(file)]);
    containerd.images()
}

#[test]
fn from_docker_1_10_to_24() {
    let saved = Saved::new(&json!(["shop/web:1"]));
    let plain = import(&saved.archive());
    assert_eq!(plain[0].0, "docker.io/shop/web:1");
    assert_eq!(plain, containerd(&saved.archive()));

    // A layer that another image of the archive has too is a link to its place there.
    fs::create_dir(saved.dir().join("z")).expect("directory");
    symlink("../x/layer.tar", saved.dir().join("z/layer.tar")).expect("link");
    saved.manifest(&json!(["shop/web:1"]), &["z/layer.tar", "y/layer.tar"]);
    let linked = import(&saved.archive());
    assert_eq!(linked, plain);
    assert_eq!(containerd(&saved.archive()), plain);
}

/// A layout with `manifest.json` over the same blobs. The layout counts: its digest is the registry's.
#[test]
fn from_docker_25_on() {
    let work = TempDir::new().expect("temporary directory");
    let mut layout = Layout::create(&work.path().join("layout"));
    let stored = layers().map(|tar| Stored::packed(&tar, Packing::Gzip));
    let mut entry = layout.manifest(architecture(), &stored, &json!({}));
    entry["annotations"] = json!({
        "io.containerd.image.name": "docker.io/shop/web:1",
        "org.opencontainers.image.ref.name": "1",
    });
    layout.push(entry.clone());
    let bytes = fs::read(layout.blob_path(entry["digest"].as_str().expect("digest")));
    let manifest: Value = serde_json::from_slice(&bytes.expect("manifest")).expect("JSON");
    let path = |blob: &Value| {
        format!(
            "blobs/{}",
            blob["digest"].as_str().expect("digest").replace(':', "/")
        )
    };
    let listing = json!([{
        "Config": path(&manifest["config"]),
        "RepoTags": ["shop/web:1"],
        "Layers": manifest["layers"].as_array().expect("layers").iter().map(path).collect::<Vec<_>>(),
    }]);
    fs::write(layout.path().join("manifest.json"), listing.to_string()).expect("write");
    fs::write(
        layout.path().join("repositories"),
        "{\"shop/web\":{\"1\":\"0\"}}",
    )
    .expect("write");
    let file = archive(layout.path(), &work.path().join("hybrid.tar"));
    let images = import(&file);
    let expected = entry["digest"].as_str().expect("digest").to_owned();
    assert_eq!(images, [("docker.io/shop/web:1".to_owned(), expected)]);
    assert_eq!(images, containerd(&file));
    // Read as a docker archive, it is another image with the same tree.
    fs::remove_file(layout.path().join("index.json")).expect("remove");
    fs::remove_file(layout.path().join("oci-layout")).expect("remove");
    let other = import(&archive(layout.path(), &work.path().join("docker.tar")));
    assert_eq!(other[0].0, "docker.io/shop/web:1");
}

/// Layers packed inside (newer `docker save`, kaniko, bazel); the type follows the content.
#[test]
fn packed_layers_inside() {
    for program in ["gzip", "zstd"] {
        let saved = Saved::new(&json!(["shop/web:1"]));
        for id in ["x", "y"] {
            let path = saved.dir().join(id).join("layer.tar");
            let output = Command::new(program)
                .args(["-c", text(&path)])
                .output()
                .expect(program);
            fs::write(&path, output.stdout).expect("write");
        }
        let images = import(&saved.archive());
        assert_eq!(images[0].0, "docker.io/shop/web:1", "{program}");
        if program == "gzip" {
            assert_eq!(images, containerd(&saved.archive()));
        }
    }
}

#[test]
fn packed_outside() {
    let saved = Saved::new(&json!(["shop/web:1"]));
    let plain = import(&saved.archive());
    for program in ["gzip", "xz", "bzip2", "zstd"] {
        let output = Command::new(program)
            .args(["-c", text(&saved.archive())])
            .output();
        let file = saved.work.path().join(program);
        fs::write(&file, output.expect(program).stdout).expect("write");
        assert_eq!(import(&file), plain, "{program}");
    }
}

/// `repositories` and a directory for each layer with the image as it was then; later no names at all.
#[test]
fn before_docker_1_10() {
    let saved = Saved::new(&json!([]));
    fs::remove_dir_all(saved.dir()).expect("remove");
    let (low, top) = ("a".repeat(64), "b".repeat(64));
    for ((id, parent), tar) in [(&low, None), (&top, Some(&low))].iter().zip(layers()) {
        let mut old = json!({
            "id": id,
            "created": "2015-01-01T00:00:00Z",
            "os": "linux",
            "architecture": architecture(),
            "container_config": { "Cmd": ["/bin/sh", "-c", "make"] },
        });
        if let Some(parent) = parent {
            old["parent"] = json!(parent);
        }
        saved.write(&format!("{id}/json"), old.to_string().as_bytes());
        saved.write(&format!("{id}/VERSION"), b"1.0");
        saved.write(&format!("{id}/layer.tar"), &tar);
    }
    saved.write(
        "repositories",
        format!("{{\"shop/web\":{{\"1\":\"{top}\",\"2\":\"{top}\"}}}}").as_bytes(),
    );
    let images = import(&saved.archive());
    let names: Vec<&str> = images.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["docker.io/shop/web:1", "docker.io/shop/web:2"]);
    assert_eq!(images[0].1, images[1].1);
    // containerd has no way to read these.
    let other = Containerd::start();
    let import_it = ["images", "import", "--no-unpack", text(&saved.archive())].map(str::to_owned);
    let refused = other.attempt(&import_it.each_ref().map(String::as_str));
    assert!(
        refused
            .expect_err("refused")
            .contains("unrecognized image format")
    );

    fs::remove_file(saved.dir().join("repositories")).expect("remove");
    let nameless = import(&saved.archive());
    assert_eq!(nameless.len(), 1);
    assert_eq!(nameless[0].1, images[0].1, "the same image");
    assert!(nameless[0].0.contains("@sha256:"), "{nameless:?}");

    // Its parent is not there.
    fs::remove_dir_all(saved.dir().join(&low)).expect("remove");
    let cairn = Cairn::new();
    let stderr = cairn.fails(&["images", "import", text(&saved.archive())]);
    assert!(stderr.contains("is not in the archive"), "{stderr}");
    nothing_is_left(&cairn);
}

/// Configurations and layers under names that say nothing, as other builders give them.
#[test]
fn imitations() {
    let saved = Saved::new(&json!(["shop/web:1"]));
    let expected = import(&saved.archive());
    for (config, low, top) in [
        ("config.json", "layer1.tar", "layer2.tar"),
        ("./deep/er/config", "./a b/1.tar", "./a b/2.tar"),
        ("sha256:0123.json", "0.tar", "1.tar"),
    ] {
        let other = Saved::new(&json!(["shop/web:1"]));
        let dir = other.dir();
        for (from, to) in [
            (&*other.config, config),
            ("x/layer.tar", low),
            ("y/layer.tar", top),
        ] {
            let bytes = fs::read(dir.join(from)).expect("read");
            other.write(to, &bytes);
            fs::remove_file(dir.join(from)).expect("remove");
        }
        let named = Saved {
            config: config.to_owned(),
            work: other.work,
        };
        named.manifest(&json!(["shop/web:1"]), &[low, top]);
        assert_eq!(import(&named.archive()), expected, "{config}");
    }

    // A configuration that is named by a digest and has another.
    let broken = Saved::new(&json!(["shop/web:1"]));
    broken.write(&broken.config, b"{\"os\":\"linux\",\"architecture\":\"amd64\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}");
    let cairn = Cairn::new();
    let stderr = cairn.fails(&["images", "import", text(&broken.archive())]);
    assert!(stderr.contains("is damaged"), "{stderr}");
    nothing_is_left(&cairn);
}

#[test]
fn names_of_saved_images() {
    let saved = Saved::new(&json!(["web", "shop/web:2", "quay.io/shop/web:3"]));
    let images = import(&saved.archive());
    let names: Vec<&str> = images.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "docker.io/library/web:latest",
        "docker.io/shop/web:2",
        "quay.io/shop/web:3",
    ];
    assert_eq!(names, expected);
    assert_eq!(images, containerd(&saved.archive()));

    for none in [Value::Null, json!([])] {
        let saved = Saved::new(&none);
        let images = import(&saved.archive());
        assert_eq!(images.len(), 1);
        assert!(images[0].0.contains("@sha256:"), "{images:?}");
    }
}

#[test]
fn written_by_skopeo_and_buildah() {
    let work = TempDir::new().expect("temporary directory");
    let mut layout = Layout::create(&work.path().join("layout"));
    layout.image_of(
        "one",
        &layers().map(|tar| Stored::packed(&tar, Packing::Gzip)),
    );
    let from = format!("oci:{}:one", text(layout.path()));
    let out = work.path().join("skopeo.tar");
    let to = format!("docker-archive:{}:shop/web:1", text(&out));
    peers::run("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    let images = import(&out);
    assert_eq!(images[0].0, "docker.io/shop/web:1");
    assert_eq!(images, containerd(&out));

    let (root, run_root) = (work.path().join("storage"), work.path().join("run"));
    let storage = [
        "--root",
        text(&root),
        "--runroot",
        text(&run_root),
        "--storage-driver",
        "vfs",
    ];
    let buildah = |arguments: &[&str]| peers::run("buildah", &[&storage[..], arguments].concat());
    let container = buildah(&["from", "-q", "scratch"]);
    let container = container.trim();
    let files = work.path().join("files");
    fs::create_dir(&files).expect("directory");
    fs::write(files.join("low"), "1").expect("write");
    fs::write(files.join("who"), "me").expect("write");
    buildah(&["copy", "-q", container, text(&files), "/"]);
    let image = buildah(&[
        "commit",
        "-q",
        "--format",
        "docker",
        container,
        "localhost/built:1",
    ]);
    for (kind, name) in [
        ("docker-archive", "built.tar"),
        ("oci-archive", "built-oci.tar"),
    ] {
        let out = work.path().join(name);
        let to = format!("{kind}:{}:localhost/built:1", text(&out));
        buildah(&["push", "-q", image.trim(), &to]);
        let images = import(&out);
        assert_eq!(images[0].0, "localhost/built:1", "{kind}");
    }
}

/// What comes plain is stored packed, and others read what is exported of it.
#[test]
fn packed_on_the_way_in() {
    let saved = Saved::new(&json!(["shop/web:1"]));
    let (cairn, plain) = (Cairn::new(), Cairn::new());
    let archive = saved.archive();
    cairn.ok(&["images", "import", "--compress-blobs", text(&archive)]);
    plain.ok(&["images", "import", text(&archive)]);
    check_tree(&cairn, "docker.io/shop/web:1");
    let digests = |cairn: &Cairn| listed(cairn).remove(0);
    assert_ne!(digests(&cairn), digests(&plain));

    let out = cairn.path("out.tar");
    cairn.ok(&["images", "export", text(&out), "shop/web:1"]);
    let layout = cairn.path("layout");
    let (from, to) = (
        format!("oci-archive:{}", text(&out)),
        format!("oci:{}:web", text(&layout)),
    );
    // Checks every digest and diff ID on the way.
    peers::run("skopeo", &["--insecure-policy", "copy", "-q", &from, &to]);
    let raw = peers::run("skopeo", &["inspect", "--raw", &to]);
    let manifest: Value = serde_json::from_str(&raw).expect("JSON");
    let gzip = Value::from("application/vnd.oci.image.layer.v1.tar+gzip");
    let layers = manifest["layers"].as_array().expect("layers");
    assert!(
        layers.iter().all(|layer| layer["mediaType"] == gzip),
        "{raw}"
    );
    let rootfs = peers::umoci_unpack(&layout, "web", &cairn.path("bundle"));
    assert_eq!(fs::read_to_string(rootfs.join("who")).expect("who"), "me");
    assert!(!rootfs.join("gone").exists());
    assert_eq!(containerd(&out), listed(&cairn));
}
