//! The same behaviour on both engines: against a model, many writers at once, damage, kills.

#![allow(missing_docs)]

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use cairn_meta::{EngineKind, Error, LeaseRecord, Store, Timestamp, Tx, View, schema};
use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind, LeaseId, Namespace};
use proptest::prelude::*;

const ENGINES: [EngineKind; 2] = [EngineKind::Redb, EngineKind::Sled];

fn open(path: &Path, kind: EngineKind) -> Store {
    Store::open(&Dir::open(path).expect("open"), kind).expect("records")
}

fn ns(text: &str) -> Namespace {
    Namespace::parse(text).expect("namespace")
}

fn key(n: u8) -> (Namespace, LeaseId) {
    // Two namespaces, of which one is the beginning of the other.
    let ns = ns(if n & 1 == 0 { "a" } else { "ab" });
    (ns, LeaseId::parse(&format!("l{n}")).expect("lease"))
}

fn record(value: i64) -> LeaseRecord {
    LeaseRecord {
        labels: BTreeMap::new(),
        created_at: Timestamp(value),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put(u8, i64),
    Delete(u8),
}

#[derive(Clone, Debug)]
enum Act {
    Write { steps: Vec<Step>, fails: bool },
    Reopen,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let step = prop_oneof![
        3 => (0_u8..12, any::<i64>()).prop_map(|(k, v)| Step::Put(k, v)),
        1 => (0_u8..12).prop_map(Step::Delete),
    ];
    let write = (prop::collection::vec(step, 1..5), prop::bool::weighted(0.2))
        .prop_map(|(steps, fails)| Act::Write { steps, fails });
    prop::collection::vec(prop_oneof![12 => write, 1 => Just(Act::Reopen)], 1..25)
}

type Model = BTreeMap<(Namespace, LeaseId), i64>;

fn write(store: &Store, steps: Vec<Step>, fails: bool) -> Result<Vec<Option<i64>>, Error> {
    store.write(move |tx: &mut Tx<'_>| {
        let mut seen = Vec::new();
        for step in steps {
            match step {
                Step::Put(k, v) => tx.put(&schema::LEASES, &key(k), &record(v))?,
                Step::Delete(k) => tx.delete(&schema::LEASES, &key(k))?,
            }
            // A transaction sees its own writes.
            seen = tx.scan(&schema::LEASES, &ns("a"))?;
        }
        if fails {
            return Err(Error::Read("on purpose".to_owned()));
        }
        Ok(seen
            .into_iter()
            .map(|(_, r): ((Namespace, LeaseId), LeaseRecord)| Some(r.created_at.0))
            .collect())
    })
}

fn listed(store: &Store, prefix: &Namespace) -> Vec<((Namespace, LeaseId), i64)> {
    let all = store
        .read(|r| r.scan(&schema::LEASES, prefix))
        .expect("scan");
    all.into_iter().map(|(k, r)| (k, r.created_at.0)).collect()
}

fn check_model(kind: EngineKind, acts: Vec<Act>) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let mut store = open(temp.path(), kind);
    let mut model = Model::new();
    for act in acts {
        match act {
            Act::Reopen => {
                drop(store);
                store = open(temp.path(), kind);
            }
            Act::Write { steps, fails } => {
                let mut after = model.clone();
                for step in &steps {
                    match step {
                        Step::Put(k, v) => after.insert(key(*k), *v),
                        Step::Delete(k) => after.remove(&key(*k)),
                    };
                }
                let result = write(&store, steps, fails);
                assert_eq!(result.is_err(), fails);
                if let Ok(seen) = result {
                    model = after;
                    let inside = model.iter().filter(|((n, _), _)| *n == ns("a"));
                    assert_eq!(seen, inside.map(|(_, v)| Some(*v)).collect::<Vec<_>>());
                }
            }
        }
        for prefix in [ns("a"), ns("ab")] {
            let expected: Vec<_> = model
                .iter()
                .filter(|((n, _), _)| *n == prefix)
                .map(|(k, v)| (k.clone(), *v))
                .collect();
            assert_eq!(listed(&store, &prefix), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn redb_behaves_like_a_map(acts in acts()) {
        check_model(EngineKind::Redb, acts);
    }

    #[test]
    fn sled_behaves_like_a_map(acts in acts()) {
        check_model(EngineKind::Sled, acts);
    }
}

#[test]
fn sixteen_writers_lose_nothing_and_share_numbers() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = Arc::new(open(temp.path(), kind));
        let writers: Vec<_> = (0..16)
            .map(|writer| {
                let store = Arc::clone(&store);
                std::thread::spawn(move || {
                    (0..25)
                        .map(|i| {
                            store
                                .write(move |tx: &mut Tx<'_>| {
                                    let id = tx.next_id("test")?;
                                    let lease = LeaseId::parse(&format!("{writer}-{i}"));
                                    let key = (ns("a"), lease.expect("lease"));
                                    tx.put(&schema::LEASES, &key, &record(i))?;
                                    Ok::<u64, Error>(id)
                                })
                                .expect("write")
                        })
                        .collect::<Vec<u64>>()
                })
            })
            .collect();
        let mut ids: Vec<u64> = writers
            .into_iter()
            .flat_map(|w| w.join().expect("writer"))
            .collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=400).collect::<Vec<u64>>());
        drop(store);
        assert_eq!(listed(&open(temp.path(), kind), &ns("a")).len(), 400);
    }
}

#[test]
fn a_panic_in_a_transaction_is_its_callers_own() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = open(temp.path(), kind);
        let panicking = store.clone();
        let caught = std::thread::spawn(move || {
            panicking.write(|_: &mut Tx<'_>| -> Result<(), Error> { panic!("on purpose") })
        });
        assert!(caught.join().is_err());
        write(&store, vec![Step::Put(0, 1)], false).expect("the thread lives on");
    }
}

#[test]
fn the_other_engines_records_are_not_overlooked() {
    let temp = tempfile::tempdir().expect("temporary directory");
    drop(open(temp.path(), EngineKind::Sled));
    let dir = Dir::open(temp.path()).expect("open");
    let err = Store::open(&dir, EngineKind::Redb)
        .err()
        .expect("must be refused");
    assert!(err.to_string().contains("written by sled"), "{err}");
}

#[test]
fn leftovers_of_a_killed_start_are_coped_with() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir_all(temp.path().join("init.tmp/sled")).expect("leftover");
        std::fs::write(temp.path().join("init.tmp/records.redb"), "half").expect("leftover");
        let store = open(temp.path(), kind);
        write(&store, vec![Step::Put(0, 1)], false).expect("write");
        drop(store);
        if kind == EngineKind::Sled {
            // As sled leaves it when it is killed while starting.
            let half = temp
                .path()
                .join("sled/sled/snap.0000000000000FFF.generating");
            std::fs::write(half, "half").expect("leftover");
        }
        assert_eq!(listed(&open(temp.path(), kind), &ns("a")).len(), 1);
    }
}

/// Finds the record's bytes in the file and flips one bit there.
#[test]
fn a_flipped_bit_is_data_loss_and_names_the_record() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let store = open(temp.path(), EngineKind::Redb);
    write(&store, vec![Step::Put(4, 0x0123_4567_89ab_cdef)], false).expect("write");
    drop(store);
    let path = temp.path().join("redb/records.redb");
    let mut bytes = std::fs::read(&path).expect("read");
    let needle = 0x0123_4567_89ab_cdef_i64.to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 8)
        .filter(|&i| bytes[i..i + 8] == needle)
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at] ^= 1;
    }
    std::fs::write(&path, bytes).expect("write");
    let dir = Dir::open(temp.path()).expect("open");
    match Store::open(&dir, EngineKind::Redb) {
        // The engine may notice by itself; what must not happen is a wrong value.
        Err(err) => assert_eq!(err.kind(), ErrorKind::Internal),
        Ok(store) => {
            let err = store
                .read(|r| r.get(&schema::LEASES, &key(4)))
                .expect_err("damaged");
            assert_eq!(err.kind(), ErrorKind::DataLoss);
            assert!(err.to_string().contains("lease a l4"), "{err}");
        }
    }
}

const CHILD: &str = "CAIRN_META_TEST_CHILD";

/// Not a test by itself: the victim of the next one, when started by it.
#[test]
fn victim() {
    let Ok(text) = std::env::var(CHILD) else {
        return;
    };
    let (engine, path) = text.split_once(' ').expect("engine and path");
    let kind = if engine == "sled" {
        EngineKind::Sled
    } else {
        EngineKind::Redb
    };
    let store = open(Path::new(path), kind);
    let begin = listed(&store, &ns("a")).len();
    for i in begin.. {
        let lease = LeaseId::parse(&format!("{i:08}")).expect("lease");
        let value = i64::try_from(i).expect("small");
        store
            .write(move |tx: &mut Tx<'_>| {
                tx.put(&schema::LEASES, &(ns("a"), lease), &record(value))
            })
            .expect("write");
        use std::io::Write;
        // Past the test harness's capture, so that the parent sees it at once.
        writeln!(
            std::fs::File::create("/proc/self/fd/2").expect("stderr"),
            "acked {i}"
        )
        .expect("ack");
    }
}

#[test]
fn what_was_acknowledged_survives_kills() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let mut last = None;
        for round in 0..12_u64 {
            let mut child = Command::new(std::env::current_exe().expect("test binary"))
                .args(["--exact", "victim", "--nocapture"])
                .env(CHILD, format!("{} {}", kind.name(), temp.path().display()))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .expect("start");
            let lines = BufReader::new(child.stderr.take().expect("stderr"));
            let reader = std::thread::spawn(move || {
                let acks = lines.lines().map_while(Result::ok);
                acks.filter_map(|l| l.strip_prefix("acked ")?.parse::<usize>().ok())
                    .last()
            });
            // From the middle of opening to some hundred commits later.
            std::thread::sleep(Duration::from_millis(5 + round * 17));
            child.kill().expect("kill");
            child.wait().expect("wait");
            last = reader.join().expect("reader").or(last);
            if let Some(last) = last {
                let there = listed(&open(temp.path(), kind), &ns("a"));
                assert!(
                    there.len() > last,
                    "{kind:?}: {last} was acknowledged, {} are there",
                    there.len()
                );
                for (i, (_, value)) in there.iter().enumerate() {
                    assert_eq!(*value, i64::try_from(i).expect("small"));
                }
            }
        }
        assert!(last.is_some(), "no round got as far as a commit");
    }
}
