//! What Cairn does outside of its store: bundles' directories, and mounts.
//!
//! A bundle is an image's files under a writable layer, and a `config.json`, as an OCI runtime wants
//! them (runtime-spec `bundle.md`). The store prepares the layer and keeps a record; it may be in
//! another process, which mounts nothing and writes nowhere else. All that is done here, by whoever
//! has a [`Store`]:
//!
//! - `place` finds where a bundle is to be and builds it aside, `create` and `remove` are the
//!   verbs; `claim` keeps two from working on one directory;
//! - `spec` writes the configuration by the conversion rules of the image-spec, from the parts
//!   `process`, `users`, `cwd`, `seccomp` and `volumes`; `merge` lays a user's own over it;
//! - `copy` makes plain files of what would otherwise be mounted; `owners` is for containers with users
//!   of their own;
//! - `image` mounts an image's files without a container.
//!
//! A bundle is made in a hidden directory beside its own, which is renamed when all is in it: the
//! final name is absent or leads to a whole bundle. Its record says first that it is being made, and
//! last that it is whole. What is neither, and has nobody at work on it, is undone by the next who
//! comes by (`finish`).

mod claim;
mod configure;
mod copy;
mod create;
mod cwd;
mod image;
mod merge;
mod owners;
mod place;
mod process;
mod remove;
mod seccomp;
mod spec;
mod store;
mod users;
mod volumes;

use std::path::PathBuf;

use cairn_sys::mount;
use cairn_types::{IdMap, ImageName, Namespace, Platform};

pub use create::create;
pub use image::{
    MountRequest, Mounts, Prepared, mount as mount_image, mounted_at, unmount as unmount_image,
};
pub use remove::{finish, remove};
pub use store::{Begun, Known, Store};

/// Which network a container sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Net {
    /// A namespace of its own with nothing but a loopback device.
    #[default]
    None,
    /// That of the host, with its `/etc/resolv.conf` and `/etc/hosts`.
    Host,
}

/// What to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRequest {
    /// The namespace that has the image.
    pub ns: Namespace,
    /// Its full name.
    pub image: ImageName,
    /// Where the bundle shall be: absent or empty.
    pub dir: PathBuf,
    /// What the container will be called; from the directory's name when `None`.
    pub id: Option<String>,
    /// Which variant; the host's when `None`.
    pub platform: Option<Platform>,
    /// `K=V` adds or replaces a variable, `K` alone takes over the caller's.
    pub env: Vec<String>,
    /// Instead of the image's.
    pub cwd: Option<String>,
    /// Instead of the image's: `user`, `uid`, `user:group` and so on.
    pub user: Option<String>,
    /// Instead of the id.
    pub hostname: Option<String>,
    /// The process gets a terminal.
    pub tty: bool,
    /// Its network.
    pub net: Net,
    /// The root is mounted read-only, but for the image's volumes.
    pub read_only: bool,
    /// Instead of the image's entrypoint; its default arguments are then dropped, too.
    pub entrypoint: Option<String>,
    /// Instead of the image's default arguments (its entrypoint stays).
    pub args: Vec<String>,
    /// The container has a user namespace in which these are its users and groups.
    pub owners: Option<IdMap>,
    /// The root is a copy of the image's files instead of a mount.
    pub copy: bool,
    /// Laid over `config.json` when all else is in it (RFC 7396).
    pub config: Option<serde_json::Value>,
}

impl BundleRequest {
    /// A bundle of `image` at `dir`, everything else as the image says.
    pub fn new(ns: Namespace, image: ImageName, dir: PathBuf) -> BundleRequest {
        BundleRequest {
            ns,
            image,
            dir,
            id: None,
            platform: None,
            env: Vec::new(),
            cwd: None,
            user: None,
            hostname: None,
            tty: false,
            net: Net::None,
            read_only: false,
            entrypoint: None,
            args: Vec::new(),
            owners: None,
            copy: false,
            config: None,
        }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundled {
    /// The bundle's directory, absolute and without links.
    pub dir: PathBuf,
    /// What to call the container.
    pub id: String,
    /// The variant that was taken.
    pub platform: Platform,
    /// Its root is plain files, and the store is not needed any more to run it. Also when that was not
    /// asked for, because owners could not be mapped otherwise.
    pub copied: bool,
    /// A directory on the way to it that the container's root cannot go through.
    pub closed: Option<PathBuf>,
    /// The bundle was there already and has only been mounted again, as it was.
    pub remounted: bool,
    /// The image's labels that a runtime would obey, and that are not in the configuration therefore.
    pub withheld_labels: Vec<String>,
}

/// Whether a root is mounted for the bundle at `dir`; it is not after the machine was started again.
///
/// # Errors
/// When the kernel does not say.
pub fn is_mounted(dir: &std::path::Path) -> Result<bool, cairn_sys::Error> {
    let root = dir.join(place::ROOTFS);
    match mount::is_mount_point(&root) {
        // A bundle's directory is closed to others; what is mounted is no secret.
        Err(err) if err.is(rustix::io::Errno::ACCESS) => {
            let mounts = mount::mounts_below(&root)?;
            Ok(mounts.iter().any(|mount| mount.mount_point == root))
        }
        other => other,
    }
}

/// Bytes on disk of the root of the bundle at `dir`, where that is plain files.
///
/// # Errors
/// When they cannot be counted: it is gone, or another's.
pub fn copied_size(dir: &std::path::Path) -> Result<u64, cairn_sys::Error> {
    let root = cairn_sys::Dir::open(&dir.join(place::ROOTFS))?;
    Ok(root.usage()?.bytes)
}
