//! Reading in parts and hearing of what changes meanwhile gives one state, on both engines.

#![allow(missing_docs)]

mod common;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use cairn_meta::{Error, Store, Timestamp, Tx, View, Watch, schema};
use cairn_types::{LeaseId, Namespace};
use common::{ENGINES, key, listed, ns, open, record};

const KEYS: u8 = 40;
const TOTAL: i64 = 1_000;

type State = BTreeMap<(Namespace, LeaseId), i64>;

/// Takes from one record and gives to another; one that has nothing left is removed.
fn transfer(store: &Store, from: u8, to: u8) {
    let written = store.write(move |tx: &mut Tx<'_>| {
        let value = |tx: &Tx<'_>, n| {
            let known = tx.get(&schema::LEASES, &key(n))?;
            Ok::<_, Error>(known.map_or(0, |record| record.created_at.0))
        };
        let amount = value(tx, from)?.min(7);
        for (n, by) in [(from, -amount), (to, amount)] {
            match value(tx, n)? + by {
                0 => tx.delete(&schema::LEASES, &key(n))?,
                sum => tx.put(&schema::LEASES, &key(n), &record(sum))?,
            }
        }
        Ok::<_, Error>(())
    });
    written.expect("transfer");
}

fn catch_up(state: &mut State, watch: &Watch) {
    for change in watch.take() {
        let Some(change) = change.of(&schema::LEASES) else {
            continue;
        };
        match change.expect("sound") {
            (key, Some(record)) => state.insert(key, record.created_at.0),
            (key, None) => state.remove(&key),
        };
    }
}

/// One record at a time, so that as much as possible changes in between.
fn read_in_parts(store: &Store) -> State {
    let (mut state, mut last) = (State::new(), None);
    loop {
        let part = store.read(|reader| reader.part(&schema::LEASES, last.as_ref(), 1));
        let Some((key, record)) = part.expect("part").pop() else {
            return state;
        };
        state.insert(key.clone(), record.created_at.0);
        last = Some(key);
    }
}

#[test]
fn parts_and_changes_make_one_state() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = open(temp.path(), kind);
        common::put(&store, 0, TOTAL);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for writer in 0..3_u8 {
                let (store, stop) = (&store, &stop);
                scope.spawn(move || {
                    let mut n = writer;
                    while !stop.load(Ordering::Relaxed) {
                        n = n.wrapping_mul(5).wrapping_add(1 + writer);
                        transfer(store, n % KEYS, n.wrapping_mul(11) % KEYS);
                    }
                });
            }
            for _ in 0..20 {
                let watch = store.watch().expect("watch");
                let mut state = read_in_parts(&store);
                for _ in 0..5 {
                    catch_up(&mut state, &watch);
                    // Nothing is lost, come twice or half.
                    assert_eq!(state.values().sum::<i64>(), TOTAL, "{kind:?}");
                    transfer(&store, 0, 1);
                }
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_transaction_has_heard_of_all_before_it() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = open(temp.path(), kind);
        let watch = std::sync::Arc::new(store.watch().expect("watch"));
        thread::scope(|scope| {
            for n in 0..8 {
                let (store, watch) = (store.clone(), watch.clone());
                scope.spawn(move || {
                    for value in 0..20 {
                        let watch = watch.clone();
                        let seen = store.write(move |tx: &mut Tx<'_>| {
                            let seen = tx.scan(&schema::LEASES, &())?;
                            tx.put(&schema::LEASES, &key(n), &record(value))?;
                            Ok::<_, Error>((seen, watch.take()))
                        });
                        let (seen, heard) = seen.expect("write");
                        // Whatever it heard of last is what it saw.
                        let mut last = BTreeMap::new();
                        for change in heard {
                            let (key, record) =
                                change.of(&schema::LEASES).expect("lease").expect("sound");
                            last.insert(key, record);
                        }
                        let seen: BTreeMap<_, _> = seen.into_iter().collect();
                        for (key, record) in last {
                            assert_eq!(seen.get(&key), record.as_ref(), "{kind:?}");
                        }
                    }
                });
            }
        });
        assert_eq!(listed(&store, &ns("a")).len(), 4);
    }
}

#[test]
fn what_fails_is_not_heard_of_and_nothing_after_the_end() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = open(temp.path(), kind);
        common::put(&store, 0, 1);
        let watch = store.watch().expect("watch");
        let failed = store.write(|tx: &mut Tx<'_>| {
            tx.put(&schema::LEASES, &key(2), &record(2))?;
            Err::<(), Error>(Error::Read("on purpose".to_owned()))
        });
        failed.expect_err("fails");
        assert_eq!(watch.take(), []);
        common::put(&store, 4, 3);
        let heard = watch.take();
        assert_eq!(heard.len(), 1);
        assert!(heard[0].of(&schema::IMAGES).is_none());
        let (at, known) = heard[0].of(&schema::LEASES).expect("lease").expect("sound");
        assert_eq!((at, known.expect("put").created_at), (key(4), Timestamp(3)));
        drop(watch);
        common::put(&store, 6, 4);
    }
}
