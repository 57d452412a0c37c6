//! Unpacked layers held against their blobs: whatever is changed in a tree is found at its place, nothing
//! else is, and the layer puts it right.

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use cairn_node::{Finding, MountOrder, Severity, Silent, Source};
use cairn_sys::Dir;
use cairn_types::{Digest, ImageName};

use super::fsck::check;
use crate::common::*;

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What GNU tar makes of these names of a tree that a shell makes.
fn layer(names: &str, script: &str) -> (&'static str, Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).expect("directory");
    let out = dir.path().join("out.tar");
    let script = format!("set -e; umask 022; cd '{}'; {script}", text(&tree));
    run("sh", &["-c", &script]);
    let conf = tree.join("etc/conf");
    if conf.exists() {
        set(&conf, "user.team", Some(b"web"));
    }
    let pack = format!(
        "cd '{}' && tar --xattrs --format=posix --numeric-owner --sort=name --mtime=@1000000000 \
         -S -cf '{}' {names}",
        text(&tree),
        text(&out)
    );
    run("sh", &["-c", &pack]);
    let plain = fs::read(out).expect("tar");
    (GZIP, crate::common::pack("gzip", &plain), plain)
}

/// An image with one of everything, and a layer on it that changes, deletes and hides.
pub(crate) fn rich() -> Layout {
    let lower = layer(
        "bin dev etc var",
        "mkdir bin dev etc var var/old; echo hello > bin/hello; chmod 4755 bin/hello; \
         ln -s hello bin/link; ln bin/hello bin/hard; echo a=1 > etc/conf; chmod 640 etc/conf; \
         chown 1000:1001 etc/conf; mkfifo dev/pipe; mknod dev/null c 1 3; chmod 700 etc; \
         chown 5:6 etc; echo gone > bin/gone; echo old > var/old/file; \
         truncate -s 3M var/holes; echo end >> var/holes",
    );
    // Of its directories it says nothing: they are those below.
    let upper = layer(
        "etc/motd bin/.wh.gone var/.wh..wh..opq var/new",
        "mkdir bin etc var; echo welcome > etc/motd; : > bin/.wh.gone; : > var/.wh..wh..opq; \
         echo new > var/new",
    );
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &[lower, upper]);
    layout.name(manifest, "shop/rich:1");
    layout.finish();
    layout
}

fn set(path: &Path, key: &str, value: Option<&[u8]>) {
    let dir = Dir::open(path.parent().expect("parent")).expect("directory");
    let (name, key) = (path.file_name().expect("name"), OsStr::new(key));
    match value {
        Some(value) => dir.set_xattr(name, key, value).expect("set"),
        None => {
            let key = key.to_str().expect("text");
            let script = format!("import os; os.removexattr({:?}, {key:?})", text(path));
            run("python3", &["-c", &script]);
        }
    }
}

/// The trees of the image's layers, lowest first.
pub(crate) fn trees(store: &Store) -> [PathBuf; 2] {
    let all = store.node.snapshots().list(&store.ns).expect("snapshots");
    let tree = |id: u64| store.node.root().join(format!("snapshots/{id}/fs"));
    let lower = all.iter().find(|one| one.parent.is_none()).expect("lower");
    let upper = all.iter().find(|one| one.parent.is_some()).expect("upper");
    [tree(lower.id), tree(upper.id)]
}

/// Changes something and leaves its time and its directory's as they were.
fn quietly(path: &Path, change: impl FnOnce(&Path)) {
    let times = |path: &Path| {
        let at = path.symlink_metadata().and_then(|meta| meta.modified());
        at.ok()
    };
    let parent = path.parent().expect("parent").to_owned();
    let (own, above) = (times(path), times(&parent));
    change(path);
    for (path, at) in [(path, own), (&parent, above)] {
        let is_link = path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        if let Some(at) = at.filter(|_| path.symlink_metadata().is_ok()) {
            let seconds = at.duration_since(SystemTime::UNIX_EPOCH).expect("time");
            let at = format!("@{}.{:09}", seconds.as_secs(), seconds.subsec_nanos());
            let links = if is_link { "-h" } else { "-c" };
            run("touch", &[links, "-d", &at, text(path)]);
        }
    }
}

fn places(findings: &[Finding]) -> Vec<(&'static str, &str)> {
    let mut all: Vec<_> = findings
        .iter()
        .map(|one| (one.kind, one.path.as_deref().unwrap_or_default()))
        .collect();
    all.sort_unstable();
    all
}

type Change = fn(&[PathBuf; 2]);

/// Each change, and what is to be found of it.
const CHANGES: &[(Change, &[(&str, &str)])] = &[
    (
        |[lower, _]| {
            quietly(&lower.join("bin/hello"), |path| {
                fs::write(path, "HELLO\n").expect("write")
            })
        },
        &[("tree-content", "/bin/hard")],
    ),
    (
        |[lower, _]| {
            quietly(&lower.join("etc/conf"), |path| {
                fs::write(path, "").expect("write")
            })
        },
        &[("tree-content", "/etc/conf")],
    ),
    (
        |[lower, _]| {
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(lower.join("etc/conf"), mode).expect("mode");
        },
        &[("tree-mode", "/etc/conf")],
    ),
    (
        |[_, upper]| {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(upper.join("etc"), mode).expect("mode");
        },
        &[("tree-mode", "/etc")],
    ),
    (
        |[lower, _]| chown(lower.join("dev/pipe"), Some(7), Some(8)).expect("chown"),
        &[("tree-owner", "/dev/pipe")],
    ),
    (
        |[lower, _]| set(&lower.join("etc/conf"), "user.team", Some(b"ops")),
        &[("tree-attribute", "/etc/conf")],
    ),
    (
        |[lower, _]| set(&lower.join("etc/conf"), "user.team", None),
        &[("tree-attribute", "/etc/conf")],
    ),
    (
        |[lower, _]| set(&lower.join("bin"), "trusted.overlay.opaque", Some(b"y")),
        &[("tree-attribute", "/bin")],
    ),
    (
        |[_, upper]| {
            let file = fs::File::open(upper.join("etc/motd")).expect("open");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("time");
        },
        &[("tree-time", "/etc/motd")],
    ),
    (
        |[_, upper]| {
            quietly(&upper.join("etc/motd"), |path| {
                fs::remove_file(path).expect("remove")
            })
        },
        &[("tree-missing", "/etc/motd")],
    ),
    (
        |[_, upper]| {
            quietly(&upper.join("bin/gone"), |path| {
                fs::remove_file(path).expect("remove")
            })
        },
        &[("tree-missing", "/bin/gone")],
    ),
    (
        |[lower, _]| {
            quietly(&lower.join("bin/new"), |path| {
                fs::write(path, "x").expect("write")
            })
        },
        &[("tree-extra", "/bin/new")],
    ),
    (
        |[lower, _]| {
            quietly(&lower.join("bin/link"), |path| {
                fs::remove_file(path).expect("remove");
                symlink("HELLO", path).expect("link");
            });
        },
        &[("tree-link", "/bin/link")],
    ),
    (
        |[lower, _]| {
            quietly(&lower.join("bin/hard"), |path| {
                fs::remove_file(path).expect("remove");
                fs::copy(path.with_file_name("hello"), path).expect("copy");
            });
        },
        &[("tree-link", "/bin/hello")],
    ),
    (
        |[lower, _]| {
            quietly(&lower.join("etc/conf"), |path| {
                fs::remove_file(path).expect("remove");
                fs::create_dir(path).expect("directory");
            });
        },
        &[("tree-kind", "/etc/conf")],
    ),
    (
        |[lower, _]| {
            quietly(&lower.join("dev/null"), |path| {
                fs::remove_file(path).expect("remove");
                run("mknod", &["-m", "644", text(path), "c", "1", "5"]);
            });
        },
        &[("tree-device", "/dev/null")],
    ),
];

#[test]
fn what_is_changed_in_a_tree_is_found_at_its_place_and_put_right() {
    let layout = rich();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let (findings, report) = check(&store, true, false);
    assert_eq!((findings, report.trees), (vec![], 2));
    for (number, (change, expected)) in CHANGES.iter().enumerate() {
        change(&trees(&store));
        let (findings, _) = check(&store, true, false);
        assert_eq!(
            places(&findings),
            *expected,
            "change {number}: {findings:?}"
        );
        for finding in &findings {
            assert_eq!(finding.severity, Severity::Damage);
            assert_eq!(finding.meaning, "needed by docker.io/shop/rich:1");
        }
        // Nobody looks at bytes that were not asked for.
        assert_eq!(check(&store, false, false).0, []);
        let (findings, _) = check(&store, true, true);
        assert!(
            findings.iter().all(|one| one.repaired),
            "change {number}: {findings:?}"
        );
        assert_eq!(check(&store, true, false).0, [], "change {number}");
    }
}

#[test]
fn a_missing_directory_is_made_again_from_its_layer() {
    let layout = rich();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    for tree in trees(&store) {
        fs::remove_dir_all(tree.parent().expect("directory")).expect("remove");
        let (findings, _) = check(&store, false, true);
        let [finding] = findings.as_slice() else {
            panic!("{findings:?}")
        };
        assert_eq!((finding.kind, finding.repaired), ("snapshot-missing", true));
        assert_eq!(check(&store, true, false).0, []);
    }
}

#[test]
fn a_tree_whose_layer_is_not_here_is_unproven_and_no_more() {
    let layout = rich();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let [lower, _] = trees(&store);
    fs::write(lower.join("bin/hello"), "HELLO\n").expect("write");
    for info in store.node.content().list(&store.ns).expect("blobs") {
        let text = info.digest.to_string();
        if info.labels.contains_key("containerd.io/uncompressed") {
            let digest = Digest::parse(&text).expect("digest");
            store.node.remove_blob(&store.ns, &digest).expect("remove");
        }
    }
    let (findings, _) = check(&store, true, true);
    let seen: Vec<_> = findings
        .iter()
        .map(|one| (one.severity, one.kind))
        .collect();
    assert_eq!(
        seen,
        [(Severity::Note, "snapshot-unproven"); 2],
        "{findings:?}"
    );
}

fn mounted(store: &Store, name: &str, target: &Path) {
    fs::create_dir_all(target).expect("mount point");
    let order = MountOrder {
        ns: store.ns.clone(),
        name: ImageName::parse(name).expect("name"),
        target: host_dir(target),
        rw: true,
        expires: None,
        platform: None,
    };
    let prepared = store.node.prepare_mount(&order, &Silent).expect("prepare");
    cairn_sys::mount::perform(&prepared.mounts, target).expect("mount");
}

#[test]
fn a_tree_in_use_is_not_touched() {
    let layout = rich();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let [lower, _] = trees(&store);
    let target = store.dir.path().join("mnt");
    mounted(&store, "docker.io/shop/rich:1", &target);
    quietly(&lower.join("bin/new"), |path| {
        fs::write(path, "x").expect("write")
    });
    let (findings, _) = check(&store, true, true);
    let [finding] = findings.as_slice() else {
        panic!("{findings:?}")
    };
    assert!(!finding.repaired);
    let refused = format!("it is in use, mounted at {}", text(&target));
    assert!(finding.action.starts_with(&refused), "{}", finding.action);
    assert!(lower.join("bin/new").exists());
    // As long as it may be mounted again, it may be where nobody sees it.
    cairn_sys::mount::unmount_own(&target).expect("unmount");
    let released = store
        .node
        .release_mount(&store.ns, &host_dir(&target), true);
    released.expect("release");
    let (findings, _) = check(&store, true, true);
    assert!(findings.iter().all(|one| one.repaired), "{findings:?}");
    assert_eq!(check(&store, true, false).0, []);
}

/// Any image may call another's layer what it likes.
#[test]
fn what_a_manifest_says_of_a_layer_proves_nothing() {
    let layers = two_layers();
    let image = |kind: Option<&'static str>, name: &str| {
        let called = layers.iter().map(|(own, bytes, plain)| {
            let kind = kind.unwrap_or(own);
            (kind, bytes.clone(), plain.clone())
        });
        let mut layout = Layout::new();
        let manifest = layout.manifest(&host(), &called.collect::<Vec<_>>());
        layout.name(manifest, name);
        layout.finish();
        layout
    };
    let store = Store::new();
    store
        .import(image(None, "shop/web:1").path())
        .expect("import");
    for name in ["shop/a:1", "shop/z:1"] {
        let liar = image(Some(OCI_LAYER), name);
        let path = liar.path().to_owned();
        let imported = store.import_with(Source::Path(path), |request| request.unpack = false);
        imported.expect("import");
    }
    let (findings, report) = check(&store, true, false);
    assert_eq!((findings, report.trees), (vec![], 2));
}

/// Imports, removals, collections, uploads and a container that writes, all the time.
#[test]
fn a_store_in_use_gives_no_false_alarm() {
    let (rich, simple) = (rich(), simple());
    let store = Store::new();
    store.import(rich.path()).expect("import");
    let target = store.dir.path().join("mnt");
    mounted(&store, "docker.io/shop/rich:1", &target);
    let stop = AtomicBool::new(false);
    let going = || !stop.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| store.turn_over(simple.path(), going));
        scope.spawn(|| {
            for number in 0_u64.. {
                if !going() {
                    break;
                }
                let file = target.join("etc").join(format!("{}", number % 7));
                fs::write(&file, number.to_string()).expect("write");
                let file = target.join("bin/hello");
                let changed = fs::remove_file(&file).or_else(|_| fs::write(&file, "x"));
                changed.expect("change");
                thread::sleep(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            for number in 0_u64.. {
                if !going() {
                    break;
                }
                let bytes = number.to_string().repeat(5000);
                let put =
                    store
                        .node
                        .content()
                        .put(&store.ns, bytes.as_bytes(), None, Default::default());
                let digest = put.expect("put");
                // A collection may have been quicker.
                let _ = store.node.remove_blob(&store.ns, &digest);
            }
        });
        let mut checks = Vec::new();
        for number in 0..8 {
            let (findings, _) = check(&store, number % 2 == 0, false);
            checks.extend(
                findings
                    .into_iter()
                    .filter(|one| one.severity != Severity::Note),
            );
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(checks, []);
    });
    store.unmount(&target);
}
