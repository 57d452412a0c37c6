//! `ctr snapshots diff` against cairnd and against containerd: the same changes give the same layer.
#![allow(missing_docs)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use cairn_integration::{cairn::Cairn, peers::run, wait};
use tempfile::TempDir;

/// A daemon on a socket of its own that `ctr` talks to.
struct Daemon {
    work: TempDir,
    process: Child,
}

impl Daemon {
    fn cairnd() -> Daemon {
        let work = TempDir::new().expect("temporary directory");
        let binary = Cairn::binary().with_file_name("cairnd");
        let mut command = Command::new(&binary);
        command.arg("--root").arg(work.path().join("root"));
        command.arg("--address").arg(work.path().join("sock"));
        Daemon::start(work, command)
    }

    fn containerd() -> Daemon {
        let work = TempDir::new().expect("temporary directory");
        let config = work.path().join("config.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{0}/sock\"\n",
            work.path().display()
        );
        fs::write(&config, text).expect("configuration");
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config);
        Daemon::start(work, command)
    }

    fn start(work: TempDir, mut command: Command) -> Daemon {
        let log = fs::File::create(work.path().join("log")).expect("log");
        command.stdout(Stdio::null()).stderr(log);
        let process = command.spawn().expect("start the daemon");
        let daemon = Daemon { work, process };
        let answers = || daemon.ctr(&["version"]).status.success();
        wait::until(answers, || "the daemon does not answer".to_owned());
        daemon
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.work.path().join("sock"));
        command.args(arguments).output().expect("start ctr")
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Vec<u8> {
        let output = self.ctr(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {said}");
        output.stdout
    }

    /// Works on a mounted snapshot.
    fn change(&self, key: &str, change: impl FnOnce(&Path)) {
        let target = self.work.path().join("mnt");
        fs::create_dir_all(&target).expect("mount point");
        let mount = self.ok(&["snapshots", "mounts", &target.display().to_string(), key]);
        run("sh", &["-c", &String::from_utf8(mount).expect("a command")]);
        change(&target);
        run("umount", &[&target.display().to_string()]);
    }

    /// A snapshot with `fill` in it, and what `ctr` makes of `change` on top of that.
    fn diff(&self, fill: impl FnOnce(&Path), change: impl FnOnce(&Path)) -> Vec<String> {
        self.ok(&["snapshots", "prepare", "k"]);
        self.change("k", fill);
        self.ok(&["snapshots", "commit", "base", "k"]);
        self.ok(&["snapshots", "prepare", "a", "base"]);
        self.change("a", change);
        listing(&self.ok(&["snapshots", "diff", "a"]))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let process = self.process.id().to_string();
        let _ = Command::new("kill").arg(process).status();
        let _ = self.process.wait();
    }
}

/// A line for each entry: everything in its header but the times of whiteouts, which containerd 1.6
/// sets to now.
fn listing(layer: &[u8]) -> Vec<String> {
    let plain = match layer.starts_with(&[0x1f, 0x8b]) {
        true => {
            let mut bytes = Vec::new();
            let mut reader = flate2::read::GzDecoder::new(layer);
            std::io::Read::read_to_end(&mut reader, &mut bytes).expect("gzip");
            bytes
        }
        false => layer.to_vec(),
    };
    let mut archive = tar::Archive::new(&plain[..]);
    let mut lines = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let link = entry.link_name_bytes().map(|link| link.into_owned());
        let mut content = String::new();
        std::io::Read::read_to_string(&mut entry, &mut content).expect("text");
        let header = entry.header();
        let mtime = match path.contains(".wh.") {
            true => 0,
            false => header.mtime().expect("a time"),
        };
        lines.push(format!(
            "{path} {:?} {:o} {}:{} {mtime} {:?} {content:?}",
            header.entry_type(),
            header.mode().expect("a mode"),
            header.uid().expect("an owner"),
            header.gid().expect("a group"),
            link.map(|link| String::from_utf8_lossy(&link).into_owned()),
        ));
    }
    lines
}

/// A file of the past.
fn file(path: PathBuf, text: &str) {
    fs::write(&path, text).expect("write");
    age(&path);
}

fn age(path: &Path) {
    run(
        "touch",
        &["-h", "-d", "@1577934245", &path.display().to_string()],
    );
}

fn fill(root: &Path) {
    for dir in ["d/sub/deep", "e"] {
        fs::create_dir_all(root.join(dir)).expect("directory");
    }
    for name in [
        "d/one",
        "d/two",
        "d/sub/x",
        "d/sub/deep/y",
        "e/z",
        "f",
        "g",
        "h",
        "i",
    ] {
        file(root.join(name), name);
    }
    symlink("f", root.join("link")).expect("link");
    age(&root.join("link"));
    for dir in ["d/sub/deep", "d/sub", "d", "e"] {
        age(&root.join(dir));
    }
}

fn change(root: &Path) {
    file(root.join("d/one"), "changed");
    file(root.join("d/two"), "D/TWO");
    file(root.join("g"), "g");
    fs::set_permissions(root.join("h"), fs::Permissions::from_mode(0o4711)).expect("chmod");
    fs::remove_dir_all(root.join("d/sub/deep")).expect("remove");
    fs::remove_dir_all(root.join("e")).expect("remove");
    fs::create_dir(root.join("e")).expect("directory");
    file(root.join("e/new"), "new");
    fs::remove_file(root.join("f")).expect("remove");
    fs::create_dir(root.join("f")).expect("directory");
    file(root.join("f/x"), "x");
    fs::hard_link(root.join("i"), root.join("a")).expect("link");
    fs::rename(root.join("link"), root.join("moved")).expect("rename");
    file(root.join(format!("{0}.{0}", "n".repeat(90))), "long");
    let deep = root.join(format!("{0}/{0}", "p".repeat(70)));
    fs::create_dir_all(&deep).expect("directory");
    file(deep.join("é"), "deep");
    run(
        "mknod",
        &[&root.join("null").display().to_string(), "c", "1", "3"],
    );
    run("mkfifo", &[&root.join("pipe").display().to_string()]);
    for name in ["d/sub", "d", "e", "f", "null", "pipe"] {
        age(&root.join(name));
    }
    age(&deep);
    age(deep.parent().expect("parent"));
}

#[test]
fn ctr_gets_the_layer_that_containerd_makes() {
    let ours = Daemon::cairnd().diff(fill, change);
    let theirs = Daemon::containerd().diff(fill, change);
    assert_eq!(ours, theirs);
    assert!(ours.len() > 20, "{ours:#?}");
}
