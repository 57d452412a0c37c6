use std::{fs, path::Path};

use tempfile::TempDir;

use super::*;

fn made() -> (TempDir, Dir) {
    let temp = tempfile::tempdir().expect("temporary directory");
    let dir = Dir::open(temp.path()).expect("open");
    create_empty(&dir).expect("create");
    (temp, dir)
}

fn batch(text: &str) -> Batch {
    Batch::from([(b"k".to_vec(), Some(text.as_bytes().to_vec()))])
}

fn numbers(dir: &Dir, name: &str) -> (Vec<u64>, bool) {
    let mut frames = Frames::of(dir, name).expect("open");
    let mut numbers = Vec::new();
    while let Some(frame) = frames.next().expect("read") {
        numbers.push(frame.head.number);
    }
    (numbers, frames.skipped)
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("read");
    change(&mut bytes);
    fs::write(path, bytes).expect("write");
}

#[test]
fn names_are_told_apart() {
    let (temp, dir) = made();
    for other in [
        "copy.tmp",
        "copy.",
        "log.x",
        "journal.a",
        "copy.12",
        "log.7",
    ] {
        fs::write(temp.path().join(other), "").expect("write");
    }
    let names = Names::of(&dir).expect("list");
    assert_eq!(names.copies, [0, 12]);
    assert_eq!(names.logs, [0, 7]);
}

#[test]
fn a_log_is_gone_on_with() {
    let (_temp, dir) = made();
    for (before, number) in [(0, 4), (4, 5), (5, 90)] {
        let mut log = Log::reopen(&dir, 0).expect("open").expect("whole");
        assert_eq!(log.last(), before);
        log.append(number, &batch("x")).expect("append");
    }
    assert_eq!(numbers(&dir, "log.0"), (vec![4, 5, 90], false));
}

#[test]
fn the_torn_end_of_a_log_is_written_over() {
    let (temp, dir) = made();
    let path = temp.path().join("log.0");
    let long = "x".repeat(3 * PAGE);
    let mut log = Log::reopen(&dir, 0).expect("open").expect("whole");
    for number in 1..4 {
        log.append(number, &batch(&long)).expect("append");
    }
    let whole = fs::read(&path).expect("read");
    let torn: [fn(&mut Vec<u8>); 3] = [
        |bytes| bytes.truncate(bytes.len() - PAGE),
        |bytes| bytes.truncate(bytes.len() - 3 * PAGE),
        |bytes| {
            let end = bytes.len();
            bytes[end - 3 * PAGE..].fill(0);
        },
    ];
    for torn in torn {
        fs::write(&path, &whole).expect("write");
        change(&path, torn);
        let mut log = Log::reopen(&dir, 0).expect("open").expect("only torn");
        assert_eq!(log.last(), 2);
        log.append(7, &batch("y")).expect("append");
        assert_eq!(numbers(&dir, "log.0"), (vec![1, 2, 7], false));
    }
}

#[test]
fn a_damaged_frame_costs_only_itself() {
    let (temp, dir) = made();
    let mut log = Log::reopen(&dir, 0).expect("open").expect("whole");
    for number in 1..6 {
        log.append(number, &batch("x")).expect("append");
    }
    change(&temp.path().join("log.0"), |bytes| bytes[2 * PAGE + 9] ^= 1);
    assert_eq!(numbers(&dir, "log.0"), (vec![1, 2, 4, 5], true));
    // What is behind the damage is not lost by going on.
    let log = Log::reopen(&dir, 0).expect("open").expect("goes on");
    assert_eq!(log.last(), 5);
    drop(log);
    // Here it would be.
    change(&temp.path().join("log.0"), |bytes| bytes[2 * PAGE] ^= 1);
    assert!(Log::reopen(&dir, 0).expect("open").is_none());
    assert_eq!(numbers(&dir, "log.0"), (vec![1, 2, 4, 5], true));
}

/// What a record holds may look like a frame, whoever wrote it.
#[test]
fn a_frame_in_a_record_is_none() {
    let (temp, dir) = made();
    let mut forged = Writer::create(&dir, "forged").expect("create");
    forged.append(99, 0, &batch("forged")).expect("append");
    let forged = fs::read(temp.path().join("forged")).expect("read");
    // It begins on a page of its own: before it are the head of the frame, that of the change, and its key.
    let mut value = vec![0; PAGE - 40 - 8 - 1];
    value.extend(&forged);
    let mut log = Log::create(&dir, 0).expect("create");
    log.append(1, &batch("first")).expect("append");
    let held = Batch::from([(b"k".to_vec(), Some(value))]);
    log.append(2, &held).expect("append");
    log.append(3, &batch("last")).expect("append");
    let path = temp.path().join("log.0");
    let bytes = fs::read(&path).expect("read");
    assert_eq!(
        bytes[2 * PAGE..3 * PAGE],
        forged[..],
        "it is where it was meant to be"
    );
    change(&path, |bytes| bytes[PAGE + 20] ^= 1);
    assert_eq!(numbers(&dir, "log.0"), (vec![1, 3], true));
}
