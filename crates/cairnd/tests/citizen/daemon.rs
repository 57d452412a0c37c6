//! A daemon in a directory of its own, and clients of it.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use cairn_proto::containerd::services::{
    content::v1::{WriteAction, WriteContentRequest, content_client::ContentClient},
    version::v1::version_client::VersionClient,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tonic::{
    Request, Status,
    transport::{Channel, Endpoint},
};

/// No test waits longer for what should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairnd"));
    quiet(&mut command);
    command
}

/// Takes away what the surroundings of the tests would tell the daemon.
pub(crate) fn quiet(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let of = |prefix| name.to_string_lossy().starts_with(prefix);
        if of("CAIRN_") || of("OTEL_") {
            command.env_remove(name);
        }
    }
    for name in [
        "NOTIFY_SOCKET",
        "JOURNAL_STREAM",
        "LISTEN_FDS",
        "WATCHDOG_USEC",
        "RUST_LOG",
    ] {
        command.env_remove(name);
    }
}

/// What a program that ends by itself says: status, output, errors.
pub(crate) fn run(command: &mut Command) -> (ExitStatus, String, String) {
    let output = command.output().expect("runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status, text(&output.stdout), text(&output.stderr))
}

pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A directory with the files of a daemon.
pub(crate) struct Place(pub(crate) TempDir);

impl Place {
    pub(crate) fn new() -> Place {
        Place(TempDir::new().expect("temporary directory"))
    }

    /// With a configuration.
    pub(crate) fn with(text: &str) -> Place {
        let place = Place::new();
        fs::write(place.path("config.toml"), text).expect("configuration");
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/cairn.sock")
    }

    /// The daemon's command line here, for tests that add to it.
    pub(crate) fn command(&self) -> Command {
        let mut command = binary();
        if !self.path("config.toml").exists() {
            fs::write(self.path("config.toml"), "").expect("configuration");
        }
        command.arg("--config").arg(self.path("config.toml"));
        command.arg("--root").arg(self.path("root"));
        command.arg("--state").arg(self.path("run"));
        command
    }

    pub(crate) fn start(&self) -> Daemon {
        self.start_as(self.command())
    }

    pub(crate) fn start_as(&self, command: Command) -> Daemon {
        let daemon = self.spawn(command);
        daemon.serving();
        daemon
    }

    /// Starts it without waiting for it.
    pub(crate) fn spawn(&self, mut command: Command) -> Daemon {
        let log = self.path(&format!("log{}", fastrand()));
        let file = fs::File::create(&log).expect("log");
        let child = command.stderr(Stdio::from(file)).spawn().expect("starts");
        Daemon { child, log }
    }

    pub(crate) async fn channel(&self) -> Channel {
        let uri = format!("unix://{}", self.socket().display());
        let endpoint = Endpoint::from_shared(uri).expect("address");
        endpoint.connect().await.expect("connection")
    }

    /// What a process of its own gets that asks for the version, with its head, and what that says:
    /// `client` is curl, or what starts it with further arguments.
    pub(crate) fn curl(&self, mut client: Command) -> (String, String) {
        client.args(["-sS", "-D", "-", "-o", "/dev/null"]);
        client.args(["-H", "content-type: application/grpc", "-H", "te: trailers"]);
        client.args(["--http2-prior-knowledge", "--data-binary", ""]);
        client.arg("--unix-socket").arg(self.socket());
        client.arg("http://cairn/containerd.services.version.v1.Version/Version");
        let (_, stdout, stderr) = run(&mut client);
        (stdout, stderr)
    }

    pub(crate) async fn version(&self) -> Result<String, Status> {
        let mut client = VersionClient::new(self.channel().await);
        let answer = client.version(request(())).await?;
        Ok(answer.into_inner().version)
    }
}

fn fastrand() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("log")
    }

    /// Waits until it serves.
    pub(crate) fn serving(&self) {
        self.logged("serving at ");
    }

    /// Waits for a line of the log.
    pub(crate) fn logged(&self, text: &str) -> String {
        let look = || {
            let log = self.log();
            log.lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        };
        let began = Instant::now();
        loop {
            if let Some(line) = look() {
                return line;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{text:?} is not in the log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("pid");
        kill_process(pid, signal).expect("signal");
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        wait_for("the daemon's end", || self.child.try_wait().expect("wait"))
    }

    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.ended()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request in the namespace of the tests.
pub(crate) fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = "citizens".parse().expect("namespace");
    request
        .metadata_mut()
        .insert("containerd-namespace", namespace);
    request
}

/// Stores a blob that nothing refers to.
pub(crate) async fn put(channel: &Channel, bytes: &[u8]) -> Result<String, Status> {
    let digest = cairn_types::Digest::sha256(bytes).to_string();
    let commit = WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: format!("ref-{digest}"),
        total: i64::try_from(bytes.len()).expect("size"),
        expected: digest.clone(),
        data: bytes.to_vec().into(),
        ..WriteContentRequest::default()
    };
    let mut client = ContentClient::new(channel.clone());
    let answers = client.write(request(tokio_stream::iter([commit]))).await?;
    let mut answers = answers.into_inner();
    while answers.message().await?.is_some() {}
    Ok(digest)
}

/// A document of the endpoint of figures: status line and body.
pub(crate) fn get(socket: &Path, path: &str) -> (String, String) {
    let mut stream = UnixStream::connect(socket).expect("endpoint");
    let request = format!("GET {path} HTTP/1.1\r\nHost: cairn\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("head and body");
    (
        head.lines().next().unwrap_or_default().to_owned(),
        body.to_owned(),
    )
}
