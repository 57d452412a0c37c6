//! Layers that one connection brings too slowly, and that others help with.
#![allow(missing_docs)]

use std::process::{Child, Command, Stdio};

use cairn_integration::{
    daemon::Daemon,
    fault_proxy::{Fault, Proxy, Seen, times},
    image::digest,
    registry::Registry,
    registry_images::{Noise, Repository},
};

const MIB: usize = 1 << 20;

/// A registry with an image of one layer, behind a proxy of which each connection is slow, and a daemon.
struct Scene {
    _registry: Registry,
    proxy: Proxy,
    image: Noise,
    daemon: Daemon,
}

impl Scene {
    fn new(size: usize, rate: u64) -> Scene {
        let registry = Registry::start();
        let image = Repository::new(&registry, "shop/web").noise("1", &[size]);
        let proxy = Proxy::start(registry.address());
        proxy.throttle(rate);
        Scene {
            proxy,
            _registry: registry,
            image,
            daemon: Daemon::configured("version = 1\n"),
        }
    }

    fn command(&self) -> Command {
        let name = format!("{}/shop/web:1", self.proxy.host());
        let pull = ["images", "pull", "--plain-http", "--progress", "none"];
        self.daemon.cairn(&[&pull[..], &[&name]].concat())
    }

    fn begin(&self) -> Child {
        let begun = self.command().stdout(Stdio::null()).spawn();
        begun.expect("start cairn")
    }

    /// The layer came whole and hardly more than that, by more than one connection.
    #[track_caller]
    fn whole_in_parts(&self) {
        let layer = &self.image.layers[0];
        let got = self.daemon.cairn(&["content", "get", layer]).output();
        assert_eq!(&digest(&got.expect("start cairn").stdout), layer);
        assert!(self.proxy.peak_fetches() > 1, "one connection alone");
        let (sent, most) = (self.proxy.blob_bytes(), self.image.bytes * 105 / 100);
        let seen = self.proxy.seen();
        let told = seen.iter().filter(|seen| seen.is_fetch());
        let told = told.map(|seen| (seen.head.get("range"), &seen.fault, seen.sent));
        let told: Vec<_> = told.collect();
        assert!(sent <= most, "{sent} of {most}: {told:#?}");
    }
}

/// Asks for a part of a blob, not for all of it.
fn is_part(seen: &Seen) -> bool {
    seen.is_fetch() && seen.head.get("range").is_some()
}

#[test]
fn twenty_cuts() {
    let scene = Scene::new(64 * MIB, 8_000_000);
    let mut cuts = times(20, 17, Fault::Cut);
    scene
        .proxy
        .script(move |seen| is_part(seen).then(|| cuts(seen)).flatten());
    assert!(scene.begin().wait().expect("wait").success());
    assert_eq!(scene.proxy.faults(), 20);
    scene.whole_in_parts();
}

/// What is under way is in memory, and that is the same for a layer of any size.
#[test]
fn memory() {
    let scene = Scene::new(96 * MIB, 12_000_000);
    let before = scene.daemon.anonymous_bytes();
    let (mut peak, mut child) = (0, scene.begin());
    while child.try_wait().expect("wait").is_none() {
        peak = peak.max(scene.daemon.anonymous_bytes());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(child.wait().expect("wait").success());
    scene.whole_in_parts();
    let more = peak.saturating_sub(before);
    assert!(more < 64 << 20, "{more} bytes of memory");
}
