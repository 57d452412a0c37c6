//! Requests that are told as lines, by the program alone and through the daemon, and no secret in them.
#![allow(missing_docs)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_integration::{
    cairn::Cairn,
    daemon::Daemon,
    fault_proxy::{Fault, Proxy},
    fixture::text,
    http::{Answer, Server},
    image::{Layer, Layout, Packing},
    registry::{Registry, Rules, TokenServer},
    secrets::nowhere,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PASSWORD: &str = "s3cret-of-alice";

/// A store, in the program itself or behind a daemon that logs what it can.
enum Way {
    Alone(Cairn),
    Daemon(Daemon),
}

impl Way {
    fn both() -> [Way; 2] {
        let talkative = "version = 1\n[log]\nlevel = \"debug\"\n";
        [
            Way::Alone(Cairn::new()),
            Way::Daemon(Daemon::configured(talkative)),
        ]
    }

    fn command(&self, words: &[&str]) -> Command {
        match self {
            Way::Alone(cairn) => cairn.command(words),
            Way::Daemon(daemon) => daemon.cairn(words),
        }
    }

    fn output(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("start cairn")
    }

    /// Runs it; its lines about requests, and all that it said.
    #[track_caller]
    fn traced(&self, words: &[&str]) -> (Vec<String>, String) {
        let output = self.output(words);
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{words:?}: {said}");
        let lines = said.lines().filter_map(|line| line.strip_prefix("http: "));
        let lines: Vec<String> = lines.map(str::to_owned).collect();
        (lines, said + &String::from_utf8_lossy(&output.stdout))
    }

    /// What the store keeps, and the daemon says of itself.
    fn files(&self) -> Vec<PathBuf> {
        match self {
            Way::Alone(cairn) => vec![cairn.path("store")],
            Way::Daemon(daemon) => ["root", "state", "log"]
                .map(|name| daemon.path(name))
                .into(),
        }
    }

    #[track_caller]
    fn has_no_secret(&self, secrets: &[&str], said: &str) {
        let basic = STANDARD.encode(format!("alice:{PASSWORD}"));
        let mut all = vec![PASSWORD.to_owned(), basic];
        all.extend(secrets.iter().map(|secret| (*secret).to_owned()));
        let files = self.files();
        let files: Vec<_> = files.iter().map(PathBuf::as_path).collect();
        nowhere(&all, said, &files);
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

#[track_caller]
fn has(lines: &[String], words: &[&str]) {
    let found = lines
        .iter()
        .any(|line| words.iter().all(|words| line.contains(words)));
    assert!(found, "no line with {words:?} in\n{}", lines.join("\n"));
}

/// What the registry's own storage is for others: an address that is good for whoever has it.
fn signed_storage(registry: &Registry) -> (Server, String) {
    let stored = registry.manifest("shop/web", "1").expect("there");
    let manifest: Value = serde_json::from_slice(&stored.bytes).expect("JSON");
    let digests = [
        &manifest["config"]["digest"],
        &manifest["layers"][0]["digest"],
    ];
    let files = digests.map(|digest| {
        let digest = digest.as_str().expect("digest").to_owned();
        let bytes = fs::read(registry.blob(&digest)).expect("blob");
        (digest, bytes)
    });
    let server = Server::start(move |request| {
        let wanted = request.query.iter().find(|(name, _)| name == "path");
        let wanted = wanted.map(|(_, path)| path.as_str()).unwrap_or_default();
        match files.iter().find(|(digest, _)| wanted.ends_with(digest)) {
            Some((_, bytes)) => Answer::status(200).body(bytes.clone()),
            None => Answer::status(404),
        }
    });
    let port = server.address().port();
    let to = format!("http://st0re:st0re-pass@localhost:{port}/?X-Signature=s1gned&path=");
    (server, to)
}

/// By name and password, with a host that has enough once and sends on to storage.
#[test]
fn a_pull_by_name_and_password() {
    let registry = Registry::for_user("alice", PASSWORD);
    fill(&registry);
    // Of what is here, in whatever namespace, only the name is asked for: so each has a store of its own.
    for (way, other) in Way::both().into_iter().zip(Way::both()) {
        let (_storage, to) = signed_storage(&registry);
        let proxy = Proxy::start(registry.address());
        let mut busy = true;
        proxy.script(move |seen| match std::mem::replace(&mut busy, false) {
            true => Some(Fault::too_many("0")),
            false => seen.is_fetch().then(|| Fault::Redirect(to.clone())),
        });
        let (host, login) = (proxy.host(), format!("alice:{PASSWORD}"));
        let name = format!("{host}/shop/web:1");
        let pull = |flag| ["images", "pull", "--plain-http", flag, "-u", &login, &name];
        let (lines, said) = way.traced(&pull("--http-trace"));
        has(
            &lines,
            &[
                "#1 HEAD ",
                &format!("http://{host}/v2/shop/web/manifests/1"),
            ],
        );
        has(&lines, &["#1 connected after "]);
        has(
            &lines,
            &["#1 429 too many requests after ", &format!(" from {host}")],
        );
        has(&lines, &["retry 2 of 6 in 0 ms: ", "429 too many requests"]);
        has(&lines, &["#2 401 unauthorized after "]);
        has(&lines, &["#3 200 ok after "]);
        has(&lines, &[" 307 temporary redirect after "]);
        has(&lines, &[" GET http://***@localhost:", "/?***"]);
        has(&lines, &[" body of ", " bytes in "]);
        assert!(!lines.iter().any(|line| line.contains(" > ")), "{said}");
        let secrets = ["st0re", "s1gned"];
        way.has_no_secret(&secrets, &said);

        let dumped = pull("--http-dump");
        let (lines, said) = other.traced(&dumped);
        has(&lines, &["> authorization: Basic ***"]);
        has(
            &lines,
            &["> accept: application/vnd.oci.image.index.v1+json"],
        );
        has(&lines, &["< www-authenticate: Basic realm="]);
        has(&lines, &["< docker-content-digest: sha256:"]);
        has(&lines, &["< location: http://***@localhost:", "/?***"]);
        other.has_no_secret(&secrets, &said);
    }
}

/// By tokens, for which a password or a refresh token is shown; the tokens are those that were really sent.
#[test]
fn pulls_and_pushes_by_tokens() {
    let tokens = TokenServer::start(Rules::for_user("alice", PASSWORD));
    let registry = Registry::for_tokens(&tokens);
    fill(&registry);
    let identity = tokens.identity("alice");
    for way in Way::both() {
        let proxy = Proxy::start(registry.address());
        let name = format!("{}/shop/web:1", proxy.host());
        let other = format!("{}/shop/other:1", proxy.host());
        let login = format!("alice:{PASSWORD}");
        let dump = ["--plain-http", "--http-dump"];
        let pull = [&["images", "pull"], &dump[..], &["-u", &login, &name]].concat();
        let (lines, pulled) = way.traced(&pull);
        has(
            &lines,
            &[" GET http://", "/token?service=", "account=alice"],
        );
        has(&lines, &["> authorization: Basic ***"]);
        has(&lines, &["> authorization: Bearer ***"]);
        has(&lines, &["<< ", r#""token":"***""#]);
        let push = [
            &["images", "push"],
            &dump[..],
            &["--refresh", &identity, &other, &name],
        ];
        let (lines, pushed) = way.traced(&push.concat());
        has(&lines, &[" POST http://", "/token, with "]);
        has(&lines, &[">> grant_type=refresh_token&refresh_token=***&"]);
        has(&lines, &[r#""access_token":"***""#]);
        has(&lines, &[" PUT http://", "/manifests/1, with "]);
        has(
            &lines,
            &[">> {", "application/vnd.oci.image.manifest.v1+json"],
        );
        has(&lines, &[" 201 created after "]);
        let shown = proxy.seen().into_iter();
        let shown = shown.filter_map(|seen| seen.head.get("authorization").map(str::to_owned));
        let mut secrets: Vec<String> = shown
            .map(|shown| shown.trim_start_matches("Bearer ").to_owned())
            .collect();
        assert!(secrets.len() > 4, "{secrets:?}");
        secrets.push(identity.clone());
        let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
        way.has_no_secret(&secrets, &(pulled + &pushed));
    }
}

/// Wherever an image comes from, whatever is shown of the progress.
#[test]
fn lines_go_where_progress_goes() {
    let registry = Registry::for_user("alice", PASSWORD);
    fill(&registry);
    let name = format!("{}/shop/web:1", registry.host());
    for way in Way::both() {
        let login = format!("alice:{PASSWORD}");
        let pull = ["images", "pull", "--http-trace", "-u", &login, &name];
        let (lines, _) = way.traced(&[&["-q"], &pull[..]].concat());
        has(&lines, &[" 200 ok after "]);
        let output = way.output(&[&["-n", "b", "--progress", "json"], &pull[..]].concat());
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(output.status.success(), "{said}");
        let objects = said
            .lines()
            .map(|line| serde_json::from_str(line).expect(line));
        let objects: Vec<Value> = objects.collect();
        let lines = objects.iter().filter(|object| object["event"] == "http");
        let lines = lines.map(|object| object["line"].as_str().expect("line").to_owned());
        has(&lines.collect::<Vec<_>>(), &[" 200 ok after "]);
        way.has_no_secret(&[], &said);

        let dir = TempDir::new().expect("temporary directory");
        let bundle = dir.path().join("bundle");
        let create = [
            "bundle",
            "create",
            "--pull",
            "always",
            "--http-dump",
            "--copy",
        ];
        let from = ["--creds", &login, &name, text(&bundle), "--", "/bin/sh"];
        let (lines, said) = way.traced(&[&create[..], &from].concat());
        has(&lines, &["> authorization: Basic ***"]);
        way.has_no_secret(&[], &said);
        let removed = way.output(&["bundle", "rm", text(&bundle)]);
        assert!(removed.status.success(), "{removed:?}");
    }
    // It asks nobody, and so there is nothing to tell.
    let explain = ["explain-host", "--http-trace", &name];
    let refused = Cairn::new().output(&explain);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

/// What went wrong is among the lines, and what was told before a failure is not lost.
#[test]
fn a_pull_that_fails_is_told_to_its_end() {
    let registry = Registry::for_user("alice", PASSWORD);
    fill(&registry);
    let name = format!("{}/shop/web:1", registry.host());
    for way in Way::both() {
        let words = [
            "images",
            "pull",
            "--http-dump",
            "-u",
            "alice:wr0ng-pass",
            &name,
        ];
        let output = way
            .command(&words)
            .stdin(Stdio::null())
            .output()
            .expect("start cairn");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let refusals = said.matches(" 401 unauthorized after ").count();
        assert!(refusals >= 2, "{said}");
        let wrong = STANDARD.encode("alice:wr0ng-pass");
        way.has_no_secret(&["wr0ng-pass", &wrong], &said);
    }
}
