//! `cairnd` as a service manager starts it, and Debian's `ctr` as its client.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
};

use tempfile::TempDir;

use crate::{cairn::Cairn, wait};

/// A daemon on a root and a socket in a temporary directory.
pub struct Daemon {
    work: TempDir,
    process: Child,
    start: Start,
}

/// How a daemon is started.
struct Start {
    arguments: Vec<OsString>,
    /// In a mount namespace of its own.
    shut_in: bool,
}

impl Default for Daemon {
    fn default() -> Daemon {
        Daemon::start()
    }
}

impl Daemon {
    /// Starts it on an empty root and waits until it answers.
    pub fn start() -> Daemon {
        Daemon::start_with(|_| Vec::new())
    }

    /// As [`Daemon::start`], in a mount namespace of its own that no mount of ours comes into, where all
    /// of the temporary directory but its root and its state is read-only.
    pub fn shut_in() -> Daemon {
        Daemon::of(
            TempDir::new().expect("temporary directory"),
            true,
            Vec::new(),
        )
    }

    /// As [`Daemon::start`], with a socket for containerd beside the other, at `backend.sock`.
    pub fn with_backend() -> Daemon {
        Daemon::start_with(|work| {
            let socket = work.join("backend.sock").into_os_string();
            vec!["--backend-address".into(), socket]
        })
    }

    /// As [`Daemon::start`], with its store elsewhere, and figures at `metrics.sock`.
    pub fn with_store(root: &Path) -> Daemon {
        Daemon::start_with(|work| {
            let socket = work.join("metrics.sock").into_os_string();
            let root = root.as_os_str().to_owned();
            vec!["--root".into(), root, "--metrics-address".into(), socket]
        })
    }

    /// As [`Daemon::start`], with this configuration.
    pub fn configured(text: &str) -> Daemon {
        Daemon::start_with(|work| {
            let file = work.join("config.toml");
            fs::write(&file, text).expect("configuration");
            vec!["--config".into(), file.into_os_string()]
        })
    }

    /// Has it read another configuration, and waits until it has.
    pub fn reload(&self, text: &str) {
        fs::write(self.path("config.toml"), text).expect("configuration");
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        let before = log().len();
        let id = self.process.id().to_string();
        let told = Command::new("kill").args(["-HUP", &id]).status();
        assert!(told.expect("kill").success());
        self.until("the configuration to be read", || {
            log()[before..].contains("configuration")
        });
    }

    /// `cairn` as its client with these arguments, not yet started.
    pub fn cairn(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Cairn::binary());
        command.arg("--address").arg(self.socket()).args(arguments);
        command.env_remove("CONTAINERD_NAMESPACE");
        crate::cairn::nobody(&mut command, self.work.path());
        command
    }

    fn start_with(arguments: impl FnOnce(&Path) -> Vec<OsString>) -> Daemon {
        let work = TempDir::new().expect("temporary directory");
        let arguments = arguments(work.path());
        Daemon::of(work, false, arguments)
    }

    fn of(work: TempDir, shut_in: bool, mut arguments: Vec<OsString>) -> Daemon {
        if !arguments.contains(&"--root".into()) {
            arguments.extend(["--root".into(), work.path().join("root").into_os_string()]);
        }
        let start = Start { arguments, shut_in };
        let process = start.spawn(work.path());
        let daemon = Daemon {
            work,
            process,
            start,
        };
        daemon.wait();
        daemon
    }

    /// Starts another one on the same root; the last must have ended.
    pub fn restart(&mut self) {
        self.process = self.start.spawn(self.work.path());
        self.wait();
    }

    fn wait(&self) {
        let log = || fs::read_to_string(self.path("log")).unwrap_or_default();
        let answers = || self.ctr(&["version"]).status.success();
        wait::until(answers, || format!("no answer:\n{}", log()));
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// A path beside the root.
    pub fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.start.socket(self.work.path())
    }

    /// `ctr` with these arguments, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.socket())
            .args(arguments)
            .env_remove("CONTAINERD_NAMESPACE");
        command
    }

    fn ctr(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("start ctr")
    }

    /// Runs `ctr` and expects success; what it printed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> String {
        let done = self.attempt(arguments);
        done.unwrap_or_else(|said| panic!("ctr {arguments:?}: {said}"))
    }

    /// Runs `ctr`; what it printed, on stderr when it fails.
    pub fn attempt(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.ctr(arguments);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        let id = self.process.id().to_string();
        let told = Command::new("kill").arg(id).status().expect("kill");
        assert!(told.success());
        wait::ended(&mut self.process, || "it does not stop".to_owned())
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, so: impl FnMut() -> bool) {
        wait::until(so, || format!("waited in vain for {what}"));
    }

    /// Its memory that is in no file.
    pub fn anonymous_bytes(&self) -> u64 {
        anonymous_bytes(self.process.id()).expect("it runs")
    }

    /// Runs a program where the daemon is.
    pub fn inside(&self, program: &str, arguments: &[&str]) -> Output {
        let id = self.process.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["-t", &id, "-m", program]).args(arguments);
        command.output().expect("start nsenter")
    }

    /// Mounts below the temporary directory.
    pub fn mounts(&self) -> Vec<String> {
        mounts_below(self.work.path(), "self")
    }

    /// The same, as the daemon sees it.
    pub fn own_mounts(&self) -> Vec<String> {
        mounts_below(self.work.path(), &self.process.id().to_string())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for mount in self.mounts().iter().rev() {
            let _ = Command::new("umount").arg(mount).status();
        }
    }
}

/// Binds the temporary directory over itself without the right to write, but for two directories in it.
const SHUT: &str = "set -e; mkdir -p root state; here=$PWD
    mount --rbind \"$here\" \"$here\"; mount -o remount,bind,ro \"$here\"
    for d in root state; do
        mount --bind \"$here/$d\" \"$here/$d\"; mount -o remount,bind,rw \"$here/$d\"
    done
    cd /; exec \"$@\"";

impl Start {
    fn socket(&self, work: &Path) -> PathBuf {
        work.join(match self.shut_in {
            true => "state/sock",
            false => "sock",
        })
    }

    fn spawn(&self, work: &Path) -> Child {
        let binary = Cairn::binary().with_file_name("cairnd");
        assert!(
            binary.exists(),
            "{} is not built: cargo build -p cairnd",
            binary.display()
        );
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(work.join("log"))
            .expect("log");
        let mut command = match self.shut_in {
            true => {
                let mut command = Command::new("unshare");
                command
                    .args(["--mount", "--propagation", "private", "--"])
                    .args(["sh", "-c", SHUT, "sh"])
                    .arg(binary)
                    .current_dir(work);
                command
            }
            false => Command::new(binary),
        };
        command.arg("--state").arg(work.join("state"));
        command.arg("--address").arg(self.socket(work));
        command.args(&self.arguments);
        crate::cairn::nobody(&mut command, work);
        command
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start cairnd")
    }
}

/// Memory of a process that no file stands behind.
pub(crate) fn anonymous_bytes(process: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes
        .map(|kibibytes| kibibytes << 10)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no RssAnon"))
}

fn mounts_below(path: &Path, process: &str) -> Vec<String> {
    let table = format!("/proc/{process}/mountinfo");
    let table = fs::read_to_string(table).expect("mountinfo");
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    points
        .filter(|point| Path::new(point).starts_with(path))
        .map(str::to_owned)
        .collect()
}
