//! What the daemon looks at when nothing happens, and when it is asked what snapshots take: no file.

#![allow(missing_docs)]

use std::{fs, process::Command, thread, time::Duration};

use cairn_integration::{daemon::Daemon, wait};

/// How long nothing happens.
const STILL: Duration = Duration::from_secs(4);

/// What is asked of files and directories while something is done: calls with the paths that they are
/// about.
fn looks(daemon: &Daemon, meanwhile: impl FnOnce()) -> Vec<String> {
    let out = daemon.path("trace");
    let id = daemon.id();
    let mut tracer = Command::new("strace")
        .args(["-f", "-y", "-qq", "-e", "signal=none"])
        .args(["-e", "trace=%%stat,getdents64,openat,openat2", "-o"])
        .arg(&out)
        .args(["-p", &id.to_string()])
        .spawn()
        .expect("start strace");
    let is_traced = || {
        let threads = fs::read_dir(format!("/proc/{id}/task")).expect("threads");
        threads.flatten().all(|thread| {
            let status = fs::read_to_string(thread.path().join("status"));
            // One that has ended is traced by nobody any more.
            status.map_or(true, |status| !status.contains("TracerPid:\t0\n"))
        })
    };
    daemon.until("strace", is_traced);
    meanwhile();
    let told = Command::new("kill")
        .args(["-INT", &tracer.id().to_string()])
        .status();
    assert!(told.expect("kill").success());
    wait::ended(&mut tracer, || "strace does not end".to_owned());
    let trace = fs::read_to_string(out).expect("trace");
    let calls = trace.lines().filter(|line| line.contains('('));
    calls.map(str::to_owned).collect()
}

#[test]
fn an_idle_daemon_and_usage_of_200_snapshots_look_at_no_file() {
    let daemon = Daemon::start();
    for number in 0..200 {
        let (key, name) = (format!("k{number}"), format!("s{number}"));
        daemon.ok(&["snapshots", "prepare", &key]);
        daemon.ok(&["snapshots", "commit", &name, &key]);
    }
    // What those changes have set going has an end.
    thread::sleep(STILL);
    assert_eq!(looks(&daemon, || thread::sleep(STILL)), [""; 0]);
    let root = daemon.path("root").display().to_string();
    let of_store = |calls: Vec<String>| -> Vec<String> {
        let calls = calls.into_iter();
        calls.filter(|call| call.contains(&root)).collect()
    };
    let asked = looks(&daemon, || {
        let usage = daemon.ok(&["snapshots", "usage"]);
        assert_eq!(usage.lines().count(), 201, "{usage}");
    });
    assert_eq!(of_store(asked), [""; 0]);
    // What is still written to is measured, which is seen.
    daemon.ok(&["snapshots", "prepare", "active"]);
    let asked = looks(&daemon, || {
        daemon.ok(&["snapshots", "usage", "active"]);
    });
    assert_ne!(of_store(asked), [""; 0]);
}
