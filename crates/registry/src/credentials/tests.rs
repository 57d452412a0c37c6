//! Files as Docker and Podman write them, and helpers as they answer.

mod helpers;

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;
use crate::{env::Env, hosts};

/// A home, a runtime directory and a place for programs.
struct Person(TempDir);

const RUNTIME: &str = "run/containers/auth.json";
const CONFIG: &str = "home/.config/containers/auth.json";
const DOCKER: &str = "home/.docker/config.json";

impl Person {
    fn new(files: &[(&str, &str)]) -> Person {
        let person = Person(tempfile::tempdir().expect("a directory"));
        for (name, text) in files {
            person.put(name, text);
        }
        person
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect(name);
        fs::write(&path, text).expect(name);
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let text = |name| self.path(name).display().to_string();
        vec![
            ("HOME", text("home")),
            ("XDG_RUNTIME_DIR", text("run")),
            ("PATH", format!("{}:/usr/bin:/bin", text("bin"))),
        ]
    }

    fn sources(&self, registry: &str, repository: &str) -> Sources {
        Sources::new(registry, repository, &self.env().into_iter().collect(), 0)
    }

    fn found(&self, registry: &str, repository: &str) -> Option<Found> {
        let sources = self.sources(registry, repository);
        sources.find(registry).expect(registry)
    }

    fn wrong(&self, registry: &str) -> String {
        let sources = self.sources(registry, "a");
        sources.find(registry).expect_err(registry)
    }
}

fn basic(user: &str, secret: &str) -> Credential {
    Credential::Basic {
        user: user.to_owned(),
        secret: secret.to_owned(),
    }
}

/// As `printf %s USER:PASS | base64` has it.
const ALICE: &str = "YWxpY2U6czNjcmV0OndpdGg6Y29sb25z"; // alice:s3cret:with:colons
const BOB: &str = "Ym9iOmh1bnRlcjI="; // bob:hunter2
const NOBODY: &str = "OmJvYg=="; // :bob
const NO_COLON: &str = "bm8tY29sb24="; // no-colon

fn auths(entries: &[(&str, &str)]) -> String {
    let lines: Vec<String> = entries
        .iter()
        .map(|(key, auth)| format!("\t\t\"{key}\": {{\"auth\": \"{auth}\"}}"))
        .collect();
    format!("{{\n\t\"auths\": {{\n{}\n\t}}\n}}\n", lines.join(",\n"))
}

#[test]
fn a_flag_has_a_user_and_maybe_a_password() {
    assert_eq!(user("alice"), ("alice", None));
    assert_eq!(user("alice:"), ("alice", Some("")));
    assert_eq!(user("alice:a:b"), ("alice", Some("a:b")));
}

#[test]
fn entries_of_all_shapes_are_understood() {
    let identity = |token: &str| Some(Credential::Identity(token.to_owned()));
    for (entry, expected) in [
        (
            format!(r#"{{"auth": "{ALICE}"}}"#),
            Some(basic("alice", "s3cret:with:colons")),
        ),
        (
            r#"{"auth": "Ym9iOmh1bnRlcjI"}"#.to_owned(),
            Some(basic("bob", "hunter2")),
        ),
        // bob:hunter2 and two NUL, as old Docker wrote it.
        (
            r#"{"auth": "Ym9iOmh1bnRlcjIAAA=="}"#.to_owned(),
            Some(basic("bob", "hunter2")),
        ),
        (
            r#"{"username": "u", "password": "p"}"#.to_owned(),
            Some(basic("u", "p")),
        ),
        (
            format!(r#"{{"auth": "{BOB}", "identitytoken": "t"}}"#),
            identity("t"),
        ),
        // 00000000-0000-0000-0000-000000000000: beside a token, as Azure has it.
        (
            r#"{"auth": "MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAwOg==",
                "identitytoken": "t"}"#
                .to_owned(),
            identity("t"),
        ),
        (
            r#"{"identitytoken": "t", "registrytoken": "r"}"#.to_owned(),
            Some(Credential::Bearer("r".to_owned())),
        ),
        (r#"{"username": "u"}"#.to_owned(), None),
        (r#"{"auth": "", "email": "a@b"}"#.to_owned(), None),
        ("{}".to_owned(), None),
        ("null".to_owned(), None),
    ] {
        let text = format!("{{\"auths\": {{\"h:5000\": {entry}}}, \"psFormat\": \"x\"}}");
        let person = Person::new(&[(DOCKER, &text)]);
        let found = person.found("h:5000", "a");
        assert_eq!(
            found.as_ref().map(|f| f.credential.clone()),
            expected,
            "{entry}"
        );
        if let Some(found) = found {
            assert_eq!(found.source, "~/.docker/config.json");
        }
    }
    for nothing in [
        "",
        " \n",
        "{}",
        r#"{"auths": null}"#,
        r#"{"credsStore": ""}"#,
    ] {
        assert_eq!(Person::new(&[(DOCKER, nothing)]).found("h", "a"), None);
    }
}

/// The table of containers-auth.json(5).
#[test]
fn the_longest_part_of_a_registry_is_meant() {
    let entries = [
        ("my-registry.local/foo/bar/image", "dTE6cA=="), // u1:p
        ("my-registry.local/foo", "dTI6cA=="),           // u2:p
        ("my-registry.local", "dTM6cA=="),               // u3:p
        ("other.local/team", "dTQ6cA=="),                // u4:p
    ];
    let person = Person::new(&[(RUNTIME, &auths(&entries))]);
    for (host, repository, user) in [
        ("my-registry.local", "foo/bar/image", Some("u1")),
        ("my-registry.local", "foo/bar/image/more", Some("u1")),
        ("my-registry.local", "foo/bar/images", Some("u2")),
        ("my-registry.local", "foo", Some("u2")),
        ("my-registry.local", "food", Some("u3")),
        ("other.local", "team/app", Some("u4")),
        ("other.local", "teams/app", None),
        ("local", "foo", None),
    ] {
        let found = person.found(host, repository).map(|found| found.credential);
        assert_eq!(
            found,
            user.map(|user| basic(user, "p")),
            "{host}/{repository}"
        );
    }
}

#[test]
fn a_host_is_known_by_its_old_names_too() {
    for (key, host) in [
        ("https://index.docker.io/v1/", "docker.io"),
        ("https://index.docker.io/v1/", "registry-1.docker.io"),
        ("index.docker.io", "docker.io"),
        ("docker.io", "registry-1.docker.io"),
        ("https://registry-1.docker.io/v2/", "docker.io"),
        ("https://registry.example.com", "registry.example.com"),
        (
            "http://registry.example.com:5000/v1/",
            "registry.example.com:5000",
        ),
    ] {
        let person = Person::new(&[(DOCKER, &auths(&[(key, BOB)]))]);
        let found = person.found(host, "library/alpine");
        let credential = found.expect(key).credential;
        assert_eq!(credential, basic("bob", "hunter2"), "{key} for {host}");
    }
    for (key, host) in [
        ("https://registry.example.com", "registry.example.com:5000"),
        ("registry.example.com/v1/", "registry.example.com"),
        ("example.com", "registry.example.com"),
        ("docker.io", "docker.com"),
        // Docker Desktop's own.
        ("https://index.docker.io/v1/access-token", "docker.io"),
        ("https://index.docker.io/v1/refresh-token", "docker.io"),
    ] {
        let person = Person::new(&[(DOCKER, &auths(&[(key, BOB)]))]);
        assert_eq!(
            person.found(host, "library/alpine"),
            None,
            "{key} for {host}"
        );
    }
    // The name itself is meant before another way to write it.
    let both = [("https://h", "dTE6cA=="), ("h", "dTI6cA==")];
    let person = Person::new(&[(DOCKER, &auths(&both))]);
    assert_eq!(
        person.found("h", "a").expect("found").credential,
        basic("u2", "p")
    );
}

#[test]
fn files_are_read_in_podmans_order() {
    let of = |user: &str| auths(&[("h", user)]);
    let (u1, u2, u3) = (of("dTE6cA=="), of("dTI6cA=="), of("dTM6cA=="));
    let person = Person::new(&[(RUNTIME, &u1), (CONFIG, &u2), (DOCKER, &u3)]);
    for (gone, user, source) in [
        (None, "u1", person.path(RUNTIME).display().to_string()),
        (
            Some(RUNTIME),
            "u2",
            "~/.config/containers/auth.json".to_owned(),
        ),
        (Some(CONFIG), "u3", "~/.docker/config.json".to_owned()),
    ] {
        if let Some(gone) = gone {
            fs::remove_file(person.path(gone)).expect(gone);
        }
        let found = person.found("h", "a").expect(user);
        assert_eq!((found.credential, found.source), (basic(user, "p"), source));
    }
    fs::remove_file(person.path(DOCKER)).expect("remove");
    assert_eq!(person.found("h", "a"), None);
    // A mistake in a file that comes later is no matter before it is needed.
    person.put(RUNTIME, &u1);
    person.put(DOCKER, "{");
    assert!(person.found("h", "a").is_some());
    assert!(person.wrong("other").contains("~/.docker/config.json"));
}

#[test]
fn a_file_that_is_named_is_the_only_one() {
    let of = |user: &str| auths(&[("h", user)]);
    let person = Person::new(&[(DOCKER, &of("dTE6cA==")), ("named.json", &of("dTI6cA=="))]);
    let named = person.path("named.json");
    let with = |name: &'static str, value: &PathBuf| {
        let pair = (name, value.display().to_string());
        let env: Env = person.env().into_iter().chain([pair]).collect();
        Sources::new("h", "a", &env, 0)
    };
    let user = |sources: &Sources| sources.find("h").expect("h").expect("found").credential;
    assert_eq!(user(&with("REGISTRY_AUTH_FILE", &named)), basic("u2", "p"));
    assert_eq!(
        user(&person.sources("h", "a").authfile(&named)),
        basic("u2", "p")
    );
    let (absent, other) = (person.path("absent.json"), person.path("other"));
    let both = with("REGISTRY_AUTH_FILE", &absent).authfile(&named);
    assert_eq!(user(&both), basic("u2", "p"));
    let absent = with("REGISTRY_AUTH_FILE", &absent);
    let wrong = absent.find("h").expect_err("absent");
    assert!(wrong.contains("absent.json: No such file"), "{wrong}");
    // `DOCKER_CONFIG` and `XDG_CONFIG_HOME` are directories.
    person.put("other/config.json", &of("dTM6cA=="));
    assert_eq!(user(&with("DOCKER_CONFIG", &other)), basic("u3", "p"));
    person.put("other/containers/auth.json", &of("dTQ6cA=="));
    assert_eq!(user(&with("XDG_CONFIG_HOME", &other)), basic("u4", "p"));
}

#[test]
fn places_depend_on_the_environment() {
    let looked = |pairs: &[(&str, &str)], uid| {
        let env: Env = pairs.iter().copied().collect();
        Sources::new("h", "a", &env, uid).looked_in("h")
    };
    assert_eq!(looked(&[], 1000), ["/run/containers/1000/auth.json"]);
    let home = ("HOME", "/home/alice");
    let expected = [
        "/run/user/1000/containers/auth.json",
        "~/.config/containers/auth.json",
        "~/.docker/config.json",
    ];
    assert_eq!(
        looked(&[home, ("XDG_RUNTIME_DIR", "/run/user/1000")], 0),
        expected
    );
    assert_eq!(
        looked(&[home, ("REGISTRY_AUTH_FILE", "/a.json")], 0),
        ["/a.json"]
    );
    assert!(Anonymous.looked_in("h").is_empty());
}

#[test]
fn mistakes_are_told_without_what_is_secret() {
    for (text, reason) in [
        (
            "{\n  \"auths\": \"s3cret\"}".to_owned(),
            "has not the shape of a credentials file (line 2",
        ),
        (
            "{\"auths\": {\"h\": \"s3cret\"}}".to_owned(),
            "has not the shape",
        ),
        (
            "{\"auths\": {\"h\": {\"auth\": [\"s3cret\"]}}}".to_owned(),
            "has not the shape",
        ),
        ("s3cret".to_owned(), "it is not JSON (line 1"),
        (
            auths(&[("h", "s3cret!")]),
            "h has an auth that is not base64 (line 3)",
        ),
        (
            auths(&[("h", NO_COLON)]),
            "h has an auth without a user and a colon (line 3)",
        ),
        (
            auths(&[("h", NOBODY)]),
            "h has an auth without a user and a colon (line 3)",
        ),
        (
            auths(&[("h", "//79Og==")]),
            "h has an auth that is not text (line 3)",
        ),
    ] {
        let wrong = Person::new(&[(DOCKER, &text)]).wrong("h");
        assert!(wrong.contains(reason), "{text}: {wrong}");
        assert!(
            wrong.starts_with("cannot read ~/.docker/config.json: "),
            "{wrong}"
        );
        assert!(
            !wrong.contains("s3cret") && !wrong.contains("no-colon"),
            "{wrong}"
        );
    }
    // Another host's is no matter.
    let person = Person::new(&[(DOCKER, &auths(&[("h", NO_COLON), ("i", BOB)]))]);
    assert!(person.found("i", "a").is_some());
}

#[test]
fn no_secret_is_shown() {
    for (credential, shown) in [
        (basic("alice", "s3cret"), "user alice"),
        (Credential::Identity("s3cret".to_owned()), "identity token"),
        (Credential::Bearer("s3cret".to_owned()), "token"),
    ] {
        let source = "-u".to_owned();
        assert_eq!(format!("{credential:?}"), shown);
        assert!(!format!("{:?}", Found { credential, source }).contains("s3cret"));
    }
}

#[test]
fn a_flag_is_for_the_registry_and_not_for_mirrors() {
    let mirror = "[host.\"https://mirror\"]\n";
    let stands_in = "server = \"https://inner\"\n[host.\"https://mirror\"]\n";
    let dirs = Person::new(&[
        ("docker.io/hosts.toml", mirror),
        ("h/hosts.toml", stands_in),
        (DOCKER, &auths(&[("mirror", BOB), ("inner", BOB)])),
    ]);
    let options = hosts::Options {
        dirs: vec![dirs.0.path().to_owned()],
        ..hosts::Options::default()
    };
    let asked = |registry: &str| {
        let endpoints = hosts::endpoints(registry, &options).expect(registry);
        let sources = dirs.sources(registry, "a");
        let sources = sources.given(
            basic("alice", "x"),
            "-u",
            endpoints.last().map(|last| &*last.authority),
        );
        let all = endpoints.iter().map(|e| {
            let found = sources.find(&e.authority).expect("find").expect("found");
            format!("{:?}, {}", found.credential, found.source)
        });
        all.collect::<Vec<_>>()
    };
    let expected = ["user bob, ~/.docker/config.json", "user alice, -u"];
    assert_eq!(asked("docker.io"), expected);
    assert_eq!(asked("h"), expected);
}
