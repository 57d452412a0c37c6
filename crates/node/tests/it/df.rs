//! All that is on the disk is there for something: the sums are those of `du`, and nothing is unexplained
//! after anything.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use cairn_node::{
    DiskKind, DiskRow, DiskUsage, EngineKind, Node, NodeOptions, RecordsImport, export_records,
    import_records,
};
use cairn_types::{ErrorKind, ImageName, IngestRef, Labels, SnapshotKey};

use crate::{
    common::*,
    fsck::{check, flip},
};

fn key(text: &str) -> SnapshotKey {
    SnapshotKey::parse(text).expect("key")
}

/// Bytes and inodes as `du` counts them.
fn du(root: &Path) -> (u64, u64) {
    let count = |option: &str| {
        let printed = run("du", &["-s", option, text(root)]);
        let first = printed.split_whitespace().next().expect("a number");
        first.parse().expect("a number")
    };
    (count("--block-size=1"), count("--inodes"))
}

/// What is on the disk, which is what `du` says: an engine that is still at work has a moment.
#[track_caller]
fn measured(node: &Node) -> DiskUsage {
    let mut tries = 0;
    loop {
        let disk = node.df_disk(&|| true).expect("measure");
        let (all, seen) = (disk.all(), du(node.root()));
        if (all.bytes, all.inodes) == seen {
            return disk;
        }
        tries += 1;
        assert!(tries < 1500, "{disk:?} is not {seen:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The same, of which nothing is unexplained.
#[track_caller]
fn explained(node: &Node) -> BTreeMap<&'static str, DiskRow> {
    let disk = measured(node);
    assert_eq!(disk.unexplained, []);
    let rows = disk.rows.into_iter();
    rows.map(|row| (row.kind.name(), row)).collect()
}

/// Those of a kind.
#[track_caller]
fn total(rows: &BTreeMap<&'static str, DiskRow>, kind: &str) -> u64 {
    rows[kind].total
}

/// An image of one layer in which a file has two names.
fn linked() -> Layout {
    let dir = tempfile::tempdir().expect("temporary directory");
    fs::write(dir.path().join("one"), vec![7; 100_000]).expect("write");
    fs::hard_link(dir.path().join("one"), dir.path().join("two")).expect("link");
    let plain = archive_of(dir.path());
    let mut layout = Layout::new();
    let manifest = layout.manifest(&host(), &[(OCI_LAYER, plain.clone(), plain)]);
    layout.name(manifest, "shop/linked:1");
    layout.finish();
    layout
}

#[test]
fn an_image_its_mounts_and_its_changes_are_explained() {
    let store = Store::new();
    let rows = explained(&store.node);
    assert_eq!((total(&rows, "content"), total(&rows, "committed")), (0, 0));
    assert_eq!((total(&rows, "records"), total(&rows, "journal")), (1, 2));
    assert!(rows["journal"].usage.bytes >= 2 << 20);

    store.import(simple().path()).expect("import");
    store.import(linked().path()).expect("import");
    let rows = explained(&store.node);
    assert_eq!((total(&rows, "content"), total(&rows, "committed")), (7, 3));
    // One file of two names, and directories.
    assert!(rows["committed"].usage.bytes < 200_000, "{rows:?}");

    let name = ImageName::parse("docker.io/shop/web:1").expect("name");
    let target = store.mount(&name);
    let rows = explained(&store.node);
    assert_eq!(total(&rows, "views") + total(&rows, "active"), 1);
    store.unmount(&target);

    let snapshots = store.node.snapshots();
    let mounts = snapshots.prepare(&store.ns, &key("own"), None, Labels::new());
    let own = Path::new(&mounts.expect("prepare")[0].source).to_owned();
    fs::write(own.join("changed"), vec![1; 300_000]).expect("write");
    let rows = explained(&store.node);
    assert_eq!(total(&rows, "active"), 1);
    assert!(rows["active"].usage.bytes >= 300_000);
    snapshots
        .commit(&store.ns, &key("done"), &key("own"), Labels::new())
        .expect("commit");
    let rows = explained(&store.node);
    assert_eq!((total(&rows, "active"), total(&rows, "committed")), (0, 4));
}

#[test]
fn what_is_being_made_or_deleted_is_explained() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let reference = IngestRef::parse("broken-off").expect("reference");
    let mut upload = store
        .node
        .content()
        .writer(&store.ns, &reference, None, 0)
        .expect("writer");
    upload.write_all(&[3; 200_000]).expect("write");
    let rows = explained(&store.node);
    assert_eq!(total(&rows, "ingests"), 1);
    drop(upload);
    let rows = explained(&store.node);
    assert_eq!(total(&rows, "ingests"), 1);
    assert!(rows["ingests"].usage.bytes >= 200_000);

    let snapshots = store.node.snapshots();
    let staged = snapshots.stage().expect("stage");
    fs::write(staged.dir().path().join("file"), [4; 50_000]).expect("write");
    let rows = explained(&store.node);
    assert_eq!(total(&rows, "staging"), 1);
    drop(staged);
    let rows = explained(&store.node);
    assert_eq!((total(&rows, "staging"), total(&rows, "garbage")), (0, 0));

    // What a process that ends has no time for.
    snapshots.give_up_removed();
    for name in ["one", "two"] {
        let mounts = snapshots.prepare(&store.ns, &key(name), None, Labels::new());
        let own = Path::new(&mounts.expect("prepare")[0].source).to_owned();
        fs::write(own.join("changed"), vec![1; 70_000]).expect("write");
        snapshots.remove(&store.ns, &key(name)).expect("remove");
    }
    let rows = explained(&store.node);
    assert_eq!((total(&rows, "garbage"), total(&rows, "active")), (2, 0));
    assert!(rows["garbage"].usage.bytes >= 140_000);

    let root = store.node.root().to_owned();
    let Store { dir, node, .. } = store;
    drop(node);
    let node = open_again(&root);
    let rows = explained(&node);
    assert_eq!((total(&rows, "garbage"), total(&rows, "ingests")), (0, 1));
    drop((node, dir));
}

#[test]
fn what_nobody_made_is_named() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    let root = store.node.root().to_owned();
    let hex = "ab".repeat(32);
    let strays = [
        format!("content/blobs/sha256/{hex}"),
        "content/ingest/77".to_owned(),
        "content/ingest/put-77".to_owned(),
        "content/notes".to_owned(),
        "meta/notes".to_owned(),
        "meta/redb/notes".to_owned(),
        "notes".to_owned(),
        "snapshots/lost/notes".to_owned(),
    ];
    fs::create_dir(root.join("snapshots/lost")).expect("directory");
    for stray in &strays {
        fs::write(root.join(stray), vec![5; 10_000]).expect("write");
    }
    let disk = measured(&store.node);
    let paths = disk.unexplained.iter().map(|one| text(&one.path));
    let mut expected: Vec<&str> = strays.iter().map(String::as_str).collect();
    expected[7] = "snapshots/lost";
    assert_eq!(paths.collect::<Vec<_>>(), expected);
    for one in &disk.unexplained {
        assert!(one.usage.bytes >= 10_000, "{one:?}");
    }
    assert_eq!(disk.unexplained[7].usage.inodes, 2);
    // What `fsck` finds of these is no more, and no less.
    let (findings, _) = check(&store, false, true);
    let found: Vec<&str> = findings.iter().map(|one| &*one.name).collect();
    assert_eq!(found, [strays[0].as_str(), "snapshots/lost"]);
    assert!(findings.iter().all(|one| one.repaired));
    for stray in &strays[1..7] {
        fs::remove_file(root.join(stray)).expect("remove");
    }
    explained(&store.node);
}

#[test]
fn a_mended_tree_and_other_records_are_explained() {
    let layout = linked();
    let store = Store::new();
    store.import(layout.path()).expect("import");
    let tree = store
        .node
        .snapshots()
        .list(&store.ns)
        .expect("snapshots")
        .remove(0);
    let fs_of = |id: u64| store.node.root().join(format!("snapshots/{id}/fs"));
    flip(&fs_of(tree.id).join("one"));
    let (findings, _) = check(&store, true, true);
    assert!(
        !findings.is_empty() && findings.iter().all(|one| one.repaired),
        "{findings:?}"
    );
    let rows = explained(&store.node);
    assert_eq!(
        (total(&rows, "replaced"), total(&rows, "committed")),
        (1, 1)
    );

    let root = store.node.root().to_owned();
    let Store { dir, node, .. } = store;
    drop(node);
    let mut exported = Vec::new();
    soon(|| export_records(&root, &mut exported));
    let request = RecordsImport {
        engine: EngineKind::Redb,
        layout: None,
        replace: true,
    };
    soon(|| import_records(&root, request, &mut exported.as_slice()));
    fs::create_dir(root.join("pushes")).expect("directory");
    fs::create_dir_all(root.join("backend/meta")).expect("directory");
    let node = open_again(&root);
    let rows = explained(&node);
    for (kind, number) in [
        ("replaced", 0),
        ("committed", 1),
        ("backups", 1),
        ("pushes", 1),
        ("backend", 1),
    ] {
        assert_eq!(total(&rows, kind), number, "{kind}");
    }
    drop((node, dir));
}

#[test]
fn the_other_engine_is_explained() {
    let dir = scratch();
    let options = NodeOptions::new(dir.path().join("root"), EngineKind::Sled);
    let node = Node::open(options).expect("open");
    let rows = explained(&node);
    assert_eq!((total(&rows, "records"), total(&rows, "journal")), (1, 2));
}

/// Imports, removals, collections and uploads all the time: things move, and none is called unexplained.
#[test]
fn in_use_nothing_is_called_unexplained() {
    let (web, other) = (simple(), numbered(1, "shop/other:1"));
    let store = Store::new();
    store.import(other.path()).expect("import");
    let stop = AtomicBool::new(false);
    let going = || !stop.load(Ordering::Relaxed);
    thread::scope(|scope| {
        scope.spawn(|| store.turn_over(web.path(), going));
        scope.spawn(|| {
            for number in 0_u64.. {
                if !going() {
                    break;
                }
                let snapshots = store.node.snapshots();
                let name = key(&format!("s{number}"));
                let mounts = snapshots.prepare(&store.ns, &name, None, Labels::new());
                let own = Path::new(&mounts.expect("prepare")[0].source).to_owned();
                // A collection may be quicker.
                let _ = fs::write(own.join("changed"), vec![1; 5000]);
                let _ = snapshots.remove(&store.ns, &name);
                drop(snapshots.stage().expect("stage"));
            }
        });
        scope.spawn(|| {
            let reference = IngestRef::parse("again").expect("reference");
            for number in 0_u64.. {
                if !going() {
                    break;
                }
                let content = store.node.content();
                let bytes = number.to_string().repeat(5000);
                let put = content.put(&store.ns, bytes.as_bytes(), None, Labels::new());
                let _ = store.node.remove_blob(&store.ns, &put.expect("put"));
                let mut upload = content
                    .writer(&store.ns, &reference, None, 0)
                    .expect("writer");
                upload.write_all(bytes.as_bytes()).expect("write");
                match number % 2 {
                    0 => upload.abort().expect("abort"),
                    _ => drop(upload.commit(None, None, Labels::new()).expect("commit")),
                }
            }
        });
        let measured: Vec<_> = (0..12).map(|_| store.node.df_disk(&|| true)).collect();
        stop.store(true, Ordering::Relaxed);
        for disk in measured {
            assert_eq!(disk.expect("measure").unexplained, []);
        }
    });
    store.node.gc(false).expect("collect");
    store.node.snapshots().wait_removed();
    let rows = explained(&store.node);
    assert_eq!(total(&rows, DiskKind::Garbage.name()), 0);
    assert_eq!(total(&rows, DiskKind::Staging.name()), 0);
}

#[test]
fn a_measurement_ends_when_nobody_waits_for_it() {
    let store = Store::new();
    store.import(simple().path()).expect("import");
    // At once, and on its way through the files.
    for names in [0, 10] {
        let asked = Cell::new(0);
        let wanted = || {
            asked.set(asked.get() + 1);
            asked.get() <= names
        };
        let stopped = store.node.df_disk(&wanted).expect_err("stopped");
        assert_eq!(stopped.kind, ErrorKind::Canceled, "{stopped}");
    }
}
