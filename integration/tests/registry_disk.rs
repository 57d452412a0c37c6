//! Pulls onto disks that are full, or that fail: what is said, what is kept, and how it goes on.
#![allow(missing_docs)]

use std::process::Output;

use cairn_integration::{
    cairn::Cairn,
    daemon::Daemon,
    fault::Disk,
    fixture::text,
    image::{Layer, Packing, Stored, architecture, digest, noise},
    registry::Registry,
    registry_images::Repository,
};

/// Every refusal of a change has it.
const SENTENCE: &str = "the store is read-only since ";

/// A registry with an image of these layers, and a store on a disk of its own behind a daemon.
struct Scene {
    registry: Registry,
    /// Digests, lowest first.
    layers: Vec<String>,
    // Ended before its disk is unmounted.
    daemon: Daemon,
    disk: Disk,
    /// Bytes a second of a pull; 0 for as many as come.
    rate: u64,
}

impl Scene {
    fn new(size: &str, layers: &[usize]) -> Scene {
        let registry = Registry::start();
        let image = Repository::new(&registry, "shop/web").noise("2.1", layers);
        let layers = image.layers;
        let disk = Disk::new(size, &[]);
        let daemon = Daemon::with_store(&disk.path().join("root"));
        Scene {
            registry,
            layers,
            daemon,
            disk,
            rate: 0,
        }
    }

    /// Has the image's name mean one of these layers.
    fn put(&mut self, layers: [Layer; 2]) {
        let repository = Repository::new(&self.registry, "shop/web");
        let packed = layers.map(|layer| Stored::packed(&layer.finish(), Packing::Gzip));
        repository.tag("2.1", &repository.image(architecture(), &packed));
        self.layers = packed.iter().map(|layer| digest(&layer.bytes)).collect();
    }

    fn name(&self) -> String {
        format!("{}/shop/web:2.1", self.registry.host())
    }

    fn pull(&self) -> Output {
        let name = self.name();
        let pull = [
            "images",
            "pull",
            "--progress",
            "none",
            "--limit-rate",
            &self.rate.to_string(),
            &name,
        ];
        self.daemon.cairn(&pull).output().expect("start cairn")
    }

    #[track_caller]
    fn fails(&self) -> String {
        let output = self.pull();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    }

    #[track_caller]
    fn succeeds(&self) {
        let output = self.pull();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let check = self.daemon.cairn(&["images", "check", "-q"]).output();
        let ready = check.expect("start cairn").stdout;
        assert_eq!(
            String::from_utf8_lossy(&ready),
            format!("{}\n", self.name())
        );
        for layer in &self.layers {
            let got = self.daemon.cairn(&["content", "get", layer]).output();
            assert_eq!(&digest(&got.expect("start cairn").stdout), layer);
        }
    }
}

/// Row 15: what is full, how much is left and still needed, what was being written, and how to go on.
#[test]
fn a_full_disk() {
    let mut scene = Scene::new("128M", &[]);
    // Packed all of it finds room, and so it is begun. Side by side the first layer is here long before the
    // second comes to what is large once it is unpacked.
    let small = Layer::new().file("noise", &noise(2 << 20, 1));
    let large = Layer::new()
        .file("noise", &noise(6 << 20, 2))
        .file("zeros", &vec![0; 64 << 20]);
    scene.put([small, large]);
    scene.disk.fill(32 << 10);
    scene.rate = 1_000_000;
    let said = scene.fails();
    scene.rate = 0;
    let root = scene.disk.path().join("root").display().to_string();
    let name = scene.name();
    let lines: Vec<&str> = said.lines().collect();
    let [first, cause, .., next] = lines.as_slice() else {
        panic!("{said}");
    };
    let start = format!("error: cannot pull image {name}: no space left on {root} (");
    assert!(first.starts_with(&start), "{said}");
    assert!(first.ends_with(" more needed)"), "{said}");
    assert!(first.contains(" free, at least "), "{said}");
    let layer = &scene.layers[1];
    assert_eq!(*cause, format!("  cause:     write layer {layer}"));
    let address = scene.daemon.socket().display().to_string();
    let next = next.replace(&format!(" --address {address}"), "");
    let start = "  next:      cairn df; cairn gc; then pull again, 2.";
    assert!(next.starts_with(start), "{said}");
    assert!(next.ends_with(" MiB are kept"), "{said}");
    let listed = scene.daemon.ok(&["images", "ls", "-q"]);
    assert_eq!(listed, "", "nothing has a name that is not whole");

    // What it says to do is done; a collection leaves what is kept for the next try.
    let gc = scene.daemon.cairn(&["gc"]).output().expect("start cairn");
    assert!(gc.status.success(), "{gc:?}");
    scene.disk.unfill();
    scene.succeeds();
}

/// Row 28: the disk fails while the daemon runs. What is here can be read, and after the disk is mended and
/// the daemon restarted the same command does its work.
#[test]
fn a_disk_that_fails() {
    let mut scene = Scene::new("256M", &[4 << 20, 4 << 20]);
    let small = Repository::new(&scene.registry, "shop/small").noise("1", &[100_000]);
    let here = format!("{}/shop/small:1", scene.registry.host());
    let words = ["images", "pull", "--progress", "none", &here];
    let pulled = scene.daemon.cairn(&words).output().expect("start cairn");
    assert!(pulled.status.success(), "{pulled:?}");
    let opened = std::fs::File::open(scene.disk.path()).expect("disk");
    rustix::fs::syncfs(&opened).expect("sync");
    scene.disk.fail();
    // Whose sync fails first is the kernel's affair; from then on there is one answer. That may take until
    // it writes out its own changes, after seconds or when it is told to.
    let refused = (0..10).any(|_| {
        let said = scene.fails();
        let _ = rustix::fs::syncfs(&opened);
        said.contains(SENTENCE)
    });
    drop(opened);
    assert!(refused, "a disk that fails takes everything");
    let said = scene.fails();
    let name = scene.name();
    let (first, rest) = said.split_once('\n').expect("lines");
    let start = format!("error: cannot pull image {name}: {SENTENCE}");
    let why = first.strip_prefix(&start).expect(&said);
    let (time, why) = why.split_once(' ').expect("time");
    let digits = |c: char| c == ':' || c.is_ascii_digit();
    assert!(time.len() == 8 && time.chars().all(digits), "{said}");
    assert!(why.starts_with('(') && why.ends_with(')'), "{said}");
    assert!(why.contains("failed: "), "{said}");
    assert_eq!(
        rest,
        "  next:      journalctl -u cairnd\n  \
         next:      after the disk is mended: systemctl restart cairnd\n"
    );
    let mut got = scene.daemon.cairn(&["content", "get", &small.layers[0]]);
    let got = got.output().expect("start cairn");
    assert_eq!(digest(&got.stdout), small.layers[0]);

    scene.daemon.kill();
    scene.disk.mend();
    scene.daemon.restart();
    let removed = scene.daemon.cairn(&["images", "rm", &here]).output();
    assert!(removed.expect("start cairn").status.success());
    scene.succeeds();
}

/// The same without a daemon: a full disk is said to be so, and the next run goes on.
#[test]
fn a_full_disk_without_a_daemon() {
    let registry = Registry::start();
    Repository::new(&registry, "shop/web").noise("2.1", &[24 << 20]);
    let disk = Disk::new("160M", &[]);
    let root = disk.path().join("root");
    let name = format!("{}/shop/web:2.1", registry.host());
    let pull = || {
        let words = ["images", "pull", "--progress", "none", &name];
        let mut command = std::process::Command::new(Cairn::binary());
        command.args(["--root", text(&root)]).args(words);
        command.env_remove("CONTAINERD_NAMESPACE");
        command.output().expect("start cairn")
    };
    disk.fill(10 << 10);
    let output = pull();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let start = format!(
        "error: cannot pull image {name}: no space left on {} (",
        root.display()
    );
    assert!(said.starts_with(&start), "{said}");
    disk.unfill();
    let output = pull();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}
