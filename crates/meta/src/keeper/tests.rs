use std::{fs, os::unix::fs::MetadataExt};

use tempfile::TempDir;

use super::*;
use crate::{EngineKind, copy, engine};

/// A lease's.
fn key(number: u32) -> Vec<u8> {
    [&[8], number.to_string().as_bytes(), &[0]].concat()
}

fn sound(number: u32) -> (Vec<u8>, Option<Vec<u8>>) {
    let value = record::seal(&key(number), &u64::from(number));
    (key(number), Some(value))
}

/// An engine with so many records, and a copy of none that no log follows on.
fn made(records: u32) -> (TempDir, Dir, Box<dyn Engine>) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = Dir::open(temp.path()).expect("open");
    engine::create(EngineKind::Redb, &dir).expect("make");
    let engine = engine::open(EngineKind::Redb, &dir).expect("open");
    let batch: Batch = (0..records).map(sound).collect();
    engine.commit(&batch).expect("commit");
    copy::create_empty(&dir).expect("copy");
    dir.unlink(OsStr::new("log.0")).expect("remove");
    (temp, dir, engine)
}

fn names(dir: &Dir) -> (Vec<u64>, Vec<u64>) {
    let Names { copies, logs } = Names::of(dir).expect("list");
    (copies, logs)
}

fn go_to_the_end(keeper: &mut Keeper, engine: &dyn Engine) {
    while keeper.is_copying() {
        keeper.go_on(engine);
    }
}

#[test]
fn a_copy_that_was_given_up_is_begun_again() {
    let (temp, dir, engine) = made(3);
    let mut keeper = Keeper::open(&dir);
    // No copy can be given its name.
    fs::create_dir(temp.path().join("copy.5")).expect("make");
    keeper.look(5, engine.as_ref());
    assert!(keeper.is_copying());
    go_to_the_end(&mut keeper, engine.as_ref());
    fs::remove_dir(temp.path().join("copy.5")).expect("remove");
    assert_eq!(names(&dir), (vec![0], vec![]));
    keeper.look(6, engine.as_ref());
    assert!(keeper.is_copying(), "nothing has a copy");
    go_to_the_end(&mut keeper, engine.as_ref());
    assert_eq!(names(&dir), (vec![6], vec![6]));
}

/// The engine does not know of it, and the copy before has it whole.
#[test]
fn a_copy_is_not_made_of_a_damaged_record() {
    let (_temp, dir, engine) = made(3);
    let damaged = Batch::from([(key(1), Some(b"no record".to_vec()))]);
    engine.commit(&damaged).expect("commit");
    let mut keeper = Keeper::open(&dir);
    for last in [5, 6] {
        keeper.look(last, engine.as_ref());
        assert_eq!(keeper.is_copying(), last == 5, "it is known by then");
        go_to_the_end(&mut keeper, engine.as_ref());
        assert_eq!(names(&dir), (vec![0], vec![]));
    }
    engine.commit(&Batch::from([sound(1)])).expect("mend");
    keeper.look(7, engine.as_ref());
    go_to_the_end(&mut keeper, engine.as_ref());
    assert_eq!(names(&dir), (vec![7], vec![7]));
}

/// More records than are copied at the end of a process.
const MANY: u32 = 64 * 256 + 1;
const _: () = assert!(MANY as usize > LAST_PARTS * PART);

/// A process for each command, of which none lives long enough.
#[test]
fn processes_that_end_at_once_make_a_copy_all_the_same() {
    let (_temp, dir, engine) = made(MANY);
    let change = Batch::from([sound(0)]);
    let mut keeper = Keeper::open(&dir);
    keeper.look(5, engine.as_ref());
    keeper.end(engine.as_ref());
    assert_eq!(names(&dir), (vec![5], vec![5]), "there was none");

    // There is one, and others are left to make the next.
    let mut keeper = Keeper::open(&dir);
    keeper.logged = LOG_BYTES_MIN;
    keeper.note(change.iter(), 6, true);
    keeper.look(6, engine.as_ref());
    assert!(keeper.is_copying());
    keeper.end(engine.as_ref());
    assert_eq!(names(&dir), (vec![5], vec![5, 6]));
    let left = dir.try_stat(OsStr::new(UNFINISHED)).expect("look");
    assert!(left.is_none());

    // They all did.
    let mut keeper = Keeper::open(&dir);
    keeper.logged = 2 * LOG_BYTES_MIN;
    keeper.note(change.iter(), 7, true);
    assert_eq!(keeper.logged_to(), Some(7));
    keeper.look(7, engine.as_ref());
    keeper.end(engine.as_ref());
    assert_eq!(names(&dir), (vec![7], vec![7]));
}

/// What is cut off is no copy, and says that there was one.
#[test]
fn a_copy_without_its_end_is_made_anew() {
    let (temp, dir, engine) = made(3);
    let path = temp.path().join("copy.5");
    let mut keeper = Keeper::open(&dir);
    keeper.look(5, engine.as_ref());
    keeper.end(engine.as_ref());
    assert_eq!(Keeper::open(&dir).logged_to(), Some(5));
    let bytes = fs::read(&path).expect("read");
    for cut in [0, 100, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).expect("cut");
        let mut keeper = Keeper::open(&dir);
        assert!(keeper.has_copy());
        assert_eq!(keeper.logged_to(), None);
        keeper.look(5, engine.as_ref());
        keeper.end(engine.as_ref());
        assert_eq!(fs::read(&path).expect("read").len(), bytes.len());
    }
}

/// Until there is a first copy it counts for as much as the engine takes: for the room that it needs, and for how
/// long its log may become meanwhile.
#[test]
fn the_first_copy_is_thought_to_be_as_large_as_the_engine() {
    let (temp, dir, engine) = made(3);
    let file = fs::metadata(temp.path().join("records.redb")).expect("stat");
    let bytes = file.blocks() * 512;
    let mut keeper = Keeper::open(&dir);
    assert_eq!(keeper.wanted(), (bytes, bytes + SPARE_BYTES));
    keeper.look(5, engine.as_ref());
    assert_eq!(keeper.copied, bytes);
    keeper.end(engine.as_ref());
    assert!(keeper.copied < bytes);
}
