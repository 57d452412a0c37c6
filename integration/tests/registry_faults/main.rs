//! Pulls through a network that breaks: they end whole and cost hardly more, or say where it broke.
#![allow(missing_docs)]

mod parts;
mod shown;
mod wrong;

use std::{
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
