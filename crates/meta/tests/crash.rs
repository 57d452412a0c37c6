//! What survives kills and damage, on both engines.

#![allow(missing_docs)]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use cairn_meta::{EngineKind, Store, Tx, View, schema};
use cairn_sys::Dir;
use cairn_types::LeaseId;
use common::{ENGINES, key, listed, ns, open, put, record};

/// Finds the record's bytes in the file and flips one bit there.
#[test]
fn a_flipped_bit_is_noticed_and_costs_nothing() {
    let temp = tempfile::tempdir().expect("temporary directory");
    let store = open(temp.path(), EngineKind::Redb);
    put(&store, 4, 0x0123_4567_89ab_cdef);
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
    let store = open(temp.path(), EngineKind::Redb);
    assert_eq!(listed(&store, &ns("a")), [(key(4), 0x0123_4567_89ab_cdef)]);
    let rebuilt = store.rebuilt().expect("made anew");
    assert_eq!(rebuilt.lost, Vec::<String>::new());
    assert_eq!(rebuilt.aside.len(), 1);
}

/// Whatever byte is hit, no look panics and none returns a record that was never written.
#[test]
fn flipped_bits_anywhere_never_become_a_wrong_value() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let store = open(temp.path(), kind);
        (0..60).for_each(|n| put(&store, n, i64::from(n)));
        drop(store);
        let path = temp.path().join(match kind {
            EngineKind::Redb => "redb/records.redb",
            EngineKind::Sled => "sled/sled/db",
        });
        let whole = std::fs::read(&path).expect("read");
        let used: Vec<usize> = (0..whole.len()).filter(|&i| whole[i] != 0).collect();
        let mut noticed = 0_u32;
        // The same damage in every run.
        let mut state = 99_usize;
        for flips in std::iter::repeat_n(40, 60).chain(1..40) {
            let victim = tempfile::tempdir().expect("temporary directory");
            copy(temp.path(), victim.path());
            let mut bytes = whole.clone();
            for _ in 0..flips {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                bytes[used[(state >> 33) % used.len()]] ^= 1 << (state >> 20 & 7);
            }
            let damaged = victim
                .path()
                .join(path.strip_prefix(temp.path()).expect("inside"));
            std::fs::write(damaged, bytes).expect("write");
            let dir = Dir::open(victim.path()).expect("open");
            let store = Store::open(&dir, kind).expect("whatever is hit");
            noticed += u32::from(store.rebuilt().is_some());
            for n in 0..60 {
                let found = store.read(|r| r.get(&schema::LEASES, &key(n)));
                let found = found.expect("it proves itself").expect("it is there");
                assert_eq!(found.created_at.0, i64::from(n));
            }
        }
        assert!(noticed > 0, "{kind:?}: no flip hit anything");
    }
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp")
        .arg("-a")
        .arg(from.join("."))
        .arg(to)
        .status();
    assert!(status.expect("cp").success());
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
        // Past the test harness's capture, so that the parent sees it at once.
        writeln!(
            std::fs::File::create("/proc/self/fd/2").expect("stderr"),
            "acked {i}"
        )
        .expect("ack");
    }
}

/// Kills at growing delays from the first instruction on, so that some hit the making of the files.
#[test]
fn a_kill_at_the_first_start_is_coped_with() {
    for kind in ENGINES {
        let mut cut_short = 0;
        for round in 0..40_u64 {
            let temp = tempfile::tempdir().expect("temporary directory");
            let mut child = Command::new(std::env::current_exe().expect("test binary"))
                .args(["--exact", "victim", "--nocapture"])
                .env(CHILD, format!("{} {}", kind.name(), temp.path().display()))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start");
            std::thread::sleep(Duration::from_micros(round * 400));
            child.kill().expect("kill");
            child.wait().expect("wait");
            cut_short += u32::from(temp.path().join("init.tmp").exists());
            let store = open(temp.path(), kind);
            put(&store, 1, 1);
            drop(store);
            assert_eq!(listed(&open(temp.path(), kind), &ns("ab")).len(), 1);
            assert!(!temp.path().join("init.tmp").exists());
        }
        assert!(
            cut_short > 0,
            "{kind:?}: no kill hit the making of the files"
        );
    }
}

#[test]
fn what_was_acknowledged_survives_kills() {
    for kind in ENGINES {
        let temp = tempfile::tempdir().expect("temporary directory");
        let mut last = None;
        for round in 0..80_u64 {
            // Longer only where a machine has so much else to do that none came to a commit.
            if round >= 20 && last.is_some() {
                break;
            }
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
