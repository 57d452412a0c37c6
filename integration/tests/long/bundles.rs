//! Bundles and mounts of a daemon that may neither mount nor write outside of its store, and what is
//! left of a client that is killed at any of its system calls.

use std::{
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use cairn_integration::{
    both::text,
    cairn::Cairn,
    daemon::Daemon,
    fault,
    image::{Layer, Layout, Packing},
    peers,
};
use serde_json::{Value, json};

const NAME: &str = "localhost/t:one";

/// A daemon with an image of two layers in which busybox runs.
struct Scene {
    daemon: Daemon,
}

impl Scene {
    fn new() -> Scene {
        let scene = Scene {
            daemon: Daemon::shut_in(),
        };
        let base = Layer::busybox().file("etc/motd", b"base\n");
        let top = Layer::new().file("etc/motd", b"hello from above\n");
        let layers = [
            (base.finish(), Packing::Gzip),
            (top.finish(), Packing::Plain),
        ];
        let layout = scene.path("layout");
        let config = json!({"Cmd": ["/bin/cat", "/etc/motd"], "Volumes": {"/data": {}}});
        Layout::create(&layout).image("one", &layers, &config);
        scene.ok(&[
            "images",
            "import",
            "--base-name",
            "localhost/t",
            text(&layout),
        ]);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.daemon.path(name)
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .arg("--address")
            .arg(self.daemon.socket())
            .args(arguments)
            .stdin(Stdio::null());
        for variable in ["CAIRN_FAULT", "CAIRN_ROOT", "CONTAINERD_NAMESPACE"] {
            command.env_remove(variable);
        }
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(&Cairn::binary(), arguments)
            .output()
            .expect("start cairn")
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cairn {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[track_caller]
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert_eq!(output.status.code(), Some(1), "cairn {arguments:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    fn bundles(&self) -> Value {
        serde_json::from_str(&self.ok(&["bundle", "ls", "--json"])).expect("JSON")
    }

    /// Nothing of bundles and mounts is left: no name, mount, record or snapshot.
    #[track_caller]
    fn assert_clean(&self, context: &str) {
        let entries = fs::read_dir(self.path("")).expect("directory");
        let mut names: Vec<String> = entries
            .map(|entry| {
                let name = entry.expect("entry").file_name();
                name.into_string().expect("UTF-8")
            })
            .filter(|name| name != "mnt")
            .collect();
        names.sort();
        assert_eq!(names, ["layout", "log", "root", "state"], "{context}");
        assert_eq!(self.daemon.mounts(), [""; 0], "{context}");
        let snapshots = self.ok(&["-q", "snapshots", "ls"]);
        let own = snapshots.lines().filter(|key| !key.starts_with("sha256:"));
        assert_eq!(own.collect::<Vec<_>>(), [""; 0], "{context}");
        assert_eq!(self.bundles(), json!([]), "{context}");
    }
}

#[test]
fn the_daemon_neither_mounts_nor_writes_elsewhere() {
    let mut scene = Scene::new();
    let probe = scene.path("probe");
    let touched = scene.daemon.inside("touch", &[text(&probe)]);
    assert!(!touched.status.success() && !probe.exists(), "read-only");
    let before = scene.daemon.own_mounts();
    let dir = scene.path("deep/bundle");
    let created = scene.ok(&["bundle", "create", NAME, text(&dir)]);
    assert_eq!(scene.daemon.own_mounts(), before);
    assert!(
        created.starts_with(&format!("created {} from {NAME} (linux/", dir.display())),
        "{created}"
    );
    for (runtime, id) in [("runc", "cairn-shut-runc"), ("crun", "cairn-shut-crun")] {
        let printed = peers::contain(runtime, &dir, id);
        assert_eq!(printed, "hello from above\n", "{runtime}");
    }
    let inside = scene.daemon.inside("ls", &[text(&dir.join("rootfs"))]);
    assert_eq!(
        inside.stdout, b"",
        "the daemon does not see what we mounted"
    );
    fs::write(dir.join("rootfs/etc/motd"), "changed\n").expect("write");
    let listed = scene.bundles();
    assert_eq!(listed[0]["dir"], text(&dir));
    assert_eq!(
        (&listed[0]["mounted"], &listed[0]["image"]),
        (&json!(true), &json!(NAME))
    );
    let refused = scene.fails(&["bundle", "create", NAME, text(&dir)]);
    assert!(refused.contains("the directory is not empty"), "{refused}");
    // Nothing of it is the daemon's to lose.
    scene.daemon.kill();
    scene.daemon.restart();
    assert_eq!(
        peers::contain("runc", &dir, "cairn-shut-again"),
        "changed\n"
    );
    assert_eq!(scene.bundles(), listed);
    peers::run("umount", &[text(&dir.join("rootfs"))]);
    let again = scene.ok(&["bundle", "create", NAME, text(&dir)]);
    assert!(again.starts_with("remounted "), "{again}");
    assert_eq!(
        scene.ok(&["bundle", "rm", text(&dir)]),
        format!("removed {}\n", dir.display())
    );
    fs::remove_dir(scene.path("deep")).expect("nothing is left in it");
    scene.assert_clean("after bundles");
    // The other one began with a copy of the bundle's mount, which went with the directory.
    assert_eq!(scene.daemon.own_mounts(), before);
}

#[test]
fn images_are_mounted_by_whoever_asks() {
    let scene = Scene::new();
    let before = scene.daemon.own_mounts();
    let target = scene.path("mnt");
    let printed = scene.ok(&["images", "mount", NAME, text(&target)]);
    assert_eq!(printed, format!("{}\n", target.display()));
    let motd = || fs::read_to_string(target.join("etc/motd")).expect("motd");
    assert_eq!(motd(), "hello from above\n");
    fs::write(target.join("etc/motd"), "x").expect_err("read-only");
    let refused = scene.fails(&["images", "mount", NAME, text(&target)]);
    assert!(refused.contains("is mounted at"), "{refused}");
    let layers = scene.ok(&["-q", "snapshots", "ls"]);
    let lowest = layers.lines().find(|key| key.starts_with("sha256:"));
    let lowest = lowest.expect("layers");
    let refused = scene.fails(&["snapshots", "rm", "--recursive", lowest]);
    assert!(refused.contains("it is mounted at"), "{refused}");
    assert_eq!(motd(), "hello from above\n");
    scene.ok(&["images", "unmount", text(&target)]);
    scene.assert_clean("after a look");
    scene.ok(&["images", "mount", "--rw", NAME, text(&target)]);
    fs::write(target.join("etc/motd"), "kept\n").expect("write");
    scene.ok(&["images", "unmount", text(&target)]);
    assert!(fs::read_dir(&target).expect("directory").next().is_none());
    scene.ok(&["gc"]);
    scene.ok(&["images", "mount", "--rw", NAME, text(&target)]);
    assert_eq!(motd(), "kept\n");
    scene.ok(&["images", "unmount", "--rm", text(&target)]);
    scene.assert_clean("after changes");
    assert_eq!(scene.daemon.own_mounts(), before);
}

/// Runs `cairn` with numbered fault points: each system call of a command is a point to die at.
fn faulty(scene: &Scene, arguments: &[&str], fault: &str) -> Output {
    scene
        .command(fault::binary(), arguments)
        .env("CAIRN_FAULT", fault)
        .output()
        .expect("start cairn-fault")
}

/// How many calls a command makes.
fn calls(scene: &Scene, arguments: &[&str]) -> u64 {
    let output = faulty(scene, arguments, "none@1+");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let calls = fault::calls(&output);
    calls.last().expect("it makes calls").number
}

/// Kills a command before and after each of so many calls, and lets `next` come by. How often it died:
/// a scan of `/proc` sees other processes each time, so that the last calls do not always come to pass.
fn die_everywhere(
    scene: &Scene,
    arguments: &[&str],
    calls: u64,
    mut next: impl FnMut(u64, &str),
) -> u64 {
    let mut deaths = 0;
    for number in 1..=calls {
        for kind in ["kill", "kill-after"] {
            let fault = format!("{kind}@{number}");
            let context = format!("{}, {fault}", arguments[1]);
            let output = faulty(scene, arguments, &fault);
            let died = output.status.signal() == Some(9);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(died || output.status.success(), "{context}: {stderr}");
            deaths += u64::from(died);
            next(number, &context);
        }
    }
    deaths
}

/// Whoever asks which bundles there are finds a whole one or none; whether it is one.
#[track_caller]
fn looked_at(scene: &Scene, dir: &Path, context: &str) -> bool {
    let listed = scene.bundles();
    let whole = listed.as_array().is_some_and(|list| list.len() == 1);
    assert_eq!(dir.exists(), whole, "{context}: {listed}");
    whole
}

#[test]
fn k06_b07_who_makes_a_bundle_may_be_killed_anywhere() {
    let scene = Scene::new();
    let dir = scene.path("bundle");
    let create = ["bundle", "create", NAME, text(&dir)];
    let remove = ["bundle", "rm", text(&dir)];
    let made = calls(&scene, &create);
    assert!(made > 30, "{made} calls");
    scene.ok(&remove);
    scene.assert_clean("without faults");
    let deaths = die_everywhere(&scene, &create, made, |number, context| {
        // By turns, what comes by next is somebody who looks, the same command, or a removal.
        match number % 3 {
            0 => {
                if looked_at(&scene, &dir, context) {
                    assert_eq!(scene.bundles()[0]["mounted"], true, "{context}");
                    scene.ok(&remove);
                }
            }
            1 => {
                let again = scene.output(&create);
                let stderr = String::from_utf8_lossy(&again.stderr);
                let there = stderr.contains("the directory is not empty");
                assert!(again.status.success() || there, "{context}: {stderr}");
                assert!(dir.join("rootfs/bin/sh").exists(), "{context}");
                scene.ok(&remove);
            }
            _ => {
                let output = scene.output(&remove);
                let stderr = String::from_utf8_lossy(&output.stderr);
                let none = stderr.contains("no bundle was made there");
                assert!(output.status.success() || none, "{context}: {stderr}");
            }
        }
        scene.assert_clean(context);
    });
    assert!(deaths > made, "{deaths} of {}", 2 * made);
}

#[test]
fn k06_b07_who_removes_a_bundle_may_be_killed_anywhere() {
    let scene = Scene::new();
    let dir = scene.path("bundle");
    let create = ["bundle", "create", NAME, text(&dir)];
    let remove = ["bundle", "rm", text(&dir)];
    scene.ok(&create);
    let removed = calls(&scene, &remove);
    assert!(removed > 10, "{removed} calls");
    scene.assert_clean("without faults");
    scene.ok(&create);
    let deaths = die_everywhere(&scene, &remove, removed, |number, context| {
        if number % 2 == 0 {
            looked_at(&scene, &dir, context);
        } else {
            let again = scene.output(&create);
            let stderr = String::from_utf8_lossy(&again.stderr);
            let there = stderr.contains("the directory is not empty");
            assert!(again.status.success() || there, "{context}: {stderr}");
        }
        if dir.exists() {
            scene.ok(&remove);
        }
        scene.assert_clean(context);
        scene.ok(&create);
    });
    assert!(deaths > removed, "{deaths} of {}", 2 * removed);
    scene.ok(&remove);
}

/// One that takes long is not taken for one that died, and so it is with somebody who was stopped.
#[test]
fn a_client_that_stands_still_is_left_alone() {
    let scene = Scene::new();
    let dir = scene.path("bundle");
    // The marker is the first file that gets its name by a rename, the configuration the second.
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=renameat,renameat2"])
        .args(["-e", "inject=renameat,renameat2:signal=SIGSTOP:when=2"])
        .args(["-o", "/dev/null"])
        .arg(Cairn::binary())
        .arg("--address")
        .arg(scene.daemon.socket())
        .args(["bundle", "create", NAME, text(&dir)])
        .stdout(Stdio::null())
        .spawn()
        .expect("start strace");
    let hidden = || {
        let names = fs::read_dir(scene.path("")).expect("directory");
        let mut paths = names.map(|entry| entry.expect("entry").path());
        paths.find(|path| text(path).contains("/.cairn-"))
    };
    scene.daemon.until("a configuration", || {
        hidden().is_some_and(|hidden| hidden.join("config.json").exists())
    });
    assert_eq!(scene.bundles(), json!([]), "not there yet");
    for words in [&["rm"][..], &["create", NAME]] {
        let arguments = [&["bundle"], words, &[text(&dir)]].concat();
        let refused = scene.fails(&arguments);
        assert!(
            refused.contains("it is being made or removed already"),
            "{refused}"
        );
    }
    assert!(hidden().is_some_and(|hidden| hidden.join("rootfs/bin/sh").exists()));
    let id = tracer.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let client = children.expect("children").trim().to_owned();
    peers::run("kill", &["-CONT", &client]);
    assert!(tracer.wait().expect("wait").success());
    assert_eq!(scene.bundles()[0]["mounted"], true);
    scene.ok(&["bundle", "rm", text(&dir)]);
    scene.assert_clean("at the end");
}
