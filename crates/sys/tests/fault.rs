//! Every system call of a small store fails once, in every way, and once kills the process: after
//! each, what is on disk is either the old or the new, and the same work simply goes through.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use cairn_sys::{Dir, OFlags, durable, raw};
use common::name;

const ROOT: &str = "CAIRN_FAULT_TEST_ROOT";
const BLOB: &[u8] = b"0123456789";
/// More calls than the scenario makes.
const CALLS_MAX: u64 = 200;

/// A blob is written, published, synced once more with all that is beside it, and then recorded; an old tree is
/// removed.
fn scenario(root: &Path) -> cairn_sys::Result<()> {
    let dir = Dir::open(root)?;
    let blobs = dir.create_dir_all_open("content/blobs", 0o700)?;
    dir.remove_tree(name("old"))?;
    if blobs.try_stat(name("blob"))?.is_none() {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC;
        let file = dir.open_file(name("ingest"), flags, 0o600)?;
        raw::write_all(&file, &BLOB[..4])?;
        raw::write_all_at(&file, &BLOB[4..], 4)?;
        raw::fchmod(&file, 0o444)?;
        durable::publish(
            &file,
            (&dir, name("ingest")),
            (&blobs, name("blob")),
            &durable::Shared::default(),
        )?;
    }
    dir.open_dir(name("content"))?.sync_large_tree()?;
    durable::write_file(&dir, name("record"), b"new", 0o600)
}

/// Run by itself this does nothing: the tests below run it in a process of its own.
#[test]
fn child() {
    if let Some(root) = std::env::var_os(ROOT)
        && let Err(err) = scenario(Path::new(&root))
    {
        panic!("scenario: {err}");
    }
}

fn run(root: &Path, fault: Option<&str>) -> Output {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .env("RUST_BACKTRACE", "0")
        .env_remove("CAIRN_FAULT");
    if let Some(fault) = fault {
        command.env("CAIRN_FAULT", fault);
    }
    command.output().expect("run")
}

fn store() -> tempfile::TempDir {
    let temp = tempfile::tempdir().expect("temporary directory");
    fs::create_dir_all(temp.path().join("old/a/b")).expect("mkdir");
    fs::write(temp.path().join("old/a/f"), "").expect("write");
    fs::write(temp.path().join("record"), "old").expect("write");
    temp
}

/// Old or new, never between; and never a record of a blob that is not there whole.
fn check(root: &Path, at: &str) {
    let record = fs::read(root.join("record")).expect("a record at any time");
    let blob = fs::read(root.join("content/blobs/blob")).ok();
    assert!(record == b"old" || record == b"new", "{at}: {record:?}");
    if let Some(blob) = &blob {
        assert_eq!(blob, BLOB, "{at}");
    }
    assert!(
        record == b"old" || blob.is_some(),
        "{at}: a record without its blob"
    );
}

/// The lines in which the child says what was done to it: kind, call and object.
fn fired(output: &Output) -> Vec<String> {
    String::from_utf8_lossy(&output.stderr)
        .lines()
        .filter_map(|line| line.split("cairn-fault: ").nth(1))
        .map(str::to_owned)
        .collect()
}

/// Runs the scenario with `kind` at 1, 2, 3, … until it does not fire any more; answers what was hit.
fn visit_all(kind: &str, suffix: &str, succeeds: bool) -> Vec<String> {
    let mut hit = Vec::new();
    for n in 1..CALLS_MAX {
        let temp = store();
        let fault = format!("{kind}@{n}{suffix}");
        let output = run(temp.path(), Some(&fault));
        check(temp.path(), &fault);
        let lines = fired(&output);
        if lines.is_empty() {
            assert!(output.status.success(), "{fault}: {output:?}");
            return hit;
        }
        assert_eq!(output.status.success(), succeeds, "{fault}: {output:?}");
        let again = run(temp.path(), None);
        assert!(again.status.success(), "after {fault}: {again:?}");
        check(temp.path(), &fault);
        let record = fs::read(temp.path().join("record")).expect("record");
        assert_eq!(record, b"new", "after {fault}");
        assert!(!temp.path().join("old").exists(), "after {fault}");
        hit.extend(lines);
    }
    panic!("{kind} still fires at call {CALLS_MAX}");
}

#[test]
fn killed_before_each_call() {
    let hit = visit_all("kill", "", false);
    // The order of a publish: the name, the bytes, the directory; only then the record.
    let position = |text: &str, from: usize| {
        let found = hit[from..].iter().position(|line| line.contains(text));
        from + found.unwrap_or_else(|| panic!("{text} is not in {hit:#?}"))
    };
    let bytes = position("/ingest>", position("pwrite", 0) + 1);
    let rename = position("renameat2", bytes);
    let bytes = position("fsync", rename);
    let directory = position("fsync", bytes + 1);
    assert_eq!((bytes, directory), (rename + 1, rename + 2), "{hit:#?}");
    assert!(hit[bytes].contains("/blob>"), "{}", hit[bytes]);
    assert!(
        hit[directory].contains("content/blobs"),
        "{}",
        hit[directory]
    );
    assert!(directory < position("/.record.tmp", 0));
}

/// The last call is visited too: dying after it is not dying before a next one.
#[test]
fn killed_after_each_call() {
    let before = visit_all("kill", "", false).len();
    let after = visit_all("kill-after", "", false);
    assert_eq!(after.len(), before);
    assert!(after[after.len() - 1].contains("fsync"));
}

#[test]
fn every_call_fails_once() {
    for kind in ["ENOSPC", "EIO"] {
        let hit = visit_all(kind, "", false);
        assert!(hit.len() > 20, "{hit:#?}");
    }
}

/// A disk that is full stays full.
#[test]
fn every_call_fails_from_some_point_on() {
    visit_all("ENOSPC", "+", false);
}

#[test]
fn interrupted_and_short_calls_are_made_again() {
    visit_all("EINTR", "", true);
    let hit = visit_all("short", "", true);
    assert!(hit.iter().any(|line| line.contains("pwrite")));
}

#[test]
fn a_misspelt_fault_is_no_success() {
    let temp = store();
    let output = run(temp.path(), Some("kil@1"));
    assert!(!output.status.success());
}
