//! The registry that pulls and pushes are tested with, by the clients of others.
#![allow(missing_docs)]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use cairn_integration::{
    fixture::text,
    image::{Layer, Layout, OCI_MANIFEST, Packing},
    peers::{self, Containerd},
    registry::{Given, KeyHint, Registry, Rules, TokenServer},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A layout with a small image; as skopeo names it, and the digest of its manifest.
fn image(work: &TempDir) -> (String, String) {
    let layer = Layer::new().file("name", b"small\n").finish();
    let path = work.path().join("layout");
    let listed = Layout::create(&path).image("one", &[(layer, Packing::Gzip)], &json!({}));
    let digest = listed["digest"].as_str().expect("digest").to_owned();
    (format!("oci:{}:one", text(&path)), digest)
}

/// What skopeo says the digest of a name is.
fn digest(registry: &Registry, name: &str, flags: &[String]) -> String {
    let name = format!("docker://{}/{name}", registry.host());
    let mut arguments = vec!["inspect", "--format", "{{.Digest}}"];
    arguments.extend(flags.iter().map(String::as_str));
    arguments.push(&name);
    peers::run("skopeo", &arguments).trim().to_owned()
}

fn curl(arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error"]).args(arguments);
    command.output().expect("start curl")
}

/// The status and the challenge of an answer.
fn challenge(arguments: &[&str]) -> (String, String) {
    let head = curl(&[&["--head", "--write-out", "%{http_code}"], arguments].concat());
    let said = String::from_utf8_lossy(&head.stdout).into_owned();
    let lines = said.lines();
    let field = lines
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    let challenge = field.map_or("", |(_, value)| value.trim());
    let status = said.lines().last().unwrap_or_default();
    (status.to_owned(), challenge.to_owned())
}

#[test]
fn a_plain_one_gives_back_what_it_was_given() {
    let work = TempDir::new().expect("temporary directory");
    let (image, expected) = image(&work);
    let registry = Registry::start();
    registry.copy_in(&image, "shop/web:1");
    let flags = registry.skopeo_flags("");
    assert_eq!(digest(&registry, "shop/web:1", &flags), expected);
    let stored = registry.manifest("shop/web", "1").expect("there");
    assert_eq!(stored.digest, expected);
    assert_eq!(registry.manifest("shop/web", "2"), None);
    let manifest: Value = serde_json::from_slice(&stored.bytes).expect("JSON");
    let layer = manifest["layers"][0]["digest"].as_str().expect("digest");
    assert!(registry.has_blob("shop/web", layer));
    assert!(!registry.has_blob("shop/other", layer));
    let hex = layer.trim_start_matches("sha256:");
    let blob = work.path().join("layout/blobs/sha256").join(hex);
    let (here, there) = (fs::read(blob), fs::read(registry.blob(layer)));
    assert_eq!(here.expect("blob"), there.expect("blob"));
}

#[test]
fn one_by_tls_is_trusted_by_its_authority_alone() {
    let work = TempDir::new().expect("temporary directory");
    let (image, expected) = image(&work);
    let registry = Registry::secure();
    registry.copy_in(&image, "shop/web:1");
    let flags = registry.skopeo_flags("");
    assert_eq!(digest(&registry, "shop/web:1", &flags), expected);
    let url = format!("https://{}/v2/", registry.host());
    let ca = registry.ca();
    assert!(curl(&["--cacert", text(&ca), &url]).status.success());
    // "SSL peer certificate … was not OK" (curl(1), EXIT CODES).
    assert_eq!(curl(&[&url]).status.code(), Some(60));
    let localhost = url.replace("127.0.0.1", "localhost");
    assert!(curl(&["--cacert", text(&ca), &localhost]).status.success());

    let containerd = Containerd::start();
    let name = format!("{}/shop/web:1", registry.host());
    let dir = hosts(work.path(), &registry.host(), &ca);
    containerd.ok(&["images", "pull", "--hosts-dir", text(&dir), &name]);
    assert_eq!(containerd.images(), [(name, expected)]);
}

/// A directory that says whom to trust for a host, in containerd's form.
fn hosts(work: &Path, host: &str, ca: &Path) -> std::path::PathBuf {
    let dir = work.join("certs.d");
    let own = dir.join(host);
    fs::create_dir_all(&own).expect("directory");
    let toml = format!("server = \"https://{host}\"\n[host.\"https://{host}\"]\n  ca = {ca:?}\n");
    fs::write(own.join("hosts.toml"), toml).expect("hosts.toml");
    dir
}

#[test]
fn one_for_a_user_wants_his_password() {
    let work = TempDir::new().expect("temporary directory");
    let (image, expected) = image(&work);
    let registry = Registry::for_user("alice", "secret");
    registry.copy_in(&image, "shop/web:1");
    let stored = registry.manifest("shop/web", "1").expect("there");
    assert_eq!(stored.digest, expected);
    let url = format!("http://{}/v2/", registry.host());
    let basic = "Basic realm=\"test\"".to_owned();
    assert_eq!(challenge(&[&url]), ("401".to_owned(), basic.clone()));
    let wrong = challenge(&["--user", "alice:guess", &url]);
    assert_eq!(wrong, ("401".to_owned(), basic));
    let right = challenge(&["--user", "alice:secret", &url]);
    assert_eq!(right, ("200".to_owned(), String::new()));
}

#[test]
fn tokens_are_for_who_says_who_he_is() {
    let work = TempDir::new().expect("temporary directory");
    let (image, expected) = image(&work);
    for hint in [KeyHint::Certificate, KeyHint::Id] {
        let rules = Rules {
            hint,
            ..Rules::for_user("alice", "secret")
        };
        let tokens = TokenServer::start(rules);
        let registry = Registry::for_tokens(&tokens);
        registry.copy_in(&image, "shop/web:1");
        let flags = registry.skopeo_flags("");
        assert_eq!(digest(&registry, "shop/web:1", &flags), expected);
        let given = tokens.given();
        let asked = |scope: &str| {
            let of = |given: &&Given| given.scopes.iter().any(|known| known == scope);
            given
                .iter()
                .find(of)
                .unwrap_or_else(|| panic!("{scope}: {given:?}"))
        };
        assert_eq!(
            asked("repository:shop/web:pull").user.as_deref(),
            Some("alice")
        );
        assert!(asked("repository:shop/web:pull,push").granted);

        let nobody = ["--tls-verify=false".to_owned()];
        let name = format!("docker://{}/shop/web:1", registry.host());
        for stranger in [
            &nobody[..],
            &[nobody[0].clone(), "--creds=alice:guess".to_owned()],
        ] {
            let mut command = Command::new("skopeo");
            let refused = command.arg("inspect").args(stranger).arg(&name).output();
            assert!(!refused.expect("start skopeo").status.success());
        }
        assert!(!tokens.given().last().expect("asked").granted);
    }
}

#[test]
fn everybody_may_pull_what_is_public() {
    let work = TempDir::new().expect("temporary directory");
    let (image, expected) = image(&work);
    let rules = Rules {
        public: true,
        ..Rules::for_user("alice", "secret")
    };
    let tokens = TokenServer::start(rules);
    let registry = Registry::for_tokens(&tokens);
    registry.copy_in(&image, "shop/web:1");
    let anonymous = ["--tls-verify=false".to_owned()];
    assert_eq!(digest(&registry, "shop/web:1", &anonymous), expected);

    let containerd = Containerd::start();
    let name = format!("{}/shop/web:1", registry.host());
    containerd.ok(&["images", "pull", "--plain-http", &name]);
    let mine = format!("{}/shop/web:2", registry.host());
    let push = ["images", "push", "--plain-http", &mine, &name];
    containerd.attempt(&push).expect_err("nobody may push");
    containerd.ok(&[&push[..3], &["--user", "alice:secret"], &push[3..]].concat());
    assert_eq!(registry_digest(&registry, "2"), expected);
    // The newer form, which containerd tries first with a password.
    let given = tokens.given();
    let posted = given
        .iter()
        .find(|given| given.grant == "password")
        .expect("posted");
    assert_eq!(posted.user.as_deref(), Some("alice"));
}

fn registry_digest(registry: &Registry, tag: &str) -> String {
    digest(
        registry,
        &format!("shop/web:{tag}"),
        &registry.skopeo_flags(""),
    )
}

/// A token of a server for pulling `shop/web`, as curl gets it.
fn token(tokens: &TokenServer, more: &[&str]) -> Value {
    let url = format!(
        "{}?service=registry.test&scope=repository:shop/web:pull",
        tokens.url()
    );
    let said = curl(&[more, &[&url]].concat());
    serde_json::from_slice(&said.stdout).expect("JSON")
}

#[test]
fn a_token_ends_when_it_should() {
    let work = TempDir::new().expect("temporary directory");
    let (image, _) = image(&work);
    let rules = |seconds| Rules {
        lifetime: std::time::Duration::from_secs(seconds),
        announced: Some(std::time::Duration::from_secs(77)),
        ..Rules::for_user("alice", "secret")
    };
    let tokens = TokenServer::start(rules(2));
    let registry = Registry::for_tokens(&tokens);
    // Each of skopeo's requests may need one of its own.
    registry.copy_in(&image, "shop/web:1");
    let url = format!("http://{}/v2/shop/web/manifests/1", registry.host());
    let answer = token(&tokens, &["--user", "alice:secret"]);
    assert_eq!(answer["expires_in"], 77);
    let bearer = format!(
        "Authorization: Bearer {}",
        answer["token"].as_str().expect("token")
    );
    let accept = format!("Accept: {OCI_MANIFEST}");
    let ask = || challenge(&["--header", &bearer, "--header", &accept, &url]).0;
    assert_eq!(ask(), "200");
    while ask() == "200" {
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(ask(), "401");
}

#[test]
fn a_refresh_token_stands_for_its_user() {
    let tokens = TokenServer::start(Rules::for_user("alice", "secret"));
    let registry = Registry::for_tokens(&tokens);
    let answer = token(&tokens, &["--user", "alice:secret"]);
    assert_eq!(answer["refresh_token"], Value::Null);
    let form = |pairs: &[&str]| {
        let mut arguments = vec!["--data", "service=registry.test"];
        for pair in pairs {
            arguments.extend(["--data-urlencode", pair]);
        }
        let url = tokens.url();
        arguments.push(&url);
        let said = curl(&arguments);
        serde_json::from_slice::<Value>(&said.stdout).expect("JSON")
    };
    let first = form(&[
        "grant_type=password",
        "username=alice",
        "password=secret",
        "access_type=offline",
    ]);
    let identity = first["refresh_token"]
        .as_str()
        .expect("refresh token")
        .to_owned();
    let pair = format!("refresh_token={identity}");
    let scope = "scope=repository:shop/web:pull,push";
    let second = form(&["grant_type=refresh_token", &pair, scope]);
    let bearer = second["access_token"].as_str().expect("access token");
    let bearer = format!("Authorization: Bearer {bearer}");
    let uploads = format!("http://{}/v2/shop/web/blobs/uploads/", registry.host());
    let form = "%{http_code}";
    let begun = curl(&[
        "-o",
        "/dev/null",
        "-w",
        form,
        "-X",
        "POST",
        "-H",
        &bearer,
        &uploads,
    ]);
    assert_eq!(String::from_utf8_lossy(&begun.stdout), "202");
    let given = tokens.given();
    let last = given.last().expect("asked");
    assert_eq!(
        (last.grant.as_str(), last.user.as_deref()),
        ("refresh_token", Some("alice"))
    );

    let unknown = tokens.identity("bob");
    assert_ne!(unknown, identity);
    let guess = curl(&[
        "--data",
        "grant_type=refresh_token&refresh_token=guess",
        &tokens.url(),
    ]);
    let guess: Value = serde_json::from_slice(&guess.stdout).expect("JSON");
    assert_eq!(guess["errors"][0]["code"], "UNAUTHORIZED");
}
