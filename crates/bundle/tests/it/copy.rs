//! Bundles whose root is plain files: the same files, and no need of the store any more.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use cairn_types::{ErrorKind, ImageName};
use serde_json::json;

use crate::common::bundle::*;
use crate::common::{make, remove, run, text};

/// As `setcap cap_net_raw+ep` makes it.
const NET_RAW: &str = "0x0100000200200000000000000000000000000000";

/// What there is to see of every file: kind, mode, owner, names, time, target, bytes and attributes.
fn described(root: &Path) -> String {
    let script = "cd \"$0\" && find bin data dev etc -printf '%p %y %m %U:%G %T@ %l\\n' | sort; \
                  find . -maxdepth 0 -printf '%y %m %U:%G\\n'; \
                  find bin data etc -type f -printf '%p %n %s\\n' | sort; \
                  find data/disk -printf '%p ' -exec stat -c %t:%T {} +; \
                  find bin data etc -type f ! -name sparse | sort | xargs sha256sum; \
                  getfattr -R -h -d -e hex -m - bin data etc";
    run("sh", &["-c", script, text(root)])
}

/// With whatever a file system can hold.
fn odd(root: &Path) {
    let data = root.join("data");
    fs::hard_link(root.join("bin/busybox"), data.join("again")).expect("link");
    run("mkfifo", &[text(&data.join("fifo"))]);
    run("mknod", &[text(&data.join("disk")), "b", "8", "0"]);
    fs::File::create(data.join("sparse"))
        .and_then(|file| file.set_len(8 << 30))
        .expect("a hole");
    let tool = data.join("tool");
    fs::copy("/bin/true", &tool).expect("copy");
    run(
        "setfattr",
        &["-n", "security.capability", "-v", NET_RAW, text(&tool)],
    );
    run("setfattr", &["-n", "user.note", "-v", "x", text(&tool)]);
    let set = data.join("set");
    fs::write(&set, "x").expect("file");
    std::os::unix::fs::chown(&set, Some(1000), Some(1001)).expect("chown");
    fs::set_permissions(&set, fs::Permissions::from_mode(0o6755)).expect("chmod");
}

#[test]
fn the_files_are_those_of_the_mount() {
    let store = imported(&tree(odd), &json!({"Cmd": ["sh"]}));
    let mut other = request(&store, &store.dir.path().join("mounted"));
    let mounted = make(&store, &other).expect("create");
    assert!(!mounted.copied);
    other.dir = store.dir.path().join("b");
    other.copy = true;
    let copied = make(&store, &other).expect("create");
    assert!(copied.copied);
    assert!(!cairn_bundle::is_mounted(&copied.dir).expect("mounts"));
    let [theirs, ours] = [&mounted, &copied].map(|made| described(&made.dir.join("rootfs")));
    assert_eq!(ours, theirs);
    assert!(ours.contains("data/again 2 "), "{ours}");
    let tool = copied.dir.join("rootfs/data/tool");
    let value = ["-n", "security.capability", "-e", "hex", text(&tool)];
    assert!(run("getfattr", &value).contains(NET_RAW));
    // Holes are holes, and the room that is named is what it takes.
    let size = cairn_bundle::copied_size(&copied.dir).expect("size");
    assert!((1 << 20..64 << 20).contains(&size), "{size}");
    remove(&store, &mounted.dir).expect("remove");
    remove(&store, &copied.dir).expect("remove");
    assert_no_bundle(&store);
}

#[test]
fn it_runs_when_the_store_has_nothing_of_it_any_more() {
    let script = "cat /data/seed; touch /data/own; ls /data";
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["/bin/sh", "-c", script]}));
    let bundle = create(&store, |request| request.copy = true).expect("create");
    let known = store.node.bundles(&store.ns).expect("bundles");
    assert!(known[0].copied && known[0].made);
    let name = ImageName::parse(NAME).expect("name");
    store
        .node
        .remove_image(&store.ns, &name, true)
        .expect("force");
    store.node.gc(false).expect("gc");
    assert_eq!(store.node.snapshots().list(&store.ns).expect("list"), []);
    for runtime in ["runc", "crun"] {
        let printed = contained(runtime, &bundle);
        assert_eq!(printed, "seed\nown\nseed\nsub\n", "{runtime}");
    }
    assert!(bundle.join("rootfs/data/own").exists());
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
    store.assert_empty();
}

/// Nothing is to be mounted again, whatever is asked for.
#[test]
fn one_that_is_there_stays_as_it_is() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}));
    let bundle = create(&store, |request| request.copy = true).expect("create");
    fs::write(bundle.join("rootfs/data/own"), "x").expect("write");
    for copy in [true, false] {
        let failure = create(&store, |request| request.copy = copy).expect_err("it is there");
        assert_eq!(failure.kind, ErrorKind::AlreadyExists);
        assert!(failure.next[0].starts_with("cairn bundle rm "), "{failure}");
    }
    assert_eq!(
        fs::read(bundle.join("rootfs/data/own")).expect("file"),
        b"x"
    );
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}

#[test]
fn one_that_runs_is_not_removed() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sleep", "600"]}));
    let bundle = create(&store, |request| request.copy = true).expect("create");
    let state = store.dir.path().join("runc-state");
    let id = format!("cairn-copied-{}", std::process::id());
    // The container keeps the descriptors it is given.
    let started = Command::new("runc")
        .args([
            "--root",
            text(&state),
            "run",
            "-d",
            "-b",
            text(&bundle),
            &id,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(started.expect("runc").success());
    let failure = remove(&store, &bundle).expect_err("in use");
    assert!(failure.to_string().contains("runs in it"), "{failure}");
    assert!(bundle.join("rootfs/bin/busybox").exists());
    run("runc", &["--root", text(&state), "delete", "--force", &id]);
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}
