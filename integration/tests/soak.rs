//! The short forms of `integration/soak` and `integration/soak gc`.
#![allow(missing_docs)]

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use cairn_integration::{
    cairn::Cairn,
    soak::{self, Kind, Options, Report},
};

#[test]
fn many_clients_killed_at_random_leave_nothing() {
    let report = run(Kind::Everything, 32);
    assert!(report.killed > 10, "{report}");
    assert!(report.done.len() > 10, "every kind of work:\n{report}");
}

#[test]
fn what_clients_share_outlives_collections_that_never_end() {
    let report = run(Kind::Collecting, 16);
    assert!(report.killed > 5, "{report}");
    assert!(report.done.len() > 5, "every kind of work:\n{report}");
    assert!(report.collections > 10, "{report}");
}

/// One at a time: each is more than the machine can do.
static ONE: Mutex<()> = Mutex::new(());

fn run(kind: Kind, clients: usize) -> Report {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let report = soak::run(&Options {
        kind,
        daemon: Cairn::binary().with_file_name("cairnd"),
        client: PathBuf::from(env!("CARGO_BIN_EXE_cairn-soak")),
        time: Duration::from_secs(20),
        clients,
        seed: 20_261_129,
    });
    let report = report.expect("begin");
    assert!(report.faults.is_empty(), "{report}");
    report
}
