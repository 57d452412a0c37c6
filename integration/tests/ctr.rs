//! Stock `ctr` in scripts: what it prints of cairnd is what it prints of containerd.

#![allow(missing_docs)]

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use cairn_integration::{
    both::{NAME, first, text, words},
    image::digest,
    peers::{filter, run},
    script::{Script, plain, unaged},
};

#[test]
fn images_go_to_a_registry_and_come_back() {
    let script = Script::start();
    let (one, plain_http) = ("REGISTRY/some/where:one", "--plain-http");
    script.same(&["images", "tag", NAME, one]);
    script.progress(&["images", "push", plain_http, one]);
    script.progress(&["images", "push", plain_http, "REGISTRY/else:two", NAME]);
    script.fails(
        &["images", "push", plain_http, "REGISTRY/none:one"],
        "not found",
    );
    script.same(&["images", "rm", "--sync", NAME, one]);
    script.same_stores("default");
    let shown = script.progress(&["images", "pull", plain_http, one]);
    assert!(shown.contains(&"done".to_owned()), "{shown:?}");
    script.same_stores("default");
    script.same(&["images", "check"]);
    // All is there already.
    script.progress(&["images", "pull", plain_http, "--print-chainid", one]);
    let ns = ["-n", "other"];
    let pull = ["images", "pull", plain_http, "--all-platforms", one];
    script.progress(&[&ns[..], &pull].concat());
    script.same_stores("other");
    script.fails(
        &["images", "pull", plain_http, "REGISTRY/none:one"],
        "not found",
    );
    // Fetched and not unpacked.
    let fetch = [
        "-n",
        "fetched",
        "content",
        "fetch",
        plain_http,
        "REGISTRY/else:two",
    ];
    script.progress(&fetch);
    script.same_stores("fetched");
    script.same(&["-n", "fetched", "images", "check"]);
    let object = script.same(&["content", "fetch-object", plain_http, one]);
    assert!(object.join("").contains("schemaVersion"), "{object:?}");
    let layer = script.same(&["content", "ls", "-q"]);
    let layer = layer.first().expect("a blob");
    let kind = "application/vnd.oci.image.layer.v1.tar";
    script.same(&[
        "content",
        "push-object",
        plain_http,
        "REGISTRY/third:x",
        layer,
        kind,
    ]);
    let manifest = script.target("REGISTRY/some/where:one");
    let refused = [
        "content",
        "push-object",
        plain_http,
        "REGISTRY/third:x",
        &manifest,
    ];
    let kind = ["application/vnd.oci.image.manifest.v1+json"];
    script.fails(&[&refused[..], &kind].concat(), "400");
}

#[test]
fn images_are_converted() {
    let script = Script::start();
    let convert = ["images", "convert", "--oci", "--uncompress"];
    let new = "localhost/t:plain";
    let made = script.same(&[&convert[..], &[NAME, new]].concat());
    assert_eq!(made, [script.target(new)]);
    assert_ne!(script.target(new), script.target(NAME));
    script.same_stores("default");
    script.fails(
        &[&convert[..], &["localhost/t:none", "x"]].concat(),
        "not found",
    );
    script.same(&["images", "rm", NAME]);
    script.same(&["images", "check"]);
    // Both are images to export, together or one by one.
    for more in [&[][..], &["--skip-manifest-json"], &["--all-platforms"]] {
        let [ours, theirs] = ["ours", "theirs"].map(|name| script.both.work.path().join(name));
        let export = |to| [&["images", "export"], more, &[to, new]].concat();
        script.both.ours.ok(&export(text(&ours)));
        script.both.theirs.ok(&export(text(&theirs)));
        let bytes = |path: &Path| fs::read(path).expect("archive");
        assert!(bytes(&ours) == bytes(&theirs), "byte by byte, {more:?}");
    }
}

#[test]
fn images_are_mounted_and_unmounted() {
    let script = Script::start();
    let target = script.both.work.path().join("mnt");
    fs::create_dir(&target).expect("target");
    let target = text(&target);
    // One after the other: it is the same place.
    let [ours, theirs] = [0, 1].map(|who| {
        let ctr = |arguments: &[&str]| match who {
            0 => script.both.ours.ok(arguments),
            _ => script.both.theirs.ok(arguments),
        };
        let mut printed = ctr(&["images", "mount", "--rw", NAME, target]);
        fs::write(Path::new(target).join("new"), "n").expect("write");
        printed += &ctr(&["images", "unmount", target]);
        assert!(!Path::new(target).join("new").exists(), "it is unmounted");
        printed += &ctr(&["snapshots", "info", target]);
        printed += &ctr(&["images", "mount", NAME, &format!("{target}/")]);
        printed += &ctr(&["images", "unmount", "--rm", &format!("{target}/")]);
        printed += &ctr(&["snapshots", "ls"]);
        printed.lines().map(plain).collect::<Vec<_>>()
    });
    assert_eq!(ours, theirs, "cairnd, containerd");
    assert!(ours.len() > 10, "{ours:?}");
}

#[test]
fn content_is_shown_while_it_comes() {
    let script = Script::start();
    // As much as `ctr` reads before it sends, and then some.
    let data = vec![b'x'; (1 << 20) + 10];
    script.hold("content.new", &digest(&data));
    let both = &script.both;
    let mut clients = [
        both.ours.command(&["content", "ingest", "a-ref"]),
        both.theirs.command(&["content", "ingest", "a-ref"]),
    ]
    .map(|mut ctr| ctr.stdin(Stdio::piped()).spawn().expect("ctr"));
    for ctr in &mut clients {
        let stdin = ctr.stdin.as_mut().expect("stdin");
        stdin.write_all(&data[..1 << 20]).expect("write");
    }
    let active = ["content", "active"];
    both.ours.until("both are under way", || {
        let shown = script
            .printed(&active)
            .map(|answer| answer.expect("active"));
        shown.iter().all(|lines| lines.join(" ").contains("1.049"))
    });
    // Without its age.
    assert_eq!(script.same_but(&active, first(2)).len(), 2);
    assert_eq!(script.same(&["content", "active", "ref==none"]).len(), 1);
    for mut ctr in clients {
        let mut stdin = ctr.stdin.take().expect("stdin");
        stdin.write_all(&data[1 << 20..]).expect("write");
        drop(stdin);
        assert!(ctr.wait().expect("wait").success());
    }
    assert_eq!(script.same(&active).len(), 1);
    let blob = digest(&data);
    assert_eq!(
        script.same(&["content", "get", &blob]).concat().len(),
        data.len()
    );
}

#[test]
fn content_is_edited_labelled_and_removed() {
    let script = Script::start();
    let manifest = script.target(NAME);
    let before = script.same_but(&["content", "get", &manifest], str::to_owned);
    let after = digest(format!("{} ", before.concat()).as_bytes());
    script.hold("content.edited", &after);
    let edit = ["content", "edit", "--editor"];
    let edited = script.same(&[&edit[..], &["printf ' ' >>", &manifest]].concat());
    assert_eq!(edited, [&*after]);
    let text = script.same_but(&["content", "get", &after], str::to_owned);
    assert_eq!(text.concat(), format!("{} ", before.concat()));
    script.same(&["content", "label", &after, "color=red", "k=v"]);
    script.same(&["content", "label", &after, "k="]);
    script.same_but(&["content", "ls", "labels.color==red"], unaged);
    script.same_but(&["content", "ls", &format!("digest=={after}")], unaged);
    let none = digest(b"none");
    script.fails(&[&edit[..], &["true", "nonsense"]].concat(), "invalid");
    script.fails(&[&edit[..], &["true", &none]].concat(), "not found");
    script.fails(&["content", "ls", "digest="], "filter");
    // It complains of one that is not there, and goes on.
    script.same(&["content", "rm", &none, &after]);
    script.fails(&["content", "get", &after], "not found");
    script.same(&["content", "prune", "references", "--dry"]);
    script.same(&["content", "prune", "references"]);
    script.same_stores("default");
}

#[test]
fn snapshots_by_every_verb() {
    let script = Script::start();
    let top = script.top();
    script.hold("snapshot.overlayfs/a", "view");
    script.hold("snapshot.overlayfs/b", "nothing");
    let target = ["--target", "/mnt/some"];
    script.same(&[&["snapshots", "prepare"], &target[..], &["empty"]].concat());
    script.same(&[&["snapshots", "prepare"], &target[..], &["work", &top]].concat());
    script.same(&[&["snapshots", "view"], &target[..], &["view", &top]].concat());
    script.same(&[&["snapshots", "view"], &target[..], &["nothing"]].concat());
    for key in ["empty", "work", "view", "nothing"] {
        script.same(&["snapshots", "mounts", "/mnt/some", key]);
        script.same(&["snapshots", "info", key]);
    }
    script.fails(
        &["snapshots", "mounts", "/mnt/some", &top],
        "failed precondition",
    );
    script.fails(&["snapshots", "mounts", "/mnt/some", "none"], "not found");
    script.fails(&["snapshots", "view", "v", "work"], "invalid");
    script.fails(&["snapshots", "view", "v", "none"], "not found");
    script.fails(
        &["snapshots", "commit", "name", "view"],
        "failed precondition",
    );
    script.fails(&["snapshots", "commit", &top, "work"], "already exists");
    // In JSON an option stands on a line of its own.
    let options = ["snapshots", "prepare", "--mounts", "json", &top];
    let [mut ours, mut theirs] = script.printed(&options).map(|answer| {
        let lines = answer.expect("prepare");
        let lines = lines.iter().map(|line| plain(line).replace(',', ""));
        lines.collect::<Vec<_>>()
    });
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
    script.same(&[
        "snapshots",
        "label",
        "work",
        "containerd.io/gc.root=1",
        "k=v",
    ]);
    script.same(&["snapshots", "label", "work", "k="]);
    script.same(&["snapshots", "commit", "done", "work"]);
    script.same(&["snapshots", "info", "done"]);
    script.same(&["snapshots", "usage", "-b", "done", &top]);
    script.same(&["snapshots", "usage"]);
    script.same(&["snapshots", "ls"]);
    let tree = script.same(&["snapshots", "tree"]);
    assert!(tree.len() > 6, "{tree:?}");
    script.same(&[
        "snapshots",
        "rm",
        "done",
        "empty",
        "view",
        "nothing",
        "json",
    ]);
    script.fails(&["snapshots", "rm", "none"], "not found");
    script.same(&["snapshots", "ls"]);
    // From nothing but the blobs.
    let ns = ["-n", "blobs"];
    let archive = script.both.work.path().join("archive.tar");
    let import = ["images", "import", "--no-unpack", text(&archive)];
    script.same(&[&ns[..], &import].concat());
    let listed = script.same(&[&ns[..], &["snapshots", "ls"]].concat());
    assert_eq!(listed.len(), 1, "{listed:?}");
    let manifest = script.target(NAME);
    script.same(&[&ns[..], &["snapshots", "unpack", &manifest]].concat());
    script.same(&[&ns[..], &["snapshots", "info", &top]].concat());
    script.same_stores("blobs");
}

/// Writes into a snapshot as a client would that has its mounts.
fn write_into(mounts: &str, target: &Path) {
    let done = Command::new("sh").arg("-c").arg(mounts).status();
    assert!(done.expect("mount").success(), "{mounts}");
    let put = "umask 022; echo one > one; ln one two; mkdir -p d/sub; echo x > d/sub/x; \
               ln -s ../one d/link; chmod 4711 one; touch -h -d @1500000000 one d/link d/sub/x d/sub d";
    let mut shell = Command::new("sh");
    let wrote = shell.arg("-c").arg(put).current_dir(target).status();
    let wrote = wrote.expect("sh");
    run("umount", &[text(target)]);
    assert!(wrote.success());
}

#[test]
fn snapshots_are_compared() {
    let script = Script::start();
    let top = script.top();
    let target = script.both.work.path().join("mnt");
    fs::create_dir(&target).expect("target");
    script.same(&["snapshots", "prepare", "work", &top]);
    let mounts = ["snapshots", "mounts", text(&target), "work"];
    for answer in script.printed(&mounts) {
        write_into(&answer.expect("mounts").join("\n"), &target);
    }
    let both = &script.both;
    let diff = |who: usize, more: &[&str]| {
        let arguments = [&["snapshots", "diff"], more].concat();
        let mut ctr = match who {
            0 => both.ours.command(&arguments),
            _ => both.theirs.command(&arguments),
        };
        let output = ctr.output().expect("ctr");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{more:?}: {said}");
        output.stdout
    };
    let tar = ["--media-type", "application/vnd.oci.image.layer.v1.tar"];
    for (more, gzip) in [
        (&["work"][..], true),
        (&[&tar[..], &["work"]].concat(), false),
        (
            &[
                &tar[..],
                &["--ref", "a-ref", "--keep", "--label", "k=v", "work"],
            ]
            .concat(),
            false,
        ),
        (&[&tar[..], &["work", &top]].concat(), false),
    ] {
        let [ours, theirs] = [0, 1].map(|who| match gzip {
            true => filter("gzip", &["-dc"], &diff(who, more)),
            false => diff(who, more),
        });
        // What is there on the right only is not in every comparison, and 1.6 gives its marks the
        // time of the comparison.
        let listed = |tar: &[u8]| filter("tar", &["-tf", "-"], tar);
        assert_eq!(listed(&ours), listed(&theirs), "{more:?}");
        let marked = ours.windows(4).any(|name| name == b".wh.");
        assert!(marked || ours == theirs, "{more:?}: not byte by byte");
    }
    script.fails(&["snapshots", "diff", "none"], "not found");
    script.same(&["snapshots", "rm", "work"]);
}

#[test]
fn leases_by_every_verb() {
    let script = Script::start();
    let random = script.printed(&["leases", "create"]);
    for answer in &random {
        let lines = answer.as_ref().expect("a lease");
        assert!(lines.len() == 1 && lines[0].contains('-'), "{lines:?}");
    }
    // Each has its own name for it.
    for (who, answer) in random.into_iter().enumerate() {
        let id = answer.expect("a lease").concat();
        match who {
            0 => script.both.ours.ok(&["leases", "rm", &id]),
            _ => script.both.theirs.ok(&["leases", "rm", "--sync", &id]),
        };
    }
    let create = ["leases", "create", "--id"];
    script.same(&[&create[..], &["b", "--expires", "1h", "k=v", "l=w"]].concat());
    script.same(&[&create[..], &["a"]].concat());
    script.same(&["leases", "ls"]);
    script.same(&["leases", "ls", "-q"]);
    script.fails(&[&create[..], &["a"]].concat(), "already exists");
    script.same(&["leases", "rm", "a", "b"]);
    assert_eq!(script.same(&["leases", "ls"]).len(), 1);
}

#[test]
fn the_daemon_is_asked_what_it_is() {
    let script = Script::start();
    let printed = script.printed(&["version"]).map(|a| a.expect("version"));
    let server = |line: &&String| line.as_str() == "Server:";
    let [ours, theirs] = printed.map(|lines| {
        let at = lines.iter().position(|line| server(&line)).expect("server");
        let names = lines[at..]
            .iter()
            .map(|l| l.split(':').next().expect("name").to_owned());
        // Of cairnd it says that it is of another version than itself.
        let names = names.filter(|line| !line.starts_with("WARNING"));
        [&lines[..at], &names.collect::<Vec<_>>()].concat()
    });
    assert_eq!(ours, theirs);
    let snapshotter = "type==io.containerd.snapshotter.v1, id==overlayfs";
    assert_eq!(script.same(&["plugins", "ls", snapshotter]).len(), 2);
    script.fails(&["plugins", "ls", "id="], "parse");
    // What cairnd has is called and is as in containerd, which has more.
    let [ours, theirs] = script.printed(&["plugins", "ls"]).map(|answer| {
        let lines = answer.expect("plugins");
        lines.iter().map(|line| words(line)).collect::<Vec<_>>()
    });
    let added: Vec<&String> = ours.iter().filter(|line| !theirs.contains(line)).collect();
    // Came with 1.7 and 2.0.
    let newer = [
        "io.containerd.lease.v1 manager - ok",
        "io.containerd.streaming.v1 manager - ok",
        "io.containerd.transfer.v1 local - ok",
        "io.containerd.grpc.v1 streaming - ok",
        "io.containerd.grpc.v1 transfer - ok",
    ];
    assert_eq!(added, newer);
    assert!(ours.len() > 15, "{ours:?}");
}

#[test]
fn events_are_told() {
    let script = Script::start();
    let both = &script.both;
    script.hold("content.new", &digest(b"new"));
    let top = script.top();
    let outs = ["ours", "theirs"].map(|name| both.work.path().join(name));
    let filter = ["events", "namespace==default"];
    let commands = [both.ours.command(&filter), both.theirs.command(&filter)];
    let mut clients = commands.into_iter().zip(&outs).map(|(mut ctr, out)| {
        let out = fs::File::create(out).expect("file");
        ctr.stdout(out).stderr(Stdio::null()).spawn().expect("ctr")
    });
    let mut clients = [(); 2].map(|()| clients.next().expect("two"));
    let printed = || {
        outs.each_ref()
            .map(|out| fs::read_to_string(out).expect("out"))
    };
    let mut tries = 0;
    both.ours.until("both hear what happens", || {
        tries += 1;
        script.same(&["images", "tag", NAME, &format!("begin:{tries}")]);
        printed().iter().all(|text| text.contains("begin:"))
    });
    script.same(&["images", "tag", NAME, "localhost/t:two"]);
    script.same(&["images", "label", "localhost/t:two", "color=red", "k=v"]);
    script.same(&["images", "rm", "localhost/t:two"]);
    script.same(&["snapshots", "prepare", "work", &top]);
    script.same(&["snapshots", "commit", "done", "work"]);
    script.same(&["snapshots", "rm", "done"]);
    for mut ctr in [
        both.ours.command(&["content", "ingest", "a-ref"]),
        both.theirs.command(&["content", "ingest", "a-ref"]),
    ] {
        let mut ctr = ctr.stdin(Stdio::piped()).spawn().expect("ctr");
        let mut stdin = ctr.stdin.take().expect("stdin");
        stdin.write_all(b"new").expect("write");
        drop(stdin);
        assert!(ctr.wait().expect("wait").success());
    }
    script.same(&["content", "rm", &digest(b"new")]);
    script.same(&["images", "tag", NAME, "end:1"]);
    both.ours.until("both hear the last", || {
        printed().iter().all(|text| text.contains("end:1"))
    });
    for ctr in &mut clients {
        ctr.kill().expect("kill");
        ctr.wait().expect("wait");
    }
    // Without the time, which is four words.
    let [ours, theirs] = printed().map(|text| {
        let lines = text.lines().filter(|line| !line.contains("begin:"));
        let lines = lines.map(|line| {
            line.split_whitespace()
                .skip(4)
                .collect::<Vec<_>>()
                .join(" ")
        });
        lines.collect::<Vec<_>>()
    });
    assert_eq!(ours, theirs, "cairnd, containerd");
    assert_eq!(ours.len(), 8, "{ours:#?}");
}
