//! May this process use the store at all? Said before anything is tried.

use std::{io, os::unix::net::UnixStream, path::Path};

use cairn_node::EngineKind;
use cairn_types::ErrorKind;

use super::Result;
use crate::error::{Problem, quote};

/// Names the engine.
const ENGINE: &str = "CAIRN_METADATA__ENGINE";

/// Where a daemon would listen.
const SOCKET: &str = "/run/cairn/cairn.sock";

/// A socket that was asked for and that refuses never leads to embedded mode.
pub(super) fn unreachable_daemon(socket: &Path) -> Problem {
    let attempted = "reach cairnd at";
    let name = socket.display().to_string();
    let problem = |kind, reason: String| {
        let mut problem = Problem::new(kind, attempted, "", reason);
        problem.object = Some(("daemon".to_owned(), name.clone()));
        problem
    };
    match UnixStream::connect(socket) {
        Ok(_) => problem(
            ErrorKind::Unimplemented,
            "this cairn speaks over no socket yet".to_owned(),
        )
        .next("leave out --address to work without a daemon"),
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => {
            let reason = format!("permission denied (you are {})", user());
            problem(ErrorKind::PermissionDenied, reason)
        }
        Err(_) => problem(ErrorKind::Unavailable, "nobody listens there".to_owned())
            .next("systemctl start cairnd")
            .next("leave out --address to work without a daemon"),
    }
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
