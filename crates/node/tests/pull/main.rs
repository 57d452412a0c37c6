//! Pulls from Debian's registry: what comes is what was pushed by skopeo, once, and goes on where it broke.

#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "each test file uses a part")]
#[path = "../../../registry/tests/wire/common/registry.rs"]
mod registry;

mod broken;
mod fair;
mod many;
mod sizes;
mod slow;
mod wide;

use std::{fs, path::Path};

use cairn_node::{Caller, Failure, PullRequest, Pulled, Silent};
use cairn_types::{ErrorKind, ImageName, Namespace};
use common::*;
use registry::Registry;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const SOURCE: &str = "containerd.io/distribution.source.";

/// Copies an image of a layout into a registry, as it is.
fn push(layout: &Path, tag: &str, registry: &Registry, name: &str) {
    let from = format!("oci:{}:{tag}", text(layout));
    let to = format!("docker://{}/{name}", registry.host());
    run(
        "skopeo",
        &[
            "copy",
            "--all",
            "--preserve-digests",
            "--dest-tls-verify=false",
            &from,
            &to,
        ],
    );
}

fn name(registry: &Registry, rest: &str) -> ImageName {
    ImageName::parse(&format!("{}/{rest}", registry.host())).expect("name")
}

fn request(ns: &Namespace, name: ImageName) -> PullRequest {
    PullRequest::new(Caller::of(ns.clone()), name)
}

fn pull(store: &Store, name: ImageName) -> Result<Pulled, Failure> {
    store.node.pull(request(&store.ns, name), &Silent)
}

/// Bytes that nothing makes smaller.
fn noise(length: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 16);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Printable, and different from its neighbours.
        bytes.extend(state.to_le_bytes().map(|byte| b'0' + byte % 64));
    }
    String::from_utf8(bytes).expect("printable")
}

/// A layout with one image, whose layers have a file each of these texts.
fn image_of(tag: &str, texts: impl Iterator<Item = String>) -> Layout {
    let layers = texts.map(|text| tar(&[("file", &text)]));
    let layers: Vec<_> = layers
        .map(|plain| (OCI_LAYER, plain.clone(), plain))
        .collect();
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &layers);
    layout.name(manifest, tag);
    layout.finish();
    layout
}

/// A layout with one image of one layer of some megabytes.
fn large(megabytes: usize) -> Layout {
    image_of("large", std::iter::once(noise(megabytes << 20)))
}

#[test]
fn what_comes_is_what_was_pushed() {
    let registry = Registry::start();
    let layout = simple();
    push(layout.path(), "shop/web:1", &registry, "shop/web:1");
    let store = Store::new();
    let name = name(&registry, "shop/web:1");
    let pulled = pull(&store, name.clone()).expect("pull");
    let wanted = layout.entries[0]["digest"].as_str().expect("digest");
    assert_eq!(pulled.images[0].target.digest.to_string(), wanted);
    assert_eq!(pulled.layers.len(), 2);
    for layer in &pulled.layers {
        assert_eq!(layer.host.as_deref(), Some(&*registry.host()));
        assert_eq!(layer.attempts, 1);
        assert!(layer.chain_id.is_some() && layer.timing.is_some());
    }
    assert_eq!(pulled.fetched_bytes, pulled.images[0].content_size);
    assert_eq!(pulled.reused_bytes, 0);
    let target = store.mount(&name);
    assert_eq!(
        fs::read_to_string(target.join("etc/motd")).expect("file"),
        "welcome\n"
    );
    assert!(!target.join("bin/hello").exists());
    store.unmount(&target);
    let info = store.node.image(&store.ns, &name).expect("image");
    assert!(info.complete, "{info:?}");
    let label = format!("{SOURCE}127.0.0.1");
    for blob in store.node.content().list(&store.ns).expect("blobs") {
        assert_eq!(
            blob.labels.get(&label).map(String::as_str),
            Some("shop/web")
        );
    }
    // All but the question what the tag means is here.
    let again = pull(&store, name.clone()).expect("pull again");
    assert_eq!(
        (again.fetched_bytes, again.reused_bytes),
        (0, pulled.fetched_bytes)
    );
    // Nobody is asked for what is here.
    drop(registry);
    let mut missing = request(&store.ns, name);
    missing.missing_only = true;
    missing.sync = true;
    let here = store.node.pull(missing, &Silent).expect("it is here");
    let snapshots = store.node.snapshots().list(&store.ns).expect("snapshots");
    assert!(snapshots.iter().all(|one| one.durable), "{snapshots:?}");
    assert_eq!(here.images[0].target, pulled.images[0].target);
    assert_eq!(here.layers[0].chain_id, pulled.layers[0].chain_id);
}

/// A blob is known in every repository that it came from.
#[test]
fn sources_add_up() {
    let registry = Registry::start();
    let layout = simple();
    push(layout.path(), "shop/web:1", &registry, "shop/web:1");
    push(layout.path(), "shop/web:1", &registry, "a/copy:1");
    let store = Store::new();
    for rest in ["shop/web:1", "a/copy:1", "shop/web:1"] {
        pull(&store, name(&registry, rest)).expect("pull");
    }
    let label = format!("{SOURCE}127.0.0.1");
    for blob in store.node.content().list(&store.ns).expect("blobs") {
        let known = blob.labels.get(&label).map(String::as_str);
        assert_eq!(known, Some("a/copy,shop/web"), "{}", blob.digest);
    }
}

#[test]
fn only_the_wanted_platform_comes() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let mut manifests = Vec::new();
    for platform in ["linux/amd64", "linux/arm64"] {
        let own = tar(&[("arch", platform)]);
        let (os, architecture) = platform.split_once('/').expect("platform");
        let mut manifest = layout.manifest(platform, &[(OCI_LAYER, own.clone(), own)]);
        manifest["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        manifests.push(manifest);
    }
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests,
    });
    let index = layout.json(OCI_INDEX, &index);
    layout.name(index, "multi");
    layout.finish();
    push(layout.path(), "multi", &registry, "multi:1");
    let store = Store::new();
    let name = name(&registry, "multi:1");
    let mut arm = request(&store.ns, name.clone());
    arm.platforms = vec!["linux/arm64".parse().expect("platform")];
    let pulled = store.node.pull(arm, &Silent).expect("pull");
    let platform = pulled.images[0].platform.as_ref().map(ToString::to_string);
    assert_eq!(platform.as_deref(), Some("linux/arm64"));
    let blobs = store.node.content().list(&store.ns).expect("blobs");
    assert_eq!(blobs.len(), 4, "index, manifest, configuration, layer");

    let mut riscv = request(&store.ns, name.clone());
    riscv.platforms = vec!["linux/riscv64".parse().expect("platform")];
    let failure = store.node.pull(riscv, &Silent).expect_err("not there");
    assert_eq!(
        failure.to_string().lines().next(),
        Some(&*format!(
            "cannot pull image {name}: no manifest for linux/riscv64"
        ))
    );
    assert_eq!(failure.causes, ["it has linux/amd64, linux/arm64"]);
    assert!(
        failure
            .next
            .contains(&format!("cairn images pull --platform linux/arm64 {name}")),
        "{failure:?}"
    );
    let mut all = request(&store.ns, name);
    all.all_platforms = true;
    store.node.pull(all, &Silent).expect("pull");
    assert_eq!(
        store.node.content().list(&store.ns).expect("blobs").len(),
        7
    );
}

#[test]
fn what_cannot_be_unpacked_is_kept_packed() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let plain = tar(&[("a", "a")]);
    let kind = "application/vnd.acme.layer.v9";
    let manifest = layout.manifest(
        &host(),
        &[
            (GZIP, pack("gzip", &plain), plain.clone()),
            (kind, plain.clone(), plain),
        ],
    );
    layout.name(manifest, "odd");
    layout.finish();
    push(layout.path(), "odd", &registry, "odd:1");
    let store = Store::new();
    let name = name(&registry, "odd:1");
    let failure = pull(&store, name.clone()).expect_err("unknown");
    assert_eq!(
        failure.reason,
        format!("layer 2 of 2 has unknown type {kind}")
    );
    assert_eq!(
        failure.next,
        [format!(
            "keep it packed: cairn images pull --no-unpack {name}"
        )]
    );
    let mut packed = request(&store.ns, name.clone());
    packed.unpack = false;
    let pulled = store.node.pull(packed, &Silent).expect("pull");
    assert_eq!(pulled.images[0].unpacked_size, None);
    assert!(store.node.image(&store.ns, &name).expect("image").complete);
}

/// Each is small enough by itself.
#[test]
fn documents_of_one_image_have_a_limit_together() {
    let registry = Registry::start();
    let mut layout = Layout::new();
    let padding = "x".repeat(7 << 19);
    let manifests: Vec<_> = (0..19)
        .map(|number: usize| {
            let config = serde_json::json!({
                "architecture": "amd64", "os": "linux", "author": number.to_string(),
                "rootfs": {"type": "layers", "diff_ids": []},
            });
            let config = layout.json(OCI_CONFIG, &config);
            layout.json(
                OCI_MANIFEST,
                &serde_json::json!({
                    "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config,
                    "layers": [], "annotations": {"padding": padding},
                }),
            )
        })
        .collect();
    let index = serde_json::json!({
        "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests,
    });
    let index = layout.json(OCI_INDEX, &index);
    layout.name(index, "many");
    layout.finish();
    push(layout.path(), "many", &registry, "many:1");
    let store = Store::new();
    let failure = pull(&store, name(&registry, "many:1")).expect_err("too many");
    assert_eq!(failure.kind, ErrorKind::InvalidArgument, "{failure:?}");
    assert_eq!(
        failure.reason,
        "its documents have more than 64.0 MiB together"
    );
    store.assert_empty();
    // Wherever they come from.
    let failure = store.import(layout.path()).expect_err("too many");
    assert_eq!(
        failure.reason,
        "its documents have more than 64.0 MiB together"
    );
}

#[test]
fn nothing_is_there_of_what_is_not() {
    let registry = Registry::start();
    let store = Store::new();
    let failure = pull(&store, name(&registry, "shop/web:9")).expect_err("not there");
    assert_eq!(failure.kind, ErrorKind::NotFound, "{failure:?}");
    store.assert_empty();
}
