//! `cairnd` on a store that it did not leave in order.

use std::{
    fs,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::Verdict;
use crate::soak::api::Api;

/// Far longer than a start takes on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// The programs under test.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The command line.
    pub cairn: PathBuf,
    /// The daemon.
    pub cairnd: PathBuf,
    /// What they do wrong on purpose, if they were built with fault points.
    pub flaw: Option<&'static str>,
}

impl Programs {
    /// As they are to be started.
    pub(super) fn start(&self, program: &Path, aside: &Path) -> Command {
        let mut command = Command::new(program);
        crate::cairn::nobody(&mut command, aside);
        for variable in ["CAIRN_ROOT", "CONTAINERD_NAMESPACE", "CAIRN_FAULT"] {
            command.env_remove(variable);
        }
        if let Some(flaw) = self.flaw {
            command.env("CAIRN_FAULT", flaw);
        }
        command.stdin(Stdio::null());
        command
    }
}

/// A daemon; killed on drop.
pub(super) struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Daemon {
    /// Starts it and waits until it answers; its socket and its log are in `dir`.
    pub(super) fn start(
        programs: &Programs,
        root: &Path,
        engine: &str,
        dir: &Path,
    ) -> Verdict<Daemon> {
        fs::create_dir_all(dir).map_err(|err| format!("{}: {err}", dir.display()))?;
        let log = fs::File::create(dir.join("log")).map_err(|err| err.to_string())?;
        let mut command = programs.start(&programs.cairnd, dir);
        command.arg("--root").arg(root).arg("--state").arg(dir);
        command.arg("--address").arg(dir.join("sock"));
        command.args(["--engine", engine, "--log-level", "info"]);
        // Garbage goes when a command says so, and at no time of the daemon's own.
        command.env("CAIRN_GC__STARTUP_DELAY", "0");
        command.env("CAIRN_GC__SCHEDULE_DELAY", "1h");
        command.env("CAIRN_GC__MUTATION_THRESHOLD", "0");
        command.env("CAIRN_UNPACK__SETTLE_DELAY", "1s");
        command.env("CAIRN_SNAPSHOTTER__OVERLAYFS__UPPERDIR_LABEL", "true");
        let child = command.stdout(Stdio::null()).stderr(log).spawn();
        let child = child.map_err(|err| format!("start {}: {err}", programs.cairnd.display()))?;
        let dir = dir.to_owned();
        let mut daemon = Daemon { child, dir };
        daemon.wait()?;
        Ok(daemon)
    }

    fn wait(&mut self) -> Verdict {
        let began = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("cairnd ended with {status}:\n{}", self.log()));
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("cairnd does not answer:\n{}", self.log()));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// What it said.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// Typed clients.
    pub(super) async fn api(&self) -> Verdict<Api> {
        Api::connect(&self.socket().display().to_string(), "default").await
    }

    /// Asks it to stop, and waits until it has.
    pub(super) fn stop(mut self) -> Verdict {
        let id = self.child.id().to_string();
        super::disks::run(Command::new("kill").arg(id))?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(None) => thread::sleep(Duration::from_millis(2)),
                other => return Err(format!("cairnd ended with {other:?}:\n{}", self.log())),
            }
        }
        Err(format!("cairnd does not stop:\n{}", self.log()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(self.socket());
    }
}
