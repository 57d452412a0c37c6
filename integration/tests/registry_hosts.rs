//! Pulls by way of what `hosts.toml`, helpers and certificates say: mirrors first, the registry for the rest.
#![allow(missing_docs)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use cairn_integration::{
    cairn::Cairn,
    fault_proxy::{Proxy, What},
    fixture::text,
    http::{self, Server},
    image::{Layer, Layout, Packing},
    peers::Containerd,
    registry::Registry,
    registry_images::{Noise, Repository},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A registry with an image `shop/web:1`, a proxy before it that notes who asks, and a directory of hosts.
struct Origin {
    registry: Registry,
    proxy: Proxy,
    image: Noise,
    work: TempDir,
}

impl Origin {
    fn new() -> Origin {
        let registry = Registry::start();
        let image = Repository::new(&registry, "shop/web").noise("1", &[50_000, 60_000]);
        Origin {
            proxy: Proxy::start(registry.address()),
            registry,
            image,
            work: TempDir::new().expect("temporary directory"),
        }
    }

    fn name(&self) -> String {
        format!("{}/shop/web:1", self.proxy.host())
    }

    /// Says which hosts come before it; the directory.
    fn mirrors(&self, hosts: &str) -> &Path {
        let dir = self.work.path().join(self.proxy.host());
        fs::create_dir_all(&dir).expect("directory");
        let text = format!("server = \"http://{}\"\n{hosts}", self.proxy.host());
        fs::write(dir.join("hosts.toml"), text).expect("hosts.toml");
        self.work.path()
    }

    /// Pulls it into an empty store.
    fn pull(&self, hosts: &str) -> Value {
        let dir = self.mirrors(hosts);
        let (cairn, name) = (Cairn::new(), self.name());
        let pull = ["images", "pull", "--json", "--hosts-dir", text(dir), &name];
        let pulled: Value = serde_json::from_str(&cairn.ok(&pull)).expect("JSON");
        assert_eq!(
            pulled["image"]["target"]["digest"],
            json!(self.image.digest)
        );
        assert_eq!(pulled["image"]["complete"], true);
        pulled
    }

    /// The same by containerd, with its own reader of the same directory.
    fn pull_by_containerd(&self, hosts: &str) {
        let dir = self.mirrors(hosts);
        let containerd = Containerd::start();
        containerd.ok(&["images", "pull", "--hosts-dir", text(dir), &self.name()]);
    }

    /// Its blobs as files below a path.
    fn files(&self, below: &str, leave: &[&str]) -> Server {
        let stored = self.registry.manifest("shop/web", "1").expect("there");
        let manifest: Value = serde_json::from_slice(&stored.bytes).expect("JSON");
        let layers = manifest["layers"].as_array().expect("layers").iter();
        let blobs = layers.chain([&manifest["config"]]);
        let digests = blobs.map(|blob| blob["digest"].as_str().expect("digest"));
        let kept = digests.filter(|digest| !leave.contains(digest));
        let files = kept.map(|digest| {
            let bytes = fs::read(self.registry.blob(digest)).expect("blob");
            (format!("{below}/shop/web/blobs/{digest}"), bytes)
        });
        http::files(files.collect())
    }
}

/// Which hosts the layers of a pull came from.
fn hosts(pulled: &Value) -> Vec<&str> {
    let layers = pulled["layers"].as_array().expect("layers").iter();
    let hosts = layers.map(|layer| layer["host"].as_str().expect("host"));
    hosts.collect()
}

/// What a tag means is asked of the registry alone when its mirror may not resolve; the bytes are the
/// mirror's, which hears in whose place it answers.
#[test]
fn bytes_of_a_mirror_and_the_meaning_of_a_tag_by_the_registry() {
    let origin = Origin::new();
    let mirror = Proxy::start(origin.registry.address());
    let before = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n",
        mirror.host()
    );
    let pulled = origin.pull(&before);
    assert_eq!(hosts(&pulled), [mirror.host(), mirror.host()]);
    assert_eq!(origin.proxy.fetches(None), 0);
    let ns = format!("ns={}", origin.proxy.host().replace(':', "%3A"));
    let asked = mirror.seen();
    assert!(!asked.is_empty());
    for seen in asked {
        assert!(seen.target.contains(&ns), "{}", seen.target);
        assert!(!seen.path.ends_with("/manifests/1"), "{}", seen.path);
    }
    let tags = origin.proxy.seen().into_iter();
    let mut tags = tags.filter(|seen| seen.what == What::Manifest);
    assert!(tags.any(|seen| seen.path.ends_with("/manifests/1")));

    // And by the reader that wrote the format.
    origin.proxy.forget();
    mirror.forget();
    origin.pull_by_containerd(&before);
    assert_eq!(origin.proxy.fetches(None), 0);
    assert!(mirror.fetches(None) >= 2);
}

/// One that may do everything answers everything; the registry is not even asked.
#[test]
fn a_mirror_that_resolves() {
    let origin = Origin::new();
    let mirror = Proxy::start(origin.registry.address());
    let before = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        mirror.host()
    );
    let pulled = origin.pull(&before);
    assert_eq!(hosts(&pulled), [mirror.host(), mirror.host()]);
    assert!(origin.proxy.seen().is_empty());
    origin.proxy.forget();
    mirror.forget();
    origin.pull_by_containerd(&before);
    assert!(origin.proxy.seen().is_empty());
}

/// A host may keep its API anywhere, want fields of its own, and lack a blob.
#[test]
fn a_path_of_its_own_and_a_field() {
    let origin = Origin::new();
    let lacking = origin.image.layers[1].as_str();
    let mirror = origin.files("/cache/blue/v2", &[lacking]);
    let before = format!(
        "[host.\"{}\"]\ncapabilities = [\"pull\"]\noverride_path = true\n\
         [host.\"{0}\".header]\nx-team = [\"blue\"]\n",
        mirror.url("/cache/blue/v2"),
    );
    let pulled = origin.pull(&before);
    let there = mirror.address().to_string();
    assert_eq!(hosts(&pulled), [there, origin.proxy.host()]);
    assert_eq!(origin.proxy.fetches(None), 1);
    assert_eq!(origin.proxy.fetches(Some(lacking)), 1);
    let asked = mirror.asked();
    assert!(!asked.is_empty());
    for request in asked {
        assert_eq!(request.head.get("x-team"), Some("blue"), "{request:?}");
        assert!(request.path.starts_with("/cache/blue/v2/"), "{request:?}");
    }
    for seen in origin.proxy.seen() {
        assert_eq!(seen.head.get("x-team"), None, "{}", seen.path);
    }
}

/// A directory with a `docker-credential-fake` that notes what it is asked.
fn helper(work: &Path) -> PathBuf {
    let bin = work.join("bin");
    fs::create_dir(&bin).expect("directory");
    let program = bin.join("docker-credential-fake");
    let log = work.join("asked");
    let script = format!(
        "#!/bin/sh\nread -r host\necho \"$1 $host\" >>{log:?}\n\
         printf '{{\"ServerURL\":\"%s\",\"Username\":\"alice\",\"Secret\":\"secret\"}}' \"$host\"\n"
    );
    fs::write(&program, script).expect("helper");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("mode");
    bin
}

/// Both by the host's own entry and as the store of all hosts (docker's `credHelpers`, `credsStore`).
#[test]
fn a_helper_knows_the_password() {
    let registry = Registry::for_user("alice", "secret");
    let layer = Layer::new().file("name", b"helped\n").finish();
    let work = TempDir::new().expect("temporary directory");
    let layout = work.path().join("layout");
    Layout::create(&layout).image("one", &[(layer, Packing::Gzip)], &json!({}));
    registry.copy_in(&format!("oci:{}:one", text(&layout)), "shop/web:1");
    let path = std::env::var("PATH").expect("PATH");
    let path = format!("{}:{path}", text(&helper(work.path())));
    let (host, name) = (registry.host(), format!("{}/shop/web:1", registry.host()));
    for settings in [
        json!({ "credHelpers": { &host: "fake" } }),
        json!({ "credsStore": "fake" }),
    ] {
        let cairn = Cairn::new();
        fs::create_dir(cairn.path("docker")).expect("directory");
        fs::write(cairn.path("docker/config.json"), settings.to_string()).expect("settings");
        let mut command = cairn.command(&["images", "pull", "--plain-http", &name]);
        let pulled = command.env("PATH", &path).output().expect("start cairn");
        let said = String::from_utf8_lossy(&pulled.stderr);
        assert!(pulled.status.success(), "{settings}: {said}");
        assert!(!said.contains("secret"), "{said}");
        let mut command = cairn.command(&["explain-host", "--plain-http", &host]);
        let explained = command.env("PATH", &path).output().expect("start cairn");
        let said = String::from_utf8_lossy(&explained.stdout);
        assert!(said.contains("docker-credential-fake"), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let asked = fs::read_to_string(work.path().join("asked")).expect("asked");
    assert!(
        asked.lines().any(|line| line == format!("get {host}")),
        "{asked}"
    );
}

/// By flags, and by the pair of files that `hosts.toml` names.
#[test]
fn a_client_shows_its_certificate() {
    let registry = Registry::for_certificates();
    let layer = Layer::new().file("name", b"shown\n").finish();
    let work = TempDir::new().expect("temporary directory");
    let layout = work.path().join("layout");
    Layout::create(&layout).image("one", &[(layer, Packing::Gzip)], &json!({}));
    registry.copy_in(&format!("oci:{}:one", text(&layout)), "shop/web:1");
    let (ca, [certificate, key]) = (registry.ca(), registry.client());
    let name = format!("{}/shop/web:1", registry.host());
    let trusted = ["images", "pull", "--tlscacert", text(&ca)];
    let said = Cairn::new().fails(&[&trusted[..], &[&name]].concat());
    let expected = format!("{} wants a certificate of its clients", registry.host());
    assert!(said.contains(&expected), "{said}");
    assert!(said.contains("--tlscert FILE --tlskey FILE"), "{said}");
    let shown = ["--tlscert", text(&certificate), "--tlskey", text(&key)];
    Cairn::new().ok(&[&trusted[..], &shown, &[&name]].concat());

    let dir = work.path().join("certs.d").join(registry.host());
    fs::create_dir_all(&dir).expect("directory");
    // Without a host containerd 1.6 reads none of it.
    let hosts = format!(
        "[host.\"https://{}\"]\nca = {ca:?}\nclient = [[{certificate:?}, {key:?}]]\n",
        registry.host()
    );
    fs::write(dir.join("hosts.toml"), hosts).expect("hosts.toml");
    let dir = work.path().join("certs.d");
    Cairn::new().ok(&["images", "pull", "--hosts-dir", text(&dir), &name]);
    let containerd = Containerd::start();
    containerd.ok(&["images", "pull", "--hosts-dir", text(&dir), &name]);
}
