//! What is shown of a network that breaks.

use std::process::{Command, Stdio};

use cairn_integration::{cairn::Cairn, daemon::Daemon, fault_proxy::Fault};
use serde_json::{Value, json};

use crate::{Scene, first_layer};

/// What `--progress` shows of a layer whose connection breaks, and of a pull that was broken off.
struct Progress {
    said: String,
    document: Value,
}

impl Progress {
    fn of(command: &mut Command, mode: &str) -> Progress {
        let output = command.args(["--progress", mode]).output();
        let output = output.expect("start cairn");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{said}");
        Progress {
            said,
            document: serde_json::from_slice(&output.stdout).expect("JSON"),
        }
    }

    /// The objects of one kind.
    fn objects(&self, event: &str) -> Vec<Value> {
        let objects = self
            .said
            .lines()
            .map(|line| serde_json::from_str(line).expect(line));
        objects
            .filter(|object: &Value| object["event"] == event)
            .collect()
    }

    /// Where the first line of a log is that ends so, and in it what is before that.
    #[track_caller]
    fn line(&self, start: &str) -> (usize, String) {
        let mut lines = self.said.lines().enumerate();
        let found = lines.find_map(|(at, line)| Some((at, line.strip_prefix(start)?.to_owned())));
        found.unwrap_or_else(|| panic!("no line begins with {start:?}:\n{}", self.said))
    }
}

/// One layer, whose bytes break off after half of them, by the program alone and through the daemon.
#[test]
fn a_break_and_what_goes_on_are_shown() {
    const CUT: u64 = 500_000;
    let scene = Scene::with(&[1_000_000]);
    let (layer, host) = (scene.image.layers[0].clone(), scene.proxy.host());
    let name = scene.name();
    let short = &layer["sha256:".len()..][..12];
    for daemon in [None, Some(Daemon::start())] {
        for (mode, ns) in [("plain", "a"), ("json", "b")] {
            let cairn = Cairn::new();
            let words = ["-n", ns, "images", "pull", "--json", "--plain-http", &name];
            let mut command = match &daemon {
                None => cairn.command(&words),
                Some(daemon) => daemon.cairn(&words),
            };
            if let (Some(daemon), "b") = (&daemon, ns) {
                // What another namespace has would not be fetched again.
                daemon.ok(&["-n", "a", "images", "rm", "--sync", &name]);
            }
            scene.proxy.forget();
            first_layer(&scene, Fault::Cut(CUT));
            let shown = Progress::of(&mut command, mode);
            let seen = scene.proxy.seen();
            let fetches = seen.iter().filter(|seen| seen.path.ends_with(&layer));
            let ranges: Vec<_> = fetches.map(|seen| seen.head.get("range")).collect();
            assert_eq!(ranges, [None, Some(&*format!("bytes={CUT}-"))], "{seen:#?}");
            assert_eq!(shown.document["layers"][0]["attempts"], 2);
            if mode == "plain" {
                let start = format!("pull {name}: layer {short}: ");
                let (broke, how) = shown.line(&format!("{start}retry 2 of 6 in 0 ms ({host}: "));
                let why = format!("the connection broke after {CUT} bytes (");
                assert!(how.starts_with(&why), "{how}");
                let (resumed, at) = shown.line(&format!("{start}resumed at "));
                assert_eq!(at, "488.3 KiB");
                assert!(broke < resumed, "{}", shown.said);
                continue;
            }
            let retries = shown.objects("retry");
            let [retry] = retries.as_slice() else {
                panic!("{}", shown.said);
            };
            let cause = retry["cause"].as_str().expect("cause");
            assert!(cause.starts_with("the connection broke after "), "{cause}");
            let expected = json!({
                "event": "retry", "ref": &name, "digest": &layer, "host": &host,
                "attempt": 2, "attempts": 6, "wait_ms": 0, "cause": cause,
            });
            assert_eq!(*retry, expected);
            let expected = json!({
                "event": "resumed", "ref": &name, "digest": &layer, "at": CUT,
            });
            assert_eq!(shown.objects("resumed"), [expected]);
            let last = shown.objects("layer").pop().expect("a layer");
            assert_eq!((&last["attempt"], &last["host"]), (&json!(2), &json!(host)));
        }
    }
}

/// A host that asks for patience gets it, and it is said how much.
#[test]
fn a_wait_is_shown() {
    let scene = Scene::with(&[100_000]);
    let layer = &scene.image.layers[0]["sha256:".len()..][..12];
    first_layer(&scene, Fault::unavailable("1"));
    let shown = Progress::of(&mut scene.command(), "plain");
    let (name, host) = (scene.name(), scene.proxy.host());
    shown.line(&format!(
        "pull {name}: layer {layer}: retry 2 of 6 in 1 s ({host}: 503 service unavailable)"
    ));
    assert!(!shown.said.contains("resumed at"), "{}", shown.said);
}

/// What came of a pull that was killed is where the next one begins, and it says so.
#[test]
fn a_pull_goes_on_where_another_was_killed() {
    let scene = Scene::with(&[4_000_000]);
    scene.proxy.throttle(1_000_000);
    let mut command = scene.command();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("start cairn");
    while scene.proxy.blob_bytes() < 2_000_000 {
        assert!(child.try_wait().expect("wait").is_none(), "it ended");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    child.kill().expect("kill");
    child.wait().expect("wait");
    scene.proxy.throttle(0);
    scene.proxy.forget();
    let shown = Progress::of(&mut scene.command(), "json");
    let resumed = shown.objects("resumed");
    let [resumed] = resumed.as_slice() else {
        panic!("{}", shown.said);
    };
    let at = resumed["at"].as_u64().expect("offset");
    assert!(at >= 1_000_000, "{at}");
    let seen = scene.proxy.seen();
    let layer = &scene.image.layers[0];
    let fetch = seen.iter().find(|seen| seen.path.ends_with(layer));
    let range = fetch.and_then(|seen| seen.head.get("range"));
    assert_eq!(range, Some(&*format!("bytes={at}-")));
}
