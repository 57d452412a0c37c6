//! Which store is meant when nothing is said: that of the usual daemon, or the usual directory.
//!
//! Each case has a mount namespace of its own, in which the usual places are the test's.

mod support;

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::Path,
};

use support::*;

const WEB: &str = "registry.example.com/shop/web:2.1";

/// Runs a line where `/run/cairn` is the scene's directory `run`, and `/var/lib` is empty.
fn usual(scene: &Scene, line: &str) -> Seen {
    let run = scene.path("run");
    let places = format!(
        "mount -t tmpfs tmpfs /var/lib && mount -t tmpfs tmpfs /run && mkdir /run/cairn && \
         mount --bind {} /run/cairn && {line}",
        run.display()
    );
    let mut command = scene.command(Path::new("unshare"));
    command.args(["--mount", "sh", "-c", &places]);
    command.env_remove("CAIRN_ROOT").env_remove("CAIRN_ADDRESS");
    let output = command.output().expect("unshare");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Seen {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// With a directory for the usual socket.
fn scene() -> Scene {
    let scene = Scene::with_archives();
    fs::create_dir(scene.path("run")).expect("directory");
    scene
}

#[test]
fn a_daemon_that_answers_is_talked_to() {
    let scene = scene().served_at("run/cairn.sock");
    scene.ok("cairn load -q -i web.tar");
    let seen = usual(&scene, "cairn images ls -q && cairn version && ls /var/lib");
    let host = cairn_types::Platform::host();
    let expected = format!(
        "{WEB}\nclient  cairn 0.1.0 ({host})\nserver  cairnd 0.1.0 at /run/cairn/cairn.sock, API \
         containerd 2.3, store layout 1\n"
    );
    assert_eq!((seen.stdout, seen.stderr), (expected, String::new()));
    // Who says a directory means it.
    let seen = usual(
        &scene,
        "cairn --root /var/lib/cairn images ls -q && ls /var/lib",
    );
    assert_eq!((&*seen.stdout, &*seen.stderr), ("cairn\n", ""));
}

#[test]
fn without_a_daemon_the_usual_directory_is_opened() {
    let scene = scene();
    let seen = usual(&scene, "cairn load -q -i web.tar && ls /var/lib");
    let expected = format!("{WEB}\ncairn\n");
    assert_eq!((&seen.stdout, &*seen.stderr), (&expected, ""));
    // A socket that a daemon left behind is nobody's.
    drop(UnixListener::bind(scene.path("run/cairn.sock")).expect("bind"));
    let seen = usual(&scene, "cairn load -q -i web.tar && ls /var/lib");
    assert_eq!((seen.stdout, &*seen.stderr), (expected, ""));
}

/// Row 4: who may not talk to the daemon does not get another store instead.
#[test]
fn a_daemon_that_refuses_stays_the_one_that_is_meant() {
    let scene = scene();
    for (dir, mode) in [("", 0o755), ("work", 0o755), ("run", 0o755)] {
        let open = fs::Permissions::from_mode(mode);
        fs::set_permissions(scene.path(dir), open).expect("chmod");
    }
    copy_program(&scene.path("work/cairn"));
    let socket = scene.path("run/cairn.sock");
    let _listener = UnixListener::bind(&socket).expect("bind");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).expect("chmod");
    let line = "setpriv --reuid 65534 --regid 65534 --clear-groups ./cairn images ls; \
                echo $?; ls /var/lib";
    let seen = usual(&scene, line);
    let expected = "\
error: cannot reach cairnd at /run/cairn/cairn.sock: permission denied (socket is root:root 0600, you are nobody)
  next:      sudo cairn images ls
  next:      to open it for a group: man cairnd, SOCKET
";
    assert_eq!(seen.stderr, expected);
    assert_eq!(seen.stdout, "1\n");
}

/// Row 16: who may talk to the daemon may look, and mounts nothing for that.
#[test]
fn a_socket_that_is_open_makes_nobody_root() {
    let scene = scene().served_at("run/cairn.sock");
    scene.ok("cairn load -q -i web.tar");
    for (dir, mode) in [
        ("", 0o755),
        ("work", 0o777),
        ("run", 0o755),
        ("run/cairn.sock", 0o666),
    ] {
        let open = fs::Permissions::from_mode(mode);
        fs::set_permissions(scene.path(dir), open).expect("chmod");
    }
    copy_program(&scene.path("work/nobody"));
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups ./nobody";
    let dir = scene.path("work/demo");
    let dir = dir.display();
    let seen = usual(&scene, &format!("{nobody} images ls -q"));
    assert_eq!(
        (seen.stdout, seen.code),
        (format!("{WEB}\n"), 0),
        "{}",
        seen.stderr
    );
    let seen = usual(&scene, &format!("{nobody} bundle create {WEB} demo -t; ls"));
    let expected = format!(
        "error: cannot create bundle demo: mounting needs root, you are nobody\n  next:      sudo \
         cairn bundle create {WEB} demo -t\n"
    );
    assert_eq!(seen.stderr, expected);
    assert!(!seen.stdout.contains("demo"), "{}", seen.stdout);
    let seen = usual(&scene, &format!("{nobody} images mount {WEB} demo; ls"));
    let expected = format!(
        "error: cannot mount image {WEB}: mounting needs root, you are nobody\n  next:      sudo \
         cairn images mount {WEB} demo\n"
    );
    assert_eq!(seen.stderr, expected);
    assert!(!seen.stdout.contains("demo"), "{}", seen.stdout);
    scene.ok(&format!("cairn bundle create -q {WEB} demo"));
    let seen = usual(
        &scene,
        &format!("{nobody} bundle ls -q; {nobody} bundle rm demo"),
    );
    let expected = format!(
        "error: cannot remove bundle {dir}: unmounting needs root, you are nobody\n  next:      sudo \
         cairn bundle rm demo\n"
    );
    assert_eq!((seen.stderr, seen.stdout), (expected, format!("{dir}\n")));
    scene.ok("cairn bundle rm demo");
}

/// A daemon that hangs is not nobody.
#[test]
fn a_daemon_that_hangs_stays_the_one_that_is_meant() {
    let scene = scene();
    let _listener = UnixListener::bind(scene.path("run/cairn.sock")).expect("bind");
    let seen = usual(
        &scene,
        "cairn images ls --connect-timeout 100ms; ls /var/lib",
    );
    let expected = "\
error: cannot reach cairnd at /run/cairn/cairn.sock: no answer within 100 ms
  next:      systemctl status cairnd
  next:      name the store to work without a daemon: --root DIR
";
    assert_eq!((&*seen.stdout, &*seen.stderr), ("", expected));
}

/// Whom a pull would ask is nobody's secret, and no matter of a store: neither of one that is not there
/// nor of one that somebody else has.
#[test]
fn explaining_hosts_needs_no_store() {
    let scene = scene();
    for dir in ["", "work"] {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(scene.path(dir), open).expect("chmod");
    }
    copy_program(&scene.path("work/cairn"));
    let hosts = "https://registry-1.docker.io/v2\n";
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups ./cairn";
    for place in ["", "--root /var/lib/other"] {
        let line = format!("{nobody} explain-host {place} -q busybox && ls /var/lib /run/cairn");
        let seen = usual(&scene, &line);
        let expected = format!("{hosts}/run/cairn:\n\n/var/lib:\n");
        assert_eq!((&*seen.stdout, &*seen.stderr), (&*expected, ""), "{place}");
    }
    // The daemon's lock would be in the way.
    let scene = scene.served_at("run/cairn.sock");
    let root = scene.root();
    let line = format!("cairn explain-host --root {} -q busybox", root.display());
    let seen = usual(&scene, &line);
    assert_eq!((&*seen.stdout, &*seen.stderr), (hosts, ""));
    let seen = usual(&scene, "cairn explain-host -q busybox");
    assert_eq!((&*seen.stdout, &*seen.stderr), (hosts, ""));
}

/// It is the daemon's configuration that says where to look, and a mistake in it is one here, too.
#[test]
fn explaining_hosts_reads_the_configuration() {
    let scene = scene();
    let dir = scene.path("work/hosts/registry.example.com");
    fs::create_dir_all(&dir).expect("directory");
    let file = "[host.\"http://mirror.example.com\"]\n";
    fs::write(dir.join("hosts.toml"), file).expect("hosts.toml");
    let line = "CAIRN_REGISTRY__CONFIG_PATH=\"['$PWD/hosts']\" cairn explain-host -q \
                registry.example.com";
    let seen = usual(&scene, line);
    let hosts = "http://mirror.example.com/v2\nhttps://registry.example.com/v2\n";
    assert_eq!((&*seen.stdout, &*seen.stderr), (hosts, ""));
    let seen = usual(
        &scene,
        "CAIRN_REGISTRY__RETRIES=many cairn explain-host -q busybox",
    );
    assert_eq!((seen.code, &*seen.stdout), (1, ""));
    assert!(
        seen.stderr.starts_with("error: cannot read "),
        "{}",
        seen.stderr
    );
    assert!(
        seen.stderr.contains("CAIRN_REGISTRY__RETRIES"),
        "{}",
        seen.stderr
    );
}
