//! What is exported, as skopeo, umoci and containerd read it: the same digests, the same tree.
//!
//! | row of the image table ("export" in its last column) | tests |
//! |---|---|
//! | docker v2s2, OCI manifest | `every_kind_of_image_comes_back_with_its_digest` |
//! | index of several platforms | `an_index_keeps_its_digest` |
//! | foreign layers left out | `foreign_layers` in `documents.rs` |
//! | attestations, artifacts, checkpoints, sha512 | `platforms.rs`, `documents.rs` |
//! | (several images, standard output, the same bytes twice) | `several_images_in_one_archive`, `the_archive_is_the_same_each_time` |
//!
//! A real image goes the same way in `real.rs`.

use std::{fs, path::Path};

use cairn_integration::{
    cairn::Cairn,
    fixture::text,
    image::{Layout, OCI_INDEX, OCI_MANIFEST, Packing, Stored, architecture},
    peers::{self, Containerd},
    raw::{Header, Tar},
    tree::Tree,
};
use serde_json::{Value, json};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn sample() -> Vec<u8> {
    Tar::new()
        .head(Header::ustar(b'5', b"dir", 0).mode(0o1777))
        .file("dir/file", b"content")
        .link(b'1', "hard", "dir/file")
        .link(b'2', "soft", "dir/file")
        .finish()
}

const TREE: [&str; 4] = [
    "dir dir 1777",
    "file dir/file 0644 = content",
    "file hard 0644 = content same as dir/file",
    "link soft 0777 -> dir/file",
];

fn import(cairn: &Cairn, layout: &Layout, options: &[&str]) {
    let import = ["images", "import", "--base-name", "localhost/t"];
    cairn.ok(&[&import[..], options, &[text(layout.path())]].concat());
}

fn unpacked(cairn: &Cairn, archive: &Path, name: &str) -> std::path::PathBuf {
    let dir = cairn.path(name);
    fs::create_dir(&dir).expect("directory");
    peers::run("tar", &["-C", text(&dir), "-xf", text(archive)]);
    dir
}

fn digest(descriptor: &Value) -> &str {
    descriptor["digest"].as_str().expect("digest")
}

/// Every peer finds the image under the digest it came with, and its tree in it.
#[track_caller]
fn check_peers(cairn: &Cairn, archive: &Path, expected: &str, umoci_reads_it: bool) {
    let image = format!("oci-archive:{}", text(archive));
    let inspected = peers::run("skopeo", &["inspect", "--raw", &image]);
    assert_eq!(
        cairn_integration::image::digest(inspected.as_bytes()),
        expected,
        "skopeo"
    );
    let docker = format!("docker-archive:{}", text(archive));
    let config = peers::run("skopeo", &["inspect", "--config", &docker]);
    assert!(config.contains("rootfs"), "{config}");

    let dir = unpacked(cairn, archive, "exported");
    if umoci_reads_it {
        let root = peers::umoci_unpack(&dir, "one", &cairn.path("umoci"));
        assert_eq!(Tree::read(&root).lines(), TREE, "umoci");
    }

    let containerd = Containerd::start();
    let target = cairn.path("ctr");
    fs::create_dir(&target).expect("target");
    containerd.ok(&["images", "import", text(archive)]);
    let listed = containerd.ok(&["images", "ls"]);
    assert!(listed.contains("localhost/t:one "), "{listed}");
    assert!(listed.contains(expected), "{listed}");
    containerd.ok(&["images", "mount", "localhost/t:one", text(&target)]);
    let mut lines = Tree::read(&target).lines();
    containerd.ok(&["images", "unmount", text(&target)]);
    lines.retain(|line| !line.starts_with("dir . "));
    assert_eq!(lines, TREE, "containerd");
}

#[test]
fn every_kind_of_image_comes_back_with_its_digest() {
    for (docker, packing) in [
        (false, Packing::Plain),
        (false, Packing::Gzip),
        (false, Packing::Zstd),
        (true, Packing::Gzip),
    ] {
        let cairn = Cairn::new();
        let mut layout = Layout::create(&cairn.path("layout"));
        let stored = Stored::packed(&sample(), packing);
        let mut entry = layout.manifest(architecture(), &[stored], &json!({ "Cmd": ["sh"] }));
        if docker {
            let bytes = fs::read(layout.blob_path(digest(&entry))).expect("manifest");
            let mut manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
            manifest["mediaType"] = json!(DOCKER_MANIFEST);
            manifest["config"]["mediaType"] =
                json!("application/vnd.docker.container.image.v1+json");
            manifest["layers"][0]["mediaType"] =
                json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
            // Odd spacing: the bytes are kept as they came, never written anew.
            let odd = serde_json::to_string_pretty(&manifest).expect("JSON") + "\n";
            entry = layout.blob(DOCKER_MANIFEST, odd.as_bytes());
        }
        layout.list(entry.clone(), "one");
        import(&cairn, &layout, &[]);
        let out = cairn.path("out.tar");
        cairn.ok(&["images", "export", text(&out), "localhost/t:one"]);
        // umoci knows neither docker's types nor zstd.
        let umoci_reads_it = !docker && packing != Packing::Zstd;
        check_peers(&cairn, &out, digest(&entry), umoci_reads_it);

        let again = Cairn::new();
        again.ok(&["images", "import", text(&out)]);
        let listed = again.ok(&["images", "ls", "--json"]);
        assert!(listed.contains(digest(&entry)), "{listed}");
    }
}

fn two_platforms(layout: &mut Layout) -> (Value, [Value; 2]) {
    let entries = ["s390x", architecture()].map(|arch| {
        let stored = Stored::packed(&sample(), Packing::Gzip);
        let mut entry = layout.manifest(arch, &[stored], &json!({}));
        entry["platform"] = json!({ "os": "linux", "architecture": arch });
        entry
    });
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries });
    let index = layout.json(OCI_INDEX, &index);
    (layout.list(index, "one"), entries)
}

/// Also when one platform only goes out: the name means the index, as it did where it came from.
#[test]
fn an_index_keeps_its_digest() {
    let cairn = Cairn::new();
    let mut layout = Layout::create(&cairn.path("layout"));
    let (index, [other, here]) = two_platforms(&mut layout);
    import(&cairn, &layout, &["--all-platforms"]);
    let (one, all) = (cairn.path("one.tar"), cairn.path("all.tar"));
    cairn.ok(&["images", "export", text(&one), "localhost/t:one"]);
    cairn.ok(&[
        "images",
        "export",
        "--all-platforms",
        text(&all),
        "localhost/t:one",
    ]);
    for (file, has_other) in [(&one, false), (&all, true)] {
        let names = peers::run("tar", &["-tf", text(file)]);
        assert!(names.contains(&digest(&index)[7..]) && names.contains(&digest(&here)[7..]));
        assert_eq!(names.contains(&digest(&other)[7..]), has_other, "{names}");
        let containerd = Containerd::start();
        containerd.ok(&["images", "import", text(file)]);
        let listed = containerd.ok(&["images", "ls"]);
        assert!(listed.contains(digest(&index)), "{listed}");
    }
    // What is not here cannot go out, and is named.
    let part = Cairn::new();
    import(&part, &layout, &[]);
    let out = part.path("out.tar");
    let stderr = part.fails(&[
        "images",
        "export",
        "--all-platforms",
        text(&out),
        "localhost/t:one",
    ]);
    assert!(stderr.contains(digest(&other)), "{stderr}");
    let export = [
        "images",
        "export",
        "--platform",
        "linux/s390x",
        text(&out),
        "localhost/t:one",
    ];
    part.fails(&export);
    assert!(!out.exists(), "an archive without end is left");
}

#[test]
fn several_images_in_one_archive() {
    let cairn = Cairn::new();
    let mut layout = Layout::create(&cairn.path("layout"));
    let first = layout.image_of("one", &[Stored::packed(&sample(), Packing::Gzip)]);
    let second = layout.image_of("two", &[Stored::plain(sample())]);
    import(&cairn, &layout, &[]);
    let out = cairn.path("out.tar");
    cairn.ok(&[
        "images",
        "export",
        text(&out),
        "localhost/t:one",
        "localhost/t:two",
    ]);
    let dir = unpacked(&cairn, &out, "both");
    let tags = peers::run("umoci", &["ls", "--layout", text(&dir)]);
    assert_eq!(tags.lines().collect::<Vec<_>>(), ["one", "two"]);
    let saved = fs::read_to_string(dir.join("manifest.json")).expect("manifest.json");
    assert!(
        saved.contains("localhost/t:one") && saved.contains("localhost/t:two"),
        "{saved}"
    );
    let image = format!("oci-archive:{}:one", text(&out));
    let raw = peers::run("skopeo", &["inspect", "--raw", &image]);
    assert_eq!(
        cairn_integration::image::digest(raw.as_bytes()),
        digest(&first)
    );
    let containerd = Containerd::start();
    containerd.ok(&["images", "import", text(&out)]);
    let listed = containerd.ok(&["images", "ls"]);
    assert!(
        listed.contains(digest(&first)) && listed.contains(digest(&second)),
        "{listed}"
    );
}

/// No time, no order of a hash map, no user of this machine in it; and `-` is standard output.
#[test]
fn the_archive_is_the_same_each_time() {
    let stores = [Cairn::new(), Cairn::new()];
    let archives = stores.each_ref().map(|cairn| {
        let mut layout = Layout::create(&cairn.path("layout"));
        two_platforms(&mut layout);
        import(cairn, &layout, &["--all-platforms"]);
        let output = cairn.output(&[
            "images",
            "export",
            "--all-platforms",
            "-",
            "localhost/t:one",
        ]);
        assert!(output.status.success());
        output.stdout
    });
    assert!(!archives[0].is_empty() && archives[0] == archives[1]);

    let out = stores[0].path("out.tar");
    stores[0].ok(&[
        "images",
        "export",
        "--skip-manifest-json",
        text(&out),
        "localhost/t:one",
    ]);
    assert!(!peers::run("tar", &["-tf", text(&out)]).contains("manifest.json"));
    let index = fs::read_to_string(unpacked(&stores[0], &out, "plain").join("index.json"));
    let index = index.expect("index.json");
    assert!(
        index.contains(OCI_INDEX) && !index.contains(OCI_MANIFEST),
        "{index}"
    );
}
