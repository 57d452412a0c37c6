//! Records whose files are damaged: the store opens, they are whole again or it says what is lost, and
//! nothing of what was there is thrown away.
//!
//! `CAIRN_REBUILD_SEEDS` is how many damages of each kind are tried.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cairn_meta::{EngineKind, Rebuilt, Store, Tx, schema};
use cairn_sys::Dir;
use common::{ENGINES, key, listed, ns, open, put, record};
use tempfile::TempDir;

const PAGE: usize = 4096;

fn seeds() -> u64 {
    let text = std::env::var("CAIRN_REBUILD_SEEDS").ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(24)
}

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let random = usize::try_from(self.0 >> 33).expect("31 bits");
        random % end
    }
}

fn copy(from: &Path) -> TempDir {
    let to = tempfile::tempdir().expect("temporary directory");
    let status = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to.path())
        .status();
    assert!(status.expect("cp").success());
    to
}

fn engine_file(path: &Path, kind: EngineKind) -> PathBuf {
    path.join(match kind {
        EngineKind::Redb => "redb/records.redb",
        EngineKind::Sled => "sled/sled/db",
    })
}

fn journal_file(path: &Path, kind: EngineKind, segment: char) -> PathBuf {
    path.join(kind.name()).join(format!("journal.{segment}"))
}

/// Flips bits in, zeroes, fills or cuts off a file at places where it is not empty; says how.
fn damage(path: &Path, numbers: &mut Numbers) -> String {
    let mut bytes = fs::read(path).expect("read");
    let used: Vec<usize> = (0..bytes.len().div_ceil(PAGE))
        .map(|page| page * PAGE)
        .filter(|at| bytes[*at..].iter().take(PAGE).any(|byte| *byte != 0))
        .collect();
    if used.is_empty() {
        return format!("{} is empty", path.display());
    }
    let many = 1 + numbers.below(3);
    let how = numbers.below(5);
    for _ in 0..many {
        let at = used[numbers.below(used.len())];
        let end = (at + PAGE).min(bytes.len());
        match how {
            0 => {
                for _ in 0..8 {
                    let byte = at + numbers.below(end - at);
                    bytes[byte] ^= 1 << numbers.below(8);
                }
            }
            1 => bytes[at..end].fill(0),
            2 => bytes[at..end].fill_with(|| u8::try_from(numbers.below(256)).expect("a byte")),
            3 => {
                // A page that was written to another place.
                let from = used[numbers.below(used.len())];
                let page = bytes[from..(from + PAGE).min(bytes.len())].to_vec();
                let room = page.len().min(end - at);
                bytes[at..at + room].copy_from_slice(&page[..room]);
            }
            _ => {
                bytes.truncate(at + numbers.below(PAGE));
                break;
            }
        }
    }
    fs::write(path, bytes).expect("write");
    format!("{}, {many} times kind {how}", path.display())
}

/// Enough for the engine to have taken over some, with the journal gone on with behind that.
fn filled(kind: EngineKind) -> TempDir {
    let temp = tempfile::tempdir().expect("temporary directory");
    let store = open(temp.path(), kind);
    for round in 0..9_i64 {
        for n in 0..60 {
            put(&store, n, round * 100 + i64::from(n));
        }
    }
    drop(store);
    // As a process leaves it that is killed in the middle of its work.
    let store = open(temp.path(), kind);
    for n in 0..20 {
        put(&store, n, i64::from(n));
    }
    let left = copy(temp.path());
    drop(store);
    left
}

/// What stands under each key, in the order of `key`.
fn values(store: &Store) -> Vec<Option<i64>> {
    let mut values = vec![None; 60];
    for space in ["a", "ab"] {
        for (found, value) in listed(store, &ns(space)) {
            let n = (0..60).find(|n| key(*n) == found).expect("one of ours");
            values[usize::from(n)] = Some(value);
        }
    }
    values
}

fn expected() -> Vec<Option<i64>> {
    let value = |n: i64| if n < 20 { n } else { 800 + n };
    (0..60).map(|n| Some(value(n))).collect()
}

/// Opens it, sees that it can be used, and opens it again; what it says was lost.
fn opened(path: &Path, kind: EngineKind, how: &str) -> (Vec<Option<i64>>, Option<Rebuilt>) {
    let dir = Dir::open(path).expect("open");
    let store = Store::open(&dir, kind).unwrap_or_else(|err| panic!("{kind:?}, {how}: {err}"));
    let found = (values(&store), store.rebuilt());
    if let Some(rebuilt) = &found.1 {
        assert_eq!(rebuilt.aside.len(), 1, "{how}");
        assert!(path.join(&rebuilt.aside[0]).exists(), "{how}");
        assert!(store.is_unsettled(), "{how}");
    }
    put(&store, 0, -1);
    drop(store);
    let store = open(path, kind);
    assert_eq!(values(&store)[0], Some(-1), "{how}");
    assert_eq!(values(&store)[1..], found.0[1..], "{how}");
    assert_eq!(store.rebuilt().is_some(), found.1.is_some(), "{how}");
    found
}

/// The copy, its log and the journal have everything.
#[test]
fn a_damaged_engine_costs_nothing() {
    for kind in ENGINES {
        let whole = filled(kind);
        let mut rebuilt = 0;
        for seed in 0..seeds() {
            let mut numbers = Numbers(seed);
            let victim = copy(whole.path());
            let how = damage(&engine_file(victim.path(), kind), &mut numbers);
            let (values, report) = opened(victim.path(), kind, &how);
            rebuilt += u32::from(report.is_some());
            assert_eq!(values, expected(), "{how}");
            let lost = report.map(|report| report.lost).unwrap_or_default();
            assert_eq!(lost, Vec::<String>::new(), "{how}");
        }
        assert!(rebuilt > 0, "{kind:?}: no damage was met");
    }
}

/// What is lost of the journal is said, and costs nothing else.
#[test]
fn a_damaged_journal_costs_what_it_says() {
    for kind in ENGINES {
        let whole = filled(kind);
        let (mut told, mut silent) = (0, 0);
        for seed in 0..seeds() {
            let mut numbers = Numbers(seed + 1_000_000);
            let victim = copy(whole.path());
            let segment = ['a', 'b'][numbers.below(2)];
            let how = damage(&journal_file(victim.path(), kind, segment), &mut numbers);
            let (values, report) = opened(victim.path(), kind, &how);
            let lost = report.is_some_and(|report| !report.lost.is_empty());
            told += u32::from(lost);
            for (n, (value, right)) in values.iter().zip(expected()).enumerate() {
                let n = i64::try_from(n).expect("small");
                // One that is not the newest is an older one of the same record.
                let older = value.is_some_and(|value| value == n || value % 100 == n);
                assert!(*value == right || older, "{how}: {n} is {value:?}");
                silent += u32::from(*value != right && !lost);
            }
        }
        assert!(told > 0, "{kind:?}: no damage was met");
        // The very last change cannot be told from one that the power has cut; it comes alone.
        assert!(u64::from(silent) <= seeds(), "{kind:?}: {silent} of {told}");
    }
}

/// The worst there is: both at once, and the copy too.
#[test]
fn whatever_is_damaged_the_store_opens() {
    for kind in ENGINES {
        let whole = filled(kind);
        for seed in 0..seeds() {
            let mut numbers = Numbers(seed + 2_000_000);
            let victim = copy(whole.path());
            let mut how = damage(&engine_file(victim.path(), kind), &mut numbers);
            let inside = victim.path().join(kind.name());
            if seed % 3 == 0 {
                fs::remove_file(inside.join("copy.0")).expect("remove");
                how += ", without a copy";
            }
            for entry in fs::read_dir(&inside).expect("list") {
                let path = entry.expect("entry").path();
                let some = fs::metadata(&path).is_ok_and(|it| it.is_file() && it.len() > 0);
                if some && numbers.below(2) == 0 {
                    how += ", ";
                    how += &damage(&path, &mut numbers);
                }
            }
            opened(victim.path(), kind, &how);
        }
    }
}

/// Whoever destroys the records by hand meets the same.
#[test]
fn what_is_gone_altogether_is_damage_too() {
    for kind in ENGINES {
        let whole = filled(kind);
        let victim = copy(whole.path());
        fs::remove_file(engine_file(victim.path(), kind)).expect("remove");
        let (found, report) = opened(victim.path(), kind, "no engine");
        assert_eq!(found, expected());
        assert_eq!(report.expect("made anew").lost, Vec::<String>::new());

        let victim = copy(whole.path());
        fs::remove_dir_all(victim.path().join(kind.name())).expect("remove");
        let store = open(victim.path(), kind);
        assert!(store.is_unsettled(), "there may be more than it knows");
        assert_eq!(values(&store), vec![None; 60]);
        store.settle(vec!["3 blobs".to_owned()]).expect("settle");
        assert!(!store.is_unsettled());
        drop(store);
        let store = open(victim.path(), kind);
        assert!(!store.is_unsettled());
        assert_eq!(store.rebuilt().expect("noted").found, ["3 blobs"]);

        let victim = copy(whole.path());
        fs::remove_dir_all(victim.path().join(kind.name())).expect("remove");
        fs::write(victim.path().join(kind.name()), "no directory").expect("write");
        let (_, report) = opened(victim.path(), kind, "a file");
        assert!(!report.expect("made anew").lost.is_empty());
    }
}

/// Until the mark is taken away, each opening has it.
#[test]
fn a_loss_is_unsettled_until_somebody_has_looked() {
    let whole = filled(EngineKind::Redb);
    let inside = whole.path().join("redb");
    fs::write(inside.join("records.redb"), "nothing of the kind").expect("write");
    for entry in fs::read_dir(&inside).expect("list") {
        let entry = entry.expect("entry");
        if entry.file_name().to_string_lossy().starts_with("copy.") {
            fs::remove_file(entry.path()).expect("remove");
        }
    }
    for _ in 0..2 {
        let store = open(whole.path(), EngineKind::Redb);
        assert!(store.is_unsettled());
    }
    let store = open(whole.path(), EngineKind::Redb);
    let report = store.rebuilt().expect("made anew");
    assert!(!report.lost.is_empty());
    // Those that the journal still has are there.
    assert_eq!(values(&store)[..20], expected()[..20]);
    let kept = whole.path().join(&report.aside[0]).join("records.redb");
    assert_eq!(fs::read(kept).expect("read"), b"nothing of the kind");
}

/// A rebuilding that is cut short is begun again, or carried through.
#[test]
fn a_rebuilding_can_be_cut_short() {
    for kind in ENGINES {
        let whole = filled(kind);
        fs::write(engine_file(whole.path(), kind), "nothing").expect("write");
        // Before the decision.
        let victim = copy(whole.path());
        let half = victim.path().join("rebuild.tmp/remains");
        fs::create_dir_all(&half).expect("make");
        fs::write(half.join("records.redb"), "half").expect("write");
        assert_eq!(opened(victim.path(), kind, "before").0, expected());
        assert!(!victim.path().join("rebuild.tmp").exists());
        // After it: the new ones have their name only once the old ones are put by.
        let victim = copy(whole.path());
        drop(open(victim.path(), kind));
        let name = victim.path().join(kind.name());
        let decided = victim.path().join(format!("rebuilt.{}", kind.name()));
        fs::rename(&name, decided).expect("rename");
        assert_eq!(
            Store::kept(&Dir::open(victim.path()).expect("open")).expect("look"),
            Some(kind)
        );
        assert_eq!(opened(victim.path(), kind, "after").0, expected());
    }
}

/// Records beyond what one journal holds, and a copy that is made meanwhile.
#[test]
fn a_copy_is_made_behind_the_changes() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = open(temp.path(), kind);
        // More than is worth a new copy.
        for round in 0..40_i64 {
            store
                .write(move |tx: &mut Tx<'_>| {
                    for n in 0..200_i64 {
                        let lease = cairn_types::LeaseId::parse(&format!("l{n}")).expect("lease");
                        let mut lease_record = record(round * 1000 + n);
                        let value = "x".repeat(4000);
                        lease_record.labels.insert("filler".to_owned(), value);
                        tx.put(&schema::LEASES, &(ns("a"), lease), &lease_record)?;
                    }
                    Ok::<_, cairn_meta::Error>(())
                })
                .expect("write");
        }
        drop(store);
        let inside = temp.path().join(kind.name());
        let names = || -> Vec<String> {
            let entries = fs::read_dir(&inside).expect("list");
            let names = entries.map(|entry| entry.expect("entry").file_name());
            let mut names: Vec<String> = names
                .map(|name| name.to_string_lossy().into_owned())
                .filter(|name| name.starts_with("copy.") || name.starts_with("log."))
                .collect();
            names.sort();
            names
        };
        // The first one is of no records.
        assert!(!names().contains(&"copy.0".to_owned()), "{:?}", names());
        fs::write(engine_file(temp.path(), kind), "nothing").expect("write");
        let store = open(temp.path(), kind);
        let all = listed(&store, &ns("a"));
        assert_eq!(all.len(), 200);
        for (_, value) in &all {
            assert!((39_000..39_200).contains(value), "{value}");
        }
        let report = store.rebuilt().expect("made anew");
        assert_eq!(report.lost, Vec::<String>::new());
        drop(store);
        // What the power cut off of a copy is not taken for one.
        fs::write(inside.join("copy.tmp"), "half").expect("write");
        drop(open(temp.path(), kind));
        assert!(!names().contains(&"copy.tmp".to_owned()), "{:?}", names());
    }
}

/// A log that does not go on is no reason to be without a copy: the next opening makes a new one.
#[test]
fn a_lost_log_is_made_up_for() {
    for kind in ENGINES {
        let whole = filled(kind);
        let inside = whole.path().join(kind.name());
        fs::remove_file(inside.join("log.0")).expect("remove");
        drop(open(whole.path(), kind));
        assert!(!inside.join("copy.0").exists(), "there is a newer one");
        fs::write(engine_file(whole.path(), kind), "nothing").expect("write");
        let (values, report) = opened(whole.path(), kind, "no log");
        assert_eq!(values, expected());
        assert_eq!(report.expect("made anew").lost, Vec::<String>::new());
    }
}
