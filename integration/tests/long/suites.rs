//! containerd's own test suites, written in Go: through its proxies on the socket that is there for
//! containerd, and by its client on the one for clients, beside containerd's own run.

use cairn_integration::{
    daemon::Daemon,
    fixture::text,
    go::{Program, Run},
    peers::Containerd,
};

/// Runs the suites of these names, and expects all cases to pass but for one that the suite leaves out
/// on any overlay.
#[track_caller]
fn run(program: &Program, named: &str, address: &std::path::Path) -> Vec<String> {
    // Their cases mount, which they do as root alone and only when told so.
    let ran = program.run(&["-test.root", "-test.run", named, "-address", text(address)]);
    ran.passes();
    let skipped = cases(&ran, "SKIP");
    assert!(
        skipped.len() == 1 && skipped[0].ends_with("Snapshots/Rename"),
        "no overlay renames directories of lower layers: {skipped:?}"
    );
    cases(&ran, "PASS")
}

fn cases(ran: &Run, how: &str) -> Vec<String> {
    let cases = ran.ended(how).into_iter().filter(|case| case.contains('/'));
    let mut cases: Vec<String> = cases.map(str::to_owned).collect();
    cases.sort();
    cases
}

#[test]
fn containerds_own_suites_pass() {
    let program = Program::build("suites");
    let mut daemon = Daemon::with_backend();
    let passed = run(
        &program,
        "^Test(Content|Snapshots)$",
        &daemon.path("backend.sock"),
    );
    assert!(passed.len() >= 31, "these are not all: {passed:?}");
    let containerd = Containerd::start();
    let theirs = run(&program, "^TestClient", &containerd.socket());
    let ours = run(&program, "^TestClient", &daemon.path("sock"));
    assert_eq!(ours, theirs, "cairnd, containerd");
    assert!(ours.len() >= 33, "these are not all: {ours:?}");
    assert!(daemon.stop().success());
    assert!(daemon.mounts().is_empty(), "{:?}", daemon.mounts());
}
