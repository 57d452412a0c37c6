//! A daemon that has no credentials and asks its client for them: what a user has logged in with, or his
//! helper knows, is shown to the registry, and neither kept nor told.
#![allow(missing_docs)]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Output,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_integration::{
    cairn::fed,
    daemon::Daemon,
    fixture::text,
    image::{Layer, Layout, Packing},
    registry::{Registry, Rules, TokenServer},
    secrets::nowhere,
};
use serde_json::json;
use tempfile::TempDir;

const PASSWORD: &str = "s3cret-of-alice";

/// A daemon that logs what it can, and a user who runs its client.
struct Scene {
    daemon: Daemon,
    user: TempDir,
}

impl Scene {
    fn new() -> Scene {
        let talkative = "version = 1\n[log]\nlevel = \"debug\"\n";
        Scene {
            daemon: Daemon::configured(talkative),
            user: TempDir::new().expect("temporary directory"),
        }
    }

    fn home(&self) -> &Path {
        self.user.path()
    }

    /// What `docker login` leaves, or a user writes.
    fn configure(&self, config: &serde_json::Value) {
        let dir = self.home().join(".docker");
        fs::create_dir_all(&dir).expect("directory");
        fs::write(dir.join("config.json"), config.to_string()).expect("config.json");
    }

    /// `cairn` as the user runs it, as its daemon's client.
    fn run(&self, words: &[&str], input: &str) -> Output {
        let path = std::env::var("PATH").expect("PATH");
        let mut command = self.daemon.cairn(words);
        command
            .env("HOME", self.home())
            .env_remove("DOCKER_CONFIG")
            .env("XDG_RUNTIME_DIR", self.home().join("run"))
            .env("PATH", format!("{}:{path}", self.home().display()));
        fed(&mut command, input)
    }

    #[track_caller]
    fn ok(&self, words: &[&str], input: &str) {
        let output = self.run(words, input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        self.keeps_nothing(&output);
    }

    #[track_caller]
    fn refused(&self, words: &[&str]) -> String {
        let output = self.run(words, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {said}");
        self.keeps_nothing(&output);
        said
    }

    #[track_caller]
    fn keeps_nothing(&self, output: &Output) {
        let secrets = [
            PASSWORD.to_owned(),
            STANDARD.encode(format!("alice:{PASSWORD}")),
        ];
        let kept = ["root", "state", "log", "config.toml"].map(|name| self.daemon.path(name));
        let kept: Vec<&Path> = kept.iter().map(PathBuf::as_path).collect();
        let said = [&output.stdout[..], &output.stderr].concat();
        nowhere(&secrets, &String::from_utf8_lossy(&said), &kept);
    }
}

/// A small image put into a registry as `shop/web:1`.
fn fill(registry: &Registry) {
    let work = TempDir::new().expect("temporary directory");
    let layout = work.path().join("layout");
    let layer = Layer::new().dir("etc/", 0o755).file("etc/name", b"top\n");
    let layers = [(layer.finish(), Packing::Gzip)];
    Layout::create(&layout).image("one", &layers, &json!({}));
    registry.copy_in(&format!("oci:{}:one", text(&layout)), "shop/web:1");
}

fn logged_in(host: &str) -> serde_json::Value {
    let auth = STANDARD.encode(format!("alice:{PASSWORD}"));
    json!({ "auths": { host: { "auth": auth } } })
}

#[test]
fn a_users_login_is_asked_for_and_forgotten() {
    let registry = Registry::for_user("alice", PASSWORD);
    fill(&registry);
    let host = registry.host();
    let name = format!("{host}/shop/web:1");
    let scene = Scene::new();
    // The daemon has looked where the user's files are, and nowhere else.
    let said = scene.refused(&["images", "pull", &name]);
    let looked = "  cause:     no credentials sent; looked in ";
    assert!(said.contains(looked), "{said}");
    assert!(said.contains("~/.docker/config.json"), "{said}");

    scene.configure(&logged_in(&host));
    scene.ok(&["images", "pull", &name], "");
    let pushed = format!("{host}/shop/other:1");
    scene.ok(&["images", "push", &pushed, &name], "");
    let stored = registry.manifest("shop/other", "1");
    assert!(stored.is_some(), "pushed");

    // What one call was told, the next is not.
    scene.configure(&json!({}));
    let said = scene.refused(&["-n", "other", "images", "pull", &name]);
    assert!(said.contains(looked), "{said}");
    let piped = [
        "-n",
        "other",
        "images",
        "pull",
        "-u",
        "alice",
        "--password-stdin",
        &name,
    ];
    scene.ok(&piped, &format!("{PASSWORD}\n"));
    let said = scene.refused(&["-n", "third", "images", "pull", "-u", "alice:wr0ng", &name]);
    let cause = "  cause:     user alice (from -u) was refused\n";
    assert!(said.contains(cause) && !said.contains("wr0ng"), "{said}");
}

/// The helper is in the user's path alone, and runs for the client.
#[test]
fn a_users_helper_is_run_by_the_client() {
    let registry = Registry::for_user("alice", PASSWORD);
    fill(&registry);
    let host = registry.host();
    let name = format!("{host}/shop/web:1");
    let scene = Scene::new();
    let helper = scene.home().join("docker-credential-ours");
    let answer = json!({ "ServerURL": &host, "Username": "alice", "Secret": PASSWORD });
    let script = format!(
        "#!/bin/sh\nread -r server\necho \"$1 $server $(cat /proc/$PPID/comm)\" >> {}/asked\n\
         echo '{answer}'\n",
        scene.home().display()
    );
    fs::write(&helper, script).expect("helper");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("mode");
    scene.configure(&json!({ "credHelpers": { &host: "ours" } }));
    scene.ok(&["images", "pull", &name], "");
    let asked = fs::read_to_string(scene.home().join("asked")).expect("it was run");
    assert_eq!(asked, format!("get {host} cairn\n"), "once, for the host");
}

/// The server of tokens is shown the password, and the registry what that gives for it.
#[test]
fn a_password_goes_to_the_server_of_tokens() {
    let tokens = TokenServer::start(Rules::for_user("alice", PASSWORD));
    let registry = Registry::for_tokens(&tokens);
    fill(&registry);
    let host = registry.host();
    let name = format!("{host}/shop/web:1");
    let scene = Scene::new();
    scene.refused(&["images", "pull", &name]);
    scene.configure(&logged_in(&host));
    let before = tokens.given().len();
    scene.ok(&["images", "pull", &name], "");
    let given = &tokens.given()[before..];
    assert_eq!(given.len(), 1, "{given:?}");
    assert_eq!(given[0].user.as_deref(), Some("alice"));
    assert!(given[0].granted, "{given:?}");
}
