//! The socket. Whoever may connect is root in all but name, so it is never open to more, not even for
//! the moment between `bind` and `chmod`: its directory is closed first.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::Path,
};

use rustix::{fs::Mode, process::umask};
use tokio::net::{UnixListener, UnixStream};

/// Listens at `path`, mode 0600. A socket that nobody listens at any more is replaced; one that
/// somebody answers at is an error.
pub async fn at(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    match UnixStream::connect(path).await {
        Ok(_) => {
            let text = format!("somebody listens at {} already", path.display());
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        Err(err) if err.kind() == io::ErrorKind::NotFound => {}
        Err(_) => remove_stale(path)?,
    }
    // The mask is the process's own; nothing else is made while it starts.
    let before = umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    let kind = fs::symlink_metadata(path)?.file_type();
    if !kind.is_socket() {
        let text = format!("{} is there and is no socket", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    fs::remove_file(path)
}
