//! Which directory speaks of a host, and Docker's way to put certificates there.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use super::{HostsError, Origin, file, settings::Settings};

/// Speaks of every host that has no directory of its own.
pub(super) const DEFAULT: &str = "_default";

/// What is known of a host: of those before it, in order, and of its own endpoint.
#[derive(Default)]
pub(super) struct Known {
    pub(super) mirrors: Vec<Settings>,
    pub(super) own: Settings,
}

/// The first directory that speaks of a host. As in containerd, all names are tried in one search
/// directory, [`DEFAULT`] included, before the next is looked at.
pub(super) fn find(host: &str, dirs: &[PathBuf]) -> Result<Option<PathBuf>, HostsError> {
    for dir in dirs {
        // What is left of a list such as `:/etc/certs.d` would be the working directory.
        if dir.as_os_str().is_empty() {
            continue;
        }
        for name in names(host) {
            let path = dir.join(name);
            match fs::metadata(&path) {
                Ok(_) => return Ok(Some(path)),
                Err(err) if err.kind() == io::ErrorKind::NotFound => {}
                Err(err) => return Err(HostsError::unreadable(&path, &err)),
            }
        }
    }
    Ok(None)
}

/// `host:port` is looked for as `host_port_` first, the spelling for file systems without colons.
fn names(host: &str) -> Vec<String> {
    let port = host.rsplit_once(':').filter(|(name, _)| !name.is_empty());
    let plain = port.map(|(name, port)| format!("{name}_{port}_"));
    let rest = [host.to_owned(), DEFAULT.to_owned()];
    plain.into_iter().chain(rest).collect()
}

/// The hosts that have a directory of their own. What cannot be read has none: it is told of by whoever asks
/// for one of its hosts.
pub(super) fn hosts(dirs: &[PathBuf]) -> BTreeSet<String> {
    let entries = dirs
        .iter()
        .filter(|dir| !dir.as_os_str().is_empty())
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir());
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.map(|name| host(&name)).collect()
}

/// The host that a directory is named after.
fn host(name: &str) -> String {
    let port = name
        .strip_suffix('_')
        .and_then(|rest| rest.rsplit_once('_'));
    match port {
        Some((host, port)) if !host.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{host}:{port}")
        }
        _ => name.to_owned(),
    }
}

/// What a directory says: its `hosts.toml`, or where that is missing or empty, certificates.
pub(super) fn load(dir: &Path) -> Result<Known, HostsError> {
    let file = dir.join("hosts.toml");
    match fs::read(&file) {
        Ok(bytes) if bytes.is_empty() => certificates(dir),
        Ok(bytes) => file::parse(&file, &bytes),
        Err(err) if err.kind() == io::ErrorKind::NotFound => certificates(dir),
        Err(err) => Err(HostsError::unreadable(&file, &err)),
    }
}

/// Docker's files: `*.crt` are authorities, `*.cert` are client certificates, whose key is beside them
/// as `*.key` or in the same file.
fn certificates(dir: &Path) -> Result<Known, HostsError> {
    let unreadable = |err| HostsError::unreadable(dir, &err);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_type().map_err(unreadable)?.is_dir() {
            files.push(entry.path());
        }
    }
    files.sort();
    let mut own = Settings::default();
    for file in files {
        match file.extension().and_then(|end| end.to_str()) {
            Some("crt") => own.ca.push(file),
            Some("cert") => {
                let key = file.with_extension("key");
                let there = key
                    .try_exists()
                    .map_err(|err| HostsError::unreadable(&key, &err))?;
                own.client.push((file, there.then_some(key)));
            }
            _ => {}
        }
    }
    if own.speaks_of_tls() {
        own.from = Origin::Directory(dir.to_owned());
    }
    Ok(Known {
        mirrors: Vec::new(),
        own,
    })
}
