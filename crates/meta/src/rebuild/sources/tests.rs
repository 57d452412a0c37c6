use std::{collections::BTreeMap, fs, path::Path};

use tempfile::TempDir;

use super::*;
use crate::{
    copy::{Log, Writer},
    journal::{self, Journal},
    rebuild::build,
    record,
    store::open_kept,
};

const KIND: EngineKind = EngineKind::Redb;
/// Where an engine says how far it has come.
const PLACE: &[u8] = b"\0journal\0";

type Records<'r> = &'r [(&'r str, u64)];

fn changes(records: Records<'_>) -> Batch {
    let change = |(name, value): &(&str, u64)| {
        // A lease's.
        let key = [&[8], name.as_bytes(), &[0]].concat();
        let value = record::seal(&key, value);
        (key, Some(value))
    };
    records.iter().map(change).collect()
}

/// Records of which some have gone wrong.
struct Damaged {
    temp: TempDir,
    dir: Dir,
    inside: Dir,
}

impl Damaged {
    fn new() -> Damaged {
        let temp = tempfile::tempdir().expect("temporary directory");
        let dir = Dir::open(temp.path()).expect("open");
        let name = OsStr::new(KIND.name());
        dir.create_dir(name, 0o700).expect("make");
        let inside = dir.open_dir(name).expect("open");
        Damaged { temp, dir, inside }
    }

    /// An engine that has all changes up to `known`.
    fn engine(self, known: Option<u64>, records: Records<'_>) -> Damaged {
        engine::create(KIND, &self.inside).expect("make");
        let engine = engine::open(KIND, &self.inside).expect("open");
        let mut batch = changes(records);
        let place = known.map(|known| record::seal(PLACE, &known));
        batch.insert(PLACE.to_vec(), place);
        engine.commit(&batch).expect("commit");
        self
    }

    fn copy(self, number: u64, records: Records<'_>, is_ended: bool) -> Damaged {
        let mut copy = Writer::create(&self.inside, &copy_name(number)).expect("make");
        copy.append(number, 0, &changes(records)).expect("write");
        if is_ended {
            copy.append(number, 1, &Batch::new()).expect("write");
        }
        self
    }

    /// What was taken over after the change `first`: up to which number, and what.
    fn log(self, first: u64, loads: &[(u64, Records<'_>)]) -> Damaged {
        let mut log = Log::create(&self.inside, first).expect("make");
        for (last, records) in loads {
            log.append(*last, &changes(records)).expect("write");
        }
        self
    }

    /// Has what was changed after `before`, one change each.
    fn journal(self, before: u64, frames: &[Records<'_>]) -> Damaged {
        journal::create_missing(&self.inside).expect("make");
        let found = Journal::open(&self.inside, before).ok().expect("open");
        let mut journal = found.journal;
        for records in frames {
            let frame = journal.pack(&changes(records)).expect("pack");
            journal.append(&frame).expect("write");
            journal.sync().expect("sync");
        }
        self
    }

    /// Makes them anew; which there are then, and what is lost.
    fn rebuilt(&self, why: &Error) -> (BTreeMap<String, u64>, Vec<String>) {
        let name = OsStr::new("made");
        self.dir.remove_tree(name).expect("remove");
        self.dir.create_dir(name, 0o700).expect("make");
        let made = self.dir.open_dir(name).expect("open");
        let report = build(&self.dir, &made, KIND, why).expect("made anew");
        let engine = engine::open(KIND, &made).expect("open");
        let pairs = engine.snapshot().expect("look").scan(&[8]).expect("scan");
        let records = pairs.iter().map(|(key, value)| {
            let name = String::from_utf8_lossy(&key[1..key.len() - 1]);
            (name.into_owned(), record::open(key, value).expect("proven"))
        });
        (records.collect(), report.lost)
    }
}

fn of(records: Records<'_>) -> BTreeMap<String, u64> {
    let records = records.iter();
    records.map(|(k, v)| ((*k).to_owned(), *v)).collect()
}

/// The journal is, and the engine is not.
fn journal_is() -> Error {
    Error::Damaged("on purpose".to_owned())
}

fn engine_is() -> Error {
    Error::Open {
        path: String::new(),
        engine: KIND.name(),
        reason: "on purpose".to_owned(),
        kind: ErrorKind::DataLoss,
    }
}

/// A log was given up, and the next one has come further than the engine, as it does before each load. What came
/// between the two is in the engine alone.
#[test]
fn an_engine_is_kept_that_has_what_no_log_has() {
    let damaged = Damaged::new()
        .engine(Some(10), &[("a", 10), ("x", 7)])
        .copy(0, &[], true)
        .log(0, &[(3, &[("a", 3)])])
        .log(10, &[(12, &[("b", 12)])])
        .journal(12, &[&[("c", 13)]]);
    let (records, lost) = damaged.rebuilt(&journal_is());
    assert_eq!(records, of(&[("a", 10), ("b", 12), ("c", 13), ("x", 7)]));
    assert_eq!(lost, Vec::<String>::new());
}

/// Its copy and the logs lack nothing.
#[test]
fn an_engine_that_has_lost_what_it_had_gives_way() {
    let damaged = Damaged::new()
        .engine(Some(1), &[("a", 1), ("x", 1)])
        .copy(0, &[], true)
        .log(0, &[(1, &[("a", 1)]), (2, &[("b", 2)]), (3, &[("a", 3)])])
        .journal(3, &[&[("c", 4)]]);
    let (records, lost) = damaged.rebuilt(&journal_is());
    assert_eq!(records, of(&[("a", 3), ("b", 2), ("c", 4)]));
    assert_eq!(lost, Vec::<String>::new());
}

/// Whether or not it says how far it has come.
#[test]
fn what_no_log_has_is_read_from_a_damaged_engine() {
    for known in [Some(10), None] {
        let damaged = Damaged::new()
            .engine(known, &[("a", 10), ("x", 7)])
            .copy(0, &[("old", 0)], true)
            .log(0, &[(3, &[("a", 3)])])
            .journal(10, &[&[("c", 11)]]);
        let (records, lost) = damaged.rebuilt(&engine_is());
        let right = of(&[("a", 10), ("c", 11), ("old", 0), ("x", 7)]);
        assert_eq!(records, right);
        assert_eq!(
            lost,
            [
                "changes 4 to 10 of the journal",
                "but for what can still be read of the engine"
            ]
        );
    }
}

/// Of the copy something is missing, and the engine is older than it.
#[test]
fn the_older_is_below_the_newer() {
    let damaged = Damaged::new()
        .engine(Some(3), &[("a", 3), ("y", 3)])
        .copy(5, &[("a", 5)], false)
        .journal(5, &[&[("c", 6)]]);
    for why in [journal_is(), engine_is()] {
        let (records, lost) = damaged.rebuilt(&why);
        assert_eq!(records, of(&[("a", 5), ("c", 6), ("y", 3)]));
        assert_eq!(lost, ["the end of the records' copy"]);
    }
}

/// An engine that was never given anything has no copy and no number.
#[test]
fn a_loss_before_all_that_is_there_is_told() {
    let damaged = Damaged::new()
        .engine(None, &[])
        .journal(0, &[&[("a", 1)], &[("b", 2)], &[("c", 3)]]);
    let path = damaged.temp.path().join("redb/journal.a");
    let mut bytes = fs::read(&path).expect("read");
    bytes[20] ^= 1;
    fs::write(path, bytes).expect("write");
    let (records, lost) = damaged.rebuilt(&journal_is());
    assert_eq!(records, of(&[("b", 2), ("c", 3)]));
    assert_eq!(lost, ["change 1 of the journal"]);
}

/// Also when the log that tells of it follows on no copy.
#[test]
fn a_journal_that_lost_what_a_log_has_is_damaged() {
    let damaged = Damaged::new()
        .engine(Some(10), &[("a", 10)])
        .copy(0, &[], true)
        .log(10, &[(12, &[("b", 12)])])
        .journal(9, &[&[("a", 10)]]);
    let err = open_kept(&damaged.dir, KIND).err().expect("damaged");
    let told = matches!(&err, Error::Damaged(text) if text.contains("of which the log has 12"));
    assert!(told, "{err}");
    let (records, lost) = damaged.rebuilt(&err);
    assert_eq!(records, of(&[("a", 10), ("b", 12)]));
    assert_eq!(lost, ["what was changed after change 12, if anything was"]);
}

/// Makes the pages of the engine that have these records such as cannot be read.
fn spoil(path: &Path, names: &[&str]) {
    let mut bytes = fs::read(path).expect("read");
    for name in names {
        let key = [&[8], name.as_bytes(), &[0]].concat();
        let found = bytes.windows(key.len()).enumerate();
        let found = found.filter(|(_, window)| *window == key);
        let pages: Vec<usize> = found.map(|(at, _)| at / 4096 * 4096).collect();
        // Those that hold records begin so.
        let leaves: Vec<usize> = pages.into_iter().filter(|page| bytes[*page] == 1).collect();
        assert!(!leaves.is_empty(), "{name}");
        for page in leaves {
            // Behind its head it says where each of its keys ends.
            bytes[page + 4..page + 200].fill(0xff);
        }
    }
    fs::write(path, bytes).expect("write");
}

#[test]
fn what_is_around_unreadable_pages_is_read() {
    let names: Vec<String> = (0..3000).map(|n| format!("{n:05}")).collect();
    let records: Vec<(&str, u64)> = names.iter().map(String::as_str).zip(0..).collect();
    for spoiled in [&["01500"][..], &["00000"], &["00500", "01500", "02999"]] {
        let damaged = Damaged::new().engine(Some(0), &records).journal(0, &[]);
        let path = damaged.temp.path().join("redb/records.redb");
        spoil(&path, spoiled);
        let (found, lost) = damaged.rebuilt(&engine_is());
        let told = "lease records that cannot be read".to_owned();
        assert!(lost.contains(&told), "{spoiled:?}: {lost:?}");
        // A page has some hundred.
        let missing = records.len() - found.len();
        assert!(missing < 200 * spoiled.len(), "{spoiled:?}: {missing}");
        for name in spoiled {
            assert!(!found.contains_key(*name), "{name}");
        }
        for near in ["00300", "00900", "01200", "01800"] {
            assert!(found.contains_key(near), "{spoiled:?}: {near}");
        }
    }
}
