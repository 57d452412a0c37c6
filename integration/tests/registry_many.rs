//! Pulls beside one another, and what holds them back.
#![allow(missing_docs)]

use std::{
    process::{Child, Command, Stdio},
    thread,
};

use cairn_integration::{
    daemon::Daemon,
    fault_proxy::{Fault, Proxy},
    image::{Layer, Packing, Stored, architecture, noise},
    registry::Registry,
    registry_images::{Noise, Repository},
};
use serde_json::Value;

struct Scene {
    registry: Registry,
    proxy: Proxy,
    image: Noise,
    daemon: Daemon,
}

impl Scene {
    fn new(sizes: &[usize], config: &str) -> Scene {
        let registry = Registry::start();
        let image = Repository::new(&registry, "shop/web").noise("1", sizes);
        Scene {
            proxy: Proxy::start(registry.address()),
            registry,
            image,
            daemon: Daemon::configured(config),
        }
    }

    fn pull(&self, more: &[&str]) -> Command {
        let name = format!("{}/shop/web:1", self.proxy.host());
        let pull = ["images", "pull", "--plain-http", "--progress", "none"];
        self.daemon.cairn(&[&pull, more, &[&name]].concat())
    }

    /// By a shell that tests are started from in the background, Ctrl-C may be ignored, and so by all that
    /// they start.
    fn begin(&self, more: &[&str]) -> Child {
        let pull = self.pull(more);
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(pull.get_program());
        command.args(pull.get_args());
        for (name, value) in pull.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let begun = command.stdout(Stdio::null()).spawn();
        begun.expect("start cairn")
    }
}

#[test]
fn ten_at_once_fetch_each_blob_once() {
    let scene = Scene::new(&[400_000; 5], "version = 1\n");
    scene.proxy.throttle(400_000);
    thread::scope(|scope| {
        for number in 0..10 {
            let ns = format!("ns{}", number % 3);
            let scene = &scene;
            scope.spawn(move || {
                let pulled = scene.pull(&["-n", &ns]).output().expect("start cairn");
                let said = String::from_utf8_lossy(&pulled.stderr).into_owned();
                assert!(pulled.status.success(), "{said}");
            });
        }
    });
    let seen = scene.proxy.seen();
    let fetched = |digest: &str| {
        let got = seen.iter().filter(|seen| seen.method == "GET");
        got.filter(|seen| seen.path.ends_with(digest)).count()
    };
    for one in scene.image.all() {
        assert_eq!(fetched(one), 1, "{one}");
    }
    assert_eq!(scene.proxy.blob_bytes(), scene.image.bytes);
    for ns in ["ns0", "ns1", "ns2"] {
        let listed = scene.daemon.ok(&["-n", ns, "images", "ls"]);
        assert!(listed.contains(&scene.image.digest), "{ns}: {listed}");
    }
}

fn connections(most: usize) -> String {
    format!("version = 1\n[registry]\nmax_concurrent_downloads = {most}\n")
}

/// Also those that are under way.
#[test]
fn so_many_connections_as_it_is_told() {
    let scene = Scene::new(&[200_000; 6], &connections(2));
    scene.proxy.throttle(400_000);
    assert!(scene.begin(&[]).wait().expect("wait").success());
    assert_eq!(scene.proxy.peak_fetches(), 2);

    let other = Repository::new(&scene.registry, "shop/web").noise("1", &[210_000; 16]);
    scene.proxy.forget();
    let mut child = scene.begin(&[]);
    scene
        .daemon
        .until("two layers at once", || scene.proxy.peak_fetches() == 2);
    scene.daemon.reload(&connections(5));
    scene
        .daemon
        .until("three layers at once", || scene.proxy.peak_fetches() > 2);
    scene.daemon.reload(&connections(1));
    scene.daemon.until("fewer", || scene.proxy.fetching() <= 1);
    assert!(scene.proxy.peak_fetches() <= 5);
    let before = scene.proxy.blob_bytes();
    assert!(before < other.bytes, "it goes on");
    scene.proxy.forget();
    assert!(child.wait().expect("wait").success());
    assert_eq!(scene.proxy.peak_fetches(), 1);
}

#[test]
fn so_many_connections_of_one_pull() {
    let scene = Scene::new(&[200_000; 6], "version = 1\n");
    scene.proxy.throttle(1_000_000);
    let mut child = scene.begin(&["--max-concurrent-downloads", "1"]);
    assert!(child.wait().expect("wait").success());
    assert_eq!(scene.proxy.peak_fetches(), 1);
}

/// Else the largest would be waited for alone, at the end.
#[test]
fn the_largest_first() {
    // Of two that take layers side by side, the one that takes the smaller may be the first to ask.
    let one = "version = 1\n[unpack]\nparallel_layers = 1\n";
    let scene = Scene::new(&[20_000, 300_000, 100_000, 200_000], one);
    let mut child = scene.begin(&["--max-concurrent-downloads", "1"]);
    assert!(child.wait().expect("wait").success());
    let seen = scene.proxy.seen();
    let asked = seen.iter().filter(|seen| seen.is_fetch()).map(|seen| {
        let mut layers = scene.image.layers.iter();
        layers.position(|layer| seen.path.ends_with(layer))
    });
    // The configuration is none of them.
    let order: Vec<usize> = asked.flatten().collect();
    assert_eq!(order, [1, 3, 2, 0]);
}

/// Of a layer of which half has come, what stands in that half is a file already.
#[test]
fn a_layer_is_unpacked_while_it_comes() {
    let scene = Scene::new(&[1000], "version = 1\n[registry]\nmin_rate = \"0\"\n");
    let layer = Layer::new()
        .file("first", b"here")
        .file("second", &noise(3_000_000, 1));
    let layer = Stored::packed(&layer.finish(), Packing::Gzip);
    let repository = Repository::new(&scene.registry, "shop/web");
    let image = repository.image(architecture(), std::slice::from_ref(&layer));
    repository.tag("1", &image);
    let half = layer.bytes.len() as u64 / 2;
    scene.proxy.script(move |seen| {
        let last = seen.is_fetch() && seen.fetch > 0;
        last.then_some(Fault::Stall(half))
    });
    let mut child = scene.begin(&[]);
    scene.daemon.until("the first file", || {
        !found(&scene.daemon, "first").is_empty()
    });
    // And the half that came is kept, to go on from there.
    let uploads = ["content", "ingests", "--json"];
    let listed = scene.daemon.cairn(&uploads).output().expect("start cairn");
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let came = listed[0]["offset"].as_u64().expect("an upload");
    assert!(came > half / 2, "{listed}");
    // Nothing comes, nothing would ever end it; who leaves does.
    let id = child.id().to_string();
    let told = Command::new("kill").args(["-s", "INT", &id]).status();
    assert!(told.expect("kill").success());
    assert!(!child.wait().expect("wait").success());
    scene
        .daemon
        .until("nothing to be fetched", || scene.proxy.connections() == 0);
    scene.daemon.until("no files of it", || {
        found(&scene.daemon, "first").is_empty()
    });
}

/// Files of that name in its store.
fn found(daemon: &Daemon, name: &str) -> String {
    let root = daemon.path("root");
    let found = Command::new("find")
        .arg(root)
        .args(["-name", name])
        .output();
    String::from_utf8(found.expect("start find").stdout).expect("UTF-8")
}

#[test]
fn who_leaves_stops_it() {
    let scene = Scene::new(&[2_000_000; 3], "version = 1\n");
    scene.proxy.throttle(100_000);
    for signal in ["INT", "KILL"] {
        let mut child = scene.begin(&[]);
        scene
            .daemon
            .until("bytes", || scene.proxy.connections() > 2);
        let id = child.id().to_string();
        let told = Command::new("kill").args(["-s", signal, &id]).status();
        assert!(told.expect("kill").success());
        assert!(!child.wait().expect("wait").success());
        // Nobody waits for it, so nothing is fetched: at this rate it would go on for a minute.
        scene
            .daemon
            .until("nothing to be fetched", || scene.proxy.connections() == 0);
    }
    let listed = scene.daemon.ok(&["images", "ls", "-q"]);
    assert_eq!(listed, "");
    let before = scene.proxy.blob_bytes();
    scene.proxy.throttle(0);
    let mut child = scene.begin(&[]);
    assert!(child.wait().expect("wait").success());
    assert!(before > 0);
    let (sent, most) = (scene.proxy.blob_bytes(), scene.image.bytes * 105 / 100);
    assert!(sent <= most, "{sent} of {most}");
}
