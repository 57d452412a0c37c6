//! Which manifest of an index is taken, and what is kept beside it.
//!
//! | row of the image table | tests |
//! |---|---|
//! | OCI index, docker manifest list | `the_best_match_of_an_index` |
//! | nested index (2-8 deep) | `nested_indexes` |
//! | index with no platform; duplicate platforms | `entries_without_platform`, `the_first_of_equals` |
//! | variant, os.version, os.features | `the_best_match_of_an_index`, `features_that_are_not_ours` |
//! | never pick unknown/unknown | `attestations_are_kept_and_never_picked` |
//! | buildkit provenance + SBOM, OCI-artifact style | `attestations_are_kept_and_never_picked`, `attestations_as_artifacts` |
//!
//! The rules are containerd's `platforms.Only` (`core/images/image.go`): the wanted platform or what
//! runs on it, the better match first, of equals the first, entries without any platform last.

use std::fs;

use cairn_integration::{
    cairn::Cairn,
    fixture::{archive, nothing_is_left, text},
    image::{Layout, OCI_INDEX, OCI_MANIFEST, Packing, Stored},
    peers::{self, Containerd},
    raw::Tar,
};
use serde_json::{Value, json};

const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

fn layer(text: &str) -> Stored {
    let tar = Tar::new().file("who", text.as_bytes()).finish();
    Stored::packed(&tar, Packing::Gzip)
}

/// A manifest whose `who` says `name`, described as for `os/arch[/variant]`.
fn entry(layout: &Layout, platform: &str, name: &str) -> Value {
    let parts: Vec<&str> = platform.split('/').collect();
    let mut entry = layout.manifest(parts[1], &[layer(name)], &json!({}));
    entry["platform"] = json!({ "os": parts[0], "architecture": parts[1] });
    if let Some(variant) = parts.get(2) {
        entry["platform"]["variant"] = json!(variant);
    }
    entry
}

fn index(layout: &Layout, media_type: &str, entries: &[Value]) -> Value {
    let document = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": entries });
    layout.json(media_type, &document)
}

#[track_caller]
fn who(cairn: &Cairn, platform: Option<&str>) -> String {
    let target = cairn.path("mnt");
    fs::create_dir_all(&target).expect("target");
    let text = target.display().to_string();
    let mut mount = vec!["images", "mount", "localhost/t:one", &text];
    if let Some(platform) = platform {
        mount.extend(["--platform", platform]);
    }
    cairn.ok(&mount);
    let who = fs::read_to_string(target.join("who")).expect("who");
    cairn.ok(&["images", "unmount", &text]);
    who
}

/// What is picked of these for a platform; an error's words when nothing is.
#[track_caller]
fn pick(entries: &[(&str, &str)], media_type: &str, wanted: &str) -> Result<String, String> {
    let cairn = Cairn::new();
    let mut layout = Layout::create(&cairn.path("layout"));
    let entries: Vec<Value> = entries
        .iter()
        .map(|(platform, name)| entry(&layout, platform, name))
        .collect();
    let index = index(&layout, media_type, &entries);
    layout.list(index, "one");
    let import = [
        "images",
        "import",
        "--base-name",
        "localhost/t",
        "--platform",
        wanted,
    ];
    let output = cairn.output(&[&import[..], &[text(layout.path())]].concat());
    if !output.status.success() {
        nothing_is_left(&cairn);
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(who(&cairn, Some(wanted)))
}

#[test]
fn the_best_match_of_an_index() {
    let all = [
        ("linux/s390x", "s390x"),
        ("linux/386", "386"),
        ("linux/amd64/v3", "amd64v3"),
        ("linux/amd64", "amd64"),
        ("linux/arm/v5", "armv5"),
        ("linux/arm/v7", "armv7"),
        ("linux/arm64/v8", "arm64"),
        ("windows/amd64", "windows"),
    ];
    for media_type in [OCI_INDEX, DOCKER_LIST] {
        for (wanted, expected) in [
            ("linux/amd64", "amd64"),
            ("linux/amd64/v2", "amd64"),
            ("linux/amd64/v3", "amd64v3"),
            ("linux/amd64/v4", "amd64v3"),
            ("linux/386", "386"),
            ("linux/arm64", "arm64"),
            ("linux/arm/v7", "armv7"),
            ("linux/arm/v6", "armv5"),
            ("linux/s390x", "s390x"),
        ] {
            assert_eq!(
                pick(&all, media_type, wanted).as_deref(),
                Ok(expected),
                "{wanted}"
            );
        }
    }
    let few = [("linux/386", "386"), ("linux/arm/v7", "armv7")];
    assert_eq!(pick(&few, OCI_INDEX, "linux/amd64").as_deref(), Ok("386"));
    assert_eq!(pick(&few, OCI_INDEX, "linux/arm64").as_deref(), Ok("armv7"));
    let stderr = pick(&few, OCI_INDEX, "linux/riscv64").expect_err("nothing suits");
    assert!(stderr.contains("no manifest for linux/riscv64"), "{stderr}");
    assert!(stderr.contains("linux/386, linux/arm/v7"), "{stderr}");
}

#[test]
fn the_first_of_equals() {
    let twice = [
        ("linux/s390x", "other"),
        ("linux/amd64", "first"),
        ("linux/amd64", "second"),
    ];
    assert_eq!(
        pick(&twice, OCI_INDEX, "linux/amd64").as_deref(),
        Ok("first")
    );
}

/// A layout with whatever `fill` makes the entries of its one index.
fn indexed(cairn: &Cairn, fill: impl FnOnce(&Layout) -> Vec<Value>) -> Layout {
    let mut layout = Layout::create(&cairn.path("layout"));
    let entries = fill(&layout);
    let index = index(&layout, OCI_INDEX, &entries);
    layout.list(index, "one");
    layout
}

fn import(cairn: &Cairn, layout: &Layout) {
    cairn.ok(&[
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(layout.path()),
    ]);
}

/// > This OPTIONAL property describes the minimum runtime requirements of the image. (image-spec
/// > `image-index.md`, of `platform`)
///
/// The configuration says it, too.
#[test]
fn entries_without_platform() {
    let cairn = Cairn::new();
    let layout = indexed(&cairn, |layout| {
        ["s390x", cairn_integration::image::architecture(), "arm64"]
            .map(|arch| layout.manifest(arch, &[layer(arch)], &json!({})))
            .to_vec()
    });
    import(&cairn, &layout);
    assert_eq!(who(&cairn, None), cairn_integration::image::architecture());
}

/// > This OPTIONAL property specifies an array of strings, each specifying a mandatory OS feature.
/// > (image-spec `image-index.md`)
///
/// Variants for lazy snapshotters are listed so (nydus, erofs); a plain one stands beside them.
#[test]
fn features_that_are_not_ours() {
    let cairn = Cairn::new();
    let arch = cairn_integration::image::architecture();
    let layout = indexed(&cairn, |layout| {
        let mut special = entry(layout, &format!("linux/{arch}"), "special");
        special["platform"]["os.features"] = json!(["nydus.remoteimage.v1"]);
        vec![special, entry(layout, &format!("linux/{arch}"), "plain")]
    });
    import(&cairn, &layout);
    assert_eq!(who(&cairn, None), "plain");
}

#[test]
fn nested_indexes() {
    let arch = format!("linux/{}", cairn_integration::image::architecture());
    for depth in [2, 3, 7] {
        let cairn = Cairn::new();
        let layout = indexed(&cairn, |layout| {
            let mut inner = vec![
                entry(layout, "linux/s390x", "s390x"),
                entry(layout, &arch, "me"),
            ];
            for _ in 1..depth {
                inner = vec![index(layout, OCI_INDEX, &inner)];
            }
            inner
        });
        import(&cairn, &layout);
        assert_eq!(who(&cairn, None), "me", "{depth}");
    }
    let cairn = Cairn::new();
    let layout = indexed(&cairn, |layout| {
        let mut inner = vec![entry(layout, &arch, "me")];
        for _ in 0..9 {
            inner = vec![index(layout, OCI_INDEX, &inner)];
        }
        inner
    });
    let stderr = cairn.fails(&["images", "import", text(layout.path())]);
    assert!(
        stderr.contains("indexes are nested deeper than 8"),
        "{stderr}"
    );
    nothing_is_left(&cairn);
}

fn has(cairn: &Cairn, descriptor: &Value) -> bool {
    let digest = descriptor["digest"].as_str().expect("digest");
    let path = digest.replace(':', "/");
    cairn.path("store/content/blobs").join(path).exists()
}

/// What BuildKit writes with `--provenance` and `--sbom`: a manifest for unknown/unknown behind each
/// image's, with an annotation that says which.
#[test]
fn attestations_are_kept_and_never_picked() {
    let cairn = Cairn::new();
    let arch = format!("linux/{}", cairn_integration::image::architecture());
    let mut all = Vec::new();
    let layout = indexed(&cairn, |layout| {
        for (platform, name) in [("linux/s390x", "there"), (arch.as_str(), "here")] {
            let image = entry(layout, platform, name);
            let proof = Stored {
                media_type: "application/vnd.in-toto+json".to_owned(),
                bytes: format!("{{\"about\":\"{name}\"}}").into_bytes(),
                diff_id: cairn_integration::image::digest(b"proof"),
            };
            let mut about = layout.manifest("unknown", &[proof], &json!({}));
            about["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
            about["annotations"] = json!({
                "vnd.docker.reference.type": "attestation-manifest",
                "vnd.docker.reference.digest": image["digest"],
            });
            all.extend([about, image]);
        }
        all.clone()
    });
    import(&cairn, &layout);
    assert_eq!(who(&cairn, None), "here");
    let [about_there, there, about_here, here] = &all[..] else {
        panic!("four entries");
    };
    assert!(has(&cairn, here) && has(&cairn, about_here));
    assert!(!has(&cairn, there) && !has(&cairn, about_there));
    let listed = cairn.ok(&["images", "ls", "--json"]);
    assert!(!listed.contains("unknown"), "{listed}");
    // Collecting leaves the attestation, and exporting takes it along.
    cairn.ok(&["gc"]);
    assert!(has(&cairn, about_here));

    let cairn = Cairn::new();
    cairn.ok(&[
        "images",
        "import",
        "--all-platforms",
        "--base-name",
        "localhost/t",
        text(layout.path()),
    ]);
    let out = cairn.path("out.tar");
    cairn.ok(&[
        "images",
        "export",
        "--all-platforms",
        text(&out),
        "localhost/t:one",
    ]);
    let names = peers::run("tar", &["-tf", text(&out)]);
    for descriptor in &all {
        let digest = descriptor["digest"].as_str().expect("digest");
        assert!(names.contains(&digest[7..]), "{digest} is not exported");
    }
    let containerd = Containerd::start();
    let tar = archive(layout.path(), &cairn.path("in.tar"));
    containerd.ok(&["images", "import", "--base-name", "localhost/t", text(&tar)]);
}

/// With `oci-artifact=true` the attestation has a subject, an artifact type and an empty
/// configuration.
#[test]
fn attestations_as_artifacts() {
    let cairn = Cairn::new();
    let arch = format!("linux/{}", cairn_integration::image::architecture());
    let mut about = Value::Null;
    let layout = indexed(&cairn, |layout| {
        let image = entry(layout, &arch, "me");
        let empty = layout.blob("application/vnd.oci.empty.v1+json", b"{}");
        let proof = layout.blob("application/vnd.in-toto+json", b"{\"proof\":1}");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.docker.attestation.manifest.v1+json",
            "config": empty,
            "layers": [proof],
            "subject": { "mediaType": OCI_MANIFEST, "digest": image["digest"], "size": image["size"] },
        });
        about = layout.json(OCI_MANIFEST, &manifest);
        about["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
        about["annotations"] = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": image["digest"],
        });
        vec![about.clone(), image]
    });
    import(&cairn, &layout);
    assert_eq!(who(&cairn, None), "me");
    assert!(has(&cairn, &about));
}
