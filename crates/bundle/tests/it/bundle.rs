//! Bundles: what stands in them, that runc and crun run them, and that umoci makes the same of an
//! image's configuration.

use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::Path,
};

use cairn_bundle::{BundleRequest, Net};
use cairn_types::ImageName;
use serde_json::{Value, json};

use crate::common::bundle::*;
use crate::common::{Store, make, remove, run, text};

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
        remove(&store, &bundle).expect("remove");
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
        remove(&store, &bundle).expect("remove");
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
    let devices = names(Path::new("/sys/class/net"));
    let mut expected = devices.join("\n") + "\n";
    for file in ["/etc/hosts", "/etc/resolv.conf"] {
        expected += &fs::read_to_string(file).expect(file);
    }
    for runtime in ["runc", "crun"] {
        let bundle = create(&store, |request| request.net = Net::Host).expect("create");
        assert_eq!(contained(runtime, &bundle), expected, "{runtime}");
        remove(&store, &bundle).expect("remove");
    }
}

#[test]
fn b06_a_bundle_is_for_its_owner_alone() {
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
    assert!(cairn_bundle::is_mounted(&bundle).expect("mounts"));
    assert_eq!(
        (Path::new(&listed[0].dir), listed[0].image.as_str()),
        (&*bundle, NAME)
    );
    // The same request gives the same bytes.
    let bytes = fs::read(bundle.join("config.json")).expect("config.json");
    remove(&store, &bundle).expect("remove");
    let again = create(&store, |_| ()).expect("create");
    assert_eq!(
        fs::read(again.join("config.json")).expect("config.json"),
        bytes
    );
    remove(&store, &again).expect("remove");
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
    let made = make(&store, &request(&store, &store.dir.path().join("b"))).expect("create");
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
fn b03_a_volume_is_never_mounted_over_the_kernels_files() {
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
        remove(&store, &bundle).expect("remove");
    }
    assert_no_bundle(&store);
}

/// The image has no `/srv`, so the runtime makes it, and the container can move it. The volume that
/// the second start would bind over `/dev` has a `null` of the container's choice.
#[test]
fn b03_a_container_cannot_lead_its_volume_over_the_kernels_files() {
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
        remove(&store, &bundle).expect("remove");
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
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}

/// Expects no bundle of an image with this layer and configuration, for this reason, and nothing of it.
#[track_caller]
fn cannot_be_made(
    layer: &[u8],
    config: &Value,
    reason: &str,
    change: impl FnOnce(&mut BundleRequest),
) {
    let store = imported(layer, config);
    let failure = create(&store, change).expect_err(reason);
    assert!(failure.to_string().contains(reason), "{failure}");
    assert_no_bundle(&store);
}

#[test]
fn what_an_image_cannot_mean_leaves_nothing() {
    let layer = tree(|root| symlink("/proc/self/fd/8", root.join("evil")).expect("link"));
    let volumes: serde_json::Map<_, _> = (0..1025).map(|i| (format!("/v{i}"), json!({}))).collect();
    for (reason, config) in [
        ("names no program", json!({})),
        ("names no program", json!({"Entrypoint": [""]})),
        (
            "no user \"nobody\"",
            json!({"Cmd": ["sh"], "User": "nobody"}),
        ),
        ("neither", json!({"Cmd": ["sh"], "User": "4294967296"})),
        (
            "into /proc",
            json!({"Cmd": ["sh"], "WorkingDir": "/proc/self/fd/8"}),
        ),
        ("into /proc", json!({"Cmd": ["sh"], "WorkingDir": "/evil"})),
        (
            "into /proc",
            json!({"Cmd": ["sh"], "WorkingDir": "/dev/fd/7"}),
        ),
        (
            "volume \"/bin/sh\": it is not a directory",
            json!({"Cmd": ["sh"], "Volumes": {"/bin/sh": {}}}),
        ),
        (
            "more than 1024 volumes",
            json!({"Cmd": ["sh"], "Volumes": volumes}),
        ),
        ("NUL byte", json!({"Cmd": ["a\0b"]})),
        ("configuration cannot be read", json!({"Cmd": "sh"})),
    ] {
        cannot_be_made(&layer, &config, reason, |_| ());
    }
    for name in ["proc", "sys", "dev"] {
        let layer = tree(|root| {
            fs::remove_dir(root.join(name)).expect("remove");
            symlink("/etc", root.join(name)).expect("link");
        });
        let reason = format!("/{name} is not a directory");
        cannot_be_made(&layer, &json!({"Cmd": ["sh"]}), &reason, |_| ());
    }
}

#[test]
fn what_cannot_be_asked_for_leaves_nothing() {
    let layer = tree(|_| ());
    let environment = vec!["A=".to_owned() + &"x".repeat(99_999)];
    let config = json!({"Cmd": ["sh"], "Env": environment});
    cannot_be_made(&layer, &config, "longer than", |request| {
        request.env = vec!["B=".to_owned() + &"x".repeat(200_000)];
    });
    type Change = fn(&mut BundleRequest);
    let cases: [(&str, Change); 5] = [
        ("is not made of", |r| r.id = Some("../x".to_owned())),
        ("host name", |r| r.hostname = Some("a b".to_owned())),
        ("inside the store", |r| {
            r.dir = r.dir.with_file_name("root/snapshots/b");
        }),
        ("not found", |r| {
            r.image = ImageName::parse("docker.io/shop/none:1").expect("name");
        }),
        ("no manifest for linux/s390x", |r| {
            r.platform = Some("linux/s390x".parse().expect("platform"));
        }),
    ];
    for (reason, change) in cases {
        cannot_be_made(&layer, &json!({"Cmd": ["sh"]}), reason, change);
    }
}
