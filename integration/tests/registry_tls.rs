//! Certificates of others than the registry: its token server's, a proxy's, and faults within TLS.
#![allow(missing_docs)]

use std::{fs, path::PathBuf};

use cairn_integration::{
    cairn::Cairn,
    fault_proxy::{Fault, Proxy, times},
    fixture::text,
    front::{Front, Tunnels},
    image::{Layer, Layout, Packing, digest},
    registry::{Registry, Rules, TokenServer, certs::Certs},
    registry_images::Repository,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const USER: [&str; 2] = ["-u", "alice:secret"];

/// Two authorities, and a place for what is made of them.
struct Scene {
    work: TempDir,
    certs: Certs,
}

impl Scene {
    fn new() -> Scene {
        let work = TempDir::new().expect("temporary directory");
        let certs = Certs::at(work.path());
        certs.authority("ca", "/O=Example/CN=Example Internal CA");
        certs.authority("other", "/O=Other/CN=Other CA");
        Scene { work, certs }
    }

    fn authority(&self, name: &str) -> PathBuf {
        self.certs.path(&format!("{name}.crt"))
    }

    /// A directory with a file for a host, of these lines.
    fn hosts(&self, host: &str, lines: &str) -> PathBuf {
        let dir = self.work.path().join("certs.d");
        fs::create_dir_all(dir.join(host)).expect("directory");
        let toml = format!("server = \"https://{host}\"\n{lines}\n");
        fs::write(dir.join(host).join("hosts.toml"), toml).expect("hosts.toml");
        dir
    }

    /// A small image put into a registry as `shop/web:1`; its digest.
    fn fill(&self, registry: &Registry) -> String {
        let layout = self.work.path().join("layout");
        let layer = Layer::new().dir("etc/", 0o755).file("etc/name", b"top\n");
        let layers = [(layer.finish(), Packing::Gzip)];
        let listed = Layout::create(&layout).image("one", &layers, &json!({}));
        registry.copy_in(&format!("oci:{}:one", text(&layout)), "shop/web:1");
        listed["digest"].as_str().expect("digest").to_owned()
    }
}

fn pull(name: &str, more: &[&str]) -> Value {
    let pull = [&["images", "pull", "--json"], more, &[name]].concat();
    serde_json::from_str(&Cairn::new().ok(&pull)).expect("JSON")
}

#[track_caller]
fn refused(name: &str, more: &[&str], words: &[&str]) {
    let said = Cairn::new().fails(&[&["images", "pull"], more, &[name]].concat());
    for words in words {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
}

/// Whoever is believed for the registry is believed for the server of its tokens, as in containerd.
#[test]
fn one_authority_for_registry_and_tokens() {
    let scene = Scene::new();
    let rules = Rules::for_user("alice", "secret");
    let tokens = TokenServer::secure(rules, &scene.certs, "ca");
    let registry = Registry::secure_for_tokens(&tokens, &scene.certs, &["ca"]);
    let expected = scene.fill(&registry);
    let name = format!("{}/shop/web:1", registry.host());
    let ca = scene.authority("ca");
    let before = tokens.given().len();
    let pulled = pull(&name, &[&["--tlscacert", text(&ca)], &USER[..]].concat());
    assert_eq!(pulled["image"]["target"]["digest"], json!(expected));
    let given = &tokens.given()[before..];
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(given[0].user.as_deref(), Some("alice"));
}

/// Who is refused is the server of tokens, and is named; nothing is shown to it.
#[test]
fn tokens_have_an_authority_of_their_own() {
    let scene = Scene::new();
    let rules = Rules::for_user("alice", "secret");
    let tokens = TokenServer::secure(rules, &scene.certs, "other");
    let registry = Registry::secure_for_tokens(&tokens, &scene.certs, &["ca", "other"]);
    let expected = scene.fill(&registry);
    let name = format!("{}/shop/web:1", registry.host());
    let (ca, other) = (scene.authority("ca"), scene.authority("other"));
    let before = tokens.given().len();
    refused(
        &name,
        &[&["--tlscacert", text(&ca)], &USER[..]].concat(),
        &[
            "which gives tokens for",
            &registry.host(),
            "signed by an unknown authority",
            "Other CA",
        ],
    );
    assert_eq!(tokens.given().len(), before);
    let both = scene.hosts(&registry.host(), &format!("ca = [{ca:?}, {other:?}]"));
    let hosts = [&["--hosts-dir", text(&both)], &USER[..]].concat();
    let pulled = pull(&name, &hosts);
    assert_eq!(pulled["image"]["target"]["digest"], json!(expected));
}

/// A tunnel to the registry within TLS to a proxy: both are believed by the endpoint's authorities.
#[test]
fn through_a_proxy_by_tls() {
    let scene = Scene::new();
    let rules = Rules {
        public: true,
        ..Rules::for_user("alice", "secret")
    };
    let tokens = TokenServer::secure(rules, &scene.certs, "ca");
    let registry = Registry::secure_for_tokens(&tokens, &scene.certs, &["ca"]);
    let expected = scene.fill(&registry);
    scene.certs.signed("proxy", "ca");
    let proxy = Tunnels::secure(&scene.certs, "proxy");
    let name = format!("{}/shop/web:1", registry.host());
    let ca = scene.authority("ca");
    let lines = format!("ca = {ca:?}\nproxy = {:?}", proxy.url());
    let dir = scene.hosts(&registry.host(), &lines);
    let pulled = pull(&name, &["--hosts-dir", text(&dir)]);
    assert_eq!(pulled["image"]["target"]["digest"], json!(expected));
    let tunnel = format!("CONNECT {} HTTP/1.1", registry.host());
    assert!(proxy.asked().contains(&tunnel), "{:?}", proxy.asked());

    scene.certs.signed("stranger", "other");
    let stranger = Tunnels::secure(&scene.certs, "stranger");
    let lines = format!("ca = {ca:?}\nproxy = {:?}", stranger.url());
    let dir = scene.hosts(&registry.host(), &lines);
    refused(
        &name,
        &["--hosts-dir", text(&dir)],
        &["signed by an unknown authority"],
    );
    assert_eq!(stranger.asked(), [""; 0]);
}

/// Cuts within TLS are like others: the end of a connection without its farewell is no end of a body.
#[test]
fn twenty_cuts_by_tls() {
    let scene = Scene::new();
    let registry = Registry::start();
    let image = Repository::new(&registry, "shop/web").noise("1", &[1_000_000; 4]);
    let proxy = Proxy::start(registry.address());
    scene.certs.signed("server", "ca");
    let front = Front::secure(&scene.certs, "server", proxy.address());
    let layers = image.layers.clone();
    let mut cuts = times(20, 11, Fault::Cut);
    proxy.script(move |seen| {
        let layer = layers.iter().any(|layer| seen.path.ends_with(layer));
        if layer { cuts(seen) } else { None }
    });
    let cairn = Cairn::new();
    let name = format!("{}/shop/web:1", front.address());
    let ca = scene.authority("ca");
    cairn.ok(&["images", "pull", "--tlscacert", text(&ca), &name]);
    assert_eq!(proxy.faults(), 20);
    for layer in &image.layers {
        let got = cairn.output(&["content", "get", layer]);
        assert_eq!(&digest(&got.stdout), layer);
    }
    let (sent, most) = (proxy.blob_bytes(), image.bytes * 105 / 100);
    assert!(sent <= most, "{sent} of {most}");
}
