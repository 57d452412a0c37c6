//! A store in a scratch directory, and transcripts that are played in a shell.

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

mod archive;
mod daemon;
mod program;

pub use archive::*;
pub use daemon::Daemon;
pub use program::copy_program;

/// What a command left.
#[derive(Debug, PartialEq, Eq)]
pub struct Seen {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A directory with a store in it, and the program in the PATH.
pub struct Scene {
    // Before its directory.
    daemon: Option<Daemon>,
    dir: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Scene {
        let scene = Scene {
            daemon: None,
            dir: tempfile::tempdir().expect("temporary directory"),
        };
        fs::create_dir(scene.path("work")).expect("directory");
        scene
    }

    /// With both images' archives at hand: `busybox.tar` (OCI) and `web.tar` (docker).
    pub fn with_archives() -> Scene {
        let scene = Scene::new();
        scene.put(
            "busybox.tar",
            &Image::busybox().oci("docker.io/library/busybox:1.36"),
        );
        let plain = [base_layer(), tar(&[("srv/", b""), ("srv/page", b"<p>\n")])];
        let layers = plain.iter().map(|p| (OCI_LAYER, p.clone())).collect();
        let web = Image::new(layers, &plain);
        scene.put("web.tar", &web.docker("registry.example.com/shop/web:2.1"));
        scene
    }

    /// Has a daemon serve the store: every command then talks to it instead of opening the store.
    #[must_use]
    pub fn served(self) -> Scene {
        self.served_at("cairn.sock")
    }

    /// As [`Scene::served`], at a socket of that name.
    #[must_use]
    pub fn served_at(mut self, socket: &str) -> Scene {
        let socket = self.path(socket);
        self.daemon = Some(Daemon::start(self.root(), socket));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// A file beside the store, in the directory in which commands run.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path("work").join(name), bytes).expect("write");
    }

    /// The environment of every command.
    pub fn command(&self, program: &Path) -> Command {
        let bin = Path::new(env!("CARGO_BIN_EXE_cairn"));
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env(
                "PATH",
                format!("{}:{path}", bin.parent().expect("directory").display()),
            )
            .env("CAIRN_FORCE_TTY", "100")
            // Where nobody listens, nobody will a little later.
            .env("CAIRN_REGISTRY__RETRIES", "0")
            .current_dir(self.path("work"))
            .stdin(Stdio::null());
        match &self.daemon {
            Some(daemon) => command.env("CAIRN_ADDRESS", daemon.socket()),
            None => command.env("CAIRN_ROOT", self.root()),
        };
        command
    }

    /// Runs a line in a shell.
    pub fn run(&self, line: &str) -> Seen {
        let mut shell = self.command(Path::new("/bin/sh"));
        let output = shell.arg("-c").arg(line).output().expect("shell");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Seen {
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs a line that must succeed; its output comes back.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let seen = self.run(line);
        assert_eq!(seen.code, 0, "{line}: {}{}", seen.stdout, seen.stderr);
        seen.stdout
    }

    /// Plays a transcript: after each `$ ` line its standard output, then what went to standard
    /// error behind `2> `, then the exit code behind `? ` unless it is 0. `[..]` stands for
    /// anything within a line, `$WORK` for the directory.
    #[track_caller]
    pub fn play(&self, transcript: &str) {
        let wrong = self.differences(transcript);
        assert!(wrong.is_empty(), "seen instead:{wrong}");
    }

    /// What was seen where it was not what should be.
    pub fn differences(&self, transcript: &str) -> String {
        let mut wrong = String::new();
        let work = self.path("").display().to_string();
        for part in transcript.split("\n$ ") {
            let part = part.strip_prefix("$ ").unwrap_or(part);
            let (line, expected) = part.split_once('\n').unwrap_or((part, ""));
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let seen = self
                .run(line)
                .script()
                .replace(work.trim_end_matches('/'), "$WORK");
            if !alike(expected.trim_end(), seen.trim_end()) {
                wrong.push_str(&format!("\n$ {line}\n{seen}"));
            }
        }
        wrong
    }
}

impl Drop for Scene {
    /// What is still mounted would keep the directory busy.
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let below = self.dir.path().display().to_string();
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let ours: Vec<&str> = targets
            .filter(|target| target.starts_with(&below))
            .collect();
        for target in ours.into_iter().rev() {
            let _ = Command::new("umount").args(["-l", target]).status();
        }
    }
}

impl Seen {
    fn script(&self) -> String {
        let mut text = self.stdout.clone();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for line in self.stderr.lines() {
            text.push_str(&format!("2> {line}\n"));
        }
        if self.code != 0 {
            text.push_str(&format!("? {}\n", self.code));
        }
        text
    }
}

fn alike(expected: &str, seen: &str) -> bool {
    let (expected, seen): (Vec<&str>, Vec<&str>) =
        (expected.lines().collect(), seen.lines().collect());
    expected.len() == seen.len() && expected.iter().zip(&seen).all(|(e, s)| fits(e, s))
}

/// The parts between the `[..]` come in this order, the first and last at the ends.
pub fn fits(pattern: &str, line: &str) -> bool {
    let parts: Vec<&str> = pattern.split("[..]").collect();
    let [first, middle @ .., last] = parts.as_slice() else {
        return pattern == line;
    };
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
