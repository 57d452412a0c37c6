//! Which command lines are taken, and what the others are told.

use super::*;
use clap::CommandFactory;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split(' '))
}

#[test]
fn the_grammar_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_namespace_that_is_typed_is_known_from_one_that_is_meant() {
    for (line, typed) in [
        ("cairn fsck", false),
        ("cairn fsck -n default", true),
        ("cairn --namespace dev fsck --deep", true),
        ("cairn images ls", false),
        ("cairn images ls -n dev", true),
    ] {
        let cli = Cli::read(line.split(' ')).expect(line);
        assert_eq!(cli.global.namespace_typed, typed, "{line}");
    }
}

#[test]
fn aliases_and_global_flags_after_the_verb() {
    for line in [
        "cairn images ls -n x --json",
        "cairn -n x images",
        "cairn i list -f busybox",
        "cairn image rm a b -f",
        "cairn images del a",
        "cairn load",
        "cairn load -i file.tar",
        "cairn save -o out.tar a b",
        "cairn images export out.tar a b",
        "cairn rmi a",
        "cairn inspect a",
        "cairn tag a b",
        "cairn mount a /mnt",
        "cairn umount /mnt",
        "cairn prune",
        "cairn system df",
        "cairn images i a --format json",
        "cairn images ls --sort size:desc",
        "cairn pull -ku alice:x --platform linux/arm64 --no-unpack a",
        "cairn i pull --creds alice --password-stdin --tls-verify=false a",
        "cairn images pull --unpack=false --local --sync-fs --skip-metadata --print-chainid a",
        "cairn pull --refresh x --insecure --hosts-dir d --hosts-dir e --authfile f a",
        "cairn pull --tlscacert a --tlscert b --tlskey c --limit-rate 50M --pull-policy missing a",
        "cairn pull --label a=b --max-concurrent-downloads 3 --snapshotter overlayfs a",
        "cairn push a b --all-platforms --allow-non-distributable-blobs",
        "cairn push a --max-concurrent-uploaded-layers 3 -u alice",
        "cairn pull --http-trace a",
        "cairn push --http-dump --http-trace a",
        "cairn bundle create --http-dump a /d",
        "cairn explain-host a -u alice --plain-http",
        "cairn bundle create a /d --pull always --user 0 --creds alice -k",
        "cairn bundle create a /d --refresh x",
        "cairn run -it --rm busybox sh -c ls",
        "cairn ps",
        "cairn content",
        "cairn content cat 791d2af -o f --range 0-99",
        "cairn content inspect 791d2af",
        "cairn content del 791d2af5d3b2 cfcf8b70af1f",
        "cairn snapshot tree",
        "cairn snapshots list --wide kind==active",
        "cairn snapshots i a",
        "cairn snapshots delete a --recursive",
        "cairn bundle create a /d -e A=B -t --cmd echo -n hi",
        "cairn bundle remove /d /e",
        "cairn logout example.com",
        "cairn images label a b=c d- e=",
        "cairn i label -r a",
        "cairn content put",
        "cairn content put - --ref a --lease b --expected-size 5 --label c=d",
        "cairn content ingest key --expected-size 0",
        "cairn content active ^a",
        "cairn content edit 791d2af",
        "cairn images convert --oci a b",
        "cairn snapshot prepare a b -t /mnt",
        "cairn snapshots view a --mounts",
        "cairn snapshots mount /mnt a",
        "cairn snapshots m /mnt a",
        "cairn snapshots --snapshotter overlayfs ls",
        "cairn snapshots diff a b --keep --ref r",
        "cairn lease",
        "cairn leases create a=b -x 0",
        "cairn leases delete a b --sync",
        "cairn leases add a snapshots/overlayfs b",
        "cairn ns c a b=c",
        "cairn namespace remove a b",
        "cairn event topic==\"/images/create\"",
        "cairn plugin -d",
        "cairn plugins ls -d",
        "cairn man images ls",
        "cairn man --dir d",
    ] {
        let parsed = parse(line);
        assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("refused"));
    }
    let cli = parse("cairn images ls -n k8s.io -vv").expect("line");
    assert_eq!(cli.global.namespace.as_str(), "k8s.io");
    assert_eq!(cli.global.verbosity(), 2);
}

#[test]
fn wrong_usage_says_what_to_type() {
    for (line, says) in [
        ("cairn vesion", "a similar subcommand exists: 'version'"),
        ("cairn images ls --format {{.ID}}", "--json | jq"),
        ("cairn images ls --sort colour", "name, size or added"),
        ("cairn images tag a", "<DST>"),
        ("cairn images ls -n a..b", "invalid namespace"),
        ("cairn images import f --platform amd64", "OS/ARCH"),
        ("cairn images import f --label x", "KEY=VALUE"),
        ("cairn images check --wide", "--wide"),
        ("cairn content get 791d2af --range 5-4", "A not after B"),
        ("cairn content rm", "<DIGEST>"),
        ("cairn df --timeout soon", "500ms"),
        ("cairn images label a", "<K=V>"),
        ("cairn images label a b", "KEY- removes one"),
        ("cairn content put --expected-digest x", "algorithm:hex"),
        (
            "cairn snapshots ls --snapshotter native",
            "possible values: overlayfs",
        ),
        (
            "cairn snapshots prepare a --mounts -t b",
            "cannot be used with",
        ),
        (
            "cairn leases add a blobs b",
            "content, images, ingests or snapshots",
        ),
        ("cairn leases create -x soon", "500ms"),
        ("cairn namespaces create a..b", "invalid namespace"),
        ("cairn man ls --dir d", "cannot be used with"),
        ("cairn pull --password-stdin a", "--user <USER[:PASS]>"),
        ("cairn pull -u alice --refresh x a", "cannot be used with"),
        (
            "cairn bundle create --creds alice --refresh x a /d",
            "cannot be used with",
        ),
        ("cairn pull --limit-rate fast a", "write 50M (10^6)"),
        ("cairn pull --tlskey k a", "--tlscert <FILE>"),
        ("cairn pull --pull-policy never a", "always, missing"),
        ("cairn push --manifest x a", "algorithm:hex"),
        ("cairn bundle create -u 1 a b", "unexpected argument '-u'"),
        (
            "cairn bundle create --pull often a b",
            "missing, never, always",
        ),
    ] {
        let err = parse(line).expect_err(line);
        assert_eq!(err.exit_code(), 2, "{line}");
        assert!(err.to_string().contains(says), "{line}: {err}");
    }
}

#[test]
fn which_store_is_meant() {
    let check = |line: &str, variables: &[(&str, &str)], place: Place| {
        let cli = parse(line).expect(line);
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| value.into())
        };
        assert_eq!(
            cli.global.place_with(variable),
            place,
            "{line} {variables:?}"
        );
    };
    let daemon = |path: &str| Place::Daemon(path.into());
    let store = |path: &str| Place::Store(path.into());
    let (address, root) = (("CAIRN_ADDRESS", "/a"), ("CAIRN_ROOT", "/r"));
    check("cairn df", &[], Place::Usual);
    check("cairn df", &[("CAIRN_ROOT", "")], Place::Usual);
    check("cairn df", &[("CONTAINERD_ADDRESS", "/c")], Place::Usual);
    check("cairn df", &[root], store("/r"));
    check("cairn df", &[address, root], daemon("/a"));
    check("cairn df --root x", &[address], store("x"));
    check("cairn df -a x", &[root], daemon("x"));
    check(
        "cairn --root /var/lib/cairn df",
        &[],
        store("/var/lib/cairn"),
    );
}

#[test]
fn podmans_platform_flags_print_ours() {
    let line = "cairn images import f --arch arm64 --variant v8";
    let Command::Images(ImagesArgs {
        verb: Some(ImagesVerb::Import(import)),
    }) = parse(line).expect(line).command
    else {
        panic!("not an import");
    };
    let problem = import.platforms.checked().expect_err("refused");
    assert_eq!(problem.exit_code(), 2);
    assert_eq!(problem.next, ["--platform linux/arm64/v8"]);
}

#[test]
fn help_fits_one_screen_and_opens_with_examples() {
    let mut top = Cli::command();
    top.build();
    let help = top.clone().render_help().to_string();
    for hidden in ["rmi", "umount", "login", "prune"] {
        assert!(!help.contains(hidden), "{hidden} is in the help");
    }
    check_help(&mut top, "cairn");
}

fn check_help(command: &mut clap::Command, path: &str) {
    let help = command.render_help().to_string();
    assert!(help.starts_with("Examples:\n  cairn "), "{path}: {help}");
    let lines = help.lines().count();
    assert!(lines <= 46, "{path}: {lines} lines");
    let examples: Vec<&str> = help.lines().skip(1).take(2).map(str::trim).collect();
    for example in &examples {
        // What a shell or a reader takes is not the grammar's.
        let ends = ["  ", " | ", " > ", " < ", " && ", "$("];
        let end = ends.iter().filter_map(|end| example.find(end)).min();
        let line = &example[..end.unwrap_or(example.len())];
        // `… $(cairn content ls -q)` stands for its output.
        let line = match example.contains("$(") {
            true => format!("{line}x"),
            false => line.to_owned(),
        };
        if line.contains('\'') {
            continue; // Quoting is the shell's.
        }
        let parsed = parse(&line);
        assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("refused"));
        assert!(example.chars().count() <= 98, "too long: {example}");
    }
    for verb in command.get_subcommands_mut() {
        // What is absent answers with a problem; docker's `system` has no words of its own.
        let absent = [
            "run", "ps", "build", "login", "search", "system", "convert", "edit", "complete",
        ];
        let name = verb.get_name().to_owned();
        if !absent.contains(&&*name) {
            check_help(verb, &format!("{path} {name}"));
        }
    }
}
