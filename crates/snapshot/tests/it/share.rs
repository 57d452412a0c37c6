//! One tree for several namespaces, until the last of them lets go of it.

use std::{collections::BTreeSet, fs, io::Write};

use cairn_meta::{EngineKind, Import, Origin, View, schema};
use cairn_snapshot::{Recovered, Shared, SnapshotInfo, Snapshots, StagedLayer};
use cairn_sys::Dir;
use cairn_types::{Digest, ErrorKind, Labels, Namespace};

use crate::common::{
    Fixture, Mounted, key, read, refused,
    spaces::{keys, layer, ns},
};

#[test]
fn another_namespace_gets_the_same_trees() {
    for engine in EngineKind::ALL {
        let store = Fixture::of(engine);
        store.unpack("a", &["one", "two"]);
        let shared = store.share("b", &["one", "two", "three"]);
        assert_eq!((shared.here, shared.taken), (2, keys(&["one", "two"])));
        assert_eq!(store.directories(), 2);
        for name in ["one", "two"] {
            let first = store.info("a", name).expect("first");
            let second = store.info("b", name).expect("second");
            assert!(second.created_at > first.created_at);
            assert!(second.labels.is_empty() && !first.labels.is_empty());
            let alike = SnapshotInfo {
                labels: first.labels.clone(),
                created_at: first.created_at,
                updated_at: first.updated_at,
                ..second
            };
            assert_eq!(alike, first);
            assert!(store.shows("b", name));
        }
        let again = store.share("b", &["one", "two"]);
        assert_eq!((again.here, again.taken), (2, Vec::new()));
        // Also of a namespace that has it so itself, and in parts.
        store.drop_one("a", "two");
        store.drop_one("a", "one");
        assert_eq!(store.share("c", &["one"]).taken, keys(&["one"]));
        assert_eq!(store.share("c", &["one", "two"]).taken, keys(&["two"]));
        assert_eq!(store.directories(), 2);
        let nothing = store.share("c", &[]);
        assert_eq!((nothing.here, nothing.taken), (0, Vec::new()));
    }
}

#[test]
fn a_tree_goes_with_its_last_record_in_either_order() {
    for order in [["a", "b"], ["b", "a"]] {
        let store = Fixture::new();
        store.unpack("a", &["one", "two"]);
        store.share("b", &["one", "two"]);
        let [first, second] = order;
        store.drop_one(first, "two");
        assert!(store.shows(second, "two") && store.directories() == 2);
        store.drop_one(second, "two");
        assert_eq!(store.directories(), 1);
        store.drop_one(second, "one");
        assert!(store.shows(first, "one") && store.directories() == 1);
        store.drop_one(first, "one");
        assert_eq!(store.directories(), 0);
        assert_eq!(store.share("c", &["one"]).here, 0);
    }
}

/// Whoever removes several together, as a collection does, has the tree go with the last of them.
#[test]
fn records_that_go_together_take_the_tree_along_once() {
    let store = Fixture::new();
    store.unpack("a", &["one"]);
    store.share("b", &["one"]);
    let all = [ns("a"), ns("b")];
    let erased = store.meta.write(move |tx| {
        let one = |tx: &mut _, space: &Namespace| {
            Snapshots::erase_among(tx, (space.clone(), key("one")), &all)
        };
        Ok::<_, cairn_snapshot::Error>([one(tx, &all[0])?, one(tx, &all[1])?])
    });
    let erased = erased.expect("erase");
    assert_eq!(erased.each_ref().map(|one| one.freed()), [0, 4096]);
    store.snapshots.remove_erased(&erased[0]);
    assert_eq!(store.directories(), 1);
    store.snapshots.remove_erased(&erased[1]);
    assert_eq!(store.directories(), 0);
}

#[test]
fn what_stands_on_a_shared_tree_keeps_it() {
    let store = Fixture::new();
    store.unpack("a", &["one", "two"]);
    store.share("b", &["one", "two"]);
    let work = key("work");
    let mounts = store
        .snapshots
        .prepare(&ns("b"), &work, Some(&key("two")), Labels::new());
    let mounted = Mounted::new(&mounts.expect("prepare"));
    store.drop_one("a", "two");
    store.drop_one("a", "one");
    let removed = store.snapshots.remove(&ns("b"), &key("two"));
    refused(removed, ErrorKind::FailedPrecondition);
    store.snapshots.wait_removed();
    for name in ["one", "two"] {
        assert_eq!(read(mounted.path().join(name)), name);
    }
    fs::write(mounted.path().join("one"), "changed").expect("write");
    drop(mounted);
    assert!(store.shows("b", "one"), "what is shared is not written to");
    store.drop_one("b", "work");
    store.drop_one("b", "two");
    store.drop_one("b", "one");
    assert_eq!(store.directories(), 0);
}

/// A name says nothing about what a client put there, nor about what was unpacked on that.
#[test]
fn what_a_client_committed_is_not_shared_nor_what_stands_on_it() {
    let store = Fixture::new();
    let forge = |space: &str, name: &str| {
        let (space, work) = (ns(space), key("work"));
        let made = store.snapshots.prepare(&space, &work, None, Labels::new());
        made.expect("prepare");
        let committed = store
            .snapshots
            .commit(&space, &key(name), &work, Labels::new());
        committed.expect("commit");
    };
    forge("a", "one");
    let above = layer(&store.snapshots, "two", Some("one"));
    let committed = store.snapshots.commit_stack(&ns("a"), vec![above]);
    committed.expect("commit");
    assert_eq!(store.share("b", &["one", "two"]), Shared::default());
    store.unpack("b", &["one"]);
    let shared = store.share("b", &["one", "two"]);
    assert_eq!((shared.here, shared.taken), (1, Vec::new()));
    // Nor does a forged one come under what is shared.
    store.unpack("c", &["three", "four"]);
    forge("d", "three");
    assert_eq!(store.share("d", &["three", "four"]).here, 1);
}

#[test]
fn what_could_not_be_unpacked_again_is_not_shared() {
    let store = Fixture::new();
    let without: [fn(&mut StagedLayer); 2] = [
        |layer| layer.blob = None,
        |layer| {
            layer.diff_id = None;
        },
    ];
    for (name, without) in ["no blob", "no diff ID"].into_iter().zip(without) {
        let mut layer = layer(&store.snapshots, name, None);
        without(&mut layer);
        let committed = store.snapshots.commit_stack(&ns("a"), vec![layer]);
        committed.expect("commit");
        assert_eq!(store.share("b", &[name]), Shared::default());
    }
}

/// A number stands for the whole stack.
#[test]
fn a_layer_is_shared_over_the_same_tree_alone() {
    let store = Fixture::new();
    store.unpack("a", &["one", "two"]);
    store.unpack("b", &["one"]);
    assert_eq!(store.share("b", &["one", "two"]).here, 1);
    // Of two that could be had the one that fits.
    store.share("c", &["one"]);
    assert_eq!(store.share("c", &["one", "two"]).here, 2);
    // Under another parent's name it is another snapshot.
    assert_eq!(store.share("d", &["two"]).here, 0);
    store.drop_one("b", "one");
    assert_eq!(store.share("b", &["one", "two"]).here, 2);
    assert_eq!(store.directories(), 2);
}

#[test]
fn a_power_cut_drops_a_shared_tree_in_all_namespaces() {
    for engine in EngineKind::ALL {
        let store = Fixture::of(engine);
        store.unpack("a", &["one", "two"]);
        store.share("b", &["one", "two"]);
        // A killed process loses nothing, and knows again what waits for a sync.
        let (store, recovered) = store.reopen("boot-1");
        assert_eq!(recovered, Recovered::default());
        assert!(store.snapshots.pending_since().is_some());
        let (store, recovered) = store.reopen("boot-2");
        let dropped: BTreeSet<String> = recovered
            .dropped
            .iter()
            .map(|(space, key)| format!("{space} {key}"))
            .collect();
        let all = ["a one", "a two", "b one", "b two"].map(str::to_owned);
        assert_eq!(dropped, BTreeSet::from(all));
        assert_eq!((recovered.swept, store.directories()), (2, 0));
        // Unpacked again by one, it is there for the other.
        store.unpack("b", &["one"]);
        assert_eq!(store.share("a", &["one"]).here, 1);
    }
}

#[test]
fn a_sync_is_recorded_for_all_who_share_a_tree() {
    let store = Fixture::new();
    store.unpack("a", &["one"]);
    store.share("b", &["one"]);
    let durable = |store: &Fixture, space| store.info(space, "one").expect("info").durable;
    assert!(!durable(&store, "a") && !durable(&store, "b"));
    store.snapshots.flush().expect("flush");
    assert!(durable(&store, "a") && durable(&store, "b"));
    assert_eq!(store.snapshots.pending_since(), None);
    assert_eq!(store.share("c", &["one"]).here, 1);
    assert!(durable(&store, "c") && store.snapshots.pending_since().is_none());
    let (store, recovered) = store.reopen("boot-2");
    assert!(recovered.dropped.is_empty() && recovered.swept == 0);
    for space in ["a", "b", "c"] {
        assert!(store.shows(space, "one"));
    }
}

/// A tree that was put in its place is whole for all who have it.
#[test]
fn a_proof_is_recorded_for_all_who_share_a_tree() {
    let store = Fixture::new();
    store.unpack("a", &["one"]);
    store.share("b", &["one"]);
    store.snapshots.flush().expect("flush");
    let change = store.meta.write(|tx| {
        for space in ["a", "b"] {
            let place = (ns(space), key("one"));
            let mut record = tx.get(&schema::SNAPSHOTS, &place)?.expect("a record");
            record.durable = false;
            record.boot_id = "boot-0".to_owned();
            tx.put(&schema::SNAPSHOTS, &place, &record)?;
        }
        Ok::<_, cairn_meta::Error>(())
    });
    change.expect("a layer that may be torn");
    assert_eq!(store.snapshots.pending_since(), None);
    let id = store.info("b", "one").expect("info").id;
    let staged = store.snapshots.stage().expect("stage");
    let renewed = store.snapshots.renew(&ns("b"), &key("one"), id, staged);
    renewed.expect("renewed");
    for space in ["a", "b"] {
        assert!(store.info(space, "one").expect("info").durable, "{space}");
    }
    // Somebody may have mounted it since: who comes later leaves it.
    let inode = || {
        let tree = store.snapshots.committed_tree(&ns("a"), &key("one"));
        tree.expect("tree").self_stat().expect("stat").st_ino
    };
    let (before, late) = (inode(), store.snapshots.stage().expect("stage"));
    let renewed = store.snapshots.renew(&ns("a"), &key("one"), id, late);
    renewed.expect("nothing to do");
    assert_eq!(inode(), before);
}

#[test]
fn a_shared_tree_waits_for_its_sync_when_the_first_record_is_gone() {
    let store = Fixture::new();
    store.unpack("a", &["one"]);
    store.share("b", &["one"]);
    store.drop_one("a", "one");
    assert!(store.snapshots.pending_since().is_some());
    store.snapshots.flush().expect("flush");
    assert_eq!(store.snapshots.pending_since(), None);
    let (store, recovered) = store.reopen("boot-2");
    assert_eq!(recovered, Recovered::default());
    assert!(store.shows("b", "one"));
}

#[test]
fn recovering_sweeps_only_what_nobody_has() {
    let store = Fixture::new();
    store.unpack("a", &["one"]);
    store.share("b", &["one"]);
    store.drop_one("a", "one");
    fs::create_dir_all(store.root.path().join("snapshots/4711/fs")).expect("mkdir");
    let (store, recovered) = store.reopen("boot-1");
    assert_eq!((recovered.swept, store.directories()), (1, 1));
    assert!(store.shows("b", "one"));
}

#[test]
fn damage_is_named_wherever_it_is_and_not_handed_on() {
    let store = Fixture::new();
    store.unpack("a", &["one", "two"]);
    store.share("b", &["one", "two"]);
    let id = store.info("a", "two").expect("info").id;
    let place = store.root.path().join("snapshots").join(id.to_string());
    fs::remove_dir_all(&place).expect("remove");
    assert_eq!(store.share("c", &["one", "two"]).here, 1);
    let (store, recovered) = store.reopen("boot-1");
    let missing = [(ns("a"), key("two")), (ns("b"), key("two"))];
    assert_eq!(recovered.missing, missing);
    store.drop_one("a", "two");
    store.drop_one("b", "two");
    assert_eq!(store.directories(), 1);
}

/// As [`Fixture::reopen`], with bytes that are no record in the place of one.
fn damage(store: Fixture, space: &str, name: &str) -> Fixture {
    let origin = Origin {
        layout: 1,
        written_by: "a test".to_owned(),
        engine: store.meta.engine().to_owned(),
        uuid: None,
    };
    let mut lines = Vec::new();
    store.meta.export(&origin, &mut lines).expect("export");
    let text = String::from_utf8(lines).expect("text");
    let begin = format!(r#"{{"table":"snapshot","key":["{space}","{name}"],"#);
    let mut damaged = Vec::new();
    let mut records = 0;
    for line in text
        .lines()
        .filter(|line| !line.starts_with("{\"records\""))
    {
        match line.starts_with(&begin) {
            true => writeln!(damaged, "{begin}\"bytes\":\"00\"}}").expect("write"),
            false => writeln!(damaged, "{line}").expect("write"),
        }
        records += 1;
    }
    let digest = Digest::sha256(&damaged);
    let records = records - 1;
    writeln!(damaged, r#"{{"records":{records},"digest":"{digest}"}}"#).expect("write");
    let Fixture {
        root,
        meta,
        snapshots,
    } = store;
    drop((meta, snapshots));
    let dir = Dir::open(&root.path().join("meta")).expect("records");
    let kind = cairn_meta::Store::kept(&dir).expect("kept").expect("kind");
    let mut input = damaged.as_slice();
    let import = Import::begin(&mut input).expect("begin");
    import.into_records(&dir, kind, true).expect("import");
    Fixture::at(root, "boot-1").0
}

/// It may be the one that speaks of this tree.
#[test]
fn files_stay_while_a_record_that_may_speak_of_them_is_damaged() {
    let store = Fixture::new();
    store.unpack("a", &["one"]);
    store.share("b", &["one"]);
    let id = store.info("a", "one").expect("info").id;
    let store = damage(store, "b", "one");
    assert_eq!(store.share("c", &["one"]).here, 1, "others are sound");
    store.drop_one("c", "one");
    store.drop_one("a", "one");
    store.snapshots.wait_removed();
    let file = store.root.path().join(format!("snapshots/{id}/fs/one"));
    assert_eq!(read(file.clone()), "one");
    let (store, recovered) = store.reopen("boot-1");
    assert_eq!((recovered.swept, read(file)), (0, "one".to_owned()));
    assert_eq!(store.share("c", &["one"]).here, 0);
}
