//! `cairnd` under Debian's stock `ctr`, beside containerd under the same: the same commands print
//! the same, and the same image is the same tree.

#![allow(missing_docs)]

use std::{fs, path::Path, process::Stdio, time::Duration};

use cairn_integration::{
    both::{Both, NAME, archive, first, layers, text, words},
    daemon::Daemon,
    image::digest,
    peers,
    tree::Tree,
};

#[test]
fn images() {
    let both = Both::start();
    let import = both.import();
    let listed = both.same(&["images", "ls"]);
    assert_eq!(listed.len(), 2, "{listed:?}");
    let checked = both.same(&["images", "check"]);
    assert!(checked[1].contains("complete (4/4)"), "{checked:?}");
    assert!(checked[1].ends_with("true"), "unpacked: {checked:?}");
    both.same(&["images", "label", NAME, "color=red"]);
    both.same(&["images", "label", NAME, "color="]);
    both.same(&["images", "label", NAME, "color=red"]);
    both.same(&["images", "tag", NAME, "localhost/t:two"]);
    both.fails(
        &["images", "tag", NAME, "localhost/t:two"],
        "already exists",
    );
    both.fails(&["images", "tag", "missing", "x"], "not found");
    assert_eq!(both.same(&["images", "ls"]).len(), 3);
    assert_eq!(both.same(&["images", "ls", "name~=two"]).len(), 2);
    assert_eq!(
        both.same(&["images", "ls", "-q", "labels.color==red"])
            .len(),
        2
    );
    // Twice is once.
    let again = [
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(&import),
    ];
    both.ours.ok(&again);
    both.theirs.ok(&again);
    both.same(&["images", "ls"]);
    both.same(&["images", "rm", NAME]);
    both.same(&["images", "rm", "--sync", "localhost/t:two"]);
    assert_eq!(both.same(&["images", "ls", "-q"]), Vec::<String>::new());
    // Nothing holds them any more.
    both.same(&["content", "ls", "-q"]);
    both.same(&["snapshots", "ls"]);
}

#[test]
fn content() {
    let both = Both::start();
    both.import();
    // Without their ages.
    let listed = both.same_but(&["content", "ls"], first(2));
    assert_eq!(listed.len(), 6, "{listed:?}");
    let names = both.same(&["content", "ls", "-q"]);
    for name in &names {
        both.same(&["content", "get", name]);
    }
    // Labels that tie the image together.
    both.same_but(&["content", "ls"], |line| {
        let mut labels: Vec<&str> = line
            .split_whitespace()
            .last()
            .unwrap_or("")
            .split(',')
            .collect();
        labels.sort_unstable();
        labels.join(",")
    });
}

#[test]
fn ingests() {
    let both = Both::start();
    // Nothing holds what is ingested. Both collect once when they have started, and then not before
    // something changes; the first change makes it a root.
    std::thread::sleep(Duration::from_secs(1));
    let file = both.work.path().join("blob");
    fs::write(&file, "some text").expect("write");
    let expected = digest(b"some text");
    for socket in ["ours", "theirs"] {
        let mut command = match socket {
            "ours" => {
                both.ours
                    .command(&["content", "ingest", "--expected-digest", &expected, "r"])
            }
            _ => both
                .theirs
                .command(&["content", "ingest", "--expected-digest", &expected, "r"]),
        };
        let input = fs::File::open(&file).expect("open");
        let status = command.stdin(input).status().expect("ctr");
        assert!(status.success(), "{socket}");
    }
    both.same(&["content", "label", &expected, "containerd.io/gc.root=x"]);
    let filter = "labels.\"containerd.io/gc.root\"==x";
    let found = both.same(&["content", "ls", "-q", filter]);
    assert_eq!(found, [&*expected]);
    assert_eq!(both.same(&["content", "get", &expected]), ["some text"]);
    both.same(&["content", "active"]);
    both.same(&["content", "rm", &expected]);
    both.fails(&["content", "get", &expected], "not found");
    both.fails(&["content", "get", "nonsense"], "invalid");
}

#[test]
fn snapshots() {
    let both = Both::start();
    both.import();
    assert_eq!(both.same(&["snapshots", "ls"]).len(), 4);
    let tree = both.same(&["snapshots", "tree"]);
    let top = tree
        .last()
        .expect("the top")
        .trim_start_matches("\\_")
        .trim();
    let top = top.to_owned();
    both.same(&["snapshots", "usage"]);
    both.same(&["snapshots", "prepare", "k", &top]);
    both.fails(&["snapshots", "prepare", "k", &top], "already exists");
    both.fails(&["snapshots", "prepare", "l", "k"], "");
    both.fails(&["snapshots", "rm", &top], "child");
    both.same(&["snapshots", "usage", "k"]);
    both.same(&["snapshots", "commit", "done", "k"]);
    // It prints labels in no order.
    both.same_but(&["snapshots", "label", "done", "a=b"], |_| String::new());
    both.same_but(&["snapshots", "info", "done"], |line| {
        // Times are their own.
        let timed = ["\"Created\"", "\"Updated\"", "gc.root"];
        match timed.iter().any(|word| line.contains(word)) {
            true => String::new(),
            false => words(line),
        }
    });
    both.same(&["snapshots", "tree"]);
    both.same(&["snapshots", "rm", "done"]);
    both.fails(&["snapshots", "info", "done"], "not found");
    both.same(&["snapshots", "ls"]);
}

#[test]
fn namespaces_and_leases() {
    let both = Both::start();
    both.same(&["namespaces", "ls"]);
    both.same(&["namespaces", "create", "n", "a=b"]);
    both.same(&["namespaces", "label", "n", "a=", "c=d"]);
    both.same(&["namespaces", "ls"]);
    both.fails(&["namespaces", "create", "n"], "already exists");
    both.fails(&["namespaces", "create", "-"], "invalid");
    both.same(&["-n", "n", "leases", "create", "--id", "l", "x=y"]);
    both.fails(
        &["-n", "n", "leases", "create", "--id", "l"],
        "already exists",
    );
    // Without the time it was made.
    both.same_but(&["-n", "n", "leases", "ls"], first(1));
    both.same(&["-n", "n", "leases", "rm", "--sync", "l"]);
    both.fails(&["-n", "n", "leases", "rm", "l"], "not found");
    both.same(&["-n", "n", "leases", "ls"]);
    both.import();
    both.fails(&["namespaces", "rm", "default"], "failed precondition");
    both.same(&["namespaces", "rm", "n"]);
    assert_eq!(both.same(&["namespaces", "ls", "-q"]), ["default"]);
    let version = both.ours.ok(&["version"]);
    assert!(version.contains("Server:"), "{version}");
    let plugins = both.ours.ok(&["plugins", "ls"]);
    assert!(plugins.contains("overlayfs"), "{plugins}");
}

#[test]
fn a_mounted_image_is_containerds_tree() {
    let both = Both::start();
    both.import();
    let target = both.ours.path("mnt");
    let other = both.work.path().join("mnt");
    for target in [&target, &other] {
        fs::create_dir(target).expect("target");
    }
    both.ours.ok(&["images", "mount", NAME, text(&target)]);
    both.theirs.ok(&["images", "mount", NAME, text(&other)]);
    let (mut ours, mut theirs) = (Tree::read(&target), Tree::read(&other));
    both.ours.ok(&["images", "unmount", "--rm", text(&target)]);
    both.theirs.ok(&["images", "unmount", "--rm", text(&other)]);
    // The root, which no layer describes, and `d` in the last, which does not list it, have the time
    // at which containerd wrote there.
    for tree in [&mut ours, &mut theirs] {
        tree.retain(|path, node| {
            if ["", "d"].contains(&text(path)) {
                node.mtime = (0, 0);
            }
            true
        });
    }
    ours.assert_equals(&theirs, "cairnd's and containerd's trees");
    assert_eq!(ours.get("suid").expect("suid").mode, 0o4755);
    assert!(ours.get("gone").is_none() && ours.get("fresh/old").is_none());
    assert_eq!(both.ours.mounts(), Vec::<String>::new());
}

#[test]
fn an_export_is_the_image_again() {
    let both = Both::start();
    both.import();
    let listed = both.ours.ok(&["images", "ls"]);
    let expected = listed
        .lines()
        .nth(1)
        .expect("an image")
        .split_whitespace()
        .nth(2)
        .expect("digest")
        .to_owned();
    let out = both.work.path().join("out.tar");
    both.ours.ok(&["images", "export", text(&out), NAME]);
    let image = format!("oci-archive:{}", text(&out));
    let inspected = peers::run("skopeo", &["inspect", "--format", "{{.Digest}}", &image]);
    assert_eq!(inspected.trim(), expected);
    let theirs = both.work.path().join("theirs.tar");
    both.theirs.ok(&["images", "export", text(&theirs), NAME]);
    let bytes = |path: &Path| fs::read(path).expect("archive");
    assert!(bytes(&out) == bytes(&theirs), "byte by byte");
}

/// The topics that `ctr events` prints while `change` goes on, in the order of the alphabet: layers
/// are unpacked in no order of their own.
fn topics(
    mut command: std::process::Command,
    daemon: &Daemon,
    ctr: impl Fn(&[&str]),
) -> Vec<String> {
    let out = daemon.path("events");
    let file = fs::File::create(&out).expect("file");
    let mut events = command
        .stdout(file)
        .stderr(Stdio::null())
        .spawn()
        .expect("ctr events");
    let printed = || fs::read_to_string(&out).expect("events");
    let mut tries = 0;
    daemon.until("a subscription", || {
        tries += 1;
        ctr(&["namespaces", "create", &format!("begin{tries}")]);
        printed().contains("/namespaces/create")
    });
    ctr(&[
        "images",
        "import",
        "--base-name",
        "localhost/t",
        text(&daemon.path("archive.tar")),
    ]);
    ctr(&["images", "rm", "--sync", NAME]);
    ctr(&["namespaces", "create", "end"]);
    daemon.until("the last event", || printed().contains("\"name\":\"end\""));
    events.kill().expect("kill");
    events.wait().expect("wait");
    let mut topics: Vec<String> = printed()
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .filter(|topic| !topic.starts_with("/namespaces/"))
        .map(str::to_owned)
        .collect();
    topics.sort();
    topics
}

#[test]
fn events() {
    let both = Both::start();
    fs::rename(
        archive(both.work.path(), &layers()),
        both.ours.path("archive.tar"),
    )
    .expect("move");
    let ours = topics(both.ours.command(&["events"]), &both.ours, |words| {
        both.ours.ok(words);
    });
    let theirs = topics(both.theirs.command(&["events"]), &both.ours, |words| {
        both.theirs.ok(words);
    });
    let count = |topics: &[String], topic: &str| topics.iter().filter(|t| *t == topic).count();
    for topic in [
        "/images/create",
        "/images/delete",
        "/snapshot/prepare",
        "/snapshot/commit",
    ] {
        assert_eq!(count(&ours, topic), count(&theirs, topic), "{topic}");
        assert!(count(&ours, topic) > 0, "{topic}");
    }
    // 1.6 does not tell of what a collection removes; 2.3 does. This `ctr` prints events of the types
    // that it knows, and those of content are not among them.
    assert_eq!(count(&ours, "/snapshot/remove"), 3);
}
