use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;

fn made() -> (TempDir, Dir) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = Dir::open(temp.path()).expect("open");
    create_missing(&dir).expect("create");
    (temp, dir)
}

fn open(dir: &Dir, known: u64) -> Found {
    match Journal::open(dir, known) {
        Ok(found) => found,
        Err(Trouble::Sys(err)) => panic!("{err}"),
        Err(Trouble::Damaged(text)) => panic!("{text}"),
    }
}

fn refused(dir: &Dir, known: u64) -> String {
    match Journal::open(dir, known) {
        Err(Trouble::Damaged(text)) => text,
        Err(Trouble::Sys(err)) => panic!("{err}"),
        Ok(found) => panic!("taken for whole with {} changes", found.changes.len()),
    }
}

fn batch(text: &str) -> Batch {
    Batch::from([(b"k".to_vec(), Some(text.as_bytes().to_vec()))])
}

fn append(journal: &mut Journal, text: &str) {
    let frame = journal.pack(&batch(text)).expect("pack");
    journal.append(&frame).expect("append");
}

fn texts(found: &Found) -> Vec<String> {
    let values = found.changes.iter().map(|batch| {
        let value = batch[&b"k"[..]].as_deref().expect("a value");
        String::from_utf8_lossy(value).into_owned()
    });
    values.collect()
}

fn damage(temp: &Path, segment: usize, page: usize) {
    let path = temp.join(SEGMENTS[segment]);
    let mut bytes = fs::read(&path).expect("read");
    bytes[page * PAGE + 20] ^= 1;
    fs::write(path, bytes).expect("write");
}

#[test]
fn an_opening_finds_what_the_engine_lacks() {
    let (_temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    for text in ["one", "two", "three"] {
        append(&mut journal, text);
        journal.sync().expect("sync");
    }
    assert_eq!(texts(&open(&dir, 0)), ["one", "two", "three"]);
    assert_eq!(texts(&open(&dir, 2)), ["three"]);
    let found = open(&dir, 3);
    assert_eq!((texts(&found).len(), found.journal.last()), (0, 3));
}

#[test]
fn the_next_opening_goes_on_behind_the_last() {
    let (_temp, dir) = made();
    for (opening, text) in ["one", "two", "three"].into_iter().enumerate() {
        let mut found = open(&dir, 0);
        assert_eq!(found.changes.len(), opening);
        append(&mut found.journal, text);
    }
    assert_eq!(texts(&open(&dir, 0)), ["one", "two", "three"]);
}

/// Nobody was promised the second and third frame; the power went while they were written, and only
/// the third got to the disk.
#[test]
fn what_stands_behind_the_end_never_comes_back() {
    let (temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    append(&mut journal, "one");
    journal.sync().expect("sync");
    append(&mut journal, "two");
    append(&mut journal, "old");
    damage(temp.path(), 0, 1);
    let mut found = open(&dir, 0);
    assert_eq!(texts(&found), ["one"]);
    append(&mut found.journal, "new");
    found.journal.sync().expect("sync");
    assert_eq!(texts(&open(&dir, 0)), ["one", "new"]);
}

#[test]
fn a_damaged_frame_that_was_on_the_disk_is_told_of() {
    let (temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    for text in ["one", "two", "three"] {
        append(&mut journal, text);
        journal.sync().expect("sync");
    }
    damage(temp.path(), 0, 1);
    let text = refused(&dir, 0);
    assert_eq!(text, "change 2 in its journal does not prove itself");
    // The engine has it.
    assert_eq!(texts(&open(&dir, 3)).len(), 0);
}

fn fill(journal: &mut Journal) -> u64 {
    loop {
        let frame = journal.pack(&batch("full")).expect("pack");
        if journal.is_full(&frame) {
            return journal.last();
        }
        journal.append(&frame).expect("append");
    }
}

#[test]
fn two_segments_are_one_journal() {
    let (temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    let first = fill(&mut journal);
    assert_eq!(first, SEGMENT_BYTES / PAGE as u64);
    journal.switch().expect("switch");
    append(&mut journal, "next");
    let found = open(&dir, 0);
    assert!(found.in_both);
    assert_eq!(found.changes.len() as u64, first + 1);
    let found = open(&dir, first);
    assert!(!found.in_both);
    assert_eq!(texts(&found), ["next"]);
    // Round, over what the first one held.
    journal.switch().expect("switch");
    append(&mut journal, "again");
    journal.sync().expect("sync");
    assert_eq!(texts(&open(&dir, first + 1)), ["again"]);
    // The engine does not have the one frame between.
    damage(temp.path(), 1, 0);
    let text = refused(&dir, first);
    assert_eq!(
        text,
        format!("change {} is missing in its journal", first + 1)
    );
}

#[test]
fn a_damaged_first_frame_of_a_segment_is_told_of() {
    let (temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    let first = fill(&mut journal);
    journal.switch().expect("switch");
    for text in ["one", "two", "three"] {
        append(&mut journal, text);
        journal.sync().expect("sync");
    }
    damage(temp.path(), 1, 0);
    let text = refused(&dir, first);
    assert!(text.contains("does not prove itself"), "{text}");
}

/// The engine took over a frame that nobody was promised and that the disk then lost.
#[test]
fn an_engine_that_is_ahead_is_followed() {
    let (_temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    append(&mut journal, "one");
    let mut found = open(&dir, 10);
    assert_eq!((texts(&found).len(), found.journal.last()), (0, 10));
    append(&mut found.journal, "eleven");
    append(&mut found.journal, "twelve");
    found.journal.sync().expect("sync");
    assert_eq!(texts(&open(&dir, 10)), ["eleven", "twelve"]);
}

#[test]
fn a_long_frame_has_a_segment_that_grows_for_it() {
    let (temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    append(&mut journal, "short");
    let long = "x".repeat(usize::try_from(SEGMENT_BYTES).expect("small") + 1);
    let frame = journal.pack(&batch(&long)).expect("pack");
    assert!(journal.is_full(&frame));
    journal.switch().expect("switch");
    assert!(!journal.is_full(&frame), "an empty one takes any");
    append(&mut journal, &long);
    assert_eq!(texts(&open(&dir, 1)), [long]);
    for _ in 0..2 {
        journal.switch().expect("switch");
        append(&mut journal, "short");
    }
    let stat = fs::metadata(temp.path().join(SEGMENTS[1])).expect("stat");
    assert_eq!(stat.len(), SEGMENT_BYTES);
}

/// Somebody deleted one of the segments; what is in the other is not thrown after it.
#[test]
fn a_missing_segment_costs_only_itself() {
    let (temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    let first = fill(&mut journal);
    journal.switch().expect("switch");
    append(&mut journal, "next");
    drop(journal);
    fs::remove_file(temp.path().join(SEGMENTS[0])).expect("remove");
    assert!(create_missing(&dir).expect("create"));
    assert_eq!(texts(&open(&dir, first)), ["next"]);
    assert_eq!(refused(&dir, 0), "change 1 is missing in its journal");
}

/// What has its room in the segments beforehand needs none; what is longer makes one grow.
#[test]
fn room_is_needed_for_what_is_long() {
    let (temp, dir) = made();
    let mut journal = open(&dir, 0).journal;
    let (page, most) = (PAGE as u64, SEGMENT_BYTES - PAGE as u64);
    assert_eq!(journal.needs(100), None);
    assert_eq!(journal.needs(most), None);
    assert_eq!(journal.needs(SEGMENT_BYTES), Some(2 * page));

    // From here on a frame may be too long for what is left, long before the segment is half full.
    append(&mut journal, "one");
    assert_eq!(journal.needs(100), None);
    assert_eq!(journal.needs(most), Some(0));
    append(&mut journal, &"x".repeat(600_000));
    assert_eq!(journal.needs(100), Some(0), "more than half");

    journal.sync().expect("sync");
    journal.switch().expect("switch");
    append(&mut journal, &"x".repeat(3 << 20));
    let length = fs::metadata(temp.path().join(SEGMENTS[1]))
        .expect("stat")
        .len();
    assert_eq!(length, (3 << 20) + page);
    assert_eq!(
        journal.needs(100),
        Some(length - SEGMENT_BYTES),
        "for the engine"
    );
}

/// Under its own name it would count as damaged.
#[test]
fn what_a_crash_left_of_a_segment_is_made_anew() {
    let (temp, dir) = made();
    append(&mut open(&dir, 0).journal, "one");
    let (aside, name) = (temp.path().join(UNFINISHED), temp.path().join(SEGMENTS[1]));
    for left in [0, 100, SEGMENT_BYTES + 1] {
        fs::remove_file(&name).expect("remove");
        fs::write(&aside, vec![1; usize::try_from(left).expect("small")]).expect("write");
        assert!(create_missing(&dir).expect("create"));
        assert!(!aside.exists());
        assert_eq!(fs::metadata(&name).expect("stat").len(), SEGMENT_BYTES);
        assert_eq!(texts(&open(&dir, 0)), ["one"]);
    }
}
