//! Containers with users of their own: whose the files are inside, and whose on the host.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::Path,
};

use cairn_bundle::{BundleRequest, Net};
use cairn_types::{ErrorKind, IdMap, IdRanges};
use serde_json::{Value, json};

use crate::common::bundle::*;
use crate::common::{Store, make, remove, run, text};

fn ranges(text: &str) -> IdRanges {
    IdRanges::new(vec![text.parse().expect(text)]).expect("ranges")
}

/// Users and groups that cannot be taken for one another.
fn map() -> IdMap {
    IdMap {
        users: ranges("0:100000:65536"),
        groups: ranges("0:200000:65536"),
    }
}

/// A store whose bundles other users may go to: every container's root is one.
fn reachable(layer: &[u8], config: &Value) -> Store {
    let store = imported(layer, config);
    let open = fs::Permissions::from_mode(0o711);
    fs::set_permissions(store.dir.path(), open).expect("chmod");
    store
}

fn owner(path: &Path) -> (u32, u32) {
    let stat = fs::symlink_metadata(path).expect("exists");
    (stat.uid(), stat.gid())
}

fn files(root: &Path) {
    for applet in ["grep", "tr", "mkdir"] {
        symlink("busybox", root.join("bin").join(applet)).expect("link");
    }
    fs::write(root.join("etc/far"), "").expect("file");
    chown(root.join("etc/far"), Some(70_000), Some(70_001)).expect("chown");
}

const SCRIPT: &str = "id -u; id -g; tr -s ' ' < /proc/self/uid_map; tr -s ' ' < /proc/self/gid_map; \
    stat -c '%n %u:%g' / /bin/sh /etc/far /data /data/seed /v; \
    touch /etc/own /data/own /v/own && mkdir /bin/own; stat -c '%n %u:%g' /etc/own /v/own /bin/own";

const PRINTED: &str = "0\n0\n 0 100000 65536\n 0 200000 65536\n\
    / 0:0\n/bin/sh 0:0\n/etc/far 65534:65534\n/data 0:0\n/data/seed 7:8\n/v 0:0\n\
    /etc/own 0:0\n/v/own 0:0\n/bin/own 0:0\n";

#[test]
fn both_runtimes_give_a_container_users_of_its_own() {
    let store = reachable(
        &tree(files),
        &json!({"Cmd": ["/bin/sh", "-c", SCRIPT], "Volumes": {"/data": {}, "/v": {}}}),
    );
    for (runtime, copy) in [
        ("runc", false),
        ("crun", false),
        ("runc", true),
        ("crun", true),
    ] {
        let mut request = request(&store, &store.dir.path().join("b"));
        request.owners = Some(map());
        request.copy = copy;
        let made = make(&store, &request).expect("create");
        assert_eq!((made.copied, &made.closed), (copy, &None));
        let root = made.dir.join("rootfs");
        assert_eq!(contained(runtime, &made.dir), PRINTED, "{runtime} {copy}");
        // On the host they are who the map says.
        for (name, expected) in [
            ("", (100_000, 200_000)),
            ("bin/sh", (100_000, 200_000)),
            ("etc/own", (100_000, 200_000)),
            ("etc/far", (65_534, 65_534)),
            ("data/seed", (100_007, 200_008)),
        ] {
            assert_eq!(owner(&root.join(name)), expected, "{name} {copy}");
        }
        assert_eq!(owner(&made.dir.join("volumes/0/own")), (100_000, 200_000));
        // The layer in the store is nobody else's than before.
        assert_layers_are_roots(&store);
        remove(&store, &made.dir).expect("remove");
        assert_no_bundle(&store);
    }
}

#[track_caller]
fn assert_layers_are_roots(store: &Store) {
    let snapshots = store.dir.path().join("root/snapshots");
    let found = run("find", &[text(&snapshots), "-name", "passwd", "-uid", "0"]);
    assert_eq!(found.lines().count(), 1, "{found}");
}

/// Not the host's root: other modes of its directories would be of no use.
#[test]
fn only_the_containers_root_goes_through_the_bundle() {
    let store = reachable(
        &tree(files),
        &json!({"Cmd": ["sh"], "Volumes": {"/data": {}}}),
    );
    let bundle = create(&store, |request| request.owners = Some(map())).expect("create");
    for dir in [bundle.clone(), bundle.join("volumes")] {
        assert_eq!(owner(&dir), (0, 200_000));
        let mode = fs::metadata(&dir).expect("exists").mode() & 0o7777;
        assert_eq!(mode, 0o710, "{}", dir.display());
    }
    remove(&store, &bundle).expect("remove");
    let closed = fs::Permissions::from_mode(0o700);
    fs::set_permissions(store.dir.path(), closed).expect("chmod");
    let mut request = request(&store, &store.dir.path().join("b"));
    request.owners = Some(map());
    let made = make(&store, &request).expect("create");
    assert_eq!(made.closed.as_deref(), Some(store.dir.path()));
    remove(&store, &made.dir).expect("remove");
    assert_no_bundle(&store);
}

#[test]
fn mounted_again_it_is_the_same_users() {
    let store = reachable(
        &tree(files),
        &json!({"Cmd": ["stat", "-c", "%u:%g", "/etc/own"]}),
    );
    let bundle = create(&store, |request| request.owners = Some(map())).expect("create");
    let file = bundle.join("rootfs/etc/own");
    fs::write(&file, "x").expect("write");
    chown(&file, Some(100_005), Some(200_006)).expect("chown");
    run("umount", &[text(&bundle.join("rootfs"))]);
    let made = make(&store, &request(&store, &bundle)).expect("mount again");
    assert!(made.remounted);
    assert_eq!(owner(&bundle.join("rootfs/data/seed")), (100_007, 200_008));
    for runtime in ["runc", "crun"] {
        assert_eq!(contained(runtime, &bundle), "5:6\n", "{runtime}");
    }
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}

/// A file's capabilities hold in the namespace whose root they name, so they have to name that of the
/// container.
#[test]
fn capabilities_of_files_hold_inside() {
    let layer = tree(|root| {
        let tool = root.join("data/grep");
        fs::copy("/bin/busybox", &tool).expect("busybox");
        let net_raw = "0x0100000200200000000000000000000000000000";
        run(
            "setfattr",
            &["-n", "security.capability", "-v", net_raw, text(&tool)],
        );
    });
    let config = json!({"Cmd": ["/data/grep", "CapEff", "/proc/self/status"], "User": "app"});
    let store = reachable(&layer, &config);
    for copy in [false, true] {
        let bundle = create(&store, |request| {
            request.owners = Some(map());
            request.copy = copy;
            request.config = Some(json!({"process": {"noNewPrivileges": false}}));
        })
        .expect("create");
        let printed = contained("runc", &bundle);
        assert_eq!(printed, "CapEff:\t0000000000002000\n", "{copy}");
        remove(&store, &bundle).expect("remove");
    }
    assert_no_bundle(&store);
}

#[test]
fn the_hosts_network_goes_with_users_of_ones_own() {
    let store = reachable(&tree(files), &json!({"Cmd": ["ls", "/sys/class/net"]}));
    let bundle = create(&store, |request| {
        request.owners = Some(map());
        request.net = Net::Host;
    })
    .expect("create");
    for runtime in ["runc", "crun"] {
        let printed = contained(runtime, &bundle);
        assert!(printed.lines().any(|line| line == "lo"), "{runtime}");
    }
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}

type Change = Box<dyn FnOnce(&mut BundleRequest)>;

#[test]
fn who_is_nobody_is_no_process() {
    let store = reachable(&tree(files), &json!({"Cmd": ["id", "-u"]}));
    let cases: [(&str, Change); 3] = [
        (
            "its user 70000 has no number",
            Box::new(|r| r.user = Some("70000".to_owned())),
        ),
        (
            "its group 70000 has no number",
            Box::new(|r| r.user = Some("0:70000".to_owned())),
        ),
        (
            "its group 50 has no number",
            Box::new(|r| {
                r.user = Some("app".to_owned());
                r.owners = Some(IdMap {
                    groups: IdRanges::new(vec![
                        "0:200000:1".parse().expect("range"),
                        "1001:201001:1".parse().expect("range"),
                    ])
                    .expect("ranges"),
                    ..map()
                });
            }),
        ),
    ];
    for (reason, change) in cases {
        let failure = create(&store, |request| {
            request.owners = Some(map());
            change(request);
        })
        .expect_err(reason);
        assert_eq!(failure.kind, ErrorKind::InvalidArgument);
        assert!(failure.to_string().contains(reason), "{failure}");
        assert_no_bundle(&store);
    }
    // A container without the group of terminals has terminals all the same.
    let few = IdMap {
        users: ranges("0:100000:1"),
        groups: ranges("0:200000:1"),
    };
    let bundle = create(&store, |request| request.owners = Some(few)).expect("create");
    assert_eq!(contained("runc", &bundle), "0\n");
    remove(&store, &bundle).expect("remove");
    assert_no_bundle(&store);
}
