//! An image to make bundles of, and what is asked of them.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use cairn_bundle::BundleRequest;
use cairn_types::{Failure, ImageName};
use serde_json::{Value, json};

use super::{Layout, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Store, host, make, run, text};

pub const NAME: &str = "docker.io/shop/app:1";

/// A root file system of busybox as a tar; `extra` adds to it.
pub fn tree(extra: impl FnOnce(&Path)) -> Vec<u8> {
    let dir = tempfile::tempdir().expect("temporary directory");
    let root = dir.path().join("tree");
    for path in ["bin", "etc", "data/sub", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(path)).expect("directory");
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).expect("busybox-static is installed");
    for applet in [
        "sh", "id", "pwd", "env", "cat", "ls", "hostname", "sleep", "touch", "stat",
    ] {
        symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).expect("passwd");
    fs::write(
        root.join("etc/group"),
        "root:x:0:\napp:x:1001:\nstaff:x:50:app\n",
    )
    .expect("group");
    fs::write(root.join("data/seed"), "seed\n").expect("seed");
    symlink("../seed", root.join("data/sub/link")).expect("link");
    std::os::unix::fs::chown(root.join("data/seed"), Some(7), Some(8)).expect("chown");
    fs::set_permissions(root.join("data"), fs::Permissions::from_mode(0o1777)).expect("chmod");
    extra(&root);
    let out = dir.path().join("out.tar");
    run(
        "tar",
        &[
            "--numeric-owner",
            "--xattrs",
            "--xattrs-include=*",
            "--sparse",
            "-cf",
            text(&out),
            "-C",
            text(&root),
            ".",
        ],
    );
    fs::read(out).expect("tar")
}

/// A layout with one image, `shop/app:1`, of one layer.
pub fn image(layer: &[u8], config: &Value) -> Layout {
    let mut layout = Layout::new();
    let host = host();
    let (os, architecture) = host.split_once('/').expect("os/arch");
    let digest = cairn_types::Digest::sha256(layer).to_string();
    let config = json!({
        "architecture": architecture, "os": os, "config": config,
        "author": "A. Uthor <a@example.com>", "created": "2020-02-02T02:02:02Z",
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": layout.json(OCI_CONFIG, &config),
        "layers": [layout.blob(OCI_LAYER, layer)],
    });
    let manifest = layout.json(OCI_MANIFEST, &manifest);
    layout.name(manifest, "shop/app:1");
    layout.finish();
    layout
}

pub fn imported(layer: &[u8], config: &Value) -> Store {
    let store = Store::new();
    store.import(image(layer, config).path()).expect("import");
    store
}

pub fn request(store: &Store, dir: &Path) -> BundleRequest {
    let name = ImageName::parse(NAME).expect("name");
    BundleRequest::new(store.ns.clone(), name, dir.to_owned())
}

/// Makes the bundle `b` of the store's image.
pub fn create(store: &Store, change: impl FnOnce(&mut BundleRequest)) -> Result<PathBuf, Failure> {
    let mut request = request(store, &store.dir.path().join("b"));
    change(&mut request);
    make(store, &request).map(|made| made.dir)
}

pub fn config(bundle: &Path) -> Value {
    serde_json::from_slice(&fs::read(bundle.join("config.json")).expect("config.json"))
        .expect("JSON")
}

/// Runs the bundle to its end; what the container printed.
#[track_caller]
pub fn contained(runtime: &str, bundle: &Path) -> String {
    let state = bundle
        .parent()
        .expect("parent")
        .join(format!("{runtime}-state"));
    let id = format!(
        "cairn-{}-{}",
        std::process::id(),
        fs::metadata(bundle).expect("bundle").ino()
    );
    // crun refuses a host whose second cgroup hierarchy has controllers of its own, whatever it is to
    // run. It does not see that one where it is not mounted.
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--", "sh", "-c", script, "sh", runtime])
        .args(["--root", text(&state), "run", "-b", text(bundle), &id])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap_or_else(|err| panic!("{runtime}: {err}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{runtime}: {stdout}{stderr}");
    stdout
}

/// The names in a directory, in order.
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("entry").file_name())
        .map(|name| name.into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

/// Nothing of a bundle is left: no file beside the store, no record, no snapshot, no mount.
#[track_caller]
pub fn assert_no_bundle(store: &Store) {
    let mut names = names(store.dir.path());
    names.retain(|name| !name.ends_with("-state"));
    assert_eq!(names, ["root"], "left beside the store");
    assert_eq!(store.node.bundles(&store.ns).expect("bundles"), []);
    let snapshots = store.node.snapshots().list(&store.ns).expect("snapshots");
    let keys: Vec<_> = snapshots.iter().map(|s| s.key.to_string()).collect();
    assert!(
        !keys.iter().any(|key| key.starts_with("bundle:")),
        "{keys:?}"
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(text(store.dir.path())), "{mounts}");
}
