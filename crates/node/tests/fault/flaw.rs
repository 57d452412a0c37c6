//! A collector that is wrong on purpose is found out: what the scripts find is there to be found.

use std::process::Command;

fn is_found(flaw: &str, test: &str) {
    let output = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env("CAIRN_FAULT", flaw)
        .output();
    let output = output.expect("run");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = format!("{}{}", text(&output.stderr), text(&output.stdout));
    assert!(!output.status.success(), "{test} finds nothing:\n{said}");
    assert!(
        said.contains("was removed while something led to it"),
        "{test} finds something else:\n{said}"
    );
}

/// What changed before the transaction that removes is not taken in.
#[test]
fn stale_marks_are_found_by_a_short_script() {
    is_found("stale-marks", "scripts::a_lease_takes_what_nothing_held");
}

#[test]
fn and_by_chance() {
    is_found("stale-marks", "chance::many_who_hold_and_let_go");
}

/// Nobody asks what calls under way rely on.
#[test]
fn unseen_pins_are_found() {
    is_found("unseen-pins", "scripts::a_call_pins_looks_and_names");
}
