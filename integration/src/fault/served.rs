//! A command whose store a daemon serves, in which the fault comes to pass.

use std::{
    fs,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{
    Bench, Step, Verdict,
    visit::{Did, is_refused},
};

/// Far longer than anything takes on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(2);

/// A daemon that may die at any time; killed on drop.
struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Bench {
    /// Starts a daemon that is to be hit, has it do a step, and stops it.
    pub(super) fn serve(&self, step: &Step, fault: &str) -> Verdict<Did> {
        let mut daemon = self.start(fault)?;
        let mut said = String::new();
        let (mut good, mut refused) = (false, false);
        if daemon.listens()? {
            let mut client = self.client(&daemon.socket);
            self.typed(&mut client, step.args, step.stdin);
            let output = client.output();
            let output = output.map_err(|err| format!("start cairn: {err}"))?;
            said = String::from_utf8_lossy(&output.stderr).into_owned();
            good = output.status.success();
            refused = is_refused(&output, &said, Some(step));
        }
        let status = daemon.stop()?;
        let log = fs::read_to_string(&daemon.log).unwrap_or_default();
        // It says itself why it does not start.
        refused |= !good && status.code() == Some(1) && log.contains("cannot ");
        said.push_str(&log);
        Ok(Did {
            good,
            refused,
            killed: status.signal() == Some(9),
            said,
        })
    }

    fn start(&self, fault: &str) -> Verdict<Daemon> {
        let dir = self.state();
        let (socket, log) = (dir.join("sock"), dir.join("log"));
        let file = fs::File::create(&log).map_err(|err| format!("{}: {err}", log.display()))?;
        let mut command = self.clean(&self.daemon());
        command
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(dir);
        command.arg("--address").arg(&socket);
        command.args(["--engine", self.engine(), "--log-level", "info"]);
        // Garbage goes when a command says so, and at no time of the daemon's own.
        command.env("CAIRN_GC__STARTUP_DELAY", "0");
        command.env("CAIRN_GC__SCHEDULE_DELAY", "1h");
        command.env("CAIRN_GC__MUTATION_THRESHOLD", "0");
        command.env("CAIRN_FAULT", fault);
        let child = command.stdout(Stdio::null()).stderr(file).spawn();
        let child = child.map_err(|err| format!("start {}: {err}", self.daemon().display()))?;
        Ok(Daemon { child, socket, log })
    }
}

impl Daemon {
    fn ended(&mut self) -> Verdict<Option<ExitStatus>> {
        self.child.try_wait().map_err(|err| err.to_string())
    }

    /// Waits until it answers, or is gone.
    fn listens(&mut self) -> Verdict<bool> {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if UnixStream::connect(&self.socket).is_ok() {
                return Ok(true);
            }
            if self.ended()?.is_some() {
                return Ok(false);
            }
            thread::sleep(PAUSE);
        }
        Err("cairnd neither answers nor ends".to_owned())
    }

    /// Asks it to stop, if it is still there, and waits until it is not.
    fn stop(&mut self) -> Verdict<ExitStatus> {
        let began = Instant::now();
        let id = self.child.id().to_string();
        // It is not reaped yet, so that nobody else has its number.
        if self.ended()?.is_none() {
            let _ = Command::new("kill").arg(id).stderr(Stdio::null()).status();
        }
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            thread::sleep(PAUSE);
        }
        Err("cairnd does not stop".to_owned())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
