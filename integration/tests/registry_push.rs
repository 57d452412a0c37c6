//! Images that Cairn pushed, by the clients of others, and what is sent of them.
#![allow(missing_docs)]

use std::process::Command;

use cairn_integration::{
    cairn::Cairn,
    fault_proxy::{Fault, Proxy, What},
    fixture::text,
    image::{Layer, Layout, Packing, architecture, noise},
    peers::{self, Containerd},
    registry::{Registry, Rules, TokenServer},
    registry_images::{Repository, TREE},
    tree::Tree,
};
use serde_json::{Value, json};

const HERE: &str = "localhost/t:one";

/// A store with an image of three layers that was imported; its digest.
fn imported() -> (Cairn, String) {
    let cairn = Cairn::new();
    let layout = cairn.path("layout");
    let layers = [
        (
            Layer::new().file("big", &noise(400_000, 1)).finish(),
            Packing::Gzip,
        ),
        (
            Layer::new().file("big2", &noise(400_000, 2)).finish(),
            Packing::Zstd,
        ),
        (Layer::new().file("name", b"top\n").finish(), Packing::Plain),
    ];
    let listed = Layout::create(&layout).image("one", &layers, &json!({ "Cmd": ["/name"] }));
    cairn.ok(&[
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(&layout),
    ]);
    let digest = listed["digest"].as_str().expect("digest").to_owned();
    (cairn, digest)
}

fn push(cairn: &Cairn, remote: &str, more: &[&str]) -> Value {
    let push = ["images", "push", "--json", "--plain-http"];
    let pushed = cairn.ok(&[&push, more, &[remote, HERE]].concat());
    serde_json::from_str(&pushed).expect("JSON")
}

#[test]
fn others_pull_what_was_pushed() {
    let registry = Registry::start();
    let (cairn, digest) = imported();
    let name = format!("{}/shop/web:1", registry.host());
    let pushed = push(&cairn, &name, &[]);
    assert_eq!(pushed["image"]["target"]["digest"], json!(digest));
    let stored = registry.manifest("shop/web", "1").expect("there");
    assert_eq!(stored.digest, digest);

    let remote = format!("docker://{name}");
    let copy = cairn.path("copy");
    let to = format!("oci:{}:one", text(&copy));
    let flags = [
        "copy",
        "-q",
        "--preserve-digests",
        "--src-tls-verify=false",
        &remote,
        &to,
    ];
    peers::run("skopeo", &flags);
    let inspect = ["inspect", "--format", "{{.Digest}}", &to];
    assert_eq!(peers::run("skopeo", &inspect).trim(), digest);

    let (graph, runroot) = (cairn.path("graph"), cairn.path("runroot"));
    let store = [
        "--root",
        text(&graph),
        "--runroot",
        text(&runroot),
        "--storage-driver",
        "vfs",
    ];
    let podman = |arguments: &[&str]| peers::run("podman", &[&store[..], arguments].concat());
    podman(&["pull", "--quiet", "--tls-verify=false", &name]);
    let listed = podman(&["images", "--no-trunc", "--format", "{{.Digest}}"]);
    assert_eq!(listed.trim(), digest);

    let containerd = Containerd::start();
    containerd.ok(&["images", "pull", "--plain-http", &name]);
    assert_eq!(containerd.images(), [(name.clone(), digest.clone())]);

    // And so does Cairn, which has nothing of it.
    let other = Cairn::new();
    other.ok(&["images", "pull", "--plain-http", &name]);
    let trees = [(&other, name.as_str()), (&cairn, HERE)].map(|(cairn, name)| {
        let target = cairn.path("mnt");
        std::fs::create_dir(&target).expect("target");
        cairn.ok(&["images", "mount", name, text(&target)]);
        Tree::read(&target)
    });
    trees[0].assert_equals(&trees[1], "pulled and imported trees");
}

#[test]
fn what_is_there_is_not_sent() {
    let registry = Registry::start();
    let proxy = Proxy::start(registry.address());
    let (cairn, digest) = imported();
    let name = |rest: &str| format!("{}/shop/{rest}", proxy.host());
    let first = push(&cairn, &name("web:1"), &[]);
    let all = proxy.uploaded_bytes();
    assert_eq!(first["sent_bytes"].as_u64(), Some(all));
    push(&cairn, &name("web:2"), &[]);
    assert_eq!(proxy.uploaded_bytes(), all, "another tag sends no blob");
    let other = push(&cairn, &name("other:1"), &[]);
    assert_eq!(
        proxy.uploaded_bytes(),
        all,
        "another repository takes them over: {other}"
    );
    for (repository, tag) in [("shop/web", "2"), ("shop/other", "1")] {
        let there = registry.manifest(repository, tag).expect("there");
        assert_eq!(there.digest, digest);
    }
    // A manifest comes after all that it names.
    let seen = proxy.seen();
    let put = seen
        .iter()
        .position(|seen| seen.what == What::Manifest && seen.method == "PUT");
    let first = &seen[..put.expect("a manifest")];
    let sent: u64 = first
        .iter()
        .filter(|seen| seen.what == What::Upload)
        .map(|seen| seen.received)
        .sum();
    assert_eq!(sent, all);
}

#[test]
fn by_users_and_tokens() {
    let (cairn, digest) = imported();
    let basic = Registry::for_user("alice", "secret");
    let tokens = TokenServer::start(Rules::for_user("alice", "secret"));
    let bearer = Registry::for_tokens(&tokens);
    for registry in [&basic, &bearer] {
        let name = format!("{}/shop/web:1", registry.host());
        let stranger = ["images", "push", "--plain-http", &name, HERE];
        let said = cairn.fails(&stranger);
        assert!(
            said.contains("cannot push image") && said.contains(&registry.host()),
            "{said}"
        );
        push(&cairn, &name, &["-u", "alice:secret"]);
        let mut arguments = vec!["inspect", "--format", "{{.Digest}}"];
        let flags = registry.skopeo_flags("");
        arguments.extend(flags.iter().map(String::as_str));
        let remote = format!("docker://{name}");
        arguments.push(&remote);
        assert_eq!(peers::run("skopeo", &arguments).trim(), digest);
    }
    let given = tokens.given();
    assert!(
        given
            .iter()
            .any(|given| given.granted && given.scopes.iter().any(|scope| scope.contains("push")))
    );
}

#[test]
fn an_upload_that_breaks_goes_on() {
    let registry = Registry::start();
    let proxy = Proxy::start(registry.address());
    let (cairn, digest) = imported();
    let mut left = 3;
    proxy.script(move |seen| {
        let body = seen.what == What::Upload && matches!(seen.method.as_str(), "PUT" | "PATCH");
        let hit = body && left > 0 && seen.head.get("content-length") != Some("0");
        left -= i32::from(hit);
        hit.then_some(Fault::Cut(100_000))
    });
    push(&cairn, &format!("{}/shop/web:1", proxy.host()), &[]);
    assert_eq!(proxy.faults(), 3);
    assert_eq!(
        registry.manifest("shop/web", "1").expect("there").digest,
        digest
    );
}

/// An image with an index comes from one registry and goes to another, and is the same in both.
#[test]
fn digests_stay_from_end_to_end() {
    let (from, to) = (Registry::start(), Registry::start());
    let repository = Repository::new(&from, "shop/web");
    repository.index();
    let cairn = Cairn::new();
    let name = repository.reference("index");
    cairn.ok(&["images", "pull", "--plain-http", "--all-platforms", &name]);
    let there = format!("{}/mirror/web:index", to.host());
    cairn.ok(&["images", "push", "--plain-http", &there, &name]);
    let before = from.manifest("shop/web", "index").expect("there");
    let after = to.manifest("mirror/web", "index").expect("there");
    assert_eq!(before, after);
    let index: Value = serde_json::from_slice(&after.bytes).expect("JSON");
    for manifest in index["manifests"].as_array().expect("manifests") {
        let digest = manifest["digest"].as_str().expect("digest");
        let [one, other] = [(&from, "shop/web"), (&to, "mirror/web")]
            .map(|(registry, name)| registry.manifest(name, digest).expect("there"));
        assert_eq!(one, other);
    }
    let second = Cairn::new();
    second.ok(&["images", "pull", "--plain-http", &there]);
    let target = second.path("mnt");
    std::fs::create_dir(&target).expect("target");
    second.ok(&["images", "mount", &there, text(&target)]);
    assert_eq!(Tree::read(&target).lines(), TREE);
    let export = second.path("out.tar");
    second.ok(&["images", "export", text(&export), &there]);
    let mut command = Command::new("skopeo");
    let archive = format!("oci-archive:{}", text(&export));
    let raw = command
        .args(["inspect", "--raw", &archive])
        .output()
        .expect("start skopeo");
    assert_eq!(raw.stdout, after.bytes);
}

/// The digests of an index, by architecture.
fn listed(index: &[u8]) -> Vec<(String, String)> {
    let index: Value = serde_json::from_slice(index).expect("JSON");
    let entries = index["manifests"].as_array().expect("manifests").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    entries
        .map(|one| {
            let platform = &one["platform"];
            (text(&platform["architecture"]), text(&one["digest"]))
        })
        .collect()
}

/// > pull one platform, then tag, push, save …: all work on the present platform with a note
#[test]
fn one_platform_of_several_is_all_that_is_needed() {
    let (from, to) = (Registry::start(), Registry::start());
    let repository = Repository::new(&from, "shop/web");
    repository.index();
    let index = from.manifest("shop/web", "index").expect("there");
    let own = listed(&index.bytes);
    let own = own.iter().find(|(name, _)| name == architecture());
    let own = &own.expect("ours").1;
    let cairn = Cairn::new();
    let name = repository.reference("index");
    cairn.ok(&["images", "pull", "--plain-http", &name]);

    cairn.ok(&["images", "tag", &name, HERE]);
    let shown = cairn.ok(&["images", "inspect", HERE]);
    assert!(shown.contains(own), "{shown}");
    let archive = cairn.path("out.tar");
    cairn.ok(&["images", "export", text(&archive), HERE]);
    let layout = format!("oci-archive:{}", text(&archive));
    let config = peers::run("skopeo", &["inspect", "--config", &layout]);
    assert!(config.contains(architecture()), "{config}");

    let there = format!("{}/mirror/web:1", to.host());
    let pushed = cairn.output(&["images", "push", "--plain-http", &there, HERE]);
    let said = String::from_utf8(pushed.stderr).expect("UTF-8");
    assert!(pushed.status.success(), "{said}");
    let note = format!(
        "note: {there} now means linux/{} alone, {own}:",
        architecture()
    );
    assert!(said.contains(&note), "no {note:?} in\n{said}");
    assert_eq!(to.manifest("mirror/web", "1").expect("there").digest, *own);
    let copy = format!("oci:{}:one", text(&cairn.path("copy")));
    let source = format!("docker://{there}");
    let flags = ["copy", "-q", "--preserve-digests", "--src-tls-verify=false"];
    peers::run("skopeo", &[&flags[..], &[&source, &copy]].concat());
    let inspect = ["inspect", "--format", "{{.Digest}}", &copy];
    assert_eq!(peers::run("skopeo", &inspect).trim(), own);
    let document = push(&cairn, &there, &[]);
    assert_eq!(document["digest"], json!(own));
    assert_eq!(
        document["only_platform"],
        json!(format!("linux/{}", architecture()))
    );

    // Whoever wants all of it says so where it comes from.
    cairn.ok(&["images", "pull", "--plain-http", "--all-platforms", &name]);
    let pushed = cairn.output(&["images", "push", "--plain-http", &there, HERE]);
    let said = String::from_utf8(pushed.stderr).expect("UTF-8");
    assert!(pushed.status.success() && !said.contains("note:"), "{said}");
    assert_eq!(to.manifest("mirror/web", "1").expect("there"), index);
}
