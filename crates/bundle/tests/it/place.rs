//! Where bundles may be, and that nothing else is taken for one, unmounted or removed.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use cairn_types::{ErrorKind, Failure, ImageName};
use serde_json::json;

use crate::common::bundle::*;
use crate::common::{Layout, OCI_CONFIG, OCI_MANIFEST, Store, host, make, remove, run, text};

#[test]
fn b06_a_place_that_is_taken_is_left_alone() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}));
    let dir = store.dir.path().join("b");
    fs::create_dir(&dir).expect("directory");
    fs::write(dir.join("precious"), "x").expect("file");
    let failure = create(&store, |_| ()).expect_err("not empty");
    assert_eq!(failure.kind, ErrorKind::AlreadyExists);
    assert_eq!(fs::read(dir.join("precious")).expect("still there"), b"x");
    fs::remove_file(dir.join("precious")).expect("remove");
    // An empty one is used.
    let bundle = create(&store, |_| ()).expect("create");
    let failure = create(&store, |_| ()).expect_err("mounted");
    assert!(failure.to_string().contains("not empty"), "{failure}");
    remove(&store, &bundle).expect("remove");
    for wrong in ["link", "file"] {
        match wrong {
            "link" => symlink("/etc", &dir).expect("link"),
            _ => fs::write(&dir, "x").expect("file"),
        }
        let failure = create(&store, |_| ()).expect_err(wrong);
        assert_eq!(failure.kind, ErrorKind::AlreadyExists, "{failure}");
        fs::remove_file(&dir).expect("remove");
    }
    assert_no_bundle(&store);
}

#[test]
fn after_a_restart_of_the_machine_it_is_mounted_again() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["cat", "/data/changed"]}));
    let bundle = create(&store, |_| ()).expect("create");
    fs::write(bundle.join("rootfs/data/changed"), "changed\n").expect("write");
    run("umount", &[text(&bundle.join("rootfs"))]);
    assert!(!cairn_bundle::is_mounted(&bundle).expect("mounts"));
    let failure = create(&store, |request| request.tty = true).expect_err("customised");
    assert!(
        failure.to_string().contains("configuration of its own"),
        "{failure}"
    );
    let made = make(&store, &request(&store, &bundle)).expect("remount");
    assert!(made.remounted);
    assert_eq!(contained("runc", &bundle), "changed\n");
    run("umount", &[text(&bundle.join("rootfs"))]);
    remove(&store, &bundle).expect("remove an unmounted one");
    assert_no_bundle(&store);
}

#[test]
fn the_image_may_go_before_the_bundle() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["cat", "/data/seed"]}));
    let bundle = create(&store, |_| ()).expect("create");
    let name = ImageName::parse(NAME).expect("name");
    let failure = store
        .node
        .remove_image(&store.ns, &name, false)
        .expect_err("in use");
    assert_eq!(failure.kind, ErrorKind::FailedPrecondition);
    store
        .node
        .remove_image(&store.ns, &name, true)
        .expect("force");
    store.node.gc(false).expect("gc");
    assert_eq!(contained("runc", &bundle), "seed\n");
    remove(&store, &bundle).expect("remove");
    store.node.gc(false).expect("gc");
    store.assert_empty();
}

#[test]
fn one_that_runs_is_not_removed() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sleep", "600"]}));
    let bundle = create(&store, |_| ()).expect("create");
    let state = store.dir.path().join("runc-state");
    let id = format!("cairn-held-{}", std::process::id());
    let pid_file = store.dir.path().join("pid-state");
    let arguments = [
        "--root",
        text(&state),
        "run",
        "-d",
        "--pid-file",
        text(&pid_file),
        "-b",
        text(&bundle),
    ];
    // The container keeps the descriptors it is given.
    let started = Command::new("runc")
        .args(arguments)
        .arg(&id)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .expect("runc");
    assert!(started.success());
    let pid = fs::read_to_string(&pid_file).expect("pid");
    let refused = |failure: Failure| {
        let reason = format!("process {pid} runs in it");
        assert!(failure.to_string().contains(&reason), "{failure}");
    };
    refused(remove(&store, &bundle).expect_err("in use"));
    assert!(bundle.join("rootfs/bin/busybox").exists(), "still mounted");
    // Nor when it is not mounted here any more, as the container's copy still is.
    run("umount", &[text(&bundle.join("rootfs"))]);
    refused(remove(&store, &bundle).expect_err("in use"));
    refused(create(&store, |_| ()).expect_err("would be mounted twice"));
    let away = store.dir.path().join("away-state");
    fs::rename(&bundle, &away).expect("rename");
    refused(remove(&store, &bundle).expect_err("in use"));
    refused(create(&store, |_| ()).expect_err("would take its files away"));
    fs::rename(&away, &bundle).expect("rename");
    run("runc", &["--root", text(&state), "delete", "--force", &id]);
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}

/// Nothing is deleted under who has a file open, on whichever side of the mount.
#[test]
fn one_of_which_a_file_is_open_is_not_removed() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}));
    let bundle = create(&store, |_| ()).expect("create");
    let root = bundle.join("rootfs");
    fs::write(root.join("data/written"), "x").expect("write");
    let held = fs::File::open(root.join("bin/busybox")).expect("open");
    let failure = remove(&store, &bundle).expect_err("busy");
    assert!(
        failure.to_string().contains("a process works in it"),
        "{failure}"
    );
    assert_eq!(fs::read(root.join("data/written")).expect("kept"), b"x");
    assert!(root.join("bin/busybox").exists(), "still mounted");
    drop(held);
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}

#[test]
fn one_that_is_mounted_elsewhere_is_not_removed() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}));
    let bundle = create(&store, |_| ()).expect("create");
    let (away, second) = (store.dir.path().join("away"), store.dir.path().join("t"));
    // Its mount goes with it.
    fs::rename(&bundle, &away).expect("rename");
    let root = away.join("rootfs");
    let refused = |failure: Failure, at: &Path| {
        let reason = format!("its root is mounted at {}", at.display());
        assert!(failure.to_string().contains(&reason), "{failure}");
    };
    refused(remove(&store, &bundle).expect_err("moved"), &root);
    refused(create(&store, |_| ()).expect_err("moved"), &root);
    fs::write(root.join("data/written"), "x").expect("its layer is there");
    fs::rename(&away, &bundle).expect("rename");
    fs::create_dir(&second).expect("directory");
    run(
        "mount",
        &["--bind", text(&bundle.join("rootfs")), text(&second)],
    );
    refused(remove(&store, &bundle).expect_err("bound"), &second);
    fs::write(second.join("data/written"), "x").expect("its layer is there");
    run("umount", &[text(&second)]);
    fs::remove_dir(&second).expect("remove");
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}

/// As it is in `/tmp`. The name of the hidden directory can be known beforehand.
#[test]
fn b06_where_anybody_makes_names_nobody_gets_in_between() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}));
    let other = create(&store, |_| ()).expect("create");
    let public = store.dir.path().join("public");
    fs::create_dir(&public).expect("directory");
    fs::set_permissions(&public, fs::Permissions::from_mode(0o1777)).expect("chmod");
    let name = cairn_types::Digest::sha256(b"mine");
    let aside = public.join(format!(".cairn-{:.16}", name.hex()));
    let theirs = |path: &Path| {
        std::os::unix::fs::lchown(path, Some(1000), Some(1000)).expect("chown");
    };
    let mine = public.join("mine");
    for squat in ["link", "file", "directory"] {
        match squat {
            "link" => symlink(&other, &aside).expect("link"),
            "file" => fs::write(&aside, "x").expect("file"),
            _ => {
                fs::create_dir(&aside).expect("directory");
                symlink(other.join("rootfs"), aside.join("rootfs")).expect("link");
            }
        }
        theirs(&aside);
        create(&store, |request| request.dir.clone_from(&mine)).expect(squat);
        assert!(other.join("rootfs/bin").exists(), "{squat}: unmounted");
        assert_eq!(fs::metadata(&mine).expect("bundle").uid(), 0);
        remove(&store, &mine).expect("remove");
    }
    // One that was made there before the machine was started again, which emptied the directory.
    create(&store, |request| request.dir.clone_from(&mine)).expect("create");
    run("umount", &[text(&mine.join("rootfs"))]);
    theirs(&mine.join(".cairn"));
    fs::write(mine.join("config.json"), "{}").expect("their own");
    let failure = create(&store, |request| request.dir.clone_from(&mine)).expect_err("theirs");
    assert_eq!(failure.kind, ErrorKind::AlreadyExists, "{failure}");
    remove(&store, &mine).expect("remove what is ours of it");
    fs::remove_dir_all(&public).expect("remove");
    remove(&store, &other).expect("remove");
    assert_no_bundle(&store);
}

/// An image without layers has a plain directory for its root, on the file system of many others.
#[test]
fn an_image_without_layers_is_removed() {
    let mut layout = Layout::new();
    let host = host();
    let (os, architecture) = host.split_once('/').expect("os/arch");
    let config = json!({
        "architecture": architecture, "os": os, "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": []},
    });
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": layout.json(OCI_CONFIG, &config), "layers": [],
    });
    let manifest = layout.json(OCI_MANIFEST, &manifest);
    layout.name(manifest, "shop/app:1");
    layout.finish();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let bundle = create(&store, |_| ()).expect("create");
    let mut other = Command::new("unshare")
        .args(["--mount", "sleep", "600"])
        .spawn()
        .expect("unshare");
    let ours = fs::read_link("/proc/self/ns/mnt").expect("namespace");
    let theirs = format!("/proc/{}/ns/mnt", other.id());
    while fs::read_link(&theirs).expect("namespace") == ours {
        std::thread::yield_now();
    }
    let removed = remove(&store, &bundle);
    other.kill().expect("kill");
    other.wait().expect("wait");
    removed.expect("remove");
    assert_no_bundle(&store);
}

#[test]
fn one_of_many_at_once_makes_it() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["cat", "/data/seed"]}));
    for _ in 0..4 {
        let made: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| create(&store, |_| ())))
                .collect();
            let results = threads.into_iter().map(|t| t.join().expect("thread"));
            results.collect()
        });
        let (made, refused): (Vec<_>, Vec<_>) = made.into_iter().partition(Result::is_ok);
        assert_eq!(made.len(), 1, "{refused:?}");
        for failure in refused.into_iter().filter_map(Result::err) {
            let kinds = [ErrorKind::Unavailable, ErrorKind::AlreadyExists];
            assert!(kinds.contains(&failure.kind), "{failure}");
        }
        let bundle = store.dir.path().join("b");
        assert_eq!(contained("runc", &bundle), "seed\n");
        remove(&store, &bundle).expect("remove");
        assert_no_bundle(&store);
    }
}

#[test]
fn a_directory_that_is_not_the_bundle_any_more_is_left_alone() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}));
    let bundle = create(&store, |_| ()).expect("create");
    run("umount", &[text(&bundle.join("rootfs"))]);
    fs::remove_dir_all(&bundle).expect("remove by hand");
    fs::create_dir(&bundle).expect("directory");
    fs::write(bundle.join("precious"), "x").expect("file");
    let failure = create(&store, |_| ()).expect_err("its layer is still here");
    assert_eq!(failure.kind, ErrorKind::AlreadyExists, "{failure}");
    remove(&store, &bundle).expect("remove");
    assert_eq!(
        fs::read(bundle.join("precious")).expect("still there"),
        b"x"
    );
    fs::remove_dir_all(&bundle).expect("remove");
    assert_no_bundle(&store);
    let failure = remove(&store, &bundle).expect_err("no bundle");
    assert_eq!(failure.kind, ErrorKind::NotFound);
    // Gone with its parent.
    let deep = store.dir.path().join("deep/er");
    let made = make(&store, &request(&store, &deep)).expect("create");
    run("umount", &[text(&made.dir.join("rootfs"))]);
    fs::remove_dir_all(store.dir.path().join("deep")).expect("remove by hand");
    // A disk that is not mounted looks the same; what the container wrote stays.
    let again = make(&store, &request(&store, &deep));
    let failure = again.expect_err("its layer is still here");
    assert!(failure.to_string().contains("is gone"), "{failure}");
    assert!(!store.dir.path().join("deep").exists());
    remove(&store, &deep).expect("remove");
    assert_no_bundle(&store);
}
