//! Pulls from registries that are closed in the ways in which real ones are.
#![allow(missing_docs)]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_integration::{
    cairn::Cairn,
    fault_proxy::Proxy,
    fixture::text,
    image::{Layer, Layout, Packing},
    registry::{Registry, Rules, TokenServer},
    registry_images::{Repository, TREE},
    tree::Tree,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A small image put into a registry as `shop/web:1`; its digest.
fn fill(registry: &Registry) -> String {
    let work = TempDir::new().expect("temporary directory");
    let layout = work.path().join("layout");
    let layer = Layer::new().dir("etc/", 0o755).file("etc/name", b"top\n");
    let layers = [(layer.finish(), Packing::Gzip)];
    let listed = Layout::create(&layout).image("one", &layers, &json!({}));
    registry.copy_in(&format!("oci:{}:one", text(&layout)), "shop/web:1");
    listed["digest"].as_str().expect("digest").to_owned()
}

fn pull(cairn: &Cairn, name: &str, more: &[&str]) -> Value {
    let pulled = cairn.ok(&[&["images", "pull", "--json"], more, &[name]].concat());
    serde_json::from_str(&pulled).expect("JSON")
}

/// A pull that is refused; what is said.
fn refused(cairn: &Cairn, name: &str, more: &[&str]) -> String {
    cairn.fails(&[&["images", "pull"], more, &[name]].concat())
}

#[track_caller]
fn says(said: &str, words: &[&str]) {
    for words in words {
        assert!(said.contains(words), "no {words:?} in\n{said}");
    }
}

fn mounted(cairn: &Cairn, name: &str) -> Vec<String> {
    let target = cairn.path("mnt");
    fs::create_dir(&target).expect("target");
    cairn.ok(&["images", "mount", name, text(&target)]);
    let lines = Tree::read(&target).lines();
    cairn.ok(&["images", "unmount", text(&target)]);
    lines
}

#[test]
fn from_an_open_registry() {
    let registry = Registry::start();
    let repository = Repository::new(&registry, "shop/web");
    let expected = repository.index();
    let (cairn, name) = (Cairn::new(), repository.reference("index"));
    let pulled = pull(&cairn, &name, &["--plain-http"]);
    assert_eq!(pulled["image"]["target"]["digest"], expected["digest"]);
    assert_eq!(pulled["image"]["name"], json!(name));
    assert!(pulled["fetched_bytes"].as_u64() > Some(0));
    assert_eq!(pulled["layers"].as_array().map(Vec::len), Some(2));
    assert_eq!(pulled["layers"][0]["host"], json!(registry.host()));
    assert_eq!(mounted(&cairn, &name), TREE);
    let again = pull(&cairn, &name, &["--plain-http"]);
    assert_eq!(again["fetched_bytes"], 0);
    assert_eq!(again["image"]["target"], pulled["image"]["target"]);
    drop(registry);
    let missing = ["--plain-http", "--pull-policy", "missing"];
    pull(&cairn, &name, &missing);
    says(
        &refused(&cairn, &name, &["--plain-http"]),
        &["cannot pull image", &name],
    );
}

#[test]
fn nothing_is_there() {
    let registry = Registry::start();
    fill(&registry);
    let cairn = Cairn::new();
    let name = |rest: &str| format!("{}/{rest}", registry.host());
    let said = refused(&cairn, &name("shop/web:2"), &["--plain-http"]);
    says(&said, &["has no tag 2 in shop/web", &registry.host()]);
    let said = refused(&cairn, &name("shop/none:1"), &["--plain-http"]);
    says(&said, &["shop/none", &registry.host()]);
    assert_eq!(cairn.ok(&["-q", "images", "ls"]), "");
}

#[test]
fn by_tls() {
    let registry = Registry::secure();
    let expected = fill(&registry);
    let name = format!("{}/shop/web:1", registry.host());
    // On the loopback address nobody asks for certificates, unless somebody names an authority, or a file
    // says so.
    let work = TempDir::new().expect("temporary directory");
    let own = work.path().join(registry.host());
    fs::create_dir(&own).expect("directory");
    let say = |more: &str| {
        let text = format!("server = \"https://{}\"\n{more}\n", registry.host());
        fs::write(own.join("hosts.toml"), text).expect("hosts.toml");
    };
    say("skip_verify = false");
    let hosts = ["--hosts-dir", text(work.path())];
    let unknown = refused(&Cairn::new(), &name, &hosts);
    let words = [
        "signed by an unknown authority",
        "CN=Example Internal CA",
        "--tlscacert",
    ];
    says(&unknown, &words);
    let ca = registry.ca();
    let other = Registry::secure();
    let another = refused(&Cairn::new(), &name, &["--tlscacert", text(&other.ca())]);
    says(&another, &["certificate of", "is not valid"]);
    say(&format!("skip_verify = false\nca = {ca:?}"));
    for more in [&["--tlscacert", text(&ca)][..], &hosts, &["--skip-verify"]] {
        let pulled = pull(&Cairn::new(), &name, more);
        assert_eq!(
            pulled["image"]["target"]["digest"],
            json!(expected),
            "{more:?}"
        );
    }
}

#[test]
fn for_a_user() {
    let registry = Registry::for_user("alice", "secret");
    let expected = fill(&registry);
    let name = format!("{}/shop/web:1", registry.host());
    let cairn = Cairn::new();
    let said = refused(&cairn, &name, &["--plain-http"]);
    says(&said, &["401", "no credentials", &registry.host()]);
    let said = refused(&cairn, &name, &["--plain-http", "-u", "alice:guess"]);
    says(&said, &["401", "alice"]);
    assert!(!said.contains("guess"), "{said}");
    let pulled = pull(&cairn, &name, &["--plain-http", "-u", "alice:secret"]);
    assert_eq!(pulled["image"]["target"]["digest"], json!(expected));

    let cairn = Cairn::new();
    let piped = [
        "images",
        "pull",
        "--plain-http",
        "-u",
        "alice",
        "--password-stdin",
        &name,
    ];
    let mut command = cairn.command(&piped);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut child = child.expect("start cairn");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"secret\n").expect("write");
    drop(stdin);
    assert!(child.wait().expect("wait").success());

    let cairn = Cairn::new();
    let file = cairn.path("auth.json");
    logged_in(&file, &registry.host());
    pull(&cairn, &name, &["--plain-http", "--authfile", text(&file)]);
    let cairn = Cairn::new();
    fs::create_dir(cairn.path("docker")).expect("directory");
    logged_in(&cairn.path("docker/config.json"), &registry.host());
    pull(&cairn, &name, &["--plain-http"]);
}

/// As `docker login` leaves it.
fn logged_in(file: &Path, host: &str) {
    let auths = json!({ "auths": { host: { "auth": STANDARD.encode("alice:secret") } } });
    fs::write(file, auths.to_string()).expect("file");
}

#[test]
fn by_tokens() {
    let tokens = TokenServer::start(Rules::for_user("alice", "secret"));
    let registry = Registry::for_tokens(&tokens);
    let expected = fill(&registry);
    let name = format!("{}/shop/web:1", registry.host());
    let cairn = Cairn::new();
    let said = refused(&cairn, &name, &["--plain-http"]);
    says(&said, &["no credentials"]);
    let said = refused(&cairn, &name, &["--plain-http", "-u", "alice:guess"]);
    says(&said, &["alice"]);
    let before = tokens.given().len();
    let pulled = pull(&cairn, &name, &["--plain-http", "-u", "alice:secret"]);
    assert_eq!(pulled["image"]["target"]["digest"], json!(expected));
    let given = &tokens.given()[before..];
    assert_eq!(given.len(), 1, "one for all of it: {given:?}");
    assert_eq!(given[0].user.as_deref(), Some("alice"));
    assert_eq!(given[0].scopes, ["repository:shop/web:pull"]);

    let cairn = Cairn::new();
    let identity = tokens.identity("alice");
    pull(&cairn, &name, &["--plain-http", "--refresh", &identity]);
    let last = tokens.given().pop().expect("asked");
    assert_eq!((last.grant.as_str(), last.granted), ("refresh_token", true));

    // A bundle is made of what was pulled by the same.
    let (cairn, before) = (Cairn::new(), tokens.given().len());
    let dir = cairn.path("bundle");
    let create = |token| {
        let words = ["bundle", "create", "--plain-http", "--refresh", token];
        [&words[..], &[&*name, text(&dir), "--", "/bin/sh"]].concat()
    };
    let said = cairn.fails(&create("stranger"));
    assert!(!said.contains("stranger"), "{said}");
    assert!(!tokens.given().last().expect("asked").granted);
    cairn.ok(&create(&identity));
    assert!(dir.join("rootfs/etc/name").exists());
    let given = &tokens.given()[before..];
    let last = given.last().expect("asked");
    assert_eq!((last.grant.as_str(), last.granted), ("refresh_token", true));
}

#[test]
fn by_tokens_for_everybody() {
    let rules = Rules {
        public: true,
        ..Rules::for_user("alice", "secret")
    };
    let tokens = TokenServer::start(rules);
    let registry = Registry::for_tokens(&tokens);
    fill(&registry);
    let before = tokens.given().len();
    let name = format!("{}/shop/web:1", registry.host());
    pull(&Cairn::new(), &name, &["--plain-http"]);
    let given = &tokens.given()[before..];
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(given[0].user, None);
}

/// The registry takes a token for two seconds at most, whatever the client was told; the image takes longer.
#[test]
fn tokens_end_in_the_middle() {
    let tokens = TokenServer::start(Rules::for_user("alice", "secret"));
    let registry = Registry::for_tokens(&tokens);
    let work = TempDir::new().expect("temporary directory");
    let layout = work.path().join("layout");
    let layers: Vec<_> = (0..5)
        .map(|number| {
            let noise = cairn_integration::image::noise(100_000, number + 1);
            (Layer::new().file("noise", &noise).finish(), Packing::Gzip)
        })
        .collect();
    Layout::create(&layout).image("one", &layers, &json!({}));
    registry.copy_in(&format!("oci:{}:one", text(&layout)), "shop/web:1");
    tokens.give_for(Duration::from_secs(2), Duration::from_secs(300));
    let proxy = Proxy::start(registry.address());
    proxy.throttle(100_000);
    let before = tokens.given().len();
    let name = format!("{}/shop/web:1", proxy.host());
    let more = [
        "--plain-http",
        "-u",
        "alice:secret",
        "--max-concurrent-downloads",
        "1",
    ];
    let pulled = pull(&Cairn::new(), &name, &more);
    assert_eq!(pulled["layers"].as_array().map(Vec::len), Some(5));
    let ended = proxy
        .seen()
        .iter()
        .filter(|seen| seen.status == 401)
        .count();
    assert!(ended > 1, "tokens that ended: {ended}");
    assert_eq!(
        tokens.given().len() - before,
        ended,
        "one for each that ended, or was not there"
    );
    let layers = pulled["layers"].as_array().expect("layers").iter();
    let size: u64 = layers
        .map(|layer| layer["size"].as_u64().expect("size"))
        .sum();
    let (sent, most) = (proxy.blob_bytes(), size * 105 / 100);
    assert!(sent <= most, "{sent} of {most}");
}

/// Its password goes to the registry, and to nobody to whom that sends its clients.
#[test]
fn m07_credentials_do_not_follow_a_redirect() {
    use cairn_integration::{fault_proxy::Fault, http};
    let registry = Registry::for_user("alice", "secret");
    let expected = fill(&registry);
    let stored = registry.manifest("shop/web", "1").expect("there");
    let manifest: Value = serde_json::from_slice(&stored.bytes).expect("JSON");
    let blobs = [
        &manifest["config"]["digest"],
        &manifest["layers"][0]["digest"],
    ];
    let blobs = blobs.map(|digest| digest.as_str().expect("digest").to_owned());
    let files = blobs.iter().map(|digest| {
        let bytes = fs::read(registry.blob(digest)).expect("blob");
        (format!("/v2/shop/web/blobs/{digest}"), bytes)
    });
    let elsewhere = http::files(files.collect());
    let proxy = Proxy::start(registry.address());
    let other = format!("http://localhost:{}", elsewhere.address().port());
    proxy.script(move |seen| seen.is_fetch().then(|| Fault::Redirect(other.clone())));
    let name = format!("{}/shop/web:1", proxy.host());
    let pulled = pull(
        &Cairn::new(),
        &name,
        &["--plain-http", "-u", "alice:secret"],
    );
    assert_eq!(pulled["image"]["target"]["digest"], json!(expected));
    let asked = elsewhere.asked();
    assert_eq!(asked.len(), 2);
    for request in asked {
        assert_eq!(request.head.get("authorization"), None, "{request:?}");
    }
    let seen = proxy.seen();
    assert!(
        seen.iter()
            .any(|seen| seen.head.get("authorization").is_some())
    );
}

/// What tools write is pulled under the digest that they gave it, and runs.
#[test]
fn what_other_tools_pushed_runs() {
    let registry = Registry::start();
    let work = TempDir::new().expect("temporary directory");
    let base = Layer::busybox().file("etc/motd", b"hello\n");
    let layout = work.path().join("layout");
    let layers = [(base.finish(), Packing::Gzip)];
    let config = json!({ "Cmd": ["/bin/cat", "/etc/motd"] });
    Layout::create(&layout).image("one", &layers, &config);
    made(&registry, &work, text(&layout));
    for (tag, expected) in [
        ("skopeo", "hello\n"),
        ("skopeo-docker", "hello\n"),
        ("umoci", "hello\n"),
        // Its layer ends with its last file's data.
        ("umoci-insert", "inserted\n"),
        ("buildah", "hello\n"),
    ] {
        let cairn = Cairn::new();
        let name = format!("{}/shop/{tag}:1", registry.host());
        let pulled = pull(&cairn, &name, &["--plain-http"]);
        let there = registry.manifest(&format!("shop/{tag}"), "1").expect(tag);
        assert_eq!(
            pulled["image"]["target"]["digest"],
            json!(there.digest),
            "{tag}"
        );
        let bundle = cairn.path("bundle");
        cairn.ok(&["bundle", "create", &name, text(&bundle)]);
        let id = format!("pulled-{tag}-{}", std::process::id());
        let said = cairn_integration::peers::contain("runc", &bundle, &id);
        assert_eq!(said, expected, "{tag}");
    }
}

fn made(registry: &Registry, work: &TempDir, layout: &str) {
    let from = format!("oci:{layout}:one");
    registry.copy_in(&from, "shop/skopeo:1");
    let to = |tag: &str| format!("docker://{}/shop/{tag}:1", registry.host());
    let insecure = "--dest-tls-verify=false";
    run(
        "skopeo",
        &[
            "copy",
            "-q",
            "--format",
            "v2s2",
            insecure,
            &from,
            &to("skopeo-docker"),
        ],
    );
    let (image, bundle) = (format!("{layout}:one"), work.path().join("bundle"));
    run("umoci", &["unpack", "--image", &image, text(&bundle)]);
    fs::write(bundle.join("rootfs/etc/more"), "more\n").expect("file");
    let repacked = format!("{layout}:umoci");
    run("umoci", &["repack", "--image", &repacked, text(&bundle)]);
    registry.copy_in(&format!("oci:{repacked}"), "shop/umoci:1");
    let motd = work.path().join("motd");
    fs::write(&motd, "inserted\n").expect("file");
    let insert = [
        "insert",
        "--image",
        &image,
        "--tag",
        "inserted",
        text(&motd),
    ];
    run("umoci", &[&insert[..], &["/etc/motd"]].concat());
    registry.copy_in(&format!("oci:{layout}:inserted"), "shop/umoci-insert:1");
    let storage = work.path().join("storage");
    let store = [
        "--root",
        text(&storage),
        "--runroot",
        text(work.path()),
        "--storage-driver",
        "vfs",
    ];
    let buildah = |arguments: &[&str]| run("buildah", &[&store[..], arguments].concat());
    let container = buildah(&["from", "--quiet", "--tls-verify=false", &to("skopeo")]);
    let container = container.trim();
    buildah(&["config", "--label", "by=buildah", container]);
    buildah(&["commit", "--quiet", container, "localhost/built"]);
    buildah(&[
        "push",
        "--quiet",
        "--tls-verify=false",
        "localhost/built",
        &to("buildah"),
    ]);
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    let ran = command.args(arguments).output().expect(program);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(ran.stdout).expect("UTF-8")
}

/// What the time of each layer went into is the same wherever it is told.
#[test]
fn where_the_time_went() {
    let registry = Registry::start();
    Repository::new(&registry, "shop/web").noise("1", &[300_000, 200_000]);
    let name = format!("{}/shop/web:1", registry.host());
    let cairn = Cairn::new();
    let pulled = |more: &[&str]| {
        let words = ["images", "pull", "--json", "--progress", "json"];
        let output = cairn.output(&[&words, more, &[&name]].concat());
        let told = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{told}");
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let told = told
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"));
        let told: Vec<Value> = told.collect();
        let timing: Vec<Value> = told
            .into_iter()
            .filter(|one| one["event"] == "timing")
            .collect();
        (document["layers"].clone(), timing)
    };
    // Packed first, so that those who unpack it are not those who fetched it.
    let (layers, told) = pulled(&["--no-unpack"]);
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(layers[0]["timing_ms"], Value::Null);
    let (layers, told) = pulled(&[]);
    assert_eq!(told.len(), 2, "{told:?}");
    let inspect = ["images", "inspect", "--timing", "--json", &name];
    let inspected: Value = serde_json::from_str(&cairn.ok(&inspect)).expect("JSON");
    for (number, layer) in layers.as_array().expect("layers").iter().enumerate() {
        let one = told.iter().find(|one| one["chain_id"] == layer["chain_id"]);
        let one = one.expect("told of each");
        assert_eq!(
            (&one["digest"], &one["ref"]),
            (&layer["digest"], &json!(name))
        );
        for part in ["fetch", "inflate", "untar", "sync", "commit"] {
            assert!(one["timing_ms"][part].is_u64(), "{one}");
        }
        assert_eq!(one["timing_ms"], layer["timing_ms"]);
        let known = &inspected["layers"][number];
        assert_eq!(known["chain_id"], layer["chain_id"]);
        assert_eq!(known["timing_ms"], layer["timing_ms"]);
    }
    // Another time there is nothing to do.
    let (layers, told) = pulled(&[]);
    assert!(told.is_empty(), "{told:?}");
    assert_eq!(layers[0]["timing_ms"], Value::Null);

    // People have the sums.
    let output = Cairn::new().output(&["images", "pull", "--progress", "plain", &name]);
    let told = String::from_utf8(output.stderr).expect("UTF-8");
    let last = told.lines().last().unwrap_or_default();
    let begins = format!("pull {name}: 2 layers took fetch ");
    assert!(last.starts_with(&begins), "{told}");
}
