//! No more bytes a second than was said, by the configuration or by a flag. How fast a test may be is not
//! known, so the limits are such that nothing would ever end under them.
#![allow(missing_docs)]

use std::process::{Child, Command, Stdio};

use cairn_integration::{
    daemon::Daemon,
    fault_proxy::{Proxy, What},
    registry::Registry,
    registry_images::{Noise, Repository},
};

/// Far more than sockets and all who pass it on keep on its way.
const LAYER_BYTES: usize = 16_000_000;

/// Looks, a few milliseconds apart, that must all see the same before bytes have come to a halt.
const LOOKS: usize = 150;

struct Scene {
    daemon: Daemon,
    proxy: Proxy,
    image: Noise,
    _registry: Registry,
}

impl Scene {
    fn new(config: &str) -> Scene {
        let registry = Registry::start();
        let image = Repository::new(&registry, "shop/web").noise("1", &[LAYER_BYTES]);
        Scene {
            daemon: Daemon::configured(config),
            proxy: Proxy::start(registry.address()),
            image,
            _registry: registry,
        }
    }

    fn name(&self) -> String {
        format!("{}/shop/web:1", self.proxy.host())
    }

    fn begin(&self, words: &[&str]) -> Child {
        let mut command = self.daemon.cairn(&[&["images"], words].concat());
        command.args(["--plain-http", "--progress", "none"]);
        command.stdout(Stdio::null());
        command.spawn().expect("start cairn")
    }

    fn pull(&self, more: &[&str]) -> Child {
        self.begin(&[&["pull", &self.name()], more].concat())
    }

    /// Waits until work that has begun is held back, which is long before its end.
    #[track_caller]
    fn is_held_back(&self, child: &mut Child, bytes: impl Fn() -> u64) {
        let (mut last, mut same) = (0, 0);
        self.daemon.until("bytes to come to a halt", || {
            let now = bytes();
            same = if now == last { same + 1 } else { 0 };
            last = now;
            same == LOOKS
        });
        assert!(last < self.image.bytes / 2, "{last} bytes went through");
        assert!(child.try_wait().expect("wait").is_none(), "it has ended");
    }

    fn is_fetched_slowly(&self, child: &mut Child) {
        let layer = &self.image.layers[0];
        self.daemon.until("the layer to be asked for", || {
            self.proxy.fetches(Some(layer)) > 0
        });
        self.is_held_back(child, || self.proxy.blob_bytes());
    }
}

fn end(mut child: Child) {
    let id = child.id().to_string();
    let told = Command::new("kill").args(["-s", "KILL", &id]).status();
    assert!(told.expect("kill").success());
    assert!(!child.wait().expect("wait").success());
}

fn limit(rate: &str) -> String {
    format!("version = 1\n[registry]\nlimit_rate = \"{rate}\"\nmin_rate = \"0\"\n")
}

/// For all pulls together, and also for those that are under way when it changes.
#[test]
fn pulls_by_the_configuration() {
    let scene = Scene::new(&limit("1KB"));
    let mut child = scene.pull(&[]);
    scene.is_fetched_slowly(&mut child);
    scene.daemon.reload(&limit(""));
    assert!(child.wait().expect("wait").success());
    assert_eq!(scene.proxy.blob_bytes(), scene.image.bytes);
}

#[test]
fn a_pull_by_its_flag() {
    let scene = Scene::new(&limit(""));
    let mut child = scene.pull(&["--limit-rate", "1KB"]);
    scene.is_fetched_slowly(&mut child);
    // It is that pull's alone.
    end(child);
    assert!(scene.pull(&[]).wait().expect("wait").success());
}

/// The configuration's limit is for pulls.
#[test]
fn a_push_by_its_flag() {
    let scene = Scene::new(&limit(""));
    assert!(scene.pull(&[]).wait().expect("wait").success());
    // Elsewhere: a registry takes over what another repository of its own has.
    let other = Registry::start();
    let proxy = Proxy::start(other.address());
    let (to, from) = (format!("{}/shop/web:1", proxy.host()), scene.name());
    let mut child = scene.begin(&["push", &to, &from, "--limit-rate", "100"]);
    let is_upload = |seen: &cairn_integration::fault_proxy::Seen| {
        seen.what == What::Upload && seen.method != "POST"
    };
    scene
        .daemon
        .until("an upload", || proxy.seen().iter().any(is_upload));
    scene.is_held_back(&mut child, || proxy.uploaded_bytes());
    end(child);
    scene.daemon.reload(&limit("1KB"));
    assert!(
        scene
            .begin(&["push", &to, &from])
            .wait()
            .expect("wait")
            .success()
    );
    assert!(proxy.uploaded_bytes() >= scene.image.bytes);
}
