//! The program with numbered fault points, small disks to run it on, and the oracle that judges
//! what it leaves.
//!
//! A fault is one system call of one command: it fails, falls short, or the process dies there. The
//! oracle looks at the store from outside: it hashes files itself, and compares mounted trees with
//! those of a run without faults.

mod bench;
mod disk;
mod fsck;
mod images;
pub mod lane;
mod oracle;
mod records;
mod reference;
mod scenario;
mod served;
mod visit;

use std::{
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

pub use self::{
    bench::Bench,
    disk::Disk,
    images::Images,
    reference::Reference,
    scenario::{Before, IMAGES, Step, steps},
};
pub(crate) use self::{disk::unmount, fsck::clean, oracle::names, records::Stage};
use crate::cairn::Cairn;

/// What is wrong, in a sentence.
pub type Verdict<T = ()> = Result<T, String>;

/// Judges a state. Whoever reads files of a damaged store may panic, of which the others hear nothing.
pub(crate) fn caught<T>(judge: impl FnOnce() -> Verdict<T>) -> Verdict<T> {
    let judged = panic::catch_unwind(AssertUnwindSafe(judge));
    judged.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        let text = text.unwrap_or("without a word");
        Err(format!("the judge panicked: {text}"))
    })
}

/// The program built with fault points, beside the ordinary one; with it the daemon, `cairnd-fault`.
pub fn binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--locked"])
        // All packages decide about the features of the libraries, as when the tests are built: so
        // those are built once.
        .args([
            "--workspace",
            "--bin",
            "cairn-fault",
            "--bin",
            "cairnd-fault",
        ])
        .args(["--features", "cairn-integration/fault"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("start cargo");
    assert!(built.success(), "building cairn with fault points: {built}");
    Cairn::binary().with_file_name("cairn-fault")
}

/// One call of a command, as the command itself tells it.
#[derive(Clone, Debug)]
pub struct Call {
    /// `openat`, `fsync` and so on.
    pub op: String,
    /// Counted from 1.
    pub number: u64,
}

/// The calls that a command says it made, or at which it was hit.
pub fn calls(output: &Output) -> Vec<Call> {
    calls_in(&String::from_utf8_lossy(&output.stderr))
}

/// The same, in what was said.
fn calls_in(text: &str) -> Vec<Call> {
    let lines = text.lines().filter_map(|line| {
        let (_, rest) = line.split_once("cairn-fault: ")?;
        let (rest, number) = rest.rsplit_once(" n=")?;
        // The kind stands first; `Fail(Errno)` of an error.
        let (_, rest) = rest.split_once(' ')?;
        let (op, _) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Call {
            op: op.to_owned(),
            number: number.parse().ok()?,
        })
    });
    lines.collect()
}

/// Small numbers that are the same in every run (Marsaglia's xorshift).
pub struct Dice(pub u64);

impl Dice {
    /// Below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).expect("below sides")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_judge_that_panics_has_judged() {
        assert_eq!(caught(|| Ok(1)), Ok(1));
        let file = "a/b";
        let panicked = caught::<()>(|| panic!("read {file}"));
        assert_eq!(panicked, Err("the judge panicked: read a/b".to_owned()));
    }
}
