//! Every sync of a store fails once, or from then on: what was acknowledged outlives the power cut that
//! takes whatever no sync has answered for, and of the rest nothing is believed that is not whole.
#![allow(missing_docs, clippy::print_stderr)]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Output},
};

use cairn_meta::{View, schema};
use cairn_sys::durable::SYNCED_EACH_MAX;
use cairn_types::{Classified, Digest, ErrorKind, Labels};
use common::{file, ns, open};

const ROOT: &str = "CAIRN_CONTENT_TEST_ROOT";
const COUNT: &str = "CAIRN_CONTENT_TEST_COUNT";
const FAULT: &str = "CAIRN_FAULT";
/// One more than stand in a record.
const LARGE_BYTES: usize = (8 << 10) + 1;
const PARTS: [&str; 2] = ["first", "second"];

/// The documents of one part of the scenario: `count` small ones and a large one.
fn documents(part: &str, count: usize) -> Vec<Vec<u8>> {
    let small = (0..count).map(|n| format!("{part} {n}").into_bytes());
    small.chain([part.as_bytes().repeat(LARGE_BYTES)]).collect()
}

fn is_small(bytes: &[u8]) -> bool {
    bytes.len() < LARGE_BYTES
}

/// What a client would be answered.
fn tell(text: &str) {
    eprintln!("told: {text}");
}

/// Documents are stored, and the small ones put on the disk; then more of both.
fn scenario(root: &Path, count: usize) {
    let (records, content) = open(root);
    content.sweep().expect("sweep");
    tell("opened");
    for part in PARTS {
        let documents = documents(part, count);
        for bytes in &documents {
            match content.put(&ns("a"), bytes, None, Labels::new()) {
                Ok(digest) => tell(&format!("put {digest}")),
                Err(err) => tell(&format!("refused: {err:?}")),
            }
        }
        while let Err(err) = content.flush() {
            tell(&format!("refused: {err:?}"));
            let closed = content.read_only().is_some() || records.read_only().is_some();
            let full = err.kind() == ErrorKind::ResourceExhausted;
            assert!(closed || full, "a failed sync is final: {err:?}");
            if closed || full_for_good() {
                return;
            }
            // The kernel counts pages that it could not write as clean, and may forget them.
            for bytes in documents.iter().filter(|bytes| is_small(bytes)) {
                lose(root, bytes);
            }
        }
        tell("flushed");
    }
}

fn full_for_good() -> bool {
    std::env::var(FAULT).is_ok_and(|fault| fault.ends_with('+'))
}

/// The file has its length, and of the bytes none.
fn lose(root: &Path, bytes: &[u8]) {
    let file = file(root, &Digest::sha256(bytes));
    if file.exists() {
        fs::write(file, vec![0; bytes.len()]).expect("lose");
    }
}

/// Run by itself this does nothing: the tests below run it in a process of its own.
#[test]
fn child() {
    if let Some(root) = std::env::var_os(ROOT) {
        let count = std::env::var(COUNT).expect("how many");
        scenario(Path::new(&root), count.parse().expect("number"));
    }
}

fn run(root: &Path, count: usize, fault: &str) -> Told {
    let mut command = Command::new(std::env::current_exe().expect("own path"));
    let output = command
        .args(["--exact", "child", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .env(COUNT, count.to_string())
        .env(FAULT, fault)
        .output()
        .expect("run");
    assert!(output.status.success(), "{fault}: {output:?}");
    Told::read(&output)
}

/// What a run has said.
struct Told {
    put: BTreeSet<String>,
    /// Those that were there when a flush was answered.
    flushed: BTreeSet<String>,
    /// What fired, or was only told: the kind, the call, what it was made on and its number.
    calls: Vec<String>,
    /// So many calls came before it was open.
    opening: usize,
}

impl Told {
    fn read(output: &Output) -> Told {
        let mut told = Told {
            put: BTreeSet::new(),
            flushed: BTreeSet::new(),
            calls: Vec::new(),
            opening: 0,
        };
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            if let Some((_, call)) = line.split_once("cairn-fault: ") {
                told.calls.push(call.to_owned());
            } else if let Some((_, digest)) = line.split_once("told: put ") {
                told.put.insert(digest.to_owned());
            } else if line.ends_with("told: opened") {
                told.opening = told.calls.len();
            } else if line.ends_with("told: flushed") {
                told.flushed.clone_from(&told.put);
            }
        }
        told
    }

    /// The syncs since the opening, by their names, with their numbers.
    fn syncs(&self) -> Vec<(String, u64)> {
        let named = self.calls[self.opening..].iter().filter_map(|call| {
            let (call, number) = call.rsplit_once(" n=")?;
            let op = call.split(' ').nth(1)?;
            matches!(op, "fsync" | "fdatasync" | "syncfs").then_some((op, number))
        });
        let number = |text: &str| text.parse().expect("number");
        named.map(|(op, n)| (op.to_owned(), number(n))).collect()
    }
}

/// Takes what no sync has answered for, and looks what is left.
fn judge(root: &Path, count: usize, fault: &str) -> Told {
    let told = run(root, count, fault);
    let all: Vec<Vec<u8>> = PARTS.map(|part| documents(part, count)).concat();
    // A record that was not acknowledged may be there all the same, and then its file is, too.
    let recorded = told.calls.iter().any(|call| call.contains("/meta/"));
    for bytes in &all {
        let digest = Digest::sha256(bytes).to_string();
        let synced = match is_small(bytes) {
            true => told.flushed.contains(&digest),
            false => told.put.contains(&digest) || recorded,
        };
        if !synced {
            lose(root, bytes);
        }
    }
    let (records, content) = open(root);
    content.sweep().expect("sweep");
    let listed = content.list(&ns("a")).expect("list");
    let there: BTreeSet<String> = listed.iter().map(|info| info.digest.to_string()).collect();
    let lost: Vec<_> = told.put.difference(&there).collect();
    assert!(lost.is_empty(), "{fault}: {lost:?}");
    for info in listed {
        let read = content.read_all(&ns("a"), &info.digest, info.size);
        read.unwrap_or_else(|err| panic!("{fault}: {err:?}"));
    }
    let names = fs::read_dir(root.join("content/blobs/sha256")).expect("blobs");
    assert_eq!(
        names.count(),
        there.len(),
        "{fault}: a file without a record"
    );
    // The store goes on.
    for bytes in &all {
        let put = content.put(&ns("a"), bytes, None, Labels::new());
        let known = there.contains(&Digest::sha256(bytes).to_string());
        assert_eq!(put.is_err(), known, "{fault}: {put:?}");
    }
    content.flush().expect("flush");
    let kept = records.read(|view| view.scan(&schema::BLOB_BYTES, &()));
    assert_eq!(kept.expect("read"), [], "{fault}");
    told
}

/// Lets every sync of this name fail in every way; answers how many calls that hit.
fn visit_all(name: &str, count: usize) -> usize {
    let temp = tempfile::tempdir().expect("temporary directory");
    let syncs = run(temp.path(), count, "none@1+").syncs();
    let mut hit = 0;
    for (_, number) in syncs.iter().filter(|(op, _)| op == name) {
        for fault in ["EIO", "ENOSPC", "ENOSPC+"] {
            let (kind, on) = fault.split_at(fault.find('+').unwrap_or(fault.len()));
            let temp = tempfile::tempdir().expect("temporary directory");
            let told = judge(temp.path(), count, &format!("{kind}@{number}{on}"));
            hit += told.calls.len();
        }
    }
    hit
}

#[test]
fn files_and_their_names_fail_to_be_synced() {
    assert!(visit_all("fsync", 3) > 30);
}

#[test]
fn records_fail_to_be_synced() {
    assert!(visit_all("fdatasync", 3) > 20);
}

/// Nobody reads these afterwards: after a failure all of them have to be written again.
#[test]
fn so_many_that_they_are_synced_at_once_fail() {
    assert!(visit_all("syncfs", SYNCED_EACH_MAX + 1) >= 6);
}
