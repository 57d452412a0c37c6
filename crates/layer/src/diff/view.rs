//! What a name is in a stack of layers: the rules by which overlay merges directories.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use cairn_sys::{Dir, FileType, Stat, raw};
use rustix::io::Errno;

use super::Error;
use crate::{
    apply::attributes::{file_type, is_whiteout},
    path::{join, shown},
};

/// The directories that make up one directory of a stack, nearest first, each with the number of its
/// layer.
#[derive(Clone, Default)]
pub(super) struct Merged {
    pub(super) layers: Vec<usize>,
    /// As many; none while they are closed.
    pub(super) dirs: Vec<Dir>,
}

impl Merged {
    /// The root of a stack.
    pub(super) fn root(layers: &[Dir]) -> Merged {
        Merged {
            layers: (0..layers.len()).collect(),
            dirs: layers.to_vec(),
        }
    }

    /// Opens what was closed.
    pub(super) fn reopen(&mut self, roots: &[Dir], path: &[u8]) -> Result<(), Error> {
        let open = |layer: &usize| match roots[*layer].open_dir(OsStr::from_bytes(path)) {
            Err(err) if is_race(&err) => Err(Error::changed(path)),
            other => other.map_err(Error::read(path)),
        };
        self.dirs = self.layers.iter().map(open).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// All names in any of the directories.
    pub(super) fn names(&self, path: &[u8], names: &mut Vec<OsString>) -> Result<(), Error> {
        for dir in &self.dirs {
            let entries = dir.entries().map_err(Error::read(path))?;
            names.extend(entries.into_iter().map(|entry| entry.name));
        }
        Ok(())
    }
}

/// What shows under a name.
pub(super) enum Top {
    Directory(Stat),
    /// Anything else, in this directory.
    Leaf(Dir, Stat),
}

impl Top {
    pub(super) fn is_socket(&self) -> bool {
        matches!(self, Top::Leaf(_, stat) if file_type(stat) == FileType::Socket)
    }
}

/// A name looked up.
#[derive(Default)]
pub(super) struct Found {
    pub(super) top: Option<Top>,
    /// Of a directory: all that merge into it.
    pub(super) merged: Merged,
    /// Nothing of any layer below shows under this name.
    pub(super) ended: bool,
}

/// The extended attributes by which overlay speaks to itself.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    pub(super) opaque: &'static str,
    pub(super) redirect: &'static str,
    pub(super) metacopy: &'static str,
}

impl Marks {
    pub(super) fn new(userxattr: bool) -> Marks {
        match userxattr {
            false => Marks {
                opaque: "trusted.overlay.opaque",
                redirect: "trusted.overlay.redirect",
                metacopy: "trusted.overlay.metacopy",
            },
            true => Marks {
                opaque: "user.overlay.opaque",
                redirect: "user.overlay.redirect",
                metacopy: "user.overlay.metacopy",
            },
        }
    }

    /// Looks `name` up in a merged directory at `path`.
    pub(super) fn look_up(&self, at: &Merged, path: &[u8], name: &OsStr) -> Result<Found, Error> {
        let mut found = Found::default();
        let whole = || join(path, name.as_bytes());
        for (layer, dir) in at.layers.iter().zip(&at.dirs) {
            let stat = dir
                .try_stat(name)
                .map_err(|err| Error::read(&whole())(err))?;
            let Some(stat) = stat else { continue };
            let kind = file_type(&stat);
            if kind != FileType::Directory {
                found.ended = true;
                if found.top.is_none() && !is_whiteout(kind, &stat) {
                    found.top = Some(Top::Leaf(dir.clone(), stat));
                }
                return Ok(found);
            }
            let (opened, stat, opaque) = self.enter(dir, name, &whole())?;
            found.top.get_or_insert(Top::Directory(stat));
            found.merged.layers.push(*layer);
            found.merged.dirs.push(opened);
            if opaque {
                found.ended = true;
                return Ok(found);
            }
        }
        Ok(found)
    }

    /// Opens a directory and says whether it is opaque.
    fn enter(&self, dir: &Dir, name: &OsStr, path: &[u8]) -> Result<(Dir, Stat, bool), Error> {
        let failed = Error::read(path);
        let opened = match dir.open_dir(name) {
            Err(err) if is_race(&err) => return Err(Error::changed(path)),
            other => other.map_err(&failed)?,
        };
        let stat = opened.self_stat().map_err(&failed)?;
        let mut opaque = false;
        for xattr in raw::flistxattr(&opened).map_err(&failed)? {
            if xattr == self.redirect {
                return Err(Error::Feature {
                    path: shown(path),
                    feature: "redirect_dir=on",
                });
            }
            if xattr == self.opaque {
                let value = raw::fgetxattr(&opened, &xattr).map_err(&failed)?;
                opaque = value.as_deref() == Some(b"y");
            }
        }
        Ok((opened, stat, opaque))
    }
}

/// What another process did to a name between two looks at it.
pub(super) fn is_race(err: &cairn_sys::Error) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::LOOP]
        .iter()
        .any(|errno| err.is(*errno))
}
