//! The same behaviour on both engines: against a model, many writers at once, limits, nesting.

#![allow(missing_docs)]

mod common;

use std::{collections::BTreeMap, sync::Arc, thread};

use cairn_meta::{EngineKind, Error, LeaseRecord, Store, Tx, View, schema};
use cairn_sys::Dir;
use cairn_types::{Classified, ErrorKind, LeaseId, Namespace};
use common::{ENGINES, key, listed, ns, open, record};
use proptest::prelude::*;

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
                thread::spawn(move || {
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
        let caught = thread::spawn(move || {
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

/// As many records of the longest kind as fill many pages, rewritten: sled must not have put one
/// into a file that is never synced.
#[test]
fn long_records_stay_in_the_file_that_is_synced() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let store = open(temp.path(), EngineKind::Sled);
    for round in 0..3 {
        for n in 0..40_u32 {
            let written = store.write(move |tx: &mut Tx<'_>| {
                let lease = LeaseId::parse(&format!("{:03}", n * 37 % 40)).expect("lease");
                let mut record = record(round);
                record.labels = BTreeMap::from([("k".to_owned(), "v".repeat(32_700))]);
                tx.put(&schema::LEASES, &(ns("a"), lease), &record)
            });
            written.expect("write");
            let written = store.write(move |tx: &mut Tx<'_>| {
                let path = format!("{n}{}", "/long".repeat(800));
                let lease = LeaseId::parse("l").expect("lease");
                let key = (ns("a"), lease, path.clone(), path[..1500].to_owned());
                tx.put(&schema::LEASE_RESOURCES, &key, &())
            });
            written.expect("write");
        }
    }
    let blobs = temp.path().join("sled/sled/blobs");
    assert_eq!(std::fs::read_dir(blobs).expect("blobs").count(), 0);
    drop(store);
    assert_eq!(
        listed(&open(temp.path(), EngineKind::Sled), &ns("a")).len(),
        40
    );
}

#[test]
fn what_the_engine_could_not_keep_is_refused_by_name() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = open(temp.path(), kind);
        let err = store
            .write(|tx: &mut Tx<'_>| {
                let mut record = record(1);
                record.labels = BTreeMap::from([("k".to_owned(), "v".repeat(5 << 20))]);
                tx.put(&schema::LEASES, &key(4), &record)
            })
            .expect_err("too large");
        assert_eq!(err.kind(), ErrorKind::ResourceExhausted);
        assert!(err.to_string().contains("lease a l4"), "{err}");
        for name in ["x".repeat(70 << 10), "a\0b".to_owned()] {
            let err = store
                .write(move |tx: &mut Tx<'_>| tx.next_id(&name))
                .expect_err("no key");
            assert_eq!(err.kind(), ErrorKind::InvalidArgument);
            assert!(
                err.to_string().len() < 400,
                "the error quotes the whole key"
            );
        }
        assert_eq!(listed(&store, &ns("a")), []);
    }
}

/// All of this would hang if it went wrong.
#[test]
fn looks_nest_and_a_change_inside_is_refused() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = open(temp.path(), kind);
        let writer = {
            let store = store.clone();
            thread::spawn(move || (0..200).for_each(|n| common::put(&store, 2, n)))
        };
        for _ in 0..200 {
            let seen = store.read(|outer| {
                let inner = listed(&store, &ns("a"));
                let refused = store.write(|_: &mut Tx<'_>| Ok::<(), Error>(()));
                assert!(matches!(refused, Err(Error::Nested)));
                let outer = outer.scan(&schema::LEASES, &ns("a"))?;
                Ok::<_, Error>((outer.len(), inner.len()))
            });
            seen.expect("read");
        }
        writer.join().expect("writer");

        let inner = store.clone();
        let outcome = store.write(move |tx: &mut Tx<'_>| {
            tx.put(&schema::LEASES, &key(0), &record(1))?;
            let committed = listed(&inner, &ns("a")).len();
            let refused = inner.write(|_: &mut Tx<'_>| Ok::<(), Error>(()));
            Ok::<_, Error>((committed, matches!(refused, Err(Error::Nested))))
        });
        assert_eq!(outcome.expect("write"), (1, true));
        // A panic inside a look takes nothing along.
        let looking = store.clone();
        let panicked =
            thread::spawn(move || looking.read(|_| -> Result<(), Error> { panic!("on purpose") }));
        assert!(panicked.join().is_err());
        common::put(&store, 4, 1);
    }
}

#[test]
fn a_table_is_read_in_parts_without_holding_on_to_a_state() {
    for kind in ENGINES {
        let there = tempfile::tempdir().expect("directory");
        let store = open(there.path(), kind);
        for n in 0..10 {
            common::put(&store, n, i64::from(n));
        }
        for limit in [1, 3, 10, 11] {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let part = store.read(|r| r.sound_part(&schema::LEASES, after.as_ref(), limit));
                let ((sound, damaged), end) = part.expect("part");
                assert!(sound.len() <= limit && damaged.is_empty());
                seen.extend(sound.into_iter().map(|(key, _)| key));
                match end {
                    Some(end) => after = Some(end),
                    None => break,
                }
            }
            let mut expected: Vec<_> = (0..10).map(key).collect();
            expected.sort();
            assert_eq!(seen, expected, "{limit}");
        }
    }
}
