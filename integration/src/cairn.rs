//! The program under test, as a user starts it, with a root of its own.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A store in a temporary directory and the built `cairn`. Bundles and mounts made through it are
/// removed at the end.
pub struct Cairn {
    work: TempDir,
}

impl Default for Cairn {
    fn default() -> Cairn {
        Cairn::new()
    }
}

impl Cairn {
    /// An empty store.
    pub fn new() -> Cairn {
        Cairn {
            work: TempDir::new().expect("temporary directory"),
        }
    }

    /// The same somewhere below `dir`.
    pub fn below(dir: &Path) -> Cairn {
        Cairn {
            work: TempDir::new_in(dir).expect("temporary directory"),
        }
    }

    /// A scratch directory beside the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// The binary that cargo built beside the tests.
    pub fn binary() -> PathBuf {
        let test = std::env::current_exe().expect("test binary");
        let profile = test
            .parent()
            .and_then(Path::parent)
            .expect("target directory");
        let binary = profile.join("cairn");
        assert!(
            binary.exists(),
            "{} is not built: cargo build -p cairn",
            binary.display()
        );
        binary
    }

    /// The command with this store's root, for tests that set more.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Cairn::binary());
        command
            .arg("--root")
            .arg(self.path("store"))
            .args(arguments);
        command
            .env_remove("CONTAINERD_NAMESPACE")
            .env_remove("CAIRN_ROOT");
        nobody(&mut command, self.work.path());
        command
    }

    /// Runs it to its end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("start cairn")
    }

    /// Runs it and expects success; returns what it printed on stdout.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "cairn {arguments:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Runs it and expects exit code 1; returns what it printed on stderr.
    #[track_caller]
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let stderr = String::from_utf8(output.stderr).expect("UTF-8");
        assert_eq!(
            output.status.code(),
            Some(1),
            "cairn {arguments:?} printed {stderr}"
        );
        stderr
    }
}

impl Drop for Cairn {
    fn drop(&mut self) {
        let bundles = self.output(&["-q", "bundle", "ls"]);
        for dir in String::from_utf8_lossy(&bundles.stdout).lines() {
            self.output(&["bundle", "rm", dir]);
        }
        // A failed test may leave mounts, which would keep the directory from going.
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let below = table.lines().filter_map(|line| line.split(' ').nth(4));
        for mount in below.filter(|m| Path::new(m).starts_with(self.work.path())) {
            let _ = Command::new("umount").arg(mount).status();
        }
    }
}

/// Runs a command to its end, which reads `input`.
pub fn fed(command: &mut Command, input: &str) -> Output {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("start cairn");
    let mut stdin = child.stdin.take().expect("piped");
    // A program that asks for nothing may be gone by now.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("cairn ends")
}

/// Leaves out whom this machine's user is at registries, and what is between it and them.
pub(crate) fn nobody(command: &mut Command, work: &Path) {
    command.env("DOCKER_CONFIG", work.join("docker"));
    command.env("NO_PROXY", "127.0.0.1,localhost");
    command.env_remove("REGISTRY_AUTH_FILE");
}
