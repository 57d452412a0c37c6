//! Whether a name shows the same on both sides.
//!
//! Mode, owner, device number, extended attributes; of what is no directory also size, time and
//! content. Times of directories are not compared: an overlay changes them without a word, and a
//! directory with a change in it is written anyway.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    os::unix::{ffi::OsStrExt, fs::FileExt},
};

use cairn_sys::{Dir, FileType, OFlags, Stat, raw};

use super::{
    Error,
    view::{Found, Marks, Top, is_race},
};
use crate::{
    apply::attributes::{file_type, storable},
    path::{shown, split},
};

const BUFFER_BYTES: usize = 128 << 10;

/// Extended attributes that a layer keeps.
pub(super) type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// Whether both show the same. `path` is where they are.
pub(super) fn same(marks: &Marks, path: &[u8], left: &Found, right: &Found) -> Result<bool, Error> {
    let (Some(left_top), Some(right_top)) = (&left.top, &right.top) else {
        return Ok(false);
    };
    match (left_top, right_top) {
        (Top::Directory(a), Top::Directory(b)) => {
            if is_one(a, b) {
                return Ok(true);
            }
            Ok(same_rights(a, b)
                && of_dir(path, &left.merged.dirs[0])? == of_dir(path, &right.merged.dirs[0])?)
        }
        (Top::Leaf(a_dir, a), Top::Leaf(b_dir, b)) => {
            if is_one(a, b) {
                return Ok(true);
            }
            if !same_rights(a, b) || !same_leaf(a, b) {
                return Ok(false);
            }
            if of_leaf(marks, path, a_dir)? != of_leaf(marks, path, b_dir)? {
                return Ok(false);
            }
            same_content(path, (a_dir, a), (b_dir, b))
        }
        _ => Ok(false),
    }
}

fn is_one(a: &Stat, b: &Stat) -> bool {
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

/// Type, mode and owner.
pub(super) fn same_rights(a: &Stat, b: &Stat) -> bool {
    (a.st_mode, a.st_uid, a.st_gid) == (b.st_mode, b.st_uid, b.st_gid)
}

fn same_leaf(a: &Stat, b: &Stat) -> bool {
    let device = matches!(
        file_type(a),
        FileType::CharacterDevice | FileType::BlockDevice
    );
    (!device || a.st_rdev == b.st_rdev)
        && a.st_size == b.st_size
        && (a.st_mtime, a.st_mtime_nsec) == (b.st_mtime, b.st_mtime_nsec)
}

fn same_content(
    path: &[u8],
    (a_dir, a): (&Dir, &Stat),
    (b_dir, b): (&Dir, &Stat),
) -> Result<bool, Error> {
    let name = OsStr::from_bytes(split(path).1);
    match file_type(a) {
        FileType::Symlink => {
            let target = |dir: &Dir| dir.read_link(name).map_err(Error::read(path));
            Ok(target(a_dir)? == target(b_dir)?)
        }
        FileType::RegularFile if a.st_size > 0 => {
            let (a_file, _) = open_file(a_dir, path, a)?;
            let (b_file, _) = open_file(b_dir, path, b)?;
            same_bytes(path, &a_file, &b_file)
        }
        _ => Ok(true),
    }
}

fn same_bytes(path: &[u8], a: &File, b: &File) -> Result<bool, Error> {
    let mut buffers = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    let mut offset = 0;
    loop {
        let got = fill(path, a, &mut buffers.0, offset)?;
        let other = fill(path, b, &mut buffers.1, offset)?;
        if buffers.0[..got] != buffers.1[..other] {
            return Ok(false);
        }
        if got == 0 {
            return Ok(true);
        }
        offset += got as u64;
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn fill(
    path: &[u8],
    file: &File,
    buffer: &mut [u8],
    offset: u64,
) -> Result<usize, Error> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(err) if err.kind() == std::io::ErrorKind::Interrupted => {}
            Err(err) => {
                let source = cairn_sys::Error::of_io("pread", shown(path), &err);
                return Err(Error::read(path)(source));
            }
        }
    }
    Ok(filled)
}

/// Opens the regular file that was seen; what it is now comes along.
pub(super) fn open_file(dir: &Dir, path: &[u8], seen: &Stat) -> Result<(File, Stat), Error> {
    let name = OsStr::from_bytes(split(path).1);
    // Should a fifo have taken the name meanwhile, opening it must not wait.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK;
    let file = match dir.open_file(name, flags, 0) {
        Err(err) if is_race(&err) => return Err(Error::changed(path)),
        other => other.map_err(Error::read(path))?,
    };
    let stat = rustix::fs::fstat(&file)
        .map_err(|errno| Error::read(path)(cairn_sys::Error::new("fstat", shown(path), errno)))?;
    match is_one(&stat, seen) {
        true => Ok((file, stat)),
        false => Err(Error::changed(path)),
    }
}

/// The attributes of a directory that a layer keeps.
pub(super) fn of_dir(path: &[u8], dir: &Dir) -> Result<Xattrs, Error> {
    let failed = Error::read(path);
    let mut xattrs = Xattrs::new();
    for name in raw::flistxattr(dir).map_err(&failed)? {
        if is_kept(name.as_bytes())
            && let Some(value) = raw::fgetxattr(dir, &name).map_err(&failed)?
        {
            xattrs.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(xattrs)
}

/// The attributes that a layer keeps of anything else.
pub(super) fn of_leaf(marks: &Marks, path: &[u8], dir: &Dir) -> Result<Xattrs, Error> {
    let failed = Error::read(path);
    let own = OsStr::from_bytes(split(path).1);
    let mut xattrs = Xattrs::new();
    for name in dir.list_xattr(own).map_err(&failed)? {
        if name == marks.metacopy {
            return Err(Error::Feature {
                path: shown(path),
                feature: "metacopy=on",
            });
        }
        if is_kept(name.as_bytes())
            && let Some(value) = dir.get_xattr(own, &name).map_err(&failed)?
        {
            xattrs.insert(name.as_bytes().to_vec(), value);
        }
    }
    Ok(xattrs)
}

/// In an extended header an equals sign ends the name.
fn is_kept(name: &[u8]) -> bool {
    storable(name) && !name.contains(&b'=')
}
