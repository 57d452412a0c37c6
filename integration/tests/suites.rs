//! containerd's own test suites, written in Go, against the socket that is there for containerd.
#![allow(missing_docs)]

use std::{path::Path, process::Command};

use cairn_integration::{cairn::Cairn, daemon::Daemon};

/// Builds the program of the suites, below the target directory; Go remembers what it built.
fn build() -> std::path::PathBuf {
    let target = Cairn::binary().with_file_name("suites.test");
    let mut command = Command::new("go");
    command.args(["test", "-c", "-o"]).arg(&target).arg(".");
    command.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("suites"));
    // Debian's Go libraries, which are no modules.
    command.env("GO111MODULE", "off");
    command.env("GOPATH", "/usr/share/gocode");
    command.env("GOFLAGS", "");
    let built = command.output().expect("start go");
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "go test -c: {said}");
    target
}

/// Cases by how they ended, as Go marks them: `PASS`, `FAIL`, `SKIP`.
fn cases<'o>(printed: &'o str, end: &str) -> Vec<&'o str> {
    let mark = format!("--- {end}: ");
    let lines = printed.lines().filter_map(|line| {
        let (before, case) = line.split_once(&mark)?;
        before.trim().is_empty().then_some(case)
    });
    let names = lines.filter_map(|case| case.split(' ').next());
    names.filter(|name| name.contains('/')).collect()
}

#[test]
fn containerds_own_suites_pass() {
    let program = build();
    let mut daemon = Daemon::with_backend();
    let mut command = Command::new(program);
    // Its cases mount, which they do as root alone and only when told so.
    command.args(["-test.v", "-test.root", "-address"]);
    command.arg(daemon.path("backend.sock"));
    let ran = command.output().expect("start the suites");
    let printed = String::from_utf8_lossy(&ran.stdout);
    let failed = cases(&printed, "FAIL");
    assert!(failed.is_empty(), "{failed:?}\n{printed}");
    assert!(ran.status.success(), "{printed}");
    assert_eq!(
        cases(&printed, "SKIP"),
        ["TestSnapshots/Rename"],
        "no overlay renames directories of lower layers"
    );
    let passed = cases(&printed, "PASS").len();
    assert!(passed >= 31, "{passed} cases are not all:\n{printed}");
    assert!(daemon.stop().success());
    assert!(daemon.mounts().is_empty(), "{:?}", daemon.mounts());
}
