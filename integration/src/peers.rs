//! The tools Cairn stands next to, as Debian ships them.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::wait;

/// Runs a program to its end and expects success; returns what it printed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|err| panic!("start {program}: {err}"));
    succeed(program, arguments, &output)
}

#[track_caller]
fn succeed(program: &str, arguments: &[&str], output: &Output) -> String {
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Unpacks an image of an OCI layout with umoci; returns the root file system.
pub fn umoci_unpack(layout: &Path, tag: &str, bundle: &Path) -> PathBuf {
    let image = format!("{}:{tag}", layout.display());
    run(
        "umoci",
        &["unpack", "--image", &image, &bundle.display().to_string()],
    );
    bundle.join("rootfs")
}

/// Runs bytes through a program's standard input and output, and expects success.
#[track_caller]
pub fn filter(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = command.spawn().expect(program);
    let mut stdin = child.stdin.take().expect("stdin");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).expect("write"));
        child.wait_with_output().expect(program)
    });
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

/// Tries to; what umoci printed when it does not unpack it.
pub fn umoci_try_unpack(layout: &Path, tag: &str, bundle: &Path) -> Result<PathBuf, String> {
    let image = format!("{}:{tag}", layout.display());
    let mut command = Command::new("umoci");
    command.args(["unpack", "--image", &image]).arg(bundle);
    let output = command.output().expect("start umoci");
    if output.status.success() {
        return Ok(bundle.join("rootfs"));
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A containerd of our own on a socket in a temporary directory.
pub struct Containerd {
    work: TempDir,
    daemon: Child,
}

impl Containerd {
    /// Starts it and waits until it answers.
    pub fn start() -> Containerd {
        Containerd::start_with(&[], "")
    }

    /// As [`Containerd::start`], without some plugins and with more tables in its configuration.
    pub fn start_with(disabled: &[&str], tables: &str) -> Containerd {
        let disabled = [&["io.containerd.grpc.v1.cri"], disabled].concat();
        let work = TempDir::new().expect("temporary directory");
        let config = work.path().join("config.toml");
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\n\
             disabled_plugins = {disabled:?}\n[grpc]\naddress = \"{0}/sock\"\n{tables}",
            work.path().display()
        );
        fs::write(&config, text).expect("configuration");
        let log = fs::File::create(work.path().join("log")).expect("log");
        let daemon = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start containerd");
        let containerd = Containerd { work, daemon };
        let log = || fs::read_to_string(containerd.work.path().join("log")).unwrap_or_default();
        let answers = || containerd.ctr(&["version"]).status.success();
        wait::until(answers, || {
            format!("containerd does not answer:\n{}", log())
        });
        containerd
    }

    /// Where clients connect.
    pub fn socket(&self) -> PathBuf {
        self.work.path().join("sock")
    }

    /// Runs `ctr` against it; what it printed on stderr when it fails.
    pub fn attempt(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.ctr(arguments);
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// The names and digests of all its images, sorted by name.
    pub fn images(&self) -> Vec<(String, String)> {
        let listed = self.ok(&["images", "ls"]);
        let words = listed.lines().skip(1).map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[0].to_owned(), words[2].to_owned())
        });
        let mut images: Vec<_> = words.collect();
        images.sort();
        images
    }

    /// `ctr` with these arguments, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.socket()).args(arguments);
        command
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("start ctr")
    }

    /// Runs `ctr` against it and expects success.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        succeed("ctr", arguments, &self.ctr(arguments))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.daemon.id().to_string())
            .status();
        let _ = self.daemon.wait();
    }
}

/// Runs a bundle to its end by runc or crun; what the container printed.
///
/// crun refuses a host whose second cgroup hierarchy has controllers of its own, whatever it is to
/// run. It does not see that one where it is not mounted, so it is taken out of sight of both.
pub fn contain(runtime: &str, bundle: &Path, id: &str) -> String {
    let script = "umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"";
    let state = tempfile::tempdir().expect("temporary directory");
    let (state, bundle) = (
        state.path().display().to_string(),
        bundle.display().to_string(),
    );
    run(
        "unshare",
        &[
            "--mount", "--", "sh", "-c", script, "sh", runtime, "--root", &state, "run", "-b",
            &bundle, id,
        ],
    )
}
