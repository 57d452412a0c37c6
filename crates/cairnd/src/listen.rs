//! The socket. Whoever may connect is root in all but name, so it is never open to more, not even for
//! the moment between `bind` and `chmod`: the mode comes with the making.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    process::{geteuid, umask},
};
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// What systemd calls the socket of clients (`FileDescriptorName=`).
const PUBLIC: &str = "public";
/// What systemd calls the socket of containerd.
const BACKEND: &str = "backend";

/// Who may open a socket.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permissions.
    pub mode: u32,
}

impl Default for Owner {
    fn default() -> Owner {
        Owner {
            uid: 0,
            gid: 0,
            mode: 0o600,
        }
    }
}

/// A socket that is listened at.
pub struct Listening {
    /// Accepts.
    pub listener: UnixListener,
    /// What has to be removed in the end; nothing when it is the service manager's.
    pub file: Option<SocketFile>,
}

/// The file of a socket, removed when dropped, unless another one lies there by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<SocketFile> {
        let stat = fs::symlink_metadata(path)?;
        Ok(SocketFile {
            path: path.to_owned(),
            inode: (stat.dev(), stat.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |stat: fs::Metadata| (stat.dev(), stat.ino()) == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Sockets that the service manager listens at for us.
#[derive(Debug, Default)]
pub struct Passed {
    /// That of clients.
    pub public: Option<std::os::unix::net::UnixListener>,
    /// That of containerd.
    pub backend: Option<std::os::unix::net::UnixListener>,
}

/// The sockets that the service manager listens at for us, if it does.
///
/// # Errors
/// When what it passed is not a socket to be listened at.
pub fn passed() -> io::Result<Passed> {
    let names: Vec<String> = sd_notify::listen_fds_with_names()?
        .map(|(_, name)| name)
        .collect();
    let mut passed = listenfd::ListenFd::from_env();
    let mut sockets = Passed::default();
    for (index, name) in names.iter().enumerate() {
        let socket = match &**name {
            BACKEND => &mut sockets.backend,
            // One socket is the public one whatever it is called.
            name if name == PUBLIC || names.len() == 1 => &mut sockets.public,
            name => {
                warn!("the socket {name:?} was passed, but nothing is served there");
                continue;
            }
        };
        let listener = passed.take_unix_listener(index)?;
        if let Some(listener) = &listener {
            listener.set_nonblocking(true)?;
        }
        *socket = listener;
    }
    if !names.is_empty() && sockets.public.is_none() && sockets.backend.is_none() {
        let text = format!("of the sockets passed none is named {PUBLIC} or {BACKEND}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(sockets)
}

/// Listens at `path`, for root alone. A socket that nobody listens at any more is replaced; one that somebody answers
/// at is an error.
pub async fn at(path: &Path) -> io::Result<UnixListener> {
    at_for(path, Owner::default()).await
}

/// As [`at`], for `owner`, and with the file to be removed in the end.
pub async fn bind(path: &Path, owner: Owner) -> io::Result<Listening> {
    Ok(Listening {
        listener: at_for(path, owner).await?,
        file: Some(SocketFile::of(path)?),
    })
}

async fn at_for(path: &Path, owner: Owner) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)?;
    }
    match UnixStream::connect(path).await {
        Ok(stream) => return Err(taken(&stream)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(_) => remove_stale(path)?,
    }
    // The mask is the process's own; nothing else is made while it starts.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    if geteuid().is_root() {
        chown(path, Some(owner.uid), Some(owner.gid))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(owner.mode))?;
    Ok(listener)
}

fn taken(stream: &UnixStream) -> io::Error {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let holder = pid.map(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        match name.trim() {
            "" => format!("pid {pid}"),
            name => format!("{name} (pid {pid})"),
        }
    });
    let holder = holder.unwrap_or_else(|| "somebody".to_owned());
    io::Error::new(
        io::ErrorKind::AddrInUse,
        format!("{holder} listens there already"),
    )
}

fn remove_stale(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let text = "what is there is no socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    fs::remove_file(path)
}
