//! The way through a tree of any depth: no recursion, and a bounded number of descriptors.
//!
//! A tree is as deep and as wide as an image or a container made it. So the way down is a list on the
//! heap; only the nearest levels stay open, and a farther one is opened again from below by `..` and
//! must then be the directory that was left.

use std::ffi::{OsStr, OsString};

use rustix::{
    fs::{OFlags, ResolveFlags},
    io::Errno,
};

use crate::{Dir, Error, Result, dir::DIRECTORY};

/// Levels that stay open above the current one. A process has 1,024 descriptors by default and removes
/// several trees at once; images are hardly ever deeper than this.
const OPEN_LEVELS_MAX: usize = 32;

/// A directory on the way, and what is still to be entered there.
pub(crate) struct Level {
    pub(crate) dir: Dir,
    /// Its name in the directory above.
    pub(crate) name: OsString,
    /// Directories in it that were not entered yet.
    pub(crate) pending: Vec<OsString>,
}

pub(crate) struct Walk {
    pub(crate) here: Level,
    above: Vec<Above>,
}

struct Above {
    held: Held,
    name: OsString,
    pending: Vec<OsString>,
}

enum Held {
    Open(Dir),
    /// Closed, and known by its device and inode.
    Closed(u64, u64),
}

impl Walk {
    pub(crate) fn new(here: Level) -> Walk {
        Walk {
            here,
            above: Vec::new(),
        }
    }

    /// Opens the directory `name` of the current one: no link, and nothing that is mounted there
    /// (`EXDEV`). The kernel decides that: a bind of the same file system has the same device number.
    pub(crate) fn open(&self, name: &OsStr) -> Result<Dir> {
        open_same_mount(&self.here.dir, name, self.above.len() < OPEN_LEVELS_MAX)
    }

    /// Goes down into `level`, which [`Walk::open`] opened.
    pub(crate) fn descend(&mut self, level: Level) -> Result<()> {
        let up = std::mem::replace(&mut self.here, level);
        self.above.push(Above {
            held: Held::Open(up.dir),
            name: up.name,
            pending: up.pending,
        });
        let far = self.above.len().checked_sub(OPEN_LEVELS_MAX + 1);
        if let Some(far) = far.and_then(|far| self.above.get_mut(far))
            && let Held::Open(dir) = &far.held
        {
            let stat = dir.self_stat()?;
            far.held = Held::Closed(stat.st_dev, stat.st_ino);
        }
        Ok(())
    }

    /// Goes up one level and hands out the one that was left; `None` at the top.
    pub(crate) fn ascend(&mut self) -> Result<Option<Level>> {
        let Some(above) = self.above.pop() else {
            return Ok(None);
        };
        let dir = match above.held {
            Held::Open(dir) => dir,
            Held::Closed(device, inode) => self.parent(device, inode)?,
        };
        let up = Level {
            dir,
            name: above.name,
            pending: above.pending,
        };
        Ok(Some(std::mem::replace(&mut self.here, up)))
    }

    /// Goes up to the nearest level that can be found again; whether there is one. Where a directory was moved
    /// on the way down it is looked for from `top` on, by the names that led there. What was still to be
    /// entered in one that is not found is left: it is somewhere else by now.
    pub(crate) fn rise(&mut self, top: &Dir) -> Result<bool> {
        while let Some(Above {
            held,
            name,
            pending,
        }) = self.above.pop()
        {
            let dir = match held {
                Held::Open(dir) => Some(dir),
                Held::Closed(device, inode) => match self.parent(device, inode) {
                    Ok(dir) => Some(dir),
                    Err(err) if elsewhere(err.errno()) => {
                        self.again(top, &name, (device, inode))?
                    }
                    Err(err) => return Err(err),
                },
            };
            if let Some(dir) = dir {
                self.here = Level { dir, name, pending };
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The level `name` below those that are left above, if it is where it was.
    fn again(&self, top: &Dir, name: &OsStr, inode: (u64, u64)) -> Result<Option<Dir>> {
        // The first of all is `top` itself, and has no name there.
        let above = self.above.iter().skip(1).map(|above| &*above.name);
        let mut dir = top.clone();
        for name in above.chain(std::iter::once(name)) {
            dir = match open_same_mount(&dir, name, false) {
                Ok(dir) => dir,
                Err(err) if elsewhere(err.errno()) => return Ok(None),
                Err(err) => return Err(err),
            };
        }
        let stat = dir.self_stat()?;
        Ok(((stat.st_dev, stat.st_ino) == inode).then_some(dir))
    }

    fn parent(&self, device: u64, inode: u64) -> Result<Dir> {
        let here = &self.here.dir;
        let up = OsStr::new("..");
        let fd = here.openat2(up, DIRECTORY, 0, ResolveFlags::NO_XDEV)?;
        let dir = here.below(fd);
        let stat = dir.self_stat()?;
        if (stat.st_dev, stat.st_ino) == (device, inode) {
            Ok(dir)
        } else {
            // Somebody moved a directory of this tree meanwhile: `..` is not where we came from.
            Err(Error::new("openat2", here.shown(up), Errno::STALE))
        }
    }
}

/// Whether what was there when it was listed is mounted over, gone, moved or replaced.
pub(crate) fn elsewhere(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::XDEV | Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE
    )
}

/// Opens `name` as [`Walk::open`] does. `named` says whether it gets a label of its own: spelling out
/// every level of a deep tree would take memory by the square of its depth.
pub(crate) fn open_same_mount(dir: &Dir, name: &OsStr, named: bool) -> Result<Dir> {
    let flags = DIRECTORY | OFlags::NOFOLLOW;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    let fd = dir.openat2(name, flags, 0, resolve)?;
    Ok(if named {
        dir.child(fd, name)
    } else {
        dir.below(fd)
    })
}
