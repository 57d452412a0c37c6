//! Uploads through what stands between: fronts, lines that break, TLS, and the death of who sends.
#![allow(missing_docs)]

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use cairn_integration::{
    cairn::Cairn,
    daemon::Daemon,
    fault_proxy::{Fault, Proxy, Seen, What, limit},
    fixture::text,
    image::{Layer, Layout, Packing, digest, noise},
    line::Line,
    peers,
    registry::{Registry, Rules, TokenServer},
    registry_images::Repository,
};
use serde_json::{Value, json};

const HERE: &str = "localhost/t:one";
const MIB: usize = 1 << 20;

/// Writes the layout of an image of plain layers with so many bytes; the digest of its manifest.
fn layout(path: &std::path::Path, sizes: &[usize]) -> String {
    let layers = sizes.iter().zip(1_u64..).map(|(&size, seed)| {
        let file = Layer::new().file(&format!("noise-{seed}"), &noise(size, seed));
        (file.finish(), Packing::Plain)
    });
    let layers: Vec<_> = layers.collect();
    let listed = Layout::create(path).image("one", &layers, &json!({ "Cmd": ["/name"] }));
    listed["digest"].as_str().expect("digest").to_owned()
}

fn import(layout: &std::path::Path) -> [&str; 6] {
    let base = [
        "images",
        "import",
        "--no-unpack",
        "--base-name",
        "localhost/t",
    ];
    [base[0], base[1], base[2], base[3], base[4], text(layout)]
}

fn imported(sizes: &[usize]) -> (Cairn, String) {
    let cairn = Cairn::new();
    let path = cairn.path("layout");
    let digest = layout(&path, sizes);
    cairn.ok(&import(&path));
    (cairn, digest)
}

fn push(cairn: &Cairn, remote: &str, more: &[&str]) -> Value {
    let push = ["images", "push", "--json"];
    let pushed = cairn.ok(&[&push, more, &[remote, HERE]].concat());
    serde_json::from_str(&pushed).expect("JSON")
}

/// Bytes of the bodies of uploads, as they were begun.
fn bodies(proxy: &Proxy) -> Vec<u64> {
    let is_body = |seen: &&Seen| seen.what == What::Upload && seen.method != "POST";
    let seen = proxy.seen();
    let lengths = seen.iter().filter(is_body).filter_map(|seen| {
        let length = seen.head.get("content-length")?.parse().ok()?;
        (length > 0).then_some(length)
    });
    lengths.collect()
}

/// As behind nginx, which lets one mebibyte through where nobody told it otherwise.
#[test]
fn a_front_that_takes_little_at_a_time() {
    let registry = Registry::start();
    let proxy = Proxy::start(registry.address());
    proxy.script(limit(MIB as u64));
    let (cairn, digest) = imported(&[5 * MIB / 2, MIB]);
    let name = format!("{}/shop/web:1", proxy.host());
    let one = ["--plain-http", "--max-concurrent-uploaded-layers", "1"];
    let pushed = push(&cairn, &name, &one);
    let there = registry.manifest("shop/web", "1").expect("there");
    assert_eq!(there.digest, digest);
    for layer in pushed["layers"].as_array().expect("layers") {
        let layer = layer["digest"].as_str().expect("digest");
        assert!(registry.has_blob("shop/web", layer), "{layer}");
    }
    // A tar has its head and end beside the noise. Whole, then less and less until it goes through; the
    // other layer is not tried in one.
    let (mib, large) = (MIB as u64, proxy.uploaded_bytes());
    let sent = bodies(&proxy);
    assert_eq!(
        sent[1..5],
        [2 * mib, mib, mib, sent[0] - 2 * mib],
        "{sent:?}"
    );
    assert!(sent[5..].iter().all(|&bytes| bytes <= mib), "{sent:?}");
    assert_eq!(pushed["sent_bytes"].as_u64(), Some(large));
    assert_eq!(proxy.faults(), 2, "{sent:?}");
}

#[test]
fn some_at_once_and_the_largest_first() {
    let registry = Registry::start();
    let (cairn, _) = imported(&[300_000, 500_000, 100_000, 400_000, 200_000]);
    let gathered = |count: usize, repository: &str| {
        let proxy = Proxy::start(registry.address());
        proxy.gather_uploads(count);
        let name = format!("{}/{repository}:1", proxy.host());
        let lanes = count.to_string();
        let flags = ["--plain-http", "--max-concurrent-uploaded-layers", &lanes];
        let push = ["images", "push"];
        cairn.ok(&[&push[..], &flags, &[&name, HERE]].concat());
        assert_eq!(proxy.peak_uploads(), count);
        bodies(&proxy)
    };
    // A registry of its own each, so that nothing is taken over.
    let sent = gathered(1, "one");
    let mut sorted = sent.clone();
    sorted.sort_by_key(|&bytes| u64::MAX - bytes);
    assert_eq!(
        (&sent, sent.len()),
        (&sorted, 6),
        "the configuration is last"
    );
    let other = Registry::start();
    let proxy = Proxy::start(other.address());
    proxy.gather_uploads(3);
    let name = format!("{}/three:1", proxy.host());
    push(
        &cairn,
        &name,
        &["--plain-http", "--max-concurrent-uploaded-layers", "3"],
    );
    assert_eq!(proxy.peak_uploads(), 3);
    let mut first = bodies(&proxy)[..3].to_vec();
    first.sort_by_key(|&bytes| u64::MAX - bytes);
    assert_eq!(first, sorted[..3]);
}

/// Lets the first `whole` bodies of `least` bytes and more through, cuts two, and then takes none any more.
fn closing(proxy: &Proxy, whole: usize, least: u64) {
    let mut before = 0;
    proxy.script(move |seen| {
        let length = seen.head.get("content-length")?.parse().unwrap_or(0);
        if seen.what != What::Upload || length < least {
            return None;
        }
        before += 1;
        match before - whole.min(before) {
            0 => None,
            1 | 2 => Some(Fault::Cut(100_000)),
            _ => Some(Fault::Hang),
        }
    });
}

/// Kills who sends when nothing goes through any more, and lets all through from then on.
fn killed(proxy: &Proxy, mut command: Command, kill: impl FnOnce(&mut Child)) {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("start cairn");
    while proxy.faults() < 3 {
        let ended = child.try_wait().expect("wait");
        assert!(ended.is_none(), "it is over: {ended:?}");
        thread::sleep(Duration::from_millis(5));
    }
    kill(&mut child);
    assert!(!child.wait().expect("wait").success());
    proxy.heal();
}

const SIZES: [usize; 2] = [6 * MIB, 6 * MIB];
const CHUNK: u64 = 256 << 10;

fn bytes() -> u64 {
    SIZES.iter().sum::<usize>() as u64
}

#[track_caller]
fn is_sent_once(registry: &Registry, proxy: &Proxy, digest: &str) {
    let there = registry.manifest("shop/web", "1").expect("there");
    assert_eq!(there.digest, digest);
    let (sent, most) = (proxy.uploaded_bytes(), bytes() * 105 / 100);
    assert!(sent <= most, "{sent} of {most}: {:?}", bodies(proxy));
}

/// > restart the daemon …: bytes fetched <= 1.05x image; same for … push
///
/// This registry spoils an upload of which it hears a part, so that there is a front that it hears whole
/// requests from.
#[test]
fn a_push_goes_on_when_the_daemon_was_killed() {
    let registry = Registry::start();
    let proxy = Proxy::start(registry.address());
    proxy.hold_requests();
    let mut daemon = Daemon::configured("[registry]\nupload_chunk = \"256KiB\"\n");
    let path = daemon.path("layout");
    let digest = layout(&path, &SIZES);
    let done = daemon.cairn(&import(&path)).output().expect("start cairn");
    assert!(done.status.success());
    let name = format!("{}/shop/web:1", proxy.host());
    let push = ["images", "push", "--plain-http", &name, HERE];
    closing(&proxy, 24, CHUNK);
    let command = daemon.cairn(&push);
    killed(&proxy, command, |_| daemon.kill());
    daemon.restart();
    let done = daemon.cairn(&push).output().expect("start cairn");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    is_sent_once(&registry, &proxy, &digest);
}

#[test]
fn a_push_goes_on_when_the_command_was_killed() {
    let registry = Registry::start();
    let proxy = Proxy::start(registry.address());
    proxy.hold_requests();
    let (cairn, digest) = imported(&SIZES);
    let name = format!("{}/shop/web:1", proxy.host());
    let push = ["images", "push", "--plain-http", &name, HERE];
    let command = || {
        let mut command = cairn.command(&push);
        command.env("CAIRN_REGISTRY__UPLOAD_CHUNK", "256KiB");
        command
    };
    closing(&proxy, 24, CHUNK);
    killed(&proxy, command(), |child| child.kill().expect("kill"));
    let done = command().output().expect("start cairn");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{said}");
    is_sent_once(&registry, &proxy, &digest);
}

/// Without such a front the registry takes no rest, and gets all of it.
#[test]
fn what_the_registry_has_lost_goes_again() {
    let registry = Registry::start();
    let proxy = Proxy::start(registry.address());
    let (cairn, digest) = imported(&SIZES);
    let name = format!("{}/shop/web:1", proxy.host());
    let push = ["images", "push", "--plain-http", &name, HERE];
    closing(&proxy, 0, CHUNK);
    let command = cairn.command(&push);
    killed(&proxy, command, |child| child.kill().expect("kill"));
    cairn.ok(&push);
    let there = registry.manifest("shop/web", "1").expect("there");
    assert_eq!(there.digest, digest);
}

/// Out by a line that breaks, beside it without a byte, and back by a line that breaks.
fn round(registry: &Registry, flags: &[&str]) {
    let line = Line::to(registry.address());
    let (cairn, digest) = imported(&[400_000, 700_000]);
    let name = |rest: &str| format!("{}/shop/{rest}", line.host());
    line.break_after(300_000);
    let first = push(&cairn, &name("web:1"), flags);
    assert!(line.has_broken());
    let layers = first["layers"].as_array().expect("layers");
    let attempts = layers.iter().filter_map(|layer| layer["attempts"].as_u64());
    assert!(attempts.sum::<u64>() > 2, "one went again: {first}");
    assert_eq!(first["digest"], json!(digest));

    let before = line.passed();
    let second = push(&cairn, &name("other:1"), flags);
    assert_eq!(
        (&second["sent_bytes"], &second["reused_bytes"]),
        (&json!(0), &first["sent_bytes"])
    );
    assert!(
        line.passed() - before < 100_000,
        "{}",
        line.passed() - before
    );
    for tag in ["web:1", "other:1"] {
        let remote = format!("docker://{}/shop/{tag}", registry.host());
        let mut arguments = vec!["inspect", "--format", "{{.Digest}}"];
        let skopeo = registry.skopeo_flags("");
        arguments.extend(skopeo.iter().map(String::as_str));
        arguments.push(&remote);
        assert_eq!(peers::run("skopeo", &arguments).trim(), digest);
    }

    let other = Cairn::new();
    let before = line.passed();
    line.break_after(600_000);
    other.ok(&[&["images", "pull"], flags, &[&name("other:1")]].concat());
    assert!(line.has_broken());
    let passed = line.passed() - before;
    assert!(passed < 1_400_000, "it went on: {passed}");
}

#[test]
fn a_round_by_plain_http() {
    round(&Registry::start(), &["--plain-http"]);
}

#[test]
fn a_round_by_tls() {
    let registry = Registry::secure();
    round(&registry, &["--tlscacert", text(&registry.ca())]);
}

#[test]
fn a_round_with_tokens() {
    let tokens = TokenServer::start(Rules::for_user("alice", "secret"));
    let registry = Registry::for_tokens(&tokens);
    round(&registry, &["--plain-http", "-u", "alice:secret"]);
    // To take a blob over one has to be let into both repositories.
    let given = tokens.given();
    let both = [
        "repository:shop/other:pull,push",
        "repository:shop/web:pull",
    ];
    assert!(
        given.iter().any(|given| {
            let has = |scope: &str| given.scopes.iter().any(|one| one == scope);
            given.granted && both.iter().all(|scope| has(scope))
        }),
        "{given:?}"
    );
}

/// Configuration and layers by SHA-512.
#[test]
fn other_digests_stay() {
    let (from, to) = (Registry::start(), Registry::start());
    let repository = Repository::new(&from, "shop/web");
    repository.sha512();
    let cairn = Cairn::new();
    let name = repository.reference("sha512");
    cairn.ok(&["images", "pull", "--plain-http", &name]);
    let there = format!("{}/mirror/web:1", to.host());
    cairn.ok(&["images", "push", "--plain-http", &there, &name]);
    let stored = to.manifest("mirror/web", "1").expect("there");
    assert_eq!(Some(&stored), from.manifest("shop/web", "sha512").as_ref());
    let manifest: Value = serde_json::from_slice(&stored.bytes).expect("JSON");
    let config = manifest["config"]["digest"].as_str().expect("digest");
    assert!(config.starts_with("sha512:"), "{config}");
    assert!(to.has_blob("mirror/web", config));
    assert_eq!(stored.digest, digest(&stored.bytes));
}
