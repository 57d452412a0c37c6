//! containerd's own Go client, by tests that are proven on containerd first.

use cairn_integration::{
    daemon::Daemon,
    fixture::text,
    go::{Program, Run},
    peers::Containerd,
    registry::Registry,
};

/// Runs all of them against a daemon, each with a registry that nobody has pushed to.
fn run(program: &Program, socket: &str, more: &[&str]) -> Run {
    let registry = Registry::start();
    let host = registry.host();
    let ran = program.run(&[&["-address", socket, "-registry", &host], more].concat());
    ran.passes();
    assert_eq!(ran.ended("SKIP"), Vec::<&str>::new(), "none may be skipped");
    ran
}

#[test]
fn the_go_client_cannot_tell_cairnd_from_containerd() {
    let program = Program::build("client");
    let containerd = Containerd::start();
    let theirs = run(&program, text(&containerd.socket()), &["-old"]);
    let mut daemon = Daemon::start();
    let ours = run(&program, text(&daemon.path("sock")), &[]);
    let sorted = |run: &Run| {
        let mut passed: Vec<String> = run.ended("PASS").iter().map(|&c| c.to_owned()).collect();
        passed.sort();
        passed
    };
    assert_eq!(sorted(&ours), sorted(&theirs));
    assert!(sorted(&ours).len() > 40, "{:?}", sorted(&ours));
    assert!(daemon.stop().success());
    assert!(daemon.mounts().is_empty(), "{:?}", daemon.mounts());
}
