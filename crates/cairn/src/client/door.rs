//! Which way leads to the store, and may this process take it? Said before anything is tried.

use std::{
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use cairn_types::ErrorKind;
use cairnd::config::Engine;
use tonic::Code;

use super::{
    Result,
    link::{Link, Refusal},
    status,
};
use crate::{
    again,
    args::{Global, Place, ROOT, SOCKET},
    error::{Problem, io_reason, quote},
    size,
};

/// Names the engine.
const ENGINE: &str = "CAIRN_METADATA__ENGINE";

/// How long a daemon may take to answer when `--connect-timeout` does not say.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is behind the door.
pub(super) enum Door {
    /// A daemon that answers.
    Daemon(Link),
    /// A directory, to be opened by this process.
    Store(PathBuf),
}

/// Finds the way that the flags mean. A socket that refuses never leads to the embedded server: two
/// programs would look at two stores and neither would say so.
pub(super) fn find(global: &Global) -> Result<Door> {
    let patience = global.connect_timeout.unwrap_or(PATIENCE);
    let reach = |socket: &Path| {
        let reached = Link::to(socket, patience, global.namespace.clone());
        reached.inspect(|_| tracing::info!("reach cairnd at {}", socket.display()))
    };
    match global.place() {
        Place::Store(root) => Ok(Door::Store(root)),
        Place::Daemon(socket) => match reach(&socket) {
            Ok(link) => Ok(Door::Daemon(link)),
            Err(refusal) => Err(refused(&socket, patience, &refusal, global)),
        },
        Place::Usual => match reach(Path::new(SOCKET)) {
            Ok(link) => Ok(Door::Daemon(link)),
            Err(refusal) if is_nobody(&refusal) => Ok(Door::Store(ROOT.into())),
            Err(refusal) => Err(refused(Path::new(SOCKET), patience, &refusal, global)),
        },
    }
}

fn is_nobody(refusal: &Refusal) -> bool {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound};
    let absent = [NotFound, ConnectionRefused, NotADirectory];
    matches!(refusal, Refusal::Io(err) if absent.contains(&err.kind()))
}

fn refused(socket: &Path, patience: Duration, refusal: &Refusal, global: &Global) -> Problem {
    let problem = |kind, reason: &str| status::unreachable(socket, kind, reason);
    let without = match global.address {
        Some(_) => "leave out --address to work without a daemon",
        None => "unset CAIRN_ADDRESS to work without a daemon",
    };
    match refusal {
        Refusal::Io(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            let reason = format!("permission denied ({}you are {})", owner(socket), user());
            problem(ErrorKind::PermissionDenied, &reason)
                .next(again(global.address.is_none().then_some(socket)))
                .next("to open it for a group: man cairnd, SOCKET")
        }
        Refusal::Io(_) if is_nobody(refusal) => {
            problem(ErrorKind::Unavailable, "nobody listens there")
                .next("systemctl start cairnd")
                .next(without)
        }
        Refusal::Io(err) => problem(ErrorKind::Unavailable, &io_reason(err)),
        Refusal::Late => {
            let reason = format!("no answer within {}", size::duration(patience));
            let problem = problem(ErrorKind::Unavailable, &reason).next("systemctl status cairnd");
            match global.place() {
                Place::Usual => problem.next("name the store to work without a daemon: --root DIR"),
                _ => problem.next(without),
            }
        }
        Refusal::Said(said) if said.code() == Code::PermissionDenied => {
            let reason = format!("it does not serve {}", user());
            problem(ErrorKind::PermissionDenied, &reason)
                .next(again(global.address.is_none().then_some(socket)))
                .next("to open it for a group: man cairnd, SOCKET")
        }
        Refusal::Said(said) => {
            let said = status::problem(said);
            problem(said.kind, "what listens there is no cairnd").cause(&said.reason)
        }
    }
}

/// `socket is root:root 0600, `, or nothing when even that is not to be known.
fn owner(socket: &Path) -> String {
    let Ok(stat) = std::fs::metadata(socket) else {
        return String::new();
    };
    let user = nix::unistd::User::from_uid(stat.uid().into());
    let user = user.ok().flatten().map(|user| user.name);
    let user = user.unwrap_or_else(|| stat.uid().to_string());
    let group = nix::unistd::Group::from_gid(stat.gid().into());
    let group = group.ok().flatten().map(|group| group.name);
    let group = group.unwrap_or_else(|| stat.gid().to_string());
    let noun = match stat.file_type().is_socket() {
        true => "socket",
        false => "file",
    };
    format!("{noun} is {user}:{group} {:04o}, ", stat.mode() & 0o7777)
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
    Err(Problem::new(ErrorKind::PermissionDenied, "open", &name, reason).next(again(None)))
}

/// The same command with more rights. They come without the environment, so a socket that it named
/// is said.
fn again(socket: Option<&Path>) -> String {
    let command = again::unchanged();
    match socket.filter(|socket| *socket != Path::new(SOCKET)) {
        Some(socket) => {
            let socket = format!("cairn --address {}", quote(&socket.to_string_lossy()));
            format!("sudo {}", command.replacen("cairn", &socket, 1))
        }
        None => format!("sudo {command}"),
    }
}

/// Which engine keeps the records: what the environment says as the daemon's configuration says it,
/// or the default. A store that the other one wrote says so when it is opened.
pub(super) fn engine() -> Result<Engine> {
    let Some(text) = std::env::var_os(ENGINE).filter(|text| !text.is_empty()) else {
        return Ok(Engine::Redb);
    };
    let mut known = [Engine::Redb, Engine::Sled].into_iter();
    known.find(|engine| text == engine.name()).ok_or_else(|| {
        let text = quote(&text.to_string_lossy());
        Problem::usage(format!("{ENGINE}={text} is neither redb nor sled"))
    })
}

/// Adds who runs this to a problem that is one for want of rights, and the same command with more of
/// them.
pub(super) fn with_rights(mut problem: Problem, socket: Option<&Path>) -> Problem {
    if problem.kind == ErrorKind::PermissionDenied && problem.reason.ends_with("needs root") {
        problem.reason.push_str(&format!(", you are {}", user()));
        problem.next = vec![again(socket)];
    }
    problem
}

/// The name of whoever runs this, or the number of an unknown one.
fn user() -> String {
    let uid = nix::unistd::geteuid();
    let known = nix::unistd::User::from_uid(uid).ok().flatten();
    known.map_or_else(|| format!("uid {uid}"), |user| user.name)
}
