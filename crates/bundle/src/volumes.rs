//! Directories for an image's volumes.
//!
//! The image-spec wants data written there kept off the container's root. So each volume is a
//! directory inside the bundle, bound over its place, with what the image has there to begin with;
//! it lives as long as the bundle does. (A tmpfs would lose a database at its first stop.)

use std::ffi::OsStr;

use cairn_sys::{Dir, Error, raw};
use cairn_types::IdMap;

use crate::copy;

/// Makes the directory `name` in `volumes` as the image has it at `path`; an empty one of root's,
/// 0755, where the image has none. Whatever leads out of the image leads to nothing. With a map root is
/// the container's; what is in `root` has its owners already.
pub(crate) fn make(
    root: &Dir,
    path: &str,
    (volumes, name): (&Dir, &OsStr),
    map: Option<&IdMap>,
) -> Result<(), Error> {
    volumes.create_dir(name, 0o755)?;
    let to = volumes.open_dir(name)?;
    let from = match root.resolve_dir(path.as_bytes()) {
        Ok(from) => from,
        Err(err) if is_elsewhere(&err) => {
            if let Some(map) = map {
                let (uid, gid) = map.owner(0, 0);
                raw::fchown(&to, uid, gid)?;
            }
            return raw::fchmod(&to, 0o755);
        }
        Err(err) => return Err(err),
    };
    copy::tree(&from, &to, None)
}

fn is_elsewhere(err: &Error) -> bool {
    use rustix::io::Errno;
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| err.is(*errno))
}
