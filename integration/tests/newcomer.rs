//! Somebody who has never seen Cairn and runs it as a service: by what its errors, its help and its
//! manual pages say, on a machine that has systemd as its first process.
//!
//! The tasks that need none are in `crates/cairn/tests/newcomer.rs`.

#![allow(missing_docs)]

use std::fs;

use cairn_integration::{
    image::{Layout, Packing},
    machine::{Machine, Seen},
    raw::{Header, Tar},
};
use serde_json::json;

const STONE: &str = "docker.io/library/stone:1\n";
/// The daemon has a /tmp of its own: it sees no directory there, but reads what it is sent.
const IMPORT: &str = "tar -C /tmp/layout -c . | cairn images import -q -";

fn machine() -> Machine {
    let machine = Machine::boot();
    machine.install();
    machine
}

/// What an error says to do, the first first.
fn next(seen: &Seen) -> Vec<&str> {
    let lines = seen.stderr.lines();
    lines
        .filter_map(|line| line.strip_prefix("  next:      "))
        .collect()
}

/// A section of a manual page, as it is read.
fn section(machine: &Machine, page: &str, name: &str) -> Vec<String> {
    let page = machine.ok(&format!("man -P cat {page}"));
    let lines = page.lines().skip_while(|line| *line != name).skip(1);
    let lines = lines.take_while(|line| line.is_empty() || line.starts_with(' '));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "{page}");
    lines
}

/// What is to be typed is indented further than what is said about it. Each run of such lines, with
/// the line before it.
fn typed(section: &[String]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut said = "";
    for line in section.iter().filter(|line| !line.is_empty()) {
        match line.strip_prefix("              ") {
            None => said = line.trim(),
            Some(line) => match found.last_mut().filter(|(before, _)| before == said) {
                Some((_, lines)) => lines.extend(["\n", line]),
                None => found.push((said.to_owned(), line.to_owned())),
            },
        }
    }
    found
}

/// An image in the machine's store, with what root alone may make.
fn import(machine: &Machine) {
    let mut layout = Layout::create(&machine.path("/tmp/layout"));
    let device = Header::ustar(b'4', b"disk", 0).device(7, 0);
    let layer = Tar::new()
        .head(device)
        .file("motto", b"one stone on another\n");
    let layers = [(layer.finish(), Packing::Plain)];
    layout.image(STONE.trim(), &layers, &json!({ "Cmd": ["sh"] }));
    machine.ok(IMPORT);
}

/// Task 16, from the address of a daemon that does not run.
#[test]
fn the_daemon_starts_at_boot_and_is_well() {
    let machine = machine();
    let asked = "cairn --address /run/cairn/cairn.sock images";
    let seen = machine.run(asked);
    assert_eq!(seen.code, 1, "{seen:?}");
    machine.ok(next(&seen)[0]);
    machine.ok(asked);
    let help = machine.ok("cairnd --help");
    let mut lines = help.lines().map(str::trim);
    let enable = lines.find(|line| line.starts_with("systemctl enable "));
    let enable = enable.and_then(|line| line.split("  ").next());
    machine.ok(enable.expect("the help tells how"));
    for unit in ["cairnd.service", "cairnd.socket"] {
        let state = format!("systemctl is-enabled {unit}; systemctl is-active {unit}");
        assert_eq!(machine.ok(&state), "enabled\nactive\n", "{unit}");
    }
    let info = machine.ok("cairn info");
    assert!(
        info.lines().any(|line| line == "state       ready"),
        "{info}"
    );
    // Confined as it is there, it does its work.
    import(&machine);
    assert_eq!(machine.ok("cairn images check -q"), STONE);
}

/// Row 17 of the errors, by the daemon that holds the lock, and both ways on.
#[test]
fn a_root_that_the_daemon_has_open() {
    let machine = machine();
    machine.ok("systemctl start cairnd");
    import(&machine);
    let pid = machine.ok("systemctl show -P MainPID cairnd");
    let opened = "cairn --root /var/lib/cairn images ls -q";
    let seen = machine.run(opened);
    let expected = format!(
        "error: cannot open /var/lib/cairn: locked by cairnd (pid {})\n  \
         next:      leave out --root to talk to it\n  next:      systemctl stop cairnd\n",
        pid.trim()
    );
    assert_eq!(
        (seen.code, &*seen.stdout, &*seen.stderr),
        (1, "", &*expected)
    );
    let left_out = opened.replace(" --root /var/lib/cairn", "");
    assert_eq!(machine.ok(&left_out), STONE);
    machine.ok(next(&seen)[1]);
    assert_eq!(machine.ok(opened), STONE);
}

/// Task 17.
#[test]
fn alice_uses_it_without_sudo_and_knows_what_that_means() {
    let machine = machine();
    machine.ok("useradd --no-create-home alice && systemctl start cairnd");
    import(&machine);
    let listed = "setpriv --reuid alice --regid alice --init-groups cairn images ls -q";
    let seen = machine.run(listed);
    assert_eq!(
        seen.stderr,
        "error: cannot reach cairnd at /run/cairn/cairn.sock: permission denied (socket is root:root \
         0600, you are alice)\n  next:      sudo cairn images ls -q\n  next:      to open it for a \
         group: man cairnd, SOCKET\n"
    );
    let section = section(&machine, "cairnd", "SOCKET");
    let words = section.join("\n");
    assert!(words.contains("EQUAL TO ROOT"), "{words}");
    for (said, text) in typed(&section) {
        let mut words = said.split([' ', ':']);
        match words.find(|word| word.starts_with('/')) {
            Some(file) => {
                let path = machine.path(file);
                fs::create_dir_all(path.parent().expect("directory")).expect("mkdir");
                fs::write(path, text + "\n").expect("write");
            }
            None => {
                machine.ok(&format!("set -e\n{}", text.replace("USER", "alice")));
            }
        }
    }
    assert_eq!(machine.ok(listed), STONE);
    // Nobody else.
    let other = listed
        .replace("alice", "nobody")
        .replace("--regid nobody", "--regid nogroup");
    let seen = machine.run(&other);
    assert!(
        seen.stderr.contains("socket is root:cairn 0660"),
        "{seen:?}"
    );
}

/// Task 20, by the manual page alone.
#[test]
fn it_is_removed_and_leaves_nothing() {
    let machine = machine();
    machine.ok("systemctl enable --now cairnd");
    import(&machine);
    machine.ok(&IMPORT.replace("cairn", "cairn -n dev"));
    machine.ok("cairn bundle create -q stone:1 /run/demo");
    machine.ok("cairn -n dev bundle create -q stone:1 '/run/a demo'");
    machine.ok("cairn -n dev images mount stone:1 '/run/to look at'");
    // Which pages were read is man's to remember.
    let left = "find /usr /etc /var /run -path /var/cache/man -prune -o '(' -name 'cairn*' -o -name \
                '_cairn*' ')' -print";
    assert!(machine.ok(left).lines().count() > 10);
    for (_, lines) in typed(&section(&machine, "cairnd", "UNINSTALL")) {
        machine.ok(&format!("set -e\n{lines}"));
    }
    assert_eq!(machine.ok(left), "");
    for dir in ["/run/demo", "/run/a demo"] {
        assert!(!machine.path(dir).exists(), "{dir}");
    }
    let nothing = [
        "getent group cairn",
        "findmnt -rno TARGET | grep -e demo -e look -e cairn",
        "systemctl list-units --all --plain --no-legend 'cairn*'",
        "pgrep -l cairn",
    ];
    for line in nothing {
        assert_eq!(machine.run(line).stdout, "", "{line}");
    }
}
