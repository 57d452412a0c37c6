//! Helpers, as they answer and as they do not.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::*;

/// Whoever writes a program and runs it does so alone. A file that is still open for writing cannot be
/// run, and each program that another thread starts has it open for a moment.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Person {
    /// A helper that is this script.
    fn helper(&self, name: &str, script: &str) {
        let path = self.put(&format!("bin/docker-credential-{name}"), script);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect(name);
    }
}

/// Answers for the server that it is told, as the protocol has it.
const ECHO: &str = "#!/bin/sh\n[ \"$1\" = get ] || exit 9\nread -r server\n\
    printf '{\"ServerURL\":\"%s\",\"Username\":\"u\",\"Secret\":\"for %s\"}' \"$server\" \"$server\"\n";
const NONE: &str = "#!/bin/sh\necho 'credentials not found in native keychain'\nexit 1\n";

#[test]
fn helpers_are_asked_for_the_name_that_they_know() {
    let _alone = alone();
    let person = Person::new(&[]);
    person.helper("echo", ECHO);
    for (text, host, server) in [
        (r#"{"credHelpers": {"h:5000": "echo"}}"#, "h:5000", "h:5000"),
        (
            r#"{"credHelpers": {"docker.io": "echo"}}"#,
            "registry-1.docker.io",
            "docker.io",
        ),
        (
            r#"{"credHelpers": {"https://h/v1/": "echo"}}"#,
            "h",
            "https://h/v1/",
        ),
        (r#"{"credsStore": "echo"}"#, "h", "h"),
        (
            r#"{"credsStore": "echo"}"#,
            "docker.io",
            "https://index.docker.io/v1/",
        ),
        (
            r#"{"credsStore": "none", "credHelpers": {"h": "echo"}}"#,
            "h",
            "h",
        ),
    ] {
        person.put(DOCKER, text);
        let found = person.found(host, "a").expect(text);
        let expected = basic("u", &format!("for {server}"));
        assert_eq!(found.credential, expected, "{text}");
        assert_eq!(
            found.source,
            "docker-credential-echo (~/.docker/config.json)"
        );
    }
    // No namespace is asked for, and no other host.
    person.put(
        DOCKER,
        r#"{"credHelpers": {"h/team": "echo", "i": "echo"}}"#,
    );
    assert_eq!(person.found("h", "team/a"), None);
}

#[test]
fn what_a_helper_has_not_may_be_in_the_file() {
    let _alone = alone();
    let entry = format!("\"auths\": {{\"h\": {{\"auth\": \"{BOB}\"}}}}");
    let bob = Some(basic("bob", "hunter2"));
    let person = Person::new(&[]);
    person.helper("none", NONE);
    person.helper("echo", ECHO);
    for (text, expected) in [
        (
            format!("{{\"credsStore\": \"none\", {entry}}}"),
            bob.clone(),
        ),
        (
            format!("{{\"credsStore\": \"echo\", {entry}}}"),
            Some(basic("u", "for h")),
        ),
        // An empty helper says that the store is not for this host.
        (
            format!("{{\"credsStore\": \"echo\", \"credHelpers\": {{\"h\": \"\"}}, {entry}}}"),
            bob,
        ),
        // Beside a helper of its own, a host's entry is not used (containers-auth.json(5)).
        (
            format!("{{\"credHelpers\": {{\"h\": \"none\"}}, {entry}}}"),
            None,
        ),
    ] {
        person.put(DOCKER, &text);
        let found = person.found("h", "a").map(|found| found.credential);
        assert_eq!(found, expected, "{text}");
    }
    // Nor is a later file kept from being asked.
    person.put(RUNTIME, r#"{"credHelpers": {"h": "none"}}"#);
    person.put(DOCKER, &format!("{{{entry}}}"));
    assert!(person.found("h", "a").is_some());
    let runtime = person.path(RUNTIME).display().to_string();
    let looked = person.sources("h", "a").looked_in("h");
    assert_eq!(looked[0], format!("{runtime} (docker-credential-none)"));
}

#[test]
fn helpers_answers_of_all_kinds() {
    let _alone = alone();
    let person = Person::new(&[(DOCKER, r#"{"credsStore": "x"}"#)]);
    let says = |text: &str, status: u8| {
        let script = format!("#!/bin/sh\ncat >/dev/null\nprintf '%s' '{text}'\nexit {status}\n");
        person.helper("x", &script);
        let sources = person.sources("h", "a");
        sources
            .find("h")
            .map(|found| found.map(|found| found.credential))
    };
    let identity = Some(Credential::Identity("s3cret".to_owned()));
    let token = r#"{"Username": "<token>", "Secret": "s3cret"}"#;
    assert_eq!(says(token, 0), Ok(identity.clone()));
    assert_eq!(
        says(r#"{"Username": "", "Secret": "s3cret"}"#, 0),
        Ok(identity)
    );
    assert_eq!(says(r#"{"Username": "u", "Secret": ""}"#, 0), Ok(None));
    assert_eq!(
        says("credentials not found in native keychain", 1),
        Ok(None)
    );
    for (text, status, reason) in [
        (
            "no credentials server URL",
            1,
            "failed: no credentials server URL",
        ),
        ("\n\nlocked\nmore", 1, "failed: locked"),
        ("", 3, "failed: exit status: 3"),
        // What looks like an answer may be one.
        (token, 1, "failed: exit status: 1"),
        ("s3cret", 0, "gave an answer that is none"),
        ("", 0, "gave an answer that is none"),
    ] {
        let wrong = says(text, status).expect_err(text);
        let start = "docker-credential-x, which ~/.docker/config.json names, ";
        assert_eq!(wrong, format!("{start}{reason}"));
    }
}

#[test]
fn helpers_that_do_not_answer() {
    let _alone = alone();
    let person = Person::new(&[(DOCKER, r#"{"credsStore": "x"}"#)]);
    assert!(person.wrong("h").ends_with("names, is not installed"));
    // It is not waited for, whether its output is open or not.
    for script in [
        "#!/bin/sh\nexec sleep 1000\n",
        "#!/bin/sh\nexec sleep 1000 >&- 2>&-\n",
    ] {
        person.helper("x", script);
        let mut sources = person.sources("h", "a");
        sources.helper_limit = Duration::from_millis(50);
        let wrong = sources.find("h").expect_err("no answer");
        assert!(
            wrong.ends_with("names, gave no answer within 50ms"),
            "{wrong}"
        );
    }
    // More than a pipe holds, on both, and nothing read of what it is told.
    let script = "#!/bin/sh\nhead -c 200000 /dev/zero >&2\nhead -c 200000 /dev/zero\nexit 1\n";
    person.helper("x", script);
    assert!(person.wrong("h").contains("failed: "));
    person.put(DOCKER, r#"{"credsStore": "../x"}"#);
    assert!(
        person
            .wrong("h")
            .ends_with("names, is no name of a program")
    );
}

#[test]
fn explaining_names_helpers_and_runs_none() {
    let _alone = alone();
    let person = Person::new(&[]);
    let ran = person.path("ran");
    person.helper("x", &format!("#!/bin/sh\ntouch '{}'\n", ran.display()));
    let explained = |text: &str, host: &str| {
        person.put(DOCKER, text);
        person.sources(host, "a").explain(host)
    };
    let one = auths(&[("i", BOB), ("h", ALICE)]);
    assert_eq!(
        explained(&one, "h"),
        Ok("user alice (~/.docker/config.json:4)".to_owned())
    );
    assert_eq!(explained(&one, "j"), Ok("none".to_owned()));
    let helper = "{\n\"auths\": {\"h\": {}},\n\"credHelpers\": {\n\"h\": \"x\"}}";
    let expected = "docker-credential-x (~/.docker/config.json:4)";
    assert_eq!(explained(helper, "h"), Ok(expected.to_owned()));
    let both = format!("{{\"auths\": {{\"h\": {{\"auth\": \"{BOB}\"}}}},\n\"credsStore\": \"x\"}}");
    let expected =
        "docker-credential-x (~/.docker/config.json:2), else user bob (~/.docker/config.json:1)";
    assert_eq!(explained(&both, "h"), Ok(expected.to_owned()));
    assert!(!ran.exists());
    // It would be seen to run.
    assert!(person.wrong("k").ends_with("gave an answer that is none"));
    assert!(ran.exists());
}
