//! `cairn events` beside commands that change the store: only a daemon serves several at once.

mod support;

use std::{
    io::{BufRead, BufReader, Lines, Read},
    path::Path,
    process::{Child, ChildStdout, Stdio},
};

use serde_json::Value;
use support::Scene;

/// A running `cairn events`.
struct Listener {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Listener {
    /// Returns when it hears.
    fn start(scene: &Scene, words: &[&str]) -> Listener {
        let mut child = scene
            .command(Path::new(env!("CARGO_BIN_EXE_cairn")))
            .args(["-v", "events"])
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut notes = stderr.lines().map(|line| line.expect("line"));
        let heard = notes.any(|line| line == "cairn: listen to events");
        assert!(heard, "{words:?} does not listen");
        let stdout = child.stdout.take().expect("piped");
        Listener {
            child,
            lines: BufReader::new(stdout).lines(),
        }
    }

    fn line(&mut self) -> String {
        let line = self.lines.next().expect("an event");
        line.expect("text")
    }

    fn json(&mut self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn everything_that_happens_is_told_in_its_order() {
    let scene = Scene::with_archives().served();
    let mut all = Listener::start(&scene, &["--json"]);
    let mut images = Listener::start(&scene, &["/images", "snapshot/prepare"]);
    let mut dev = Listener::start(&scene, &[r#"namespace==dev,topic=="/namespaces/create""#]);
    scene.ok("cairn load -q -i busybox.tar");
    scene.ok("cairn images label busybox:1.36 a=b");
    scene.ok("cairn snapshots prepare work d1e0bc27c1b4");
    scene.ok("cairn images rm busybox:1.36");
    scene.ok("cairn namespaces create test");
    scene.ok("cairn namespaces create dev team=web");

    // The import is layers and names; the rest came one by one.
    let mut seen: Vec<Value> = Vec::new();
    while seen.last().is_none_or(|event| event["namespace"] != "dev") {
        seen.push(all.json());
    }
    let keys: Vec<&String> = seen[0].as_object().expect("object").keys().collect();
    assert_eq!(keys, ["event", "namespace", "time", "topic", "type"]);
    let tail: Vec<String> = seen[seen.len() - 5..]
        .iter()
        .map(|e| format!("{} {} {}", e["namespace"], e["topic"], e["event"]))
        .collect();
    let image = "\"docker.io/library/busybox:1.36\"";
    let parent = "sha256:d1e0bc27c1b413a46f56975c402d48d9c06ca87062950d72233c0ca224dd9347";
    assert_eq!(
        tail,
        [
            format!(r#""default" "/images/update" {{"labels":{{"a":"b"}},"name":{image}}}"#),
            format!(
                r#""default" "/snapshot/prepare" {{"key":"work","parent":"{parent}","snapshotter":"overlayfs"}}"#
            ),
            format!(r#""default" "/images/delete" {{"name":{image}}}"#),
            r#""test" "/namespaces/create" {"labels":{},"name":"test"}"#.to_owned(),
            r#""dev" "/namespaces/create" {"labels":{"team":"web"},"name":"dev"}"#.to_owned(),
        ]
    );
    let created = seen.iter().filter(|e| e["topic"] == "/images/create");
    let names: Vec<&Value> = created.map(|e| &e["event"]["name"]).collect();
    assert_eq!(names, ["docker.io/library/busybox:1.36"]);
    assert!(
        seen.iter()
            .all(|e| e["time"].as_str().is_some_and(|t| t.ends_with('Z'))),
        "{seen:?}"
    );

    let topics: Vec<String> = (0..4)
        .map(|_| images.line())
        .map(|line| line.split(' ').nth(2).expect("topic").to_owned())
        .collect();
    assert_eq!(
        topics,
        [
            "/images/create",
            "/images/update",
            "/snapshot/prepare",
            "/images/delete"
        ]
    );
    let line = dev.line();
    let (time, rest) = line.split_once(' ').expect("columns");
    assert!(time.ends_with('Z'), "{line}");
    assert_eq!(
        rest,
        r#"dev /namespaces/create {"labels":{"team":"web"},"name":"dev"}"#
    );
}

/// Where nothing happens nothing is said, wherever the server is.
#[test]
fn silence_tells_no_daemon_from_none() {
    for scene in [Scene::with_archives(), Scene::with_archives().served()] {
        let mut child = scene
            .command(Path::new(env!("CARGO_BIN_EXE_cairn")))
            .args(["events", "--timeout", "3s"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start");
        let mut text = String::new();
        let mut stderr = child.stderr.take().expect("piped");
        stderr.read_to_string(&mut text).expect("text");
        let mut told = String::new();
        let mut stdout = child.stdout.take().expect("piped");
        stdout.read_to_string(&mut told).expect("text");
        assert_eq!(child.wait().expect("wait").code(), Some(1));
        assert_eq!(text, "error: gave up after 3.0 s, as --timeout says\n");
        assert_eq!(told, "");
    }
}
