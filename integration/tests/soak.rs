//! The short form of `integration/soak`.
#![allow(missing_docs)]

use std::{path::PathBuf, time::Duration};

use cairn_integration::{
    cairn::Cairn,
    soak::{self, Options},
};

#[test]
fn many_clients_killed_at_random_leave_nothing() {
    let report = soak::run(&Options {
        daemon: Cairn::binary().with_file_name("cairnd"),
        client: PathBuf::from(env!("CARGO_BIN_EXE_cairn-soak")),
        time: Duration::from_secs(20),
        clients: 32,
        seed: 20_261_129,
    });
    let report = report.expect("begin");
    assert!(report.faults.is_empty(), "{report}");
    assert!(report.killed > 10, "{report}");
    assert!(report.done.len() > 10, "every kind of work:\n{report}");
}
