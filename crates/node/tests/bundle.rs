//! Bundles: what stands in them, that runc and crun run them, and that umoci makes the same of an
//! image's configuration.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use cairn_node::{BundleRequest, Failure, Net, Silent};
use cairn_types::{ErrorKind, ImageName};
use common::{Layout, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Store, host, run, text};
use serde_json::{Value, json};

const NAME: &str = "docker.io/shop/app:1";

/// A root file system of busybox as a tar; `extra` adds to it.
fn tree(extra: impl FnOnce(&Path)) -> Vec<u8> {
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
fn image(layer: &[u8], config: &Value) -> Layout {
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

fn imported(layer: &[u8], config: &Value) -> Store {
    let store = Store::new();
    store.import(image(layer, config).path()).expect("import");
    store
}

fn request(store: &Store, dir: &Path) -> BundleRequest {
    let name = ImageName::parse(NAME).expect("name");
    BundleRequest::new(store.ns.clone(), name, dir.to_owned())
}

/// Makes the bundle `b` of the store's image.
fn create(store: &Store, change: impl FnOnce(&mut BundleRequest)) -> Result<PathBuf, Failure> {
    let mut request = request(store, &store.dir.path().join("b"));
    change(&mut request);
    store
        .node
        .bundle_create(&request, &Silent)
        .map(|made| made.dir)
}

fn config(bundle: &Path) -> Value {
    serde_json::from_slice(&fs::read(bundle.join("config.json")).expect("config.json"))
        .expect("JSON")
}

/// Runs the bundle to its end; what the container printed.
#[track_caller]
fn contained(runtime: &str, bundle: &Path) -> String {
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

/// Nothing of a bundle is left: no file beside the store, no record, no snapshot, no mount.
#[track_caller]
fn assert_no_bundle(store: &Store) {
    let mut names: Vec<_> = fs::read_dir(store.dir.path())
        .expect("directory")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| !name.ends_with("-state"))
        .collect();
    names.sort();
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

#[test]
fn both_runtimes_run_what_the_image_says() {
    let script = "id; pwd; hostname; echo $GREETING $HOME; umask; cat /data/seed; \
                  stat -c '%a %u:%g' /data /data/seed; cat /data/sub/link; touch /data/own; \
                  ls /sys/class/net; cat /proc/kcore /proc/keys | head -c 1 | wc -c; \
                  grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status";
    let store = imported(
        &tree(|root| {
            for applet in ["umask", "head", "wc", "grep"] {
                symlink("busybox", root.join("bin").join(applet)).expect("link");
            }
        }),
        &json!({
            "User": "app", "WorkingDir": "/srv/new", "Env": ["PATH=/bin", "GREETING=hello"],
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": [script],
            "Volumes": {"/data": {}, "/proc/self": {}, "/": {}},
        }),
    );
    for runtime in ["runc", "crun"] {
        let bundle = create(&store, |_| ()).expect("create");
        assert_eq!(
            contained(runtime, &bundle),
            "uid=1000(app) gid=1001(app) groups=50(staff),1001(app)\n/srv/new\nb\nhello /home/app\n\
             0022\nseed\n1777 0:0\n644 7:8\nseed\nlo\n0\n\
             CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\n\
             CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
            "{runtime}"
        );
        // A volume's data is in the bundle, not in the root.
        assert!(bundle.join("volumes/0/own").exists());
        assert!(!bundle.join("rootfs/data/own").exists());
        store.node.bundle_remove(&bundle).expect("remove");
        assert_no_bundle(&store);
    }
}

#[test]
fn what_is_asked_for_goes_before_the_image() {
    let store = imported(
        &tree(|_| ()),
        &json!({"Cmd": ["false"], "Env": ["A=image"]}),
    );
    for runtime in ["runc", "crun"] {
        let bundle = create(&store, |request| {
            request.args = [
                "sh",
                "-c",
                "id -u; id -g; pwd; hostname; echo $A; touch /x || echo ro",
            ]
            .map(str::to_owned)
            .into();
            request.env = vec!["A=asked".to_owned()];
            request.cwd = Some("/data".to_owned());
            request.user = Some("12:staff".to_owned());
            request.hostname = Some("elsewhere".to_owned());
            request.read_only = true;
        })
        .expect("create");
        let printed = contained(runtime, &bundle);
        assert_eq!(
            printed, "12\n50\n/data\nelsewhere\nasked\nro\n",
            "{runtime}"
        );
        store.node.bundle_remove(&bundle).expect("remove");
    }
    let bundle = create(&store, |request| request.tty = true).expect("create");
    let document = config(&bundle);
    assert_eq!(document["process"]["terminal"], true);
    let env = document["process"]["env"].as_array().expect("env");
    assert!(env.contains(&json!("TERM=xterm")));
}

#[test]
fn the_hosts_network_is_the_hosts() {
    let script = "ls /sys/class/net; cat /etc/hosts /etc/resolv.conf";
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["/bin/sh", "-c", script]}));
    let mut devices: Vec<String> = fs::read_dir("/sys/class/net")
        .expect("devices")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    devices.sort();
    let mut expected = devices.join("\n") + "\n";
    for file in ["/etc/hosts", "/etc/resolv.conf"] {
        expected += &fs::read_to_string(file).expect(file);
    }
    for runtime in ["runc", "crun"] {
        let bundle = create(&store, |request| request.net = Net::Host).expect("create");
        assert_eq!(contained(runtime, &bundle), expected, "{runtime}");
        store.node.bundle_remove(&bundle).expect("remove");
    }
}

#[test]
fn a_bundle_is_for_its_owner_alone() {
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"]}));
    let bundle = create(&store, |_| ()).expect("create");
    let mode = |path: &Path| fs::metadata(path).expect("exists").mode() & 0o7777;
    assert_eq!(mode(&bundle), 0o700);
    assert_eq!(mode(&bundle.join("config.json")), 0o600);
    assert_eq!(mode(&bundle.join("rootfs/data")), 0o1777);
    assert_eq!(
        config(&bundle)["root"],
        json!({"path": "rootfs", "readonly": false})
    );
    let listed = store.node.bundles(&store.ns).expect("bundles");
    assert_eq!(listed.len(), 1);
    assert!(listed[0].mounted);
    assert_eq!((&listed[0].dir, listed[0].image.as_str()), (&bundle, NAME));
    // The same request gives the same bytes.
    let bytes = fs::read(bundle.join("config.json")).expect("config.json");
    store.node.bundle_remove(&bundle).expect("remove");
    let again = create(&store, |_| ()).expect("create");
    assert_eq!(
        fs::read(again.join("config.json")).expect("config.json"),
        bytes
    );
    store.node.bundle_remove(&again).expect("remove");
    assert_no_bundle(&store);
}

/// umoci converts by the same rules; but of these it breaks one:
///
/// > If there is a conflict (same key but different value) between an implicit annotation […] and an
/// > explicitly specified annotation in `Config.Labels`, the value specified in `Config.Labels` MUST
/// > take precedence. (image-spec `conversion.md`, "Annotations")
#[test]
fn umoci_reads_the_configuration_the_same_way() {
    let layout = image(
        &tree(|_| ()),
        &json!({
            "User": "app:staff", "WorkingDir": "/data", "Env": ["PATH=/bin", "GREETING=hello"],
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["id", "x"], "StopSignal": "SIGUSR1",
            "ExposedPorts": {"80/tcp": {}},
            "Labels": {
                "org.example.note": "kept",
                "org.opencontainers.image.author": "the label wins",
            },
        }),
    );
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let bundle = create(&store, |_| ()).expect("create");
    let ours = config(&bundle);
    let other = store.dir.path().join("umoci");
    let source = format!("{}:shop/app:1", text(layout.path()));
    // umoci takes no slash or colon in a tag.
    let index = layout.path().join("index.json");
    let plain = fs::read_to_string(&index)
        .expect("index")
        .replace("shop/app:1", "one");
    fs::write(&index, plain).expect("index");
    let source = source.replace(":shop/app:1", ":one");
    run("umoci", &["unpack", "--image", &source, text(&other)]);
    let theirs = config(&other);
    for key in ["args", "cwd"] {
        assert_eq!(ours["process"][key], theirs["process"][key], "{key}");
    }
    for key in ["uid", "gid"] {
        assert_eq!(
            ours["process"]["user"][key], theirs["process"]["user"][key],
            "{key}"
        );
    }
    let env = ours["process"]["env"].as_array().expect("env");
    for assignment in ["PATH=/bin", "GREETING=hello", "HOME=/home/app"] {
        assert!(env.contains(&json!(assignment)), "{assignment}");
        let theirs = theirs["process"]["env"].as_array().expect("env");
        assert!(theirs.contains(&json!(assignment)), "umoci {assignment}");
    }
    let mut annotations = ours["annotations"].clone();
    let author = "org.opencontainers.image.author";
    assert_eq!(annotations[author], "the label wins");
    annotations[author] = json!("A. Uthor <a@example.com>");
    assert_eq!(annotations, theirs["annotations"]);
    assert_eq!(
        ours["annotations"]["org.opencontainers.image.stopSignal"],
        "SIGUSR1"
    );
}

#[test]
fn labels_that_a_runtime_would_obey_are_not_taken_over() {
    let labels = json!({
        "run.oci.keep_original_groups": "1", "org.systemd.property.ExecStartPre": "'x'",
        "cdi.k8s.io/x": "vendor.com/device=all", "org.example.note": "kept",
        "dev.gvisor.flag.network": "host", "io.kubernetes.cri.container-type": "sandbox",
    });
    let store = imported(&tree(|_| ()), &json!({"Cmd": ["sh"], "Labels": labels}));
    let made = store
        .node
        .bundle_create(&request(&store, &store.dir.path().join("b")), &Silent)
        .expect("create");
    assert_eq!(
        made.withheld_labels,
        [
            "cdi.k8s.io/x",
            "dev.gvisor.flag.network",
            "io.kubernetes.cri.container-type",
            "org.systemd.property.ExecStartPre",
            "run.oci.keep_original_groups"
        ]
    );
    let bundle = made.dir;
    let annotations = config(&bundle)["annotations"]
        .as_object()
        .expect("object")
        .clone();
    let own: Vec<_> = annotations
        .keys()
        .filter(|key| !key.starts_with("org.opencontainers."))
        .collect();
    assert_eq!(own, ["org.example.note"]);
}

/// A runtime opens `/dev/null` for the process it starts, and covers `/proc/kcore` with it.
#[test]
fn a_volume_is_never_mounted_over_the_kernels_files() {
    let script = "ls -d /a/. /b/. /c/. /d/.; cat /dev/null; stat -c %F /dev/null; \
                  grep -c volumes /proc/self/mountinfo";
    let store = imported(
        &tree(|root| {
            symlink("busybox", root.join("bin/grep")).expect("link");
            symlink("/data/seed", root.join("dev/null")).expect("link");
            for (name, target) in [("a", "/dev"), ("b", "proc/sys"), ("c", ".."), ("d", "data")] {
                symlink(target, root.join(name)).expect("link");
            }
        }),
        &json!({
            "Cmd": ["/bin/sh", "-c", script],
            "Volumes": {"/a": {}, "/b": {}, "/c": {}, "/d": {}, "/data": {}, "/data/../d/.": {}},
        }),
    );
    for runtime in ["runc", "crun"] {
        let bundle = create(&store, |_| ()).expect("create");
        let volumes: Vec<Value> = config(&bundle)["mounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .filter(|mount| mount["type"] == "bind")
            .map(|mount| mount["destination"].clone())
            .collect();
        assert_eq!(volumes, ["/data"]);
        assert_eq!(
            contained(runtime, &bundle),
            "/a/.\n/b/.\n/c/.\n/d/.\ncharacter special file\n1\n",
            "{runtime}"
        );
        store.node.bundle_remove(&bundle).expect("remove");
    }
    assert_no_bundle(&store);
}

/// The image has no `/srv`, so the runtime makes it, and the container can move it. The volume that
/// the second start would bind over `/dev` has a `null` of the container's choice.
#[test]
fn a_container_cannot_lead_its_volume_over_the_kernels_files() {
    let script = "stat -c '%F' /dev/null; [ -e /y ] && exit; mkdir /y; mv /srv /x; \
                  ln -s /data/seed /x/data/null; ln -s /dev /y/data; ln -s y /srv";
    let store = imported(
        &tree(|root| {
            for applet in ["mkdir", "mv", "ln"] {
                symlink("busybox", root.join("bin").join(applet)).expect("link");
            }
        }),
        &json!({"Cmd": ["/bin/sh", "-c", script], "Volumes": {"/srv/data": {}}}),
    );
    for runtime in ["runc", "crun"] {
        let bundle = create(&store, |_| ()).expect("create");
        for start in ["first", "second"] {
            let printed = contained(runtime, &bundle);
            assert_eq!(printed, "character special file\n", "{runtime} {start}");
        }
        store.node.bundle_remove(&bundle).expect("remove");
    }
    assert_no_bundle(&store);
}

#[test]
fn what_is_small_in_the_image_is_small_in_a_volume() {
    let mib = 1 << 20;
    let layer = tree(|root| {
        let data = root.join("data");
        let sparse = fs::File::create(data.join("sparse")).expect("file");
        sparse.set_len(8 << 30).expect("a hole");
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"in the middle", 5 << 30)
            .expect("write");
        fs::write(data.join("sub/linked"), vec![b'x'; 4 * mib]).expect("file");
        for name in ["a", "b", "sub/c"] {
            fs::hard_link(data.join("sub/linked"), data.join(name)).expect("link");
        }
        run("mkfifo", &[text(&data.join("fifo"))]);
        run("mknod", &[text(&data.join("disk")), "b", "8", "0"]);
    });
    assert!(layer.len() < 12 * mib, "tar keeps holes out");
    let store = imported(&layer, &json!({"Cmd": ["sh"], "Volumes": {"/data": {}}}));
    let bundle = create(&store, |_| ()).expect("create");
    let volume = bundle.join("volumes/0");
    let stat = |name: &str| fs::symlink_metadata(volume.join(name)).expect(name);
    assert_eq!(stat("sparse").len(), 8 << 30);
    assert!(stat("sparse").blocks() * 512 < 1 << 20);
    let mut middle = [0; 13];
    let sparse = fs::File::open(volume.join("sparse")).expect("open");
    std::os::unix::fs::FileExt::read_exact_at(&sparse, &mut middle, 5 << 30).expect("read");
    assert_eq!(&middle, b"in the middle");
    for name in ["a", "b", "sub/c", "sub/linked"] {
        assert_eq!(stat(name).ino(), stat("a").ino(), "{name}");
        assert_eq!(
            (stat(name).nlink(), stat(name).len()),
            (4, 4 << 20),
            "{name}"
        );
    }
    assert_eq!(stat("fifo").mode() & 0o170_000, 0o010_000);
    assert_eq!(
        (stat("disk").mode() & 0o170_000, stat("disk").rdev()),
        (0o060_000, 0x800)
    );
    store.node.bundle_remove(&bundle).expect("remove");
    assert_no_bundle(&store);
}

type Change = Box<dyn FnOnce(&mut BundleRequest)>;

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let cases: Vec<(&str, Value, Change)> = vec![
        ("names no program", json!({}), Box::new(|_| ())),
        (
            "names no program",
            json!({"Entrypoint": [""]}),
            Box::new(|_| ()),
        ),
        (
            "no user \"nobody\"",
            json!({"Cmd": ["sh"], "User": "nobody"}),
            Box::new(|_| ()),
        ),
        (
            "neither",
            json!({"Cmd": ["sh"], "User": "4294967296"}),
            Box::new(|_| ()),
        ),
        (
            "into /proc",
            json!({"Cmd": ["sh"], "WorkingDir": "/proc/self/fd/8"}),
            Box::new(|_| ()),
        ),
        (
            "into /proc",
            json!({"Cmd": ["sh"], "WorkingDir": "/evil"}),
            Box::new(|_| ()),
        ),
        (
            "into /proc",
            json!({"Cmd": ["sh"], "WorkingDir": "/dev/fd/7"}),
            Box::new(|_| ()),
        ),
        (
            "volume \"/bin/sh\": it is not a directory",
            json!({"Cmd": ["sh"], "Volumes": {"/bin/sh": {}}}),
            Box::new(|_| ()),
        ),
        (
            "more than 1024 volumes",
            json!({"Cmd": ["sh"], "Volumes": (0..1025)
                .map(|i| (format!("/v{i}"), json!({})))
                .collect::<serde_json::Map<_, _>>()}),
            Box::new(|_| ()),
        ),
        ("NUL byte", json!({"Cmd": ["a\0b"]}), Box::new(|_| ())),
        (
            "longer than",
            json!({"Cmd": ["sh"], "Env": vec!["A=".to_owned() + &"x".repeat(99_999)]}),
            Box::new(|request| request.env = vec!["B=".to_owned() + &"x".repeat(200_000)]),
        ),
        (
            "is not made of",
            json!({"Cmd": ["sh"]}),
            Box::new(|r| r.id = Some("../x".to_owned())),
        ),
        (
            "host name",
            json!({"Cmd": ["sh"]}),
            Box::new(|r| r.hostname = Some("a b".to_owned())),
        ),
        (
            "inside the store",
            json!({"Cmd": ["sh"]}),
            Box::new(|r| r.dir = r.dir.with_file_name("root/snapshots/b")),
        ),
        (
            "not found",
            json!({"Cmd": ["sh"]}),
            Box::new(|r| r.image = ImageName::parse("docker.io/shop/none:1").expect("name")),
        ),
        (
            "no manifest for linux/s390x",
            json!({"Cmd": ["sh"]}),
            Box::new(|r| r.platform = Some("linux/s390x".parse().expect("platform"))),
        ),
        (
            "configuration cannot be read",
            json!({"Cmd": "sh"}),
            Box::new(|_| ()),
        ),
    ];
    let layer = tree(|root| symlink("/proc/self/fd/8", root.join("evil")).expect("link"));
    for (reason, config, change) in cases {
        let store = imported(&layer, &config);
        let failure = create(&store, change).expect_err(reason);
        assert!(failure.to_string().contains(reason), "{failure}");
        assert_no_bundle(&store);
    }
    for name in ["proc", "sys", "dev"] {
        let layer = tree(|root| {
            fs::remove_dir(root.join(name)).expect("remove");
            symlink("/etc", root.join(name)).expect("link");
        });
        let store = imported(&layer, &json!({"Cmd": ["sh"]}));
        let failure = create(&store, |_| ()).expect_err(name);
        assert!(
            failure
                .to_string()
                .contains(&format!("/{name} is not a directory")),
            "{failure}"
        );
        assert_no_bundle(&store);
    }
}

#[test]
fn a_place_that_is_taken_is_left_alone() {
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
    store.node.bundle_remove(&bundle).expect("remove");
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
    assert!(!store.node.bundles(&store.ns).expect("bundles")[0].mounted);
    let failure = create(&store, |request| request.tty = true).expect_err("customised");
    assert!(
        failure.to_string().contains("configuration of its own"),
        "{failure}"
    );
    let made = store
        .node
        .bundle_create(&request(&store, &bundle), &Silent)
        .expect("remount");
    assert!(made.remounted);
    assert_eq!(contained("runc", &bundle), "changed\n");
    run("umount", &[text(&bundle.join("rootfs"))]);
    store
        .node
        .bundle_remove(&bundle)
        .expect("remove an unmounted one");
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
    store.node.bundle_remove(&bundle).expect("remove");
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
    refused(store.node.bundle_remove(&bundle).expect_err("in use"));
    assert!(bundle.join("rootfs/bin/busybox").exists(), "still mounted");
    // Nor when it is not mounted here any more, as the container's copy still is.
    run("umount", &[text(&bundle.join("rootfs"))]);
    refused(store.node.bundle_remove(&bundle).expect_err("in use"));
    refused(create(&store, |_| ()).expect_err("would be mounted twice"));
    let away = store.dir.path().join("away-state");
    fs::rename(&bundle, &away).expect("rename");
    refused(store.node.bundle_remove(&bundle).expect_err("in use"));
    refused(create(&store, |_| ()).expect_err("would take its files away"));
    fs::rename(&away, &bundle).expect("rename");
    run("runc", &["--root", text(&state), "delete", "--force", &id]);
    store.node.bundle_remove(&bundle).expect("remove");
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
    refused(store.node.bundle_remove(&bundle).expect_err("moved"), &root);
    refused(create(&store, |_| ()).expect_err("moved"), &root);
    fs::write(root.join("data/written"), "x").expect("its layer is there");
    fs::rename(&away, &bundle).expect("rename");
    fs::create_dir(&second).expect("directory");
    run(
        "mount",
        &["--bind", text(&bundle.join("rootfs")), text(&second)],
    );
    refused(
        store.node.bundle_remove(&bundle).expect_err("bound"),
        &second,
    );
    fs::write(second.join("data/written"), "x").expect("its layer is there");
    run("umount", &[text(&second)]);
    fs::remove_dir(&second).expect("remove");
    store.node.bundle_remove(&bundle).expect("remove");
    assert_no_bundle(&store);
}

/// As it is in `/tmp`. The name of the hidden directory can be known beforehand.
#[test]
fn where_anybody_makes_names_nobody_gets_in_between() {
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
        store.node.bundle_remove(&mine).expect("remove");
    }
    // One that was made there before the machine was started again, which emptied the directory.
    create(&store, |request| request.dir.clone_from(&mine)).expect("create");
    run("umount", &[text(&mine.join("rootfs"))]);
    theirs(&mine.join(".cairn"));
    fs::write(mine.join("config.json"), "{}").expect("their own");
    let failure = create(&store, |request| request.dir.clone_from(&mine)).expect_err("theirs");
    assert_eq!(failure.kind, ErrorKind::AlreadyExists, "{failure}");
    store.node.bundle_remove(&mine).expect("remove what is ours of it");
    fs::remove_dir_all(&public).expect("remove");
    store.node.bundle_remove(&other).expect("remove");
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
    let removed = store.node.bundle_remove(&bundle);
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
        store.node.bundle_remove(&bundle).expect("remove");
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
    store.node.bundle_remove(&bundle).expect("remove");
    assert_eq!(
        fs::read(bundle.join("precious")).expect("still there"),
        b"x"
    );
    fs::remove_dir_all(&bundle).expect("remove");
    assert_no_bundle(&store);
    let failure = store.node.bundle_remove(&bundle).expect_err("no bundle");
    assert_eq!(failure.kind, ErrorKind::NotFound);
    // Gone with its parent.
    let deep = store.dir.path().join("deep/er");
    let made = store
        .node
        .bundle_create(&request(&store, &deep), &Silent)
        .expect("create");
    run("umount", &[text(&made.dir.join("rootfs"))]);
    fs::remove_dir_all(store.dir.path().join("deep")).expect("remove by hand");
    // A disk that is not mounted looks the same; what the container wrote stays.
    let again = store.node.bundle_create(&request(&store, &deep), &Silent);
    let failure = again.expect_err("its layer is still here");
    assert!(failure.to_string().contains("is gone"), "{failure}");
    fs::remove_dir_all(store.dir.path().join("deep")).expect("remove");
    store.node.bundle_remove(&deep).expect("remove");
    assert_no_bundle(&store);
}
