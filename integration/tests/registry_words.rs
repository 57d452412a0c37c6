//! What `cairn` says of registries: real ones on the loopback address, its words letter by letter.
#![allow(missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use cairn_integration::{
    cairn::{Cairn, fed},
    fault_proxy::{Fault, Proxy},
    fixture::text,
    image::Stored,
    registry::Registry,
    registry_images::{Repository, layers},
};
use serde_json::Value;

/// A registry with the image `shop/web:2.1`, and its digest.
fn with_web(registry: &Registry) -> String {
    let repository = Repository::new(registry, "shop/web");
    let document = repository.image(host_architecture(), &layers());
    let tagged = repository.tag("2.1", &document);
    tagged["digest"].as_str().expect("digest").to_owned()
}

fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Runs it with more of an environment, and something to read.
fn run(cairn: &Cairn, words: &[&str], variables: &[(&str, &str)], input: &str) -> Output {
    let mut command = cairn.command(words);
    command
        .envs(variables.iter().copied())
        .env("HOME", cairn.path("home"))
        .env("XDG_RUNTIME_DIR", cairn.path("run"))
        .env_remove("REGISTRY_AUTH_FILE")
        .env_remove("DOCKER_CONFIG");
    fed(&mut command, input)
}

/// What went wrong, in all its lines.
#[track_caller]
fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    let at = text.find("error: ").expect("an error");
    text[at..].to_owned()
}

/// A directory that says where `registry.example.com` is, as hosts.toml does.
fn hosts(cairn: &Cairn, toml: &str) -> PathBuf {
    let dir = cairn.path("certs.d");
    let own = dir.join("registry.example.com");
    fs::create_dir_all(&own).expect("directory");
    fs::write(own.join("hosts.toml"), toml).expect("hosts.toml");
    dir
}

const W: &str = "registry.example.com/shop/web:2.1";

#[test]
fn a_pull_says_what_it_did() {
    let (registry, cairn) = (Registry::start(), Cairn::new());
    let digest = with_web(&registry);
    let name = format!("{}/shop/web:2.1", registry.host());
    let said = cairn.ok(&["images", "pull", &name]);
    let lines: Vec<&str> = said.lines().collect();
    let [first, second, fetched, unpacked] = lines.as_slice() else {
        panic!("{said}");
    };
    assert_eq!(*first, format!("pulled {name}"));
    assert_eq!(*second, format!("digest    {digest}"));
    assert!(fetched.starts_with("fetched   "), "{said}");
    assert!(fetched.ends_with("/s), 0 B were here already"), "{said}");
    assert!(unpacked.starts_with("unpacked  2 layers, "), "{said}");

    let again = cairn.ok(&["pull", &name]);
    let fetched = again.lines().nth(2).expect("a line");
    assert!(fetched.starts_with("fetched   0 B in "), "{again}");
    assert_eq!(cairn.ok(&["-q", "pull", &name]), format!("{name}\n"));
    let document: Value =
        serde_json::from_str(&cairn.ok(&["--json", "pull", &name])).expect("JSON");
    assert_eq!(document["image"]["target"]["digest"], digest.as_str());
    assert_eq!(document["fetched_bytes"], 0);
    assert_eq!(document["layers"].as_array().map(Vec::len), Some(2));

    let packed = cairn.ok(&["-n", "other", "pull", "--no-unpack", &name]);
    assert_eq!(packed.lines().nth(3), Some("unpacked  nothing"), "{packed}");
}

/// Row 9, and what the newcomer does about it.
#[test]
fn a_private_image_wants_a_password_that_is_never_told() {
    let (registry, cairn) = (Registry::for_user("alice", "s3cret"), Cairn::new());
    with_web(&registry);
    let host = registry.host();
    let name = format!("{host}/shop/web:2.1");
    let next = format!(
        "  next:      docker login {host}\n  next:      cairn --root {} images pull -u USER {name}\n",
        cairn.path("store").display()
    );
    let refused = format!("error: cannot pull image {name}: {host} refused (401 unauthorized)\n");
    let places = [
        format!("{}/containers/auth.json", cairn.path("run").display()),
        "~/.config/containers/auth.json".to_owned(),
        "~/.docker/config.json".to_owned(),
    ];
    let output = run(&cairn, &["images", "pull", &name], &[], "");
    assert_eq!(
        complaint(&output),
        format!(
            "{refused}  cause:     no credentials sent; looked in {}\n{next}",
            places.join(", ")
        )
    );
    let output = run(
        &cairn,
        &["images", "pull", "-vv", "-u", "alice:wr0ng", &name],
        &[],
        "",
    );
    let told = complaint(&output);
    let cause = "  cause:     user alice (from -u) was refused\n";
    assert_eq!(told, format!("{refused}{cause}{next}"));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("wr0ng"));

    let words = ["pull", "-vv", "-u", "alice", "--password-stdin", &name];
    let output = run(&cairn, &words, &[], "s3cret\n");
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        told.contains(&format!("{host} asks: user alice (-u)")),
        "{told}"
    );
    assert!(!told.contains("s3cret"), "{told}");

    // Whoever logged in with docker is known.
    let file = cairn.path("home/.docker/config.json");
    fs::create_dir_all(file.parent().expect("directory")).expect("directory");
    let auth = "YWxpY2U6czNjcmV0"; // alice:s3cret
    let known = format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{auth}\"}}}}}}");
    fs::write(file, known).expect("file");
    let output = run(&cairn, &["-n", "other", "pull", &name], &[], "");
    assert!(output.status.success(), "{output:?}");
}

/// Rows 5 and 10.
#[test]
fn what_the_registry_has_not_is_named() {
    let (registry, cairn) = (Registry::start(), Cairn::new());
    with_web(&registry);
    let (host, root) = (registry.host(), cairn.path("store").display().to_string());
    let complain = |repository: &str, tag: &str, cause: &str| {
        let missing = format!("{host}/{repository}:{tag}");
        let said = complaint(&run(&cairn, &["images", "pull", &missing], &[], ""));
        let expected = format!(
            "error: cannot pull image {missing}: {host} has no tag {tag} in {repository}\n  \
             cause:     MANIFEST_UNKNOWN: manifest unknown\n{cause}  \
             next:      curl -s http://{host}/v2/{repository}/tags/list\n"
        );
        assert_eq!(said, expected);
    };
    complain("shop/web", "9.9", "");
    // What may have been meant is said, as far as the registry tells what it has.
    let repository = Repository::new(&registry, "shop/web");
    let document = repository.image(host_architecture(), &layers());
    complain("shop/web", "2.l", "  cause:     nearest tag: 2.1\n");
    for tag in ["2.0", "2.2", "2.1-slim", "latest"] {
        repository.tag(tag, &document);
    }
    complain(
        "shop/web",
        "2.3",
        "  cause:     nearest tags: 2.2, 2.1, 2.0\n",
    );
    complain("shop/web", "latets", "  cause:     nearest tag: latest\n");
    complain("shop/web", "edge", "");
    complain("shop/wbe", "2.1", "");
    let (name, own) = (format!("{host}/shop/web:2.1"), host_architecture());
    let words = ["images", "pull", "--platform", "linux/riscv64", &name];
    assert_eq!(
        complaint(&run(&cairn, &words, &[], "")),
        format!(
            "error: cannot pull image {name}: no manifest for linux/riscv64\n  \
             cause:     it has linux/{own}\n  \
             next:      cairn --root {root} images pull --platform linux/{own} {name}\n"
        )
    );
}

/// Rows 11 and 12.
#[test]
fn how_a_registry_speaks_is_said() {
    let cairn = Cairn::new();
    let root = cairn.path("store").display().to_string();
    let pull = |dir: &Path, more: &[&str]| {
        let mut words = vec!["images", "pull", "--hosts-dir", text(dir)];
        words.extend(more);
        words.push(W);
        run(&cairn, &words, &[], "")
    };
    let plain = Registry::start();
    let host = plain.host();
    let dir = hosts(&cairn, &format!("server = \"https://{host}\"\n"));
    assert_eq!(
        complaint(&pull(&dir, &[])),
        format!(
            "error: cannot pull image {W}: {host} speaks plain http, not https\n  \
             next:      cairn --root {root} images pull --plain-http {W}\n  \
             next:      server = \"http://{host}\" in /etc/cairn/certs.d/{host}/hosts.toml\n"
        )
    );
    let secure = Registry::secure();
    let host = secure.host();
    let dir = hosts(&cairn, &format!("server = \"https://{host}\"\n"));
    let told = complaint(&pull(&dir, &[]));
    let lines: Vec<&str> = told.lines().collect();
    let [first, issuer, put, flag] = lines.as_slice() else {
        panic!("{told}");
    };
    let expected = format!(
        "error: cannot pull image {W}: certificate of {host} is signed by an unknown authority"
    );
    assert_eq!(*first, expected);
    assert!(issuer.starts_with("  cause:     issuer "), "{told}");
    assert!(issuer.contains("CN=Example Internal CA"), "{told}");
    let expected = format!("  next:      put its certificate at /etc/cairn/certs.d/{host}/ca.crt");
    assert_eq!(*put, expected);
    let expected = format!("  next:      cairn --root {root} images pull --tlscacert FILE {W}");
    assert_eq!(*flag, expected);
    // Once it is trusted it is heard.
    let told = complaint(&pull(&dir, &["--tlscacert", text(&secure.ca())]));
    let expected = format!("error: cannot pull image {W}: {host} has no tag 2.1 in shop/web\n");
    assert!(told.starts_with(&expected), "{told}");
}

/// Row 14: as often as it is told to, and not for ever.
#[test]
fn a_registry_that_has_enough_is_given_up() {
    let (registry, cairn) = (Registry::start(), Cairn::new());
    with_web(&registry);
    let proxy = Proxy::start(registry.address());
    proxy.script(|_| Some(Fault::too_many("0")));
    let host = proxy.host();
    let name = format!("{host}/shop/web:2.1");
    let output = run(
        &cairn,
        &["images", "pull", "--plain-http", &name],
        &[("CAIRN_REGISTRY__RETRIES", "1")],
        "",
    );
    let told = complaint(&output);
    let first = format!(
        "error: cannot pull image {name}: {host} allows no more pulls now (429), gave up after 2 tries in "
    );
    assert!(told.starts_with(&first), "{told}");
    let next =
        format!("  next:      docker login {host}\n  next:      a mirror: man cairn-hosts.toml\n");
    assert!(told.ends_with(&next), "{told}");
}

/// Row 14 for what is sent.
#[test]
fn a_registry_that_takes_no_more_is_given_up() {
    let (registry, cairn) = (Registry::start(), Cairn::new());
    with_web(&registry);
    let name = format!("{}/shop/web:2.1", registry.host());
    cairn.ok(&["pull", &name]);
    let proxy = Proxy::start(registry.address());
    proxy.script(|_| Some(Fault::too_many("0")));
    let host = proxy.host();
    let there = format!("{host}/tools/web:3");
    let output = run(
        &cairn,
        &["images", "push", "--plain-http", &there, &name],
        &[("CAIRN_REGISTRY__RETRIES", "1")],
        "",
    );
    let told = complaint(&output);
    let first = format!(
        "error: cannot push image {there}: {host} allows no more pushes now (429), gave up after 2 tries in "
    );
    assert!(told.starts_with(&first), "{told}");
    let next = format!("  next:      docker login {host}\n");
    assert!(told.ends_with(&next), "{told}");
    assert!(!told.contains("mirror"), "{told}");
}

/// Row 19, and what it says to do.
#[test]
fn a_layer_of_a_kind_that_nobody_knows() {
    let (registry, cairn) = (Registry::start(), Cairn::new());
    let repository = Repository::new(&registry, "shop/web");
    let [base, top] = <[_; 2]>::try_from(layers()).expect("two layers");
    let kind = "application/vnd.acme.layer.v9";
    let strange = Stored::of(kind, b"who knows".to_vec(), b"nobody");
    let document = repository.image(host_architecture(), &[base, strange, top]);
    repository.tag("2.1", &document);
    let name = format!("{}/shop/web:2.1", registry.host());
    let root = cairn.path("store").display().to_string();
    let told = complaint(&run(&cairn, &["images", "pull", &name], &[], ""));
    let lines: Vec<&str> = told.lines().collect();
    let [first, known, next] = lines.as_slice() else {
        panic!("{told}");
    };
    let expected =
        format!("error: cannot unpack image {name}: layer 2 of 3 has unknown type {kind}");
    assert_eq!(*first, expected);
    assert_eq!(
        *known,
        "  cause:     known: tar, tar+gzip, tar+zstd, and docker's names for them"
    );
    let packed = format!("cairn --root {root} images pull --no-unpack {name}");
    assert_eq!(*next, format!("  next:      keep it packed: {packed}"));
    assert_eq!(cairn.ok(&["-q", "images", "ls"]), "");
    cairn.ok(&["images", "pull", "--no-unpack", &name]);
    assert_eq!(cairn.ok(&["-q", "images", "ls"]), format!("{name}\n"));
}

/// A mistake in a hosts.toml is the same one, whoever finds it.
#[test]
fn a_mistake_in_a_file_of_hosts_is_worded_once() {
    let (registry, cairn) = (Registry::start(), Cairn::new());
    with_web(&registry);
    let here = format!("{}/shop/web:2.1", registry.host());
    cairn.ok(&["pull", &here]);
    let dir = hosts(
        &cairn,
        "[host.\"http://127.0.0.1:1\"]\ncapabilites = [\"pull\"]\n",
    );
    let file = dir.join("registry.example.com/hosts.toml");
    let hosts_dir = ["--hosts-dir", text(&dir)];
    let said = |words: &[&str]| complaint(&run(&cairn, &[words, &hosts_dir].concat(), &[], ""));
    let explained = said(&["explain-host", W]);
    let file = file.display();
    assert_eq!(
        explained,
        format!(
            "error: cannot read {file}: unknown key \"capabilites\"\n  where:     {file}:2:1\n  \
             next:      did you mean capabilities?\n"
        )
    );
    assert_eq!(said(&["images", "pull", W]), explained);
    assert_eq!(said(&["images", "push", W, &here]), explained);
    let bundle = cairn.path("bundle");
    let create = ["bundle", "create", W, text(&bundle)];
    assert_eq!(said(&create), explained);
}

#[test]
fn a_push_says_what_it_did() {
    let (registry, cairn) = (Registry::start(), Cairn::new());
    let digest = with_web(&registry);
    let (host, other) = (registry.host(), Registry::start());
    let name = format!("{host}/shop/web:2.1");
    cairn.ok(&["pull", &name]);
    let there = format!("{}/tools/web:3", other.host());
    let said = cairn.ok(&["images", "push", &there, &name]);
    let lines: Vec<&str> = said.lines().collect();
    let [first, second, sent] = lines.as_slice() else {
        panic!("{said}");
    };
    assert_eq!(*first, format!("pushed {there}"));
    assert_eq!(*second, format!("digest  {digest}"));
    assert!(sent.starts_with("sent    "), "{said}");
    assert!(sent.ends_with("0 B were there already"), "{said}");
    let stored = other.manifest("tools/web", "3").expect("there");
    assert_eq!(stored.digest, digest);

    let document = cairn.ok(&["--json", "push", &there, &name]);
    let document: Value = serde_json::from_str(&document).expect("JSON");
    assert_eq!(
        (&document["sent_bytes"], &document["fetched_bytes"]),
        (&0.into(), &0.into())
    );
    assert_eq!(document["image"]["name"], name.as_str());
    assert_eq!(
        cairn.ok(&["-q", "push", &there, &name]),
        format!("{there}\n")
    );
}

#[test]
fn a_bundle_is_made_of_what_a_registry_has() {
    let (registry, cairn) = (Registry::start(), Cairn::new());
    with_web(&registry);
    let name = format!("{}/shop/web:2.1", registry.host());
    let (dir, other) = (cairn.path("bundle"), cairn.path("other"));
    let create = |pull| ["bundle", "create", "--pull", pull, &name, text(&dir)];
    let told = complaint(&cairn.output(&create("never")));
    let expected = format!("error: cannot create bundle from {name}: not found\n");
    assert!(told.starts_with(&expected), "{told}");
    let said = cairn.ok(&create("missing"));
    let expected = format!("created {} from {name} ", dir.display());
    assert!(said.starts_with(&expected), "{said}");
    assert_eq!(
        fs::read_to_string(dir.join("rootfs/etc/name")).expect("file"),
        "top\n"
    );
    // Nobody is asked for what is here.
    drop(registry);
    let again = |pull| ["bundle", "create", "--pull", pull, &name, text(&other)];
    let output = run(
        &cairn,
        &again("always"),
        &[("CAIRN_REGISTRY__RETRIES", "0")],
        "",
    );
    assert!(complaint(&output).starts_with("error: cannot pull image "));
    let said = cairn.ok(&again("missing"));
    assert!(
        said.starts_with(&format!("created {} from ", other.display())),
        "{said}"
    );
}
