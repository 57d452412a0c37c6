//! The short form of `integration/crash power --full`: a tenth of the states, on all file systems, with
//! both engines and the programs that are wrong on purpose.
//!
//! `CAIRN_CRASH_SEED` says where chance begins.
#![allow(missing_docs, clippy::print_stdout)]

use std::process::Command;

use cairn_integration::{cairn::Cairn, counts, fault};

/// About eight minutes on two processors that have nothing else to do.
const STATES: &str = "6000";

#[test]
fn a_power_cut_takes_nothing_that_was_acknowledged() {
    // Whoever is started finds the others beside itself.
    fault::binary();
    assert!(Cairn::binary().with_file_name("cairnd").exists());
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-power"));
    command.args(["--states", STATES]);
    if let Some(seed) = std::env::var_os("CAIRN_CRASH_SEED") {
        command.arg("--seed").arg(seed);
    }
    let output = command.output().expect("start cairn-power");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    counts::keep(env!("CARGO_TARGET_TMPDIR"), "power", &said);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{told}", output.status);
}
