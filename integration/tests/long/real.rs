//! A real image of five layers from Debian packages, from its archive to a running container, with
//! every name in its tree held against umoci's and containerd's.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cairn_integration::{cairn::Cairn, peers, tree::Tree};
use serde_json::Value;

/// The layout that `integration/image` makes once; it stays below the target directory.
fn layout() -> PathBuf {
    let out = Cairn::binary()
        .parent()
        .and_then(Path::parent)
        .expect("target")
        .join("integration/real");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("image");
    let made = Command::new(script)
        .arg(&out)
        .status()
        .expect("start the script");
    assert!(made.success(), "integration/image: {made}");
    out
}

fn archive(layout: &Path, out: &Path) {
    let arguments = [
        "-C",
        text(layout),
        "-cf",
        text(out),
        "blobs",
        "index.json",
        "oci-layout",
    ];
    peers::run("tar", &arguments);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn manifest_digest(layout: &Path) -> String {
    let index = fs::read(layout.join("index.json")).expect("index");
    let index: Value = serde_json::from_slice(&index).expect("JSON");
    index["manifests"][0]["digest"]
        .as_str()
        .expect("digest")
        .to_owned()
}

/// One store, imported once, for all that is asked of it: the image is large.
#[test]
fn a_real_image_goes_all_the_way() {
    let layout = layout();
    let cairn = Cairn::new();
    let tar = cairn.path("real.tar");
    archive(&layout, &tar);
    cairn.ok(&["images", "import", "--base-name", "localhost/t", text(&tar)]);
    trees_are_equal(&cairn, &layout, &tar);
    a_container_runs(&cairn);
    exports_are_read_back(&cairn, &layout);
    cairn.ok(&["images", "rm", "--force", "localhost/t:real"]);
    cairn.ok(&["gc"]);
    assert_eq!(cairn.ok(&["-q", "content", "ls"]), "");
    assert_eq!(cairn.ok(&["-q", "snapshots", "ls"]), "");
}

fn trees_are_equal(cairn: &Cairn, layout: &Path, tar: &Path) {
    let target = cairn.path("mnt");
    fs::create_dir(&target).expect("target");
    cairn.ok(&["images", "mount", "localhost/t:real", text(&target)]);
    let mut ours = Tree::read(&target);
    cairn.ok(&["images", "unmount", text(&target)]);
    assert!(
        ours.len() > 10_000,
        "{} names are no real image",
        ours.len()
    );
    for (path, expected) in [("usr/local/bin/elevated", 0o6755), ("srv/shared", 0o1777)] {
        assert_eq!(ours.get(path).expect(path).mode, expected, "{path}");
    }

    let theirs = Tree::read(&peers::umoci_unpack(layout, "real", &cairn.path("umoci")));
    ours.assert_equals(&theirs, "cairn's and umoci's trees");
    drop(theirs);
    fs::remove_dir_all(cairn.path("umoci")).expect("remove");

    let containerd = peers::Containerd::start();
    let other = cairn.path("ctr");
    fs::create_dir(&other).expect("target");
    containerd.ok(&["images", "import", "--base-name", "localhost/t", text(tar)]);
    containerd.ok(&["images", "mount", "localhost/t:real", text(&other)]);
    let mut theirs = Tree::read(&other);
    containerd.ok(&["images", "unmount", text(&other)]);
    // > Missing parents: mkdir 0755, then owner, mode, times and xattrs copied from the first parent
    // > layer that has that directory (containerd `pkg/archive/tar.go`)
    //
    // but the entry written into such a directory afterwards sets its time to now, and the root's own
    // entry is skipped. umoci, above, agrees with us about these times. Layers of this image have
    // whole seconds, so a fraction tells a time of containerd's own.
    let mut own_times = BTreeSet::new();
    theirs.retain(|path, node| {
        if node.kind == "dir" && node.mtime.1 != 0 {
            own_times.insert(path.to_path_buf());
            node.mtime = (0, 0);
        }
        true
    });
    ours.retain(|path, node| {
        if own_times.contains(path) {
            node.mtime = (0, 0);
        }
        true
    });
    ours.assert_equals(&theirs, "cairn's and containerd's trees");
}

fn a_container_runs(cairn: &Cairn) {
    for (runtime, id) in [("runc", "cairn-real-runc"), ("crun", "cairn-real-crun")] {
        let bundle = cairn.path("bundle");
        let arguments = ["bundle", "create", "localhost/t:real", text(&bundle), "--"];
        let program = ["python3", "-c", "print(6*7)"];
        cairn.ok(&[&arguments[..], &program[..]].concat());
        let printed = peers::contain(runtime, &bundle, id);
        assert_eq!(printed.trim(), "42", "{runtime}");
        cairn.ok(&["bundle", "rm", text(&bundle)]);
        assert!(!bundle.exists());
    }
}

fn exports_are_read_back(cairn: &Cairn, layout: &Path) {
    let expected = manifest_digest(layout);
    let out = cairn.path("out.tar");
    cairn.ok(&["images", "export", text(&out), "localhost/t:real"]);

    let inspected = peers::run(
        "skopeo",
        &[
            "inspect",
            "--format",
            "{{.Digest}}",
            &format!("oci-archive:{}", text(&out)),
        ],
    );
    assert_eq!(inspected.trim(), expected, "skopeo inspect");
    let copy = cairn.path("copy");
    let to = format!("oci:{}:real", text(&copy));
    peers::run(
        "skopeo",
        &["copy", "-q", &format!("oci-archive:{}", text(&out)), &to],
    );
    assert_eq!(manifest_digest(&copy), expected, "skopeo copy");
    fs::remove_dir_all(&copy).expect("remove");

    let unpacked = cairn.path("exported");
    fs::create_dir(&unpacked).expect("directory");
    peers::run("tar", &["-C", text(&unpacked), "-xf", text(&out)]);
    assert_eq!(manifest_digest(&unpacked), expected, "index.json");
    let tags = peers::run("umoci", &["ls", "--layout", text(&unpacked)]);
    let tag = tags
        .lines()
        .next()
        .expect("umoci sees the image")
        .to_owned();
    let stat = peers::run(
        "umoci",
        &[
            "stat",
            "--json",
            "--image",
            &format!("{}:{tag}", text(&unpacked)),
        ],
    );
    assert!(stat.contains("\"history\""), "{stat}");

    let containerd = peers::Containerd::start();
    containerd.ok(&["images", "import", "--no-unpack", text(&out)]);
    let listed = containerd.ok(&["images", "ls"]);
    assert!(listed.contains(&expected), "{listed}");
}
