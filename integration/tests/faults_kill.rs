//! Every command of a store's life is hit by faults: killed before and after system calls, and with
//! calls that fail, are interrupted or fall short, by itself and in the daemon that serves it. After each
//! the next command simply goes on.
//!
//! All calls in all ways are far too many for every day, so they are sampled, always in the same way;
//! `CAIRN_CRASH_FULL=1` visits all (`integration/crash kill --full`), `CAIRN_CRASH_POINTS` sets how
//! many with the first engine, and `CAIRN_CRASH_SEED` where chance begins.

#![allow(missing_docs, clippy::print_stdout)]

use std::path::PathBuf;

use cairn_integration::{
    counts,
    fault::{
        self,
        lane::{self, Wanted},
    },
};

/// As many as take about three minutes on two processors.
const POINTS: usize = 480;
/// With the other engine, of which records alone are another matter.
const SLED_SHARE: usize = 4;

fn number(variable: &str) -> Option<usize> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

fn binary() -> PathBuf {
    match std::env::var_os("CAIRN_CRASH_BINARY") {
        Some(path) => path.into(),
        None => fault::binary().to_owned(),
    }
}

fn visit(engine: &'static str, share: usize) {
    let full = std::env::var_os("CAIRN_CRASH_FULL").is_some();
    let points = number("CAIRN_CRASH_POINTS").unwrap_or(POINTS) / share;
    let seed = number("CAIRN_CRASH_SEED").unwrap_or(0x5eed);
    let wanted = Wanted {
        engine,
        points: (!full).then_some(points),
        seed: seed as u64,
    };
    let tally = lane::run(&binary(), wanted);
    println!("{tally}");
    counts::keep(
        env!("CARGO_TARGET_TMPDIR"),
        &format!("faults-{engine}"),
        &tally,
    );
    let failures = &tally.failures;
    let told = failures.join("\n\n");
    assert!(failures.is_empty(), "{} failed:\n\n{told}", failures.len());
}

#[test]
fn faults_leave_a_store_that_goes_on() {
    visit("redb", 1);
}

#[test]
fn faults_leave_a_store_that_goes_on_with_sled() {
    visit("sled", SLED_SHARE);
}
