//! May this process use the store at all? Said before anything is tried.

use std::{io, os::unix::net::UnixStream, path::Path, sync::mpsc, thread, time::Duration};

use cairn_node::EngineKind;
use cairn_types::ErrorKind;

use super::Result;
use crate::{
    error::{Problem, quote},
    size,
};

/// Names the engine.
const ENGINE: &str = "CAIRN_METADATA__ENGINE";

/// How long a daemon may take to answer when `--connect-timeout` does not say.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a daemon would listen.
const SOCKET: &str = "/run/cairn/cairn.sock";

/// A socket that was asked for and that refuses never leads to embedded mode.
pub(super) fn unreachable_daemon(socket: &Path, patience: Option<Duration>) -> Problem {
    let patience = patience.unwrap_or(PATIENCE);
    let attempted = "reach cairnd at";
    let name = socket.display().to_string();
    let problem = |kind, reason: String| {
        let mut problem = Problem::new(kind, attempted, "", reason);
        problem.object = Some(("daemon".to_owned(), name.clone()));
        problem
    };
    match connect(socket, patience) {
        Ok(_) => problem(
            ErrorKind::Unimplemented,
            "this cairn speaks over no socket yet".to_owned(),
        )
        .next("leave out --address to work without a daemon"),
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            let reason = format!("permission denied (you are {})", user());
            problem(ErrorKind::PermissionDenied, reason)
        }
        Err(err) if err.kind() == io::ErrorKind::TimedOut => {
            let reason = format!("no answer within {}", size::duration(patience));
            problem(ErrorKind::Unavailable, reason)
                .next("systemctl status cairnd")
                .next("leave out --address to work without a daemon")
        }
        Err(_) => problem(ErrorKind::Unavailable, "nobody listens there".to_owned())
            .next("systemctl start cairnd")
            .next("leave out --address to work without a daemon"),
    }
}

/// A listener whose queue is full lets callers wait for ever; the thread that does so ends with the
/// program.
fn connect(socket: &Path, patience: Duration) -> io::Result<UnixStream> {
    let (answer, wait) = mpsc::channel();
    let socket = socket.to_owned();
    thread::Builder::new().spawn(move || {
        // Nobody waits any more when it is late.
        let _ = answer.send(UnixStream::connect(socket));
    })?;
    wait.recv_timeout(patience)
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Layers are unpacked with their owners and mounted, so nobody but root gets far; better to say so
/// at once than in the middle.
pub(super) fn check_root(root: &Path) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let reason = format!(
        "permission denied (you are {}, and no daemon answers at {SOCKET})",
        user()
    );
    let name = root.display().to_string();
    let words = std::env::args().skip(1).map(|word| quote(&word));
    let again = std::iter::once("sudo cairn".to_owned())
        .chain(words)
        .collect::<Vec<_>>();
    Err(Problem::new(ErrorKind::PermissionDenied, "open", &name, reason).next(again.join(" ")))
}

/// Which engine keeps the records: what the environment says as the daemon's configuration will say
/// it, or the default. A store that the other one wrote says so when it is opened.
pub(super) fn engine() -> Result<EngineKind> {
    let Some(text) = std::env::var_os(ENGINE).filter(|text| !text.is_empty()) else {
        return Ok(EngineKind::default());
    };
    let mut known = [EngineKind::Redb, EngineKind::Sled].into_iter();
    known.find(|kind| text == kind.name()).ok_or_else(|| {
        let text = quote(&text.to_string_lossy());
        Problem::usage(format!("{ENGINE}={text} is neither redb nor sled"))
    })
}

/// The name of whoever runs this, or the number of an unknown one.
fn user() -> String {
    let uid = nix::unistd::geteuid();
    let known = nix::unistd::User::from_uid(uid).ok().flatten();
    known.map_or_else(|| format!("uid {uid}"), |user| user.name)
}
