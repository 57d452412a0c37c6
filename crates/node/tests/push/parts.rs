//! Images that are here in parts, or of which parts are wanted.

use cairn_node::{Event, Source};
use cairn_types::{Digest, ErrorKind, Platform};
use serde_json::{Value, json};

use crate::{
    common::{Layout, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Store, tar, two_layers},
    peers::{Ears, Registry, filled, push, push_with},
};

const PLATFORMS: [&str; 3] = ["linux/amd64", "linux/arm64", "linux/s390x"];

fn digest(descriptor: &Value) -> String {
    descriptor["digest"].as_str().expect("digest").to_owned()
}

/// `shop/web:1` for several platforms. Its index, and the manifests in it.
fn several() -> (Layout, String, Vec<String>) {
    let mut layout = Layout::new();
    let mut manifests = Vec::new();
    for platform in PLATFORMS {
        let plain = tar(&[("etc/", ""), ("etc/platform", platform)]);
        let layers = [(OCI_LAYER, plain.clone(), plain)];
        let mut manifest = layout.manifest(platform, &layers);
        let (os, architecture) = platform.split_once('/').expect("platform");
        manifest["platform"] = json!({"os": os, "architecture": architecture});
        manifests.push(manifest);
    }
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    let index = layout.json(OCI_INDEX, &index);
    let target = digest(&index);
    layout.name(index, "shop/web:1");
    layout.finish();
    (layout, target, manifests.iter().map(digest).collect())
}

fn platforms(names: &[&str]) -> Vec<Platform> {
    let parse = |name: &&str| name.parse().expect("platform");
    names.iter().map(parse).collect()
}

/// A store that has some of them only.
fn partial(layout: &Layout, names: &[&str]) -> Store {
    let store = Store::new();
    let source = Source::Path(layout.path().to_owned());
    let imported = store.import_with(source, |request| {
        request.platforms = platforms(names);
        request.unpack = false;
    });
    imported.expect("import");
    store
}

#[test]
fn an_index_goes_with_all_that_it_lists() {
    let (layout, index, manifests) = several();
    let registry = Registry::start();
    let remote = format!("{}/shop/web:1", registry.host());
    let pushed = push(&filled(&layout), "shop/web:1", &remote).expect("pushed");
    assert_eq!(pushed.target.digest.to_string(), index);
    assert_eq!(pushed.layers.len(), manifests.len());
    assert_eq!(registry.pulled("shop/web:1"), index);
}

/// > one platform of a multi-platform image can be pushed … without 'digest not found'
#[test]
fn one_platform_is_pushed_by_itself() {
    let (layout, index, manifests) = several();
    let (registry, store) = (Registry::start(), partial(&layout, &["linux/arm64"]));
    let host = registry.host();
    let remote = format!("{host}/shop/web:1");
    // Who names the index by its digest wants no other.
    let exactly = format!("{host}/shop/web:1@{index}");
    let failure = push(&store, "shop/web:1", &exactly).expect_err("gaps");
    assert_eq!(failure.kind, ErrorKind::NotFound);
    assert_eq!(registry.carried(0), Vec::<String>::new());

    let ears = Ears::default();
    let pushed = push_with(&store, "shop/web:1", &remote, &ears, |_| ()).expect("alone");
    assert_eq!(pushed.target.digest.to_string(), manifests[1]);
    assert_eq!(pushed.only_platform.as_deref(), Some("linux/arm64"));
    assert_eq!(pushed.layers.len(), 1);
    assert!(
        matches!(&ears.events()[0], Event::Resolved { platform, .. } if platform == "linux/arm64")
    );
    assert_eq!(registry.pulled("shop/web:1"), manifests[1]);

    let only = |store: &Store, platform: &str| {
        push_with(store, "shop/web:1", &remote, &Ears::default(), |request| {
            request.platforms = platforms(&[platform]);
        })
    };
    let pushed = only(&store, "linux/arm64").expect("one");
    assert_eq!(pushed.target.digest.to_string(), manifests[1]);
    assert_eq!(pushed.only_platform, None, "it was asked for");
    assert_eq!(registry.pulled("shop/web:1"), manifests[1]);
    // Listed and not here, and not listed.
    let failure = only(&store, "linux/s390x").expect_err("not here");
    assert_eq!(
        failure.reason,
        format!("manifest {} is missing", manifests[2])
    );
    let failure = only(&store, "linux/riscv64").expect_err("not listed");
    assert_eq!(failure.reason, "no manifest for linux/riscv64");

    // Once the others are there by somebody else, the index can go.
    push(
        &filled(&layout),
        "shop/web:1",
        &format!("{host}/shop/web:all"),
    )
    .expect("all");
    let pushed = push(&store, "shop/web:1", &format!("{host}/shop/web:2")).expect("index");
    assert_eq!(pushed.target.digest.to_string(), index);
    assert_eq!(pushed.only_platform, None);
    assert_eq!(registry.pulled("shop/web:2"), index);
}

/// Which of them was meant is not for us to guess.
#[test]
fn some_platforms_are_not_pushed_unasked() {
    let (layout, _, manifests) = several();
    let names = ["linux/arm64", "linux/s390x"];
    let (registry, store) = (Registry::start(), partial(&layout, &names));
    let host = registry.host();
    let remote = format!("{host}/shop/web:1");
    let failure = push(&store, "shop/web:1", &remote).expect_err("gaps");
    assert_eq!(failure.kind, ErrorKind::NotFound);
    assert_eq!(
        failure.reason,
        format!("linux/amd64 is neither here nor at {host}")
    );
    let missing = format!("manifest {} is missing", manifests[0]);
    assert_eq!(failure.causes, [missing]);
    let push = |platform: &str| {
        format!("cairn images push --platform {platform} {remote} docker.io/shop/web:1")
    };
    let pull = "cairn images pull --all-platforms docker.io/shop/web:1";
    assert_eq!(
        failure.next,
        [&push(names[0]), &push(names[1]), pull].map(str::to_owned)
    );
    // Nothing went before that was known.
    assert_eq!(registry.carried(0), Vec::<String>::new());
}

#[test]
fn several_platforms_leave_the_index_as_it_is() {
    let (layout, index, manifests) = several();
    let (registry, store) = (Registry::start(), filled(&layout));
    let remote = format!("{}/shop/web:1", registry.host());
    let some = |names: &[&str]| {
        push_with(&store, "shop/web:1", &remote, &Ears::default(), |request| {
            request.platforms = platforms(names);
        })
    };
    let failure = some(&PLATFORMS[..2]).expect_err("gaps");
    let host = registry.host();
    let reason = format!("linux/s390x is left out, and not at {host} either");
    assert!(failure.reason.starts_with(&reason), "{failure:?}");
    assert_eq!(registry.carried(0), Vec::<String>::new());
    let pushed = some(&PLATFORMS[2..]).expect("one");
    assert_eq!(pushed.target.digest.to_string(), manifests[2]);
    let pushed = some(&PLATFORMS[..2]).expect("the others");
    assert_eq!(pushed.target.digest.to_string(), index);
    assert_eq!(pushed.layers.len(), 2);
    assert_eq!(registry.pulled("shop/web:1"), index);
}

#[test]
fn one_manifest_is_chosen_by_its_digest() {
    let (layout, _, manifests) = several();
    let (registry, store) = (Registry::start(), filled(&layout));
    let remote = format!("{}/shop/web:1", registry.host());
    let chosen = |digest: &str| {
        push_with(&store, "shop/web:1", &remote, &Ears::default(), |request| {
            request.manifest = Some(Digest::parse(digest).expect("digest"));
        })
    };
    chosen(&manifests[2]).expect("pushed");
    assert_eq!(registry.pulled("shop/web:1"), manifests[2]);
    let none = Digest::sha256(b"none").to_string();
    let failure = chosen(&none).expect_err("none");
    assert_eq!(failure.reason, format!("it has no manifest {none}"));
}

#[test]
fn foreign_layers_stay_unless_they_are_asked_for() {
    const FOREIGN: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let mut layers = two_layers();
    layers[0].0 = FOREIGN;
    let mut layout = Layout::new();
    let manifest = layout.manifest("linux/amd64", &layers);
    layout.name(manifest, "shop/web:1");
    layout.finish();
    let (registry, store) = (Registry::start(), filled(&layout));
    let host = registry.host();
    let pushed = push(&store, "shop/web:1", &format!("{host}/shop/web:1"));
    // A layer without an address is of no use there, so this registry does not take the manifest. That the
    // layer did not go is what counts: the other one did, and the configuration.
    let refused = pushed.expect_err("this registry wants all");
    let answer = refused.causes.join("\n");
    assert!(answer.contains("MANIFEST_BLOB_UNKNOWN"), "{answer}");
    assert_eq!(registry.carried(0).len(), 2);
    let ears = Ears::default();
    let remote = format!("{host}/shop/web:2");
    let pushed = push_with(&store, "shop/web:1", &remote, &ears, |request| {
        request.allow_non_distributable = true;
    });
    let pushed = pushed.expect("with it");
    assert_eq!(pushed.layers.len(), 2);
    assert_eq!(
        registry.pulled("shop/web:2"),
        pushed.target.digest.to_string()
    );
}

/// > If the OCI-Subject header is not set … the client MUST … update the referrers tag
/// > (distribution-spec, "Pushing Manifests with Subject")
#[test]
fn who_refers_to_another_is_listed_there() {
    const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    let mut layout = Layout::new();
    let image = layout.manifest("linux/amd64", &two_layers());
    let subject = digest(&image);
    let mut signatures = Vec::new();
    for signature in ["one", "two"] {
        // The empty blob is in its descriptor, and in no file.
        let mut empty = layout.blob(EMPTY, b"{}");
        std::fs::remove_file(layout.blob_path(&digest(&empty))).expect("remove");
        empty["data"] = "e30=".into();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.signature",
            "config": empty,
            "layers": [layout.blob("text/plain", signature.as_bytes())],
            "subject": image, "annotations": {"by": signature},
        });
        let manifest = layout.json(OCI_MANIFEST, &manifest);
        signatures.push(digest(&manifest));
        layout.name(manifest, &format!("shop/sig:{signature}"));
    }
    layout.name(image, "shop/web:1");
    layout.finish();
    let (registry, store) = (Registry::start(), filled(&layout));
    let host = registry.host();
    push(&store, "shop/web:1", &format!("{host}/shop/web:1")).expect("image");
    let tag = subject.replace(':', "-");
    assert_eq!(registry.manifest("shop/web", &tag), None);
    for signature in ["one", "two", "one"] {
        let local = format!("shop/sig:{signature}");
        push(&store, &local, &format!("{host}/shop/web:{signature}")).expect("signature");
    }
    let index = registry.manifest("shop/web", &tag).expect("list");
    let entries = index["manifests"].as_array().expect("entries");
    let listed: Vec<String> = entries.iter().map(digest).collect();
    assert_eq!(listed, signatures);
    assert_eq!(
        entries[0]["artifactType"],
        "application/vnd.example.signature"
    );
    assert_eq!(entries[1]["annotations"]["by"], "two");
    // skopeo finds all of it, the empty blob as well.
    assert_eq!(registry.pulled("shop/web:one"), signatures[0]);
}
