//! Pulls through a network that breaks: they end whole and cost hardly more, or say where it broke.
#![allow(missing_docs)]

use std::{
    collections::HashSet,
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::SystemTime,
};

use cairn_integration::{
    cairn::Cairn,
    daemon::Daemon,
    fault_proxy::{Fault, Proxy, Seen, storm, times},
    fixture::text,
    image::{digest, noise},
    registry::Registry,
    registry_images::{Noise, Repository},
};
use serde_json::{Value, json};

/// An image of four layers, a proxy before its registry, and an empty store.
struct Scene {
    registry: Registry,
    proxy: Proxy,
    image: Noise,
    cairn: Cairn,
}

impl Scene {
    fn new() -> Scene {
        Scene::of(1_000_000)
    }

    /// With layers of so many bytes.
    fn of(size: usize) -> Scene {
        Scene::with(&[size; 4])
    }

    fn with(sizes: &[usize]) -> Scene {
        let registry = Registry::start();
        let image = Repository::new(&registry, "shop/web").noise("1", sizes);
        Scene {
            proxy: Proxy::start(registry.address()),
            registry,
            image,
            cairn: Cairn::new(),
        }
    }

    fn name(&self) -> String {
        format!("{}/shop/web:1", self.proxy.host())
    }

    /// The command, with less patience than people want.
    fn command(&self) -> Command {
        let name = self.name();
        let arguments = ["images", "pull", "--json", "--plain-http", &name];
        let mut command = self.cairn.command(&arguments);
        command.env("CAIRN_REGISTRY__MIN_RATE_WINDOW", "1s");
        command.env("CAIRN_REGISTRY__HEADER_TIMEOUT", "2s");
        command
    }

    fn pull(&self) -> Output {
        self.command().output().expect("start cairn")
    }

    /// A mirror of the registry, and a directory that says that its blobs and manifests come from there
    /// first.
    fn mirror(&self) -> (Proxy, PathBuf) {
        let mirror = Proxy::start(self.registry.address());
        let dir = self.cairn.path("certs.d");
        let own = dir.join(self.proxy.host());
        fs::create_dir_all(&own).expect("directory");
        let text = format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n",
            self.proxy.host(),
            mirror.host()
        );
        fs::write(own.join("hosts.toml"), text).expect("hosts.toml");
        (mirror, dir)
    }

    /// It ends whole, and no more bytes of blobs came than `percent` of the image.
    #[track_caller]
    fn whole(&self, percent: u64) {
        self.ends_whole(self.command(), percent);
    }

    #[track_caller]
    fn ends_whole(&self, mut command: Command, percent: u64) {
        let output = command.output().expect("start cairn");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}\n{:#?}", self.faults());
        let pulled: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(
            pulled["image"]["target"]["digest"],
            json!(self.image.digest)
        );
        assert_eq!(pulled["image"]["complete"], true);
        let sent = self.proxy.blob_bytes();
        let most = self.image.bytes * percent / 100;
        assert!(sent <= most, "{sent} of {most}: {:#?}", self.faults());
        self.is_here();
    }

    /// Every layer is what it should be, packed and unpacked.
    #[track_caller]
    fn is_here(&self) {
        let target = self.cairn.path("mnt");
        fs::create_dir_all(&target).expect("target");
        self.cairn
            .ok(&["images", "mount", &self.name(), text(&target)]);
        for (layer, number) in self.image.layers.iter().zip(1..) {
            let got = self.cairn.output(&["content", "get", layer]);
            assert_eq!(&digest(&got.stdout), layer);
            let file = fs::read(target.join(format!("noise-{number}")));
            let file = file.expect("file");
            assert!(file == noise(file.len(), number), "file of layer {number}");
            assert!(!file.is_empty());
        }
        self.cairn.ok(&["images", "unmount", text(&target)]);
    }

    /// It fails, names the host and says these words; nothing has the name.
    #[track_caller]
    fn fails(&self, words: &[&str]) -> String {
        self.fails_with(&["--plain-http"], words)
    }

    #[track_caller]
    fn fails_with(&self, more: &[&str], words: &[&str]) -> String {
        let name = self.name();
        let pull = ["images", "pull", "--progress", "none", &name];
        let pull = [&pull[..], more].concat();
        let mut command = self.cairn.command(&pull);
        let output = command.env("CAIRN_REGISTRY__RETRIES", "1").output();
        let output = output.expect("start cairn");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        for words in [&[self.proxy.host().as_str(), &name], words].concat() {
            assert!(said.contains(words), "no {words:?} in\n{said}");
        }
        assert_eq!(self.cairn.ok(&["-q", "images", "ls"]), "");
        said
    }

    /// What failed, at which host, and why.
    #[track_caller]
    fn says_where(&self, output: &Output) {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&self.proxy.host()), "{said}");
        let what = ["fetch blob sha256:", "fetch manifest", "resolve"];
        assert!(what.iter().any(|what| said.contains(what)), "{said}");
        assert!(said.contains("cause:"), "{said}");
    }

    fn faults(&self) -> Vec<(String, Option<Fault>, u16, u64)> {
        let seen = self.proxy.seen().into_iter();
        seen.map(|seen| (seen.target, seen.fault, seen.status, seen.sent))
            .collect()
    }
}

/// Breaks the first layer that is asked for.
fn first_layer(scene: &Scene, fault: Fault) {
    let mut fault = Some(fault);
    layers(scene, move |_| fault.take());
}

/// Breaks layers alone: of a configuration's few bytes nothing is left after some cuts.
fn layers(scene: &Scene, mut script: impl FnMut(&Seen) -> Option<Fault> + Send + 'static) {
    let layers = scene.image.layers.clone();
    scene.proxy.script(move |seen| {
        let layer = layers.iter().any(|layer| seen.path.ends_with(layer));
        (seen.is_fetch() && layer).then(|| script(seen)).flatten()
    });
}

#[test]
fn twenty_cuts() {
    let scene = Scene::new();
    layers(&scene, times(20, 11, Fault::Cut));
    scene.whole(105);
    assert_eq!(scene.proxy.faults(), 20);
}

#[test]
fn storms() {
    for seed in [3, 4, 5] {
        let scene = Scene::new();
        scene.proxy.script(storm(seed, 40, 12));
        let output = scene.pull();
        if !output.status.success() {
            scene.says_where(&output);
        }
        scene.proxy.heal();
        scene.whole(105);
    }
}

#[test]
fn nothing_comes_any_more() {
    let scene = Scene::new();
    layers(&scene, times(2, 5, Fault::Stall));
    scene.whole(105);
    assert_eq!(scene.proxy.faults(), 2);
}

#[test]
fn no_answer() {
    let scene = Scene::new();
    let mut left = 4;
    scene.proxy.script(move |_| {
        left -= i32::from(left > 0);
        (left > 0).then_some(Fault::Hang)
    });
    scene.whole(105);
}

/// Who says that a blob has another length has another blob.
#[test]
fn lengths_are_wrong() {
    for (fault, by) in [(Fault::Longer(7), 7), (Fault::Shorter(1000), -1000)] {
        let scene = Scene::new();
        // So that what is on its way when a connection is left is little, and all that counts twice.
        scene.proxy.throttle(1_000_000);
        first_layer(&scene, fault);
        let said = scene.fails(&["bytes where", "fetch blob sha256:"]);
        let numbers = said.split(|c: char| !c.is_ascii_digit());
        let numbers: Vec<i64> = numbers.filter_map(|word| word.parse().ok()).collect();
        let pairs = numbers.iter().any(|one| numbers.contains(&(one + by)));
        assert!(pairs, "{said}");
        scene.proxy.heal();
        scene.whole(110);
    }
}

#[test]
fn a_byte_is_wrong() {
    // The others are here before it comes out.
    let scene = Scene::with(&[200_000, 3_000_000, 200_000, 200_000]);
    scene.proxy.throttle(2_000_000);
    let layer = scene.image.layers[1].clone();
    let bad = layer.clone();
    scene.proxy.script(move |seen| {
        (seen.is_fetch() && seen.path.ends_with(&bad)).then_some(Fault::Flip(2_900_000))
    });
    scene.fails(&[&layer, "sent bytes of sha256:", &format!("not of {layer}")]);
    assert_eq!(scene.proxy.fetches(Some(&layer)), 2, "once more, not more");
    let target = scene.cairn.output(&["content", "get", &layer]);
    assert!(!target.status.success(), "what is wrong is not kept");
    // Mended, only that one is fetched again.
    scene.proxy.heal();
    scene.proxy.forget();
    scene.whole(86);
}

/// Of a layer, the configuration and the manifest: each is fetched once more, from its beginning.
#[test]
fn a_byte_is_wrong_once() {
    let scene = Scene::new();
    let mut wrong: Vec<String> = scene.image.layers[1..3].to_vec();
    wrong.extend([scene.image.config.clone(), scene.image.digest.clone()]);
    let mut left = wrong.clone();
    scene.proxy.script(move |seen| {
        let at = left.iter().position(|one| seen.path.ends_with(one))?;
        (seen.method == "GET").then(|| left.remove(at))?;
        Some(Fault::Flip(900_000))
    });
    scene.whole(155);
    assert_eq!(scene.proxy.faults(), wrong.len());
    for one in scene.image.all() {
        let asked = times_asked(&scene.proxy, one);
        assert_eq!(asked, 1 + usize::from(wrong.contains(one)), "{one}");
    }
}

fn times_asked(proxy: &Proxy, digest: &str) -> usize {
    let seen = proxy.seen();
    let got = seen.iter().filter(|seen| seen.method == "GET");
    got.filter(|seen| seen.path.ends_with(digest)).count()
}

/// What a mirror has wrong comes from the registry, and only that.
#[test]
fn a_mirror_lies() {
    let scene = Scene::new();
    let (mirror, dir) = scene.mirror();
    let mut wrong = scene.image.layers[1..3].to_vec();
    wrong.extend([scene.image.config.clone(), scene.image.digest.clone()]);
    let bad = wrong.clone();
    mirror.script(move |seen| {
        let hit = bad.iter().any(|bad| seen.path.ends_with(bad));
        hit.then_some(Fault::Flip(900_000))
    });
    let name = scene.name();
    let pull = ["images", "pull", "--hosts-dir", text(&dir), &name];
    scene.cairn.ok(&pull);
    scene.is_here();
    for one in scene.image.all() {
        assert_eq!(times_asked(&mirror, one), 1, "{one}");
        let origin = times_asked(&scene.proxy, one);
        assert_eq!(origin, usize::from(wrong.contains(one)), "{one}");
    }
}

#[test]
fn all_hosts_lie() {
    let scene = Scene::new();
    let (mirror, dir) = scene.mirror();
    let layer = scene.image.layers[1].clone();
    for (proxy, at) in [(&mirror, 900_000), (&scene.proxy, 800_000)] {
        let bad = layer.clone();
        proxy.script(move |seen| seen.path.ends_with(&bad).then_some(Fault::Flip(at)));
    }
    let said = scene.fails_with(
        &["--hosts-dir", text(&dir)],
        &[&mirror.host(), &layer, &format!("not of {layer}")],
    );
    let sentences = said.matches("sent bytes of sha256:").count();
    assert_eq!(sentences, 2, "one for each: {said}");
    for proxy in [&mirror, &scene.proxy] {
        assert_eq!(times_asked(proxy, &layer), 1);
    }
    // The one that has it wrong once is asked again where the other does not have it.
    let (bad, mut left) = (layer.clone(), 1);
    mirror.script(move |seen| {
        let hit = seen.path.ends_with(&bad) && left > 0;
        left -= i32::from(hit);
        hit.then_some(Fault::Flip(900_000))
    });
    let bad = layer.clone();
    scene.proxy.script(move |seen| {
        let hit = seen.path.ends_with(&bad);
        hit.then(|| Fault::Status(404, Vec::new()))
    });
    let name = scene.name();
    scene
        .cairn
        .ok(&["images", "pull", "--hosts-dir", text(&dir), &name]);
    scene.is_here();
}

/// It is said that the store has it wrong, and how to have it fetched again.
#[test]
fn a_stored_layer_is_damaged() {
    let scene = Scene::new();
    scene.whole(100);
    let layer = &scene.image.layers[3];
    let path = layer.replace(':', "/");
    let path = scene.cairn.path("store/content/blobs").join(path);
    let mut bytes = fs::read(&path).expect("blob");
    bytes[500_000] ^= 1;
    fs::write(&path, bytes).expect("damage");
    let listed = scene.cairn.ok(&["-q", "snapshots", "ls"]);
    for key in listed.lines().rev() {
        let _ = scene.cairn.output(&["snapshots", "rm", "--recursive", key]);
    }
    let output = scene.pull();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for words in ["is damaged", &format!("content rm {layer}")] {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
    assert!(!said.contains("where:"), "{said}");
    scene.cairn.ok(&["content", "rm", layer]);
    scene.whole(126);
}

/// A request for a part of a blob, where the first one goes on to the end.
fn is_part(seen: &Seen) -> bool {
    let range = seen.head.get("range");
    seen.is_fetch() && range.is_some_and(|range| !range.ends_with('-'))
}

/// A layer that comes slowly enough for several connections, and its way.
fn wide() -> Scene {
    let scene = Scene::with(&[20_000_000]);
    scene.proxy.throttle(2_000_000);
    scene
}

/// Parts are asked for, and the first of them fails only when its turn has come: what the first connection
/// has brought is neither lost nor fetched again.
#[test]
fn parts_fail_late() {
    let scene = wide();
    let mut silent: HashSet<String> = HashSet::new();
    layers(&scene, move |seen| {
        let range = seen.head.get("range").filter(|_| is_part(seen))?;
        // Nothing comes for longer than the first connection takes to where the parts begin.
        Some(match silent.insert(range.to_owned()) {
            true => Fault::Stall(0),
            false => Fault::Status(416, Vec::new()),
        })
    });
    let mut command = scene.command();
    command.env("CAIRN_REGISTRY__MIN_RATE_WINDOW", "7s");
    scene.ends_whole(command, 105);
    assert!(scene.proxy.faults() > 1);
}

/// The first connection breaks when parts are under way.
#[test]
fn cut_beside_parts() {
    let scene = wide();
    first_layer(&scene, Fault::Cut(6_000_000));
    scene.whole(105);
    let seen = scene.proxy.seen();
    let range = |seen: &Seen| seen.head.get("range").map(str::to_owned);
    let again = seen
        .iter()
        .position(|seen| range(seen).as_deref() == Some("bytes=6000000-"));
    let part = seen.iter().position(is_part);
    assert!(part.is_some() && part < again, "{:#?}", scene.faults());
}

#[test]
fn too_many_requests() {
    let scene = Scene::new();
    let date = httpdate(SystemTime::now() + std::time::Duration::from_secs(2));
    let faults = [
        Fault::too_many("1"),
        Fault::too_many(&date),
        Fault::unavailable("1"),
        Fault::Status(502, Vec::new()),
    ];
    let mut faults = faults.into_iter();
    scene
        .proxy
        .script(move |seen| seen.is_fetch().then(|| faults.next()).flatten());
    scene.whole(100);
    assert_eq!(scene.proxy.faults(), 4);
}

/// As RFC 9110 has it, by GNU date.
fn httpdate(time: SystemTime) -> String {
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("after 1970");
    let at = format!("@{}", since.as_secs());
    let form = "+%a, %d %b %Y %H:%M:%S GMT";
    let mut command = Command::new("date");
    let said = command
        .args(["-u", "-d", &at, form])
        .env("LC_ALL", "C")
        .output();
    String::from_utf8(said.expect("start date").stdout)
        .expect("UTF-8")
        .trim()
        .to_owned()
}

#[test]
fn out_of_order_for_good() {
    let scene = Scene::new();
    scene.proxy.throttle(1_000_000);
    let layer = scene.image.layers[2].clone();
    let bad = layer.clone();
    scene.proxy.script(move |seen| {
        let hit = seen.is_fetch() && seen.path.ends_with(&bad);
        hit.then(|| Fault::Status(500, Vec::new()))
    });
    scene.fails(&["500", &format!("fetch blob {layer}")]);
    // What came is kept, and not fetched again.
    let before = scene.proxy.blob_bytes();
    scene.proxy.heal();
    scene.whole(110);
    assert!(before > 0);
}

#[test]
fn no_more_pulls_are_allowed() {
    let scene = Scene::new();
    scene.proxy.script(|_| Some(Fault::too_many("0")));
    scene.fails(&["429"]);
}

#[test]
fn ranges_are_ignored() {
    let scene = Scene::new();
    let mut cut = false;
    scene
        .proxy
        .script(move |seen| match (seen.is_fetch(), cut) {
            (true, false) => {
                cut = true;
                Some(Fault::Cut(20_000))
            }
            (true, true) => Some(Fault::WithoutRange),
            _ => None,
        });
    scene.whole(105);
}

#[test]
fn a_trickle_is_left() {
    let scene = Scene::new();
    first_layer(&scene, Fault::Trickle(1000));
    scene.whole(105);
    assert_eq!(scene.proxy.faults(), 1);
}

/// The daemon is killed in the middle, twice; what had come is not fetched again, but for what was on
/// its way.
#[test]
fn killed_in_the_middle() {
    let scene = Scene::of(5_000_000);
    let mut daemon = Daemon::start();
    scene.proxy.throttle(600_000);
    let name = scene.name();
    for part in 1..=2 {
        let mut command = daemon.cairn(&["images", "pull", "--plain-http", &name]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.expect("start cairn");
        let enough = scene.image.bytes * part / 3;
        daemon.until("bytes", || scene.proxy.blob_bytes() > enough);
        daemon.kill();
        assert!(!child.wait().expect("wait").success());
        daemon.restart();
    }
    scene.proxy.throttle(0);
    let done = daemon
        .cairn(&["images", "pull", "--plain-http", &name])
        .output();
    let done = done.expect("start cairn");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let (sent, most) = (scene.proxy.blob_bytes(), scene.image.bytes * 105 / 100);
    assert!(sent <= most, "{sent} of {most}: {:#?}", scene.faults());
    for layer in &scene.image.layers {
        let got = daemon.cairn(&["content", "get", layer]).output();
        assert_eq!(&digest(&got.expect("start cairn").stdout), layer);
    }
}

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
