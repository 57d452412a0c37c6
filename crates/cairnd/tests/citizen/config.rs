//! Sources of the configuration, and what is said about bad ones.

use std::fs;

use crate::daemon::{Place, binary, run};

#[test]
fn the_default_is_good_and_whole() {
    let place = Place::new();
    let (status, text, _) = run(binary().args(["config", "default"]));
    assert!(status.success());
    fs::write(place.path("c.toml"), &text).unwrap();
    let mut check = binary();
    let (status, _, stderr) = run(check
        .args(["config", "check", "--config"])
        .arg(place.path("c.toml")));
    assert!(status.success(), "{stderr}");
}

#[test]
fn every_source_in_its_turn() {
    let place =
        Place::with("state = \"/file\"\n[gc]\nschedule_delay = \"1s\"\nstartup_delay = \"1s\"\n");
    fs::create_dir(place.path("conf.d")).unwrap();
    let beside = |name: &str, text: &str| fs::write(place.path("conf.d").join(name), text).unwrap();
    beside("20.toml", "[gc]\nschedule_delay = \"3s\"\n");
    beside(
        "10.toml",
        "[gc]\nschedule_delay = \"2s\"\n[grpc]\nmode = 0o660\n",
    );
    beside("30.off", "nonsense");
    let mut command = binary();
    command.args(["--log-level", "debug", "config", "dump", "--config"]);
    command.arg(place.path("config.toml"));
    command
        .env("CAIRN_GC__STARTUP_DELAY", "9s")
        .env("CAIRN_LOG__LEVEL", "warn");
    let (status, text, stderr) = run(&mut command);
    assert!(status.success(), "{stderr}");
    let dir = place.0.path().display();
    for (line, source) in [
        ("state = \"/file\"", format!("{dir}/config.toml:1:1")),
        (
            "schedule_delay = \"3s\"",
            format!("{dir}/conf.d/20.toml:2:1"),
        ),
        ("mode = 0o660", format!("{dir}/conf.d/10.toml:4:1")),
        (
            "startup_delay = \"9s\"",
            "CAIRN_GC__STARTUP_DELAY".to_owned(),
        ),
        ("level = \"debug\"", "--log-level".to_owned()),
        ("engine = \"redb\"", "default".to_owned()),
    ] {
        let found = text.lines().find(|found| found.starts_with(line));
        let found = found.unwrap_or_else(|| panic!("no {line:?} in\n{text}"));
        assert!(found.ends_with(&format!("# {source}")), "{found}");
    }
}

#[test]
fn a_bad_key_is_named_with_its_place() {
    let place = Place::with("# ours\n[grpc]\nadress = \"/x\"\n");
    let (status, stdout, stderr) = run(&mut place.command());
    assert_eq!(status.code(), Some(1));
    assert_eq!(stdout, "");
    let file = place.path("config.toml").display().to_string();
    let expected = format!(
        "error: cannot read {file}: unknown key \"grpc.adress\"\n  where: {file}:3:1\n  \
         next:  did you mean address? all keys: cairnd config default\n"
    );
    assert_eq!(stderr, expected);
    assert!(!place.path("root").exists());
}

#[test]
fn other_complaints() {
    for (text, variable, reason) in [
        (
            "[metrics]\naddress = \"0.0.0.0:1\"",
            None,
            "0.0.0.0:1 is not a loopback address",
        ),
        (
            "[log]\nlevel = 1",
            None,
            "log.level wants a string, not integer",
        ),
        (
            "",
            Some("CAIRN_GC__MUTATION_TRESHOLD"),
            "did you mean CAIRN_GC__MUTATION_THRESHOLD?",
        ),
        (
            "",
            Some("CAIRN_GC__MUTATION_THRESHOLD"),
            "gc.mutation_threshold wants an integer, not \"x\"",
        ),
        (
            "[registry]\nlimit_rate = \"fast\"",
            None,
            "registry.limit_rate: \"fast\" is no size: write 50M (10^6) or 50MiB (2^20)",
        ),
        // What does nothing yet is not taken silently.
        (
            "[registry.mirrors]\nretries = 5",
            None,
            "unknown table \"registry.mirrors\"",
        ),
        (
            "[snapshotter.overlay]\nupperdir_label = true",
            None,
            "unknown table \"snapshotter.overlay\"",
        ),
        (
            "[snapshotter.overlayfs]\nupperdir_labels = true",
            None,
            "unknown key \"snapshotter.overlayfs.upperdir_labels\"",
        ),
        (
            "[snapshotter]\noverlayfs = true",
            None,
            "unknown key \"snapshotter.overlayfs\"",
        ),
        // Nor what another build would do.
        #[cfg(not(feature = "otel"))]
        (
            "[tracing]\nendpoint = \"\"",
            None,
            "unknown table \"tracing\"",
        ),
    ] {
        let place = Place::with(text);
        let mut command = place.command();
        command.args(["config", "check"]);
        if let Some(variable) = variable {
            command.env(variable, "x");
        }
        let (status, _, stderr) = run(&mut command);
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(stderr.contains(reason), "{stderr}");
    }
}

#[test]
fn a_named_file_has_to_be_there() {
    let (status, _, stderr) = run(binary().args(["--config", "/nowhere/c.toml"]));
    assert_eq!(status.code(), Some(1));
    assert!(
        stderr.starts_with("error: cannot read /nowhere/c.toml: No such file"),
        "{stderr}"
    );
}

#[test]
fn pages_and_completions() {
    for (arguments, part) in [
        (["man", "cairnd"], ".TH cairnd 8"),
        (["man", "cairnd"], ".SH SIGNALS"),
        (["man", "cairn-config.toml"], ".SH [gc]"),
        (["man", "cairn-hosts.toml"], ".SH KEYS"),
        (["completion", "bash"], "complete -F _cairnd"),
        (["completion", "zsh"], "#compdef cairnd"),
        (["completion", "fish"], "complete -c cairnd"),
    ] {
        let (status, stdout, stderr) = run(binary().args(arguments));
        assert!(status.success(), "{stderr}");
        assert!(
            stdout.contains(part),
            "{arguments:?}: {part:?} is not in\n{stdout}"
        );
    }
}
