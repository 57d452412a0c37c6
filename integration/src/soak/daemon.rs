//! The daemon under all those clients.

use std::{
    fs, io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{daemon, wait::within};

/// Within this it starts and stops.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `cairnd` over an empty store.
pub(super) struct Served {
    work: TempDir,
    process: Child,
}

impl Served {
    /// Starts it and waits until it listens.
    pub(super) fn start(program: &Path) -> io::Result<Served> {
        let work = TempDir::new()?;
        let path = |name: &str| work.path().join(name);
        fs::write(path("config.toml"), "")?;
        let process = Command::new(program)
            .args(["--log-level", "info", "--log-format", "text", "--config"])
            .arg(path("config.toml"))
            .arg("--root")
            .arg(path("root"))
            .arg("--state")
            .arg(path("run"))
            .arg("--address")
            .arg(path("sock"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log"))?)
            .spawn()?;
        let served = Served { work, process };
        let listens = || UnixStream::connect(served.socket()).ok();
        if within(PATIENCE, listens).is_none() {
            let text = format!("it does not listen:\n{}", served.log());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(served)
    }

    /// Where it listens.
    pub(super) fn socket(&self) -> PathBuf {
        self.path("sock")
    }

    /// Its store.
    pub(super) fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// Something beside its store.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// What it logged.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// A file of it below `/proc`.
    pub(super) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.process.id()))
    }

    /// Open descriptors.
    pub(super) fn descriptors(&self) -> io::Result<u64> {
        Ok(fs::read_dir(self.proc("fd"))?.count() as u64)
    }

    /// Memory that no file stands behind, in bytes.
    pub(super) fn anonymous(&self) -> io::Result<u64> {
        daemon::anonymous_bytes(self.process.id())
    }

    /// Mount points below its store, as it sees them.
    pub(super) fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string(self.proc("mountinfo")).unwrap_or_default();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4));
        let own = self.work.path();
        points
            .filter(|point| Path::new(point).starts_with(own))
            .map(str::to_owned)
            .collect()
    }

    /// Asks it to stop and waits; whether it went well.
    pub(super) fn stop(&mut self) -> io::Result<bool> {
        let id = self.process.id().to_string();
        Command::new("kill").arg(id).status()?;
        let ended = within(PATIENCE, || self.process.try_wait().transpose());
        Ok(ended.transpose()?.is_some_and(|status| status.success()))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
