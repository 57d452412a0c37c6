//! The directories of the layer: opened one component at a time, invented where an entry needs one,
//! and remembered until the end, when times are set and overlay's marks are final.
//!
//! The kernel's own in-root resolution (`RESOLVE_IN_ROOT`) does not create what is missing and does
//! not say where a link led to. So links are followed here, each component by a call that cannot
//! follow one, and every directory is known by its real path in the layer. A link that someone swaps
//! in between two calls is met as a link and stays inside the root.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    os::unix::ffi::{OsStrExt, OsStringExt},
    rc::Rc,
};

use cairn_sys::Dir;
use rustix::{fs::FileType, io::Errno};

use super::{
    attributes::{self, Times},
    delete::Marks,
};
use crate::{
    Error, Refusal,
    path::{PATH_BYTES_MAX, join, shown, split},
};

/// As many as the kernel follows in one lookup.
const LINKS_MAX: usize = 40;
/// Tar lists a tree depth first, so few directories are in use at a time; a process has 1,024
/// descriptors by default and unpacks several layers at once.
const OPEN_DIRS_MAX: usize = 64;
/// Bytes of the paths of all directories that are ever made: they are remembered to the end. A
/// million directories of usual depth have that; one entry of 4 KiB can need 2,000 directories, and
/// the kilobytes of a layer so the memory and the inodes of a machine.
const DIR_PATHS_BYTES_MAX: usize = 64 << 20;

/// An open directory of the layer.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) dir: Dir,
    /// From the layer's root, without links; empty for the root itself.
    pub(super) path: Rc<[u8]>,
}

/// What to do about a directory that is not there.
#[derive(Clone, Copy)]
pub(super) enum Missing {
    /// Make it: an entry needs it.
    Invent(Times),
    /// Make it for a mark, which needs it only where the layers below show through.
    InventForMark(Times),
    /// Leave it missing.
    Leave,
}

/// What is remembered of a directory until the layer is complete.
pub(super) struct Known {
    times: Times,
    /// No entry of its own has come yet.
    pub(super) invented: bool,
    /// Nothing of the layers below shows in it.
    pub(super) opaque: bool,
}

/// What is said of the directories at the end, by their real paths, parents first.
pub(super) struct Remembered {
    pub(super) invented: Vec<Vec<u8>>,
    pub(super) whited: Vec<Vec<u8>>,
}

/// Why a walk ended early; the caller knows the entry it was for.
pub(super) enum Stop {
    Refused(Refusal),
    Failed(cairn_sys::Error),
}

impl From<cairn_sys::Error> for Stop {
    fn from(err: cairn_sys::Error) -> Stop {
        Stop::Failed(err)
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

impl Stop {
    pub(super) fn at(self, entry: &[u8]) -> Error {
        match self {
            Stop::Refused(refusal) => Error::refused(entry, refusal),
            Stop::Failed(source) => Error::write(entry)(source),
        }
    }
}

pub(super) struct Tree {
    root: Place,
    pub(super) opaque_xattr: &'static str,
    pub(super) marks: Marks,
    /// By the path they were asked for and by their real path. Emptied whenever a directory or a
    /// link is replaced, since any path may have led through it.
    pub(super) open: HashMap<Vec<u8>, Place>,
    /// Every directory of the layer by its real path.
    pub(super) known: BTreeMap<Vec<u8>, Known>,
    /// Bytes of the paths of all directories that were made.
    made_bytes: usize,
    pub(super) any_opaque: bool,
    /// Directories in which a whiteout was made, by their real path.
    pub(super) whited: BTreeSet<Vec<u8>>,
}

impl Tree {
    pub(super) fn new(upper: &Dir, opaque_xattr: &'static str, marks: Marks) -> Tree {
        Tree {
            root: Place {
                dir: upper.clone(),
                path: Rc::from(&b""[..]),
            },
            opaque_xattr,
            marks,
            open: HashMap::new(),
            known: BTreeMap::new(),
            made_bytes: 0,
            any_opaque: false,
            whited: BTreeSet::new(),
        }
    }

    pub(super) fn root(&self) -> &Place {
        &self.root
    }

    /// Opens the directory at a cleaned path, through links if the layer has some there. `None` only
    /// where [`Missing`] allows a directory to stay away.
    pub(super) fn enter(&mut self, path: &[u8], missing: Missing) -> Result<Option<Place>, Stop> {
        if path.is_empty() {
            return Ok(Some(self.root.clone()));
        }
        if let Some(place) = self.open.get(path) {
            return Ok(Some(place.clone()));
        }
        let (start, rest) = self.nearest_open(path);
        let mut walk = Walk {
            here: start,
            ahead: Vec::new(),
            links: 0,
            missing,
        };
        walk.push(rest);
        while let Some(name) = walk.ahead.pop() {
            if !self.step(&mut walk, &name)? {
                return Ok(None);
            }
        }
        self.keep_open(path, &walk.here);
        Ok(Some(walk.here))
    }

    /// The longest part of `path` that is open, and what remains.
    fn nearest_open<'p>(&self, path: &'p [u8]) -> (Place, &'p [u8]) {
        let (mut parent, _) = split(path);
        while !parent.is_empty() {
            if let Some(place) = self.open.get(parent) {
                return (place.clone(), &path[parent.len() + 1..]);
            }
            (parent, _) = split(parent);
        }
        (self.root.clone(), path)
    }

    fn keep_open(&mut self, path: &[u8], place: &Place) {
        if self.open.len() >= OPEN_DIRS_MAX {
            self.open.clear();
        }
        self.open.insert(path.to_vec(), place.clone());
    }

    /// One component further; false if the walk ends at something missing that may be missing.
    fn step(&mut self, walk: &mut Walk, name: &[u8]) -> Result<bool, Stop> {
        match name {
            b"" | b"." => return Ok(true),
            b".." => {
                // The real path has no links in it, so its parent is the directory above.
                let above = split(&walk.here.path).0.to_vec();
                return match self.enter(&above, Missing::Leave)? {
                    Some(place) => {
                        walk.here = place;
                        Ok(true)
                    }
                    None => Ok(false),
                };
            }
            _ => {}
        }
        match walk.here.dir.open_dir(OsStr::from_bytes(name)) {
            Ok(dir) => {
                let path = join(&walk.here.path, name);
                walk.here = Place {
                    dir,
                    path: Rc::from(path.as_slice()),
                };
                self.keep_open(&path, &walk.here);
                Ok(true)
            }
            Err(err) if err.is(Errno::NOENT) => match walk.missing {
                Missing::Leave => Ok(false),
                Missing::InventForMark(_) if self.hides_below(&walk.here.path) => Ok(false),
                Missing::Invent(times) | Missing::InventForMark(times) => {
                    walk.here = self.invent(&walk.here, name, times)?;
                    Ok(true)
                }
            },
            Err(err) if err.is(Errno::NOTDIR) || err.is(Errno::LOOP) => self.detour(walk, name),
            Err(err) => Err(err.into()),
        }
    }

    /// The component is no directory: a link to follow, a whiteout to lift, or the end.
    fn detour(&mut self, walk: &mut Walk, name: &[u8]) -> Result<bool, Stop> {
        let name_os = OsStr::from_bytes(name);
        let stat = walk.here.dir.stat(name_os)?;
        match attributes::file_type(&stat) {
            FileType::Symlink => {
                walk.links += 1;
                let target = walk.here.dir.read_link(name_os)?.into_vec();
                if walk.links > LINKS_MAX || target.is_empty() {
                    return Err(Refusal::Links.into());
                }
                if target.first() == Some(&b'/') {
                    walk.here = self.root.clone();
                }
                walk.push(&target);
                if walk.ahead.iter().map(|name| name.len() + 1).sum::<usize>() > PATH_BYTES_MAX {
                    return Err(Refusal::Links.into());
                }
                Ok(true)
            }
            kind => match walk.missing {
                // What is deleted or a file hides the layers below already; no mark is needed.
                Missing::Leave | Missing::InventForMark(_) => Ok(false),
                Missing::Invent(times) if attributes::is_whiteout(kind, &stat) => {
                    walk.here.dir.unlink(name_os)?;
                    walk.here = self.invent(&walk.here, name, times)?;
                    let place = walk.here.clone();
                    self.mark_opaque(&place)?;
                    self.settle(&place.path);
                    Ok(true)
                }
                Missing::Invent(_) => {
                    Err(Refusal::Parent(shown(&join(&walk.here.path, name))).into())
                }
            },
        }
    }

    fn invent(&mut self, parent: &Place, name: &[u8], times: Times) -> Result<Place, Stop> {
        let name_os = OsStr::from_bytes(name);
        self.count(parent, name)?;
        parent.dir.create_dir(name_os, 0o755)?;
        let place = self.open_child(parent, name)?;
        // The umask, or a parent with the set-group-ID bit, may have had a say in what was made.
        attributes::own_plainly(&place.dir)?;
        self.known.insert(
            place.path.to_vec(),
            Known {
                times,
                invented: true,
                opaque: false,
            },
        );
        Ok(place)
    }

    /// Refuses a layer that makes more directories than can be remembered.
    fn count(&mut self, parent: &Place, name: &[u8]) -> Result<(), Refusal> {
        self.made_bytes += parent.path.len() + 1 + name.len();
        match self.made_bytes > DIR_PATHS_BYTES_MAX {
            false => Ok(()),
            true => Err(Refusal::Directories {
                limit: DIR_PATHS_BYTES_MAX,
            }),
        }
    }

    fn open_child(&mut self, parent: &Place, name: &[u8]) -> Result<Place, Stop> {
        let dir = parent.dir.open_dir(OsStr::from_bytes(name))?;
        let path = join(&parent.path, name);
        let place = Place {
            dir,
            path: Rc::from(path.as_slice()),
        };
        self.keep_open(&path, &place);
        Ok(place)
    }

    /// Makes the directory that an entry describes, or takes the one that is there; its attributes
    /// are the caller's to set. Whatever else had the name is gone.
    pub(super) fn make_dir(
        &mut self,
        parent: &Place,
        name: &[u8],
        times: Times,
    ) -> Result<Place, Stop> {
        let name_os = OsStr::from_bytes(name);
        self.count(parent, name)?;
        let mut replaced = false;
        match parent.dir.create_dir(name_os, 0o700) {
            Err(err) if err.is(Errno::EXIST) => {
                let stat = parent.dir.stat(name_os)?;
                if attributes::file_type(&stat) != FileType::Directory {
                    self.clear_the_way(parent, name)?;
                    parent.dir.create_dir(name_os, 0o700)?;
                    replaced = true;
                }
            }
            other => other?,
        }
        let place = self.open_child(parent, name)?;
        let known = self.known.entry(place.path.to_vec()).or_insert(Known {
            times,
            invented: false,
            opaque: false,
        });
        known.times = times;
        known.invented = false;
        if replaced {
            // A whiteout said that the lower directory is gone, or a file had taken its place, as
            // it does when layers are unpacked on top of one another: this one starts empty.
            self.mark_opaque(&place)?;
        }
        Ok(place)
    }

    /// Says that the root has an entry of its own, or was needed by one.
    pub(super) fn know_root(&mut self, times: Times, invented: bool) {
        let known = self.known.entry(Vec::new()).or_insert(Known {
            times,
            invented,
            opaque: false,
        });
        if !invented {
            known.times = times;
            known.invented = false;
        }
    }

    /// Removes whatever has the name, a whole tree if need be.
    pub(super) fn clear_the_way(&mut self, parent: &Place, name: &[u8]) -> Result<(), Stop> {
        let name_os = OsStr::from_bytes(name);
        let Some(stat) = parent.dir.try_stat(name_os)? else {
            return Ok(());
        };
        match attributes::file_type(&stat) {
            FileType::Directory => {
                self.open.clear();
                parent.dir.remove_tree(name_os)?;
                let path = join(&parent.path, name);
                for gone in self.below(&path) {
                    self.known.remove(&gone);
                }
                self.known.remove(&path);
            }
            FileType::Symlink => {
                self.open.clear();
                parent.dir.unlink(name_os)?;
            }
            _ => parent.dir.unlink(name_os)?,
        }
        Ok(())
    }

    /// Sets the times of all directories, which every entry in them has changed, and says which
    /// ones were invented and which hold whiteouts.
    pub(super) fn finish(mut self) -> Result<Remembered, Error> {
        let failed = Error::layer("set the times of the layer's directories");
        let known = std::mem::take(&mut self.known);
        // Empty while times are set, so that nothing is taken for opaque or invented any more.
        for (path, what) in &known {
            if path.is_empty() {
                attributes::set_dir_times(&self.root.dir, &what.times).map_err(&failed)?;
                continue;
            }
            let (parent, name) = split(path);
            let parent = self
                .enter(parent, Missing::Leave)
                .map_err(|stop| stop.at(path))?;
            if let Some(parent) = parent {
                attributes::set_times(&parent.dir, OsStr::from_bytes(name), &what.times)
                    .map_err(&failed)?;
            }
        }
        let any_opaque = self.any_opaque;
        self.known = known;
        let mut invented = Vec::new();
        for (path, what) in &self.known {
            // Below an opaque directory there is nothing to adopt from.
            let hidden = any_opaque && !path.is_empty() && self.hides_below(split(path).0);
            if what.invented && !hidden {
                invented.push(path.clone());
            }
        }
        let whited = std::mem::take(&mut self.whited).into_iter();
        let whited = whited.filter(|path| path.is_empty() || self.known.contains_key(path));
        let whited = whited.collect();
        Ok(Remembered { invented, whited })
    }
}

/// A walk in progress.
struct Walk {
    here: Place,
    /// Components still to go, the next one last.
    ahead: Vec<Vec<u8>>,
    links: usize,
    missing: Missing,
}

impl Walk {
    fn push(&mut self, path: &[u8]) {
        self.ahead
            .extend(path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
    }
}
