//! A machine of its own for a test: this one's files, with systemd as first process. What only a
//! service manager shows is seen there, and whatever is done there is gone afterwards.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tempfile::TempDir;

use crate::{cairn::Cairn, wait};

/// How long it may take to boot. It takes two seconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// One at a time: each keeps what is written there in memory, programs of a debug build among it.
static TURN: Mutex<()> = Mutex::new(());

/// It runs until it is dropped, or the test's process ends in any other way.
pub struct Machine {
    scratch: TempDir,
    keeper: Child,
    /// The process id of its first process, as seen from here.
    init: String,
    // Dropped after what the others' names stand for is gone.
    _turn: MutexGuard<'static, ()>,
}

/// What a command left.
#[derive(Debug)]
pub struct Seen {
    /// Of the exit; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Machine {
    /// Boots one.
    pub fn boot() -> Machine {
        // A test that failed has left nothing that would be in the way.
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let scratch = TempDir::new().expect("temporary directory");
        let script = scratch.path().join("machine.sh");
        fs::write(&script, include_str!("machine.sh")).expect("script");
        let files = scratch.path().join("files");
        fs::create_dir(&files).expect("directory");
        let log = fs::File::create(scratch.path().join("log")).expect("log");
        let keeper = Command::new("unshare")
            .args(["--mount", "sh"])
            .arg(&script)
            .arg(&files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // A key pressed for the test is not pressed for the machine, too.
            .process_group(0)
            .spawn()
            .expect("util-linux' unshare");
        let mut machine = Machine {
            scratch,
            keeper,
            init: String::new(),
            _turn: turn,
        };
        machine.wait();
        machine
    }

    fn wait(&mut self) {
        let stdout = self.keeper.stdout.take().expect("piped");
        let read = BufReader::new(stdout).read_line(&mut self.init);
        read.expect("process id");
        self.init.truncate(self.init.trim_end().len());
        assert!(!self.init.is_empty(), "it does not begin:\n{}", self.log());
        let mut state = String::new();
        let up = wait::within(PATIENCE, || {
            state = self.run("systemctl is-system-running").stdout;
            // What fails of this machine's own is not what is looked at.
            ["running\n", "degraded\n"].contains(&&*state).then_some(())
        });
        if up.is_none() {
            let why = self.run("systemctl list-jobs; journalctl -n 50");
            panic!("it is {state}{}{}{}", why.stdout, why.stderr, self.log());
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).expect("log")
    }

    /// Runs a line there as root.
    pub fn run(&self, line: &str) -> Seen {
        let namespaces = ["-m", "-p", "-u", "-i", "-n", "-C", "-r", "-w"];
        let output = Command::new("nsenter")
            .args(["-t", &self.init])
            .args(namespaces)
            .args(["sh", "-c", line])
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", "/root")
            .env("LANG", "C.UTF-8")
            .env("MANWIDTH", "80")
            .stdin(Stdio::null())
            .output()
            .expect("util-linux' nsenter");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Seen {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Runs a line that must succeed; what it printed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let seen = self.run(line);
        assert_eq!(seen.code, 0, "{line}\n{}{}", seen.stdout, seen.stderr);
        seen.stdout
    }

    /// A path there, from here; `path` begins with a slash.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Puts there what a package of Cairn has: programs, units, the group, manual pages,
    /// completions.
    pub fn install(&self) {
        let built = Cairn::binary();
        for name in ["cairn", "cairnd"] {
            let to = self.path("/usr/bin").join(name);
            let from = built.with_file_name(name);
            assert!(from.exists(), "{} is not built", from.display());
            fs::copy(from, &to).expect(name);
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd");
        for (name, to) in [
            ("cairnd.service", "systemd/system/cairnd.service"),
            ("cairnd.socket", "systemd/system/cairnd.socket"),
            (
                "cairnd-backend.socket",
                "systemd/system/cairnd-backend.socket",
            ),
            ("cairn.sysusers.conf", "sysusers.d/cairn.conf"),
            ("cairn.tmpfiles.conf", "tmpfiles.d/cairn.conf"),
        ] {
            fs::copy(units.join(name), self.path("/usr/lib").join(to)).expect(name);
        }
        let share = "mkdir -p /usr/share/man/man1 /usr/share/man/man5 /usr/share/man/man8 \
                     /usr/share/bash-completion/completions /usr/share/zsh/vendor-completions";
        for line in [
            "systemd-sysusers cairn.conf",
            "systemd-tmpfiles --create cairn.conf",
            share,
            "cairn man --dir /usr/share/man/man1",
            "cairnd man cairnd >/usr/share/man/man8/cairnd.8",
            "cairnd man cairn-config.toml >/usr/share/man/man5/cairn-config.toml.5",
            "cairnd man cairn-hosts.toml >/usr/share/man/man5/cairn-hosts.toml.5",
            "cairn completion bash >/usr/share/bash-completion/completions/cairn",
            "cairn completion zsh >/usr/share/zsh/vendor-completions/_cairn",
            "systemctl daemon-reload",
        ] {
            self.ok(line);
        }
    }
}

impl Drop for Machine {
    /// With its first process all others end, and with the last one its mounts.
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}
