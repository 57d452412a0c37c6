//! Snapshots over real records, real directories and real overlay mounts.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
};

use cairn_snapshot::{Options, Recovered, UPPERDIR};
use cairn_sys::{Dir, FileType};
use cairn_types::{ErrorKind, Labels, SnapshotKind, Usage};

use crate::common::{Fixture, Mounted, key, ns, option, read, refused};

#[test]
fn layers_show_through_until_a_whiteout_hides_them() {
    let store = Fixture::new();
    store.layer("base", None, |root| {
        fs::write(root.join("kept"), "1").expect("write");
        fs::write(root.join("gone"), "1").expect("write");
        fs::write(root.join("changed"), "1").expect("write");
        fs::create_dir_all(root.join("dir/sub")).expect("mkdir");
        fs::write(root.join("dir/sub/file"), "1").expect("write");
    });
    store.layer("top", Some("base"), |root| {
        fs::remove_file(root.join("gone")).expect("remove");
        fs::write(root.join("changed"), "2").expect("write");
        fs::remove_dir_all(root.join("dir/sub")).expect("remove");
    });
    let mounted = Mounted::new(&store.prepare("container", Some("top")));
    let path = |name: &str| mounted.path().join(name);
    assert_eq!(read(path("kept")), "1");
    assert_eq!(read(path("changed")), "2");
    assert!(!path("gone").exists());
    assert!(path("dir").exists() && !path("dir/sub").exists());
    fs::write(path("kept"), "3").expect("the container may write");
    drop(mounted);
    // What is below a container never changes.
    let mounted = Mounted::new(&store.view("look", Some("top")));
    assert_eq!(read(mounted.path().join("kept")), "1");
}

/// The marks as an unpacker writes them, not as overlay does: char device 0:0 and the opaque xattr.
#[test]
fn marks_written_into_a_staged_layer_hide_what_is_below() {
    let store = Fixture::new();
    let below = store.staged("below", None);
    let dir = below.staged.dir().path();
    fs::create_dir(dir.join("opaque")).expect("mkdir");
    fs::write(dir.join("opaque/hidden"), "").expect("write");
    fs::write(dir.join("whited"), "").expect("write");
    let above = store.staged("above", Some("below"));
    let dir = above.staged.dir();
    let mark = |name: &str| dir.mknod(name.as_ref(), FileType::CharacterDevice, 0, 0);
    mark("whited").expect("whiteout");
    dir.create_dir("opaque".as_ref(), 0o755).expect("mkdir");
    dir.set_xattr("opaque".as_ref(), "trusted.overlay.opaque".as_ref(), b"y")
        .expect("xattr");
    store
        .snapshots
        .commit_stack(&ns(), vec![below, above])
        .expect("commit");
    let mounted = Mounted::new(&store.view("look", Some("above")));
    assert!(mounted.path().join("below").exists());
    assert!(!mounted.path().join("whited").exists());
    let inside = fs::read_dir(mounted.path().join("opaque")).expect("list");
    assert_eq!(inside.count(), 0);
}

/// containerd's suite, 128LayersMount; `mount(2)` cuts the options of such a stack silently.
#[test]
fn a_stack_of_128_layers_is_mounted_whole() {
    let store = Fixture::new();
    let mut layers = Vec::new();
    let mut parent: Option<String> = None;
    for number in 0..128 {
        let name = format!("layer-{number}");
        let layer = store.staged(&name, parent.as_deref());
        fs::write(layer.staged.dir().path().join("top"), &name).expect("write");
        layers.push(layer);
        parent = Some(name);
    }
    store.snapshots.commit_stack(&ns(), layers).expect("commit");
    let lowers = store.snapshots.lowers(&ns(), &key("layer-127"));
    let lowers = lowers.expect("lowers");
    assert_eq!(lowers.len(), 128);
    assert!(lowers[0].path().join("layer-127").exists());
    assert!(lowers[127].path().join("layer-0").exists());
    for mounts in [
        store.prepare("container", Some("layer-127")),
        store.view("look", Some("layer-127")),
    ] {
        let mounted = Mounted::new(&mounts);
        assert_eq!(read(mounted.path().join("top")), "layer-127");
        for number in 0..128 {
            let name = format!("layer-{number}");
            assert_eq!(read(mounted.path().join(&name)), name);
        }
    }
}

#[test]
fn a_stack_that_the_kernel_cannot_mount_is_refused_by_name() {
    let store = Fixture::new();
    let mut layers = Vec::new();
    for number in 0..501 {
        let parent = (number > 0).then(|| format!("l{}", number - 1));
        layers.push(store.staged(&format!("l{number}"), parent.as_deref()));
    }
    store.snapshots.commit_stack(&ns(), layers).expect("commit");
    let mounted = Mounted::new(&store.prepare("fits", Some("l499")));
    assert!(mounted.path().join("l0").exists());
    let refusal = store
        .snapshots
        .prepare(&ns(), &key("deep"), Some(&key("l500")), Labels::new());
    let err = refused(refusal, ErrorKind::FailedPrecondition).to_string();
    assert!(err.contains("deep") && err.contains("500"), "{err}");
}

#[test]
fn views_are_read_only() {
    let store = Fixture::new();
    store.layer("one", None, |root| {
        fs::write(root.join("f"), "").expect("write")
    });
    store.layer("two", Some("one"), |root| {
        fs::write(root.join("g"), "").expect("write")
    });
    for (name, parent) in [("a", None), ("b", Some("one")), ("c", Some("two"))] {
        let mounted = Mounted::new(&store.view(name, parent));
        let err = fs::write(mounted.path().join("new"), "").expect_err(name);
        assert_eq!(err.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{name}");
    }
}

#[test]
fn k04_mounts_can_be_asked_for_again() {
    let store = Fixture::new();
    let base = store.prepare("base", None);
    let mounts = |name: &str| store.snapshots.mounts(&ns(), &key(name));
    assert_eq!(mounts("base").expect("mounts"), base);
    store.commit("c", "base");
    let upper = store.prepare("upper", Some("c"));
    assert_eq!(mounts("upper").expect("mounts"), upper);
    let look = store.view("look", Some("c"));
    assert_eq!(mounts("look").expect("mounts"), look);
    refused(mounts("c"), ErrorKind::FailedPrecondition);
    refused(mounts("nothing"), ErrorKind::NotFound);
}

#[test]
fn only_roots_own_eyes_reach_a_layer() {
    let store = Fixture::new();
    store.layer("base", None, |root| {
        std::os::unix::fs::chown(root, Some(7), Some(8)).expect("chown");
    });
    let mounts = store.prepare("a", Some("base"));
    let upper = PathBuf::from(option(&mounts, "upperdir=").expect("upper"));
    let work = PathBuf::from(option(&mounts, "workdir=").expect("work"));
    let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o7777;
    assert_eq!(mode(&upper), 0o755);
    assert_eq!(mode(&work), 0o711);
    assert_eq!(mode(upper.parent().expect("id dir")), 0o700);
    // The root of a container belongs to whom it belongs in its image.
    let stat = fs::metadata(&upper).expect("stat");
    assert_eq!((stat.uid(), stat.gid()), (7, 8));
}

/// What a directory above hands down is taken away again, as what an umask takes would be given back.
#[test]
fn directories_have_their_modes_wherever_they_are() {
    let store = Fixture::new();
    let above = fs::Permissions::from_mode(0o2700);
    fs::set_permissions(store.root.path().join("snapshots"), above).expect("chmod");
    let mounts = store.prepare("a", None);
    let staged = store.snapshots.stage().expect("stage");
    let mode = |path: &Path| fs::metadata(path).expect("stat").permissions().mode() & 0o7777;
    // An active snapshot on nothing is bound to its tree.
    let tree = PathBuf::from(&mounts[0].source);
    assert_eq!(mode(&tree), 0o755);
    assert_eq!(mode(&tree.with_file_name("work")), 0o711);
    assert_eq!(mode(&staged.dir().path()), 0o755);
}

#[test]
fn refusals_have_containerds_classes() {
    let store = Fixture::new();
    let none = Labels::new;
    store.prepare("active", None);
    store.view("look", None);
    store.layer("base", None, |_| {});
    store.layer("child", Some("base"), |_| {});
    let prepare = |name: &str, parent: Option<&str>| {
        let parent = parent.map(key);
        store
            .snapshots
            .prepare(&ns(), &key(name), parent.as_ref(), none())
    };
    refused(prepare("active", None), ErrorKind::AlreadyExists);
    refused(prepare("base", None), ErrorKind::AlreadyExists);
    refused(prepare("x", Some("nothing")), ErrorKind::NotFound);
    refused(prepare("x", Some("active")), ErrorKind::InvalidArgument);
    refused(prepare("x", Some("look")), ErrorKind::InvalidArgument);
    let long = [("k".to_owned(), "v".repeat(4096))].into_iter().collect();
    let labelled = store.snapshots.prepare(&ns(), &key("x"), None, long);
    refused(labelled, ErrorKind::InvalidArgument);
    let commit = |name: &str, from: &str| {
        store
            .snapshots
            .commit(&ns(), &key(name), &key(from), none())
    };
    refused(commit("base", "active"), ErrorKind::AlreadyExists);
    refused(commit("x", "nothing"), ErrorKind::NotFound);
    refused(commit("x", "look"), ErrorKind::FailedPrecondition);
    refused(commit("x", "base"), ErrorKind::FailedPrecondition);
    let err = refused(store.remove("base"), ErrorKind::FailedPrecondition).to_string();
    assert!(err.contains("cannot remove snapshot with child"), "{err}");
    assert!(err.ends_with("child"), "{err}");
    refused(store.remove("nothing"), ErrorKind::NotFound);
    refused(
        store.snapshots.usage(&ns(), &key("nothing")),
        ErrorKind::NotFound,
    );
    assert_eq!(store.directories(), 4, "refused ones leave nothing");
}

#[test]
fn snapshots_go_from_the_top_down() {
    let store = Fixture::new();
    store.layer("a", None, |_| {});
    store.layer("b", Some("a"), |_| {});
    store.prepare("c", Some("b"));
    for name in ["c", "b", "a"] {
        store.remove(name).expect("remove");
        assert_eq!(store.kind(name), None);
    }
    assert_eq!(store.directories(), 0);
}

#[test]
fn a_commit_renames_relabels_and_frees_the_key() {
    let store = Fixture::new();
    store.layer("base", None, |_| {});
    let old = [("old".to_owned(), "1".to_owned())].into_iter().collect();
    let made = store
        .snapshots
        .prepare(&ns(), &key("k"), Some(&key("base")), old);
    made.expect("prepare");
    let before = store.snapshots.stat(&ns(), &key("k")).expect("stat");
    assert_eq!(before.created_at, before.updated_at);
    let new: Labels = [("new".to_owned(), "2".to_owned())].into_iter().collect();
    let committed = store
        .snapshots
        .commit(&ns(), &key("n"), &key("k"), new.clone());
    committed.expect("commit");
    assert_eq!(store.kind("k"), None);
    let info = store.snapshots.stat(&ns(), &key("n")).expect("stat");
    assert_eq!(info.kind, SnapshotKind::Committed);
    assert_eq!(info.parent, Some(key("base")));
    assert_eq!(info.labels, new);
    assert_eq!(info.created_at, info.updated_at);
    assert!(info.created_at > before.created_at);
    assert!(info.durable);
    // The parent's child is now known by its new name.
    let err = refused(store.remove("base"), ErrorKind::FailedPrecondition).to_string();
    assert!(err.ends_with("of n"), "{err}");
    store.prepare("k", Some("n"));
    let listed = store.snapshots.list(&ns()).expect("list");
    assert_eq!(listed.len(), 3);
    assert!(listed.contains(&info));
}

/// Against `du`, which counts as the contract does: blocks, once for each inode.
#[test]
fn usage_is_of_the_own_layer_only() {
    let store = Fixture::new();
    store.layer("base", None, |root| {
        fs::write(root.join("big"), vec![1; 1 << 20]).expect("write");
    });
    let mounts = store.prepare("a", Some("base"));
    let usage = |name: &str| store.snapshots.usage(&ns(), &key(name)).expect("usage");
    let empty = usage("a");
    assert_eq!(empty.inodes, 1);
    assert!(empty.bytes < 1 << 16);
    let mounted = Mounted::new(&mounts);
    fs::write(mounted.path().join("f"), vec![1; 100_000]).expect("write");
    fs::hard_link(mounted.path().join("f"), mounted.path().join("g")).expect("link");
    std::os::unix::fs::symlink("f", mounted.path().join("l")).expect("symlink");
    // Blocks are given when the bytes go to the disk.
    Dir::open(mounted.path())
        .and_then(|d| d.syncfs())
        .expect("sync");
    drop(mounted);
    let upper = option(&mounts, "upperdir=").expect("upper");
    let du = std::process::Command::new("du")
        .args(["-s", "-B1", upper])
        .output();
    let du = String::from_utf8(du.expect("du").stdout).expect("text");
    let bytes = du.split_whitespace().next().expect("a number");
    assert_eq!(usage("a").bytes.to_string(), bytes);
    assert_eq!(usage("a").inodes, 3);
    let active = usage("a");
    store.commit("c", "a");
    assert_eq!(usage("c"), active);
    let info = store.snapshots.stat(&ns(), &key("c")).expect("stat");
    assert_eq!(info.usage, active);
    store.view("look", Some("c"));
    assert_eq!(usage("look"), Usage::default());
}

#[test]
fn labels_are_replaced_or_updated() {
    let store = Fixture::new();
    store.prepare("a", None);
    let labels = |pairs: &[(&str, &str)]| -> Labels {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(own).collect()
    };
    let set = labels(&[("a", "1"), ("b", "2")]);
    let info = store.snapshots.set_labels(&ns(), &key("a"), set);
    let info = info.expect("set");
    assert!(info.updated_at > info.created_at);
    let update = labels(&[("a", ""), ("c", "3")]);
    let info = store.snapshots.update_labels(&ns(), &key("a"), &update);
    let info = info.expect("update");
    assert_eq!(info.labels, labels(&[("b", "2"), ("c", "3")]));
    assert_eq!(store.snapshots.stat(&ns(), &key("a")).expect("stat"), info);
}

#[test]
fn a_staged_layer_that_is_not_committed_leaves_nothing() {
    let store = Fixture::new();
    drop(store.staged("a", None));
    assert_eq!(store.directories(), 0);
    // One refused layer refuses them all.
    let stack = vec![store.staged("a", None), store.staged("b", Some("nothing"))];
    refused(
        store.snapshots.commit_stack(&ns(), stack),
        ErrorKind::NotFound,
    );
    assert_eq!(store.kind("a"), None);
    assert_eq!(store.directories(), 0);
}

#[test]
fn a_layer_that_is_there_already_is_left_as_it_is() {
    let store = Fixture::new();
    let commit = |layers| store.snapshots.commit_stack(&ns(), layers);
    commit(vec![store.staged("a", None)]).expect("commit");
    let before = store.snapshots.stat(&ns(), &key("a")).expect("stat");
    let stack = vec![store.staged("a", None), store.staged("b", Some("a"))];
    commit(stack).expect("commit");
    assert_eq!(
        store.snapshots.stat(&ns(), &key("a")).expect("stat"),
        before
    );
    assert_eq!(store.kind("b"), Some(SnapshotKind::Committed));
    assert_eq!(store.directories(), 2);
    // A container's key is not a layer that was unpacked by somebody else.
    store.prepare("c", None);
    refused(
        commit(vec![store.staged("c", None)]),
        ErrorKind::AlreadyExists,
    );
}

#[test]
fn many_clients_work_side_by_side() {
    let store = Fixture::new();
    store.layer("base", None, |root| {
        fs::write(root.join("f"), "1").expect("write")
    });
    thread::scope(|scope| {
        for number in 0..16 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..3 {
                    let own = format!("{number}-{round}");
                    store.prepare(&own, Some("base"));
                    let name = format!("committed-{own}");
                    store.commit(&name, &own);
                    if round != 0 {
                        store.remove(&name).expect("remove");
                    }
                }
            });
        }
    });
    assert_eq!(store.snapshots.list(&ns()).expect("list").len(), 17);
    assert_eq!(store.directories(), 17);
    // One key for all: one of them gets it.
    let won = thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    store
                        .snapshots
                        .prepare(&ns(), &key("wanted"), None, Labels::new())
                        .is_ok()
                })
            })
            .collect();
        let won = racers.into_iter().map(|r| r.join().expect("racer"));
        won.filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    assert_eq!(store.directories(), 18);
}

#[test]
fn files_of_removed_snapshots_are_gone_when_the_store_is_closed() {
    let store = Fixture::new();
    store.layer("large", None, |root| {
        for number in 0..3000 {
            fs::write(root.join(number.to_string()), "").expect("write");
        }
    });
    store.prepare("hollow", None);
    store.view("look", None);
    for name in ["large", "hollow", "look"] {
        store.remove(name).expect("remove");
    }
    let (store, recovered) = store.reopen("boot-1");
    assert_eq!(recovered, Recovered::default());
    assert_eq!(store.directories(), 0);
}

#[test]
fn what_a_process_could_not_wait_for_is_removed_by_the_next() {
    let store = Fixture::new();
    store.layer("written", None, |root| {
        fs::write(root.join("f"), "1").expect("write")
    });
    store.prepare("hollow", None);
    store.snapshots.give_up_removed();
    for name in ["written", "hollow"] {
        store.remove(name).expect("remove");
    }
    assert_eq!(store.directories(), 2);
    let (store, recovered) = store.reopen("boot-1");
    assert_eq!(recovered.swept, 2);
    assert_eq!(store.directories(), 0);
}

#[test]
fn a_device_zero_in_a_layer_is_a_whiteout_on_disk() {
    let store = Fixture::new();
    store.layer("base", None, |root| {
        fs::write(root.join("f"), "1").expect("write")
    });
    let mounts = store.prepare("a", Some("base"));
    let mounted = Mounted::new(&mounts);
    fs::remove_file(mounted.path().join("f")).expect("remove");
    drop(mounted);
    let upper = PathBuf::from(option(&mounts, "upperdir=").expect("upper"));
    let mark = fs::symlink_metadata(upper.join("f")).expect("stat");
    assert!(mark.file_type().is_char_device());
    assert_eq!(mark.rdev(), 0);
}

#[test]
fn mounts_have_the_options_that_were_chosen() {
    let root = tempfile::tempdir().expect("tempdir");
    let options = Options {
        mount_options: vec!["xino=off".to_owned(), "index=off".to_owned()],
        upperdir_label: false,
    };
    let (fixture, _) = Fixture::with(root, "boot-1", options);
    fixture.layer("below", None, |_| ());
    fixture.layer("above", Some("below"), |_| ());
    let above = key("above");
    let made = fixture
        .snapshots
        .prepare(&ns(), &key("top"), Some(&above), Labels::new());
    let mounts = made.expect("prepare");
    let chosen = &mounts[0].options[3..];
    assert_eq!(chosen, ["xino=off", "index=off"], "{mounts:?}");
    // The kernel takes them, and they are still ours.
    drop(Mounted::new(&mounts));
    let found = fixture.snapshots.writable(&ns(), &mounts).expect("look");
    assert_eq!(found.expect("ours").key, key("top"));

    for (option, fine) in [
        ("volatile", true),
        ("userxattr", true),
        ("xino=auto", true),
        ("", false),
        ("=x", false),
        ("lowerdir=/x", false),
        ("lowerdir+=/x", false),
        ("upperdir=/x", false),
        ("workdir=/x", false),
        ("redirect_dir=on", false),
        ("metacopy=on", false),
        ("xino=off,metacopy=on", false),
    ] {
        let options = Options {
            mount_options: vec!["xino=off".to_owned(), option.to_owned()],
            upperdir_label: false,
        };
        assert_eq!(options.refused(), (!fine).then_some(option));
    }
}

/// Recorded at their commits: nothing on the disk is looked at for it, so there need be nothing.
#[test]
fn usage_of_committed_snapshots_asks_no_file() {
    let store = Fixture::new();
    store.layer("written", None, |root| {
        fs::write(root.join("file"), vec![1; 50_000]).expect("write");
    });
    let names: Vec<String> = (0..200).map(|number| format!("layer-{number}")).collect();
    let stack = names.iter().map(|name| store.staged(name, Some("written")));
    let committed = store.snapshots.commit_stack(&ns(), stack.collect());
    committed.expect("commit");
    store.prepare("active", None);
    let usage = |name: &str| store.snapshots.usage(&ns(), &key(name));
    let all = || -> Vec<Usage> {
        let names = names.iter().map(String::as_str).chain(["written"]);
        names.map(|name| usage(name).expect("usage")).collect()
    };
    let before = all();
    assert!(before[200].bytes >= 50_000 && before[..200].iter().all(|one| one.inodes == 2));
    for entry in fs::read_dir(store.root.path().join("snapshots")).expect("directory") {
        fs::remove_dir_all(entry.expect("entry").path()).expect("remove");
    }
    assert_eq!(all(), before);
    // That of what can still be written to is there.
    refused(usage("active"), ErrorKind::DataLoss);
}

#[test]
fn the_files_of_a_snapshot_are_told_by_a_label() {
    let root = tempfile::tempdir().expect("tempdir");
    let options = Options {
        upperdir_label: true,
        ..Options::default()
    };
    let (fixture, _) = Fixture::with(root, "boot-1", options);
    let labels = Labels::from([("a".to_owned(), "b".to_owned())]);
    let made = fixture
        .snapshots
        .prepare(&ns(), &key("s"), None, labels.clone());
    let mounts = made.expect("prepare");
    let info = fixture.snapshots.stat(&ns(), &key("s")).expect("stat");
    assert_eq!(info.labels[UPPERDIR], mounts[0].source);
    assert_eq!(
        fixture.snapshots.list(&ns()).expect("list"),
        std::slice::from_ref(&info)
    );
    // Whoever hands back what was shown changes nothing by that.
    let again = fixture
        .snapshots
        .set_labels(&ns(), &key("s"), info.labels.clone());
    assert_eq!(again.expect("labels").labels, info.labels);
    let (fixture, _) = fixture.reopen("boot-1");
    let info = fixture.snapshots.stat(&ns(), &key("s")).expect("stat");
    assert_eq!(info.labels, labels);
}
