use std::{collections::BTreeMap, path::Path, process::Command, sync::atomic::AtomicBool, thread};

use cairn_sys::Dir;
use proptest::prelude::*;

use super::*;
use crate::{
    copy,
    engine::{Redb, Sled},
    journal,
};

type Make = fn(&Dir) -> Result<(), Error>;
type Open = fn(&Dir) -> Result<Box<dyn Engine>, Error>;

const REDB: (Make, Open) = (Redb::create, |dir| Ok(Box::new(Redb::open(dir)?)));
const SLED: (Make, Open) = (Sled::create, |dir| Ok(Box::new(Sled::open(dir)?)));

fn open(path: &Path, open: Open) -> Journaled {
    let dir = Dir::open(path).expect("open");
    Journaled::open(&dir, open(&dir).expect("engine")).expect("journal")
}

fn make(path: &Path, (make, open_engine): (Make, Open)) -> Journaled {
    let dir = Dir::open(path).expect("open");
    make(&dir).expect("make");
    journal::create_missing(&dir).expect("segments");
    copy::create_empty(&dir).expect("copy");
    open(path, open_engine)
}

fn put(key: u8, value: u8) -> (Vec<u8>, Option<Vec<u8>>) {
    (vec![b'k', key], Some(vec![value]))
}

#[derive(Clone, Debug)]
enum Act {
    Commit(Vec<(u8, Option<u8>)>),
    Note(Vec<(u8, Option<u8>)>),
    Settle,
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let changes = || prop::collection::vec((0_u8..12, any::<Option<u8>>()), 1..4);
    let act = prop_oneof![
        4 => changes().prop_map(Act::Commit),
        2 => changes().prop_map(Act::Note),
        1 => Just(Act::Settle),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..24)
}

fn batch(changes: &[(u8, Option<u8>)]) -> Batch {
    let change = |(key, value): &(u8, Option<u8>)| (vec![b'k', *key], value.map(|v| vec![v]));
    changes.iter().map(change).collect()
}

/// Every way to look gives what a plain map gives.
fn same(engine: &Journaled, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let state = engine.snapshot().expect("look");
    let pairs: Pairs = model.clone().into_iter().collect();
    assert_eq!(state.scan(b"k").expect("scan"), pairs);
    assert_eq!(state.scan(b"j").expect("scan"), Pairs::new());
    for key in 0..12 {
        let name = [b'k', key];
        let found = state.get(&name).expect("get");
        assert_eq!(found.as_ref(), model.get(&name[..]));
        for limit in [1, 3, 20] {
            let behind = model.range(name.to_vec()..).filter(|(k, _)| **k != name);
            let expected: Pairs = behind
                .take(limit)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            let part = state.scan_after(b"k", &name, limit).expect("part");
            assert_eq!(part, expected, "behind {key}, {limit}");
        }
    }
}

fn play(acts: Vec<Act>, kind: (Make, Open)) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut engine = make(temp.path(), kind);
    let mut model = BTreeMap::new();
    for act in acts {
        match &act {
            Act::Commit(changes) => engine.commit(&batch(changes)).expect("commit"),
            Act::Note(changes) => engine.note(&batch(changes)).expect("note"),
            Act::Settle => engine.settle().expect("settle"),
            Act::Reopen => {
                drop(engine);
                engine = open(temp.path(), kind.1);
            }
        }
        if let Act::Commit(changes) | Act::Note(changes) = &act {
            for (key, value) in batch(changes) {
                match value {
                    Some(value) => model.insert(key, value),
                    None => model.remove(&key),
                };
            }
        }
        same(&engine, &model);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_is_a_map_wherever_the_changes_are(acts in acts()) {
        play(acts, REDB);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn it_is_a_map_before_sled_as_well(acts in acts()) {
        play(acts, SLED);
    }
}

/// What a process leaves that is killed: nothing is closed, and the files are as they are.
fn as_killed(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("temporary directory");
    let status = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to.path())
        .status();
    assert!(status.expect("cp").success());
    to
}

#[test]
fn a_kill_loses_nothing_wherever_the_changes_are() {
    for kind in [REDB, SLED] {
        let temp = tempfile::tempdir().expect("temporary directory");
        let engine = make(temp.path(), kind);
        let mut model = BTreeMap::new();
        for round in 0..6 {
            for key in 0..9 {
                let (key, value) = put(key, round);
                engine
                    .commit(&Batch::from([(key.clone(), value.clone())]))
                    .expect("commit");
                model.insert(key, value.expect("a value"));
            }
            if round % 2 == 1 {
                engine.settle().expect("settle");
            }
            let left = as_killed(temp.path());
            same(&open(left.path(), kind.1), &model);
        }
    }
}

/// More than both segments hold, so that the engine takes over again and again.
#[test]
fn many_changes_go_through() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let engine = make(temp.path(), REDB);
    let mut model = BTreeMap::new();
    for n in 0..1500_u32 {
        let key = vec![b'k', u8::try_from(n % 12).expect("small")];
        let value = n.to_le_bytes().to_vec();
        let change = Batch::from([(key.clone(), Some(value.clone()))]);
        match n % 3 {
            0 => engine.commit(&change).expect("commit"),
            _ => engine.note(&change).expect("note"),
        }
        model.insert(key, value);
    }
    same(&engine, &model);
    assert!(engine.shared.seen().turns >= 5, "it never turned");
    assert!(taken_over(engine.shared.engine.as_ref()).expect("number") > Some(0));
    let left = as_killed(temp.path());
    same(&open(left.path(), REDB.1), &model);
    drop(engine);
    same(&open(temp.path(), REDB.1), &model);
}

/// Two keys always change together. Whoever looks while the engine takes over must never see one old
/// and the other new.
#[test]
fn a_look_sees_one_state() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let engine = make(temp.path(), REDB);
    engine
        .commit(&Batch::from([put(1, 0), put(2, 0)]))
        .expect("commit");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    let state = engine.snapshot().expect("look");
                    let one = state.get(b"k\x01").expect("get");
                    let two = state.get(b"k\x02").expect("get");
                    assert_eq!(one, two);
                }
            });
        }
        for n in 0..400_u32 {
            let value = u8::try_from(n % 250).expect("small");
            let changes = Batch::from([put(1, value), put(2, value)]);
            engine.note(&changes).expect("note");
            if n % 3 == 0 {
                engine.settle().expect("settle");
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

/// An engine whose commits fail.
struct Full;

struct Nothing;

impl Snapshot for Nothing {
    fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }
    fn scan(&self, _: &[u8]) -> Result<Pairs, Error> {
        Ok(Pairs::new())
    }
    fn scan_after(&self, _: &[u8], _: &[u8], _: usize) -> Result<Pairs, Error> {
        Ok(Pairs::new())
    }
}

impl Engine for Full {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, Error> {
        Ok(Box::new(Nothing))
    }
    fn commit(&self, _: &Batch) -> Result<(), String> {
        Err("No space left on device (os error 28)".to_owned())
    }
    fn value_bytes_max(&self) -> usize {
        1 << 20
    }
    fn key_bytes_max(&self) -> usize {
        1 << 10
    }
    fn name(&self) -> &'static str {
        "full"
    }
}

#[test]
fn an_engine_that_cannot_take_over_loses_nothing() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = Dir::open(temp.path()).expect("open");
    Redb::create(&dir).expect("make");
    journal::create_missing(&dir).expect("segments");
    let engine = Journaled::open(&dir, Box::new(Full)).expect("open");
    let changes = Batch::from([put(1, 7)]);
    engine.commit(&changes).expect("in the journal");
    let reason = engine.settle().expect_err("no room");
    assert!(reason.contains("No space left"), "{reason}");
    // What there is can still be seen, and as much can be changed as a segment holds.
    let model = BTreeMap::from([(vec![b'k', 1], vec![7])]);
    same(&engine, &model);
    engine
        .commit(&Batch::from([put(2, 8)]))
        .expect("in the journal");
    let mut taken = 0;
    while engine.commit(&Batch::from([put(3, 9)])).is_ok() {
        taken += 1;
        assert!(taken < 10_000, "it takes changes without end");
    }
    drop(engine);
    let model = BTreeMap::from([
        (vec![b'k', 1], vec![7]),
        (vec![b'k', 2], vec![8]),
        (vec![b'k', 3], vec![9]),
    ]);
    same(&open(temp.path(), REDB.1), &model);
}
